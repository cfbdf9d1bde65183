//! The keys of one payload, and AES-256-GCM of its segments (FORMAT.md B2).

use super::{
    TAG_LEN,
    header::{COMMITMENT_LEN, PayloadHeader, PayloadSalt},
    segment_cipher::{KEY_LEN, NONCE_LEN, SegmentCipher},
};
use crate::{
    cmk::Beside,
    dek::Dek,
    error::{Error, ErrorKind},
    labels,
    secret::{Secret, ct_eq},
    sha256::{DIGEST_LEN, HmacKey},
};

// B2: L = 64. The key is the first block of HKDF-Expand, and the commitment the second.
const _: () = assert!(KEY_LEN == DIGEST_LEN && COMMITMENT_LEN == DIGEST_LEN);

/// The PRK of one DEK. The keys of all its payloads are derived from it.
pub(super) struct Prk(HmacKey);

impl Prk {
    /// `PRK = HKDF-Extract(salt = "dekseal/v2 payload", IKM = dek)`
    pub(super) fn extract(dek: &Dek) -> Self {
        let mut prk = Secret::zeroed();
        labels::PAYLOAD_EXTRACT.mac::<2, _, _, _>((dek.expose_secret(), &[], &[]), &mut prk);
        Self::new(&prk)
    }

    /// Asks for the PRK of the DEK that is sealed or opened.
    pub(super) fn beside(prk: &mut Secret<DIGEST_LEN>) -> Beside<'_> {
        Some((&labels::PAYLOAD_EXTRACT, prk))
    }

    /// The PRK that was made [`beside`](Self::beside).
    pub(super) fn new(prk: &Secret<DIGEST_LEN>) -> Self {
        Self(HmacKey::new(prk))
    }

    /// Derives the key of a new payload, and fills in the commitment.
    #[inline]
    pub(super) fn new_payload(&self, salt: &PayloadSalt, commitment: &mut [u8; COMMITMENT_LEN]) -> PayloadKey {
        let mut key = Secret::zeroed();
        self.derive(salt, &mut key, commitment);
        PayloadKey::new(&key)
    }

    /// Derives the key of the payload that begins with `header`. Fails if the header commits to another DEK.
    ///
    /// A [`PayloadKey`] in a `Result` would be copied once more, which takes longer than its key schedule. So the
    /// caller makes it from `key`.
    pub(super) fn derive_for(&self, header: &PayloadHeader, key: &mut Secret<KEY_LEN>) -> Result<(), Error> {
        let mut commitment = [0; COMMITMENT_LEN];
        self.derive(header.salt(), key, &mut commitment);
        // B3.1: the commitment is compared in constant time before any segment is decrypted.
        if ct_eq(&commitment, header.commitment()) {
            Ok(())
        } else {
            key.wipe();
            Err(ErrorKind::AuthenticationFailed.into())
        }
    }

    /// Derives the key of the payload that begins with `header`, for a reader that keeps it.
    pub(super) fn open_payload(&self, header: &PayloadHeader) -> Result<PayloadKey, Error> {
        let mut key = Secret::zeroed();
        self.derive_for(header, &mut key)?;
        Ok(PayloadKey::new(&key))
    }

    /// `OKM = HKDF-Expand(PRK, info = header[0..44], L = 64) = key[32] ‖ commitment[32]`
    fn derive(&self, salt: &PayloadSalt, key: &mut [u8; KEY_LEN], commitment: &mut [u8; COMMITMENT_LEN]) {
        let info = salt.info();
        self.0.expand::<1, _, 0>(&info, &[], key);
        self.0.expand_second::<2, _>(key, &info, commitment);
    }
}

/// Seals and opens the segments of one payload, each at its place. The owner must not seal two segments at one place.
pub(super) struct PayloadKey {
    cipher: SegmentCipher,
}

/// The position of a segment in its payload.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) index: u32,
    pub(super) last: bool,
}

impl Place {
    /// The error for a segment that does not open at this place.
    fn refused(self) -> Error {
        let error = Error::from(ErrorKind::AuthenticationFailed);
        // A truncated payload has another segment where the last one should be.
        if self.last { error.may_be_truncated() } else { error }
    }

    /// `nonce = 0⁷ ‖ u32be(i) ‖ last`; last is the byte 1 for the last segment, else 0.
    ///
    /// The key belongs to one payload, so the nonce needs no random part.
    fn nonce(self) -> [u8; NONCE_LEN] {
        const INDEX: usize = 7;
        const LAST: usize = INDEX + 4;
        const { assert!(LAST + 1 == NONCE_LEN) };
        let mut nonce = [0; NONCE_LEN];
        nonce[INDEX..LAST].copy_from_slice(&self.index.to_be_bytes());
        nonce[LAST] = self.last.into();
        nonce
    }
}

impl PayloadKey {
    #[inline] // a large value, which is made in place
    pub(super) fn new(key: &[u8; KEY_LEN]) -> Self {
        Self {
            cipher: SegmentCipher::new(key),
        }
    }

    /// Seals `plaintext` into `sealed`, which is 16 bytes longer.
    pub(super) fn seal(&self, place: Place, plaintext: &[u8], sealed: &mut [u8]) -> Result<(), Error> {
        let (ciphertext, tag) = split_tag_mut(sealed)?;
        let made = self.cipher.seal(&place.nonce(), plaintext, ciphertext);
        *tag = made.ok_or(ErrorKind::BufferLength)?;
        Ok(())
    }

    /// Seals `segment` in place. Its last 16 bytes are the room for the tag.
    pub(super) fn seal_in_place(&self, place: Place, segment: &mut [u8]) -> Result<(), Error> {
        let (text, tag) = split_tag_mut(segment)?;
        let made = self.cipher.seal_in_place(&place.nonce(), text);
        *tag = made.ok_or(ErrorKind::BufferLength)?;
        Ok(())
    }

    /// Opens `sealed` into `plaintext`, which is 16 bytes shorter.
    pub(super) fn open_segment(&self, place: Place, sealed: &[u8], plaintext: &mut [u8]) -> Result<(), Error> {
        let (ciphertext, tag) = sealed.split_last_chunk().ok_or(ErrorKind::BufferLength)?;
        if ciphertext.len() != plaintext.len() {
            return Err(ErrorKind::BufferLength.into());
        }
        let opened = self.cipher.open(&place.nonce(), ciphertext, tag, plaintext);
        opened.ok_or_else(|| place.refused())
    }

    /// Opens `segment` in place. Returns the plaintext: all but the last 16 bytes.
    pub(super) fn open_in_place<'a>(&self, place: Place, segment: &'a mut [u8]) -> Result<&'a mut [u8], Error> {
        let (text, tag) = split_tag_mut(segment)?;
        self.open_detached(place, text, tag)?;
        Ok(text)
    }

    /// Opens `text` in place, with a tag from another buffer.
    pub(super) fn open_detached(&self, place: Place, text: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), Error> {
        let opened = self.cipher.open_in_place(&place.nonce(), text, tag);
        opened.ok_or_else(|| place.refused())
    }
}

fn split_tag_mut(segment: &mut [u8]) -> Result<(&mut [u8], &mut [u8; TAG_LEN]), Error> {
    Ok(segment.split_last_chunk_mut().ok_or(ErrorKind::BufferLength)?)
}
