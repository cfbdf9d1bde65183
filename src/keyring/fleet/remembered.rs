//! What a process remembers of keys that it does not hold, so that it still detects a rollback of them.

use hashlink::LinkedHashMap;

use super::super::document::{Edition, Newest};
use crate::{key_id::KeyId, unix_time::UnixTime};

/// The newest state of a key that this process has seen.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    /// The position at which it was accepted: see `Begun`. An answer to an earlier request is ignored.
    pub(super) order: u64,
    pub(super) state: State,
}

#[derive(Clone, Copy)]
pub(super) enum State {
    Document(Stamp),
    /// The key was purged. This was its last document.
    Purged(Edition),
    /// The host has adopted that there is no such key.
    Absent,
}

/// What is remembered of a document.
#[derive(Clone, Copy)]
pub(super) struct Stamp {
    pub(super) edition: Edition,
    /// The time of the key's deletion, if one was scheduled.
    pub(super) deletion: Option<UnixTime>,
    /// A branch that has grown past the generation has another newest version.
    pub(super) newest: Newest,
}

/// A bounded map that drops the entry that was inserted first.
///
/// The list of a `LinkedHashMap` holds the entries, and its table only pointers to them. So the table costs little when
/// it doubles, as it does although the number of entries stays the same: removed entries leave marks in it.
pub(super) struct Remembered {
    seen: LinkedHashMap<KeyId, Seen>,
    capacity: usize,
}

impl Remembered {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            seen: LinkedHashMap::new(),
            capacity,
        }
    }

    pub(super) fn get(&self, key_id: &KeyId) -> Option<Seen> {
        self.seen.get(key_id).copied()
    }

    pub(super) fn insert(&mut self, key_id: KeyId, seen: Seen) {
        self.seen.insert(key_id, seen);
        if self.seen.len() > self.capacity {
            self.seen.pop_front();
        }
    }

    pub(super) fn remove(&mut self, key_id: &KeyId) {
        self.seen.remove(key_id);
    }
}

#[cfg(test)]
mod tests;
