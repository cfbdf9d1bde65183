#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(missing_docs)]
#![warn(
    clippy::arithmetic_side_effects,
    clippy::dbg_macro,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

mod connection;
mod error;
mod pool;

use std::{fmt, path::Path};

use dekseal::{
    KeyId,
    store::{Call, KeyStore, Revision, StoreError, StoreErrorKind, StoredDocument},
};
use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params};

use crate::{connection::Database, error::Failure, pool::Pool};

/// A [`KeyStore`] in a SQLite database.
///
/// Open one store for each process and share it between threads. Readers never wait for a writer: the refresher has its
/// own connection, writers share one, and other calls share up to four.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use dekseal::store::{Call, KeyStore};
/// use dekseal_sqlite::SqliteStore;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("keys.db");
/// let store = SqliteStore::open(&path)?;
/// let call = Call::within(Duration::from_secs(5));
/// assert_eq!(store.list(None, 100, &call)?, []);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SqliteStore {
    calls: Pool,
    refresher: Pool,
    writer: Pool,
    sql: Sql,
}

/// The default name of the table.
pub const DEFAULT_TABLE: &str = "dekseal_key";

impl SqliteStore {
    const READERS: usize = 4;

    /// Opens the database at `path`, with the table [`DEFAULT_TABLE`]. Makes the file and the table if they are
    /// missing. The directory must exist.
    ///
    /// Only the owner can read and write the files that this crate creates (mode 0600). The mode of an existing file
    /// does not change. SQLite gives its own files beside it, `-wal` and `-shm`, the same mode.
    ///
    /// # Errors
    ///
    /// - [`Refused`](StoreErrorKind::Refused): the file is not a database, or cannot use write-ahead logging, as on a
    ///   network file system; or the table has other columns.
    /// - [`Unavailable`](StoreErrorKind::Unavailable): the file cannot be read or written.
    /// - [`Deadline`](StoreErrorKind::Deadline): other processes kept the database locked for 5 seconds.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_table(path, DEFAULT_TABLE)
    }

    /// [`open`](Self::open) with another name for the table: up to 63 ASCII letters, digits and underscores, not
    /// starting with a digit.
    ///
    /// # Errors
    ///
    /// The errors of [`open`](Self::open), and [`Refused`](StoreErrorKind::Refused) for an invalid name.
    pub fn open_table(path: impl AsRef<Path>, table: &str) -> Result<Self, StoreError> {
        if !is_table_name(table) {
            let source = format!("not a name for a table: {table:?}");
            return Err(StoreError::new(StoreErrorKind::Refused, source));
        }
        let sql = Sql::new(table);
        let database = Database::create(path.as_ref())?;
        let store = Self {
            calls: Pool::new(database.clone(), Self::READERS),
            refresher: Pool::new(database.clone(), 1),
            writer: Pool::new(database, 1),
            sql,
        };
        let call = Call::within(std::time::Duration::from_secs(5));
        store.writer.run(&call, Failure::of_write, |connection| {
            connection.execute(&store.sql.create, [])?;
            // Checks that an existing table has the right columns.
            connection.prepare(&store.sql.insert)?;
            Ok(())
        })?;
        Ok(store)
    }

    fn read<T>(&self, call: &Call, read: impl FnMut(&Connection) -> Result<T, Failure>) -> Result<T, StoreError> {
        let pool = if call.is_refresh() {
            &self.refresher
        } else {
            &self.calls
        };
        pool.run(call, Failure::of_read, read)
    }

    /// Runs a statement that changes one row if the revision matches. The transaction takes the write lock before it
    /// reads. It does not commit after the deadline of the call (FORMAT.md D5), even if the process was stopped
    /// meanwhile.
    fn write(
        &self,
        call: &Call,
        mut write: impl FnMut(&Connection) -> Result<usize, Failure>,
    ) -> Result<(), StoreError> {
        let write = |connection: &Connection| {
            let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            let written = write(&transaction)?;
            if call.remaining().is_zero() {
                return Err(Failure::Deadline);
            }
            transaction.commit()?;
            Ok(written)
        };
        match self.writer.run(call, Failure::of_write, write)? {
            0 => Err(StoreErrorKind::Conflict.into()),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SqliteStore").field(&self.writer.path()).finish()
    }
}

impl KeyStore for SqliteStore {
    fn get(&self, key_id: &KeyId, call: &Call) -> Result<Option<StoredDocument>, StoreError> {
        self.read(call, |connection| {
            let mut statement = connection.prepare_cached(&self.sql.get)?;
            let mut rows = statement.query([key_id.as_str()])?;
            rows.next()?.map(stored).transpose()
        })
    }

    fn put(
        &self,
        key_id: &KeyId,
        expected: Option<&Revision>,
        new: &StoredDocument,
        call: &Call,
    ) -> Result<Revision, StoreError> {
        self.write(call, |connection| match expected {
            None => {
                let mut statement = connection.prepare_cached(&self.sql.insert)?;
                Ok(statement.execute(params![key_id.as_str(), new.revision.as_bytes(), new.document])?)
            }
            Some(expected) => {
                let mut statement = connection.prepare_cached(&self.sql.update)?;
                Ok(statement.execute(params![
                    key_id.as_str(),
                    expected.as_bytes(),
                    new.revision.as_bytes(),
                    new.document
                ])?)
            }
        })?;
        Ok(new.revision)
    }

