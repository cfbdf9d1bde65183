//! The store.

use std::{
    fmt,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use dekseal::{
    KeyId,
    store::{Call, KeyStore, Revision, StoreError, StoreErrorKind, StoredDocument, Watcher},
};
use tokio::runtime::Handle;
use tokio_postgres::{Row, error::SqlState, types::Type};

use crate::{
    error::Failure,
    listen::{Watchers, listen},
    options::{Checked, Options},
    session::{Parameter, Pool, Query, execute},
    sql::Writes,
    threads::{Worker, run_blocking},
};

/// A [`KeyStore`] in PostgreSQL.
///
/// The store connects at its first call, and again when a connection breaks. Make one store for each process and share
/// it between threads.
///
/// A call blocks its thread until the answer or the deadline. A call on a thread of an async runtime does not panic,
/// but blocks other tasks: move calls to a thread for blocking work.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
///
/// use dekseal::store::{Call, KeyStore};
/// use dekseal_postgres::{Options, PostgresStore};
///
/// let store = PostgresStore::new(Options::new("host=db.example dbname=keys user=service")?)?;
/// let call = Call::within(Duration::from_secs(5));
/// println!("{} keys", store.list(None, 1000, &call)?.len());
/// # Ok::<(), dekseal::store::StoreError>(())
/// ```
pub struct PostgresStore {
    checked: Arc<Checked>,
    /// The timeout in milliseconds.
    statement_timeout: String,
    notify: bool,
    /// Set if the server turns out to have no notifications.
    cannot_notify: AtomicBool,
    calls: Pool,
    refresher: Pool,
    watchers: Arc<Watchers>,
    listening: Once,
    worker: Worker,
}

impl PostgresStore {
    /// Makes a store with these options. It does not connect yet, so the database may be down.
    ///
    /// # Errors
    ///
    /// - [`Refused`](StoreErrorKind::Refused): the name of the table or its schema is invalid, or the system has no
    ///   usable root certificates.
    /// - [`Unavailable`](StoreErrorKind::Unavailable): the system cannot start a thread.
    pub fn new(options: Options) -> Result<Self, StoreError> {
        let checked = options.check()?;
        let worker = Worker::start().map_err(|error| StoreError::new(StoreErrorKind::Unavailable, error))?;
        Ok(Self {
            checked: Arc::new(checked),
            statement_timeout: options.statement_timeout.as_millis().max(1).to_string(),
            notify: options.notify,
            cannot_notify: AtomicBool::new(false),
            calls: Pool::new(options.connections),
            refresher: Pool::new(1),
            watchers: Arc::default(),
            listening: Once::new(),
            worker,
        })
    }

    /// The SQL that [`create_schema`](Self::create_schema) runs, for administrators: the crate's `schema.sql` with the
    /// name of the table.
    #[must_use]
    pub fn schema_sql(&self) -> String {
        self.checked.sql.create_table()
    }

    /// Makes the table, and its schema if the options name one, unless they exist.
    ///
    /// # Errors
    ///
    /// The errors of the methods of [`KeyStore`], except `Conflict`.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use dekseal::store::Call;
    /// use dekseal_postgres::{Options, PostgresStore};
    ///
    /// let options = Options::new("host=db.example dbname=keys user=owner")?.schema("payments");
    /// let store = PostgresStore::new(options)?;
    /// println!("{}", store.schema_sql());
    /// store.create_schema(&Call::within(Duration::from_secs(5)))?;
    /// # Ok::<(), dekseal::store::StoreError>(())
    /// ```
    pub fn create_schema(&self, call: &Call) -> Result<(), StoreError> {
        run_blocking(|| {
            let sql = &self.checked.sql;
            if let Some(schema) = &sql.schema {
                // `IF NOT EXISTS` needs the privilege to make a schema even if the schema exists.
                let find = "SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname = $1".into();
                let found = self.query(&self.calls, &find, &[(schema, Type::TEXT)], call.deadline(), true)?;
                if found.is_empty() {
                    self.batch(&format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\""), call)?;
                }
            }
            self.batch(&sql.create_table(), call)
        })
        .map_err(Failure::of_read)
    }

    /// The runtime of the worker. It has threads for blocking calls.
    pub(crate) fn runtime(&self) -> &Handle {
        self.worker.runtime()
    }

    fn read(&self, call: &Call, sql: &Arc<str>, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, StoreError> {
        let pool = if call.is_refresh() {
            &self.refresher
        } else {
            &self.calls
        };
        let rows = run_blocking(|| self.query(pool, sql, parameters, call.deadline(), true));
        rows.map_err(Failure::of_read)
    }

    /// Runs a statement that changes a row if the revision matches.
    fn write(
        &self,
        call: &Call,
        statement: fn(&Writes) -> &Arc<str>,
        parameters: &[Parameter<'_>],
    ) -> Result<(), StoreError> {
        let write = |writes| {
            let sql = statement(writes);
            run_blocking(|| self.query(&self.calls, sql, parameters, call.deadline(), false))
        };
        let sql = &self.checked.sql;
        let notify = self.notify && !self.cannot_notify.load(Ordering::Relaxed);
        let written = match write(if notify { &sql.notifying } else { &sql.quiet }) {
            // The statement changed nothing.
            Err(failure) if notify && failure.state() == Some(&SqlState::UNDEFINED_FUNCTION) => {
                self.cannot_notify.store(true, Ordering::Relaxed);
                write(&sql.quiet)
            }
            written => written,
        };
        match written.map_err(Failure::of_write)?.is_empty() {
            true => Err(StoreErrorKind::Conflict.into()),
            false => Ok(()),
        }
    }

    fn query(
        &self,
        pool: &Pool,
        sql: &Arc<str>,
        parameters: &[Parameter<'_>],
        deadline: Instant,
        is_read: bool,
    ) -> Result<Vec<Row>, Failure> {
        let query = Query {
            sql,
            parameters,
            deadline,
            is_read,
        };
        pool.query(&self.checked, &self.statement_timeout, &query)
    }

    fn batch(&self, sql: &str, call: &Call) -> Result<(), Failure> {
        // If two callers create the same object at the same time, the second finds it on its next attempt.
        let again = [
            SqlState::DUPLICATE_OBJECT,
            SqlState::DUPLICATE_TABLE,
            SqlState::DUPLICATE_SCHEMA,
            SqlState::UNIQUE_VIOLATION,
        ];
        let attempt = || execute(&self.checked, &self.statement_timeout, sql, call.deadline());
        for _ in 0..3 {
            match attempt() {
                Err(failure) if failure.state().is_some_and(|state| again.contains(state)) => {}
                outcome => return outcome,
            }
        }
        attempt()
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sql = &self.checked.sql;
        let mut shown = f.debug_struct("PostgresStore");
        shown.field("schema", &sql.schema).field("table", &sql.table);
        shown.finish_non_exhaustive()
    }
}

impl KeyStore for PostgresStore {
    fn get(&self, key_id: &KeyId, call: &Call) -> Result<Option<StoredDocument>, StoreError> {
        let rows = self.read(call, &self.checked.sql.get, &[(&key_id.as_str(), Type::TEXT)])?;
        let stored = rows.first().map(|row| stored(row, 0)).transpose();
        Ok(stored.map_err(Failure::of_read)?.flatten())
    }

    fn put(
        &self,
        key_id: &KeyId,
        expected: Option<&Revision>,
        new: &StoredDocument,
        call: &Call,
    ) -> Result<Revision, StoreError> {
        let key_id: Parameter<'_> = (&key_id.as_str(), Type::TEXT);
        let revision: Parameter<'_> = (&new.revision.as_bytes(), Type::BYTEA);
        let document: Parameter<'_> = (&new.document, Type::BYTEA);
        match expected {
            None => self.write(call, |writes| &writes.insert, &[key_id, revision, document]),
            Some(expected) => {
                let expected: Parameter<'_> = (&expected.as_bytes(), Type::BYTEA);
                self.write(call, |writes| &writes.update, &[key_id, expected, revision, document])
            }
        }?;
        Ok(new.revision)
    }

    fn remove(&self, key_id: &KeyId, expected: &Revision, call: &Call) -> Result<(), StoreError> {
        let parameters: [Parameter<'_>; 2] = [(&key_id.as_str(), Type::TEXT), (&expected.as_bytes(), Type::BYTEA)];
        self.write(call, |writes| &writes.delete, &parameters)
    }

    fn changed(
        &self,
        known: &[(KeyId, Option<Revision>)],
        call: &Call,
    ) -> Result<Vec<(KeyId, Option<StoredDocument>)>, StoreError> {
        // Most misses ask for one key. Its row alone is found faster than with a list.
        if let [(key_id, revision)] = known {
            let present = self.get(key_id, call)?;
            let is_same = present.as_ref().map(|stored| stored.revision) == *revision;
            return Ok(if is_same { Vec::new() } else { vec![(*key_id, present)] });
        }
        let key_ids: Vec<_> = known.iter().map(|(key_id, _)| key_id.as_str()).collect();
        let revisions = known.iter().map(|(_, revision)| Some(revision.as_ref()?.as_bytes()));
        let revisions: Vec<_> = revisions.collect();
        let parameters: [Parameter<'_>; 2] = [(&key_ids, Type::TEXT_ARRAY), (&revisions, Type::BYTEA_ARRAY)];
        let rows = self.read(call, &self.checked.sql.changed, &parameters)?;
        let changed = rows.iter().map(|row| Ok((key_id(row)?, stored(row, 1)?)));
        changed.collect::<Result<_, _>>().map_err(Failure::of_read)
    }

    fn list(&self, after: Option<&KeyId>, limit: usize, call: &Call) -> Result<Vec<KeyId>, StoreError> {
        let (after, limit) = (
            after.map_or("", KeyId::as_str),
            i64::try_from(limit).unwrap_or(i64::MAX),
        );
        let parameters: [Parameter<'_>; 2] = [(&after, Type::TEXT), (&limit, Type::INT8)];
        let rows = self.read(call, &self.checked.sql.list, &parameters)?;
        let page = rows.iter().map(key_id);
        page.collect::<Result<_, _>>().map_err(Failure::of_read)
    }

    /// Makes another connection and listens on it. If the server has no notifications, the watcher is never called.
    fn watch(&self, watcher: Watcher) -> bool {
        if self.notify {
            self.watchers.add(watcher);
            self.listening.call_once(|| {
                let (checked, watchers) = (self.checked.clone(), self.watchers.clone());
                self.worker.spawn(listen(checked, watchers));
            });
        }
        self.notify
    }
}

/// Reads the column `key_id`, which is the first.
fn key_id(row: &Row) -> Result<KeyId, Failure> {
    let text: &str = row.try_get(0).map_err(Failure::Query)?;
    text.parse().map_err(|_| Failure::KeyId(text.to_owned()))
}

/// Reads the columns `revision` and `document`, starting at column `at`. They are null if there is no row.
fn stored(row: &Row, at: usize) -> Result<Option<StoredDocument>, Failure> {
    let revision: Option<&[u8]> = row.try_get(at).map_err(Failure::Query)?;
    let Some(revision) = revision else {
        return Ok(None);
    };
    Ok(Some(StoredDocument {
        revision: Revision::new(revision).ok_or(Failure::Revision(revision.len()))?,
        document: row.try_get(at.saturating_add(1)).map_err(Failure::Query)?,
    }))
}
