//! A keyring and randomness: create, encrypt, decrypt a DEK.

use core::fmt;

use rand_core::TryCryptoRng;
use zeroize::Zeroize;

use crate::{
    blob::SealedDek,
    context::EncryptionContext,
    dek::{Dek, draw},
    error::{Error, ErrorKind},
    key_id::KeyId,
    keyring::Keyring,
    secret::Secret,
    trace::Event,
};

/// How many DEKs are drawn at once: 4 KiB of randomness.
const POOL: usize = 64;

/// Makes DEKs, seals them under the CMKs of a keyring, and opens them again.
///
/// One engine serves any number of threads. To make, seal and open DEKs allocates nothing, unless the keyring does. A
/// method that draws randomness takes it from the operating system; the one beside it whose name ends in `_with_rng`
/// takes a generator ([`Dek::generate_with_rng`] shows one).
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
    /// An engine over `keyring`.
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

    /// Makes a DEK and seals it under the current version of `key_id`: gives both.
    ///
    /// # Errors
    ///
    /// What the [`Keyring`] answers, and [`ErrorKind::Randomness`]; no others.
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

    /// `create_dek` with a caller's random generator.
    ///
    /// # Errors
    ///
    /// What the [`Keyring`] answers, and [`ErrorKind::Randomness`]; no others.
    pub fn create_dek_with_rng<R: TryCryptoRng + ?Sized>(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        rng: &mut R,
    ) -> Result<(Dek, SealedDek), Error> {
        let made = self.make(key_id, context, rng);
        Event::new("create_dek", Some(key_id), Some(context)).emit_sealing(&made, |(_, sealed)| sealed.key_version());
        made
    }

    pub(crate) fn make<R: TryCryptoRng + ?Sized>(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        rng: &mut R,
    ) -> Result<(Dek, SealedDek), Error> {
        self.make_filled(key_id, context, |dek| dek.fill(rng))
    }

    /// Makes a DEK that `fill` draws, once the key is found.
    pub(crate) fn make_filled(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        fill: impl FnOnce(&mut Dek) -> Result<(), Error>,
    ) -> Result<(Dek, SealedDek), Error> {
        // Both are made where they are returned: to hand them through the keyring, or to put them into a result at the end, would
        // copy them at each step.
        let mut made = Ok((Dek::zeroed(), SealedDek::zeroed()));
        if let Ok((dek, sealed)) = &mut made {
            let sealing = self.keyring.with_current(key_id, |cmk| {
                fill(dek)?;
                cmk.seal_into(context, dek, sealed);
                Ok(())
            });
            if let Err(error) = sealing.flatten() {
                made = Err(error);
            }
        }
        made
    }

    /// Makes a DEK, seals it under the current version of `key_id`, and wipes it: gives what was sealed, for whoever will
    /// decrypt it.
    ///
    /// # Errors
    ///
    /// What the [`Keyring`] answers, and [`ErrorKind::Randomness`]; no others.
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

    /// `create_dek_without_plaintext` with a caller's random generator.
    ///
    /// # Errors
    ///
    /// What the [`Keyring`] answers, and [`ErrorKind::Randomness`]; no others.
    pub fn create_dek_without_plaintext_with_rng<R: TryCryptoRng + ?Sized>(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        rng: &mut R,
    ) -> Result<SealedDek, Error> {
        let made = self.make(key_id, context, rng);
        Event::new("create_dek_without_plaintext", Some(key_id), Some(context))
            .emit_sealing(&made, |(_, sealed)| sealed.key_version());
        let (_, sealed) = made?;
        Ok(sealed)
    }

    /// Makes a DEK for each slot and seals all of them under the current version of `key_id`.
    ///
    /// Draws the randomness of 64 DEKs at a time, which costs a fraction of what 64 draws do.
    ///
    /// # Errors
    ///
    /// What the [`Keyring`] answers, and [`ErrorKind::Randomness`]; no others. Then every slot is `None`.
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

    /// `create_deks` with a caller's random generator.
    ///
    /// # Errors
    ///
    /// What the [`Keyring`] answers, and [`ErrorKind::Randomness`]; no others. Then every slot is `None`.
    pub fn create_deks_with_rng<R: TryCryptoRng + ?Sized>(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        slots: &mut [Option<(Dek, SealedDek)>],
        rng: &mut R,
    ) -> Result<(), Error> {
        let made = self.keyring.with_current(key_id, |cmk| {
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
            Ok(())
        });
        let made = made.and_then(|made| made);
        if made.is_err() {
            slots.fill_with(|| None);
        }
        let mut event = Event::new("create_deks", Some(key_id), Some(context));
        event.count(slots.len());
        if let Some(Some((_, sealed))) = slots.first() {
            event.seals(sealed.key_version());
        }
        event.emit(&made);
        made
    }

    /// Seals a DEK that the caller has, under the current version of `key_id`.
    ///
    /// Deterministic: draws no randomness.
    ///
    /// # Errors
    ///
    /// What the [`Keyring`] answers; no others.
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
        let sealed = self.seal(key_id, context, dek);
        Event::new("encrypt_dek", Some(key_id), Some(context)).emit_sealing(&sealed, SealedDek::key_version);
        sealed
    }

    pub(crate) fn seal(&self, key_id: &KeyId, context: &EncryptionContext, dek: &Dek) -> Result<SealedDek, Error> {
        self.keyring.with_current(key_id, |cmk| cmk.seal(context, dek))
    }

    /// Opens `sealed`, which the caller expects to be sealed under `key_id`, with the version of it that the blob names.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyMismatch`] where the blob names another key ID; what the [`Keyring`] answers;
    /// [`ErrorKind::AuthenticationFailed`] where material, context or blob are not those of the sealing. No others.
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
        let opened = self.open(key_id, context, sealed);
        let mut event = Event::new("decrypt_dek", Some(key_id), Some(context));
        event.opens(sealed.key_version());
        event.emit(&opened);
        opened
    }

    pub(crate) fn open(&self, key_id: &KeyId, context: &EncryptionContext, sealed: &SealedDek) -> Result<Dek, Error> {
        if sealed.key_id() != *key_id {
            let error = Error::from(ErrorKind::KeyMismatch).with_key_id(key_id);
            return Err(error.with_found(&sealed.key_id(), None));
        }
        self.open_under_any_key(context, sealed)
    }

    /// Opens `sealed` with whatever key of the keyring it names.
    ///
    /// # Errors
    ///
    /// What the [`Keyring`] answers; [`ErrorKind::AuthenticationFailed`] where material, context or blob are not those of the
    /// sealing. No others.
    ///
    /// # Security
    ///
    /// Whoever wrote the blob chose the key. Where keys belong to different tenants, use [`decrypt_dek`](Self::decrypt_dek)
    /// with the key of the tenant who asks.
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
        let opened = self.open_under_any_key(context, sealed);
        let key_id = sealed.key_id();
        let mut event = Event::new("decrypt_dek_under_any_key", Some(&key_id), Some(context));
        event.opens(sealed.key_version());
        event.emit(&opened);
        opened
    }

    fn open_under_any_key(&self, context: &EncryptionContext, sealed: &SealedDek) -> Result<Dek, Error> {
        let mut dek = Dek::zeroed();
        self.keyring
            .with_version(&sealed.key_id(), sealed.key_version(), |cmk| {
                cmk.open_into(context, sealed, &mut dek)
            })??;
        Ok(dek)
    }

    /// Seals the DEK of `sealed` again, under the current version of its key, without handing it out.
    ///
    /// # Errors
    ///
    /// Those of [`decrypt_dek`](Self::decrypt_dek); no others.
    ///
    /// # Examples
    ///
    /// After a rotation, over whatever holds the blobs:
    ///
    /// ```
    /// # use dekseal::{EncryptionContext, Engine, KeyId, Keyring, Rewrapped, SealedDek};
    /// fn renew(engine: &Engine<impl Keyring>, key_id: &KeyId, blob: &mut Vec<u8>) -> Result<(), dekseal::Error> {
    ///     let sealed = SealedDek::from_bytes(blob)?;
    ///     match engine.rewrap_dek(key_id, &EncryptionContext::none(), &sealed)? {
    ///         Rewrapped::Renewed(sealed) => *blob = sealed.as_bytes().to_vec(),
    ///         Rewrapped::AlreadyCurrent(_) => {}
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn rewrap_dek(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        sealed: &SealedDek,
    ) -> Result<Rewrapped, Error> {
        let renewed = self.rewrap_one(key_id, context, sealed);
        let mut event = Event::new("rewrap_dek", Some(key_id), Some(context));
        event.opens(sealed.key_version());
        event.to(key_id, None);
        event.emit_sealing(&renewed, |renewed| renewed.sealed().key_version());
        renewed
    }

    fn rewrap_one(&self, key_id: &KeyId, context: &EncryptionContext, sealed: &SealedDek) -> Result<Rewrapped, Error> {
        let dek = self.open(key_id, context, sealed)?;
        let renewed = self.seal(key_id, context, &dek)?;
        // Sealing is deterministic: under the same version it gives the same bytes.
        Ok(if renewed == *sealed {
            Rewrapped::AlreadyCurrent(renewed)
        } else {
            Rewrapped::Renewed(renewed)
        })
    }

    /// [`rewrap_dek`](Self::rewrap_dek) for any number of blobs, each with its context. Gives the result of each, in order, when it
    /// is asked for; what is wrong with one does not stop the others.
    ///
    /// The errors are those of [`SealedDek::from_bytes`] and of [`decrypt_dek`](Self::decrypt_dek).
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, MemoryKeyring, Rewrapped};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// let context = EncryptionContext::none();
    /// let rows = [vec![1, 2, 3], vec![2; 188]];
    /// let blobs = rows.iter().map(|row| (&context, row));
    /// let failed = engine.rewrap_deks(&key_id, blobs).filter(Result::is_err).count();
    /// assert_eq!(failed, 2);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn rewrap_deks<'a, B: AsRef<[u8]>>(
        &'a self,
        key_id: &'a KeyId,
        blobs: impl IntoIterator<Item = (&'a EncryptionContext, B)> + 'a,
    ) -> impl Iterator<Item = Result<Rewrapped, Error>> + 'a {
        let mut batch = Event::new("rewrap_deks", Some(key_id), None).batch();
        let rewrap = move |(context, blob): (&EncryptionContext, B)| {
            let sealed = SealedDek::from_bytes(blob.as_ref());
            let renewed = sealed.and_then(|sealed| self.rewrap_one(key_id, context, &sealed));
            batch.note(&renewed);
            renewed
        };
        blobs.into_iter().map(rewrap)
    }

    /// Moves a DEK from one key and context to another key, another context or both, without handing it out.
    ///
    /// # Errors
    ///
    /// Those of [`decrypt_dek`](Self::decrypt_dek) for `from`, and what the [`Keyring`] answers for the key of `to`; no others.
    ///
    /// # Examples
    ///
    /// To another key and context; what was encrypted with the DEK stays as it is:
    ///
    /// ```
    /// # use dekseal::{CmkVersion, Dek, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let (old, new): (KeyId, KeyId) = ("0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?, "25abe69f-ae10-44cd-bc87-1bda1de3b7d7".parse()?);
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(old, 0, &[7; 32])?, CmkVersion::new(new, 0, &[8; 32])?])?);
    /// # let dek = Dek::from_bytes(&core::array::from_fn(|at| at as u8));
    /// let inbox = EncryptionContext::from_pairs([("folder", "inbox")])?;
    /// let archive = EncryptionContext::from_pairs([("folder", "archive")])?;
    /// # let sealed = engine.encrypt_dek(&old, &inbox, &dek)?;
    /// let moved = engine.rewrap_dek_to((&old, &inbox), &sealed, (&new, &archive))?;
    /// assert_eq!(engine.decrypt_dek(&new, &archive, &moved)?, dek);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn rewrap_dek_to(
        &self,
        from: (&KeyId, &EncryptionContext),
        sealed: &SealedDek,
        to: (&KeyId, &EncryptionContext),
    ) -> Result<SealedDek, Error> {
        let mut event = Event::new("rewrap_dek_to", Some(from.0), Some(from.1));
        event.opens(sealed.key_version());
        event.to(to.0, Some(to.1));
        let moved = self.open(from.0, from.1, sealed);
        let moved = moved.and_then(|dek| self.seal(to.0, to.1, &dek));
        event.emit_sealing(&moved, SealedDek::key_version);
        moved
    }
}

