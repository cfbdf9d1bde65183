//! What a process remembers of keys that it does not hold, so that it still detects a rollback of them.

use std::collections::VecDeque;

use hashbrown::HashMap;

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
pub(super) struct Remembered {
    seen: HashMap<KeyId, (Seen, u64)>,
    /// In the order of insertion. Only the last insertion of a key counts.
    insertions: VecDeque<(KeyId, u64)>,
    count: u64,
    capacity: usize,
}

impl Remembered {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            seen: HashMap::new(),
            insertions: VecDeque::new(),
            count: 0,
            capacity,
        }
    }

    pub(super) fn get(&self, key_id: &KeyId) -> Option<Seen> {
        self.seen.get(key_id).map(|(seen, _)| *seen)
    }

    pub(super) fn insert(&mut self, key_id: KeyId, seen: Seen) {
        self.count = self.count.wrapping_add(1);
        self.seen.insert(key_id, (seen, self.count));
        self.insertions.push_back((key_id, self.count));
        while self.seen.len() > self.capacity {
            let Some((oldest, number)) = self.insertions.pop_front() else {
                break;
            };
            if self.counts(&oldest, number) {
                self.seen.remove(&oldest);
            }
        }
        // Keys that are inserted repeatedly leave insertions that no longer count.
        if self.insertions.len() / 2 > self.seen.len().saturating_add(32) {
            let mut insertions = core::mem::take(&mut self.insertions);
            insertions.retain(|(key_id, number)| self.counts(key_id, *number));
            self.insertions = insertions;
        }
    }

    pub(super) fn remove(&mut self, key_id: &KeyId) {
        self.seen.remove(key_id);
    }

    #[cfg(test)]
    pub(super) fn insertions(&self) -> usize {
        self.insertions.len()
    }

    fn counts(&self, key_id: &KeyId, number: u64) -> bool {
        self.seen.get(key_id).is_some_and(|(_, last)| *last == number)
    }
}
