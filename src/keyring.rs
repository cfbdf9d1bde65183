//! Which CMK, and which version of it; where CMKs are kept.

use alloc::{collections::BTreeMap, sync::Arc};
use core::fmt;
#[cfg(feature = "std")]
use std::sync::{Mutex, PoisonError};

#[cfg(feature = "std")]
use arc_swap::ArcSwap;
use hashbrown::{HashMap, hash_map::Entry};

use crate::{
    cmk::Cmk,
    error::{Error, ErrorKind},
    key_id::KeyId,
};

/// Where an [`Engine`](crate::Engine) finds CMKs.
///
/// A host implements it over its own store. Both methods lend the CMK to a function and give back what that returns, so an
/// implementation cannot forget to call it, and need not share or clone a CMK to hand it out.
///
/// # Errors
///
/// An implementation answers [`ErrorKind::UnknownKey`], [`ErrorKind::UnknownKeyVersion`], [`ErrorKind::KeyDisabled`] or
/// [`ErrorKind::KeyPendingDeletion`] as the case may be (`Err(ErrorKind::UnknownKey.into())`), and [`Error::keyring`] where
/// its store fails. The engine passes them on.
///
/// # Examples
///
/// A service with one CMK, which it never replaces:
///
/// ```
/// use dekseal::{Cmk, Error, ErrorKind, KeyId, Keyring};
///
/// struct OneKey(Cmk);
///
/// impl Keyring for OneKey {
///     fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&Cmk) -> T) -> Result<T, Error> {
///         self.with_version(key_id, self.0.key_version(), f)
///     }
///
///     fn with_version<T>(&self, key_id: &KeyId, version: u32, f: impl FnOnce(&Cmk) -> T) -> Result<T, Error> {
///         if *key_id != self.0.key_id() {
///             return Err(ErrorKind::UnknownKey.into());
///         }
///         if version != self.0.key_version() {
///             return Err(ErrorKind::UnknownKeyVersion.into());
///         }
///         Ok(f(&self.0))
///     }
/// }
/// ```
pub trait Keyring: Send + Sync {
    /// Lends the version of `key_id` that seals.
    ///
    /// # Errors
    ///
    /// As the trait says; never [`ErrorKind::UnknownKeyVersion`].
    fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&Cmk) -> T) -> Result<T, Error>;

    /// Lends version `key_version` of `key_id`, to open what was sealed under it.
    ///
    /// # Errors
    ///
    /// As the trait says.
    fn with_version<T>(&self, key_id: &KeyId, key_version: u32, f: impl FnOnce(&Cmk) -> T) -> Result<T, Error>;
}

impl<K: Keyring + ?Sized> Keyring for Arc<K> {
    fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&Cmk) -> T) -> Result<T, Error> {
        (**self).with_current(key_id, f)
    }

    fn with_version<T>(&self, key_id: &KeyId, key_version: u32, f: impl FnOnce(&Cmk) -> T) -> Result<T, Error> {
        (**self).with_version(key_id, key_version, f)
    }
}

/// One key: the version that seals, which is the highest, and the others.
#[derive(Clone)]
struct Key {
    current: Arc<Cmk>,
    older: BTreeMap<u32, Arc<Cmk>>,
}

impl Key {
    fn version(&self, key_version: u32) -> Result<&Cmk, Error> {
        if key_version == self.current.key_version() {
            return Ok(&self.current);
        }
        let cmk = self.older.get(&key_version);
        Ok(cmk.ok_or(ErrorKind::UnknownKeyVersion)?)
    }

    fn add(&mut self, mut cmk: Arc<Cmk>) -> Result<(), Error> {
        if self.version(cmk.key_version()).is_ok() {
            return Err(ErrorKind::DuplicateKeyVersion.into());
        }
        if cmk.key_version() > self.current.key_version() {
            core::mem::swap(&mut self.current, &mut cmk);
        }
        self.older.insert(cmk.key_version(), cmk);
        Ok(())
    }
}

