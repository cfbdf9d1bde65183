//! The ID of a CMK (FORMAT.md A2).

mod hash;

use core::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use rand_core::TryCryptoRng;

pub(crate) use self::hash::KeyIdHash;
use crate::error::{Error, ErrorKind, RandomnessFault};

/// The form of A2: `-` stands for itself, and `x` for a digit or a lower-case letter.
const FORM: &[u8; KeyId::LEN] = b"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

/// The ID of a customer master key: the 36 ASCII bytes of FORMAT.md A2, in the form `8-4-4-4-12` of `[0-9a-z]`.
///
/// # Examples
///
/// ```
/// use dekseal::KeyId;
///
/// let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// assert_eq!(key_id.to_string(), "0d0466b0-e727-4d9c-b35d-f84bb474a37f");
/// # Ok::<(), dekseal::Error>(())
/// ```
#[derive(Clone, Copy, Eq, PartialOrd, Ord)]
pub struct KeyId([u8; Self::LEN]);

impl KeyId {
    /// The length of a key ID in bytes.
    pub const LEN: usize = 8 + 1 + 4 + 1 + 4 + 1 + 4 + 1 + 12;

    /// Makes a random key ID: a UUID of version 4, in lower case.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Randomness`]; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// use dekseal::{KeyId, Keyset};
    ///
    /// let key_id = KeyId::generate()?;
    /// let mut keys = Keyset::new();
    /// keys.create_key(key_id)?;
    /// # assert_ne!(KeyId::generate()?, key_id);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn generate() -> Result<Self, Error> {
        Self::generate_with_rng(&mut getrandom::SysRng)
    }

    /// [`generate`](Self::generate) with a random generator of the caller's. It draws 16 bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Randomness`]; no others.
    pub fn generate_with_rng<R: TryCryptoRng + ?Sized>(rng: &mut R) -> Result<Self, Error> {
        let mut random = [0; 16];
        let drawn = rng.try_fill_bytes(&mut random);
        drawn.map_err(|_| ErrorKind::Randomness(RandomnessFault::Failed))?;
        if random[..8] == random[8..] {
            return Err(ErrorKind::Randomness(RandomnessFault::Stuck).into());
        }
        // RFC 9562, section 5.4: version 4 in the high half of byte 6, variant 10 in the top bits of byte 8.
        random[6] = random[6] & 0x0f | 0x40;
        random[8] = random[8] & 0x3f | 0x80;
        let mut digits = random.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]);
        Ok(Self(FORM.map(|form| match form {
            b'-' => b'-',
            // There are 32 digits and 32 places for them, so the default is never used.
            _ => match digits.next().unwrap_or(0) {
                digit @ 0..10 => b'0'.wrapping_add(digit),
                letter => b'a'.wrapping_add(letter.wrapping_sub(10)),
            },
        })))
    }

    /// Makes a key ID from its 36 ASCII bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::MalformedKeyId`] if the bytes break FORMAT.md A2; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// use dekseal::{ErrorKind, KeyId};
    ///
    /// let key_id = KeyId::from_bytes(*b"0d0466b0-e727-4d9c-b35d-f84bb474a37f")?;
    /// assert_eq!(key_id.as_str(), "0d0466b0-e727-4d9c-b35d-f84bb474a37f");
    /// assert_eq!(key_id.as_bytes(), b"0d0466b0-e727-4d9c-b35d-f84bb474a37f");
    ///
    /// let error = KeyId::from_bytes(*b"0D0466B0-E727-4D9C-B35D-F84BB474A37F").unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::MalformedKeyId);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Result<Self, Error> {
        Self::check(&bytes)?;
        Ok(Self(bytes))
    }

    /// Checks that 36 bytes are a key ID.
    pub(crate) fn check(bytes: &[u8; Self::LEN]) -> Result<(), Error> {
        // The loop has no early exit, so it compiles to a few wide comparisons.
        let well_formed = bytes.iter().zip(FORM).fold(true, |so_far, (byte, form)| {
            let fits = match form {
                b'-' => *byte == b'-',
                _ => byte.is_ascii_digit() | byte.is_ascii_lowercase(),
            };
            so_far & fits
        });
        match well_formed {
            true => Ok(()),
            false => Err(ErrorKind::MalformedKeyId.into()),
        }
    }

    /// Makes a key ID from bytes that were checked before.
    pub(crate) fn from_checked(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The 36 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The 36 bytes as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Every constructor checks the bytes, so they are ASCII. If a constructor had a fault, debug builds would panic
        // here, and release builds would show this text.
        let text = core::str::from_utf8(&self.0);
        debug_assert!(text.is_ok(), "the bytes of a key ID were not checked");
        text.unwrap_or("(malformed key ID)")
    }
}

