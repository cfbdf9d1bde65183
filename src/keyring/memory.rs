//! A keyring in memory.

use alloc::sync::Arc;
use core::fmt;
#[cfg(feature = "std")]
use std::sync::{Mutex, PoisonError};

#[cfg(feature = "std")]
use arc_swap::ArcSwap;

use super::{Keyring, Keyset};
#[cfg(feature = "std")]
use crate::trace::Event;
use crate::{cmk::CmkVersion, error::Error, key_id::KeyId};

/// CMKs in memory.
///
/// Looking a CMK up never waits: `update` makes the next state beside the present one and puts it in place, so that every call sees
/// the keys as they were before or as they are after. Without the feature `std` the keys stay what the keyring was made of.
///
/// # Examples
///
#[cfg_attr(feature = "std", doc = "```")]
#[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
/// use dekseal::{EncryptionContext, Engine, Keyset, MemoryKeyring};
///
/// let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// let mut keys = Keyset::new();
/// keys.create_key(key_id)?;
/// let engine = Engine::new(MemoryKeyring::new(keys));
///
/// let (dek, sealed) = engine.create_dek(&key_id, &EncryptionContext::none())?;
/// engine.keyring().update(|keys| keys.rotate(&key_id))?;
/// assert_eq!(engine.decrypt_dek(&key_id, &EncryptionContext::none(), &sealed)?, dek);
/// # Ok::<(), dekseal::Error>(())
/// ```
pub struct MemoryKeyring {
    #[cfg(feature = "std")]
    keys: ArcSwap<Keyset>,
    #[cfg(not(feature = "std"))]
    keys: Arc<Keyset>,
    /// Held while the next state is made, so that no writer misses what another one did.
    #[cfg(feature = "std")]
    writer: Mutex<()>,
}

impl MemoryKeyring {
    /// A keyring of these keys.
    #[must_use]
    pub fn new(keys: Keyset) -> Self {
        let keys = Arc::new(keys);
        Self {
            #[cfg(feature = "std")]
            keys: ArcSwap::new(keys),
            #[cfg(not(feature = "std"))]
            keys,
            #[cfg(feature = "std")]
            writer: Mutex::new(()),
        }
    }

    /// A keyring of these CMKs, in any order, all enabled. The highest version of a key seals; there may be gaps.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::DuplicateKeyVersion`](crate::ErrorKind::DuplicateKeyVersion) where one version of one key ID occurs twice; no
    /// other.
    ///
    /// # Security
    ///
    /// Nobody wipes what a move leaves behind: give an array or an iterator that makes them rather than a `Vec`, which frees its
    /// block with the keys still in it.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let (material, older) = ([7; 64], [8; 64]);
    /// // Version 3 seals, and what is under version 2 still opens.
    /// let keyring = MemoryKeyring::from_versions([CmkVersion::new(key_id, 3, &material)?, CmkVersion::new(key_id, 2, &older)?])?;
    /// assert_eq!(keyring.keys().info(&key_id)?.current_version, 3);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn from_versions(cmks: impl IntoIterator<Item = CmkVersion>) -> Result<Self, Error> {
        let mut keys = Keyset::new();
        for cmk in cmks {
            keys.add(cmk)?;
        }
        Ok(Self::new(keys))
    }

    /// Changes the keys: whatever `f` does shows as a whole once it returns, or, where it returns an error, not at all.
    ///
    /// Writers wait for one another, so `f` must not call `update` on the same keyring. It takes time in proportion to the number of
    /// keys; many changes are best made in one call.
    ///
    /// # Errors
    ///
    /// What `f` returns; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let keyring = MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 64])?])?;
    /// let failed = keyring.update(|keys| {
    ///     keys.rotate(&key_id)?;
    ///     keys.set_min_version(&key_id, 9)
    /// });
    /// assert!(failed.is_err());
    /// assert_eq!(keyring.keys().info(&key_id)?.current_version, 0); // nothing of it was done
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn update<T>(&self, f: impl FnOnce(&mut Keyset) -> Result<T, Error>) -> Result<T, Error> {
        Event::new("update_keyring", None, None).of(|_| {
            // The lock guards no data, so a writer that panicked has left nothing half done.
            let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let mut keys = Keyset::clone(&self.keys.load());
            let value = f(&mut keys)?;
            self.replace(keys);
            Ok(value)
        })
    }

    /// The keys as they are now.
    #[must_use]
    pub fn keys(&self) -> Arc<Keyset> {
        #[cfg(feature = "std")]
        return self.keys.load_full();
        #[cfg(not(feature = "std"))]
        return Arc::clone(&self.keys);
    }

    #[cfg(feature = "std")]
    pub(super) fn replace(&self, keys: Keyset) {
        self.keys.store(Arc::new(keys));
    }

    #[cfg(feature = "std")]
    pub(super) fn load(&self) -> arc_swap::Guard<Arc<Keyset>> {
        self.keys.load()
    }

    #[cfg(not(feature = "std"))]
    fn load(&self) -> &Keyset {
        &self.keys
    }
}

impl Keyring for MemoryKeyring {
    #[inline]
    fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        Ok(f(self.load().current(key_id)?))
    }

    #[inline]
    fn with_version<T>(&self, key_id: &KeyId, key_version: u32, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        Ok(f(self.load().opening(key_id, key_version)?))
    }
}

impl fmt::Debug for MemoryKeyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryKeyring(..)")
    }
}
