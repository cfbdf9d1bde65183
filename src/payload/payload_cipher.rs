//! Many payloads under one DEK.

use alloc::vec::Vec;
use core::fmt;

use rand_core::TryCryptoRng;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::{
    PayloadHeader, SegmentOpener, SegmentSealer,
    header::PayloadSalt,
    keys::{NewPayload, PayloadKey, Prk},
    length::encrypted_len_in_memory,
    oneshot::{self, Payload},
};
use crate::{
    blob::SealedDek,
    dek::Dek,
    error::{Error, ErrorKind},
};

/// Encrypts and decrypts any number of payloads under one DEK.
///
/// Each payload has a salt of its own, and begins with the sealed form of the DEK. Small records can share one DEK for
/// each tenant or batch: the [`Keyring`](crate::Keyring) is used once, when the cipher is made. Any number of threads
/// can use one cipher.
///
/// A cipher holds the key that was extracted from the DEK, not the DEK, and wipes it on drop. It cannot be cloned,
/// printed or serialized.
///
/// [`Engine::create_payload_cipher`](crate::Engine::create_payload_cipher) and
/// [`Engine::open_payload_cipher`](crate::Engine::open_payload_cipher) make one.
///
/// # Examples
///
#[cfg_attr(feature = "std", doc = "```")]
#[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
/// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
/// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
/// let context = EncryptionContext::from_pairs([("tenant", "42")])?;
/// let payload_cipher = engine.create_payload_cipher(&key_id, &context)?;
/// let records = [payload_cipher.encrypt(b"first")?, payload_cipher.encrypt(b"second")?];
///
/// // Each is a payload like any other.
/// assert_eq!(*engine.decrypt(&key_id, &context, &records[1])?, b"second");
/// assert_eq!(*payload_cipher.decrypt(&records[0])?, b"first");
/// # Ok::<(), dekseal::Error>(())
/// ```
///
/// # Security
///
/// Key ID and encryption context were checked when the DEK was opened. The cipher does not check them again: every
/// caller that can use it can decrypt every payload of the DEK.
pub struct PayloadCipher {
    prk: Prk,
    sealed: SealedDek,
}

impl PayloadCipher {
    /// Makes a cipher from an open DEK and its sealed form.
    ///
    /// # Security
    ///
    /// The sealed form must be that of this DEK. If it is that of another DEK, only this cipher can decrypt the
    /// payloads, and they are lost when it is dropped.
    ///
    /// # Examples
    ///
    #[cfg_attr(feature = "std", doc = "```")]
    #[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// use dekseal::payload::PayloadCipher;
    ///
    /// let (dek, sealed) = engine.create_dek(&key_id, &context)?;
    /// let payload_cipher = PayloadCipher::new(&dek, sealed);
    /// assert_eq!(*payload_cipher.sealed_dek(), sealed);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[must_use]
    pub fn new(dek: &Dek, sealed: SealedDek) -> Self {
        let prk = Prk::extract(dek);
        Self { prk, sealed }
    }

    /// The sealed form of the DEK.
    #[must_use]
    pub fn sealed_dek(&self) -> &SealedDek {
        &self.sealed
    }

    /// Encrypts `plaintext` to a payload.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PayloadTooLong`]; [`ErrorKind::Randomness`] if the operating system's generator fails or repeats
    /// itself. No others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let payload_cipher = engine.create_payload_cipher(&key_id, &EncryptionContext::none())?;
    /// let payload = payload_cipher.encrypt(b"attack at dawn")?;
    /// assert_eq!(*payload_cipher.decrypt(&payload)?, b"attack at dawn");
    /// assert_ne!(payload_cipher.encrypt(b"attack at dawn")?, payload); // each has a salt of its own
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn encrypt(&self, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        self.encrypt_with_rng(plaintext, &mut getrandom::SysRng)
    }

