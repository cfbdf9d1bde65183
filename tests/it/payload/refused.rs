//! Payloads that must be refused, for every way to read a payload.

use dekseal::{
    BlobRule, ErrorKind, PayloadRule, SealedDek,
    payload::{PayloadHeader, plaintext_len},
};

use super::file::File;
use crate::support::{Fixed, encrypt};

/// The expected error for the refused payload of this name.
fn expected(name: &str) -> ErrorKind {
    match name {
        "nothing" | "half a header" | "a header alone" | "an empty last segment after a full one" => {
            ErrorKind::NotAPayload(PayloadRule::Length)
        }
        "magic changed" => ErrorKind::NotAPayload(PayloadRule::Magic),
        "payload version 2" => ErrorKind::NotAPayload(PayloadRule::Version),
        name if name.starts_with("segment length ") => ErrorKind::NotAPayload(PayloadRule::SegmentLength),
        _ => ErrorKind::AuthenticationFailed,
    }
}

#[test]
fn every_known_refusal_is_refused_in_one_call() {
    let file = File::read();
    let (engine, key_id, context) = (file.engine(2), file.key_id(), file.context());
    assert_eq!(
        *engine.decrypt(&key_id, &context, &file.base()).unwrap(),
        file.base_plaintext()
    );
    assert_eq!(file.invalid().count(), 30);
    let mut reached = 0;
    for (name, payload) in file.invalid() {
        let kind = engine.decrypt(&key_id, &context, &payload).unwrap_err().kind();
        assert_eq!(kind, expected(name), "{name}");

        // A buffer of the right length for the payload, or of any length if none is right.
        let room = plaintext_len(payload.len() as u64).unwrap_or(100);
        let mut opened = vec![0xa5; usize::try_from(room).unwrap()];
        let header = payload.first_chunk().map(PayloadHeader::from_bytes);
        let payload_cipher = header.and_then(Result::ok).and_then(|header| {
            let opened = engine.open_payload_cipher(&key_id, &context, header.sealed_dek());
            opened.ok()
        });
        if let Some(payload_cipher) = payload_cipher {
            let refused = payload_cipher.decrypt_into(&payload, &mut opened).unwrap_err();
            assert_eq!(refused.kind(), expected(name), "{name}");
            reached += 1;
        }
        assert!(
            opened.iter().all(|byte| *byte == 0xa5) || opened.iter().all(|byte| *byte == 0),
            "{name}"
        );
    }
    assert!(reached > 15, "only {reached} came as far as a cipher");
}

/// Tests every place of a cut, and every kind of reader. The header stays complete: with less, nothing identifies a
/// payload.
#[test]
fn a_payload_that_was_cut_short_says_so() {
    let file = File::read();
    let (engine, key_id, context) = (file.engine(1), file.key_id(), file.context());
    let payload = file.base();
    let last = payload.len() - (payload.len() - 264) % 65552;
    let says = |how: &str, length: usize, error: &dyn std::fmt::Display| {
        let text = error.to_string();
        assert!(
            text.contains("truncated") && text.contains("never finished"),
            "{how}, {length}: {text}"
        );
    };
    for length in [
        263,
        264,
        279,
        280,
        281,
        264 + 65551,
        264 + 65552,
        264 + 65553,
        last,
        payload.len() - 1,
    ] {
        let cut = &payload[..length];
        says("decrypt", length, &engine.decrypt(&key_id, &context, cut).unwrap_err());
        #[cfg(feature = "std")]
        {
            use std::io::{Cursor, Read, Seek, SeekFrom};
            let read = engine.decrypt_reader(&key_id, &context, cut);
            let read = read.and_then(|mut reader| reader.read_to_end(&mut Vec::new()));
            says("reader", length, &read.unwrap_err());
            let sought = engine.decrypt_seek_reader(&key_id, &context, Cursor::new(cut));
            let sought = sought.and_then(|mut reader| reader.seek(SeekFrom::End(0)));
            says("seek reader", length, &sought.unwrap_err());
        }
    }
    // A changed segment in the middle, and a DEK of another context, are not reported as truncated.
    let mut changed = payload.clone();
    changed[264] ^= 1;
    let error = engine.decrypt(&key_id, &context, &changed).unwrap_err();
    assert_eq!(error.to_string(), "authentication failed");
}

