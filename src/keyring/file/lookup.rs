//! Looks keys up in memory, and in the file before a key or version is called unknown (FORMAT.md D5).

use std::{
    sync::{Mutex, PoisonError, TryLockError},
    thread::{self, ThreadId},
};

use super::{super::Keyring, FileKeyring};
use crate::{
    cmk::CmkVersion,
    error::{Error, ErrorKind},
    key_id::KeyId,
};

impl Keyring for FileKeyring {
    fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        self.check_resolved()?;
        match self.memory.load().current(key_id) {
            Err(error) if may_be_new(&error) => {}
            found => return Ok(f(found?)),
        }
        self.look()?;
        self.memory.with_current(key_id, f)
    }

    fn with_version<T>(&self, key_id: &KeyId, key_version: u32, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        match self.memory.load().opening(key_id, key_version) {
            Err(error) if may_be_new(&error) => {}
            found => return Ok(f(found?)),
        }
        self.look()?;
        self.memory.with_version(key_id, key_version, f)
    }
}

impl FileKeyring {
    /// Whether the file looks as it did when it was compared last.
    fn is_as_seen(&self) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.is_some_and(|seen| self.storage.is_as(&seen))
    }

    /// Updates the keys in memory for a call that did not find its key or version.
    fn look(&self) -> Result<(), Error> {
        if self.is_as_seen() {
            return self.check_resolved();
        }
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            // This is the closure of `update`. Its thread holds the lock, so waiting would never end. It need not read:
            // the file was read under the lock of the file, and has not changed since.
            Err(TryLockError::WouldBlock) if self.is_updating() => return Ok(()),
            Err(TryLockError::WouldBlock) => self.state(),
        };
        // Another thread may have read the file while this one waited.
        if self.is_as_seen() {
            return self.check_resolved();
        }
        if let Err(error) = self.read(&mut state) {
            self.check_resolved()?;
            return Err(error);
        }
        Ok(())
    }

    /// Whether this thread runs the closure of `update`.
    fn is_updating(&self) -> bool {
        let updating = self.updating.lock().unwrap_or_else(PoisonError::into_inner);
        *updating == Some(thread::current().id())
    }
}

/// Whether the file may have a key or a version that is not in memory. A missing version below the newest one was
/// destroyed.
fn may_be_new(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::UnknownKey | ErrorKind::UnknownKeyVersion)
}

/// Dropped when the closure of `update` has ended, also by a panic.
pub(super) struct Updating<'a>(&'a Mutex<Option<ThreadId>>);

impl<'a> Updating<'a> {
    pub(super) fn on_this_thread(thread: &'a Mutex<Option<ThreadId>>) -> Self {
        *thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current().id());
        Self(thread)
    }
}

impl Drop for Updating<'_> {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
