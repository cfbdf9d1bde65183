//! New keys, and new versions of a key: with generated material, or with imported material.

#[cfg(feature = "file-keyring")]
use alloc::boxed::Box;
use alloc::sync::Arc;

use hashbrown::hash_map::Entry;
use rand_core::TryCryptoRng;

use super::{
    super::key::{Key, Version},
    Keyset,
};
#[cfg(feature = "file-keyring")]
use crate::keyring::material::SealedMaterial;
use crate::{
    cmk::CmkVersion,
    dek::Dek,
    error::{Error, ErrorKind},
    key_id::KeyId,
    trace::Event,
    unix_time::UnixTime,
};

impl Keyset {
    /// Creates a key. The material of its version 0 is 64 bytes from the operating system's generator.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyExists`] if there is a key with that ID, [`ErrorKind::Randomness`], and
    /// [`ErrorKind::ImplausibleTime`]; no others.
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
        self.create(key_id, UnixTime::now(), &mut getrandom::SysRng)
    }

    /// [`create_key`](Self::create_key) with a time and a random generator of the caller's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyExists`] if there is a key with that ID, and [`ErrorKind::Randomness`]; no others.
    pub fn create_key_with_rng<R: TryCryptoRng + ?Sized>(
        &mut self,
        key_id: KeyId,
        now: UnixTime,
        rng: &mut R,
    ) -> Result<(), Error> {
        self.create(key_id, Ok(now), rng)
    }

    fn create<R: TryCryptoRng + ?Sized>(
        &mut self,
        key_id: KeyId,
        now: Result<UnixTime, Error>,
        rng: &mut R,
    ) -> Result<(), Error> {
        Event::new("create_key", Some(&key_id), None).of(|event| {
            if self.get(&key_id).is_some() {
                return Err(Error::from(ErrorKind::KeyExists).with_key_id(&key_id));
            }
            let now = now?;
            let material = Dek::generate_with_rng(rng)?;
            self.insert_first(key_id, material.expose_secret(), now, event)
        })
    }

    /// Adds a key whose version 0 has this material: 32 to 64 random bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyExists`] if there is a key with that ID, [`ErrorKind::InvalidMaterial`], and
    /// [`ErrorKind::ImplausibleTime`]; no others.
    ///
    /// # Security
    ///
    /// Do not reuse the ID of a deleted key. Blobs of the deleted key then name the new key, and do not open. Processes
    /// that still hold the deleted key refuse the new one as a rollback.
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
    #[cfg(feature = "std")]
    pub fn import_key(&mut self, key_id: KeyId, material: &[u8]) -> Result<(), Error> {
        self.import(key_id, material, UnixTime::now())
    }

    /// [`import_key`](Self::import_key) with a time of the caller's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyExists`] if there is a key with that ID, and [`ErrorKind::InvalidMaterial`]; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{Keyset, UnixTime};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// let now = UnixTime::from_secs(1_800_000_000)?;
    /// keys.import_key_at(key_id, &[7; 32], now)?;
    /// assert_eq!(keys.info(&key_id)?.current_created, Some(now));
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn import_key_at(&mut self, key_id: KeyId, material: &[u8], now: UnixTime) -> Result<(), Error> {
        self.import(key_id, material, Ok(now))
    }

    fn import(&mut self, key_id: KeyId, material: &[u8], now: Result<UnixTime, Error>) -> Result<(), Error> {
        Event::new("import_key", Some(&key_id), None).of(|event| self.insert_first(key_id, material, now?, event))
    }

    fn insert_first(
        &mut self,
        key_id: KeyId,
        material: &[u8],
        now: UnixTime,
        event: &mut Event<'_>,
    ) -> Result<(), Error> {
        let version = self.new_version(key_id, 0, material, now)?;
        match self.keys.entry(key_id) {
            Entry::Occupied(_) => Err(Error::from(ErrorKind::KeyExists).with_key_id(&key_id)),
            Entry::Vacant(slot) => {
                slot.insert(Key::new(version));
                event.seals(0);
                Ok(())
            }
        }
    }

    /// Rotates a key: adds its next version with 64 bytes from the operating system's generator, and returns the number
    /// of the version. The new version seals from now on; the older ones still open.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyPendingDeletion`],
    /// [`ErrorKind::Randomness`], [`ErrorKind::ImplausibleTime`], and [`ErrorKind::TooManyVersions`] after version 2³²
    /// − 1; no others.
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
        self.rotate_to(key_id, UnixTime::now(), &mut getrandom::SysRng)
    }

    /// [`rotate`](Self::rotate) with a time and a random generator of the caller's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyPendingDeletion`],
    /// [`ErrorKind::Randomness`], and [`ErrorKind::TooManyVersions`] after version 2³² − 1; no others.
    pub fn rotate_with_rng<R: TryCryptoRng + ?Sized>(
        &mut self,
        key_id: &KeyId,
        now: UnixTime,
        rng: &mut R,
    ) -> Result<u32, Error> {
        self.rotate_to(key_id, Ok(now), rng)
    }

    fn rotate_to<R: TryCryptoRng + ?Sized>(
        &mut self,
        key_id: &KeyId,
        now: Result<UnixTime, Error>,
        rng: &mut R,
    ) -> Result<u32, Error> {
        Event::new("rotate", Some(key_id), None).of(|event| {
            let now = now?;
            let material = Dek::generate_with_rng(rng)?;
            self.insert_next(key_id, material.expose_secret(), now, event)
        })
    }

    /// Rotates a key to this material: 32 to 64 random bytes. Returns the number of the new version.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyPendingDeletion`],
    /// [`ErrorKind::InvalidMaterial`], [`ErrorKind::ImplausibleTime`], and [`ErrorKind::TooManyVersions`] after version
    /// 2³² − 1; no others.
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
    #[cfg(feature = "std")]
    pub fn import_version(&mut self, key_id: &KeyId, material: &[u8]) -> Result<u32, Error> {
        self.import_next(key_id, material, UnixTime::now())
    }

    /// [`import_version`](Self::import_version) with a time of the caller's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyPendingDeletion`],
    /// [`ErrorKind::InvalidMaterial`], and [`ErrorKind::TooManyVersions`] after version 2³² − 1; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{Keyset, UnixTime};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # let now = UnixTime::from_secs(1_800_000_000)?;
    /// # keys.import_key_at(key_id, &[7; 32], now)?;
    /// # let material = [8; 64];
    /// assert_eq!(keys.import_version_at(&key_id, &material, now)?, 1);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn import_version_at(&mut self, key_id: &KeyId, material: &[u8], now: UnixTime) -> Result<u32, Error> {
        self.import_next(key_id, material, Ok(now))
    }

    fn import_next(&mut self, key_id: &KeyId, material: &[u8], now: Result<UnixTime, Error>) -> Result<u32, Error> {
        Event::new("import_version", Some(key_id), None).of(|event| self.insert_next(key_id, material, now?, event))
    }

    fn insert_next(
        &mut self,
        key_id: &KeyId,
        material: &[u8],
        now: UnixTime,
        event: &mut Event<'_>,
    ) -> Result<u32, Error> {
        let key = self.key(key_id)?;
        key.check_enabled()?;
        let next = key.current_version().checked_add(1);
        let next = next.ok_or_else(|| key.error(ErrorKind::TooManyVersions))?;
        let version = self.new_version(*key_id, next, material, now)?;
        self.key_mut(key_id)?.add(version);
        event.seals(next);
        Ok(next)
    }

    fn new_version(
        &self,
        key_id: KeyId,
        key_version: u32,
        material: &[u8],
        now: UnixTime,
    ) -> Result<Arc<Version>, Error> {
        Ok(Arc::new(Version {
            cmk: CmkVersion::new(key_id, key_version, material)?,
            created: Some(now),
            #[cfg(feature = "file-keyring")]
            sealed: match &self.root {
                // FORMAT.md A6: a CMK is never sealed under itself.
                Some(root) if root.key_id() == key_id => {
                    return Err(Error::from(ErrorKind::KeyExists).with_key_id(&key_id));
                }
                Some(root) => Some(Box::new(SealedMaterial::seal(root, &key_id, key_version, material)?)),
                None => None,
            },
        }))
    }
}
