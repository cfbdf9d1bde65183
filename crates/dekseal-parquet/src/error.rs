//! Errors.

use std::{error, fmt};

/// What went wrong, and on which thing.
///
/// The libraries above return it inside their own errors. Follow [`source`](error::Error::source) to find it there.
/// Neither the text nor a source contains a key.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    /// What the error is about, for the text: an identifier, a path.
    subject: String,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

/// The kinds of [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The context of the files has no pair, or uses the key `purpose`, which this crate sets.
    Context,
    /// The connection has custom configuration. Clients are shared by connections that differ only there, so nothing
    /// may depend on it.
    CustomConfiguration,
    /// The master key identifier is not a key ID of dekseal.
    MasterKeyId,
    /// A Parquet key has another length than 16, 24 or 32 bytes.
    KeyLength,
    /// A wrapped key is not base64 of a payload of the right length.
    WrappedKey,
    /// dekseal refused: the kind says why.
    Dekseal(dekseal::ErrorKind),
    /// Key material is not of the known form.
    KeyMaterial,
    /// There is no key material under this reference.
    KeyReference,
    /// The key material beside a file cannot be read or written.
    Io,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, subject: impl Into<String>) -> Self {
        Self {
            kind,
            subject: subject.into(),
            source: None,
        }
    }

    pub(crate) fn with(mut self, source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What went wrong. Decide by this.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = &self.subject;
        match self.kind {
            ErrorKind::Context => write!(f, "context of Parquet files: {subject}"),
            ErrorKind::CustomConfiguration => {
                f.write_str("the KMS connection has custom configuration, which dekseal does not use")
            }
            ErrorKind::MasterKeyId => write!(f, "master key identifier {subject:?} is not a key ID"),
            ErrorKind::KeyLength => write!(f, "a Parquet key has 16, 24 or 32 bytes, not {subject}"),
            ErrorKind::WrappedKey => write!(f, "wrapped key: {subject}"),
            ErrorKind::Dekseal(kind) => write!(f, "{subject}: {kind}"),
            ErrorKind::KeyMaterial => write!(f, "key material: {subject}"),
            ErrorKind::KeyReference => write!(f, "no key material under the reference {subject:?}"),
            ErrorKind::Io => write!(f, "key material {subject}"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

impl From<Error> for parquet_key_management::errors::Error {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

#[cfg(feature = "parquet")]
impl From<Error> for parquet::errors::ParquetError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}