#[test]
fn a_header_that_is_not_one_is_refused_for_its_reason() {
    let base = File::read().base();
    let kind = |at: usize, byte: u8| {
        let mut header: [u8; PayloadHeader::LEN] = *base.first_chunk().unwrap();
        header[at] = byte;
        PayloadHeader::from_bytes(&header).map_err(|error| error.kind())
    };
    for at in 0..7 {
        assert_eq!(kind(at, b'x'), Err(ErrorKind::NotAPayload(PayloadRule::Magic)), "{at}");
    }
    assert_eq!(kind(7, 0), Err(ErrorKind::NotAPayload(PayloadRule::Version)));
    for at in 8..12 {
        assert_eq!(
            kind(at, 9),
            Err(ErrorKind::NotAPayload(PayloadRule::SegmentLength)),
            "{at}"
        );
    }
    assert_eq!(kind(44, 3), Err(ErrorKind::NotABlob(BlobRule::Version)));
    assert_eq!(kind(44 + 116, b'X'), Err(ErrorKind::MalformedKeyId));
    assert_eq!(
        kind(44 + SealedDek::LEN - 1, base[44 + SealedDek::LEN - 1] ^ 1),
        Err(ErrorKind::DamagedBlob)
    );
}

/// The contexts have the same number of pairs of the same lengths.
#[test]
fn contexts_of_equal_length_are_different_contexts() {
    let engine = dekseal::Engine::new(crate::support::one_key());
    let key_id = crate::support::key_id(crate::support::KEY_ID);
    let bytes: Vec<u8> = (0..96).collect();
    let contexts = [("tenant", "42"), ("tenant", "43"), ("tenanu", "42")]
        .map(|pair| dekseal::EncryptionContext::from_pairs([pair]).unwrap());
    for (at, context) in contexts.iter().enumerate() {
        let payload = encrypt(&engine, &key_id, context, b"x", &mut Fixed(&bytes)).unwrap();
        for (other_at, other) in contexts.iter().enumerate() {
            let opened = engine.decrypt(&key_id, other, &payload);
            let refused = opened.err().map(|error| error.kind());
            assert_eq!(refused, (at != other_at).then_some(ErrorKind::AuthenticationFailed));
        }
    }
}

/// Flips each byte of the header and of the segments.
#[test]
fn no_flipped_byte_is_decrypted() {
    let file = File::read();
    let (engine, key_id, context) = (file.engine(2), file.key_id(), file.context());
    let randomness = file.base_randomness();
    let payload = encrypt(
        &file.engine(1),
        &key_id,
        &context,
        b"attack at dawn",
        &mut Fixed(&randomness),
    )
    .unwrap();
    for at in 0..payload.len() {
        for bit in 0..8 {
            let mut flipped = payload.clone();
            flipped[at] ^= 1 << bit;
            assert!(
                engine.decrypt(&key_id, &context, &flipped).is_err(),
                "byte {at}, bit {bit}"
            );
        }
    }
}

#[cfg(feature = "std")]
mod by_readers {
    use std::{
        collections::BTreeSet,
        io::{Cursor, Read, Seek, SeekFrom},
    };

    use dekseal::payload::{PayloadHeader, SEALED_SEGMENT_LEN, SEGMENT_LEN};

    use super::{File, expected};
    use crate::payload::inner::{Slow, kind_of, read_until_error};

