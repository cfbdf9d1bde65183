//! The 264 bytes before the segments (FORMAT.md B1). This module has no keys and no cipher.

use core::fmt;

use rand_core::TryCryptoRng;

use crate::{
    blob::{SealedDek, field, fields_cover},
    dek::draw,
    error::{Error, ErrorKind, PayloadRule, RandomnessFault},
};

// B1. Each offset is computed from the one before.
const MAGIC: usize = 0;
const VERSION: usize = MAGIC + 7;
const SEGMENT_LENGTH: usize = VERSION + 1;
const SALT: usize = SEGMENT_LENGTH + 4;
pub(super) const SEALED_DEK: usize = SALT + SALT_LEN;
pub(super) const COMMITMENT: usize = SEALED_DEK + SealedDek::LEN;
const LEN: usize = COMMITMENT + COMMITMENT_LEN;

const SALT_LEN: usize = 32;
pub(super) const COMMITMENT_LEN: usize = 32;
/// `header[0..44]`: the keys of a payload are derived from it.
pub(super) const INFO_LEN: usize = SEALED_DEK;

const _: () = assert!(SEGMENT_LENGTH == 8 && SALT == 12 && SEALED_DEK == 44 && COMMITMENT == 232 && LEN == 264);

/// The fields of B1: offset and length. They are disjoint and cover the header.
const FIELDS: [(usize, usize); 6] = [
    (MAGIC, 7),
    (VERSION, 1),
    (SEGMENT_LENGTH, 4),
    (SALT, SALT_LEN),
    (SEALED_DEK, SealedDek::LEN),
    (COMMITMENT, COMMITMENT_LEN),
];
const _: () = assert!(fields_cover(&FIELDS, LEN));

/// Magic, version and segment length. No other values are accepted.
const FIXED: [u8; SALT] = *b"dekseal\x01\0\0\x01\0";

/// The header of a sealed payload: the 264 bytes of FORMAT.md B1.
///
/// A value of this type is well-formed. Only the DEK shows whether it is authentic.
///
/// # Examples
///
/// The key that a payload is sealed under can be read without any key:
///
#[cfg_attr(feature = "std", doc = "```")]
#[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
/// use dekseal::payload::PayloadHeader;
///
/// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
/// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 3, &[7; 32])?])?);
/// # let payload = engine.encrypt(&key_id, &EncryptionContext::none(), b"attack at dawn")?;
/// let header = PayloadHeader::from_bytes(payload.first_chunk().unwrap())?;
/// assert_eq!(header.sealed_dek().key_id(), key_id);
/// assert_eq!(header.sealed_dek().key_version(), 3);
/// assert_eq!(header.to_bytes(), payload[..PayloadHeader::LEN]);
/// # Ok::<(), dekseal::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PayloadHeader {
    salt: PayloadSalt,
    sealed: SealedDek,
    commitment: [u8; COMMITMENT_LEN],
}

impl PayloadHeader {
    /// The length of a header in bytes.
    pub const LEN: usize = LEN;

    /// Parses a header. Needs no key.
    ///
    /// # Errors
    ///
    /// In this order: [`ErrorKind::NotAPayload`] with the broken rule; the errors of [`SealedDek::from_bytes`] for the
    /// sealed DEK. No others.
    pub fn from_bytes(bytes: &[u8; LEN]) -> Result<Self, Error> {
        let checked = CheckedHeader::of(bytes)?;
        Ok(Self {
            salt: PayloadSalt(*checked.info()),
            sealed: checked.sealed_dek(),
            commitment: *checked.commitment(),
        })
    }

    pub(super) fn new(salt: PayloadSalt, sealed: SealedDek, commitment: [u8; COMMITMENT_LEN]) -> Self {
        Self {
            salt,
            sealed,
            commitment,
        }
    }