/// What became of a blob that was to be sealed again.
///
/// # Examples
///
/// ```
/// # use dekseal::{CmkVersion, Dek, EncryptionContext, Engine, KeyId, MemoryKeyring, Rewrapped};
/// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
/// # let context = EncryptionContext::from_pairs([("tenant", "42")])?;
/// # let dek = Dek::from_bytes(&core::array::from_fn(|at| at as u8));
/// let sealed = engine.encrypt_dek(&key_id, &context, &dek)?;
/// // The key was not rotated.
/// let result = engine.rewrap_dek(&key_id, &context, &sealed)?;
/// assert_eq!(result, Rewrapped::AlreadyCurrent(sealed));
/// assert_eq!(*result.sealed(), sealed);
/// # Ok::<(), dekseal::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrapped {
    /// It is sealed under the current version: the same bytes.
    AlreadyCurrent(SealedDek),
    /// The same DEK, sealed under the current version.
    Renewed(SealedDek),
}

impl Rewrapped {
    /// The blob to keep.
    #[must_use]
    pub fn sealed(&self) -> &SealedDek {
        match self {
            Self::AlreadyCurrent(sealed) | Self::Renewed(sealed) => sealed,
        }
    }
}

impl<K> fmt::Debug for Engine<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine(..)")
    }
}
