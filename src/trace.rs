//! One event for each operation, with the feature `tracing`. Without the feature, [`Event`] is an empty type, and its
//! methods do nothing.
//!
//! docs/guide/logging.md lists the events. An event is safe to log: it contains no key, no DEK and no value of a
//! context.

pub(crate) use event::{Batch, Event};

/// A public operation makes its event and runs in [`Event::of`]. Steps that several operations share take the event and
/// fill it in, so each public call emits one event.
impl Event<'_> {
    /// Runs the operation, which fills in the event, then emits it.
    #[inline]
    pub(crate) fn of<T, E: event::Failure>(
        mut self,
        operation: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let result = operation(&mut self);
        self.emit(&result);
        result
    }
}

#[cfg(feature = "tracing")]
mod event {
    use core::fmt;

    use tracing::Level;

    use crate::{
        context::EncryptionContext,
        error::{Error, ErrorKind},
        key_id::KeyId,
    };

    /// The facts about an operation. They are formatted only if a subscriber is interested.
    pub(crate) struct Event<'a> {
        operation: &'static str,
        key_id: Option<&'a KeyId>,
        key_version: Option<u32>,
        context: Option<&'a EncryptionContext>,
        new_key_id: Option<&'a KeyId>,
        new_key_version: Option<u32>,
        new_context: Option<&'a EncryptionContext>,
        count: Option<usize>,
        failed: Option<usize>,
    }

    impl<'a> Event<'a> {
        #[inline]
        pub(crate) fn new(
            operation: &'static str,
            key_id: Option<&'a KeyId>,
            context: Option<&'a EncryptionContext>,
        ) -> Self {
            Self {
                operation,
                key_id,
                key_version: None,
                context,
                new_key_id: None,
                new_key_version: None,
                new_context: None,
                count: None,
                failed: None,
            }
        }

        /// The DEK is sealed under another key, and in another context if there is one.
        #[inline]
        pub(crate) fn to(&mut self, key_id: &'a KeyId, context: Option<&'a EncryptionContext>) {
            self.new_key_id = Some(key_id);
            self.new_context = context;
        }

        /// The operation opens a blob that names this version.
        #[inline]
        pub(crate) fn opens(&mut self, key_version: u32) {
            self.key_version = Some(key_version);
        }

        /// The operation seals under this version.
        #[inline]
        pub(crate) fn seals(&mut self, key_version: u32) {
            match self.new_key_id {
                None => self.key_version = Some(key_version),
                Some(_) => self.new_key_version = Some(key_version),
            }
        }

        #[inline]
        pub(crate) fn count(&mut self, count: usize) {
            self.count = Some(count);
        }

        #[inline]
        pub(crate) fn emit<T, E: Failure>(&self, result: &Result<T, E>) {
            self.say(match result {
                Ok(_) => Outcome::Done,
                Err(error) => error.outcome(),
            });
        }

        pub(crate) fn batch(self) -> Batch<'a> {
            Batch {
                event: self,
                worst: Outcome::Done,
                count: 0,
                failed: 0,
            }
        }

        fn say(&self, outcome: Outcome) {
            // The level is part of the static metadata that a subscriber filters by before any field is formatted.
            macro_rules! event {
                ($level:expr) => {
                    tracing::event!(
                        target: "dekseal",
                        $level,
                        operation = %self.operation,
                        key_id = self.key_id.map(tracing::field::display),
                        key_version = self.version_of(outcome),
                        context = self.context.map(Fingerprint).map(tracing::field::display),
                        new_key_id = self.new_key_id.map(tracing::field::display),
                        new_key_version = self.new_key_version,
                        new_context = self.new_context.map(Fingerprint).map(tracing::field::display),
                        count = self.count,
                        failed = self.failed,
                        outcome = %outcome,
                    )
                };
            }
            match outcome.level() {
                Level::DEBUG => event!(Level::DEBUG),
                Level::INFO => event!(Level::INFO),
                _ => event!(Level::WARN),
            }
        }

        /// The version, unless it belongs to another key than the one that the event names.
        fn version_of(&self, outcome: Outcome) -> Option<u32> {
            self.key_version
                .filter(|_| outcome != Outcome::Refused(ErrorKind::KeyMismatch))
        }
    }

    /// Counts results, and emits one event for all of them when it is dropped.
    pub(crate) struct Batch<'a> {
        event: Event<'a>,
        worst: Outcome,
        count: usize,
        failed: usize,
    }

    impl Batch<'_> {
        #[inline]
        pub(crate) fn note<T>(&mut self, result: &Result<T, Error>) {
            self.count = self.count.saturating_add(1);
            if let Err(error) = result {
                self.failed = self.failed.saturating_add(1);
                let outcome = error.outcome();
                // `tracing` orders levels from `ERROR`, the lowest, to `TRACE`.
                if outcome.level() < self.worst.level() {
                    self.worst = outcome;
                }
            }
        }
    }

    impl Drop for Batch<'_> {
        fn drop(&mut self) {
            self.event.count = Some(self.count);
            self.event.failed = Some(self.failed);
            self.event.say(self.worst);
        }
    }

    #[derive(Clone, Copy, PartialEq)]
    pub(crate) enum Outcome {
        Done,
        Refused(ErrorKind),
        /// Reading or writing failed.
        #[cfg(feature = "std")]
        Io,
    }

    impl Outcome {
        /// The levels of the table in docs/guide/logging.md.
        fn level(self) -> Level {
            match self {
                Self::Done => Level::DEBUG,
                #[cfg(feature = "std")]
                Self::Io => Level::WARN,
                Self::Refused(kind) => match kind {
                    ErrorKind::AuthenticationFailed
                    | ErrorKind::DamagedBlob
                    | ErrorKind::KeyMismatch
                    | ErrorKind::KeyVersionRetired
                    | ErrorKind::KeyVersionDestroyed
                    | ErrorKind::RollbackUnresolved
                    | ErrorKind::KeyDisabled
                    | ErrorKind::KeyPendingDeletion
                    | ErrorKind::Randomness(_)
                    | ErrorKind::Keyring
                    | ErrorKind::KeyringUnavailable => Level::WARN,
                    #[cfg(feature = "file-keyring")]
                    ErrorKind::File(_) => Level::WARN,
                    #[cfg(feature = "store-keyring")]
                    ErrorKind::Store(_) => Level::WARN,
                    #[cfg(feature = "std")]
                    ErrorKind::ForeignHeaderCopy => Level::WARN,
                    ErrorKind::MalformedKeyId
                    | ErrorKind::Context(_)
                    | ErrorKind::NotABlob(_)
                    | ErrorKind::UnknownKey
                    | ErrorKind::UnknownKeyVersion
                    | ErrorKind::InvalidMaterial
                    | ErrorKind::DuplicateKeyVersion
                    | ErrorKind::KeyExists
                    | ErrorKind::ForeignKeys
                    | ErrorKind::TooManyVersions
                    | ErrorKind::MinVersion
                    | ErrorKind::VersionInUse
                    | ErrorKind::GracePeriod
                    | ErrorKind::ImplausibleTime
                    | ErrorKind::KeyNotDisabled
                    | ErrorKind::KeyNotEnabled
                    | ErrorKind::DeletionDays
                    | ErrorKind::DeletionScheduled
                    | ErrorKind::DeletionNotScheduled
                    | ErrorKind::DeletionNotDue
                    | ErrorKind::NotAPayload(_)
                    | ErrorKind::PayloadTooLong
                    | ErrorKind::BufferLength => Level::INFO,
                },
            }
        }
    }

    impl fmt::Display for Outcome {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self {
                Self::Done => f.write_str("ok"),
                #[cfg(feature = "std")]
                Self::Io => f.write_str("Io"),
                Self::Refused(kind) => write!(f, "{kind:?}"),
            }
        }
    }

    /// The error of an operation. An event shows its kind, never its source.
    pub(crate) trait Failure {
        fn outcome(&self) -> Outcome;
    }

    impl Failure for Error {
        fn outcome(&self) -> Outcome {
            Outcome::Refused(self.kind())
        }
    }

    #[cfg(feature = "std")]
    impl Failure for std::io::Error {
        fn outcome(&self) -> Outcome {
            let ours = self.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
            ours.map_or(Outcome::Io, Failure::outcome)
        }
    }

    /// The first 8 bytes of a context's SHA-256, in hex.
    struct Fingerprint<'a>(&'a EncryptionContext);

    impl fmt::Display for Fingerprint<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mut bytes = self.0.sha256().iter().take(8);
            bytes.try_for_each(|byte| write!(f, "{byte:02x}"))
        }
    }
}

