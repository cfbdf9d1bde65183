//! Payloads under the CMKs of a keyring.

use alloc::vec::Vec;

use rand_core::TryCryptoRng;
use zeroize::Zeroizing;

use super::{PayloadCipher, oneshot::Payload};
use crate::{
    blob::SealedDek, context::EncryptionContext, engine::Engine, error::Error, key_id::KeyId, keyring::Keyring,
    trace::Event,
};

/// Payloads: see the module [`payload`](crate::payload).
impl<K: Keyring> Engine<K> {
    /// Encrypts `plaintext` under a DEK of its own, which is sealed under the current version of `key_id` and travels
    /// in front.
    ///
    /// # Errors
    ///
    /// What the [`Keyring`] answers; [`ErrorKind::Randomness`](crate::ErrorKind::Randomness);
    /// [`ErrorKind::PayloadTooLong`](crate::ErrorKind::PayloadTooLong). No others.
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
        self.encrypt_with_rng(key_id, context, plaintext, &mut getrandom::SysRng)
    }

    /// [`encrypt`](Self::encrypt) with a caller's random generator, of which it draws first the 64 bytes of the DEK,
    /// then the 32 of the payload salt.
    ///
    /// # Errors
    ///
    /// What the [`Keyring`] answers; [`ErrorKind::Randomness`](crate::ErrorKind::Randomness);
    /// [`ErrorKind::PayloadTooLong`](crate::ErrorKind::PayloadTooLong). No others.
    ///
    /// # Security
    ///
    /// Where a generator gives bytes again that it gave before, two payloads have the same DEK and payload salt. They
    /// share their key and nonces then, which gives away both.
    pub fn encrypt_with_rng<R: TryCryptoRng + ?Sized>(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        plaintext: &[u8],
        rng: &mut R,
    ) -> Result<Vec<u8>, Error> {
        Event::new("encrypt", Some(key_id), Some(context)).of(|event| {
            let payload_cipher = self.make_payload_cipher(key_id, context, rng, event)?;
            payload_cipher.encrypt_with_rng(plaintext, rng)
        })
    }

    /// [`encrypt`](Self::encrypt) into `payload`, which is [`encrypted_len`](crate::payload::encrypted_len) bytes long.
    /// Allocates nothing, unless the keyring does.
    ///
    /// # Errors
    ///
    /// As for [`encrypt`](Self::encrypt), and [`ErrorKind::BufferLength`](crate::ErrorKind::BufferLength) where
    /// `payload` is shorter or longer.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// use dekseal::payload::encrypted_len;
    ///
    /// let mut payload = [0; encrypted_len(14).unwrap() as usize];
    /// engine.encrypt_into(&key_id, &context, b"attack at dawn", &mut payload)?;
    /// assert_eq!(*engine.decrypt(&key_id, &context, &payload)?, b"attack at dawn");
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn encrypt_into(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        plaintext: &[u8],
        payload: &mut [u8],
    ) -> Result<(), Error> {
        self.encrypt_into_with_rng(key_id, context, plaintext, payload, &mut getrandom::SysRng)
    }

    /// [`encrypt_into`](Self::encrypt_into) with a caller's random generator, of which it draws first the 64 bytes of
    /// the DEK, then the 32 of the payload salt.
    ///
    /// # Errors
    ///
    /// As for [`encrypt_with_rng`](Self::encrypt_with_rng), and
    /// [`ErrorKind::BufferLength`](crate::ErrorKind::BufferLength) where `payload` is shorter or longer.
    ///
    /// # Security
    ///
    /// As for [`encrypt_with_rng`](Self::encrypt_with_rng).
    pub fn encrypt_into_with_rng<R: TryCryptoRng + ?Sized>(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        plaintext: &[u8],
        payload: &mut [u8],
        rng: &mut R,
    ) -> Result<(), Error> {
        Event::new("encrypt_into", Some(key_id), Some(context)).of(|event| {
            let payload_cipher = self.make_payload_cipher(key_id, context, rng, event)?;
            payload_cipher.encrypt_into_with_rng(plaintext, payload, rng)
        })
    }

    /// Decrypts a payload, which the caller expects to be sealed under `key_id`. The result is wiped when it is
    /// dropped.
    ///
    /// # Errors
    ///
    /// What [`PayloadHeader::from_bytes`](crate::payload::PayloadHeader::from_bytes) says of the header;
    /// [`ErrorKind::NotAPayload`](crate::ErrorKind::NotAPayload) where no payload has that length; what
    /// [`decrypt_dek`](Self::decrypt_dek) says of the sealed DEK;
    /// [`ErrorKind::AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed) where the payload was changed, cut
    /// short or continued. No others.
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
            let payload_cipher = self.payload_cipher(key_id, context, payload.header.sealed_dek(), event)?;
            payload_cipher.decrypt_parsed(&payload)
        })
    }

    /// [`decrypt`](Self::decrypt) into `plaintext`, which is [`plaintext_len`](crate::payload::plaintext_len) bytes
    /// long. Allocates nothing, unless the keyring does.
    ///
    /// # Errors
    ///
    /// As for [`decrypt`](Self::decrypt), and [`ErrorKind::BufferLength`](crate::ErrorKind::BufferLength) where
    /// `plaintext` is shorter or longer. `plaintext` is then as it was, or zeros.
    ///
    /// # Examples
    ///
    #[cfg_attr(feature = "std", doc = "```")]
    #[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// use dekseal::payload::plaintext_len;
    ///
    /// let payload = engine.encrypt(&key_id, &context, b"attack at dawn")?;
    /// let length = plaintext_len(payload.len() as u64).unwrap();
    /// let mut plaintext = vec![0; length as usize];
    /// engine.decrypt_into(&key_id, &context, &payload, &mut plaintext)?;
    /// assert_eq!(plaintext, b"attack at dawn");
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn decrypt_into(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        payload: &[u8],
        plaintext: &mut [u8],
    ) -> Result<(), Error> {
        Event::new("decrypt_into", Some(key_id), Some(context)).of(|event| {
            let payload = Payload::parse(payload)?;
            let payload_cipher = self.payload_cipher(key_id, context, payload.header.sealed_dek(), event)?;
            payload_cipher.decrypt_parsed_into(&payload, plaintext)
        })
    }

    /// Makes a DEK for any number of payloads, sealed under the current version of `key_id`.
    ///
    /// # Errors
    ///
    /// What the [`Keyring`] answers, and [`ErrorKind::Randomness`](crate::ErrorKind::Randomness); no others.
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

    /// [`create_payload_cipher`](Self::create_payload_cipher) with a caller's random generator, of which it draws the 64 bytes of
    /// the DEK.
    ///
    /// # Errors
    ///
    /// What the [`Keyring`] answers, and [`ErrorKind::Randomness`](crate::ErrorKind::Randomness); no others.
    pub fn create_payload_cipher_with_rng<R: TryCryptoRng + ?Sized>(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        rng: &mut R,
    ) -> Result<PayloadCipher, Error> {
        Event::new("create_payload_cipher", Some(key_id), Some(context))
            .of(|event| self.make_payload_cipher(key_id, context, rng, event))
    }

    /// For an operation that has an event of its own.
    pub(super) fn make_payload_cipher<R: TryCryptoRng + ?Sized>(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        rng: &mut R,
        event: &mut Event<'_>,
    ) -> Result<PayloadCipher, Error> {
        let (dek, sealed) = self.make(key_id, context, rng)?;
        event.seals(sealed.key_version());
        Ok(PayloadCipher::new(&dek, sealed))
    }

    /// Opens the DEK of a payload, which the caller expects to be sealed under `key_id`, for this payload and any other
    /// of the same DEK. `sealed` stands in a payload's [header](crate::payload::PayloadHeader::sealed_dek).
    ///
    /// # Errors
    ///
    /// As for [`decrypt_dek`](Self::decrypt_dek).
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
        Event::new("open_payload_cipher", Some(key_id), Some(context))
            .of(|event| self.payload_cipher(key_id, context, sealed, event))
    }

    /// For an operation that has an event of its own.
    pub(super) fn payload_cipher(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        sealed: &SealedDek,
        event: &mut Event<'_>,
    ) -> Result<PayloadCipher, Error> {
        event.opens(sealed.key_version());
        let dek = self.open(key_id, context, sealed)?;
        Ok(PayloadCipher::new(&dek, *sealed))
    }
}
