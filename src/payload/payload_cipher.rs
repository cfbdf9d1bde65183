//! Many payloads under one DEK.

use alloc::{vec, vec::Vec};
use core::fmt;

use rand_core::TryCryptoRng;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::{
    PayloadHeader, SegmentOpener, SegmentSealer,
    header::PayloadSalt,
    keys::{PayloadKey, Prk},
    length::encrypted_len_in_memory,
    oneshot::{self, Payload},
};
use crate::{
    blob::SealedDek,
    dek::Dek,
    error::{Error, ErrorKind},
};

/// A DEK at work: opened, and with its sealed form, which travels in front of every payload.
///
/// It seals and opens any number of payloads, each with a payload salt of its own, so that small records need one DEK
/// for each tenant or batch and not one each: no [`Keyring`](crate::Keyring) is asked again. It serves any number of
/// threads.
///
/// Holds the key that was extracted from the DEK, not the DEK, and wipes it on drop. It cannot be cloned, printed or
/// serialized.
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
/// What it opens, it opens for whoever holds it: key ID and encryption context were checked when the DEK was opened,
/// and are not checked again.
pub struct PayloadCipher {
    prk: Prk,
    sealed: SealedDek,
}

impl PayloadCipher {
    /// A DEK that the caller has opened, with its sealed form.
    ///
    /// # Security
    ///
    /// That the two belong together is the caller's to know. Behind a sealed form of another DEK, payloads open with
    /// this handle and with nothing else: when it is gone, they are lost. The DEK stays the caller's, and is wiped when
    /// it is dropped.
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
    /// [`ErrorKind::PayloadTooLong`]; [`ErrorKind::Randomness`] where the operating system's generator failed or
    /// repeats itself. No others.
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
    /// assert_ne!(payload_cipher.encrypt(b"attack at dawn")?, payload); // each has a payload salt of its own
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn encrypt(&self, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        self.encrypt_with_rng(plaintext, &mut getrandom::SysRng)
    }

    /// [`encrypt`](Self::encrypt) with a caller's random generator, of which it draws the 32 bytes of the payload salt.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PayloadTooLong`]; [`ErrorKind::Randomness`] where the generator failed or repeats itself. No
    /// others.
    ///
    /// # Security
    ///
    /// Two payloads of one DEK with the same payload salt share their key and nonces, which gives away both: a
    /// generator must never give the same bytes again, and a copy of one must not go on from the same state.
    pub fn encrypt_with_rng<R: TryCryptoRng + ?Sized>(&self, plaintext: &[u8], rng: &mut R) -> Result<Vec<u8>, Error> {
        let mut payload = vec![0; encrypted_len_in_memory(plaintext)?];
        self.encrypt_into_with_rng(plaintext, &mut payload, rng)?;
        Ok(payload)
    }

    /// Encrypts `plaintext` into `payload`, which is [`encrypted_len`](super::encrypted_len) bytes long. Allocates
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PayloadTooLong`]; [`ErrorKind::BufferLength`] where `payload` is shorter or longer;
    /// [`ErrorKind::Randomness`] where the operating system's generator failed or repeats itself. No others.
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

    /// [`encrypt_into`](Self::encrypt_into) with a caller's random generator, of which it draws the 32 bytes of the
    /// payload salt.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PayloadTooLong`]; [`ErrorKind::BufferLength`] where `payload` is shorter or longer;
    /// [`ErrorKind::Randomness`] where the generator failed or repeats itself. No others.
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
        let (head, segments) = payload.split_first_chunk_mut().ok_or(ErrorKind::BufferLength)?;
        let (header, key) = self.new_payload(rng)?;
        *head = header.to_bytes();
        oneshot::seal_segments(&key, plaintext, segments)
    }

    /// Decrypts a payload of this DEK.
    ///
    /// # Errors
    ///
    /// What [`PayloadHeader::from_bytes`] says of the header; [`ErrorKind::NotAPayload`] where no payload has that
    /// length; [`ErrorKind::AuthenticationFailed`] where the payload is of another DEK, or was changed, cut short or
    /// continued. No others.
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
        self.decrypt_parsed(&Payload::parse(payload)?)
    }

    /// Decrypts a payload of this DEK into `plaintext`, which is [`plaintext_len`](super::plaintext_len) bytes long.
    /// Allocates nothing.
    ///
    /// # Errors
    ///
    /// As for [`decrypt`](Self::decrypt), and [`ErrorKind::BufferLength`] where `plaintext` is shorter or longer.
    /// `plaintext` is then as it was, or zeros.
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
        self.decrypt_parsed_into(&Payload::parse(payload)?, plaintext)
    }

    /// Begins a payload of which the caller writes the segments: gives the header that goes in front of them, and what
    /// seals them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Randomness`] where the operating system's generator failed or repeats itself; no other.
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

    /// [`sealer`](Self::sealer) with a caller's random generator, of which it draws the 32 bytes of the payload salt.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Randomness`] where the generator failed or repeats itself; no other.
    ///
    /// # Security
    ///
    /// As for [`encrypt_with_rng`](Self::encrypt_with_rng).
    pub fn sealer_with_rng<R: TryCryptoRng + ?Sized>(
        &self,
        rng: &mut R,
    ) -> Result<(PayloadHeader, SegmentSealer), Error> {
        let (header, key) = self.new_payload(rng)?;
        Ok((header, SegmentSealer::new(key)))
    }

    /// What opens the segments behind `header`.
    ///
    /// The sealed DEK in the header is not looked at: the commitment shows that the payload is of this DEK, whenever
    /// and under whatever CMK it was sealed again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AuthenticationFailed`] where the payload is of another DEK or the header was changed; no other.
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

    pub(super) fn decrypt_parsed(&self, payload: &Payload<'_>) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut plaintext = Zeroizing::new(vec![0; payload.plaintext_len()]);
        self.decrypt_parsed_into(payload, &mut plaintext)?;
        Ok(plaintext)
    }

    pub(super) fn decrypt_parsed_into(&self, payload: &Payload<'_>, plaintext: &mut [u8]) -> Result<(), Error> {
        payload.open(&self.open_payload(&payload.header)?, plaintext)
    }

    /// The key of the payload that `header` is from.
    pub(super) fn open_payload(&self, header: &PayloadHeader) -> Result<PayloadKey, Error> {
        self.prk.open(header)
    }

    fn new_payload<R: TryCryptoRng + ?Sized>(&self, rng: &mut R) -> Result<(PayloadHeader, PayloadKey), Error> {
        self.prk.seal(PayloadSalt::fresh(rng)?, self.sealed)
    }
}

impl fmt::Debug for PayloadCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PayloadCipher({:?}, ..)", self.sealed)
    }
}

impl ZeroizeOnDrop for PayloadCipher {}
