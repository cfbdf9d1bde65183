//! Creates, seals and opens DEKs with a keyring and a random generator.

mod rewrap;
mod rewrapped;
mod sweep;

use core::fmt;

use rand_core::TryCryptoRng;
use zeroize::Zeroize;

pub use self::rewrapped::Rewrapped;
use crate::{
    blob::SealedDek,
    cmk::{Beside, CmkVersion},
    context::EncryptionContext,
    dek::{Dek, draw},
    error::{Error, ErrorKind},
    key_id::KeyId,
    keyring::Keyring,
    secret::Secret,
    trace::Event,
};

/// The number of DEKs that are drawn at once: 4 KiB of randomness.
const POOL: usize = 64;

/// Makes DEKs, seals them under the CMKs of a keyring, and opens them.
///
/// One engine serves any number of threads. Making, sealing and opening a DEK allocates nothing, unless the keyring
/// does.
///
/// Methods that draw randomness use the random generator of the operating system. The variants whose names end in
/// `_with_rng` take a generator; [`Dek::generate_with_rng`] shows an example.
///
/// # Examples
///
#[cfg_attr(feature = "std", doc = "```")]
#[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
/// use dekseal::{CmkVersion, Dek, EncryptionContext, Engine, KeyId, MemoryKeyring};
///
/// let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// let material = Dek::generate()?;
/// let cmk = CmkVersion::new(key_id, 0, material.expose_secret())?;
/// let engine = Engine::new(MemoryKeyring::from_versions([cmk])?);
///
/// let context = EncryptionContext::from_pairs([("tenant", "42")])?;
/// let (dek, sealed) = engine.create_dek(&key_id, &context)?;
/// // Encrypt with `dek`, drop it, and store `sealed` with the data. Later:
/// assert_eq!(engine.decrypt_dek(&key_id, &context, &sealed)?, dek);
/// # Ok::<(), dekseal::Error>(())
/// ```
pub struct Engine<K> {
    keyring: K,
}

impl<K: Keyring> Engine<K> {
    /// Makes an engine over `keyring`.
    #[must_use]
    pub fn new(keyring: K) -> Self {
        Self { keyring }
    }

    /// The keyring.
    ///
    /// # Examples
    ///
    #[cfg_attr(feature = "std", doc = "```")]
    #[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
    /// # use dekseal::{CmkVersion, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// engine.keyring().update(|keys| keys.rotate(&key_id))?;
    /// assert_eq!(engine.keyring().keys().info(&key_id)?.current_version, 1);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[must_use]
    pub fn keyring(&self) -> &K {
        &self.keyring
    }

