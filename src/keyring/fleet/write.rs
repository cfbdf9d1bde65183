//! Changes the documents of a store (FORMAT.md D4).

use core::time::Duration;
use std::{sync::Arc, thread, vec::Vec};

use rand_core::TryRng;

use super::{
    super::{
        document::{self, Edition},
        key::Key,
        keyset::Keyset,
        store::{Call, KeyStore, Revision, StoreError, StoreErrorKind, StoredDocument},
    },
    cache::{Answer, Begun, Held, Taken},
    counters::count,
    reading::{self, Read, Roots, keyset_of},
    shared::{Shared, is_deadline},
};
use crate::{
    cmk::CmkVersion,
    error::{Error, ErrorKind, StoreFault},
    key_id::KeyId,
    trace::Event,
};

/// The maximum number of attempts at a change when other writers come first.
const ATTEMPTS: usize = 64;
/// The longest pause before the second attempt, and before later ones.
const PAUSES: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(50));

/// A change that is sent to the store.
pub(super) struct Change<'a> {
    pub(super) key_id: &'a KeyId,
    /// The document that the store must have for the change to be made.
    pub(super) before: Option<&'a Held>,
    pub(super) expected: Option<Revision>,
    /// The new document, or `None` to remove the present one.
    pub(super) after: Option<NewDocument>,
    /// Whether to keep the new document in memory if the key was not there.
    pub(super) keep: bool,
}

pub(super) struct NewDocument {
    stored: StoredDocument,
    edition: Edition,
    root: Arc<CmkVersion>,
    key: Key,
}

impl<S: KeyStore> Shared<S> {
    pub(super) fn update<T>(
        &self,
        key_id: &KeyId,
        mut f: impl FnMut(&mut Keyset) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.attempts(key_id, |call| {
            let before = self.read(key_id, call)?;
            // An ordinary change keeps the root of the document (D3).
            let root = match &before {
                Some(before) => Arc::clone(&before.root),
                None => Arc::clone(&self.roots.load().writing),
            };
            let mut keys = keyset_of(key_id, before.as_ref().map(|before| &before.key));
            keys.seal_under(Arc::clone(&root));
            let value = f(&mut keys)?;
            if keys.iter().any(|(other, _)| other != key_id) {
                return Err(Error::from(ErrorKind::ForeignKeys).with_key_id(key_id));
            }
            let after = match (keys.get(key_id), &before) {
                (Some(_), _) => Some(new_document(key_id, &keys, before.as_ref(), &root)?),
                (None, Some(_)) => None,
                (None, None) => return Ok(Some(value)),
            };
            let change = Change {
                key_id,
                before: before.as_ref(),
                expected: before.as_ref().map(|before| before.revision),
                after,
                keep: true,
            };
            Ok(self.make(change, call)?.then_some(value))
        })
    }

