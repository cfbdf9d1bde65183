//! The keys of a keyring at one moment, and every way in which they change.

#[cfg(feature = "file-keyring")]
use alloc::boxed::Box;
use alloc::{sync::Arc, vec::Vec};
use core::fmt;

use hashbrown::{HashMap, hash_map::Entry};
use rand_core::TryCryptoRng;

#[cfg(feature = "file-keyring")]
use super::file::Stored;
use super::key::{Key, KeyInfo, KeyState, Version};
use crate::{
    cmk::CmkVersion,
    dek::Dek,
    error::{Error, ErrorKind},
    key_id::KeyId,
    trace::Event,
};

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;
/// 9999-12-31 23:59:59 UTC, the last time that has a date of four digits.
const LAST_DATE: u64 = 253_402_300_799;

/// CMKs with their versions and states: a plain value, which a keyring holds and replaces as a whole.
///
/// [`MemoryKeyring::update`](crate::MemoryKeyring::update) and [`FileKeyring::update`](crate::FileKeyring::update) hand one out to
/// be changed. Each method either makes its change or returns an error and changes nothing.
///
/// The highest version of a key seals, and every version from the minimum on opens; a key is made with version 0 and rotated to the
/// next number. Disabled keys and keys pending deletion do neither.
///
/// Times are seconds since 1970-01-01 00:00 UTC, and are given by the caller. They are believed: a clock that is behind when a deletion is
/// scheduled, or ahead when a key is purged, makes the deletion come early.
///
/// # Examples
///
/// ```
/// use dekseal::{KeyState, Keyset};
///
/// let (key_id, now) = ("0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?, 1_800_000_000);
/// let mut keys = Keyset::new();
/// keys.import_key(key_id, &[7; 32])?; // version 0
/// keys.import_version(&key_id, &[8; 64])?; // version 1, which seals from now on
/// keys.schedule_deletion(&key_id, 30, now)?;
/// assert_eq!(keys.info(&key_id)?.state, KeyState::PendingDeletion { at: now + 30 * 24 * 60 * 60 });
/// # Ok::<(), dekseal::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Keyset {
    keys: HashMap<KeyId, Key>,
    /// Where it belongs to a file: what seals the material of new versions.
    #[cfg(feature = "file-keyring")]
    root: Option<Arc<CmkVersion>>,
}

