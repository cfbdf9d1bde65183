//! Connections with their settings, and pools of them.

use std::{
    collections::VecDeque,
    io, mem, process,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
    time::timeout_at,
};
use tokio_postgres::{
    Client, Row, Statement,
    types::{ToSql, Type},
};

use crate::{error::Failure, options::Checked};

pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// A statement and its parameters.
pub(crate) struct Query<'a> {
    pub(crate) sql: &'a Arc<str>,
    pub(crate) parameters: &'a [Parameter<'a>],
    /// The time until which the call waits.
    pub(crate) deadline: Instant,
    /// Whether it only reads. If it does not, the server gets the deadline as the last parameter, and does not execute
    /// it after that.
    pub(crate) is_read: bool,
}

/// A connection that runs only while a call waits for it, on the thread of the call. Dropping it closes the connection
/// at once.
struct Session {
    driver: Driver,
    client: Client,
    /// The clock of the server, in seconds since 1970, at a local time. It was read no later than that.
    clock: Option<(f64, Instant)>,
    /// The statements that this session has prepared.
    prepared: Vec<(Arc<str>, Statement)>,
}

/// The runtime of one connection.
///
/// A child that a program forks off has a copy of it, and shares the connection with its parent. It must not use the
/// connection, and a drop would take it from the runtime of the parent.
struct Driver {
    runtime: Option<Runtime>,
    /// The process that connected.
    process: u32,
}

impl Driver {
    fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        Ok(Self {
            runtime: Some(runtime),
            process: process::id(),
        })
    }

    /// Whether this is the process that connected.
    fn is_ours(&self) -> bool {
        self.process == process::id()
    }

    /// Runs `request` and the connection. Returns nothing if the deadline comes first.
    fn run<T>(&self, deadline: Instant, request: impl Future<Output = T>) -> Option<T> {
        let runtime = self.runtime.as_ref()?;
        runtime.block_on(async { timeout_at(deadline.into(), request).await.ok() })
    }

    /// Runs the connection as far as it gets without waiting.
    fn catch_up(&self) {
        if let Some(runtime) = &self.runtime {
            runtime.block_on(async {
                // At the first yield the runtime sees that something has arrived. At the second the connection reads
                // it.
                yield_now().await;
                yield_now().await;
            });
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        match self.runtime.take() {
            // Unlike a drop, this is also possible on a thread of an async runtime.
            Some(runtime) if self.is_ours() => runtime.shutdown_background(),
            parents => mem::forget(parents),
        }
    }
}

impl Session {
    fn open(checked: &Checked, statement_timeout: &str, deadline: Instant) -> Result<Self, Failure> {
        let driver = Driver::new().map_err(Failure::System)?;
        let connected = driver.run(deadline, connect(checked, statement_timeout));
        let (client, clock) = connected.unwrap_or(Err(Failure::Late))?;
        Ok(Self {
            driver,
            client,
            clock,
            prepared: Vec::new(),
        })
    }

    /// Whether the connection has ended while no call waited for it. Does not block.
    fn has_ended(&self) -> bool {
        self.driver.catch_up();
        self.client.is_closed()
    }

    fn query(&mut self, query: &Query<'_>) -> Result<Vec<Row>, Failure> {
        if Instant::now() >= query.deadline {
            return Err(Failure::Late);
        }
        let (client, clock, prepared) = (&self.client, self.clock, &mut self.prepared);
        let request = async {
            let parameters = query.parameters.iter();
            let rows = if query.is_read {
                // A miss waits for the statement, and planning it would take longer than executing it.
                let statement = prepare(client, prepared, query).await?;
                let parameters: Vec<_> = parameters.map(|(value, _)| *value).collect();
                client.query(&statement, &parameters).await
            } else {
                let deadline = on_server(clock, query.deadline);
                let mut parameters: Vec<_> = parameters.cloned().collect();
                parameters.push((&deadline, Type::FLOAT8));
                client.query_typed(query.sql, &parameters).await
            };
            rows.map_err(Failure::Query)
        };
        let answer = self.driver.run(query.deadline, request);
        answer.unwrap_or(Err(Failure::Unanswered))
    }
}

async fn connect(checked: &Checked, statement_timeout: &str) -> Result<(Client, Option<(f64, Instant)>), Failure> {
    let connected = checked.config.connect(checked.tls.clone()).await;
    let (client, connection) = connected.map_err(Failure::Connect)?;
    tokio::spawn(async {
        // The client gets the error of a connection that ends.
        let _ = connection.await;
    });
    // The settings hold for the session, whatever the settings of the server are. Every role may turn durable commits
    // on.
    let settings = "SELECT pg_catalog.set_config('statement_timeout', $1, false), \
         pg_catalog.set_config('synchronous_commit', \
             CASE pg_catalog.current_setting('synchronous_commit') WHEN 'off' THEN 'on' \
             ELSE pg_catalog.current_setting('synchronous_commit') END, false), \
         EXTRACT(EPOCH FROM pg_catalog.clock_timestamp())::float8";
    let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&statement_timeout, Type::TEXT)];
    let set = client.query_typed(settings, &parameters).await;
    let set = set.map_err(Failure::Connect)?;
    let (mut synchronous, mut clock) = ("", None);
    if let Some(row) = set.first() {
        synchronous = row.try_get(1).map_err(Failure::Connect)?;
        clock = Some((row.try_get(2).map_err(Failure::Connect)?, Instant::now()));
    }
    match synchronous {
        "" | "off" => Err(Failure::Setting("synchronous_commit", synchronous.to_owned())),
        _ => Ok((client, clock)),
    }
}