    /// The 264 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        Self::write(&self.salt, &self.sealed, &self.commitment, &mut bytes);
        bytes
    }

    /// Writes a header of these parts.
    #[inline]
    pub(super) fn write(
        salt: &PayloadSalt,
        sealed: &SealedDek,
        commitment: &[u8; COMMITMENT_LEN],
        bytes: &mut [u8; LEN],
    ) {
        bytes[..SEALED_DEK].copy_from_slice(salt.info());
        bytes[SEALED_DEK..COMMITMENT].copy_from_slice(sealed.as_bytes());
        bytes[COMMITMENT..].copy_from_slice(commitment);
    }

    /// The sealed DEK. It names the key and the version that the payload is sealed under.
    #[must_use]
    pub fn sealed_dek(&self) -> &SealedDek {
        &self.sealed
    }

    /// `header[0..44]`
    pub(super) fn info(&self) -> &[u8; INFO_LEN] {
        self.salt.info()
    }

    pub(super) fn commitment(&self) -> &[u8; COMMITMENT_LEN] {
        &self.commitment
    }

    /// The header of the same payload after its DEK was sealed again.
    pub(super) fn rewrapped(&self, sealed: SealedDek) -> Self {
        Self { sealed, ..*self }
    }
}

impl fmt::Debug for PayloadHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PayloadHeader({:?})", self.sealed)
    }
}

/// The bytes of a header that was checked by the rules of [`PayloadHeader::from_bytes`]. Its fields are not copied.
#[derive(Clone, Copy)]
pub(super) struct CheckedHeader<'a>(&'a [u8; LEN]);

impl<'a> CheckedHeader<'a> {
    pub(super) fn of(bytes: &'a [u8; LEN]) -> Result<Self, Error> {
        let broken = if bytes[MAGIC..VERSION] != FIXED[MAGIC..VERSION] {
            Some(PayloadRule::Magic)
        } else if bytes[VERSION..SEGMENT_LENGTH] != FIXED[VERSION..SEGMENT_LENGTH] {
            Some(PayloadRule::Version)
        } else if bytes[SEGMENT_LENGTH..SALT] != FIXED[SEGMENT_LENGTH..SALT] {
            Some(PayloadRule::SegmentLength)
        } else {
            None
        };
        if let Some(rule) = broken {
            return Err(ErrorKind::NotAPayload(rule).into());
        }
        SealedDek::check(field::<SEALED_DEK, { SealedDek::LEN }, _>(bytes))?;
        Ok(Self(bytes))
    }

    pub(super) fn sealed_dek(self) -> SealedDek {
        SealedDek::from_checked(*field::<SEALED_DEK, { SealedDek::LEN }, _>(self.0))
    }

    /// `header[0..44]`
    pub(super) fn info(self) -> &'a [u8; INFO_LEN] {
        field::<0, INFO_LEN, _>(self.0)
    }

    pub(super) fn commitment(self) -> &'a [u8; COMMITMENT_LEN] {
        field::<COMMITMENT, COMMITMENT_LEN, _>(self.0)
    }
}

/// The payload salt of B1: "random, new for each payload, even under a DEK that was used before". It is kept as the
/// bytes that it ends: `header[0..44]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PayloadSalt([u8; INFO_LEN]);

impl PayloadSalt {
    pub(super) const LEN: usize = SALT_LEN;

    pub(super) fn fresh<R: TryCryptoRng + ?Sized>(rng: &mut R) -> Result<Self, Error> {
        let mut salt = [0; SALT_LEN];
        draw(rng, &mut salt)?;
        Self::from_drawn(salt)
    }

    /// Two payloads of one DEK with the same salt would share their nonces, so a generator that repeats its last 16
    /// bytes is refused. A sound generator does this once in 2¹²⁸ salts.
    pub(super) fn from_drawn(salt: [u8; SALT_LEN]) -> Result<Self, Error> {
        if salt[..SALT_LEN / 2] == salt[SALT_LEN / 2..] {
            return Err(ErrorKind::Randomness(RandomnessFault::Stuck).into());
        }
        let mut info = [0; INFO_LEN];
        info[..SALT].copy_from_slice(&FIXED);
        info[SALT..].copy_from_slice(&salt);
        Ok(Self(info))
    }

    /// A place for a salt.
    pub(super) fn unset() -> Self {
        Self([0; INFO_LEN])
    }

    /// `header[0..44]`
    pub(super) fn info(&self) -> &[u8; INFO_LEN] {
        &self.0
    }
}
