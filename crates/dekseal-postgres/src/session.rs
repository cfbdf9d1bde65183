//! Connections with their settings, and pools of them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_postgres::{
    Client, Row, Statement,
    types::{ToSql, Type},
};

use crate::{error::Failure, options::Checked, worker::Sending};

/// A statement and its parameters.
pub(crate) struct Query {
    pub(crate) sql: Arc<str>,
    pub(crate) parameters: Vec<(Box<dyn ToSql + Send + Sync>, Type)>,
    /// The time after which the server must not execute the statement any more: its last parameter. A statement without
    /// one only reads.
    pub(crate) deadline: Option<Instant>,
}

/// A connection. Dropping it closes the connection at once.
pub(crate) struct Session {
    pub(crate) client: Client,
    connection: JoinHandle<()>,
    /// The clock of the server, in seconds since 1970, at a local time. It was read no later than that.
    clock: Option<(f64, Instant)>,
    /// The statements that this session has prepared.
    prepared: Vec<(Arc<str>, Statement)>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Session {
    /// Makes a session. `drive` runs the connection until it ends.
    pub(crate) fn new(client: Client, drive: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            client,
            connection: tokio::spawn(drive),
            clock: None,
            prepared: Vec::new(),
        }
    }

    async fn query(&mut self, query: &Query) -> Result<Vec<Row>, Failure> {
        let parameters = query.parameters.iter();
        let rows = match query.deadline {
            // A miss waits for the statement, and planning it would take longer than executing it.
            None => {
                let statement = self.prepare(query).await?;
                let parameters: Vec<_> = parameters.map(|(value, _)| &**value as &(dyn ToSql + Sync)).collect();
                self.client.query(&statement, &parameters).await
            }
            Some(deadline) => {
                let deadline = self.on_server(deadline);
                let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> =
                    parameters.map(|(value, kind)| (&**value as _, kind.clone())).collect();
                parameters.push((&deadline, Type::FLOAT8));
                self.client.query_typed(&query.sql, &parameters).await
            }
        };
        rows.map_err(Failure::Query)
    }

    async fn prepare(&mut self, query: &Query) -> Result<Statement, Failure> {
        if let Some((_, statement)) = self.prepared.iter().find(|(sql, _)| *sql == query.sql) {
            return Ok(statement.clone());
        }
        let types: Vec<_> = query.parameters.iter().map(|(_, kind)| kind.clone()).collect();
        let statement = self.client.prepare_typed(&query.sql, &types).await;
        let statement = statement.map_err(Failure::Query)?;
        self.prepared.push((query.sql.clone(), statement.clone()));
        Ok(statement)
    }

    /// A local time by the clock of the server. It is too early if the machine was suspended, or if the server's clock
    /// was set ahead. Then the server refuses the statement, and the next session reads the clock again.
    fn on_server(&self, time: Instant) -> f64 {
        self.clock.map_or(0.0, |(clock, read)| {
            clock + time.saturating_duration_since(read).as_secs_f64()
        })
    }

    /// Waits until the connection ends.
    pub(crate) async fn ended(&mut self) {
        // An error means that the task panicked, so the connection has ended too.
        let _ = (&mut self.connection).await;
    }

    async fn open(checked: &Checked, statement_timeout: &str) -> Result<Self, Failure> {
        let connected = checked.config.connect(checked.tls.clone()).await;
        let (client, connection) = connected.map_err(Failure::Connect)?;
        let mut session = Self::new(client, async {
            // The client gets the error of a connection that ends.
            let _ = connection.await;
        });
        // The settings hold for the session, whatever the settings of the server are. Every role may turn durable
        // commits on.
        let settings = "SELECT pg_catalog.set_config('statement_timeout', $1, false), \
             pg_catalog.set_config('synchronous_commit', \
                 CASE pg_catalog.current_setting('synchronous_commit') WHEN 'off' THEN 'on' \
                 ELSE pg_catalog.current_setting('synchronous_commit') END, false), \
             EXTRACT(EPOCH FROM pg_catalog.clock_timestamp())::float8";
        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&statement_timeout, Type::TEXT)];
        let set = session.client.query_typed(settings, &parameters).await;
        let set = set.map_err(Failure::Connect)?;
        let mut synchronous = "";
        if let Some(row) = set.first() {
            synchronous = row.try_get(1).map_err(Failure::Connect)?;
            session.clock = Some((row.try_get(2).map_err(Failure::Connect)?, Instant::now()));
        }
        match synchronous {
            "" | "off" => Err(Failure::Setting("synchronous_commit", synchronous.to_owned())),
            _ => Ok(session),
        }
    }
}

/// Sessions for one kind of call. A session serves one call at a time, so that no call waits behind the lock of
/// another.
pub(crate) struct Pool {
    permits: Semaphore,
    idle: Mutex<Vec<Session>>,
}

impl Pool {
    /// Makes a pool that connects when needed, up to `size` times.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            permits: Semaphore::new(size),
            idle: Mutex::default(),
        }
    }

    pub(crate) async fn query(
        &self,
        checked: &Checked,
        statement_timeout: &str,
        query: &Query,
        sending: &Sending,
        is_read: bool,
    ) -> Result<Vec<Row>, Failure> {
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await;
        loop {
            let idle = self.lock().pop();
            let reused = idle.is_some();
            let mut session = match idle {
                Some(session) if session.client.is_closed() => continue,
                Some(session) => session,
                None => Session::open(checked, statement_timeout).await?,
            };
            sending.begin()?;
            let mut doubt = Doubt {
                pool: self,
                dispelled: false,
            };
            let outcome = session.query(query).await;
            if outcome.as_ref().err().is_none_or(Failure::keeps_the_session) {
                doubt.dispelled = true;
                self.lock().push(session);
            }
            drop(doubt);
            match outcome {
                Err(failure) if is_read && reused && (failure.is_disconnection() || failure.is_outdated()) => {}
                // The clock of the server may differ from what this session knew.
                Err(failure) if reused && failure.is_too_late() => {}
                outcome => return outcome,
            }
        }
    }

    /// Runs statements without parameters, in one transaction or in several, as the text determines.
    pub(crate) async fn batch(&self, checked: &Checked, statement_timeout: &str, sql: &str) -> Result<(), Failure> {
        let session = Session::open(checked, statement_timeout).await?;
        session.client.batch_execute(sql).await.map_err(Failure::Query)
    }

    /// A panic cannot leave a broken session in the list, so a poisoned lock is used as it is.
    fn lock(&self) -> MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Guards a session in use. If the server does not answer, ends the session or accepts no writes, the idle sessions are
/// closed too: they are probably broken as well, and each would cost a call its deadline. A call that reaches its
/// deadline drops this guard unfinished.
struct Doubt<'a> {
    pool: &'a Pool,
    dispelled: bool,
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if !self.dispelled {
            self.pool.lock().clear();
        }
    }
}
