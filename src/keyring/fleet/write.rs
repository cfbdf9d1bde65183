//! Changes the documents of a store (FORMAT.md D4).

use core::time::Duration;
use std::{boxed::Box, sync::Arc, thread, vec::Vec};

use rand_core::TryRng;

use super::{
    super::{
        document::{self, Edition},
        key::{Key, KeyState, Version},
        keyset::Keyset,
        store::{Call, KeyStore, Revision, StoreError, StoreErrorKind, StoredDocument},
    },
    cache::{Answer, Begun, Held, Taken},
    clock::Moment,
    counters::count,
    reading::{self, Read, Roots, keyset_of},
    shared::{Shared, is_deadline},
};
use crate::{
    cmk::CmkVersion,
    error::{Error, ErrorKind, StoreFault},
    key_id::KeyId,
    trace::Event,
    unix_time::UnixTime,
};

/// The maximum number of attempts at a change when other writers come first.
const ATTEMPTS: usize = 64;
/// The longest pause before the second attempt, and before later ones.
const PAUSES: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(50));

/// A change that is sent to the store.
pub(super) struct Change<'a> {
    pub(super) key_id: &'a KeyId,
    /// The time before the change was applied, and so before the `created` of a version that it makes. The change is
    /// sent within the deadline of a call from then on (D5).
    pub(super) begun: Moment,
    /// The document that the change was applied to.
    pub(super) before: Option<Held>,
    /// The revision that the store must have for the change to be made.
    pub(super) expected: Option<Revision>,
    /// The new document, or `None` to remove the present one.
    pub(super) after: Option<NewDocument>,
    /// Whether to keep the new document in memory if the key was not there.
    pub(super) keep: bool,
    /// The held document that is written back over another branch.
    pub(super) written_back: Option<Edition>,
}

/// The outcome of a change.
pub(super) enum Made<'a> {
    Done,
    /// Another writer came first.
    Conflict(Box<Change<'a>>),
}

pub(super) struct NewDocument {
    stored: StoredDocument,
    pub(super) edition: Edition,
    pub(super) root: Arc<CmkVersion>,
    pub(super) key: Key,
}

