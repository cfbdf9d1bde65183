//! Properties of any plaintext, any way to cut it, and any sequence of calls.

use std::io::{BufRead, Cursor, Read, Seek, SeekFrom, Write};

use dekseal::payload::{SEGMENT_LEN, encrypted_len, plaintext_len};
use proptest::prelude::*;

use super::{
    buffers::{payload, payload_cipher, randomness},
    file::plaintext,
    inner::Slow,
};
use crate::support::Fixed;

/// Lengths, mostly near the boundaries of segments.
fn lengths() -> impl Strategy<Value = usize> {
    let boundary =
        (0..4_usize, 0..5_usize).prop_map(|(segments, over)| (segments * SEGMENT_LEN + over).saturating_sub(2));
    prop_oneof![3 => boundary, 1 => 0..3000_usize, 1 => 0..4 * SEGMENT_LEN]
}

/// The lengths of single writes or reads.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    let cut = prop_oneof![
        1..100_usize,
        Just(8192),
        SEGMENT_LEN - 2..=SEGMENT_LEN + 2,
        2 * SEGMENT_LEN - 1..=2 * SEGMENT_LEN + 1,
        1..300_000_usize,
    ];
    prop::collection::vec(cut, 1..20)
}

#[derive(Clone, Debug)]
enum Action {
    Read(usize),
    /// Reads the available bytes without a copy, and consumes this many.
    Take(usize),
    Seek(SeekFrom),
    Length,
}

fn actions(length: usize) -> impl Strategy<Value = Vec<Action>> {
    let length = length as i64;
    let around = |span: i64| {
        prop_oneof![
            -span - 3..=span + 3,
            (0..=4_i64, -2..=2_i64).prop_map(|(segments, over)| segments * SEGMENT_LEN as i64 + over),
        ]
    };
    let action = prop_oneof![
        4 => prop_oneof![0..100_usize, Just(SEGMENT_LEN), 0..200_000_usize].prop_map(Action::Read),
        1 => prop_oneof![0..100_usize, 0..100_000_usize].prop_map(Action::Take),
        2 => around(length).prop_map(|at| Action::Seek(SeekFrom::Start(at.unsigned_abs()))),
        2 => around(length).prop_map(|by| Action::Seek(SeekFrom::Current(by))),
        2 => around(length).prop_map(|by| Action::Seek(SeekFrom::End(-by))),
        1 => Just(Action::Length),
    ];
    prop::collection::vec(action, 1..30)
}

proptest! {
    // Without optimization, each case takes some milliseconds for each segment.
    #![proptest_config(ProptestConfig {
        cases: if cfg!(debug_assertions) { 30 } else { 500 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_cut_into_writes_gives_the_same_bytes(length in lengths(), cuts in cuts(), flush in any::<bool>()) {
        let plaintext = plaintext(length);
        let mut writer = payload_cipher().encrypt_writer_with_rng(Vec::new(), &mut Fixed(&randomness()[64..])).unwrap();
        let (mut rest, mut cuts) = (plaintext.as_slice(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            writer.write_all(piece).unwrap();
            if flush {
                writer.flush().unwrap();
            }
            rest = behind;
        }
        prop_assert!(writer.finish().unwrap() == payload(&plaintext));
    }

    #[test]
    fn any_cut_into_reads_gives_the_plaintext(length in lengths(), cuts in cuts(), slow in cuts()) {
        let plaintext = plaintext(length);
        let payload = payload(&plaintext);
        prop_assert_eq!(encrypted_len(length as u64), Some(payload.len() as u64));
        prop_assert_eq!(plaintext_len(payload.len() as u64), Some(length as u64));
        prop_assert!(*payload_cipher().decrypt(&payload).unwrap() == plaintext);

        let mut reader = payload_cipher().decrypt_reader(Slow::new(payload.as_slice(), slow[0])).unwrap();
        let mut opened = Vec::new();
        for cut in cuts.iter().cycle() {
            let from = opened.len();
            opened.resize(from + cut, 0);
            let count = reader.read(&mut opened[from..]).unwrap();
            opened.truncate(from + count);
            if count == 0 {
                break;
            }
        }
        prop_assert!(opened == plaintext);
    }

    /// Behaves as a cursor over the plaintext does: in data, position and errors.
    #[test]
    fn any_way_through_is_that_of_a_cursor(
        (length, actions) in lengths().prop_flat_map(|length| (Just(length), actions(length)))
    ) {
        let plaintext = plaintext(length);
        let mut reader = payload_cipher().decrypt_seek_reader(Cursor::new(payload(&plaintext))).unwrap();
        let mut cursor = Cursor::new(plaintext);
        for action in actions {
            match action {
                Action::Read(count) => {
                    let (mut ours, mut plain) = (vec![0; count], vec![0; count]);
                    // One call returns at most one segment, so the same length is requested from the cursor.
                    let given = reader.read(&mut ours).unwrap();
                    let known = cursor.read(&mut plain[..given]).unwrap();
                    prop_assert!(given == known && ours == plain, "{count} bytes");
                    let at_end = cursor.position() >= length as u64;
                    prop_assert!(given > 0 || count == 0 || at_end, "an end before the end");
                }
                Action::Take(count) => {
                    let ours = reader.fill_buf().unwrap();
                    let plain = cursor.fill_buf().unwrap();
                    prop_assert!(plain.starts_with(ours) && ours.is_empty() == plain.is_empty());
                    let count = count.min(ours.len());
                    reader.consume(count);
                    cursor.consume(count);
                }
                Action::Seek(to) => {
                    let (ours, plain) = (reader.seek(to), cursor.seek(to));
                    prop_assert_eq!(ours.map_err(|error| error.kind()), plain.map_err(|error| error.kind()));
                }
                Action::Length => prop_assert_eq!(reader.plaintext_len().unwrap(), length as u64),
            }
            prop_assert_eq!(reader.stream_position().unwrap(), cursor.position());
        }
    }

    /// If any byte is changed, one-shot decryption fails, and a reader returns only complete segments of the plaintext
    /// before it fails.
    #[test]
    fn any_changed_byte_is_refused(length in lengths(), at in any::<prop::sample::Index>(), by in 1..=255_u8) {
        let plaintext = plaintext(length);
        let mut payload = payload(&plaintext);
        let at = at.index(payload.len());
        payload[at] ^= by;
        // A payload cipher does not read the sealed DEK. Its checksum alone makes the header invalid.
        prop_assert!(payload_cipher().decrypt(&payload).is_err(), "byte {}", at);

        let mut opened = Vec::new();
        let reader = payload_cipher().decrypt_reader(payload.as_slice());
        let read = reader.and_then(|mut reader| reader.read_to_end(&mut opened));
        prop_assert!(read.is_err());
        prop_assert!(opened == plaintext[..opened.len()] && opened.len() % SEGMENT_LEN == 0);
    }

    #[test]
    fn lengths_are_inverse(length in any::<u64>()) {
        prop_assert_eq!(encrypted_len(length).and_then(plaintext_len), encrypted_len(length).map(|_| length));
        if let Some(plaintext) = plaintext_len(length) {
            prop_assert_eq!(encrypted_len(plaintext), Some(length));
        }
    }
}
