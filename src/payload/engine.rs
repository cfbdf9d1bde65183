//! Payloads under the CMKs of a keyring.

use alloc::vec::Vec;

use rand_core::TryCryptoRng;
use zeroize::Zeroizing;

use super::{
    PayloadCipher,
    header::PayloadSalt,
    keys::{ExtractedPrk, ForNew, NewPayload},
    oneshot::Payload,
};
#[cfg(feature = "std")]
use super::{PayloadHeader, keys::PayloadKey};
use crate::{
    blob::SealedDek,
    context::EncryptionContext,
    dek::{Dek, draw},
    engine::Engine,
    error::{Error, ErrorKind, RandomnessFault},
    key_id::KeyId,
    keyring::Keyring,
    secret::{Secret, ct_eq},
    trace::Event,
};

/// Payloads: see the module [`payload`](crate::payload). Variants that take a buffer or a random generator are methods
/// of [`PayloadCipher`].
impl<K: Keyring> Engine<K> {
    /// Encrypts `plaintext` under a new DEK. The payload begins with that DEK, sealed under the current version of
    /// `key_id`.
    ///
    /// # Errors
    ///
    /// The errors of the [`Keyring`]; [`ErrorKind::Randomness`]; [`ErrorKind::PayloadTooLong`]. No others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// let payload = engine.encrypt(&key_id, &context, b"attack at dawn")?;
    /// assert_eq!(*engine.decrypt(&key_id, &context, &payload)?, b"attack at dawn");
    ///
    /// let other = EncryptionContext::from_pairs([("tenant", "43")])?;
    /// assert!(engine.decrypt(&key_id, &other, &payload).is_err());
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn encrypt(&self, key_id: &KeyId, context: &EncryptionContext, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        Event::new("encrypt", Some(key_id), Some(context)).of(|event| {
            self.create_for_one(key_id, context, &mut getrandom::SysRng, event, |new, sealed| {
                super::oneshot::encrypt(new, sealed, plaintext)
            })
        })
    }