impl<S: KeyStore> Shared<S> {
    pub(super) fn update<T>(
        &self,
        key_id: &KeyId,
        mut f: impl FnMut(&mut Keyset) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // The change of the attempt before, and its value.
        let mut tried: Option<(Box<Change<'_>>, T)> = None;
        self.attempts(key_id, |call| {
            let before = self.read(key_id, call)?;
            // A store whose client repeats a request may report that the change conflicts with itself.
            if let (Some((change, value)), Some(present)) = (tried.take(), &before)
                && change.is_in(&present.key, present.edition)
            {
                return Ok(Some(value));
            }
            let begun = self.clock.now();
            // An ordinary change keeps the root of the document (D3).
            let root = match &before {
                Some(before) => Arc::clone(&before.root),
                None => Arc::clone(&self.roots.load().writing),
            };
            let mut keys = keyset_of(key_id, before.as_ref().map(|before| &before.key));
            keys.seal_under(Arc::clone(&root));
            let time = UnixTime::now()?;
            let value = f(&mut keys)?;
            if keys.iter().any(|(other, _)| other != key_id) {
                return Err(Error::from(ErrorKind::ForeignKeys).with_key_id(key_id));
            }
            let after = match (keys.get(key_id), &before) {
                (Some(key), Some(before)) => {
                    // Another key under the `id` of this one. Other processes would refuse it as a rollback.
                    if document::check_key_successor(&before.key, key).is_err() {
                        return Err(Error::from(ErrorKind::KeyExists).with_key_id(key_id));
                    }
                    check_created(&before.key, key, time)?;
                    Some(new_document(key_id, &keys, Some(before), &root)?)
                }
                (Some(_), None) => Some(new_document(key_id, &keys, None, &root)?),
                // Other processes would take any other absence for a rollback.
                (None, Some(before)) if !matches!(before.key.state(), KeyState::PendingDeletion { .. }) => {
                    return Err(Error::from(ErrorKind::DeletionNotScheduled).with_key_id(key_id));
                }
                (None, Some(_)) => None,
                (None, None) => return Ok(Some(value)),
            };
            let change = Change {
                key_id,
                begun,
                expected: before.as_ref().map(|before| before.revision),
                before,
                after,
                keep: true,
                written_back: None,
            };
            match self.make(change, call)? {
                Made::Done => Ok(Some(value)),
                Made::Conflict(change) => {
                    tried = Some((change, value));
                    Ok(None)
                }
            }
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
                Ok(None) => {
                    count(&self.counters.conflicts);
                    Event::new("retry_change", Some(key_id), None).emit(&Ok::<_, Error>(()));
                }
                // The other writers caused the delay.
                Err(error) if number > 0 && is_deadline(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Err(Error::from(StoreFault::Conflict).with_key_id(key_id))
    }

    pub(super) fn get(&self, key_id: &KeyId, call: &Call) -> Result<Option<StoredDocument>, Error> {
        let present = self.store.get(key_id, call).map_err(|error| self.failed(error))?;
        self.answered();
        Ok(present)
    }

    /// Reads and accepts the document of the store.
    pub(super) fn read(&self, key_id: &KeyId, call: &Call) -> Result<Option<Held>, Error> {
        loop {
            let begun = self.cache.begin(self.clock.now());
            let present = self.get(key_id, call)?;
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

    /// Sends a change. If the store does not say whether it made the change, finds out.
    pub(super) fn make<'a>(&self, change: Change<'a>, call: &Call) -> Result<Made<'a>, Error> {
        let begun = self.cache.begin(self.clock.now());
        let sent = self.send(&change, call);
        let made = match sent {
            Ok(()) => true,
            Err(error) if error.is_outcome_unknown() => self.settle(&change, call, error)?,
            Err(error) if error.kind() == StoreErrorKind::Conflict => false,
            Err(error) => return Err(self.failed(error).with_key_id(change.key_id)),
        };
        if !made {
            return Ok(Made::Conflict(Box::new(change)));
        }
        let Change { key_id, keep, .. } = change;
        match (change.after, change.before, change.written_back) {
            (Some(new), _, Some(from)) => {
                let restored = self.cache.restored(key_id, begun, from, new.stored, &self.roots.load());
                // Another call has decided meanwhile, so the document of the store is judged like any other. If the
                // read fails, the next refresh finds the document.
                if !restored? {
                    let _ = self.read(key_id, call);
                }
            }
            (Some(new), ..) => self.take_up_own(key_id, begun, new, keep, call),
            (None, Some(before), _) => self.cache.forget(key_id, before.edition),
            (None, None, _) => {}
        }
        Ok(Made::Done)
    }

    /// Accepts a document that this process has written.
    fn take_up_own(&self, key_id: &KeyId, begun: Begun, new: NewDocument, keep: bool, call: &Call) {
        let NewDocument { stored, edition, .. } = new;
        let taken = self.take(key_id, begun, Answer::Document(stored), keep);
        // Another document was accepted meanwhile. It is a newer one, or an older one if the key had been evicted.
        let is_older = |held: Held| held.edition.generation < edition.generation;
        if matches!(taken, Ok(Taken::Dropped)) && self.cache.get(key_id).is_some_and(is_older) {
            // If the read fails, the next refresh finds the document.
            let _ = self.read(key_id, call);
        }
    }

    pub(super) fn send(&self, change: &Change<'_>, call: &Call) -> Result<(), StoreError> {
        if self.is_late(change) {
            return Err(StoreErrorKind::Deadline.into());
        }
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
}

impl Made<'_> {
    pub(super) fn done(self) -> Option<()> {
        matches!(self, Self::Done).then_some(())
    }
}

/// D5: the grace period counts from the `created` of a version. So a version that is added to an existing key cannot be
/// older than the change, which began at `begun`: the grace period has no room for that.
fn check_created(before: &Key, after: &Key, begun: UnixTime) -> Result<(), Error> {
    let added = |version: &&Arc<Version>| version.cmk.key_version() > before.current_version();
    for version in after.versions().filter(added) {
        if version.created.is_some_and(|created| created < begun) {
            let error = Error::from(ErrorKind::ImplausibleTime).with_key_id(&version.cmk.key_id());
            return Err(error.with_key_version(version.cmk.key_version()));
        }
    }
    Ok(())
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
pub(super) fn pause(attempt: usize, call: &Call) {
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
