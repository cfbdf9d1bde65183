//! The errors of a store.

use alloc::boxed::Box;
use core::fmt;

/// Why a call to a [`KeyStore`](super::KeyStore) failed, and whether its change may have been made anyway.
///
/// # Examples
///
/// ```
/// use std::error::Error as _;
///
/// use dekseal::store::{StoreError, StoreErrorKind};
///
/// let error = StoreError::new(StoreErrorKind::Unavailable, "connection reset").with_outcome_unknown();
/// assert_eq!(error.kind(), StoreErrorKind::Unavailable);
/// assert!(error.is_outcome_unknown());
/// assert_eq!(error.to_string(), "the store is not available: the change may or may not have been made");
/// assert_eq!(error.source().unwrap().to_string(), "connection reset");
/// ```
pub struct StoreError {
    kind: StoreErrorKind,
    outcome_unknown: bool,
    source: Option<Box<dyn core::error::Error + Send + Sync>>,
}

/// The kinds of [`StoreError`].
///
/// # Examples
///
/// ```
/// use dekseal::store::{StoreError, StoreErrorKind};
///
/// let error = StoreError::from(StoreErrorKind::Conflict);
/// assert_eq!(error.to_string(), "the store has another document than expected");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The present revision is not the expected one, and nothing was changed. Read the document again and start over.
    Conflict,
    /// The deadline passed before the store answered.
    Deadline,
    /// The store cannot be reached, or cannot serve now. Try again later.
    Unavailable,
    /// The store does not allow this: a table or a privilege is missing, a password is wrong, a certificate does not
    /// verify, or a value cannot be stored. [`source`](core::error::Error::source) says which. Do not retry.
    Refused,
}

impl StoreError {
    /// Makes an error with a source. The source must not contain a password, because logs often include it.
    #[must_use]
    pub fn new(kind: StoreErrorKind, source: impl Into<Box<dyn core::error::Error + Send + Sync>>) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::from(kind)
        }
    }

    /// The same error, for a change that may have been made, or may still be made: the request was sent, and no answer
    /// came.
    #[must_use]
    pub fn with_outcome_unknown(self) -> Self {
        Self {
            outcome_unknown: true,
            ..self
        }
    }

    /// The kind of the failure.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether the change may have been made, or may still be made. Read the document to find out. While the old
    /// document is there, the request may still be under way.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        self.outcome_unknown
    }
}

impl From<StoreErrorKind> for StoreError {
    fn from(kind: StoreErrorKind) -> Self {
        Self {
            kind,
            outcome_unknown: false,
            source: None,
        }
    }
}

impl fmt::Display for StoreErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Conflict => "the store has another document than expected",
            Self::Deadline => "the store did not answer before the deadline",
            Self::Unavailable => "the store is not available",
            Self::Refused => "the store refused the request",
        })
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        match self.outcome_unknown {
            true => f.write_str(": the change may or may not have been made"),
            false => Ok(()),
        }
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("StoreError");
        shown.field("kind", &self.kind);
        shown.field("outcome_unknown", &self.outcome_unknown);
        if let Some(source) = &self.source {
            shown.field("source", source);
        }
        shown.finish()
    }
}

impl core::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
