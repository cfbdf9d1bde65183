//! Looks keys up in memory, and in the store if they are not there (FORMAT.md D5).

use super::{
    super::{Keyring, key::Key, store::KeyStore},
    StoreKeyring,
    cache::{Held, Taken},
    shared::Need,
};
use crate::{
    cmk::CmkVersion,
    error::{Error, ErrorKind},
    key_id::KeyId,
};

impl<S: KeyStore> Keyring for StoreKeyring<S> {
    #[inline]
    fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        self.with(key_id, Need::Seal, |key, rolled_back| {
            if rolled_back {
                return Err(key.error(ErrorKind::RollbackUnresolved));
            }
            key.check_enabled()?;
            Ok(f(&key.current.cmk))
        })
    }

    #[inline]
    fn with_version<T>(&self, key_id: &KeyId, key_version: u32, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        self.with(key_id, Need::Open(key_version), |key, _| {
            let version = key.opening(key_version)?;
            key.check_enabled()?;
            Ok(f(&version.cmk))
        })
    }
}

impl<S: KeyStore> StoreKeyring<S> {
    /// Whether sealing under a key, or opening under a version that is in memory, needs no request to the store. Takes
    /// no lock and does no I/O.
    ///
    /// Opening a blob of a version that is not in memory asks the store too: use [`is_ready_for`](Self::is_ready_for)
    /// for that.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, KeyId, StoreKeyring, store::MemoryStore};
    /// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
    /// # let keyring = StoreKeyring::new(MemoryStore::new(), root);
    /// # let key_id = KeyId::generate()?;
    /// # keyring.update(&key_id, |keys| keys.create_key(key_id))?;
    /// // In an async function: `spawn_blocking(move || keyring.load(&key_id)).await`.
    /// if !keyring.is_ready(&key_id) {
    ///     keyring.load(&key_id)?;
    /// }
    /// assert!(keyring.is_ready(&key_id));
    /// assert!(keyring.is_ready_for(&key_id, 0) && !keyring.is_ready_for(&key_id, 1));
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[must_use]
    pub fn is_ready(&self, key_id: &KeyId) -> bool {
        self.is_ready_for(key_id, 0)
    }

    /// Whether opening under version `key_version` of a key needs no request to the store.
    #[must_use]
    pub fn is_ready_for(&self, key_id: &KeyId, key_version: u32) -> bool {
        let now = self.shared.clock.coarse();
        let pinned = self.shared.cache.entries.pin();
        let entry = pinned.get(key_id);
        entry.is_some_and(|entry| self.shared.is_hit(entry, Need::Open(key_version), now))
    }

    /// Reads the document of a key from the store. Calls that load or miss at the same time share queries.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], and [`ErrorKind::Store`] with a fault of the store or of the document; no others.
    pub fn load(&self, key_id: &KeyId) -> Result<(), Error> {
        let call = self.shared.call();
        match self.shared.fetch(key_id, &call)? {
            // A document that was accepted meanwhile is newer.
            Taken::Held(_) | Taken::Dropped => Ok(()),
            Taken::Absent => Err(Error::from(ErrorKind::UnknownKey).with_key_id(key_id)),
        }
    }

    /// Calls `f` with the key that a call needs, and with whether the key was rolled back.
    #[inline]
    pub(super) fn with<T>(
        &self,
        key_id: &KeyId,
        need: Need,
        f: impl FnOnce(&Key, bool) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let now = self.shared.clock.coarse();
        let pinned = self.shared.cache.entries.pin();
        if let Some(entry) = pinned.get(key_id)
            && self.shared.is_hit(entry, need, now)
        {
            self.shared.counters.hit();
            entry.touch(now);
            return f(&entry.key, entry.is_rolled_back());
        }
        drop(pinned);
        let Held { key, rolled_back, .. } = self.shared.find(key_id, need)?;
        f(&key, rolled_back)
    }
}
