//! A pool of connections that threads share.

use std::{
    path::Path,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use dekseal::store::{Call, StoreError, StoreErrorKind};
use rusqlite::Connection;

use crate::{
    connection::{Database, Open, gone},
    error::Failure,
};

pub(crate) struct Pool {
    database: Database,
    state: Mutex<State>,
    returned: Condvar,
}

struct State {
    idle: Vec<Open>,
    /// The number of connections that are not in use.
    free: usize,
}

/// The right to use one connection. Dropping it returns the connection.
struct Permit<'a> {
    pool: &'a Pool,
    open: Option<Open>,
}

impl Pool {
    /// Makes a pool that connects when needed, up to `size` times.
    pub(crate) fn new(database: Database, size: usize) -> Self {
        Self {
            database,
            state: Mutex::new(State {
                idle: Vec::new(),
                free: size,
            }),
            returned: Condvar::new(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.database.path()
    }

    /// Runs `f` on a connection, and repeats it while the database is locked. `to_error` converts a failure, and says
    /// whether a change may have been made.
    pub(crate) fn run<T>(
        &self,
        call: &Call,
        to_error: fn(Failure) -> StoreError,
        f: impl FnMut(&Connection) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let mut permit = self.permit(call)?;
        let open = permit.open.take().filter(|open| self.database.is_current(open));
        let mut open = match open {
            Some(open) => open,
            None => self.database.connect(call)?,
        };
        match open.run(call, f) {
            // The file was removed while the statement ran, so the change may be in neither file.
            Ok(_) if !self.database.is_current(&open) => Err(gone().with_outcome_unknown()),
            Ok(value) => {
                permit.open = Some(open);
                Ok(value)
            }
            Err(error) => {
                // After any other error the connection is not used again.
                permit.open = Some(open).filter(|_| error.is_busy());
                Err(to_error(error))
            }
        }
    }

    fn permit(&self, call: &Call) -> Result<Permit<'_>, StoreError> {
        let mut state = self.lock();
        loop {
            let remaining = call.remaining();
            if remaining.is_zero() {
                return Err(StoreErrorKind::Deadline.into());
            }
            if let Some(free) = state.free.checked_sub(1) {
                state.free = free;
                let open = state.idle.pop();
                return Ok(Permit { pool: self, open });
            }
            let waited = self.returned.wait_timeout(state, remaining);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A panic cannot leave the state inconsistent, so a poisoned lock is used as it is.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.free = state.free.saturating_add(1);
        state.idle.extend(self.open.take());
        drop(state);
        self.pool.returned.notify_one();
    }
}