    /// Attempts a change of one key again as long as other writers come first.
    pub(super) fn attempts<T>(
        &self,
        key_id: &KeyId,
        mut attempt: impl FnMut(&Call) -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        let call = self.call();
        for number in 0..ATTEMPTS {
            pause(number, &call);
            match attempt(&call) {
                Ok(Some(done)) => return Ok(done),
                Ok(None) => count(&self.counters.conflicts),
                // The other writers caused the delay.
                Err(error) if number > 0 && is_deadline(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Err(Error::from(StoreFault::Conflict).with_key_id(key_id))
    }

    /// Accepts the document of the store, whatever document is held.
    pub(super) fn adopt(&self, key_id: &KeyId) -> Result<(), Error> {
        let call = self.call();
        let begun = self.cache.begin(self.clock.now());
        let present = self.store.get(key_id, &call).map_err(|error| self.failed(error))?;
        self.cache.adopt(key_id, begun, present, &self.roots.load())
    }

    /// Overwrites the document of the store with the held one after a rollback.
    pub(super) fn write_back(&self, key_id: &KeyId) -> Result<(), Error> {
        self.attempts(key_id, |call| {
            let begun = self.cache.begin(self.clock.now());
            let present = self.store.get(key_id, call).map_err(|error| self.failed(error))?;
            let revision = present.as_ref().map(|present| present.revision);
            let roots = self.roots.load_full();
            let held = self.cache.get(key_id);
            let held = held.ok_or_else(|| Error::from(ErrorKind::UnknownKey).with_key_id(key_id))?;
            let found = match &present {
                Some(present) => {
                    reading::read(&present.document, key_id, &roots, Some(&held.key))?
                        .edition
                        .generation
                }
                None => 0,
            };
            let answer = present.map_or(Answer::Absent, Answer::Document);
            match self.judge(key_id, begun, answer, true) {
                Err(error) if error.kind() == ErrorKind::Store(StoreFault::RolledBack) => {}
                result => return result.map(|_| Some(())),
            }
            let keys = keyset_of(key_id, Some(&held.key));
            let generation = next(found.max(held.edition.generation))?;
            let text = document::write(&keys, held.edition.id, generation, &held.root)?;
            let document = parse(key_id, text, &held.root, Some(&held.key))?;
            let change = Change {
                key_id,
                before: None,
                expected: revision,
                after: Some(document),
                keep: true,
            };
            Ok(self.make(change, call)?.then_some(()))
        })
    }

    /// Reads and accepts the document of the store.
    pub(super) fn read(&self, key_id: &KeyId, call: &Call) -> Result<Option<Held>, Error> {
        loop {
            let begun = self.cache.begin(self.clock.now());
            let present = self.store.get(key_id, call).map_err(|error| self.failed(error))?;
            let answer = present.map_or(Answer::Absent, Answer::Document);
            match self.take(key_id, begun, answer, true)? {
                Taken::Held(held) => return Ok(Some(held)),
                Taken::Absent => return Ok(None),
                Taken::Dropped if call.remaining().is_zero() => {
                    return Err(Error::from(StoreFault::Deadline).with_key_id(key_id));
                }
                Taken::Dropped => {}
            }
        }
    }

    pub(super) fn judge(
        &self,
        key_id: &KeyId,
        begun: Begun,
        answer: Answer,
        keep: bool,
    ) -> Result<Option<Held>, Error> {
        match self.take(key_id, begun, answer, keep)? {
            Taken::Held(held) => Ok(Some(held)),
            Taken::Absent => Ok(None),
            Taken::Dropped => self.read(key_id, &self.call()),
        }
    }

    fn take(&self, key_id: &KeyId, begun: Begun, answer: Answer, keep: bool) -> Result<Taken, Error> {
        let taken = self.cache.take_up(key_id, begun, answer, &self.roots.load(), keep);
        self.note(&taken);
        taken
    }

    /// Sends a change. If the store does not say whether it made the change, finds out. Returns `false` if another
    /// writer came first and nothing was changed.
    pub(super) fn make(&self, change: Change<'_>, call: &Call) -> Result<bool, Error> {
        let begun = self.cache.begin(self.clock.now());
        let sent = self.send(&change, call);
        let made = match sent {
            Ok(()) => true,
            Err(error) if error.is_outcome_unknown() => self.settle(&change, call, error)?,
            Err(error) if error.kind() == StoreErrorKind::Conflict => false,
            Err(error) => return Err(self.failed(error).with_key_id(change.key_id)),
        };
        if !made {
            return Ok(false);
        }
        match (change.after, change.before) {
            (Some(new), before) => self.take_up_own(change.key_id, begun, new, before.is_none(), change.keep, call)?,
            (None, Some(before)) => self.cache.forget(change.key_id, before.edition),
            (None, None) => {}
        }
        Ok(true)
    }

    /// Accepts a document that this process has written.
    fn take_up_own(
        &self,
        key_id: &KeyId,
        begun: Begun,
        new: NewDocument,
        follows_none: bool,
        keep: bool,
        call: &Call,
    ) -> Result<(), Error> {
        let NewDocument { stored, edition, .. } = new;
        if follows_none && self.cache.get(key_id).is_some_and(|held| held.rolled_back) {
            // The document was written back.
            return self.cache.adopt(key_id, begun, Some(stored), &self.roots.load());
        }
        let taken = self.take(key_id, begun, Answer::Document(stored), keep);
        // Another document was accepted meanwhile. It is a newer one, or an older one if the key had been evicted.
        let is_older = |held: Held| held.edition.generation < edition.generation;
        if matches!(taken, Ok(Taken::Dropped)) && self.cache.get(key_id).is_some_and(is_older) {
            // If the read fails, the next refresh finds the document.
            let _ = self.read(key_id, call);
        }
        Ok(())
    }

    fn send(&self, change: &Change<'_>, call: &Call) -> Result<(), StoreError> {
        match (&change.after, &change.expected) {
            (Some(after), expected) => self
                .store
                .put(change.key_id, expected.as_ref(), &after.stored, call)
                .map(drop),
            (None, Some(expected)) => self.store.remove(change.key_id, expected, call),
            // There was no document.
            (None, None) => Ok(()),
        }
    }

    /// D4: resolves an unknown outcome by reading until the deadline.
    fn settle(&self, change: &Change<'_>, call: &Call, error: StoreError) -> Result<bool, Error> {
        Event::new("settle_change", Some(change.key_id), None).of(|_| {
            let mut attempt: usize = 0;
            loop {
                attempt = attempt.saturating_add(1);
                pause(attempt, call);
                if call.remaining().is_zero() {
                    break;
                }
                let Ok(present) = self.store.get(change.key_id, call) else {
                    continue;
                };
                if present.as_ref().map(|present| present.revision) == change.expected {
                    // The first request may still be under way. Of two equal requests only one can succeed.
                    match self.send(change, call) {
                        Ok(()) => return Ok(true),
                        Err(_) => continue,
                    }
                }
                match self.compare(change, present.as_ref()) {
                    Some(made) => return Ok(made),
                    None => break,
                }
            }
            let unknown = Error::from(StoreFault::OutcomeUnknown).with_key_id(change.key_id);
            Err(unknown.with_source(error))
        })
    }

    /// Whether a document other than the old one shows that the change was made. Returns `None` if it does not tell.
    fn compare(&self, change: &Change<'_>, present: Option<&StoredDocument>) -> Option<bool> {
        let (ours, present) = match (&change.after, present) {
            (Some(ours), Some(present)) => (ours, present),
            (None, None) => return Some(true),
            _ => return Some(false),
        };
        let roots = self.roots.load();
        let read = reading::read(&present.document, change.key_id, &roots, Some(&ours.key));
        let Read { key, edition, root } = read.ok()?;
        if edition == ours.edition {
            return Some(true);
        }
        if edition.id != ours.edition.id || edition.generation <= ours.edition.generation {
            return Some(false);
        }
        // A later document. It includes the change if it has the version that the change made.
        let version = ours.key.current_version();
        if change
            .before
            .is_none_or(|before| before.key.current_version() < version)
        {
            // If the version is absent, it was destroyed or never existed.
            key.get(version)?;
            // The materials are compared, since another process may have sealed the document under another root.
            return Some(document::check_key_successor(&ours.key, &key).is_ok());
        }
        // If the change made no version, its effect may be visible. Otherwise the document does not tell.
        let effect = |key: &Key| (key.state(), key.min_version, key.oldest_version());
        let there = effect(&key) == effect(&ours.key) && Arc::ptr_eq(&root, &ours.root);
        there.then_some(true)
    }
}

/// Makes the document of a key that `f` has changed.
fn new_document(
    key_id: &KeyId,
    keys: &Keyset,
    before: Option<&Held>,
    root: &Arc<CmkVersion>,
) -> Result<NewDocument, Error> {
    let (id, generation) = match before {
        Some(before) => (before.edition.id, next(before.edition.generation)?),
        None => (document::new_id()?, 1),
    };
    let text = document::write(keys, id, generation, root)?;
    parse(key_id, text, root, before.map(|before| &before.key))
}

/// Parses a document that was just made, to check that it opens. Versions of the `held` key were opened already.
pub(super) fn parse(
    key_id: &KeyId,
    text: Vec<u8>,
    root: &Arc<CmkVersion>,
    held: Option<&Key>,
) -> Result<NewDocument, Error> {
    let read = reading::read(&text, key_id, &Roots::new(Arc::clone(root), []), held);
    let Read { key, edition, root } = read.map_err(|_| Error::from(ErrorKind::ForeignKeys).with_key_id(key_id))?;
    let revision = Revision::new(&edition.mac).ok_or(StoreFault::NotADocument)?;
    Ok(NewDocument {
        stored: StoredDocument {
            revision,
            document: text,
        },
        edition,
        root,
        key,
    })
}

pub(super) fn next(generation: u64) -> Result<u64, Error> {
    Ok(generation.checked_add(1).ok_or(StoreFault::TooLarge)?)
}

/// Waits for a random time before a repeated attempt, so that writers do not meet again at once.
fn pause(attempt: usize, call: &Call) {
    let longest = match attempt {
        0 => return,
        1 => PAUSES.0,
        _ => PAUSES.1,
    };
    // If the random generator fails, waits for the longest time.
    let share = getrandom::SysRng
        .try_next_u32()
        .map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
    thread::sleep(longest.mul_f64(share).min(call.remaining()));
}
