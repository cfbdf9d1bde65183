//! The 188 bytes of a sealed DEK: layout, parse, checksum (FORMAT.md A1, and steps 1 to 3 of A5). No keys, no cipher.

use core::fmt;

use crate::{
    error::{BlobRule, Error, ErrorKind},
    key_id::KeyId,
    sha256::sha256,
};

// A1. Each offset is computed from the one before.
const VERSION: usize = 0;
const BODY_LENGTH: usize = VERSION + 2;
const SALT: usize = HEADER_LEN;
const CIPHERTEXT: usize = SALT + SALT_LEN;
const TAG: usize = CIPHERTEXT + CIPHERTEXT_LEN;
const KEY_ID: usize = TAG + TAG_LEN;
const KEY_VERSION: usize = KEY_ID + KeyId::LEN;
const CHECKSUM: usize = KEY_VERSION + 4;
const LEN: usize = CHECKSUM + 32;

pub(crate) const HEADER_LEN: usize = 4;
pub(crate) const SALT_LEN: usize = 32;
pub(crate) const CIPHERTEXT_LEN: usize = 64;
pub(crate) const TAG_LEN: usize = 16;
pub(crate) const TRAILER_LEN: usize = KeyId::LEN + 4;

const _: () = {
    assert!(SALT == 4 && CIPHERTEXT == 36 && TAG == 100 && KEY_ID == 116);
    assert!(KEY_VERSION == 152 && CHECKSUM == 156 && LEN == 188);
    assert!(CHECKSUM - SALT == 152);
};

/// The fields of A1: offset and length. They are disjoint and cover the blob.
const FIELDS: [(usize, usize); 8] = [
    (VERSION, 2),
    (BODY_LENGTH, 2),
    (SALT, SALT_LEN),
    (CIPHERTEXT, CIPHERTEXT_LEN),
    (TAG, TAG_LEN),
    (KEY_ID, KeyId::LEN),
    (KEY_VERSION, 4),
    (CHECKSUM, 32),
];
const _: () = assert!(fields_cover(&FIELDS, LEN));

/// Whether each field starts where the one before ends, from 0 to `length`.
pub(crate) const fn fields_cover(fields: &[(usize, usize)], length: usize) -> bool {
    let mut end = 0;
    let mut rest = fields;
    while let [(offset, len), others @ ..] = rest {
        if *offset != end {
            return false;
        }
        end = end.saturating_add(*len);
        rest = others;
    }
    end == length
}

/// The version and the body length, little-endian. Version 2 allows no other values.
pub(crate) const HEADER: [u8; HEADER_LEN] = [2, 0, 152, 0];

/// A sealed DEK: the 188 bytes of FORMAT.md A1.
///
/// A value of this type has a well-formed frame, a well-formed key ID and a matching checksum. The checksum needs no
/// key, so anyone can compute it: only opening the blob shows that it is authentic.
///
/// # Examples
///
/// ```
/// use dekseal::SealedDek;
///
/// # let cmk = dekseal::CmkVersion::new("0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?, 3, &[7; 32])?;
/// # let stored = cmk.seal(&dekseal::EncryptionContext::none(), &dekseal::Dek::from_bytes(&[7;
/// 64])).as_bytes().to_vec(); let sealed = SealedDek::from_bytes(&stored)?; assert_eq!(sealed.key_id().as_str(),
/// "0d0466b0-e727-4d9c-b35d-f84bb474a37f"); assert_eq!(sealed.key_version(), 3); assert_eq!(sealed.as_bytes()[..],
/// stored);
/// # Ok::<(), dekseal::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SealedDek([u8; LEN]);

impl SealedDek {
    /// The length of a sealed DEK in bytes.
    pub const LEN: usize = LEN;

