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
/// Looking up a CMK never waits: `update` makes a new state beside the present one and then replaces it. So every call
/// sees the keys from before or from after an update. Without the feature `std`, the keys cannot be changed.
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
    /// Held while a new state is made, so that no writer loses the change of another.
    #[cfg(feature = "std")]
    writer: Mutex<()>,
}

impl MemoryKeyring {
    /// Makes a keyring of these keys.
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

    /// Makes a keyring of these CMKs, in any order. All keys are enabled. The highest version of a key seals. Versions
    /// may have gaps.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::DuplicateKeyVersion`](crate::ErrorKind::DuplicateKeyVersion) if a version of a key occurs twice; no
    /// others.
    ///
    /// # Security
    ///
    /// The copies that moves leave in memory are not wiped. Pass an array, or an iterator that makes the CMKs, and not
    /// a `Vec`, which frees its memory with the keys still in it.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let (material, older) = ([7; 64], [8; 64]);
    /// // Version 3 seals. DEKs under version 2 still open.
    /// let versions = [CmkVersion::new(key_id, 3, &material)?, CmkVersion::new(key_id, 2, &older)?];
    /// let keyring = MemoryKeyring::from_versions(versions)?;
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

    /// Changes the keys. All changes of `f` become visible together when it returns. If it returns an error, nothing
    /// changes.
    ///
    /// Writers wait for one another, so `f` must not call `update` on the same keyring. A call takes time in proportion
    /// to the number of keys: make many changes in one call.
    ///
    /// # Errors
    ///
    /// The errors of `f`; no others.
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
            // The lock guards no data, so after a panic it is used as it is.
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