/// Hashes the 36 bytes without their length, which is the same for all IDs. `KeyIdHash` expects exactly these bytes.
impl Hash for KeyId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

/// Word by word: a comparison of 36 bytes is a call of `memcmp`, which takes longer than all the rest of a look-up.
impl PartialEq for KeyId {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let words = self.0.as_chunks().0.iter().zip(other.0.as_chunks().0);
        let difference = words.fold(0, |sum, (a, b)| sum | (u32::from_ne_bytes(*a) ^ u32::from_ne_bytes(*b)));
        difference == 0
    }
}

impl FromStr for KeyId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = text.as_bytes().try_into();
        Self::from_bytes(bytes.map_err(|_| ErrorKind::MalformedKeyId)?)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Accessors for the keys that an error names.
impl Error {
    /// The key that was requested or expected, if the error is about one.
    ///
    /// # Examples
    ///
    /// ```
    /// use dekseal::{KeyId, Keyset};
    ///
    /// let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// let error = Keyset::new().info(&key_id).unwrap_err();
    /// assert_eq!(error.key_id(), Some(key_id));
    /// assert_eq!(error.to_string(), "unknown key (key 0d0466b0-e727-4d9c-b35d-f84bb474a37f)");
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[must_use]
    pub fn key_id(&self) -> Option<KeyId> {
        self.key_id_bytes().map(KeyId::from_checked)
    }

    /// The key that was found instead of the expected one.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, Dek, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let other: KeyId = "25abe69f-ae10-44cd-bc87-1bda1de3b7d7".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(other, 0, &[7; 32])?])?);
    /// # let dek = Dek::from_bytes(&core::array::from_fn(|at| at as u8));
    /// # let context = EncryptionContext::none();
    /// let sealed = engine.encrypt_dek(&other, &context, &dek)?;
    /// let error = engine.decrypt_dek(&key_id, &context, &sealed).unwrap_err();
    /// assert_eq!((error.key_id(), error.found_key_id()), (Some(key_id), Some(other)));
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[must_use]
    pub fn found_key_id(&self) -> Option<KeyId> {
        self.found_key_id_bytes().map(KeyId::from_checked)
    }

    /// The same error, naming the key that was requested. Implementations of [`Keyring`](crate::Keyring) use it.
    ///
    /// # Examples
    ///
    /// ```
    /// use dekseal::{Error, ErrorKind, KeyId};
    ///
    /// let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// let error = Error::from(ErrorKind::KeyDisabled).with_key_id(&key_id).with_key_version(3);
    /// assert_eq!((error.key_id(), error.key_version()), (Some(key_id), Some(3)));
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[must_use]
    pub fn with_key_id(self, key_id: &KeyId) -> Self {
        self.with_key_id_bytes(key_id.as_bytes())
    }

    /// The same error, naming the key that was found instead of the expected one, and its version if it is known.
    pub(crate) fn with_found(self, key_id: &KeyId, key_version: Option<u32>) -> Self {
        self.with_found_bytes(key_id.as_bytes(), key_version)
    }
}
