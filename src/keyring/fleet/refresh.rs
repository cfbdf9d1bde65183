//! The refresher: checks documents again before they are older than `max_age`.

use core::{sync::atomic::Ordering, time::Duration};
use std::{
    boxed::Box,
    string::ToString,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::Instant,
    vec::Vec,
};

use hashbrown::HashSet;

#[cfg(doc)]
use super::StoreSettings;
use super::{
    super::store::{Call, Change, KeyStore},
    StoreKeyring,
    clock::{Moment, millis},
    counters::count,
    misses::{BATCH, Found},
    shared::{Shared, is_away},
};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::{error::Error, key_id::KeyId, trace::Event};

/// The maximum number of changed keys that are listed. If there are more, all documents are checked.
const LISTED: usize = 10_000;
/// The pause before the refresher tries again after a failure of the store.
const RETRY: Duration = Duration::from_millis(250);

/// Wakes the refresher.
#[derive(Default)]
pub(super) struct Signal {
    state: Mutex<Wanted>,
    woken: Condvar,
}

/// The tasks of the refresher.
#[derive(Default)]
struct Wanted {
    stop: bool,
    /// Whether to check all documents.
    all: bool,
    /// The keys to check.
    keys: HashSet<KeyId>,
}

impl Signal {
    pub(super) fn stop(&self) {
        self.state().stop = true;
        self.woken.notify_all();
    }

    /// Handles a notification of the store. Returns whether the refresher still runs.
    fn notify(&self, change: Change) -> bool {
        let mut state = self.state();
        match change {
            Change::Key(key_id) if state.keys.len() < LISTED => drop(state.keys.insert(key_id)),
            Change::Key(_) | Change::Unknown => state.all = true,
        }
        self.woken.notify_all();
        !state.stop
    }

    /// Waits until there is a task, at most for `longest`.
    fn wait(&self, longest: Duration) -> Wanted {
        let until = Instant::now().checked_add(longest);
        let mut state = self.state();
        loop {
            let left = until.map_or(longest, |until| until.saturating_duration_since(Instant::now()));
            if state.stop || state.all || !state.keys.is_empty() || left == Duration::ZERO {
                return Wanted {
                    stop: state.stop,
                    all: core::mem::take(&mut state.all),
                    keys: core::mem::take(&mut state.keys),
                };
            }
            state = self
                .woken
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn state(&self) -> MutexGuard<'_, Wanted> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the thread. It ends when `signal` says so or the keyring is dropped.
pub(super) fn start<S: KeyStore + 'static>(shared: &Arc<Shared<S>>, signal: &Arc<Signal>) -> Result<(), Error> {
    let interval = Duration::from_millis((millis(shared.settings.max_age) / 4).clamp(5, 3_600_000));
    let (weak, waiting) = (Arc::downgrade(shared), Arc::clone(signal));
    let thread = thread::Builder::new().name("dekseal-refresh".to_string());
    shared.refreshing.store(true, Ordering::Relaxed);
    let started = thread.spawn(move || run(&weak, &waiting, interval));
    if let Err(error) = started {
        shared.refreshing.store(false, Ordering::Relaxed);
        return Err(Error::keyring(error));
    }
    let watched = Arc::clone(signal);
    shared.store.watch(Box::new(move |change| watched.notify(change)));
    Ok(())
}

fn run<S: KeyStore>(weak: &Weak<Shared<S>>, signal: &Signal, interval: Duration) {
    /// When the thread ends, even by a panic of the store, calls confirm documents themselves again.
    struct End<'a, S>(&'a Weak<Shared<S>>);
    impl<S> Drop for End<'_, S> {
        fn drop(&mut self) {
            if let Some(shared) = self.0.upgrade() {
                shared.refreshing.store(false, Ordering::Relaxed);
            }
        }
    }
    let _end = End(weak);
    let mut failed = false;
    loop {
        let wanted = signal.wait(if failed { Duration::ZERO } else { interval });
        if wanted.stop {
            return;
        }
        let Some(shared) = weak.upgrade() else { return };
        // A failed check may have missed changes of any key.
        let result = if wanted.all || failed {
            shared.refresh(Duration::ZERO)
        } else {
            let notified = shared.refresh_held(wanted.keys.into_iter().collect());
            notified.and_then(|_| shared.refresh(Duration::from_millis(millis(shared.settings.max_age) / 2)))
        };
        failed = result.is_err();
        shared.refresh_failed.store(failed, Ordering::Relaxed);
        drop(shared);
        if failed {
            // Notifications do not shorten this pause.
            thread::sleep(RETRY.min(interval));
        }
    }
}

