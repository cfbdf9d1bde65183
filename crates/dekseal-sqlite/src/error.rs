//! Whether a change was made, by the error of its statement.

use std::{error::Error, fmt};

use dekseal::store::{StoreError, StoreErrorKind};
use rusqlite::ErrorCode;

/// The reason that a statement failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Sqlite(rusqlite::Error),
    /// The deadline passed between two statements.
    Deadline,
    /// SQLite did not accept this setting and kept this value.
    Setting(&'static str, String),
    /// The table has a revision of this length.
    Revision(usize),
    /// The table has this text for a key ID.
    KeyId(String),
}

impl Failure {
    /// Whether another connection held a lock. The statement changed nothing, and can be tried again at once.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(
            self.code(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed)
        )
    }

    /// The error of a statement that only reads.
    pub(crate) fn of_read(self) -> StoreError {
        StoreError::new(self.kind(), self)
    }

    /// The error of a statement that may have changed data. Nothing changed if SQLite refused the statement or rolled
    /// it back. If a write to the disk failed, the change may come back after a crash.
    pub(crate) fn of_write(self) -> StoreError {
        match self.changed_nothing() {
            true => self.of_read(),
            false => self.of_read().with_outcome_unknown(),
        }
    }

    fn changed_nothing(&self) -> bool {
        let refused = match self {
            Self::Sqlite(_) => matches!(
                self.code(),
                Some(
                    ErrorCode::AuthorizationForStatementDenied
                        | ErrorCode::CannotOpen
                        | ErrorCode::ConstraintViolation
                        | ErrorCode::DiskFull
                        | ErrorCode::NotADatabase
                        | ErrorCode::OperationInterrupted
                        | ErrorCode::PermissionDenied
                        | ErrorCode::ReadOnly
                        | ErrorCode::TooBig
                        // There is no such table or column.
                        | ErrorCode::Unknown
                )
            ),
            Self::Deadline | Self::Setting(..) | Self::Revision(_) | Self::KeyId(_) => true,
        };
        refused || self.is_busy()
    }

    fn kind(&self) -> StoreErrorKind {
        if self.is_busy() || matches!(self, Self::Deadline) {
            return StoreErrorKind::Deadline;
        }
        match self.code() {
            Some(ErrorCode::OperationInterrupted) => StoreErrorKind::Deadline,
            Some(ErrorCode::CannotOpen | ErrorCode::DiskFull | ErrorCode::OutOfMemory | ErrorCode::SystemIoFailure) => {
                StoreErrorKind::Unavailable
            }
            _ => StoreErrorKind::Refused,
        }
    }

    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code(),
            _ => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(error) => error.fmt(f),
            Self::Deadline => f.write_str("the deadline passed"),
            Self::Setting(name, value) => write!(f, "SQLite does not set {name}, which is {value:?}"),
            Self::Revision(length) => write!(f, "the table has a revision of {length} bytes"),
            Self::KeyId(text) => write!(f, "the table has a malformed key ID: {text:?}"),
        }
    }
}

impl Error for Failure {}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<rusqlite::types::FromSqlError> for Failure {
    fn from(error: rusqlite::types::FromSqlError) -> Self {
        Self::Sqlite(error.into())
    }
}
