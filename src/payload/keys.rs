//! The keys of one payload, and its segments under them (FORMAT.md B2).

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroize;

use super::{
    TAG_LEN,
    header::{COMMITMENT_LEN, PayloadHeader, PayloadSalt},
    segment_cipher::{KEY_LEN, NONCE_LEN, SegmentCipher},
};
use crate::{
    blob::SealedDek,
    dek::Dek,
    error::{Error, ErrorKind},
    labels,
    secret::{Secret, ct_eq},
};

const PREFIX_LEN: usize = 7;
const PREFIX: usize = KEY_LEN;
const COMMITMENT: usize = PREFIX + PREFIX_LEN;
const OKM_LEN: usize = COMMITMENT + COMMITMENT_LEN;

const _: () = assert!(OKM_LEN == 71 && PREFIX_LEN + 4 + 1 == NONCE_LEN);

/// The key that all payloads of one DEK are derived from. It is HKDF keyed with the PRK: an HMAC under another name,
/// which wipes itself.
pub(super) struct Prk(Hkdf<Sha256>);

impl Prk {
    /// `PRK = HKDF-Extract(salt = "dekseal/v2 payload", IKM = dek)`
    pub(super) fn extract(dek: &Dek) -> Self {
        let (mut prk, hkdf) = Hkdf::extract(Some(labels::PAYLOAD_EXTRACT), dek.expose_secret());
        prk.zeroize();
        Self(hkdf)
    }

    /// The header and the key of a new payload.
    pub(super) fn seal(&self, salt: PayloadSalt, sealed: SealedDek) -> Result<(PayloadHeader, PayloadKey), Error> {
        let (key, commitment) = self.derive(&salt)?;
        Ok((PayloadHeader::new(salt, sealed, commitment), key))
    }

    /// The key of the payload that `header` is from, where the header's commitment is that of the DEK.
    pub(super) fn open(&self, header: &PayloadHeader) -> Result<PayloadKey, Error> {
        let (key, commitment) = self.derive(header.salt())?;
        // B3.1: the commitment is compared in constant time before any segment is decrypted.
        if ct_eq(&commitment, header.commitment()) {
            Ok(key)
        } else {
            Err(ErrorKind::AuthenticationFailed.into())
        }
    }

    /// `OKM = HKDF-Expand(PRK, info = header[0..44], L = 71) = key[32] ‖ prefix[7] ‖ commitment[32]`
    ///
    /// Neither HKDF nor AES takes exception to these lengths, so this cannot fail.
    fn derive(&self, salt: &PayloadSalt) -> Result<(PayloadKey, [u8; COMMITMENT_LEN]), Error> {
        let mut okm = Secret::<OKM_LEN>::zeroed();
        let expanded = self.0.expand(&salt.info(), &mut *okm);
        expanded.map_err(|_| ErrorKind::AuthenticationFailed)?;
        let okm: &[u8; OKM_LEN] = &okm;

        let mut key = Secret::<KEY_LEN>::zeroed();
        key.copy_from_slice(&okm[..PREFIX]);
        let mut prefix = Secret::<PREFIX_LEN>::zeroed();
        prefix.copy_from_slice(&okm[PREFIX..COMMITMENT]);
        let mut commitment = [0; COMMITMENT_LEN];
        commitment.copy_from_slice(&okm[COMMITMENT..]);

        let cipher = SegmentCipher::new(&key).ok_or(ErrorKind::AuthenticationFailed)?;
        Ok((PayloadKey { cipher, prefix }, commitment))
    }
}

/// Seals and opens the segments of one payload, each by its place. Who holds it sees to it that no place is sealed
/// twice.
pub(super) struct PayloadKey {
    cipher: SegmentCipher,
    prefix: Secret<PREFIX_LEN>,
}

/// Where a segment stands in its payload.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) index: u32,
    pub(super) last: bool,
}

impl PayloadKey {
    /// `nonce = prefix ‖ u32be(i) ‖ last`; last is the byte 1 for the last segment, else 0
    fn nonce(&self, place: Place) -> [u8; NONCE_LEN] {
        const INDEX: usize = PREFIX_LEN;
        const LAST: usize = INDEX + 4;
        let mut nonce = [0; NONCE_LEN];
        nonce[..INDEX].copy_from_slice(&*self.prefix);
        nonce[INDEX..LAST].copy_from_slice(&place.index.to_be_bytes());
        nonce[LAST] = place.last.into();
        nonce
    }

    /// Seals `plaintext` into `sealed`, which is a tag longer.
    pub(super) fn seal(&self, place: Place, plaintext: &[u8], sealed: &mut [u8]) -> Result<(), Error> {
        let (ciphertext, tag) = split_tag_mut(sealed)?;
        let made = self.cipher.seal(&self.nonce(place), plaintext, ciphertext);
        *tag = made.ok_or(ErrorKind::BufferLength)?;
        Ok(())
    }

    /// Seals all of `segment` but the room for the tag at its end.
    pub(super) fn seal_in_place(&self, place: Place, segment: &mut [u8]) -> Result<(), Error> {
        let (text, tag) = split_tag_mut(segment)?;
        let made = self.cipher.seal_in_place(&self.nonce(place), text);
        *tag = made.ok_or(ErrorKind::BufferLength)?;
        Ok(())
    }

    /// Opens `sealed` into `plaintext`, which is a tag shorter.
    pub(super) fn open_segment(&self, place: Place, sealed: &[u8], plaintext: &mut [u8]) -> Result<(), Error> {
        let (ciphertext, tag) = sealed.split_last_chunk().ok_or(ErrorKind::BufferLength)?;
        if ciphertext.len() != plaintext.len() {
            return Err(ErrorKind::BufferLength.into());
        }
        let opened = self.cipher.open(&self.nonce(place), ciphertext, tag, plaintext);
        Ok(opened.ok_or(ErrorKind::AuthenticationFailed)?)
    }

    /// Opens `segment`: gives its plaintext, which is all of it but the tag.
    pub(super) fn open_in_place<'a>(&self, place: Place, segment: &'a mut [u8]) -> Result<&'a mut [u8], Error> {
        let (text, tag) = split_tag_mut(segment)?;
        let opened = self.cipher.open_in_place(&self.nonce(place), text, tag);
        opened.ok_or(ErrorKind::AuthenticationFailed)?;
        Ok(text)
    }
}

fn split_tag_mut(segment: &mut [u8]) -> Result<(&mut [u8], &mut [u8; TAG_LEN]), Error> {
    Ok(segment.split_last_chunk_mut().ok_or(ErrorKind::BufferLength)?)
}
