//! Segments at indices that need gigabytes to reach through the public API, and the limit of B3.4.

use alloc::{string::String, vec, vec::Vec};

use serde::Deserialize;

use super::*;
#[cfg(feature = "std")]
use crate::payload::PayloadSeekReader;
use crate::{
    dek::Dek,
    error::Error,
    payload::{PayloadHeader, header::PayloadSalt, keys::Prk, oneshot},
};

fn key() -> PayloadKey {
    let salt = core::array::from_fn(|at| at as u8);
    payload_key(salt, &[9; Dek::LEN]).1
}

/// The header and the key of the payload with this salt under this DEK.
fn payload_key(salt: [u8; 32], dek: &[u8; Dek::LEN]) -> (PayloadHeader, PayloadKey) {
    let salt = PayloadSalt::from_drawn(salt).unwrap();
    let sealed = crate::cmk::CmkVersion::new("0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse().unwrap(), 0, &[7; 32])
        .unwrap()
        .seal(&crate::context::EncryptionContext::none(), &Dek::from_bytes(dek));
    let prk = Prk::extract(&Dek::from_bytes(dek));
    let (header, sealer) = NewPayload::with(&prk, &salt, |new| SegmentSealer::start(new, &sealed));
    (header, sealer.key)
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

/// The part of tests/vectors/payload.json that `tests/it` cannot test.
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
    let known_key = PayloadKey::new(&bytes(&vectors.segment_key));

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
        if v.last {
            let known_key = || PayloadKey::new(&bytes(&vectors.segment_key));
            let mut sealed = vec![0; plaintext.len() + TAG_LEN];
            let mut sealer = SegmentSealer::new(known_key());
            sealer.counter = Counter(v.index);
            sealer.seal_last(&plaintext, &mut sealed).unwrap();
            assert_eq!(hex::encode(&sealed), v.segment, "the sealer at {}", v.index);
            let mut opener = SegmentOpener::new(known_key());
            opener.counter = Counter(v.index);
            opener.open_last(&sealed, &mut vec![0; plaintext.len()]).unwrap();
        }
        if let Ok(index) = usize::try_from(v.index) {
            assert_eq!(oneshot::place(index, index).unwrap().index, v.index);
        }
    }
}

/// Counts from one index to the next, over each byte of the counter.
#[test]
fn a_sealer_and_an_opener_count_through_every_byte_of_the_index() {
    for index in [0, 0xff, 0xffff, 0xff_ffff, u32::MAX - 2] {
        let mut first = vec![7; SEALED_SEGMENT_LEN];
        let mut last = vec![0; 3 + TAG_LEN];
        let mut sealer = sealer_at(index);
        sealer.seal_in_place(first.first_chunk_mut().unwrap()).unwrap();
        sealer.seal_last(b"end", &mut last).unwrap();

        let mut expected = vec![7; SEALED_SEGMENT_LEN];
        key()
            .seal_in_place(Place { index, last: false }, &mut expected)
            .unwrap();
        assert!(first == expected, "{index}");
        let mut expected = vec![0; 3 + TAG_LEN];
        let next = Place {
            index: index + 1,
            last: true,
        };
        key().seal(next, b"end", &mut expected).unwrap();
        assert_eq!(last, expected, "after {index}");

        let mut opener = opener_at(index);
        opener.open_in_place(first.first_chunk_mut().unwrap()).unwrap();
        opener.open_last_in_place(&mut last).unwrap();
        assert_eq!(&last[..3], b"end");
    }
}

/// The longest possible payload. Each segment is computed when it is read.
#[cfg(feature = "std")]
struct Longest {
    position: u64,
}

#[cfg(feature = "std")]
impl Longest {
    const LAST: u32 = u32::MAX - 1;
    const PLAINTEXT_LEN: u64 = Self::LAST as u64 * SEGMENT_LEN as u64 + 5;

    /// The plaintext of a segment.
    fn plaintext(index: u32) -> Vec<u8> {
        let length = if index == Self::LAST { 5 } else { SEGMENT_LEN };
        index.to_le_bytes().into_iter().cycle().take(length).collect()
    }
}

#[cfg(feature = "std")]
#[expect(clippy::arithmetic_side_effects, reason = "an overflow would panic")]
impl std::io::Read for Longest {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        let behind_header = self.position - PayloadHeader::LEN as u64;
        let (index, within) = (
            behind_header / SEALED_SEGMENT_LEN as u64,
            behind_header % SEALED_SEGMENT_LEN as u64,
        );
        let index = u32::try_from(index).unwrap();
        let mut sealed = Self::plaintext(index);
        sealed.extend_from_slice(&[0; TAG_LEN]);
        let place = Place {
            index,
            last: index == Self::LAST,
        };
        key().seal_in_place(place, &mut sealed).unwrap();
        let rest = &sealed[usize::try_from(within).unwrap()..];
        let count = rest.len().min(room.len());
        room[..count].copy_from_slice(&rest[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(feature = "std")]
impl std::io::Seek for Longest {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.position = match to {
            std::io::SeekFrom::Start(position) => position,
            std::io::SeekFrom::End(0) => crate::payload::encrypted_len(Self::PLAINTEXT_LEN).unwrap(),
            _ => unreachable!("a reader seeks to its end or to a position"),
        };
        Ok(self.position)
    }
}

#[cfg(feature = "std")]
#[test]
fn a_seek_reader_reads_any_segment_of_the_longest_payload() {
    use std::io::{Read, Seek, SeekFrom};

    let mut reader = PayloadSeekReader::new(key(), Longest { position: 0 }).unwrap();
    for index in [
        0,
        0xff,
        0x100,
        0xffff,
        0x1_0000,
        0xff_ffff,
        0x100_0000,
        0x8000_0000,
        u32::MAX - 2,
    ] {
        reader
            .seek(SeekFrom::Start(u64::from(index) * SEGMENT_LEN as u64))
            .unwrap();
        // The segment and the first bytes of the next.
        let mut found = vec![0; SEGMENT_LEN + 4];
        reader.read_exact(&mut found).unwrap();
        assert!(found[..SEGMENT_LEN] == Longest::plaintext(index), "{index}");
        assert_eq!(found[SEGMENT_LEN..], (index + 1).to_le_bytes(), "after {index}");
    }
    assert_eq!(reader.seek(SeekFrom::End(-5)).unwrap(), Longest::PLAINTEXT_LEN - 5);
    let mut end = Vec::new();
    reader.read_to_end(&mut end).unwrap();
    assert_eq!(end, Longest::plaintext(Longest::LAST));
}
