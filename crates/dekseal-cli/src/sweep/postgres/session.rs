//! A connection that survives restarts of the server.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use dekseal_postgres::{
    Connector,
    tokio_postgres::{
        self, Client, Row,
        error::SqlState,
        types::{ToSql, Type},
    },
};
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

use crate::failure::Failure;

pub(super) struct Settings {
    pub(super) statement_timeout: Duration,
    pub(super) patience: Duration,
    pub(super) read_only: bool,
}

/// A connection for one thread.
pub(super) struct Session {
    connector: Connector,
    settings: Arc<Settings>,
    runtime: Runtime,
    client: Option<Client>,
}

/// The outcome of a statement that changes rows.
pub(super) enum Outcome {
    Rows(Vec<Row>),
    /// A constraint or a trigger refused a row.
    Refused(String),
}

/// What to do about an error.
enum Remedy {
    Reconnect,
    Retry,
    Refused,
    TooSlow,
    GiveUp,
}

/// What the server may take beyond the timeout that it knows, before the connection counts as broken.
const GRACE: Duration = Duration::from_secs(5);

/// The settings of a session. With `row_security` off, the server refuses a query if a policy would hide rows from it,
/// which would otherwise happen silently. The other settings make texts the same on every server, and commits durable.
const SET_UP: &str = "SELECT pg_catalog.set_config('statement_timeout', $1, false), \
     pg_catalog.set_config('lock_timeout', '2s', false), \
     pg_catalog.set_config('row_security', 'off', false), \
     pg_catalog.set_config('default_transaction_isolation', 'read committed', false), \
     pg_catalog.set_config('default_transaction_read_only', $2, false), \
     pg_catalog.set_config('DateStyle', 'ISO', false), pg_catalog.set_config('TimeZone', 'UTC', false), \
     pg_catalog.set_config('bytea_output', 'hex', false), \
     pg_catalog.set_config('synchronous_commit', CASE pg_catalog.current_setting('synchronous_commit') \
         WHEN 'off' THEN 'on' ELSE pg_catalog.current_setting('synchronous_commit') END, false)";

impl Session {
    pub(super) fn new(connector: Connector, settings: Arc<Settings>) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build();
        Ok(Self {
            connector,
            settings,
            runtime: runtime.map_err(|error| Failure::of_io("the runtime of the connection", &error))?,
            client: None,
        })
    }

    /// Runs a statement that no row can make fail.
    pub(super) fn must(&mut self, sql: &str, parameters: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Failure> {
        match self.query(sql, parameters)? {
            Outcome::Rows(rows) => Ok(rows),
            Outcome::Refused(message) => Err(Failure::io(format!("the database: {message}"))),
        }
    }

    /// Runs a statement. While the server is away or busy, tries again for as long as the patience lasts. The statement
    /// may be executed several times.
    pub(super) fn query(&mut self, sql: &str, parameters: &[(&(dyn ToSql + Sync), Type)]) -> Result<Outcome, Failure> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(20);
        loop {
            let error = match self.attempt(sql, parameters) {
                Ok(rows) => return Ok(Outcome::Rows(rows)),
                Err(error) => error,
            };
            let message = message(error.as_ref());
            match error.as_ref().map_or(Remedy::Reconnect, remedy) {
                Remedy::Refused => return Ok(Outcome::Refused(message)),
                Remedy::GiveUp => return Err(Failure::io(format!("the database: {message}"))),
                Remedy::TooSlow => {
                    return Err(Failure::io(
                        "the database cancelled a statement that took too long: pass a smaller --batch or a longer \
                         --statement-timeout",
                    ));
                }
                Remedy::Reconnect => self.client = None,
                Remedy::Retry => {}
            }
            if begun.elapsed() > self.settings.patience {
                return Err(Failure::io(format!(
                    "the database does not answer: {message}; run the command again later"
                )));
            }
            thread::sleep(pause);
            pause = pause.saturating_mul(2).min(Duration::from_secs(2));
        }
    }

    /// Runs a statement once. The error `None` means that the server did not answer in time.
    fn attempt(
        &mut self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Option<tokio_postgres::Error>> {
        let limit = self.settings.statement_timeout.saturating_add(GRACE);
        let client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.connect(limit)?,
        };
        let client = self.client.insert(client);
        let query = async { timeout(limit, client.query_typed(sql, parameters)).await };
        let answer = self.runtime.block_on(query);
        answer.map_err(|_| None)?.map_err(Some)
    }

    fn connect(&self, limit: Duration) -> Result<Client, Option<tokio_postgres::Error>> {
        let milliseconds = self.settings.statement_timeout.as_millis().to_string();
        let read_only = if self.settings.read_only { "on" } else { "off" };
        let connect = async {
            let (client, connection) = self.connector.connect().await.map_err(Some)?;
            tokio::spawn(connection);
            let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&milliseconds, Type::TEXT), (&read_only, Type::TEXT)];
            client.query_typed(SET_UP, &parameters).await.map_err(Some)?;
            Ok(client)
        };
        self.runtime
            .block_on(async { timeout(limit, connect).await })
            .map_err(|_| None)?
    }
}

fn remedy(error: &tokio_postgres::Error) -> Remedy {
    let Some(state) = error.code() else {
        // The texts are those of tokio-postgres for a server that the client refuses.
        let text = error.to_string();
        let refused = [
            "invalid configuration",
            "authentication error",
            "error deserializing",
            "error serializing",
        ];
        return match refused.iter().any(|refused| text.starts_with(refused)) {
            true => Remedy::GiveUp,
            false => Remedy::Reconnect,
        };
    };
    match state.code().get(..2).unwrap_or_default() {
        _ if *state == SqlState::QUERY_CANCELED => Remedy::TooSlow,
        // A standby that is being promoted, or was a primary.
        _ if *state == SqlState::READ_ONLY_SQL_TRANSACTION => Remedy::Reconnect,
        // The connection; the operator, the system and internal errors.
        "08" | "57" | "58" | "XX" => Remedy::Reconnect,
        // Serialization failures and deadlocks; resources; locks.
        "40" | "53" | "55" => Remedy::Retry,
        // Features, authorization, transactions, names and privileges.
        "0A" | "25" | "28" | "3D" | "3F" | "42" => Remedy::GiveUp,
        _ => Remedy::Refused,
    }
}

/// The message of an error, without the detail, which can hold the row.
fn message(error: Option<&tokio_postgres::Error>) -> String {
    let Some(error) = error else {
        return "no answer in time".into();
    };
    match error.as_db_error() {
        Some(error) => format!("{} ({})", error.message(), error.code().code()),
        None => {
            let source = std::error::Error::source(error).map(|source| format!(": {source}"));
            format!("{error}{}", source.unwrap_or_default())
        }
    }
}
