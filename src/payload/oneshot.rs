//! Payloads in memory, encrypted or decrypted in one call.

use alloc::{vec, vec::Vec};

#[cfg(feature = "rayon")]
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::{ParallelSlice, ParallelSliceMut},
};

use zeroize::{Zeroize, Zeroizing};

use super::{
    PayloadHeader, SEALED_SEGMENT_LEN, SEGMENT_LEN,
    header::{COMMITMENT_LEN, CheckedHeader},
    keys::{NewPayload, Okm, PayloadKey, Place, Prk},
    length::{encrypted_len_in_memory, plaintext_len_in_memory},
};
use crate::{
    blob::SealedDek,
    error::{Error, ErrorKind, PayloadRule},
    secret::Secret,
};

/// The shortest plaintext that is processed in parallel: 1 MiB, 16 segments. One thread is faster below it.
#[cfg(feature = "rayon")]
const PARALLEL_FROM: usize = 1_048_576;

/// A payload with a well-formed header and a valid length.
pub(super) struct Payload<'a> {
    pub(super) header: CheckedHeader<'a>,
    segments: &'a [u8],
    plaintext_len: usize,
}

impl<'a> Payload<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, Error> {
        let (header, segments) = payload
            .split_first_chunk()
            .ok_or(ErrorKind::NotAPayload(PayloadRule::Length))?;
        Ok(Self {
            header: CheckedHeader::of(header)?,
            segments,
            plaintext_len: plaintext_len_in_memory(payload)?,
        })
    }

    /// The plaintext.
    pub(super) fn decrypt(&self, prk: &Prk, okm: &mut Okm) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut plaintext = Zeroizing::new(vec![0; self.plaintext_len]);
        self.decrypt_into(prk, okm, &mut plaintext)?;
        Ok(plaintext)
    }

    /// The keys of the payload, to be derived. The earlier before [`decrypt`](Self::decrypt), the better: see
    /// [`TwoBlocks`](crate::sha256::TwoBlocks).
    #[inline]
    pub(super) fn okm(&self) -> Okm {
        Okm::of(self.header.info())
    }

    /// Opens all segments into `plaintext`. If one does not open, overwrites `plaintext` with zeros.
    pub(super) fn decrypt_into(&self, prk: &Prk, okm: &mut Okm, plaintext: &mut [u8]) -> Result<(), Error> {
        // A `PayloadKey` in a `Result` would be copied once more, which takes longer than its key schedule.
        let mut key = Secret::zeroed();
        okm.key(prk, &mut key);
        let payload_key = PayloadKey::new(&key);
        okm.check_commitment(prk, &key, self.header.commitment())?;
        if plaintext.len() != self.plaintext_len {
            return Err(ErrorKind::BufferLength.into());
        }
        let opened = open_segments(&payload_key, self.segments, plaintext);
        if opened.is_err() {
            plaintext.zeroize();
        }
        opened
    }
}

/// The payload of `plaintext`.
pub(super) fn encrypt(new: NewPayload<'_>, sealed: &SealedDek, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
    let mut payload = vec![0; encrypted_len_in_memory(plaintext)?];
    encrypt_into(new, sealed, plaintext, &mut payload)?;
    Ok(payload)
}

/// Writes the payload of `plaintext` to `payload`, which has exactly its length.
pub(super) fn encrypt_into(
    mut new: NewPayload<'_>,
    sealed: &SealedDek,
    plaintext: &[u8],
    payload: &mut [u8],
) -> Result<(), Error> {
    let (header, segments) = payload.split_first_chunk_mut().ok_or(ErrorKind::BufferLength)?;
    let mut commitment = [0; COMMITMENT_LEN];
    let key = new.start(&mut commitment);
    PayloadHeader::write(new.salt(), sealed, &commitment, header);
    seal_segments(&key, plaintext, segments)
}

/// Seals `plaintext` into `sealed`, which has exactly the length of its segments.
fn seal_segments(key: &PayloadKey, plaintext: &[u8], sealed: &mut [u8]) -> Result<(), Error> {
    let last = last_index(plaintext.len());
    let seal =
        |(index, (plaintext, sealed)): (usize, (&[u8], &mut [u8]))| key.seal(place(index, last)?, plaintext, sealed);
    if plaintext.is_empty() {
        return seal((0, (plaintext, sealed)));
    }
    #[cfg(feature = "rayon")]
    if plaintext.len() >= PARALLEL_FROM {
        let sealed = sealed.par_chunks_mut(SEALED_SEGMENT_LEN);
        let pairs = plaintext.par_chunks(SEGMENT_LEN).zip(sealed);
        return pairs.enumerate().try_for_each(seal);
    }
    let sealed = sealed.chunks_mut(SEALED_SEGMENT_LEN);
    let mut pairs = plaintext.chunks(SEGMENT_LEN).zip(sealed).enumerate();
    pairs.try_for_each(seal)
}

/// Opens `sealed` into `plaintext`, which has exactly the length of the plaintext.
fn open_segments(key: &PayloadKey, sealed: &[u8], plaintext: &mut [u8]) -> Result<(), Error> {
    let last = last_index(plaintext.len());
    let open = |(index, (sealed, plaintext)): (usize, (&[u8], &mut [u8]))| {
        key.open_segment(place(index, last)?, sealed, plaintext)
    };
    if plaintext.is_empty() {
        return open((0, (sealed, plaintext)));
    }
    #[cfg(feature = "rayon")]
    if plaintext.len() >= PARALLEL_FROM {
        let plaintext = plaintext.par_chunks_mut(SEGMENT_LEN);
        let pairs = sealed.par_chunks(SEALED_SEGMENT_LEN).zip(plaintext);
        return pairs.enumerate().try_for_each(open);
    }
    let plaintext = plaintext.chunks_mut(SEGMENT_LEN);
    let mut pairs = sealed.chunks(SEALED_SEGMENT_LEN).zip(plaintext).enumerate();
    pairs.try_for_each(open)
}

/// B3.2: every segment but the last is full.
fn last_index(plaintext_len: usize) -> usize {
    plaintext_len.div_ceil(SEGMENT_LEN).saturating_sub(1)
}

/// The place of a segment (B3.4). The caller has checked the length.
pub(super) fn place(index: usize, last: usize) -> Result<Place, Error> {
    Ok(Place {
        index: u32::try_from(index).map_err(|_| ErrorKind::PayloadTooLong)?,
        last: index == last,
    })
}