impl<S: KeyStore> StoreKeyring<S> {
    /// Starts a thread that checks the documents of all keys in memory before they are older than
    /// [`max_age`](StoreSettings::max_age), many in one query. If the store sends notifications, it also checks at once
    /// after each. The thread ends with the keyring. A second call does nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Keyring`] if the system cannot start a thread; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, StoreKeyring, store::MemoryStore};
    /// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
    /// let keyring = StoreKeyring::new(MemoryStore::new(), root);
    /// keyring.start_refresher()?;
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn start_refresher(&self) -> Result<(), Error>
    where
        S: 'static,
    {
        let mut refresher = self.refresher.lock().unwrap_or_else(PoisonError::into_inner);
        if refresher.is_none() {
            let signal = Arc::new(Signal::default());
            start(&self.shared, &signal)?;
            *refresher = Some(signal);
        }
        Ok(())
    }

    /// Checks the documents of all keys in memory now. Returns the number of changed documents. A host with its own
    /// timer uses this instead of [`start_refresher`](Self::start_refresher).
    ///
    /// A refused document does not keep the others from being checked. Calls for its key report the error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] with a fault of the store; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, StoreKeyring, store::MemoryStore};
    /// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
    /// # let keyring = StoreKeyring::new(MemoryStore::new(), root);
    /// assert_eq!(keyring.refresh()?, 0);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn refresh(&self) -> Result<usize, Error> {
        self.shared.refresh(Duration::ZERO)
    }
}

impl<S: KeyStore> Shared<S> {
    /// Checks the documents that the store last confirmed at least `age` ago. Returns the number of changed documents.
    pub(super) fn refresh(&self, age: Duration) -> Result<usize, Error> {
        let now = self.clock.now();
        let due = |confirmed: Moment| now.since(confirmed) >= millis(age);
        let pinned = self.cache.entries.pin();
        let due = pinned.iter().filter(|(_, entry)| due(entry.confirmed()));
        let key_ids: Vec<_> = due.map(|(key_id, _)| *key_id).collect();
        drop(pinned);
        self.refresh_keys(&key_ids)
    }

    /// Checks the keys that are in memory.
    fn refresh_held(&self, mut key_ids: Vec<KeyId>) -> Result<usize, Error> {
        let pinned = self.cache.entries.pin();
        key_ids.retain(|key_id| pinned.contains_key(key_id));
        drop(pinned);
        self.refresh_keys(&key_ids)
    }

    /// Checks keys, many in one query. A refused document does not keep the others from being checked. If the store
    /// serves calls but not the refresher's own connection, the documents are confirmed all the same: the connections
    /// of calls serve the rest of the keys.
    fn refresh_keys(&self, key_ids: &[KeyId]) -> Result<usize, Error> {
        let mut changed: usize = 0;
        let mut own_connection = true;
        for batch in key_ids.chunks(BATCH) {
            for (key_id, taken) in &self.query(batch, &mut own_connection)? {
                match taken {
                    Ok(taken) => changed = changed.saturating_add(usize::from(taken.is_new())),
                    Err(error) => self.refused(key_id, error),
                }
            }
        }
        Ok(changed)
    }

    /// Sends a query through the connection of the refresher, unless that failed.
    fn query(&self, key_ids: &[KeyId], own_connection: &mut bool) -> Result<Found, Error> {
        let ask = |call: Call| {
            count(&self.counters.refreshes);
            let mut event = Event::new("refresh_keys", None, None);
            event.count(key_ids.len());
            event.of(|_| self.ask(key_ids, &call))
        };
        if *own_connection {
            match ask(self.call().for_refresh()) {
                Err(error) if is_away(&error) => *own_connection = false,
                outcome => return outcome,
            }
        }
        ask(self.call())
    }

    /// Emits the event for a refused document.
    fn refused(&self, key_id: &KeyId, error: &Error) {
        let refused: Result<(), Error> = Err(error.duplicate());
        Event::new("refresh_key", Some(key_id), None).emit(&refused);
    }
}

#[cfg(test)]
mod tests;
