//! The state that the threads of a fleet's keyring share. It reads from the store, and decides whether a key may be
//! used.

use core::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};
use std::vec::Vec;

use arc_swap::ArcSwap;
use hashbrown::HashMap;

use super::{
    super::{
        key::Key,
        store::{Call, KeyStore, Revision, StoreError, StoreErrorKind},
    },
    cache::{Answer, Cache, Entry, Held, Taken},
    clock::{Clock, Moment, millis},
    counters::{Counters, count},
    misses::{Found, Misses},
    reading::Roots,
    settings::StoreSettings,
};
use crate::{
    error::{Error, ErrorKind, StoreFault},
    key_id::KeyId,
    trace::Event,
};

/// After the store failed to answer, calls use held documents for this time without asking again.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Shared<S> {
    pub(super) store: S,
    pub(super) settings: StoreSettings,
    pub(super) roots: ArcSwap<Roots>,
    pub(super) cache: Cache,
    pub(super) clock: Clock,
    pub(super) counters: Counters,
    misses: Misses,
    /// Whether a refresher runs. If it does, calls need not confirm documents.
    pub(super) refreshing: AtomicBool,
    /// Whether the last check of the refresher failed, through its own connection and through those of calls.
    pub(super) refresh_failed: AtomicBool,
    /// The time until which the store counts as away, in milliseconds of the clock.
    away_until: AtomicU64,
    /// Whether the last answer of the store was a failure.
    failing: AtomicBool,
    /// Whether a call finds out whether a failing store is back.
    probing: AtomicBool,
}

/// The purpose for which a call needs a key.
#[derive(Clone, Copy)]
pub(super) enum Need {
    /// Seal under the current version.
    Seal,
    /// Open under a version.
    Open(u32),
}

/// Whether a held key can serve a call.
#[derive(PartialEq)]
enum Fit {
    /// It can.
    Serves,
    /// It can, but the store has not confirmed it for longer than `max_age`.
    Old,
    /// It cannot: the store has not confirmed it for longer than `max_stale`.
    Stale,
    /// It cannot: the call needs a newer version than any that is held.
    Newer,
}

impl<S: KeyStore> Shared<S> {
    pub(super) fn new(store: S, roots: Roots, settings: StoreSettings) -> Self {
        Self {
            store,
            settings,
            roots: ArcSwap::from_pointee(roots),
            cache: Cache::new(settings.capacity, settings.remembered),
            clock: Clock::default(),
            counters: Counters::default(),
            misses: Misses::default(),
            refreshing: AtomicBool::new(false),
            refresh_failed: AtomicBool::new(false),
            away_until: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            probing: AtomicBool::new(false),
        }
    }

    /// Makes a call to the store with the deadline of the settings.
    pub(super) fn call(&self) -> Call {
        Call::within(self.settings.deadline)
    }

    /// Whether an entry can serve a call at once. A hit costs only this and the look-up in the map.
    #[inline]
    pub(super) fn is_hit(&self, entry: &Entry, need: Need, now: Moment) -> bool {
        self.fit(&entry.key, entry.confirmed(), entry.is_rolled_back(), need, now) == Fit::Serves
    }

    #[inline]
    fn fit(&self, key: &Key, confirmed: Moment, rolled_back: bool, need: Need, now: Moment) -> Fit {
        if let Need::Open(version) = need
            && version > key.current_version()
        {
            return Fit::Newer;
        }
        // After a rollback the store confirms nothing. Held versions still open until the host decides.
        if rolled_back {
            return Fit::Serves;
        }
        let age = now.since(confirmed);
        if age <= millis(self.settings.max_age) {
            return Fit::Serves;
        }
        if age > millis(self.settings.max_stale) {
            return Fit::Stale;
        }
        if self.refreshing.load(Ordering::Relaxed) {
            return Fit::Serves;
        }
        Fit::Old
    }

    /// Finds the key that a call needs, if it is not in the cache, is too old there, or lacks a version.
    #[cold]
    pub(super) fn find(&self, key_id: &KeyId, need: Need) -> Result<Held, Error> {
        count(&self.counters.misses);
        let call = self.call();
        let mut fetched = false;
        let mut probe = None;
        loop {
            let held = self.cache.get(key_id);
            let now = self.clock.now();
            let fit = held
                .as_ref()
                .map(|held| self.fit(&held.key, held.confirmed, held.rolled_back, need, now));
            let is_held = matches!(fit, Some(Fit::Old | Fit::Stale));
            if is_held && probe.is_none() {
                probe = self.probe(now);
            }
            let away = is_held && probe.is_none();
            match (held, fit) {
                (Some(held), Some(Fit::Serves)) => return Ok(held),
                // The answer was ignored because a newer document had been accepted. That document is used here.
                (Some(held), Some(Fit::Old)) if away || fetched => return Ok(held),
                (Some(held), Some(Fit::Stale)) if away => return Err(self.stale(&held, None)),
                (held, fit) => match self.fetch(key_id, &call) {
                    Ok(Taken::Held(found)) => return Ok(found),
                    Ok(Taken::Absent) => return Err(Error::from(ErrorKind::UnknownKey).with_key_id(key_id)),
                    Ok(Taken::Dropped) if call.remaining().is_zero() => {
                        return Err(Error::from(StoreFault::Deadline).with_key_id(key_id));
                    }
                    Ok(Taken::Dropped) => fetched = true,
                    // The deadline of another call that sent the query has passed. This call has time left.
                    Err(error) if is_deadline(&error) && !call.remaining().is_zero() => {}
                    Err(error) => return self.unconfirmed(key_id, held.zip(fit), error),
                },
            }
        }
    }