    /// [`encrypt`](Self::encrypt) with a random generator of the caller's. It draws the 32 bytes of the payload salt.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PayloadTooLong`]; [`ErrorKind::Randomness`] if the generator fails or repeats itself. No others.
    ///
    /// # Security
    ///
    /// Two payloads of one DEK with the same salt share their key and nonces, which reveals both plaintexts. A
    /// generator must never return the same bytes twice; after a fork or a restored snapshot it must not continue from
    /// the same state.
    ///
    /// # Examples
    ///
    /// Without the feature `std`, this method and
    /// [`create_payload_cipher_with_rng`](crate::Engine::create_payload_cipher_with_rng) encrypt a payload under a new
    /// DEK. They draw the 64 bytes of the DEK, then the 32 bytes of the salt:
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, Error, KeyId, Keyring, MemoryKeyring};
    /// use dekseal::rand_core::TryCryptoRng;
    ///
    /// fn encrypt<R: TryCryptoRng>(
    ///     engine: &Engine<impl Keyring>,
    ///     key_id: &KeyId,
    ///     context: &EncryptionContext,
    ///     plaintext: &[u8],
    ///     rng: &mut R,
    /// ) -> Result<Vec<u8>, Error> {
    ///     engine.create_payload_cipher_with_rng(key_id, context, rng)?.encrypt_with_rng(plaintext, rng)
    /// }
    /// ```
    pub fn encrypt_with_rng<R: TryCryptoRng + ?Sized>(&self, plaintext: &[u8], rng: &mut R) -> Result<Vec<u8>, Error> {
        let salt = PayloadSalt::fresh(rng)?;
        NewPayload::with(&self.prk, &salt, |new| oneshot::encrypt(new, &self.sealed, plaintext))
    }

    /// Encrypts `plaintext` into `payload`, which must be [`encrypted_len`](super::encrypted_len) bytes long. Allocates
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PayloadTooLong`]; [`ErrorKind::BufferLength`] if `payload` has another length;
    /// [`ErrorKind::Randomness`] if the operating system's generator fails or repeats itself. No others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let payload_cipher = engine.create_payload_cipher(&key_id, &EncryptionContext::none())?;
    /// use dekseal::payload::encrypted_len;
    ///
    /// let mut payload = [0; encrypted_len(14).unwrap() as usize];
    /// payload_cipher.encrypt_into(b"attack at dawn", &mut payload)?;
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn encrypt_into(&self, plaintext: &[u8], payload: &mut [u8]) -> Result<(), Error> {
        self.encrypt_into_with_rng(plaintext, payload, &mut getrandom::SysRng)
    }

    /// [`encrypt_into`](Self::encrypt_into) with a random generator of the caller's. It draws the 32 bytes of the
    /// payload salt.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PayloadTooLong`]; [`ErrorKind::BufferLength`] if `payload` has another length;
    /// [`ErrorKind::Randomness`] if the generator fails or repeats itself. No others.
    ///
    /// # Security
    ///
    /// As for [`encrypt_with_rng`](Self::encrypt_with_rng).
    pub fn encrypt_into_with_rng<R: TryCryptoRng + ?Sized>(
        &self,
        plaintext: &[u8],
        payload: &mut [u8],
        rng: &mut R,
    ) -> Result<(), Error> {
        if payload.len() != encrypted_len_in_memory(plaintext)? {
            return Err(ErrorKind::BufferLength.into());
        }
        let salt = PayloadSalt::fresh(rng)?;
        NewPayload::with(&self.prk, &salt, |new| {
            oneshot::encrypt_into(new, &self.sealed, plaintext, payload)
        })
    }

    /// Decrypts a payload of this DEK.
    ///
    /// # Errors
    ///
    /// The errors of [`PayloadHeader::from_bytes`] for the header; [`ErrorKind::NotAPayload`] if no payload has this
    /// length; [`ErrorKind::AuthenticationFailed`] if the payload belongs to another DEK, or was changed, truncated or
    /// extended. No others.
    ///
    /// # Examples
    ///
    #[cfg_attr(feature = "std", doc = "```")]
    #[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let payload_cipher = engine.create_payload_cipher(&key_id, &EncryptionContext::none())?;
    /// let mut payload = payload_cipher.encrypt(b"attack at dawn")?;
    /// assert_eq!(*payload_cipher.decrypt(&payload)?, b"attack at dawn");
    ///
    /// payload.pop();
    /// assert!(payload_cipher.decrypt(&payload).is_err());
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn decrypt(&self, payload: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let payload = Payload::parse(payload)?;
        payload.decrypt(&self.prk, &mut payload.okm())
    }

    /// Decrypts a payload of this DEK into `plaintext`, which must be [`plaintext_len`](super::plaintext_len) bytes
    /// long. Allocates nothing.
    ///
    /// # Errors
    ///
    /// As for [`decrypt`](Self::decrypt), and [`ErrorKind::BufferLength`] if `plaintext` has another length. After an
    /// error `plaintext` is unchanged or all zeros.
    ///
    /// # Examples
    ///
    #[cfg_attr(feature = "std", doc = "```")]
    #[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let payload_cipher = engine.create_payload_cipher(&key_id, &EncryptionContext::none())?;
    /// let payload = payload_cipher.encrypt(b"attack at dawn")?;
    /// let mut plaintext = [0; 14];
    /// payload_cipher.decrypt_into(&payload, &mut plaintext)?;
    /// assert_eq!(plaintext, *b"attack at dawn");
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn decrypt_into(&self, payload: &[u8], plaintext: &mut [u8]) -> Result<(), Error> {
        let payload = Payload::parse(payload)?;
        payload.decrypt_into(&self.prk, &mut payload.okm(), plaintext)
    }

    /// Begins a payload whose segments the caller writes. Returns the header, which the caller writes first, and a
    /// sealer for the segments.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Randomness`] if the operating system's generator fails or repeats itself; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let payload_cipher = engine.create_payload_cipher(&key_id, &EncryptionContext::none())?;
    /// let (header, sealer) = payload_cipher.sealer()?;
    /// let mut sealed = [0; 14 + 16];
    /// sealer.seal_last(b"attack at dawn", &mut sealed)?;
    ///
    /// let payload = [&header.to_bytes()[..], &sealed].concat();
    /// assert_eq!(*payload_cipher.decrypt(&payload)?, b"attack at dawn");
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn sealer(&self) -> Result<(PayloadHeader, SegmentSealer), Error> {
        self.sealer_with_rng(&mut getrandom::SysRng)
    }

    /// [`sealer`](Self::sealer) with a random generator of the caller's. It draws the 32 bytes of the payload salt.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Randomness`] if the generator fails or repeats itself; no others.
    ///
    /// # Security
    ///
    /// As for [`encrypt_with_rng`](Self::encrypt_with_rng).
    pub fn sealer_with_rng<R: TryCryptoRng + ?Sized>(
        &self,
        rng: &mut R,
    ) -> Result<(PayloadHeader, SegmentSealer), Error> {
        let salt = PayloadSalt::fresh(rng)?;
        Ok(NewPayload::with(&self.prk, &salt, |new| {
            SegmentSealer::start(new, &self.sealed)
        }))
    }

    /// Makes an opener for the segments that follow `header`.
    ///
    /// The commitment in the header shows that the payload belongs to this DEK. The sealed DEK in the header is not
    /// read, so payloads open before and after a rewrap.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AuthenticationFailed`] if the payload belongs to another DEK or the header was changed; no others.
    ///
    /// # Examples
    ///
    #[cfg_attr(feature = "std", doc = "```")]
    #[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let payload_cipher = engine.create_payload_cipher(&key_id, &EncryptionContext::none())?;
    /// let payload = payload_cipher.encrypt(b"attack at dawn")?;
    /// let (header, last) = payload.split_first_chunk().unwrap();
    /// let header = dekseal::payload::PayloadHeader::from_bytes(header)?;
    /// let mut plaintext = [0; 14];
    /// payload_cipher.opener(&header)?.open_last(last, &mut plaintext)?;
    /// assert_eq!(plaintext, *b"attack at dawn");
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn opener(&self, header: &PayloadHeader) -> Result<SegmentOpener, Error> {
        Ok(SegmentOpener::new(self.open_payload(header)?))
    }

    /// The key of the payload that begins with `header`.
    pub(super) fn open_payload(&self, header: &PayloadHeader) -> Result<PayloadKey, Error> {
        self.prk.open_payload(header)
    }
}

impl fmt::Debug for PayloadCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PayloadCipher({:?}, ..)", self.sealed)
    }
}

impl ZeroizeOnDrop for PayloadCipher {}
