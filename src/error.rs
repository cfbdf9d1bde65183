//! One opaque error with a kind.

mod kind;

use alloc::{boxed::Box, sync::Arc};
use core::fmt;
#[cfg(feature = "std")]
use std::path::{Path, PathBuf};

#[cfg(feature = "file-keyring")]
pub use kind::FileFault;
#[cfg(feature = "store-keyring")]
pub use kind::StoreFault;
pub use kind::{BlobRule, ContextRule, ErrorKind, PayloadRule, RandomnessFault};

/// The length of a key ID. This module is below `key_id`, so errors hold the bytes of checked IDs.
const KEY_ID_LEN: usize = 36;

/// Why an operation failed.
///
/// Decide what to do by [`kind`](Error::kind); the text is for people. Both the text and the accessors name the thing
/// that failed: key ID, key version, path. None of them holds a key, a DEK or a value of an encryption context.
///
/// # Examples
///
/// ```
/// use dekseal::{ErrorKind, KeyId};
///
/// let error = "not a key ID".parse::<KeyId>().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::MalformedKeyId);
/// ```
pub struct Error {
    kind: ErrorKind,
    /// Boxed, so that a `Result` stays small.
    details: Option<Box<Details>>,
}

/// The details that an error holds besides its kind. None of them is secret.
#[derive(Clone, Default)]
struct Details {
    /// The key that was requested or expected. `key_id.rs` returns it as a `KeyId`.
    key_id: Option<[u8; KEY_ID_LEN]>,
    key_version: Option<u32>,
    newest_key_version: Option<u32>,
    /// The key that was found instead.
    found_key_id: Option<[u8; KEY_ID_LEN]>,
    found_key_version: Option<u32>,
    #[cfg(feature = "std")]
    path: Option<PathBuf>,
    may_be_truncated: bool,
    source: Option<Arc<dyn core::error::Error + Send + Sync>>,
}

impl Error {
    /// The kind of the failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The key version that was requested or expected, if the error is about one.
    ///
    /// # Examples
    ///
    /// The error that a host's own keyring returns if a version is missing:
    ///
    /// ```
    /// use dekseal::{Error, ErrorKind};
    ///
    /// let error = Error::from(ErrorKind::UnknownKeyVersion).with_key_version(7).with_newest_key_version(5);
    /// assert_eq!((error.key_version(), error.newest_key_version()), (Some(7), Some(5)));
    /// assert_eq!(error.found_key_version(), None);
    /// # #[cfg(feature = "std")]
    /// assert_eq!(error.path(), None);
    /// assert_eq!(error.to_string(), "unknown key version (version 7, newest known version 5)");
    /// ```
    #[must_use]
    pub fn key_version(&self) -> Option<u32> {
        self.details.as_ref()?.key_version
    }

    /// The newest version of that key that the keyring knows, if a version was not found.
    #[must_use]
    pub fn newest_key_version(&self) -> Option<u32> {
        self.details.as_ref()?.newest_key_version
    }

    /// The key version that was found instead of the expected one.
    #[must_use]
    pub fn found_key_version(&self) -> Option<u32> {
        self.details.as_ref()?.found_key_version
    }

