//! The state that the keys in memory come from, and which state of the file may replace it (FORMAT.md C6).

use std::{
    slice,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
    time::{Instant, SystemTime},
};

use super::{
    super::document::{self, Document, Edition},
    FileKeyring,
    storage::{Seen, Snapshot},
};
use crate::{
    cmk::CmkVersion,
    error::{Error, ErrorKind, FileFault},
    sha256::sha256,
};

/// The state of the file that the keys in memory come from.
pub(super) struct State {
    pub(super) root: Arc<CmkVersion>,
    pub(super) edition: Edition,
    /// The SHA-256 of the text that was read or written last. The same text is not parsed again.
    pub(super) text: [u8; 32],
}

#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) time: SystemTime,
    pub(super) monotonic: Instant,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self {
            time: SystemTime::now(),
            monotonic: Instant::now(),
        }
    }
}

impl FileKeyring {
    /// A panic cannot leave the state inconsistent, because it is set last. So a poisoned lock is used as it is.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn moment(&self) -> Moment {
        *self.refreshed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn parse(&self, text: &[u8], state: &State) -> Result<Document, Error> {
        let known = self.memory.keys();
        let document = document::read(text, slice::from_ref(&state.root), |key_id| known.get(key_id));
        document.map_err(|error| error.with_path(self.storage.path()))
    }

    /// Reads the file, and accepts it if it is a later state. Returns whether it is.
    pub(super) fn read(&self, state: &mut State) -> Result<bool, Error> {
        let now = Moment::now();
        self.compare(state, self.storage.read()?, now)
    }

    /// Accepts the text that was read from the file if it is a later state. Returns whether it is.
    pub(super) fn compare(&self, state: &mut State, present: Snapshot, read: Moment) -> Result<bool, Error> {
        let judged = if sha256(&present.text) == state.text {
            self.confirm(read);
            Ok(false)
        } else {
            let document = self.parse(&present.text, state)?;
            self.accept(state, document, &present.text, read)
        };
        // This comes last: a thread that sees it also sees the keys in memory.
        self.note(present.seen, read);
        judged
    }

    /// Records that the file was compared with the state in memory.
    pub(super) fn note(&self, seen: Seen, read: Moment) {
        let seen = seen.shows_changes(read.time).then_some(seen);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    /// Accepts a document that is a later state than the one in memory. Refuses an older state and a branch. Returns
    /// whether the document is a later state.
    pub(super) fn accept(
        &self,
        state: &mut State,
        document: Document,
        text: &[u8],
        now: Moment,
    ) -> Result<bool, Error> {
        let later = self.is_later(state, &document).map_err(|error| {
            self.rolled_back.store(true, Ordering::Release);
            error.with_path(self.storage.path())
        })?;
        if later {
            self.replace(state, document, text, now);
        } else {
            state.text = sha256(text);
            self.confirm(now);
        }
        Ok(later)
    }

    /// C6: whether a document is a later state than the one in memory, or the same state. Refuses any other.
    fn is_later(&self, state: &State, document: &Document) -> Result<bool, Error> {
        let later = state.edition.precedes(&document.edition)?;
        if later {
            // After a rollback, only the host can decide which branch continues.
            if self.rolled_back.load(Ordering::Acquire) {
                return Err(FileFault::RolledBack.into());
            }
            document::check_successor(&self.memory.keys(), &document.keys)?;
        }
        Ok(later)
    }

    /// Checks that `text`, which was just made, opens, and stores it as the file.
    pub(super) fn write(
        &self,
        state: &mut State,
        text: &[u8],
        root: &Arc<CmkVersion>,
        store: impl FnOnce(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let known = self.memory.keys();
        let document = document::read(text, slice::from_ref(root), |key_id| known.get(key_id));
        let document = document.map_err(|_| ErrorKind::ForeignKeys)?;
        let now = Moment::now();
        let written = store(text);
        let in_place = match &written {
            Ok(()) => true,
            Err(error) => error.kind() == ErrorKind::File(FileFault::NotSynced),
        };
        if in_place {
            self.replace(state, document, text, now);
        }
        written
    }

    /// Replaces the state in memory by a document.
    pub(super) fn replace(&self, state: &mut State, document: Document, text: &[u8], now: Moment) {
        self.memory.replace(document.keys);
        self.generation.store(document.edition.generation, Ordering::Release);
        *state = State {
            root: document.root,
            edition: document.edition,
            text: sha256(text),
        };
        self.confirm(now);
    }

    /// Records that the keys in memory are those of the file.
    fn confirm(&self, now: Moment) {
        self.rolled_back.store(false, Ordering::Release);
        *self.refreshed.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}