#[cfg(not(feature = "tracing"))]
mod event {
    use core::marker::PhantomData;

    use crate::{context::EncryptionContext, error::Error, key_id::KeyId};

    pub(crate) struct Event<'a>(PhantomData<&'a ()>);

    impl<'a> Event<'a> {
        #[inline(always)]
        pub(crate) fn new(
            _operation: &'static str,
            _key_id: Option<&'a KeyId>,
            _context: Option<&'a EncryptionContext>,
        ) -> Self {
            Self(PhantomData)
        }

        #[inline(always)]
        pub(crate) fn to(&mut self, _key_id: &'a KeyId, _context: Option<&'a EncryptionContext>) {}

        #[inline(always)]
        pub(crate) fn opens(&mut self, _key_version: u32) {}

        #[inline(always)]
        pub(crate) fn seals(&mut self, _key_version: u32) {}

        #[inline(always)]
        pub(crate) fn count(&mut self, _count: usize) {}

        #[inline(always)]
        pub(crate) fn emit<T, E>(&self, _result: &Result<T, E>) {}

        #[inline(always)]
        pub(crate) fn batch(self) -> Batch<'a> {
            Batch(PhantomData)
        }
    }

    pub(crate) struct Batch<'a>(PhantomData<&'a ()>);

    impl Batch<'_> {
        #[inline(always)]
        pub(crate) fn note<T>(&mut self, _result: &Result<T, Error>) {}
    }

    /// The error of an operation.
    pub(crate) trait Failure {}

    impl<E> Failure for E {}
}