    /// The file that the operation failed on.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.details.as_ref()?.path.as_deref()
    }

    /// An error of the store behind an implementation of [`Keyring`](crate::Keyring). Its kind is
    /// [`ErrorKind::Keyring`], and [`source`](core::error::Error::source) returns `source`.
    ///
    /// # Security
    ///
    /// Logs of errors often include their sources: `source` must not hold key material.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::error::Error as _;
    ///
    /// use dekseal::{Error, ErrorKind};
    ///
    /// let error = Error::keyring("the database did not answer");
    /// assert_eq!(error.kind(), ErrorKind::Keyring);
    /// assert_eq!(error.source().unwrap().to_string(), "the database did not answer");
    /// ```
    #[must_use]
    pub fn keyring(source: impl Into<Box<dyn core::error::Error + Send + Sync>>) -> Self {
        Self::from(ErrorKind::Keyring).with_source(source)
    }

    /// The same error, naming the key version that was requested.
    #[must_use]
    pub fn with_key_version(mut self, key_version: u32) -> Self {
        self.details().key_version = Some(key_version);
        self
    }

    /// The same error, naming the newest version of the key that the keyring knows.
    #[must_use]
    pub fn with_newest_key_version(mut self, key_version: u32) -> Self {
        self.details().newest_key_version = Some(key_version);
        self
    }

    pub(crate) fn with_key_id_bytes(mut self, key_id: &[u8; KEY_ID_LEN]) -> Self {
        self.details().key_id = Some(*key_id);
        self
    }

    pub(crate) fn with_found_bytes(mut self, key_id: &[u8; KEY_ID_LEN], key_version: Option<u32>) -> Self {
        let details = self.details();
        details.found_key_id = Some(*key_id);
        details.found_key_version = key_version;
        self
    }

    #[cfg(feature = "std")]
    pub(crate) fn with_path(mut self, path: &Path) -> Self {
        self.details().path = Some(path.to_path_buf());
        self
    }

    /// The same error, saying that the payload may be truncated: its end is missing or not authentic.
    pub(crate) fn may_be_truncated(mut self) -> Self {
        self.details().may_be_truncated = true;
        self
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn core::error::Error + Send + Sync>>) -> Self {
        self.details().source = Some(source.into().into());
        self
    }

    /// A copy of this error, for another call that waited for the same query.
    #[cfg(feature = "store-keyring")]
    pub(crate) fn duplicate(&self) -> Self {
        Self {
            kind: self.kind,
            details: self.details.clone(),
        }
    }

    /// The same details with another kind.
    #[cfg(feature = "store-keyring")]
    pub(crate) fn with_kind(self, kind: ErrorKind) -> Self {
        Self { kind, ..self }
    }

    pub(crate) fn key_id_bytes(&self) -> Option<[u8; KEY_ID_LEN]> {
        self.details.as_ref()?.key_id
    }

    pub(crate) fn found_key_id_bytes(&self) -> Option<[u8; KEY_ID_LEN]> {
        self.details.as_ref()?.found_key_id
    }

    fn details(&mut self) -> &mut Details {
        self.details.get_or_insert_default()
    }

    /// An error of the operating system while a file was read or written.
    #[cfg(feature = "file-keyring")]
    pub(crate) fn io(source: std::io::Error) -> Self {
        Self::file(FileFault::Io, source)
    }

    /// A fault of a keyring file with the operating system's error as its source.
    #[cfg(feature = "file-keyring")]
    pub(crate) fn file(fault: FileFault, source: std::io::Error) -> Self {
        Self::from(ErrorKind::File(fault)).with_source(source)
    }
}

#[cfg(feature = "file-keyring")]
impl From<FileFault> for Error {
    fn from(fault: FileFault) -> Self {
        ErrorKind::File(fault).into()
    }
}

#[cfg(feature = "store-keyring")]
impl From<StoreFault> for Error {
    fn from(fault: StoreFault) -> Self {
        ErrorKind::Store(fault).into()
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, details: None }
    }
}

/// The readers and writers of payloads return errors of the kind [`InvalidData`](std::io::ErrorKind::InvalidData), with
/// the [`Error`] inside.
#[cfg(feature = "std")]
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        match &self.details {
            Some(details) => details.fmt(f),
            None => Ok(()),
        }
    }
}

/// ` (key …, version …, newest known version …; found key …, version …): path`
impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A key ID is ASCII by construction.
        fn text(key_id: &[u8; KEY_ID_LEN]) -> &str {
            core::str::from_utf8(key_id).unwrap_or("?")
        }
        let numbers = [
            ("version", self.key_version),
            ("newest known version", self.newest_key_version),
        ];
        let found = self.found_key_id.as_ref().map(text);
        if self.may_be_truncated {
            f.write_str(": the payload was changed, or it is truncated, or its writer never finished it")?;
        }
        let mut before = " (";
        if let Some(key_id) = &self.key_id {
            write!(f, "{before}key {}", text(key_id))?;
            before = ", ";
        }
        for (name, number) in numbers {
            if let Some(number) = number {
                write!(f, "{before}{name} {number}")?;
                before = ", ";
            }
        }
        if let Some(found) = found {
            write!(f, "{before}found key {found}")?;
            before = ", ";
        }
        if let Some(version) = self.found_key_version {
            let found = if found.is_some() { "" } else { "found " };
            write!(f, "{before}{found}version {version}")?;
            before = ", ";
        }
        if before == ", " {
            f.write_str(")")?;
        }
        #[cfg(feature = "std")]
        if let Some(path) = &self.path {
            write!(f, ": {}", path.display())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.details.as_ref().and_then(|details| details.source.as_ref());
        let mut shown = f.debug_struct("Error");
        shown.field("kind", &self.kind).field("text", &format_args!("{self}"));
        if let Some(source) = source {
            shown.field("source", source);
        }
        shown.finish()
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        self.details.as_ref()?.source.as_deref().map(|source| source as _)
    }
}
