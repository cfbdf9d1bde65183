//! Finds out whether a change of unknown outcome was made (FORMAT.md D4).

use std::sync::Arc;

use super::{
    super::{
        document::{self, Edition},
        key::Key,
        store::{Call, KeyStore, StoreError, StoredDocument},
    },
    clock::millis,
    reading::{self, Read},
    shared::Shared,
    write::{Change, pause},
};
use crate::{
    error::{Error, StoreFault},
    trace::Event,
};

impl<S: KeyStore> Shared<S> {
    /// Whether a change can no longer be sent. The deadline of the call does not count the time for which the machine
    /// was suspended.
    pub(super) fn is_late(&self, change: &Change<'_>) -> bool {
        self.clock.now().since(change.begun) > millis(self.settings.deadline.min(Call::FOREVER))
    }

    /// D4: resolves an unknown outcome by reading until the deadline.
    pub(super) fn settle(&self, change: &Change<'_>, call: &Call, error: StoreError) -> Result<bool, Error> {
        Event::new("settle_change", Some(change.key_id), None).of(|_| {
            let mut attempt: usize = 0;
            loop {
                attempt = attempt.saturating_add(1);
                pause(attempt, call);
                if call.remaining().is_zero() {
                    break;
                }
                let Ok(present) = self.get(change.key_id, call) else {
                    continue;
                };
                if present.as_ref().map(|present| present.revision) == change.expected {
                    // The first request may still be under way. Of two equal requests only one can succeed.
                    match self.send(change, call) {
                        Ok(()) => return Ok(true),
                        Err(_) if self.is_late(change) => break,
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
        let present = match (&change.after, present) {
            (_, Some(present)) => present,
            (None, None) => return Some(true),
            // The key was purged, or the store has lost it. The change may have been made before.
            (Some(_), None) => return change.before.is_none().then_some(false),
        };
        let roots = self.roots.load();
        let held = change.before.as_ref().map(|before| &before.key);
        let held = change.after.as_ref().map_or(held, |ours| Some(&ours.key));
        let Read { key, edition, root } = reading::read(&present.document, change.key_id, &roots, held).ok()?;
        let Some(ours) = &change.after else {
            // A key with another `id` was made since, so the one to remove is gone.
            return Some(
                change
                    .before
                    .as_ref()
                    .is_some_and(|before| before.edition.id != edition.id),
            );
        };
        if change.is_in(&key, edition) {
            return Some(true);
        }
        if edition.id != ours.edition.id {
            // Another process made the key first, or the changed key was purged since.
            return change.before.is_none().then_some(false);
        }
        if edition.generation <= ours.edition.generation {
            return Some(false);
        }
        // A later document of the other branch may have the same versions and state.
        if change.written_back.is_some() {
            return None;
        }
        if change.makes_version() {
            // If the version is absent, it was destroyed or never existed.
            return key.get(ours.key.current_version()).map(|_| false);
        }
        // If the change made no version, its effect may be visible. Otherwise the document does not tell.
        let effect = |key: &Key| (key.state(), key.min_version, key.oldest_version());
        let there = effect(&key) == effect(&ours.key) && Arc::ptr_eq(&root, &ours.root);
        there.then_some(true)
    }
}

impl Change<'_> {
    /// Whether the change makes a version. If not, a later document does not prove that it was made.
    fn makes_version(&self) -> bool {
        let before = self.before.as_ref().map(|before| before.key.current_version());
        self.after.as_ref().map(|after| after.key.current_version()) > before
    }

    /// Whether a document proves that the change was made: it is the document that was sent, or a later one that has
    /// the version that the change makes.
    pub(super) fn is_in(&self, key: &Key, edition: Edition) -> bool {
        let Some(ours) = &self.after else { return false };
        let later = edition.id == ours.edition.id && edition.generation > ours.edition.generation;
        let has_version = || {
            key.get(ours.key.current_version()).is_some()
            // The materials are compared, since another process may have sealed the document under another root.
                && document::check_key_successor(&ours.key, key).is_ok()
        };
        // A document that is written back has only versions that the other branch may have as well.
        let tells = self.written_back.is_none() && self.makes_version();
        edition == ours.edition || later && tells && has_version()
    }
}
