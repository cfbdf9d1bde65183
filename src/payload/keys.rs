//! The keys of one payload, and AES-256-GCM of its segments (FORMAT.md B2).

use super::{
    TAG_LEN,
    header::{COMMITMENT_LEN, INFO_LEN, PayloadHeader, PayloadSalt},
    segment_cipher::{KEY_LEN, NONCE_LEN, SegmentCipher},
};
use crate::{
    cmk::Beside,
    dek::Dek,
    error::{Error, ErrorKind},
    labels,
    secret::{Secret, ct_eq},
    sha256::{DIGEST_LEN, HmacKey, TwoBlocks},
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
        Self(HmacKey::new(&prk))
    }

    /// Returns an error if the header commits to another DEK.
    pub(super) fn check_header(&self, header: &PayloadHeader) -> Result<(), Error> {
        let (mut okm, mut key) = (Okm::of(header.info()), Secret::zeroed());
        okm.key(self, &mut key);
        okm.check_commitment(self, &key, header.commitment())
    }

    /// Derives the key of the payload that begins with `header`, for a reader that keeps it.
    pub(super) fn open_payload(&self, header: &PayloadHeader) -> Result<PayloadKey, Error> {
        let (mut okm, mut key) = (Okm::of(header.info()), Secret::zeroed());
        okm.key(self, &mut key);
        let payload_key = PayloadKey::new(&key);
        okm.check_commitment(self, &key, header.commitment())?;
        Ok(payload_key)
    }
}

/// `OKM = HKDF-Expand(PRK, info = header[0..44], L = 64) = key[32] ‖ commitment[32]`
pub(super) struct Okm(TwoBlocks);

impl Okm {
    #[inline]
    pub(super) fn of(info: &[u8; INFO_LEN]) -> Self {
        Self(TwoBlocks::of(info))
    }

    /// Derives the key.
    #[inline]
    pub(super) fn key(&self, prk: &Prk, key: &mut Secret<KEY_LEN>) {
        self.0.first(&prk.0, key);
    }

    /// Derives the commitment.
    ///
    /// Callers make the [`PayloadKey`] before it. The set-up of AES-GCM and the commitment both depend on `key` alone,
    /// so a processor can work on both at once.
    #[inline]
    fn commitment(&mut self, prk: &Prk, key: &Secret<KEY_LEN>, commitment: &mut [u8; COMMITMENT_LEN]) {
        self.0.second(&prk.0, key, commitment);
    }

    /// Returns an error if the commitment of a header is another one, that of another DEK.
    #[inline]
    pub(super) fn check_commitment(
        &mut self,
        prk: &Prk,
        key: &Secret<KEY_LEN>,
        expected: &[u8; COMMITMENT_LEN],
    ) -> Result<(), Error> {
        let mut commitment = [0; COMMITMENT_LEN];
        self.commitment(prk, key, &mut commitment);
        // B3.1: the commitment is compared in constant time before any segment is decrypted.
        if ct_eq(&commitment, expected) {
            Ok(())
        } else {
            Err(ErrorKind::AuthenticationFailed.into())
        }
    }
}

/// The keys of a new payload. Its commitment is not computed yet.
pub(super) struct NewPayload<'a> {
    prk: &'a Prk,
    salt: &'a PayloadSalt,
    okm: &'a mut Okm,
    key: &'a Secret<KEY_LEN>,
}

impl NewPayload<'_> {
    /// Calls `f` with the keys of the payload with this salt.
    pub(super) fn with<T>(prk: &Prk, salt: &PayloadSalt, f: impl FnOnce(NewPayload<'_>) -> T) -> T {
        let (mut okm, mut key) = (Okm::of(salt.info()), Secret::zeroed());
        okm.key(prk, &mut key);
        f(NewPayload {
            prk,
            salt,
            okm: &mut okm,
            key: &key,
        })
    }

    pub(super) fn salt(&self) -> &PayloadSalt {
        self.salt
    }

    /// Sets up AES-GCM, and fills in the commitment.
    #[inline]
    pub(super) fn start(&mut self, commitment: &mut [u8; COMMITMENT_LEN]) -> PayloadKey {
        let payload_key = PayloadKey::new(self.key);
        self.okm.commitment(self.prk, self.key, commitment);
        payload_key
    }
}

/// Derives the keys of a new payload while its DEK is sealed.
pub(super) struct ForNew {
    salt: PayloadSalt,
    okm: Okm,
    extracted: ExtractedPrk,
    prk: Prk,
    key: Secret<KEY_LEN>,
}

impl ForNew {
    /// The caller sets the salt before the DEK is sealed.
    pub(super) fn unset() -> Self {
        Self {
            salt: PayloadSalt::unset(),
            okm: Okm(TwoBlocks::unset()),
            extracted: ExtractedPrk::new(),
            prk: Prk(HmacKey::unkeyed()),
            key: Secret::zeroed(),
        }
    }

    pub(super) fn set_salt(&mut self, salt: PayloadSalt) {
        self.salt = salt;
        self.okm.0.set(self.salt.info());
    }

    /// The keys after the DEK was sealed.
    pub(super) fn payload(&mut self) -> NewPayload<'_> {
        NewPayload {
            prk: &self.prk,
            salt: &self.salt,
            okm: &mut self.okm,
            key: &self.key,
        }
    }
}

impl Beside for ForNew {
    #[inline]
    fn mac(&mut self) -> Option<(&HmacKey, &mut Secret<DIGEST_LEN>)> {
        self.extracted.mac()
    }

    #[inline]
    fn meanwhile(&mut self) {
        self.prk.0.set(&self.extracted.0);
        self.okm.key(&self.prk, &mut self.key);
    }
}

/// The PRK of a DEK, which is extracted while the DEK is sealed or opened.
pub(super) struct ExtractedPrk(Secret<DIGEST_LEN>);

impl ExtractedPrk {
    pub(super) fn new() -> Self {
        Self(Secret::zeroed())
    }

    /// The PRK after the DEK was sealed or opened.
    pub(super) fn prk(&self) -> Prk {
        Prk(HmacKey::new(&self.0))
    }
}

impl Beside for ExtractedPrk {
    #[inline]
    fn mac(&mut self) -> Option<(&HmacKey, &mut Secret<DIGEST_LEN>)> {
        Some((&labels::PAYLOAD_EXTRACT, &mut self.0))
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
