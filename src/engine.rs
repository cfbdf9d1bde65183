//! A keyring and randomness: create, encrypt, decrypt a DEK.

use core::fmt;

use rand_core::TryCryptoRng;

use crate::{
    blob::SealedDek,
    context::EncryptionContext,
    dek::Dek,
    error::{Error, ErrorKind},
    key_id::KeyId,
    keyring::Keyring,
};

/// Makes DEKs, seals them under the CMKs of a keyring, and opens them again.
///
/// One engine serves any number of threads. To make, seal and open DEKs allocates nothing, unless the keyring does. A
/// method that draws randomness takes it from the operating system; the one beside it whose name ends in `_with_rng`
/// takes a generator.
///
/// # Examples
///
#[cfg_attr(feature = "std", doc = "```")]
#[cfg_attr(not(feature = "std"), doc = "```ignore")]
/// use dekseal::{Cmk, Dek, EncryptionContext, Engine, KeyId, MemoryKeyring};
///
/// let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// let material = Dek::generate()?;
/// let cmk = Cmk::new(key_id, 0, material.expose_secret())?;
/// let engine = Engine::new(MemoryKeyring::from_cmks([cmk])?);
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
    #[must_use]
    pub fn keyring(&self) -> &K {
        &self.keyring
    }

    /// Makes a DEK and seals it under the current version of `key_id`: gives both.
    ///
    /// # Errors
    ///
    /// What the [`Keyring`] answers, and [`ErrorKind::Randomness`]; no others.
    #[cfg(feature = "std")]
    pub fn create_dek(&self, key_id: &KeyId, context: &EncryptionContext) -> Result<(Dek, SealedDek), Error> {
        self.create_dek_with_rng(key_id, context, &mut getrandom::SysRng)
    }

    /// [`create_dek`](Self::create_dek) with a caller's random generator.
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
        let mut dek = Dek::zeroed();
        let sealed = self.keyring.with_current(key_id, |cmk| {
            dek.fill(rng)?;
            Ok::<_, Error>(cmk.seal(context, &dek))
        })??;
        Ok((dek, sealed))
    }

    /// Makes a DEK, seals it under the current version of `key_id`, and wipes it: gives what was sealed, for whoever will
    /// decrypt it.
    ///
    /// # Errors
    ///
    /// What the [`Keyring`] answers, and [`ErrorKind::Randomness`]; no others.
    #[cfg(feature = "std")]
    pub fn create_dek_without_plaintext(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
    ) -> Result<SealedDek, Error> {
        self.create_dek_without_plaintext_with_rng(key_id, context, &mut getrandom::SysRng)
    }

    /// [`create_dek_without_plaintext`](Self::create_dek_without_plaintext) with a caller's random generator.
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
        let (_, sealed) = self.create_dek_with_rng(key_id, context, rng)?;
        Ok(sealed)
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
    pub fn encrypt_dek(&self, key_id: &KeyId, context: &EncryptionContext, dek: &Dek) -> Result<SealedDek, Error> {
        self.keyring.with_current(key_id, |cmk| cmk.seal(context, dek))
    }

    /// Opens `sealed`, which the caller expects to be sealed under `key_id`, with the version of it that the blob names.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyMismatch`] where the blob names another key ID; what the [`Keyring`] answers;
    /// [`ErrorKind::AuthenticationFailed`] where material, context or blob are not those of the sealing. No others.
    pub fn decrypt_dek(&self, key_id: &KeyId, context: &EncryptionContext, sealed: &SealedDek) -> Result<Dek, Error> {
        if sealed.key_id() != *key_id {
            return Err(ErrorKind::KeyMismatch.into());
        }
        self.decrypt_dek_under_any_key(context, sealed)
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
    pub fn decrypt_dek_under_any_key(&self, context: &EncryptionContext, sealed: &SealedDek) -> Result<Dek, Error> {
        let mut dek = Dek::zeroed();
        self.keyring
            .with_version(&sealed.key_id(), sealed.key_version(), |cmk| {
                cmk.open_into(context, sealed, &mut dek)
            })??;
        Ok(dek)
    }
}

impl<K> fmt::Debug for Engine<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine(..)")
    }
}