    /// Parses a sealed DEK by steps 1 to 3 of FORMAT.md A5. Needs no key.
    ///
    /// # Errors
    ///
    /// In this order: [`ErrorKind::NotABlob`] with the broken rule, [`ErrorKind::MalformedKeyId`],
    /// [`ErrorKind::DamagedBlob`]. No others.
    ///
    /// # Examples
    ///
    /// ```
    /// use dekseal::{BlobRule, ErrorKind, SealedDek};
    ///
    /// let error = SealedDek::from_bytes(&[0; 187]).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::NotABlob(BlobRule::Length));
    /// ```
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        // A5, step 1: the length is 188, the version 2, the body length 152.
        let bytes = bytes.try_into().map_err(|_| ErrorKind::NotABlob(BlobRule::Length))?;
        Self::check(bytes)?;
        Ok(Self(*bytes))
    }

    /// Checks 188 bytes by steps 1 to 3 of FORMAT.md A5.
    pub(crate) fn check(bytes: &[u8; LEN]) -> Result<(), Error> {
        if bytes[VERSION..BODY_LENGTH] != HEADER[VERSION..BODY_LENGTH] {
            return Err(ErrorKind::NotABlob(BlobRule::Version).into());
        }
        if bytes[BODY_LENGTH..SALT] != HEADER[BODY_LENGTH..SALT] {
            return Err(ErrorKind::NotABlob(BlobRule::BodyLength).into());
        }
        // Step 2: the key ID matches A2.
        KeyId::check(field::<KEY_ID, { KeyId::LEN }, _>(bytes))?;
        // Step 3: the checksum matches. It is public, so the comparison need not be constant-time.
        if checksum(bytes) != bytes[CHECKSUM..] {
            return Err(ErrorKind::DamagedBlob.into());
        }
        Ok(())
    }

    /// Bytes that [`check`](Self::check) accepted.
    #[inline]
    pub(crate) fn from_checked(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }

    /// Makes a blob in place: header, trailer, the parts that `seal` fills, and the checksum.
    #[inline]
    pub(crate) fn make(&mut self, trailer: &[u8; TRAILER_LEN], seal: impl FnOnce(Parts<'_>)) {
        let bytes = &mut self.0;
        bytes[VERSION..SALT].copy_from_slice(&HEADER);
        bytes[KEY_ID..CHECKSUM].copy_from_slice(trailer);
        // The lengths are constants, so there always are such parts.
        if let Some(parts) = Parts::of(&mut bytes[SALT..KEY_ID]) {
            seal(parts);
        }
        let checksum = checksum(bytes);
        bytes[CHECKSUM..].copy_from_slice(&checksum);
    }

    /// A buffer for a blob, to be filled in place. It is not a valid blob yet.
    pub(crate) fn zeroed() -> Self {
        Self([0; LEN])
    }

    /// The 188 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }

    /// The ID of the CMK that the blob claims to be sealed under.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        KeyId::from_checked(*field::<KEY_ID, { KeyId::LEN }, _>(&self.0))
    }

    /// The version of the CMK that the blob claims to be sealed under.
    #[must_use]
    pub fn key_version(&self) -> u32 {
        u32::from_le_bytes(*field::<KEY_VERSION, 4, _>(&self.0))
    }

    pub(crate) fn salt(&self) -> &[u8; SALT_LEN] {
        field::<SALT, SALT_LEN, _>(&self.0)
    }

    pub(crate) fn ciphertext(&self) -> &[u8; CIPHERTEXT_LEN] {
        field::<CIPHERTEXT, CIPHERTEXT_LEN, _>(&self.0)
    }

    pub(crate) fn tag(&self) -> &[u8; TAG_LEN] {
        field::<TAG, TAG_LEN, _>(&self.0)
    }
}

/// The parts of a blob that sealing computes.
pub(crate) struct Parts<'a> {
    pub(crate) salt: &'a mut [u8; SALT_LEN],
    /// The DEK, and then its ciphertext.
    pub(crate) body: &'a mut [u8; CIPHERTEXT_LEN],
    pub(crate) tag: &'a mut [u8; TAG_LEN],
}

impl<'a> Parts<'a> {
    #[inline]
    fn of(bytes: &'a mut [u8]) -> Option<Self> {
        let (salt, rest) = bytes.split_first_chunk_mut()?;
        let (body, rest) = rest.split_first_chunk_mut()?;
        let tag = rest.first_chunk_mut()?;
        Some(Self { salt, body, tag })
    }
}

impl TryFrom<&[u8]> for SealedDek {
    type Error = Error;

    fn try_from(bytes: &[u8]) -> Result<Self, Error> {
        Self::from_bytes(bytes)
    }
}

impl AsRef<[u8]> for SealedDek {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SealedDek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key_id, version) = (self.key_id(), self.key_version());
        write!(f, "SealedDek({key_id} version {version})")
    }
}

/// The trailer of A4: the key ID and the key version.
pub(crate) fn trailer(key_id: &KeyId, key_version: u32) -> [u8; TRAILER_LEN] {
    let mut trailer = [0; TRAILER_LEN];
    trailer[..KeyId::LEN].copy_from_slice(key_id.as_bytes());
    trailer[KeyId::LEN..].copy_from_slice(&key_version.to_le_bytes());
    trailer
}

/// The key ID in a trailer.
pub(crate) fn key_id_of(trailer: &[u8; TRAILER_LEN]) -> KeyId {
    KeyId::from_checked(*field::<0, { KeyId::LEN }, _>(trailer))
}

/// The key version in a trailer.
pub(crate) fn key_version_of(trailer: &[u8; TRAILER_LEN]) -> u32 {
    u32::from_le_bytes(*field::<{ KeyId::LEN }, 4, _>(trailer))
}

/// A1: SHA-256 of bytes 0..156.
fn checksum(bytes: &[u8; LEN]) -> [u8; 32] {
    sha256(&bytes[..CHECKSUM])
}

/// The `N` bytes that start at offset `AT`.
pub(crate) fn field<const AT: usize, const N: usize, const ALL: usize>(bytes: &[u8; ALL]) -> &[u8; N] {
    const { assert!(AT < ALL && N <= ALL - AT) };
    // The assertion above keeps this in bounds, so the zeros are never used.
    let field = bytes.get(AT..).and_then(<[u8]>::first_chunk);
    field.unwrap_or(const { &[0; N] })
}