impl Keyset {
    /// No keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a key with 64 bytes of the operating system's randomness for material. Its version is 0.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyExists`] where there is one of that ID, and [`ErrorKind::Randomness`]; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::Keyset;
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// keys.create_key(key_id)?;
    /// assert_eq!(keys.info(&key_id)?.current_version, 0);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn create_key(&mut self, key_id: KeyId) -> Result<(), Error> {
        self.create_key_with_rng(key_id, &mut getrandom::SysRng)
    }

    /// `create_key` with a caller's random generator.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyExists`] where there is one of that ID, and [`ErrorKind::Randomness`]; no others.
    pub fn create_key_with_rng<R: TryCryptoRng + ?Sized>(&mut self, key_id: KeyId, rng: &mut R) -> Result<(), Error> {
        let created = self.create(key_id, rng);
        Event::new("create_key", Some(&key_id), None).emit_sealing(&created, |()| 0);
        created
    }

    fn create<R: TryCryptoRng + ?Sized>(&mut self, key_id: KeyId, rng: &mut R) -> Result<(), Error> {
        if self.key(&key_id).is_ok() {
            return Err(ErrorKind::KeyExists.into());
        }
        let material = Dek::generate_with_rng(rng)?;
        self.import(key_id, material.expose_secret())
    }

    /// Takes a key up whose version 0 has this material: 32 to 64 random bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyExists`] where there is one of that ID, and [`ErrorKind::InvalidMaterial`]; no others.
    ///
    /// # Security
    ///
    /// The ID of a key that was deleted is not for another one: what was sealed under the old one names the new one, and does not
    /// open.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::Keyset;
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # let material = [7; 64]; // unwrapped by an HSM, say
    /// keys.import_key(key_id, &material)?;
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn import_key(&mut self, key_id: KeyId, material: &[u8]) -> Result<(), Error> {
        let imported = self.import(key_id, material);
        Event::new("import_key", Some(&key_id), None).emit_sealing(&imported, |()| 0);
        imported
    }

    fn import(&mut self, key_id: KeyId, material: &[u8]) -> Result<(), Error> {
        let version = self.make(key_id, 0, material)?;
        match self.keys.entry(key_id) {
            Entry::Occupied(_) => Err(ErrorKind::KeyExists.into()),
            Entry::Vacant(slot) => {
                slot.insert(Key::new(version));
                Ok(())
            }
        }
    }

    /// Rotates a key: makes its next version with 64 bytes of the operating system's randomness, and gives its number. It seals from
    /// then on; the older ones still open.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyPendingDeletion`], [`ErrorKind::Randomness`], and
    /// [`ErrorKind::TooManyVersions`] after version 2³² − 1; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::Keyset;
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// keys.create_key(key_id)?;
    /// assert_eq!(keys.rotate(&key_id)?, 1);
    /// assert_eq!(keys.rotate(&key_id)?, 2);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn rotate(&mut self, key_id: &KeyId) -> Result<u32, Error> {
        self.rotate_with_rng(key_id, &mut getrandom::SysRng)
    }

    /// `rotate` with a caller's random generator.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyPendingDeletion`], [`ErrorKind::Randomness`], and
    /// [`ErrorKind::TooManyVersions`] after version 2³² − 1; no others.
    pub fn rotate_with_rng<R: TryCryptoRng + ?Sized>(&mut self, key_id: &KeyId, rng: &mut R) -> Result<u32, Error> {
        let rotated = self.make_next(key_id, rng);
        Event::new("rotate", Some(key_id), None).emit_sealing(&rotated, |version| *version);
        rotated
    }

    fn make_next<R: TryCryptoRng + ?Sized>(&mut self, key_id: &KeyId, rng: &mut R) -> Result<u32, Error> {
        self.key(key_id)?.usable()?;
        let material = Dek::generate_with_rng(rng)?;
        self.import_next(key_id, material.expose_secret())
    }

    /// Rotates a key to this material: 32 to 64 random bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyPendingDeletion`], [`ErrorKind::InvalidMaterial`], and
    /// [`ErrorKind::TooManyVersions`] after version 2³² − 1; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::Keyset;
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # keys.import_key(key_id, &[7; 32])?;
    /// # let material = [8; 64];
    /// assert_eq!(keys.import_version(&key_id, &material)?, 1);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn import_version(&mut self, key_id: &KeyId, material: &[u8]) -> Result<u32, Error> {
        let imported = self.import_next(key_id, material);
        Event::new("import_version", Some(key_id), None).emit_sealing(&imported, |version| *version);
        imported
    }

    fn import_next(&mut self, key_id: &KeyId, material: &[u8]) -> Result<u32, Error> {
        let key = self.key(key_id)?;
        key.usable()?;
        let next = key
            .current
            .cmk
            .key_version()
            .checked_add(1)
            .ok_or(ErrorKind::TooManyVersions)?;
        let version = self.make(*key_id, next, material)?;
        self.key_mut(key_id)?.add(version);
        Ok(next)
    }

    /// Disables a key: it neither seals nor opens.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], and [`ErrorKind::KeyNotEnabled`] where it is not enabled; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{ErrorKind, KeyState, Keyset};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # keys.import_key(key_id, &[7; 32])?;
    /// keys.disable(&key_id)?;
    /// assert_eq!(keys.info(&key_id)?.state, KeyState::Disabled);
    /// assert_eq!(keys.disable(&key_id).unwrap_err().kind(), ErrorKind::KeyNotEnabled);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn disable(&mut self, key_id: &KeyId) -> Result<(), Error> {
        Event::new("disable", Some(key_id), None).of(|_| {
            let key = self.key_mut(key_id)?;
            match key.state {
                KeyState::Enabled => key.state = KeyState::Disabled,
                _ => return Err(ErrorKind::KeyNotEnabled.into()),
            }
            Ok(())
        })
    }

    /// Enables a disabled key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], and [`ErrorKind::KeyNotDisabled`] where it is not disabled; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{KeyState, Keyset};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # keys.import_key(key_id, &[7; 32])?;
    /// keys.disable(&key_id)?;
    /// keys.enable(&key_id)?;
    /// assert_eq!(keys.info(&key_id)?.state, KeyState::Enabled);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn enable(&mut self, key_id: &KeyId) -> Result<(), Error> {
        Event::new("enable", Some(key_id), None).of(|_| {
            let key = self.key_mut(key_id)?;
            match key.state {
                KeyState::Disabled => key.state = KeyState::Enabled,
                _ => return Err(ErrorKind::KeyNotDisabled.into()),
            }
            Ok(())
        })
    }

    /// Schedules the deletion of a key for `days` days after `now`, 7 to 1096 of them, and gives the time. Until then it can be
    /// cancelled; the key neither seals nor opens.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], [`ErrorKind::DeletionDays`] also where the date would be after the year 9999, and [`ErrorKind::DeletionScheduled`] where it is scheduled already; no
    /// others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::Keyset;
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # keys.import_key(key_id, &[7; 32])?;
    /// let now = 1_800_000_000; // `SystemTime::now`, in seconds since the epoch
    /// assert_eq!(keys.schedule_deletion(&key_id, 7, now)?, now + 7 * 24 * 60 * 60);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn schedule_deletion(&mut self, key_id: &KeyId, days: u32, now: u64) -> Result<u64, Error> {
        Event::new("schedule_deletion", Some(key_id), None).of(|_| {
            let key = self.key_mut(key_id)?;
            if matches!(key.state, KeyState::PendingDeletion { .. }) {
                return Err(ErrorKind::DeletionScheduled.into());
            }
            if !(7..=1096).contains(&days) {
                return Err(ErrorKind::DeletionDays.into());
            }
            let at = now.saturating_add(SECONDS_PER_DAY.saturating_mul(days.into()));
            if at > LAST_DATE {
                return Err(ErrorKind::DeletionDays.into());
            }
            key.state = KeyState::PendingDeletion { at };
            Ok(at)
        })
    }

    /// Cancels the deletion of a key, which is disabled then.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], and [`ErrorKind::DeletionNotScheduled`]; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{KeyState, Keyset};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # keys.import_key(key_id, &[7; 32])?;
    /// # let now = 1_800_000_000;
    /// keys.schedule_deletion(&key_id, 7, now)?;
    /// keys.cancel_deletion(&key_id)?;
    /// assert_eq!(keys.info(&key_id)?.state, KeyState::Disabled);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn cancel_deletion(&mut self, key_id: &KeyId) -> Result<(), Error> {
        Event::new("cancel_deletion", Some(key_id), None).of(|_| {
            let key = self.key_mut(key_id)?;
            match key.state {
                KeyState::PendingDeletion { .. } => key.state = KeyState::Disabled,
                _ => return Err(ErrorKind::DeletionNotScheduled.into()),
            }
            Ok(())
        })
    }

    /// Deletes a key whose time has come. What was sealed under it is lost. Its keys are wiped as soon as nobody is using them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], [`ErrorKind::DeletionNotScheduled`], and [`ErrorKind::DeletionNotDue`] where `now` is before the
    /// time; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{ErrorKind, Keyset};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # keys.import_key(key_id, &[7; 32])?;
    /// # let now = 1_800_000_000;
    /// let date = keys.schedule_deletion(&key_id, 7, now)?;
    /// assert_eq!(keys.purge(&key_id, date - 1).unwrap_err().kind(), ErrorKind::DeletionNotDue);
    /// keys.purge(&key_id, date)?;
    /// assert_eq!(keys.info(&key_id).unwrap_err().kind(), ErrorKind::UnknownKey);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn purge(&mut self, key_id: &KeyId, now: u64) -> Result<(), Error> {
        Event::new("purge", Some(key_id), None).of(|_| match self.key(key_id)?.state {
            KeyState::PendingDeletion { at } if at <= now => {
                self.keys.remove(key_id);
                Ok(())
            }
            KeyState::PendingDeletion { .. } => Err(ErrorKind::DeletionNotDue.into()),
            _ => Err(ErrorKind::DeletionNotScheduled.into()),
        })
    }

    /// Raises the lowest version that still opens.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], and [`ErrorKind::MinVersion`] where it would be lowered, or raised above the current version; no
    /// others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{ErrorKind, Keyset};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # keys.import_key(key_id, &[7; 32])?;
    /// keys.import_version(&key_id, &[8; 32])?;
    /// keys.set_min_version(&key_id, 1)?; // what is sealed under version 0 opens no more
    /// assert_eq!(keys.set_min_version(&key_id, 0).unwrap_err().kind(), ErrorKind::MinVersion);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn set_min_version(&mut self, key_id: &KeyId, min_version: u32) -> Result<(), Error> {
        Event::new("set_min_version", Some(key_id), None).of(|event| {
            event.opens(min_version);
            let key = self.key_mut(key_id)?;
            if !(key.min_version..=key.current.cmk.key_version()).contains(&min_version) {
                return Err(ErrorKind::MinVersion.into());
            }
            key.min_version = min_version;
            Ok(())
        })
    }

    /// What there is to say of a key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`]; no other.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::Keyset;
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # keys.import_key(key_id, &[7; 32])?;
    /// let info = keys.info(&key_id)?;
    /// assert_eq!((info.current_version, info.min_version), (0, 0));
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn info(&self, key_id: &KeyId) -> Result<KeyInfo, Error> {
        Ok(self.key(key_id)?.info(*key_id))
    }

    /// What there is to say of every key, in the order of their IDs.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::Keyset;
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # keys.import_key(key_id, &[7; 32])?;
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

    /// Adds a CMK, whatever its version.
    pub(super) fn add(&mut self, cmk: CmkVersion) -> Result<(), Error> {
        let key_id = cmk.key_id();
        let version = Version {
            cmk,
            #[cfg(feature = "file-keyring")]
            stored: None,
        };
        match self.keys.entry(key_id) {
            Entry::Occupied(key) if key.get().get(version.cmk.key_version()).is_some() => {
                Err(ErrorKind::DuplicateKeyVersion.into())
            }
            Entry::Occupied(mut key) => {
                key.get_mut().add(Arc::new(version));
                Ok(())
            }
            Entry::Vacant(slot) => {
                slot.insert(Key::new(Arc::new(version)));
                Ok(())
            }
        }
    }

    pub(super) fn current(&self, key_id: &KeyId) -> Result<&CmkVersion, Error> {
        let key = self.key(key_id)?;
        key.usable()?;
        Ok(&key.current.cmk)
    }

    pub(super) fn opening(&self, key_id: &KeyId, key_version: u32) -> Result<&CmkVersion, Error> {
        // In the order of the wire API's table: whether there is such a version, then whether the key may be used.
        let key = self.key(key_id)?;
        let version = key.get(key_version).ok_or(ErrorKind::UnknownKeyVersion)?;
        if key_version < key.min_version {
            return Err(ErrorKind::KeyVersionRetired.into());
        }
        key.usable()?;
        Ok(&version.cmk)
    }

    fn key(&self, key_id: &KeyId) -> Result<&Key, Error> {
        self.keys
            .get(key_id)
            .ok_or_else(|| Error::from(ErrorKind::UnknownKey).with_key_id(key_id))
    }

    fn key_mut(&mut self, key_id: &KeyId) -> Result<&mut Key, Error> {
        self.keys
            .get_mut(key_id)
            .ok_or_else(|| Error::from(ErrorKind::UnknownKey).with_key_id(key_id))
    }

    fn make(&self, key_id: KeyId, key_version: u32, material: &[u8]) -> Result<Arc<Version>, Error> {
        let version = Version {
            cmk: CmkVersion::new(key_id, key_version, material)?,
            #[cfg(feature = "file-keyring")]
            stored: match &self.root {
                // FORMAT.md A6: a CMK is never sealed under itself.
                Some(root) if root.key_id() == key_id => return Err(ErrorKind::KeyExists.into()),
                Some(root) => Some(Box::new(Stored::seal(root, &key_id, key_version, material)?)),
                None => None,
            },
        };
        Ok(Arc::new(version))
    }
}

/// What a file keyring needs besides.
#[cfg(feature = "file-keyring")]
impl Keyset {
    /// From now on, seals the material of new versions under `root`.
    pub(super) fn seal_under(&mut self, root: Arc<CmkVersion>) {
        self.root = Some(root);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&KeyId, &Key)> {
        self.keys.iter()
    }

    pub(super) fn version(&self, key_id: &KeyId, key_version: u32) -> Option<&Arc<Version>> {
        self.keys.get(key_id)?.get(key_version)
    }

    pub(super) fn insert(&mut self, key_id: KeyId, key: Key) {
        self.keys.insert(key_id, key);
    }
}

impl fmt::Debug for Keyset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyset({} of them)", self.keys.len())
    }
}