    fn remove(&self, key_id: &KeyId, expected: &Revision, call: &Call) -> Result<(), StoreError> {
        self.write(call, |connection| {
            let mut statement = connection.prepare_cached(&self.sql.delete)?;
            Ok(statement.execute(params![key_id.as_str(), expected.as_bytes()])?)
        })
    }

    /// Runs one statement for each key, in one transaction. A query costs no round trip, so this is faster than passing
    /// a list. One statement alone is a transaction by itself.
    fn changed(
        &self,
        known: &[(KeyId, Option<Revision>)],
        call: &Call,
    ) -> Result<Vec<(KeyId, Option<StoredDocument>)>, StoreError> {
        self.read(call, |connection| {
            let several = known.len() > 1;
            let _transaction = several.then(|| connection.unchecked_transaction()).transpose()?;
            let mut statement = connection.prepare_cached(&self.sql.get)?;
            let mut changed = Vec::new();
            for (key_id, revision) in known {
                if call.remaining().is_zero() {
                    return Err(Failure::Deadline);
                }
                let mut rows = statement.query([key_id.as_str()])?;
                let Some(row) = rows.next()? else {
                    if revision.is_some() {
                        changed.push((*key_id, None));
                    }
                    continue;
                };
                let present = row.get_ref(0)?.as_blob()?;
                if Some(present) != revision.as_ref().map(Revision::as_bytes) {
                    changed.push((*key_id, Some(stored(row)?)));
                }
            }
            Ok(changed)
        })
    }

    fn list(&self, after: Option<&KeyId>, limit: usize, call: &Call) -> Result<Vec<KeyId>, StoreError> {
        let after = after.map_or("", KeyId::as_str);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(call, |connection| {
            let mut statement = connection.prepare_cached(&self.sql.list)?;
            let mut rows = statement.query(params![after, limit])?;
            let mut page = Vec::new();
            while let Some(row) = rows.next()? {
                let key_id: String = row.get(0)?;
                page.push(key_id.parse().map_err(|_| Failure::KeyId(key_id))?);
            }
            Ok(page)
        })
    }
}

/// Reads the columns `revision` and `document`.
fn stored(row: &Row<'_>) -> Result<StoredDocument, Failure> {
    let revision = row.get_ref(0)?.as_blob()?;
    Ok(StoredDocument {
        revision: Revision::new(revision).ok_or(Failure::Revision(revision.len()))?,
        document: row.get(1)?,
    })
}

/// The statements over one table.
struct Sql {
    create: String,
    get: String,
    insert: String,
    update: String,
    delete: String,
    list: String,
}

impl Sql {
    fn new(table: &str) -> Self {
        Self {
            create: format!(
                r#"CREATE TABLE IF NOT EXISTS "{table}" (
    key_id   TEXT COLLATE BINARY NOT NULL PRIMARY KEY CHECK (length(key_id) = 36),
    revision BLOB NOT NULL CHECK (length(revision) = 32),
    document BLOB NOT NULL
) STRICT"#
            ),
            get: format!(r#"SELECT revision, document FROM "{table}" WHERE key_id = ?1"#),
            insert: format!(
                r#"
INSERT INTO "{table}" (key_id, revision, document) VALUES (?1, ?2, ?3)
ON CONFLICT (key_id) DO NOTHING"#
            ),
            update: format!(r#"UPDATE "{table}" SET revision = ?3, document = ?4 WHERE key_id = ?1 AND revision = ?2"#),
            delete: format!(r#"DELETE FROM "{table}" WHERE key_id = ?1 AND revision = ?2"#),
            list: format!(r#"SELECT key_id FROM "{table}" WHERE key_id > ?1 ORDER BY key_id LIMIT ?2"#),
        }
    }
}

/// Whether a name can be used for the table. The statements quote it, so only the alphabet matters. Names that begin
/// with `sqlite_` are reserved by SQLite.
fn is_table_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=63).contains(&name.len())
        && name.chars().all(word)
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.to_ascii_lowercase().starts_with("sqlite_")
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    /// A process that is stopped within a transaction commits nothing after the deadline.
    #[test]
    fn a_change_is_not_committed_after_its_deadline() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path().join("keys.db")).unwrap();
        let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse().unwrap();
        let insert = |call: &Call, pause: Duration| {
            store.write(call, |connection| {
                let parameters = params![key_id.as_str(), [1_u8; 32], b"document"];
                let inserted = connection.execute(&store.sql.insert, parameters)?;
                thread::sleep(pause);
                Ok(inserted)
            })
        };
        let short = Call::within(Duration::from_millis(100));
        let error = insert(&short, Duration::from_millis(150)).unwrap_err();
        assert_eq!(
            (error.kind(), error.is_outcome_unknown()),
            (StoreErrorKind::Deadline, false)
        );
        let call = Call::within(Duration::from_secs(5));
        assert_eq!(store.get(&key_id, &call).unwrap(), None);
        insert(&call, Duration::ZERO).unwrap();
        assert!(store.get(&key_id, &call).unwrap().is_some());
    }
}
