//! Why a command failed: one sentence for people, and an exit code for scripts.

use std::{fmt, io, process::ExitCode};

use dekseal::{Error, ErrorKind, FileFault, StoreFault};

/// The exit codes. `dekseal --help` and the man page list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The data was refused: it was changed, is not what it should be, or belongs to another key or context.
    Data = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A key, a keyring or a root cannot be used.
    Key = 3,
    /// The operating system or a database failed.
    Io = 4,
}

/// A failed command. The message is one sentence that names the thing, and says what to do next. It holds no secret.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }

    pub(crate) fn data(message: impl Into<String>) -> Self {
        Self::new(Exit::Data, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn key(message: impl Into<String>) -> Self {
        Self::new(Exit::Key, message)
    }

    pub(crate) fn io(message: impl Into<String>) -> Self {
        Self::new(Exit::Io, message)
    }

    /// A failure that was reported before: only its exit code counts.
    pub(crate) fn reported(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// An error of the operating system about `subject`, such as a path.
    pub(crate) fn of_io(subject: impl fmt::Display, error: &io::Error) -> Self {
        Self::of_named_io(error).about(subject)
    }

    /// An error of the operating system whose text names its subject.
    pub(crate) fn of_named_io(error: &io::Error) -> Self {
        // The readers and writers of payloads hold their error inside.
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => Self::from(error),
            None => Self::io(match io_hint(error.kind()) {
                Some(hint) => format!("{error}; {hint}"),
                None => error.to_string(),
            }),
        }
    }

    /// The same failure, whose message begins with `subject`.
    pub(crate) fn about(self, subject: impl fmt::Display) -> Self {
        let Self { exit, message } = self;
        Self::new(exit, format!("{subject}: {message}"))
    }

    /// Prints the message to standard error.
    #[expect(clippy::print_stderr, reason = "the one place that reports a failed command")]
    pub(crate) fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("dekseal: {}", self.message);
        }
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            message.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        if let Some(hint) = hint(error) {
            message.push_str("; ");
            message.push_str(&hint);
        }
        Self::new(exit(error.kind()), message)
    }
}

fn exit(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::MalformedKeyId | ErrorKind::Context(_) | ErrorKind::DeletionDays => Exit::Usage,
        ErrorKind::NotABlob(_)
        | ErrorKind::DamagedBlob
        | ErrorKind::KeyMismatch
        | ErrorKind::AuthenticationFailed
        | ErrorKind::NotAPayload(_)
        | ErrorKind::PayloadTooLong
        | ErrorKind::ForeignHeaderCopy => Exit::Data,
        ErrorKind::File(FileFault::Io | FileFault::Exists | FileFault::Conflict | FileFault::NotSynced)
        | ErrorKind::Store(
            StoreFault::Deadline
            | StoreFault::Unavailable
            | StoreFault::Refused
            | StoreFault::OutcomeUnknown
            | StoreFault::Conflict,
        )
        | ErrorKind::Keyring
        | ErrorKind::KeyringUnavailable
        | ErrorKind::Randomness(_)
        | ErrorKind::ImplausibleTime => Exit::Io,
        _ => Exit::Key,
    }
}

/// What to do about an error of the operating system.
fn io_hint(kind: io::ErrorKind) -> Option<&'static str> {
    Some(match kind {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "check the permissions",
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => "name a file",
        io::ErrorKind::AlreadyExists => "name another file",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "make room, and run the command again"
        }
        _ => return None,
    })
}

/// What to do about an error.
fn hint(error: &Error) -> Option<String> {
    let key = error.key_id().map_or_else(|| "KEY_ID".into(), |id| id.to_string());
    Some(match error.kind() {
        ErrorKind::MalformedKeyId => "a key ID has 36 characters, as `dekseal key list` prints them".into(),
        ErrorKind::KeyDisabled => format!("`dekseal key enable {key}` enables it"),
        ErrorKind::KeyPendingDeletion => format!("`dekseal key cancel-deletion {key}` keeps it"),
        ErrorKind::KeyVersionRetired => format!("`dekseal key set-min-version {key} VERSION` brings it back"),
        ErrorKind::UnknownKey => "`dekseal key list` shows the keys of the keyring".into(),
        ErrorKind::AuthenticationFailed => "check the context and the keyring, or restore the data".into(),
        ErrorKind::DamagedBlob | ErrorKind::NotAPayload(_) => "check where it came from, or restore the data".into(),
        ErrorKind::GracePeriod => "sweep again after that period, and destroy then".into(),
        ErrorKind::VersionInUse => format!("first run `dekseal key set-min-version {key} VERSION`"),
        ErrorKind::File(FileFault::WrongRoot) | ErrorKind::Store(StoreFault::WrongRoot) => {
            "pass this root with --root or --reading-root".into()
        }
        ErrorKind::Store(StoreFault::Unavailable | StoreFault::Deadline) => "try again when the store answers".into(),
        ErrorKind::Store(StoreFault::OutcomeUnknown) => format!("look with `dekseal key show {key}` before you retry"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_error_inside_an_io_error_is_refused_data() {
        let error = io::Error::from(Error::from(ErrorKind::AuthenticationFailed));
        let failure = Failure::of_io("file", &error);
        assert_eq!(failure.exit, Exit::Data);
        assert!(failure.to_string().starts_with("file: authentication failed; "));
    }
}
