//! Whether a change was made, by the error of PostgreSQL or of the connection.

use std::{error::Error, fmt, io};

use dekseal::store::{StoreError, StoreErrorKind};
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_rustls::rustls;

/// The error of a statement whose deadline has passed: see `Writes`.
const TOO_LATE: SqlState = SqlState::DIVISION_BY_ZERO;

/// The errors of a prepared statement that no longer fits its table, or that the session has lost.
const OUTDATED: [SqlState; 2] = [SqlState::FEATURE_NOT_SUPPORTED, SqlState::INVALID_SQL_STATEMENT_NAME];

/// The reason that a request failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There was no connection, so nothing was sent.
    Connect(tokio_postgres::Error),
    /// The request was sent.
    Query(tokio_postgres::Error),
    /// The deadline passed before the request was sent.
    Late,
    /// The deadline passed after the request may have been sent.
    Unanswered,
    /// The system refused what the connection needs. Nothing was sent.
    System(io::Error),
    /// A library panicked.
    Panic,
    /// The server did not accept this setting and kept this value.
    Setting(&'static str, String),
    /// The table has a revision of this length.
    Revision(usize),
    /// The table has this text for a key ID.
    KeyId(String),
}

impl Failure {
    /// The error of a request that only reads.
    pub(crate) fn of_read(self) -> StoreError {
        StoreError::new(self.kind(), self)
    }

    /// The error of a request that may have changed something.
    pub(crate) fn of_write(self) -> StoreError {
        let kind = match (self.kind(), self.state()) {
            // A serialization failure or a deadlock: another writer came first.
            (_, Some(state)) if class(state) == "40" && *state != SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN => {
                StoreErrorKind::Conflict
            }
            (kind, _) => kind,
        };
        match self.changed_nothing() {
            true => StoreError::new(kind, self),
            false => StoreError::new(kind, self).with_outcome_unknown(),
        }
    }

    /// Whether the connection can be used again.
    pub(crate) fn keeps_the_session(&self) -> bool {
        match self {
            Self::Query(error) => error.as_db_error().is_some_and(|error| {
                let ended = [SqlState::READ_ONLY_SQL_TRANSACTION, TOO_LATE];
                is_statements_own(error) && !ended.contains(error.code()) && !OUTDATED.contains(error.code())
            }),
            Self::Connect(_) | Self::Setting(..) | Self::Unanswered | Self::System(_) | Self::Panic => false,
            Self::Late | Self::Revision(_) | Self::KeyId(_) => true,
        }
    }

    /// Whether the connection broke. An idle connection may have broken long before, so a read is tried again on
    /// another connection.
    pub(crate) fn is_disconnection(&self) -> bool {
        match self {
            Self::Query(error) => error.as_db_error().is_none_or(|error| !is_statements_own(error)),
            _ => false,
        }
    }

    /// Whether the server got to the statement after its deadline, and so did not execute it.
    pub(crate) fn is_too_late(&self) -> bool {
        self.state() == Some(&TOO_LATE)
    }

    /// Whether the statement must be prepared again, in another session.
    pub(crate) fn is_outdated(&self) -> bool {
        self.state().is_some_and(|state| OUTDATED.contains(state))
    }

    pub(crate) fn state(&self) -> Option<&SqlState> {
        match self {
            Self::Connect(error) | Self::Query(error) => error.code(),
            _ => None,
        }
    }

    /// Whether the request certainly changed nothing. The server rolls back a statement that fails by itself. Errors
    /// that end the session, and errors of the operator and of the system, can also come after the commit. A proxy
    /// sends 40003 if it does not know.
    fn changed_nothing(&self) -> bool {
        match self {
            Self::Query(error) => error.as_db_error().is_some_and(|error| {
                is_statements_own(error) && *error.code() != SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
            }),
            Self::Unanswered | Self::Panic => false,
            Self::Connect(_)
            | Self::Late
            | Self::System(_)
            | Self::Setting(..)
            | Self::Revision(_)
            | Self::KeyId(_) => true,
        }
    }

    fn kind(&self) -> StoreErrorKind {
        let error = match self {
            Self::Connect(error) | Self::Query(error) => error,
            Self::Late | Self::Unanswered => return StoreErrorKind::Deadline,
            Self::System(_) | Self::Panic => return StoreErrorKind::Unavailable,
            Self::Setting(..) | Self::Revision(_) | Self::KeyId(_) => return StoreErrorKind::Refused,
        };
        let Some(state) = error.code() else {
            return match is_refused_here(error) {
                true => StoreErrorKind::Refused,
                false => StoreErrorKind::Unavailable,
            };
        };
        match class(state) {
            _ if [SqlState::QUERY_CANCELED, TOO_LATE].contains(state) => StoreErrorKind::Deadline,
            _ if *state == SqlState::READ_ONLY_SQL_TRANSACTION => StoreErrorKind::Unavailable,
            // Connection; transaction; resources, limits, object state and operator; system and internal errors.
            "08" | "40" | "53" | "54" | "55" | "57" | "58" | "XX" => StoreErrorKind::Unavailable,
            // Credentials, names, privileges, constraints, syntax.
            _ => StoreErrorKind::Refused,
        }
    }
}

/// Whether the error is one of the statement itself, which the server rolls back without other effects.
fn is_statements_own(error: &DbError) -> bool {
    error.parsed_severity() == Some(Severity::Error) && !matches!(class(error.code()), "08" | "57" | "58" | "XX")
}

/// The class of an SQLSTATE: its first two characters.
fn class(state: &SqlState) -> &str {
    state.code().get(..2).unwrap_or_default()
}

/// Whether the client refused the server, or could not send the request at all.
fn is_refused_here(error: &tokio_postgres::Error) -> bool {
    let text = error.to_string();
    // The last error means that a column has another type than expected.
    let refused = [
        "invalid configuration",
        "authentication error",
        "error deserializing column",
    ];
    if refused.iter().any(|refused| text.starts_with(refused)) {
        return true;
    }
    if !text.starts_with("error performing TLS handshake") {
        return false;
    }
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        // The connection broke, or TLS failed.
        Some(io) => io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()),
        // The server does not speak TLS, or its host has no name to verify.
        None => true,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) | Self::Query(error) => match error.as_db_error() {
                // With its SQLSTATE, which `DbError` does not display.
                Some(error) => write!(f, "{error} ({})", error.code().code()),
                None => error.fmt(f),
            },
            Self::Late => f.write_str("the deadline passed before the request was sent"),
            Self::Unanswered => f.write_str("the server did not answer before the deadline"),
            Self::System(error) => error.fmt(f),
            Self::Panic => f.write_str("a library panicked during the request"),
            Self::Setting(name, value) => write!(f, "the server does not set {name}, which is {value:?}"),
            Self::Revision(length) => write!(f, "the table has a revision of {length} bytes"),
            Self::KeyId(text) => write!(f, "the table has a malformed key ID: {text:?}"),
        }
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connect(error) | Self::Query(error) => error.source(),
            Self::System(error) => error.source(),
            _ => None,
        }
    }
}
