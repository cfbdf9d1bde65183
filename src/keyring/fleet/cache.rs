//! The documents that a fleet's keyring holds, and the rules for which document may follow another (FORMAT.md D4).

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{
    boxed::Box,
    format,
    string::ToString,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    vec::Vec,
};

use super::{
    super::{
        document::{self, Edition, Newest},
        key::{Key, KeyState},
        store::{Revision, StoredDocument},
    },
    clock::Moment,
    reading::{self, Read, Roots, refused},
    remembered::{Remembered, Seen, Stamp, State},
};
use crate::{
    cmk::CmkVersion,
    error::{Error, StoreFault},
    key_id::{KeyId, KeyIdHash},
    unix_time::UnixTime,
};

/// A key document in the cache.
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) edition: Edition,
    newest: Newest,
    pub(super) root: Arc<CmkVersion>,
    pub(super) revision: Revision,
    /// The bytes that the store returned.
    pub(super) document: Box<[u8]>,
    /// The start of the last request that found this document in the store.
    confirmed: AtomicU64,
    /// The last time that a call used the key.
    used: AtomicU64,
    /// Whether the store has since returned a document that cannot follow this one.
    rolled_back: AtomicBool,
    /// The position of its acceptance, or of the refusal of a successor, in the order of requests and documents.
    order: AtomicU64,
}

impl Entry {
    #[inline]
    pub(super) fn confirmed(&self) -> Moment {
        Moment::from_millis(self.confirmed.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn is_rolled_back(&self) -> bool {
        self.rolled_back.load(Ordering::Acquire)
    }

    /// Records that a call used the key. Writes at most once in a millisecond, so that threads do not keep writing to
    /// one place.
    #[inline]
    pub(super) fn touch(&self, now: Moment) {
        if self.used.load(Ordering::Relaxed) != now.as_millis() {
            self.used.store(now.as_millis(), Ordering::Relaxed);
        }
    }

    fn confirm(&self, begun: Moment) {
        self.confirmed.fetch_max(begun.as_millis(), Ordering::Relaxed);
        self.rolled_back.store(false, Ordering::Release);
    }

    fn seen(&self) -> Seen {
        Seen {
            order: self.order.load(Ordering::SeqCst),
            state: State::Document(Stamp {
                edition: self.edition,
                deletion: deletion(&self.key),
                newest: self.newest,
            }),
        }
    }
}

fn deletion(key: &Key) -> Option<UnixTime> {
    match key.state() {
        KeyState::PendingDeletion { at } => Some(at),
        KeyState::Enabled | KeyState::Disabled => None,
    }
}

/// The start of a request to the store.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    pub(super) at: Moment,
    /// Its position in the order of requests and accepted documents.
    order: u64,
}

/// The answer of the store about one key.
pub(super) enum Answer {
    /// The document still has this revision.
    Unchanged(Revision),
    Document(StoredDocument),
    Absent,
}

/// The effect of an answer.
#[derive(Clone)]
pub(super) enum Taken {
    /// The key is in the cache now.
    Held(Held),
    /// The key does not exist.
    Absent,
    /// The request began before the newest document was accepted, so the answer was ignored.
    Dropped,
}

impl Taken {
    pub(super) fn is_new(&self) -> bool {
        matches!(self, Self::Held(Held { new: true, .. }))
    }
}

/// A key from the cache. It stays valid after the key is evicted.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) key: Key,
    pub(super) edition: Edition,
    pub(super) root: Arc<CmkVersion>,
    pub(super) revision: Revision,
    pub(super) confirmed: Moment,
    pub(super) rolled_back: bool,
    /// Whether the document was new to the cache.
    pub(super) new: bool,
}

impl From<&Entry> for Held {
    fn from(entry: &Entry) -> Self {
        Self {
            key: entry.key.clone(),
            edition: entry.edition,
            root: Arc::clone(&entry.root),
            revision: entry.revision,
            confirmed: entry.confirmed(),
            rolled_back: entry.is_rolled_back(),
            new: false,
        }
    }
}

pub(super) type Entries = papaya::HashMap<KeyId, Entry, KeyIdHash>;

pub(super) struct Cache {
    /// Read without a lock. Written only while `judge` is locked.
    pub(super) entries: Entries,
    judge: Mutex<Remembered>,
    /// Counts the requests that begin and the documents that are accepted.
    order: AtomicU64,
    capacity: usize,
    evictions: AtomicU64,
}

