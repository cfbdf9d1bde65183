//! The keys of a keyring at one time, and all operations that change them.

mod create;
mod lifecycle;
mod versions;

use alloc::{sync::Arc, vec::Vec};
use core::fmt;

use hashbrown::{HashMap, hash_map::Entry};

use super::key::{Key, KeyInfo, Version};
use crate::{
    cmk::CmkVersion,
    error::{Error, ErrorKind},
    key_id::{KeyId, KeyIdHash},
};

/// CMKs with their versions and states. This is a plain value, which a keyring holds and replaces as a whole.
///
/// [`MemoryKeyring::update`](crate::MemoryKeyring::update) and [`FileKeyring::update`](crate::FileKeyring::update) lend
/// a keyset to a function that changes it. Each method makes its change, or returns an error and changes nothing.
///
/// A key starts with version 0, and each rotation adds the next version. The newest version seals. Every version from
/// the minimum version on opens. A key that is disabled or pending deletion neither seals nor opens.
///
/// # Time
///
/// Each version records when it was created, and a key can be scheduled for deletion. Methods that need the time take
/// it from the system clock. The variants whose names end in `_at` or `_with_rng` take it from the caller, for tests
/// and for hosts without a clock. A wrong but plausible clock is not detected: if it is ahead, a deletion is due too
/// early.
///
/// # Examples
///
#[cfg_attr(feature = "std", doc = "```")]
#[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
/// use dekseal::{ErrorKind, Keyset};
///
/// let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// let mut keys = Keyset::new();
/// keys.import_key(key_id, &[7; 32])?; // version 0
/// keys.import_version(&key_id, &[8; 64])?; // version 1, which seals from now on
/// keys.schedule_deletion(&key_id, 30)?;
/// assert_eq!(keys.purge(&key_id).unwrap_err().kind(), ErrorKind::DeletionNotDue);
/// # Ok::<(), dekseal::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Keyset {
    keys: HashMap<KeyId, Key, KeyIdHash>,
    /// The root that seals the material of new versions, if the keyring is stored.
    #[cfg(feature = "file-keyring")]
    root: Option<Arc<CmkVersion>>,
}

impl Keyset {
    /// Makes a keyset without keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The description of a key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`]; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{Keyset, UnixTime};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # keys.import_key_at(key_id, &[7; 32], UnixTime::from_secs(1_800_000_000)?)?;
    /// let info = keys.info(&key_id)?;
    /// assert_eq!((info.current_version, info.min_version), (0, 0));
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn info(&self, key_id: &KeyId) -> Result<KeyInfo, Error> {
        Ok(self.key(key_id)?.info(*key_id))
    }

    /// The descriptions of all keys, in the order of their IDs.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{Keyset, UnixTime};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # keys.import_key_at(key_id, &[7; 32], UnixTime::from_secs(1_800_000_000)?)?;
    /// let ids: Vec<_> = keys.list().iter().map(|info| info.key_id).collect();
    /// assert_eq!(ids, [key_id]);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[must_use]
    pub fn list(&self) -> Vec<KeyInfo> {
        let mut list: Vec<_> = self.keys.iter().map(|(key_id, key)| key.info(*key_id)).collect();
        list.sort_unstable_by_key(|info| info.key_id);
        list
    }

    /// Adds a CMK version with any number.
    pub(super) fn add(&mut self, cmk: CmkVersion) -> Result<(), Error> {
        let (key_id, key_version) = (cmk.key_id(), cmk.key_version());
        let version = Arc::new(Version {
            cmk,
            created: None,
            #[cfg(feature = "file-keyring")]
            sealed: None,
        });
        match self.keys.entry(key_id) {
            Entry::Occupied(key) if key.get().get(key_version).is_some() => {
                let error = Error::from(ErrorKind::DuplicateKeyVersion).with_key_id(&key_id);
                return Err(error.with_key_version(key_version));
            }
            Entry::Occupied(mut key) => key.get_mut().add(version),
            Entry::Vacant(slot) => drop(slot.insert(Key::new(version))),
        }
        Ok(())
    }

    /// The version of a key that seals.
    pub(super) fn current(&self, key_id: &KeyId) -> Result<&CmkVersion, Error> {
        let key = self.key(key_id)?;
        key.check_enabled()?;
        Ok(&key.current.cmk)
    }

    /// The version of a key for opening what was sealed under it.
    pub(super) fn opening(&self, key_id: &KeyId, key_version: u32) -> Result<&CmkVersion, Error> {
        // The order of the wire API's table: first whether the version exists, then whether the key may be used.
        let key = self.key(key_id)?;
        let version = key.opening(key_version)?;
        key.check_enabled()?;
        Ok(&version.cmk)
    }

    pub(super) fn get(&self, key_id: &KeyId) -> Option<&Key> {
        self.keys.get(key_id)
    }

    fn key(&self, key_id: &KeyId) -> Result<&Key, Error> {
        self.get(key_id)
            .ok_or_else(|| Error::from(ErrorKind::UnknownKey).with_key_id(key_id))
    }

    fn key_mut(&mut self, key_id: &KeyId) -> Result<&mut Key, Error> {
        self.keys
            .get_mut(key_id)
            .ok_or_else(|| Error::from(ErrorKind::UnknownKey).with_key_id(key_id))
    }
}

/// Operations for keyrings that are stored.
#[cfg(feature = "file-keyring")]
impl Keyset {
    /// Sets the root that seals the material of new versions.
    pub(super) fn seal_under(&mut self, root: Arc<CmkVersion>) {
        self.root = Some(root);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&KeyId, &Key)> {
        self.keys.iter()
    }
}

#[cfg(feature = "file-keyring")]
impl FromIterator<(KeyId, Key)> for Keyset {
    fn from_iter<I: IntoIterator<Item = (KeyId, Key)>>(keys: I) -> Self {
        Self {
            keys: keys.into_iter().collect(),
            root: None,
        }
    }
}

impl fmt::Debug for Keyset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyset({} keys)", self.keys.len())
    }
}