    /// Allows a call that has a held document to ask the store. Returns `None` if the store is known to be away, and
    /// while another call finds out whether it is back: then this call need not wait for the deadline.
    fn probe(&self, now: Moment) -> Option<Probe<'_>> {
        let paused = now.as_millis() < self.away_until.load(Ordering::Relaxed);
        let refresh_failed = self.refreshing.load(Ordering::Relaxed) && self.refresh_failed.load(Ordering::Relaxed);
        if paused || refresh_failed {
            return None;
        }
        let alone = self.failing.load(Ordering::Relaxed);
        if alone && self.probing.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(Probe(alone.then_some(&self.probing)))
    }

    /// Notes that the store answers.
    pub(super) fn answered(&self) {
        if self.failing.load(Ordering::Relaxed) {
            self.failing.store(false, Ordering::Relaxed);
            self.away_until.store(0, Ordering::Relaxed);
        }
    }

    /// Decides about a key that the store did not confirm. `held` is the key as the call found it in the cache.
    fn unconfirmed(&self, key_id: &KeyId, held: Option<(Held, Fit)>, error: Error) -> Result<Held, Error> {
        // The failed query may have found a rollback since.
        let present = || self.cache.get(key_id);
        match held {
            Some((held, Fit::Old)) => Ok(present().unwrap_or(held)),
            Some((held, Fit::Stale)) if is_away(&error) => Err(self.stale(&held, Some(error))),
            // The store has a document that cannot follow the held one. The held versions still open.
            Some((_, Fit::Stale)) => present().filter(|held| held.rolled_back).ok_or(error),
            _ => Err(error),
        }
    }

    fn stale(&self, held: &Held, source: Option<Error>) -> Error {
        let error = held.key.error(ErrorKind::Store(StoreFault::Stale));
        match source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }

    /// Asks the store for a key, together with other calls that miss. The query begins after this call.
    pub(super) fn fetch(&self, key_id: &KeyId, call: &Call) -> Result<Taken, Error> {
        Event::new("fetch_key", Some(key_id), None).of(|_| {
            self.misses.fetch(key_id, call.deadline(), |key_ids| {
                count(&self.counters.fetches);
                self.ask(key_ids, call)
            })
        })
    }

    /// Asks the store which documents of these keys have changed, and accepts them. Returns the result for each key.
    pub(super) fn ask(&self, key_ids: &[KeyId], call: &Call) -> Result<Found, Error> {
        let begun = self.cache.begin(self.clock.now());
        let known: Vec<_> = key_ids
            .iter()
            .map(|key_id| (*key_id, self.cache.revision(key_id)))
            .collect();
        let changed = self.store.changed(&known, call).map_err(|error| self.failed(error))?;
        self.answered();
        let mut changed: HashMap<_, _> = changed.into_iter().collect();
        let roots = self.roots.load();
        let found = known.into_iter().map(|(key_id, revision): (KeyId, Option<Revision>)| {
            let answer = match (changed.remove(&key_id), revision) {
                (Some(Some(stored)), _) => Answer::Document(stored),
                (Some(None), _) | (None, None) => Answer::Absent,
                (None, Some(revision)) => Answer::Unchanged(revision),
            };
            let taken = self.cache.take_up(&key_id, begun, answer, &roots, true);
            self.note(&taken);
            (key_id, taken)
        });
        Ok(found.collect())
    }

    /// Counts refused documents.
    pub(super) fn note<T>(&self, taken: &Result<T, Error>) {
        if let Err(error) = taken
            && error.kind() == ErrorKind::Store(StoreFault::RolledBack)
        {
            count(&self.counters.rollbacks);
        }
    }

    /// Converts the error of a call to the store.
    pub(super) fn failed(&self, error: StoreError) -> Error {
        count(&self.counters.failures);
        let fault = match error.kind() {
            StoreErrorKind::Conflict => StoreFault::Conflict,
            StoreErrorKind::Deadline => StoreFault::Deadline,
            StoreErrorKind::Unavailable => StoreFault::Unavailable,
            StoreErrorKind::Refused => StoreFault::Refused,
        };
        if let StoreFault::Deadline | StoreFault::Unavailable = fault {
            let until = self.clock.now().as_millis().saturating_add(millis(PAUSE));
            self.away_until.store(until, Ordering::Relaxed);
            self.failing.store(true, Ordering::Relaxed);
        }
        Error::from(fault).with_source(error)
    }
}

/// The permission of a call to ask the store: see `Shared::probe`.
struct Probe<'a>(Option<&'a AtomicBool>);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if let Some(probing) = self.0 {
            probing.store(false, Ordering::Release);
        }
    }
}

pub(super) fn is_deadline(error: &Error) -> bool {
    error.kind() == ErrorKind::Store(StoreFault::Deadline)
}

/// Whether the store did not answer.
pub(super) fn is_away(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Store(StoreFault::Deadline | StoreFault::Unavailable | StoreFault::Refused)
    )
}
