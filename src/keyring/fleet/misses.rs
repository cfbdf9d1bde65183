//! Joins the calls that miss, so that they share queries.
//!
//! `tests/misses` compiles this file over other locks, and tries the orders in which threads can run.

use core::time::Duration;
use std::{collections::VecDeque, time::Instant, vec::Vec};

use hashbrown::{HashMap, HashSet};

use super::{
    cache::Taken,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};
use crate::{
    error::{Error, StoreFault},
    key_id::KeyId,
};

/// The maximum number of keys in one query.
pub(super) const BATCH: usize = 1_000;
/// The maximum number of queries at the same time. A slow query does not block all others.
const QUERIES: usize = 4;

/// The result of a query for each of its keys.
pub(super) type Found = HashMap<KeyId, Result<Taken, Error>>;

/// Collects the keys of waiting calls into queries. Each call waits for a query that begins after the call did.
#[derive(Default)]
pub(super) struct Misses {
    state: Mutex<State>,
    /// Signals that a query has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// Queries that have not begun, oldest first.
    waiting: VecDeque<Arc<Query>>,
    /// The number of queries that have begun and not ended.
    under_way: usize,
    /// The number of calls that wait for `ended`. Most misses are alone, and a signal to nobody would cost a system
    /// call.
    asleep: usize,
    /// The source of query numbers.
    count: u64,
}

struct Query {
    number: u64,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    keys: HashSet<KeyId>,
    /// The number of calls that wait for it.
    calls: usize,
    result: Option<Result<Arc<Found>, Error>>,
}

impl Misses {
    /// Returns the result for `key_id` of a query that begins after this call. One of the calls that wait for the query
    /// runs `ask`, which returns the results for all its keys.
    pub(super) fn fetch(
        &self,
        key_id: &KeyId,
        deadline: Instant,
        ask: impl FnOnce(&[KeyId]) -> Result<Found, Error>,
    ) -> Result<Taken, Error> {
        let mut state = lock(&self.state);
        let query = state.join(key_id);
        loop {
            if let Some(result) = &lock(&query.shared).result {
                return answer(result, key_id);
            }
            let next = state.waiting.front().is_some_and(|next| next.number == query.number);
            if next && state.under_way < QUERIES {
                state.waiting.pop_front();
                state.under_way = state.under_way.saturating_add(1);
                // The next query may begin now.
                self.wake(&state);
                drop(state);
                let result = self.run(&query, ask);
                return answer(&result, key_id);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                state.leave(&query);
                return Err(StoreFault::Deadline.into());
            }
            state.asleep = state.asleep.saturating_add(1);
            state = self
                .ended
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            state.asleep = state.asleep.saturating_sub(1);
        }
    }

    fn wake(&self, state: &State) {
        if state.asleep > 0 {
            self.ended.notify_all();
        }
    }

    /// Runs a query and gives its result to the waiting calls, even if the store panics.
    fn run(&self, query: &Query, ask: impl FnOnce(&[KeyId]) -> Result<Found, Error>) -> Result<Arc<Found>, Error> {
        struct End<'a> {
            misses: &'a Misses,
            query: &'a Query,
            result: Option<Result<Arc<Found>, Error>>,
        }
        impl Drop for End<'_> {
            fn drop(&mut self) {
                let mut state = lock(&self.misses.state);
                state.under_way = state.under_way.saturating_sub(1);
                let result = self.result.take();
                let result = result.unwrap_or_else(|| Err(StoreFault::Unavailable.into()));
                lock(&self.query.shared).result = Some(result);
                self.misses.wake(&state);
            }
        }
        let mut end = End {
            misses: self,
            query,
            result: None,
        };
        let keys: Vec<_> = core::mem::take(&mut lock(&query.shared).keys).into_iter().collect();
        let result = ask(&keys).map(Arc::new);
        end.result = Some(duplicate(&result));
        result
    }
}

impl State {
    /// The next query that has not begun, which will ask for the key.
    fn join(&mut self, key_id: &KeyId) -> Arc<Query> {
        if let Some(last) = self.waiting.back() {
            let mut shared = lock(&last.shared);
            if shared.keys.len() < BATCH || shared.keys.contains(key_id) {
                shared.keys.insert(*key_id);
                shared.calls = shared.calls.saturating_add(1);
                drop(shared);
                return Arc::clone(last);
            }
        }
        self.count = self.count.wrapping_add(1);
        let shared = Shared {
            keys: HashSet::from_iter([*key_id]),
            calls: 1,
            result: None,
        };
        let query = Arc::new(Query {
            number: self.count,
            shared: Mutex::new(shared),
        });
        self.waiting.push_back(Arc::clone(&query));
        query
    }

    /// Removes a waiting call. A query that no call waits for is dropped.
    fn leave(&mut self, query: &Query) {
        let mut shared = lock(&query.shared);
        shared.calls = shared.calls.saturating_sub(1);
        if shared.calls == 0 {
            self.waiting.retain(|waiting| waiting.number != query.number);
        }
    }
}

fn answer(result: &Result<Arc<Found>, Error>, key_id: &KeyId) -> Result<Taken, Error> {
    match result {
        Ok(found) => match found.get(key_id) {
            Some(Ok(taken)) => Ok(taken.clone()),
            Some(Err(error)) => Err(error.duplicate()),
            None => Ok(Taken::Dropped),
        },
        Err(error) => Err(error.duplicate().with_key_id(key_id)),
    }
}

fn duplicate(result: &Result<Arc<Found>, Error>) -> Result<Arc<Found>, Error> {
    match result {
        Ok(found) => Ok(Arc::clone(found)),
        Err(error) => Err(error.duplicate()),
    }
}

/// A panic cannot leave the state inconsistent, so a poisoned lock is used as it is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