impl Cache {
    pub(super) fn new(capacity: usize, remembered: usize) -> Self {
        Self {
            entries: Entries::with_hasher(KeyIdHash::default()),
            judge: Mutex::new(Remembered::new(remembered)),
            order: AtomicU64::new(0),
            capacity,
            evictions: AtomicU64::new(0),
        }
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Must be called before the request is sent.
    pub(super) fn begin(&self, at: Moment) -> Begun {
        let order = self.next();
        Begun { at, order }
    }

    fn next(&self) -> u64 {
        self.order.fetch_add(1, Ordering::SeqCst)
    }

    pub(super) fn get(&self, key_id: &KeyId) -> Option<Held> {
        self.entries.pin().get(key_id).map(Held::from)
    }

    pub(super) fn revision(&self, key_id: &KeyId) -> Option<Revision> {
        self.entries.pin().get(key_id).map(|entry| entry.revision)
    }

    /// Accepts or refuses the answer of the store (D4). A document that is not in the cache is inserted only if `keep`
    /// is set.
    pub(super) fn take_up(
        &self,
        key_id: &KeyId,
        begun: Begun,
        answer: Answer,
        roots: &Roots,
        keep: bool,
    ) -> Result<Taken, Error> {
        let mut remembered = self.judge();
        let pinned = self.entries.pin();
        let held = pinned.get(key_id);
        let seen = held.map(Entry::seen).or_else(|| remembered.get(key_id));
        if seen.is_some_and(|seen| begun.order < seen.order) {
            return Ok(Taken::Dropped);
        }
        let seen = seen.map(|seen| seen.state);
        match answer {
            Answer::Unchanged(revision) => match held {
                Some(entry) if entry.revision == revision => {
                    entry.confirm(begun.at);
                    Ok(Taken::Held(entry.into()))
                }
                _ => Ok(Taken::Dropped),
            },
            Answer::Absent => {
                if let Some(State::Document(stamp)) = seen {
                    if !is_due(stamp.deletion) {
                        let text = format!("no document, after generation {}", stamp.edition.generation);
                        return Err(self.refuse(held, key_id, Error::from(StoreFault::RolledBack).with_source(text)));
                    }
                    self.forget_locked(&mut remembered, key_id, State::Purged(stamp.edition));
                }
                Ok(Taken::Absent)
            }
            Answer::Document(stored) => {
                let read = reading::read(&stored.document, key_id, roots, held.map(|entry| &entry.key))?;
                let follows = seen.map_or(Ok(true), |seen| follows(seen, held, &read));
                let later = follows.map_err(|error| self.refuse(held, key_id, error))?;
                if !later && let Some(entry) = held.filter(|entry| entry.revision == stored.revision) {
                    entry.confirm(begun.at);
                    return Ok(Taken::Held(entry.into()));
                }
                let new = self.entry(read, stored, begun);
                if let Some(held) = held {
                    new.used.store(held.used.load(Ordering::Relaxed), Ordering::Relaxed);
                }
                let taken = Held {
                    new: true,
                    ..Held::from(&new)
                };
                if held.is_some() || keep {
                    self.insert(&mut remembered, key_id, new);
                } else if seen.is_some() {
                    remembered.insert(*key_id, new.seen());
                }
                Ok(Taken::Held(taken))
            }
        }
    }

    /// Accepts the document of the store by decision of the host, whatever was held before. Returns `false` if another
    /// document was accepted since the request began: then the answer was ignored.
    pub(super) fn adopt(
        &self,
        key_id: &KeyId,
        begun: Begun,
        present: Option<StoredDocument>,
        roots: &Roots,
    ) -> Result<bool, Error> {
        let mut remembered = self.judge();
        let pinned = self.entries.pin();
        let held = pinned.get(key_id);
        let seen = held.map(Entry::seen).or_else(|| remembered.get(key_id));
        if seen.is_some_and(|seen| begun.order < seen.order) {
            return Ok(false);
        }
        match present {
            Some(stored) => self.replace(&mut remembered, key_id, begun, stored, roots)?,
            None => self.forget_locked(&mut remembered, key_id, State::Absent),
        }
        Ok(true)
    }

    /// Accepts a document that this process has written back over another branch, in place of the held document `from`.
    /// Returns `false` if another document is held by now.
    pub(super) fn restored(
        &self,
        key_id: &KeyId,
        begun: Begun,
        from: Edition,
        stored: StoredDocument,
        roots: &Roots,
    ) -> Result<bool, Error> {
        let mut remembered = self.judge();
        let held = self.entries.pin().get(key_id).map(|entry| entry.edition);
        if held != Some(from) {
            return Ok(false);
        }
        self.replace(&mut remembered, key_id, begun, stored, roots)?;
        Ok(true)
    }

    /// Accepts a document that need not follow the held one.
    fn replace(
        &self,
        remembered: &mut Remembered,
        key_id: &KeyId,
        begun: Begun,
        stored: StoredDocument,
        roots: &Roots,
    ) -> Result<(), Error> {
        let pinned = self.entries.pin();
        let held = pinned.get(key_id).map(|entry| &entry.key);
        let read = reading::read(&stored.document, key_id, roots, held)?;
        let new = self.entry(read, stored, begun);
        self.insert(remembered, key_id, new);
        Ok(())
    }

    /// The entry of a document that is accepted now.
    fn entry(&self, read: Read, stored: StoredDocument, begun: Begun) -> Entry {
        Entry {
            newest: Newest::of(&read.key),
            key: read.key,
            edition: read.edition,
            root: read.root,
            revision: stored.revision,
            document: stored.document.into(),
            confirmed: AtomicU64::new(begun.at.as_millis()),
            used: AtomicU64::new(begun.at.as_millis()),
            rolled_back: AtomicBool::new(false),
            order: self.next().into(),
        }
    }

    /// Removes a key that this process has purged. `edition` was its last document.
    pub(super) fn forget(&self, key_id: &KeyId, edition: Edition) {
        let mut remembered = self.judge();
        let held = self.entries.pin().get(key_id).map(Entry::seen);
        let seen = held.or_else(|| remembered.get(key_id)).map(|seen| seen.state);
        // The key may have been made again meanwhile, with another `id`.
        if !matches!(seen, Some(State::Document(stamp)) if stamp.edition.id != edition.id) {
            self.forget_locked(&mut remembered, key_id, State::Purged(edition));
        }
    }

    fn forget_locked(&self, remembered: &mut Remembered, key_id: &KeyId, state: State) {
        self.entries.pin().remove(key_id);
        let order = self.next();
        remembered.insert(*key_id, Seen { order, state });
    }

    fn insert(&self, remembered: &mut Remembered, key_id: &KeyId, entry: Entry) {
        remembered.remove(key_id);
        let pinned = self.entries.pin();
        pinned.insert(*key_id, entry);
        if pinned.len() <= self.capacity {
            return;
        }
        // Evicts one in sixteen keys at once, so that one search serves many insertions. A key that was rolled back
        // stays, because nothing else can open DEKs under its versions.
        let mut unused: Vec<_> = pinned
            .iter()
            .filter(|(other, entry)| !entry.is_rolled_back() && *other != key_id)
            .map(|(other, entry)| (entry.used.load(Ordering::Relaxed), *other))
            .collect();
        let excess = pinned
            .len()
            .saturating_sub(self.capacity)
            .saturating_add(self.capacity / 16);
        if excess < unused.len() {
            unused.select_nth_unstable(excess);
            unused.truncate(excess);
        }
        for (_, other) in unused {
            if let Some(evicted) = pinned.remove(&other) {
                remembered.insert(other, evicted.seen());
                self.evictions.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Refuses a document that cannot follow the held one. After this the key does not seal. Answers to requests
    /// that began before this are ignored.
    fn refuse(&self, held: Option<&Entry>, key_id: &KeyId, error: Error) -> Error {
        if let Some(entry) = held {
            entry.order.store(self.next(), Ordering::SeqCst);
            entry.rolled_back.store(true, Ordering::Release);
        }
        refused(key_id, error)
    }

    fn judge(&self) -> MutexGuard<'_, Remembered> {
        // A panic leaves only whole entries, so a poisoned lock is used as it is.
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a document follows the newest state that this process has seen (D4). Returns `false` if it is the same
/// document.
fn follows(seen: State, held: Option<&Entry>, read: &Read) -> Result<bool, Error> {
    let edition = match &seen {
        State::Absent => return Ok(true),
        // A key that was purged may be created again, with another `id`.
        State::Purged(edition) if edition.id != read.edition.id => return Ok(true),
        State::Purged(edition) | State::Document(Stamp { edition, .. }) => edition,
    };
    let later = edition.precedes(&read.edition)?;
    match (seen, held) {
        (State::Purged(_), _) if !later => {
            let text = "a purged key is back".to_string();
            Err(Error::from(StoreFault::RolledBack).with_source(text))
        }
        // Only the host can decide which branch continues.
        (_, Some(entry)) if later && entry.is_rolled_back() => Err(StoreFault::RolledBack.into()),
        (_, Some(entry)) if later => document::check_key_successor(&entry.key, &read.key).map(|()| true),
        (State::Document(stamp), None) if later => stamp.newest.check_successor(&read.key).map(|()| true),
        _ => Ok(later),
    }
}

fn is_due(deletion: Option<UnixTime>) -> bool {
    deletion.is_some_and(|at| UnixTime::now().is_ok_and(|now| now >= at))
}
