//! A connection that is set up, and a few of them that calls share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};

use crate::{error::Failure, options::Checked, worker::Sending};

/// A statement and its parameters.
pub(crate) struct Query {
    pub(crate) sql: std::sync::Arc<str>,
    pub(crate) parameters: Vec<(Box<dyn ToSql + Send + Sync>, Type)>,
}

/// A connection. It is closed at once when this is dropped.
pub(crate) struct Session {
    pub(crate) client: Client,
    connection: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Session {
    /// `drive` runs the connection until it ends.
    pub(crate) fn new(client: Client, drive: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            client,
            connection: tokio::spawn(drive),
        }
    }

    async fn query(&self, query: &Query) -> Result<Vec<Row>, Failure> {
        let parameters = query.parameters.iter();
        let parameters: Vec<(&(dyn ToSql + Sync), Type)> =
            parameters.map(|(value, kind)| (&**value as _, kind.clone())).collect();
        let rows = self.client.query_typed(&query.sql, &parameters).await;
        rows.map_err(Failure::Query)
    }

    /// Ends when the connection does.
    pub(crate) async fn ended(&mut self) {
        // An error is a panic of the task, which has ended as well.
        let _ = (&mut self.connection).await;
    }

    async fn open(checked: &Checked, statement_timeout: &str) -> Result<Self, Failure> {
        let connected = checked.config.connect(checked.tls.clone()).await;
        let (client, connection) = connected.map_err(Failure::Connect)?;
        let session = Self::new(client, async {
            // How it ends, the client is told.
            let _ = connection.await;
        });
        // The settings hold for the session, whatever the server's are set to later. Any role may make commits durable.
        let settings = "SELECT pg_catalog.set_config('statement_timeout', $1, false), \
             pg_catalog.set_config('synchronous_commit', \
                 CASE pg_catalog.current_setting('synchronous_commit') WHEN 'off' THEN 'on' \
                 ELSE pg_catalog.current_setting('synchronous_commit') END, false)";
        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&statement_timeout, Type::TEXT)];
        let set = session.client.query_typed(settings, &parameters).await;
        let set = set.map_err(Failure::Connect)?;
        let synchronous: &str = match set.first() {
            Some(row) => row.try_get(1).map_err(Failure::Connect)?,
            None => "",
        };
        match synchronous {
            "" | "off" => Err(Failure::Setting("synchronous_commit", synchronous.to_owned())),
            _ => Ok(session),
        }
    }
}

/// Sessions for one kind of call. A session serves one call at a time, so that none waits behind another's lock.
pub(crate) struct Pool {
    permits: Semaphore,
    idle: Mutex<Vec<Session>>,
}

impl Pool {
    /// Connects when it is needed, up to `size` times.
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
        // It is never closed.
        let _permit = self.permits.acquire().await;
        loop {
            let idle = self.lock().pop();
            let reused = idle.is_some();
            let session = match idle {
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
                Err(failure) if is_read && reused && failure.is_disconnection() => {}
                outcome => return outcome,
            }
        }
    }

    /// Runs statements without parameters, each a transaction of its own or all in one as the text says.
    pub(crate) async fn batch(&self, checked: &Checked, statement_timeout: &str, sql: &str) -> Result<(), Failure> {
        let session = Session::open(checked, statement_timeout).await?;
        session.client.batch_execute(sql).await.map_err(Failure::Query)
    }

    /// Only whole sessions are in it.
    fn lock(&self) -> MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While a session is in use. If the server does not answer, ends the session or takes no writes, the idle sessions are closed too: they
/// are likely to be no better, and each would cost a call its deadline. A call that reaches its deadline drops this as it is.
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