    /// Makes a DEK, seals it under the current version of `key_id`, and returns both.
    ///
    /// # Errors
    ///
    /// The errors of the [`Keyring`] and [`ErrorKind::Randomness`]; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// let (dek, sealed) = engine.create_dek(&key_id, &context)?;
    /// assert_eq!(engine.decrypt_dek(&key_id, &context, &sealed)?, dek);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn create_dek(&self, key_id: &KeyId, context: &EncryptionContext) -> Result<(Dek, SealedDek), Error> {
        self.create_dek_with_rng(key_id, context, &mut getrandom::SysRng)
    }

    /// [`create_dek`](Self::create_dek) with a random generator of the caller's.
    ///
    /// # Errors
    ///
    /// The errors of the [`Keyring`] and [`ErrorKind::Randomness`]; no others.
    pub fn create_dek_with_rng<R: TryCryptoRng + ?Sized>(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        rng: &mut R,
    ) -> Result<(Dek, SealedDek), Error> {
        Event::new("create_dek", Some(key_id), Some(context))
            .of(|event| self.create(key_id, context, event, &mut (), |dek, ()| dek.fill(rng)))
    }

    /// Finds the key, makes a DEK that `fill` draws, and seals it.
    pub(crate) fn create<B: Beside>(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        event: &mut Event<'_>,
        beside: &mut B,
        fill: impl FnOnce(&mut Dek, &mut B) -> Result<(), Error>,
    ) -> Result<(Dek, SealedDek), Error> {
        // Both are filled in place in the return value. Passing them through the keyring, or moving them into a result
        // at the end, would copy them at each step.
        let mut made = Ok((Dek::zeroed(), SealedDek::zeroed()));
        if let Ok((dek, sealed)) = &mut made {
            let sealing = self.with_current(key_id, |cmk| {
                fill(dek, beside)?;
                event.seals(cmk.key_version());
                cmk.seal_beside(context, dek, sealed, beside);
                Ok(())
            });
            if let Err(error) = sealing.flatten() {
                made = Err(error);
            }
        }
        made
    }

    /// Makes a DEK, seals it under the current version of `key_id`, wipes it, and returns the sealed DEK. Use it where
    /// another program will decrypt.
    ///
    /// # Errors
    ///
    /// The errors of the [`Keyring`] and [`ErrorKind::Randomness`]; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// let sealed = engine.create_dek_without_plaintext(&key_id, &context)?;
    /// // Later, where the data is:
    /// let dek = engine.decrypt_dek(&key_id, &context, &sealed)?;
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn create_dek_without_plaintext(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
    ) -> Result<SealedDek, Error> {
        self.create_dek_without_plaintext_with_rng(key_id, context, &mut getrandom::SysRng)
    }

    /// [`create_dek_without_plaintext`](Self::create_dek_without_plaintext) with a random generator of the caller's.
    ///
    /// # Errors
    ///
    /// The errors of the [`Keyring`] and [`ErrorKind::Randomness`]; no others.
    pub fn create_dek_without_plaintext_with_rng<R: TryCryptoRng + ?Sized>(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        rng: &mut R,
    ) -> Result<SealedDek, Error> {
        let event = Event::new("create_dek_without_plaintext", Some(key_id), Some(context));
        let (_, sealed) = event.of(|event| self.create(key_id, context, event, &mut (), |dek, ()| dek.fill(rng)))?;
        Ok(sealed)
    }

    /// Makes a DEK for each slot and seals all of them under the current version of `key_id`.
    ///
    /// Draws the randomness for 64 DEKs at a time, which costs a fraction of 64 draws.
    ///
    /// # Errors
    ///
    /// The errors of the [`Keyring`] and [`ErrorKind::Randomness`]; no others. On an error, every slot is `None`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, MemoryKeyring};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// let mut made = [const { None }; 100];
    /// engine.create_deks(&key_id, &EncryptionContext::none(), &mut made)?;
    /// for (dek, sealed) in made.into_iter().flatten() {
    ///     // Encrypt with `dek`, and store `sealed` with the data.
    /// }
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn create_deks(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        slots: &mut [Option<(Dek, SealedDek)>],
    ) -> Result<(), Error> {
        self.create_deks_with_rng(key_id, context, slots, &mut getrandom::SysRng)
    }

    /// [`create_deks`](Self::create_deks) with a random generator of the caller's.
    ///
    /// # Errors
    ///
    /// The errors of the [`Keyring`] and [`ErrorKind::Randomness`]; no others. On an error, every slot is `None`.
    pub fn create_deks_with_rng<R: TryCryptoRng + ?Sized>(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        slots: &mut [Option<(Dek, SealedDek)>],
        rng: &mut R,
    ) -> Result<(), Error> {
        let made = Event::new("create_deks", Some(key_id), Some(context)).of(|event| {
            event.count(slots.len());
            let made = self.with_current(key_id, |cmk| {
                let mut pool = Secret::<{ POOL * Dek::LEN }>::zeroed();
                for slots in slots.chunks_mut(POOL) {
                    let length = slots.len().saturating_mul(Dek::LEN).min(pool.len());
                    let (randomness, _) = pool.split_at_mut(length);
                    draw(rng, randomness)?;
                    let (deks, _) = randomness.as_chunks_mut::<{ Dek::LEN }>();
                    for (slot, bytes) in slots.iter_mut().zip(deks) {
                        let (dek, sealed) = slot.get_or_insert_with(|| (Dek::zeroed(), SealedDek::zeroed()));
                        dek.expose_mut().copy_from_slice(bytes);
                        bytes.as_mut_slice().zeroize();
                        dek.check()?;
                        cmk.seal_into(context, dek, sealed);
                    }
                }
                if !slots.is_empty() {
                    event.seals(cmk.key_version());
                }
                Ok(())
            });
            made.flatten()
        });
        if made.is_err() {
            slots.fill_with(|| None);
        }
        made
    }

    /// Seals the caller's DEK under the current version of `key_id`.
    ///
    /// Sealing is deterministic and draws no randomness.
    ///
    /// # Errors
    ///
    /// The errors of the [`Keyring`]; no others.
    ///
    /// # Security
    ///
    /// The DEK must be random: see [`Dek::from_bytes`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, Dek, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// # let dek = Dek::from_bytes(&core::array::from_fn(|at| at as u8));
    /// let sealed = engine.encrypt_dek(&key_id, &context, &dek)?;
    /// assert_eq!(engine.decrypt_dek(&key_id, &context, &sealed)?, dek);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn encrypt_dek(&self, key_id: &KeyId, context: &EncryptionContext, dek: &Dek) -> Result<SealedDek, Error> {
        Event::new("encrypt_dek", Some(key_id), Some(context)).of(|event| self.seal(key_id, context, dek, event))
    }

    pub(crate) fn seal(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        dek: &Dek,
        event: &mut Event<'_>,
    ) -> Result<SealedDek, Error> {
        self.with_current(key_id, |cmk| {
            event.seals(cmk.key_version());
            cmk.seal(context, dek)
        })
    }

    /// Opens `sealed`, which the caller expects to be sealed under `key_id`. Uses the version that the blob names.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyMismatch`] if the blob names another key ID; the errors of the [`Keyring`];
    /// [`ErrorKind::AuthenticationFailed`] if the material or the context is wrong, or the blob was changed. No others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, Dek, EncryptionContext, Engine, ErrorKind, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// # let dek = Dek::from_bytes(&core::array::from_fn(|at| at as u8));
    /// let sealed = engine.encrypt_dek(&key_id, &context, &dek)?;
    /// assert_eq!(engine.decrypt_dek(&key_id, &context, &sealed)?, dek);
    ///
    /// let other: KeyId = "25abe69f-ae10-44cd-bc87-1bda1de3b7d7".parse()?;
    /// let error = engine.decrypt_dek(&other, &context, &sealed).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::KeyMismatch);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn decrypt_dek(&self, key_id: &KeyId, context: &EncryptionContext, sealed: &SealedDek) -> Result<Dek, Error> {
        Event::new("decrypt_dek", Some(key_id), Some(context)).of(|event| {
            event.opens(sealed.key_version());
            self.open(key_id, context, sealed)
        })
    }

    pub(crate) fn open(&self, key_id: &KeyId, context: &EncryptionContext, sealed: &SealedDek) -> Result<Dek, Error> {
        self.open_beside(key_id, context, sealed, &mut ())
    }

    /// [`open`](Self::open), with another MAC of the DEK.
    pub(crate) fn open_beside(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        sealed: &SealedDek,
        beside: &mut impl Beside,
    ) -> Result<Dek, Error> {
        expect_key(key_id, sealed)?;
        self.open_under_any_key(context, sealed, beside)
    }

    /// Opens `sealed` with the key of the keyring that the blob names.
    ///
    /// # Errors
    ///
    /// The errors of the [`Keyring`]; [`ErrorKind::AuthenticationFailed`] if the material or the context is wrong, or
    /// the blob was changed. No others.
    ///
    /// # Security
    ///
    /// The writer of the blob chooses the key. If keys belong to different tenants, use
    /// [`decrypt_dek`](Self::decrypt_dek) with the key of the requesting tenant.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, Dek, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// # let dek = Dek::from_bytes(&core::array::from_fn(|at| at as u8));
    /// let sealed = engine.encrypt_dek(&key_id, &context, &dek)?;
    /// assert_eq!(engine.decrypt_dek_under_any_key(&context, &sealed)?, dek);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn decrypt_dek_under_any_key(&self, context: &EncryptionContext, sealed: &SealedDek) -> Result<Dek, Error> {
        let key_id = sealed.key_id();
        Event::new("decrypt_dek_under_any_key", Some(&key_id), Some(context)).of(|event| {
            event.opens(sealed.key_version());
            self.open_under_any_key(context, sealed, &mut ())
        })
    }

    fn open_under_any_key(
        &self,
        context: &EncryptionContext,
        sealed: &SealedDek,
        beside: &mut impl Beside,
    ) -> Result<Dek, Error> {
        let mut dek = Dek::zeroed();
        let opening = |cmk: &CmkVersion| cmk.open_beside(context, sealed, &mut dek, beside);
        let opened = self.with_version(&sealed.key_id(), sealed.key_version(), opening)?;
        opened.map_err(|error| named(error, &sealed.key_id(), Some(sealed.key_version())))?;
        Ok(dek)
    }

    /// Calls `f` with the current version of `key_id`. An error names the key.
    fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        let lent = self.keyring.with_current(key_id, f);
        lent.map_err(|error| named(error, key_id, None))
    }

    /// Calls `f` with a version of `key_id`. An error names the key and the version. For an unknown version it also
    /// names the newest version.
    fn with_version<T>(&self, key_id: &KeyId, key_version: u32, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        let lent = self.keyring.with_version(key_id, key_version, f);
        lent.map_err(|error| {
            let error = named(error, key_id, Some(key_version));
            if error.kind() != ErrorKind::UnknownKeyVersion || error.newest_key_version().is_some() {
                return error;
            }
            match self.keyring.with_current(key_id, CmkVersion::key_version) {
                Ok(newest) => error.with_newest_key_version(newest),
                Err(_) => error,
            }
        })
    }
}

/// FORMAT.md A5, step 4.
fn expect_key(key_id: &KeyId, sealed: &SealedDek) -> Result<(), Error> {
    if sealed.key_id() == *key_id {
        return Ok(());
    }
    let error = Error::from(ErrorKind::KeyMismatch).with_key_id(key_id);
    Err(error.with_found(&sealed.key_id(), None))
}

/// Adds to an error of the keyring the key and the version that the operation asked for, unless the error names a key.
fn named(mut error: Error, key_id: &KeyId, key_version: Option<u32>) -> Error {
    if error.key_id().is_none() {
        error = error.with_key_id(key_id);
    }
    match key_version {
        Some(version) if error.key_version().is_none() => error.with_key_version(version),
        _ => error,
    }
}

impl<K> fmt::Debug for Engine<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine(..)")
    }
}