    /// Decrypts a payload that the caller expects to be sealed under `key_id`. The result is wiped on drop.
    ///
    /// # Errors
    ///
    /// The errors of [`PayloadHeader::from_bytes`](crate::payload::PayloadHeader::from_bytes) for the header;
    /// [`ErrorKind::NotAPayload`] if no payload has this length; the errors of [`decrypt_dek`](Self::decrypt_dek) for
    /// the sealed DEK; [`ErrorKind::AuthenticationFailed`] if the payload was changed, truncated or extended. No
    /// others.
    ///
    /// # Examples
    ///
    #[cfg_attr(feature = "std", doc = "```")]
    #[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, ErrorKind, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// let mut payload = engine.encrypt(&key_id, &context, b"attack at dawn")?;
    /// assert_eq!(*engine.decrypt(&key_id, &context, &payload)?, b"attack at dawn");
    ///
    /// payload[264] ^= 1;
    /// let error = engine.decrypt(&key_id, &context, &payload).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn decrypt(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        payload: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        Event::new("decrypt", Some(key_id), Some(context)).of(|event| {
            let payload = Payload::parse(payload)?;
            let sealed = payload.header.sealed_dek();
            event.opens(sealed.key_version());
            let (mut prk, mut okm) = (ExtractedPrk::new(), payload.okm());
            self.open_beside(key_id, context, &sealed, &mut prk)?;
            payload.decrypt(&prk.prk(), &mut okm)
        })
    }

    /// Makes a DEK for any number of payloads and seals it under the current version of `key_id`.
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
    /// let payload_cipher = engine.create_payload_cipher(&key_id, &context)?;
    /// let payload = payload_cipher.encrypt(b"attack at dawn")?;
    /// assert_eq!(*engine.decrypt(&key_id, &context, &payload)?, b"attack at dawn");
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn create_payload_cipher(&self, key_id: &KeyId, context: &EncryptionContext) -> Result<PayloadCipher, Error> {
        self.create_payload_cipher_with_rng(key_id, context, &mut getrandom::SysRng)
    }

    /// [`create_payload_cipher`](Self::create_payload_cipher) with a random generator of the caller's. It draws the 64
    /// bytes of the DEK.
    ///
    /// # Errors
    ///
    /// The errors of the [`Keyring`] and [`ErrorKind::Randomness`]; no others.
    pub fn create_payload_cipher_with_rng<R: TryCryptoRng + ?Sized>(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        rng: &mut R,
    ) -> Result<PayloadCipher, Error> {
        Event::new("create_payload_cipher", Some(key_id), Some(context)).of(|event| {
            let (dek, sealed) = self.create(key_id, context, event, &mut (), |dek, ()| dek.fill(rng))?;
            Ok(PayloadCipher::new(&dek, sealed))
        })
    }

    /// Creates a DEK for one payload, and calls `f` with the keys of the payload and the sealed DEK.
    ///
    /// DEK and salt come from one draw: first the 64 bytes of the DEK, then the 32 of the salt.
    #[cfg_attr(
        not(feature = "std"),
        allow(dead_code, reason = "only methods that draw from the operating system call it")
    )]
    pub(super) fn create_for_one<R: TryCryptoRng + ?Sized, T>(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        rng: &mut R,
        event: &mut Event<'_>,
        f: impl FnOnce(NewPayload<'_>, &SealedDek) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut new = ForNew::unset();
        let created = self.create(key_id, context, event, &mut new, |dek, new| {
            let mut drawn = Secret::<{ Dek::LEN + PayloadSalt::LEN }>::zeroed();
            draw(rng, &mut *drawn)?;
            let (for_dek, for_salt) = drawn.split_at(Dek::LEN);
            dek.expose_mut().copy_from_slice(for_dek);
            let mut salt = [0; PayloadSalt::LEN];
            salt.copy_from_slice(for_salt);
            // If the generator repeated a half of the DEK as the salt, which is public, it would reveal that half.
            if dek.expose_secret().as_chunks().0.iter().any(|half| ct_eq(half, &salt)) {
                return Err(ErrorKind::Randomness(RandomnessFault::Stuck).into());
            }
            new.set_salt(PayloadSalt::from_drawn(salt)?);
            dek.check()
        });
        // By reference: `?` would copy the DEK.
        match created {
            Ok((_, ref sealed)) => f(new.payload(), sealed),
            Err(error) => Err(error),
        }
    }

    /// Opens the DEK of a payload that the caller expects to be sealed under `key_id`, for this payload and any other
    /// of the same DEK. A payload's [header](crate::payload::PayloadHeader::sealed_dek) contains `sealed`.
    ///
    /// # Errors
    ///
    /// The errors of [`decrypt_dek`](Self::decrypt_dek); no others.
    ///
    /// # Examples
    ///
    #[cfg_attr(feature = "std", doc = "```")]
    #[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// # let records: Vec<_> = {
    /// #     let payload_cipher = engine.create_payload_cipher(&key_id, &context)?;
    /// #     [b"first ", b"second"].iter().map(|record| payload_cipher.encrypt(*record)).collect::<Result<_, _>>()?
    /// # };
    /// use dekseal::payload::PayloadHeader;
    ///
    /// let header = PayloadHeader::from_bytes(records[0].first_chunk().unwrap())?;
    /// let payload_cipher = engine.open_payload_cipher(&key_id, &context, header.sealed_dek())?;
    /// for record in &records {
    ///     let plaintext = payload_cipher.decrypt(record)?;
    /// #     assert_eq!(plaintext.len(), 6);
    /// }
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn open_payload_cipher(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        sealed: &SealedDek,
    ) -> Result<PayloadCipher, Error> {
        Event::new("open_payload_cipher", Some(key_id), Some(context)).of(|event| {
            event.opens(sealed.key_version());
            let dek = self.open(key_id, context, sealed)?;
            Ok(PayloadCipher::new(&dek, *sealed))
        })
    }

    /// Opens the DEK of the payload that begins with `header`, and derives the key of the payload.
    ///
    /// The PRK stays where it is made. A move would leave a copy of it on the stack.
    #[cfg(feature = "std")]
    pub(super) fn payload_key(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        header: &PayloadHeader,
        event: &mut Event<'_>,
    ) -> Result<PayloadKey, Error> {
        let sealed = header.sealed_dek();
        event.opens(sealed.key_version());
        let mut prk = ExtractedPrk::new();
        self.open_beside(key_id, context, sealed, &mut prk)?;
        prk.prk().open_payload(header)
    }
}

#[cfg(test)]
mod tests;