type Keys = HashMap<KeyId, Arc<Key>>;

/// CMKs in memory. The highest version of a key seals, and every version opens.
///
/// Looking a CMK up never waits: `insert` makes the next state beside the present one and puts it in place.
/// Without the feature `std` a keyring is what [`from_cmks`](Self::from_cmks) made of it.
///
/// # Examples
///
#[cfg_attr(feature = "std", doc = "```")]
#[cfg_attr(not(feature = "std"), doc = "```ignore")]
/// use dekseal::{Cmk, Dek, MemoryKeyring};
///
/// let material = Dek::generate()?; // 64 random bytes
/// let cmk = Cmk::new("0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?, 0, material.expose_secret())?;
/// let keyring = MemoryKeyring::from_cmks([cmk])?;
/// # Ok::<(), dekseal::Error>(())
/// ```
pub struct MemoryKeyring {
    #[cfg(feature = "std")]
    keys: ArcSwap<Keys>,
    #[cfg(not(feature = "std"))]
    keys: Keys,
    /// Held while the next state is made, so that no writer misses what another one did.
    #[cfg(feature = "std")]
    writer: Mutex<()>,
}

impl MemoryKeyring {
    /// A keyring of these CMKs, in any order; versions may have gaps.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::DuplicateKeyVersion`] where one version of one key ID occurs twice; no other.
    pub fn from_cmks(cmks: impl IntoIterator<Item = Cmk>) -> Result<Self, Error> {
        let mut keys = Keys::default();
        for cmk in cmks {
            add(&mut keys, cmk)?;
        }
        Ok(Self {
            #[cfg(feature = "std")]
            keys: ArcSwap::from_pointee(keys),
            #[cfg(not(feature = "std"))]
            keys,
            #[cfg(feature = "std")]
            writer: Mutex::new(()),
        })
    }

    /// Adds a CMK: a new key, or another version of one.
    ///
    /// Takes time in proportion to the number of keys; for many at once there is [`from_cmks`](Self::from_cmks).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::DuplicateKeyVersion`] where the keyring holds that version already, and then nothing has changed; no other.
    #[cfg(feature = "std")]
    pub fn insert(&self, cmk: Cmk) -> Result<(), Error> {
        // The lock guards no data, so a writer that panicked has left nothing half done.
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys = Keys::clone(&self.keys.load());
        add(&mut keys, cmk)?;
        self.keys.store(Arc::new(keys));
        Ok(())
    }

    /// Lends the key as it is now.
    #[inline]
    fn with_key<T>(&self, key_id: &KeyId, f: impl FnOnce(&Key) -> Result<T, Error>) -> Result<T, Error> {
        #[cfg(feature = "std")]
        let keys = self.keys.load();
        #[cfg(not(feature = "std"))]
        let keys = &self.keys;
        f(keys.get(key_id).ok_or(ErrorKind::UnknownKey)?)
    }
}

/// Adds `cmk` where its version is not there yet.
fn add(keys: &mut Keys, cmk: Cmk) -> Result<(), Error> {
    let cmk = Arc::new(cmk);
    match keys.entry(cmk.key_id()) {
        Entry::Occupied(mut key) => Arc::make_mut(key.get_mut()).add(cmk),
        Entry::Vacant(slot) => {
            let key = Key {
                current: cmk,
                older: BTreeMap::new(),
            };
            slot.insert(Arc::new(key));
            Ok(())
        }
    }
}

impl Keyring for MemoryKeyring {
    #[inline]
    fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&Cmk) -> T) -> Result<T, Error> {
        self.with_key(key_id, |key| Ok(f(&key.current)))
    }

    #[inline]
    fn with_version<T>(&self, key_id: &KeyId, key_version: u32, f: impl FnOnce(&Cmk) -> T) -> Result<T, Error> {
        self.with_key(key_id, |key| Ok(f(key.version(key_version)?)))
    }
}

impl fmt::Debug for MemoryKeyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryKeyring(..)")
    }
}