async fn prepare(
    client: &Client,
    prepared: &mut Vec<(Arc<str>, Statement)>,
    query: &Query<'_>,
) -> Result<Statement, Failure> {
    if let Some((_, statement)) = prepared.iter().find(|(sql, _)| sql == query.sql) {
        return Ok(statement.clone());
    }
    let types: Vec<_> = query.parameters.iter().map(|(_, kind)| kind.clone()).collect();
    let statement = client.prepare_typed(query.sql, &types).await;
    let statement = statement.map_err(Failure::Query)?;
    prepared.push((query.sql.clone(), statement.clone()));
    Ok(statement)
}

/// A local time by the clock of the server. It is too early if the machine was suspended, or if the server's clock was
/// set ahead. Then the server refuses the statement, and the next session reads the clock again.
fn on_server(clock: Option<(f64, Instant)>, time: Instant) -> f64 {
    clock.map_or(0.0, |(clock, read)| {
        clock + time.saturating_duration_since(read).as_secs_f64()
    })
}

/// Runs statements without parameters in a session of their own: in one transaction or in several, as the text
/// determines.
pub(crate) fn execute(checked: &Checked, statement_timeout: &str, sql: &str, deadline: Instant) -> Result<(), Failure> {
    let session = Session::open(checked, statement_timeout, deadline)?;
    let executed = session.driver.run(deadline, session.client.batch_execute(sql));
    executed.ok_or(Failure::Unanswered)?.map_err(Failure::Query)
}

/// Sessions for one kind of call. A session serves one call at a time, so that no call waits behind the lock of
/// another.
pub(crate) struct Pool {
    state: Mutex<State>,
    /// Signals that the first of the queue may have a permit.
    next: Condvar,
}

struct State {
    idle: Vec<Session>,
    /// The number of calls that may begin now.
    permits: usize,
    /// The calls that wait for a permit, by their numbers. They get one in turn: a thread that makes one call after
    /// another must not keep others waiting until their deadlines.
    queue: VecDeque<u64>,
    /// The source of these numbers.
    count: u64,
}

/// The permission of a call to use a session.
struct Permit<'a>(&'a Pool);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.permits = state.permits.saturating_add(1);
        self.0.call_next(&state);
    }
}

impl Pool {
    /// Makes a pool that connects when needed, up to `size` times.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            state: Mutex::new(State {
                idle: Vec::new(),
                permits: size,
                queue: VecDeque::new(),
                count: 0,
            }),
            next: Condvar::new(),
        }
    }

    pub(crate) fn query(
        &self,
        checked: &Checked,
        statement_timeout: &str,
        query: &Query<'_>,
    ) -> Result<Vec<Row>, Failure> {
        let deadline = query.deadline;
        let _permit = self.permit(deadline)?;
        loop {
            let idle = self.lock().idle.pop();
            let reused = idle.is_some();
            let mut session = match idle {
                Some(session) if !session.driver.is_ours() => continue,
                // A read that finds it out is sent again below.
                Some(session) if !query.is_read && session.has_ended() => continue,
                Some(session) => session,
                None => Session::open(checked, statement_timeout, deadline)?,
            };
            let outcome = session.query(query);
            if outcome.as_ref().err().is_none_or(Failure::keeps_the_session) {
                self.lock().idle.push(session);
            } else {
                // The server does not answer, ends the session or accepts no writes. The idle sessions are probably
                // broken as well, and each would cost a call its deadline.
                let broken = mem::take(&mut self.lock().idle);
                drop((session, broken));
            }
            match outcome {
                Err(failure) if query.is_read && reused && (failure.is_disconnection() || failure.is_outdated()) => {}
                // The clock of the server may differ from what this session knew.
                Err(failure) if reused && failure.is_too_late() => {}
                outcome => return outcome,
            }
        }
    }

    /// Waits until the call may begin.
    fn permit(&self, deadline: Instant) -> Result<Permit<'_>, Failure> {
        let mut state = self.lock();
        let number = state.count;
        state.count = number.wrapping_add(1);
        state.queue.push_back(number);
        loop {
            if state.permits > 0 && state.queue.front() == Some(&number) {
                state.queue.pop_front();
                state.permits = state.permits.saturating_sub(1);
                self.call_next(&state);
                return Ok(Permit(self));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.queue.retain(|waiting| *waiting != number);
                self.call_next(&state);
                return Err(Failure::Late);
            }
            let waited = self.next.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn call_next(&self, state: &State) {
        if state.permits > 0 && !state.queue.is_empty() {
            self.next.notify_all();
        }
    }

    /// A panic cannot leave a broken session in the list, so a poisoned lock is used as it is.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
