//! The limit of B3.4, which takes 256 TiB to reach from outside.

use alloc::{string::String, vec, vec::Vec};

use serde::Deserialize;

use super::*;
use crate::{
    dek::Dek,
    error::Error,
    payload::{PayloadHeader, header::PayloadSalt, keys::Prk},
};

/// A generator of one salt.
struct Salt([u8; 32]);

impl rand_core::TryRng for Salt {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(0)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(0)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.copy_from_slice(&self.0);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Salt {}

fn key() -> PayloadKey {
    let salt = core::array::from_fn(|at| at as u8);
    payload_key(salt, &[9; Dek::LEN]).1
}

/// The header and the key of the payload with this salt under this DEK.
fn payload_key(salt: [u8; 32], dek: &[u8; Dek::LEN]) -> (PayloadHeader, PayloadKey) {
    let salt = PayloadSalt::fresh(&mut Salt(salt)).unwrap();
    let sealed = crate::cmk::CmkVersion::new("0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse().unwrap(), 0, &[7; 32])
        .unwrap()
        .seal(&crate::context::EncryptionContext::none(), &Dek::from_bytes(dek));
    Prk::extract(&Dek::from_bytes(dek)).seal(salt, sealed).unwrap()
}

fn sealer_at(index: u32) -> SegmentSealer {
    SegmentSealer {
        counter: Counter(index),
        ..SegmentSealer::new(key())
    }
}

fn opener_at(index: u32) -> SegmentOpener {
    SegmentOpener {
        counter: Counter(index),
        ..SegmentOpener::new(key())
    }
}

fn too_long<T>(result: Result<T, Error>) {
    match result {
        Ok(_) => panic!("segment 2³² − 1 was accepted"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::PayloadTooLong),
    }
}

#[test]
fn the_segment_before_the_limit_is_the_last_that_can_be() {
    let mut sealed = vec![0; 3 + TAG_LEN];
    sealer_at(u32::MAX - 1).seal_last(b"end", &mut sealed).unwrap();
    let mut plaintext = vec![0; 3];
    opener_at(u32::MAX - 1).open_last(&sealed, &mut plaintext).unwrap();
    assert_eq!(plaintext, b"end");

    too_long(sealer_at(u32::MAX).seal_last(b"end", &mut sealed));
    too_long(sealer_at(u32::MAX).seal_last_in_place(&mut sealed));
    too_long(opener_at(u32::MAX).open_last(&sealed, &mut plaintext));
    too_long(opener_at(u32::MAX).open_last_in_place(&mut sealed));
}

#[test]
fn the_counter_stops_before_it_wraps() {
    let plaintext = [5; SEGMENT_LEN];
    let mut sealed = [0; SEALED_SEGMENT_LEN];
    let mut opened = [0; SEGMENT_LEN];
    let (mut sealer, mut opener) = (sealer_at(u32::MAX - 1), opener_at(u32::MAX - 1));

    sealer.seal(&plaintext, &mut sealed).unwrap();
    opener.open(&sealed, &mut opened).unwrap();
    assert_eq!(opened, plaintext);

    for _ in 0..3 {
        too_long(sealer.seal(&plaintext, &mut sealed));
        too_long(sealer.seal_in_place(&mut sealed));
        too_long(opener.open(&sealed, &mut opened));
        too_long(opener.open_in_place(&mut sealed).map(|_| ()));
    }
}

/// The part of tests/vectors/payload.json that `tests/it` cannot reach.
#[derive(Deserialize)]
struct Vectors {
    dek: String,
    base: Base,
    segment_key: String,
    commitment: String,
    segments: Vec<Segment>,
}

#[derive(Deserialize)]
struct Base {
    payload_salt: String,
}

#[derive(Deserialize)]
struct Segment {
    index: u32,
    last: bool,
    plaintext: String,
    segment: String,
}

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

#[test]
fn single_segments_at_every_index_are_the_known_ones() {
    let vectors: Vectors = serde_json::from_str(include_str!("../../../tests/vectors/payload.json")).unwrap();
    let (header, key) = payload_key(bytes(&vectors.base.payload_salt), &bytes(&vectors.dek));
    assert_eq!(hex::encode(header.commitment()), vectors.commitment);
    let known_key = PayloadKey::of_known(&bytes(&vectors.segment_key));

    assert_eq!(vectors.segments.len(), 18);
    for v in &vectors.segments {
        let place = Place {
            index: v.index,
            last: v.last,
        };
        let plaintext = hex::decode(&v.plaintext).unwrap();
        for key in [&key, &known_key] {
            let mut sealed = vec![0; plaintext.len() + TAG_LEN];
            key.seal(place, &plaintext, &mut sealed).unwrap();
            assert_eq!(hex::encode(&sealed), v.segment, "segment {}, last: {}", v.index, v.last);
            let mut opened = vec![0; plaintext.len()];
            key.open_segment(place, &sealed, &mut opened).unwrap();
            assert_eq!(opened, plaintext, "segment {}, last: {}", v.index, v.last);
        }
    }
}