    /// The number of bytes that a reader may return before the refusal: those of the leading segments that equal the
    /// base's, are at the same place, and are followed by more data.
    fn verified(base: &[u8], payload: &[u8]) -> usize {
        let same = |from: usize, to: usize| payload.len() > to && payload[from..to] == base[from..to];
        if !same(0, PayloadHeader::LEN) {
            return 0;
        }
        let full = (base.len() - PayloadHeader::LEN) / SEALED_SEGMENT_LEN;
        let ends = (1..=full).map(|count| PayloadHeader::LEN + count * SEALED_SEGMENT_LEN);
        ends.take_while(|end| same(end - SEALED_SEGMENT_LEN, *end)).count() * SEGMENT_LEN
    }

    #[test]
    fn every_known_refusal_is_refused_by_the_streaming_reader() {
        let file = File::read();
        let (engine, key_id, context) = (file.engine(2), file.key_id(), file.context());
        let (base, plaintext) = (file.base(), file.base_plaintext());
        for (name, payload) in file.invalid() {
            for cut in [1, 7, 1 << 20] {
                // With less room than a segment, and with more: these are two paths of the reader.
                for room in [1000, SEGMENT_LEN, 1 << 20] {
                    let made = engine.decrypt_reader(&key_id, &context, Slow::new(payload.as_slice(), cut));
                    let (opened, error) = match made {
                        Ok(mut reader) => read_until_error(&mut reader, room),
                        Err(error) => (Vec::new(), error),
                    };
                    let how = format!("{name}, reads of {cut} into {room}");
                    assert_eq!(kind_of(&error), Some(expected(name)), "{how}");
                    assert_eq!(opened.len(), verified(&base, &payload), "{how}");
                    assert_eq!(opened, plaintext[..opened.len()], "{how}");
                }
            }
        }
        // Not all of the numbers above are 0.
        let given: Vec<usize> = file.invalid().map(|(_, payload)| verified(&base, &payload)).collect();
        assert!(given.contains(&SEGMENT_LEN) && given.contains(&(2 * SEGMENT_LEN)));
    }

    #[test]
    fn every_known_refusal_is_refused_by_the_seeking_reader() {
        let file = File::read();
        let (engine, key_id, context) = (file.engine(2), file.key_id(), file.context());
        let (base, plaintext) = (file.base(), file.base_plaintext());
        let mut right_ends = BTreeSet::new();
        for (name, payload) in file.invalid() {
            for cut in [1, 7, 1 << 20] {
                let open = || engine.decrypt_seek_reader(&key_id, &context, Slow::new(Cursor::new(&payload), cut));
                let (opened, error) = match open() {
                    Ok(mut reader) => read_until_error(&mut reader, 1000),
                    Err(error) => (Vec::new(), error),
                };
                assert_eq!(kind_of(&error), Some(expected(name)), "{name}");
                assert!(opened.len() <= verified(&base, &payload), "{name}");
                assert_eq!(opened, plaintext[..opened.len()], "{name}");

                // B3.8: without a valid last segment at its place, there is no length, no end of file and no position
                // from the end. A caller that reads the data before it gets the error there.
                let Ok(mut reader) = open() else {
                    continue;
                };
                let last = base.len() - 21;
                let end_is_right = payload.len() == base.len() && payload[last..] == base[last..];
                assert_eq!(reader.plaintext_len().is_ok(), end_is_right, "{name}");
                assert_eq!(open().unwrap().seek(SeekFrom::End(0)).is_ok(), end_is_right, "{name}");
                let mut reader = open().unwrap();
                reader.seek(SeekFrom::Start(1 << 40)).unwrap();
                assert_eq!(reader.read(&mut [0; 10]).ok(), end_is_right.then_some(0), "{name}");
                if end_is_right {
                    right_ends.insert(name.to_owned());
                }
            }
        }
        assert_eq!(
            Vec::from_iter(right_ends),
            ["the last flag in the middle", "two segments exchanged"]
        );
    }
}
