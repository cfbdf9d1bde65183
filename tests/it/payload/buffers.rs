//! Lengths, and encryption and decryption into buffers of the caller.

use dekseal::{
    EncryptionContext, Engine, ErrorKind, PayloadRule, RandomnessFault,
    payload::{PayloadCipher, PayloadHeader, SEALED_SEGMENT_LEN, SEGMENT_LEN, TAG_LEN, encrypted_len, plaintext_len},
};

use super::file::plaintext;
use crate::support::{Failing, Fixed, KEY_ID, Repeating, encrypt, key_id, one_key};

const SEGMENT: u64 = 65536;
/// The longest plaintext: 2³² − 1 segments.
const LONGEST: u64 = (u32::MAX as u64) * SEGMENT;

/// 64 + 32 bytes, for a DEK and a payload salt.
pub(super) fn randomness() -> Vec<u8> {
    (0..96).collect()
}

pub(super) fn payload_cipher() -> PayloadCipher {
    let created = Engine::new(one_key()).create_payload_cipher_with_rng(
        &key_id(KEY_ID),
        &EncryptionContext::none(),
        &mut Fixed(&randomness()[..64]),
    );
    created.unwrap()
}

/// A payload of `plaintext` under that data key.
pub(super) fn payload(plaintext: &[u8]) -> Vec<u8> {
    payload_cipher()
        .encrypt_with_rng(plaintext, &mut Fixed(&randomness()[64..]))
        .unwrap()
}

#[test]
fn lengths_are_those_of_the_format() {
    // B3.5: 264 + P + 16 · max(1, ⌈P / 65536⌉)
    for (plaintext, segments) in [
        (0, 1),
        (1, 1),
        (SEGMENT - 1, 1),
        (SEGMENT, 1),
        (SEGMENT + 1, 2),
        (2 * SEGMENT, 2),
        (2 * SEGMENT + 1, 3),
        (LONGEST - SEGMENT, u64::from(u32::MAX) - 1),
        (LONGEST - SEGMENT + 1, u64::from(u32::MAX)),
        (LONGEST, u64::from(u32::MAX)),
    ] {
        let encrypted = 264 + plaintext + 16 * segments;
        assert_eq!(encrypted_len(plaintext), Some(encrypted));
        assert_eq!(plaintext_len(encrypted), Some(plaintext));
    }
    for too_long in [
        LONGEST + 1,
        LONGEST + SEGMENT,
        u64::MAX - SEGMENT,
        u64::MAX - 1,
        u64::MAX,
    ] {
        assert_eq!(encrypted_len(too_long), None, "{too_long}");
    }
    let longest = encrypted_len(LONGEST).unwrap();
    for too_long in (1..40).map(|more| longest + more).chain(u64::MAX - 40..=u64::MAX) {
        assert_eq!(plaintext_len(too_long), None, "{too_long}");
    }
}

#[test]
fn an_impossible_payload_length_has_no_plaintext_length() {
    let full = PayloadHeader::LEN + SEALED_SEGMENT_LEN;
    let around = (0..2000)
        .chain(full - 300..full + 300)
        .chain(2 * SEALED_SEGMENT_LEN..2 * SEALED_SEGMENT_LEN + 600);
    for length in around {
        let inverse = plaintext_len(length as u64);
        // Tries all candidates for the inverse: lengths up to 400 shorter.
        let candidates = length.saturating_sub(400)..=length;
        let found = candidates
            .map(|plaintext| plaintext as u64)
            .find(|plaintext| encrypted_len(*plaintext) == Some(length as u64));
        assert_eq!(inverse, found, "{length}");
    }
}

#[test]
fn a_buffer_has_the_right_length_or_is_refused() {
    let payload_cipher = payload_cipher();
    for length in [0, 1, 100, SEGMENT_LEN, SEGMENT_LEN + 1] {
        let plaintext = plaintext(length);
        let payload = payload(&plaintext);
        for wrong in [0, payload.len() - 1, payload.len() + 1, payload.len() + 16] {
            let mut room = vec![0xa5; wrong];
            let refused = payload_cipher.encrypt_into_with_rng(&plaintext, &mut room, &mut Fixed(&randomness()));
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::BufferLength);
            assert!(room.iter().all(|byte| *byte == 0xa5), "something was written");
        }
        for wrong in [length.wrapping_sub(1), length + 1, length + 16] {
            if wrong > 1 << 20 {
                continue;
            }
            let mut room = vec![0xa5; wrong];
            let refused = payload_cipher.decrypt_into(&payload, &mut room);
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::BufferLength);
            assert!(room.iter().all(|byte| *byte == 0xa5), "something was written");
        }
    }
}

/// The plaintext is long enough for the parallel path.
#[test]
fn a_failed_decryption_leaves_no_plaintext() {
    let payload_cipher = payload_cipher();
    for segments in [3, 20] {
        let plaintext = plaintext(segments * SEGMENT_LEN);
        let payload = payload(&plaintext);
        for broken in [0, segments / 2, segments - 1] {
            let mut payload = payload.clone();
            payload[PayloadHeader::LEN + broken * SEALED_SEGMENT_LEN + 77] ^= 1;
            let mut room = vec![0xa5; plaintext.len()];
            let refused = payload_cipher.decrypt_into(&payload, &mut room);
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::AuthenticationFailed);
            assert!(room.iter().all(|byte| *byte == 0), "segment {broken} of {segments}");
        }
    }
}

#[test]
fn input_that_is_no_payload_leaves_the_buffer_unchanged() {
    let payload_cipher = payload_cipher();
    let mut payload = payload(b"attack at dawn");
    let mut room = [0xa5; 14];
    for (at, kind) in [
        (0, ErrorKind::NotAPayload(PayloadRule::Magic)),
        (PayloadHeader::LEN - 1, ErrorKind::AuthenticationFailed),
    ] {
        payload[at] ^= 1;
        assert_eq!(
            payload_cipher.decrypt_into(&payload, &mut room).unwrap_err().kind(),
            kind
        );
        assert_eq!(room, [0xa5; 14]);
        payload[at] ^= 1;
    }
    payload_cipher.decrypt_into(&payload, &mut room).unwrap();
    assert_eq!(&room, b"attack at dawn");
}

/// Numbers of segments on both sides of the limit for the parallel path.
#[test]
fn a_long_payload_is_the_same_by_every_way() {
    let payload_cipher = payload_cipher();
    for length in [15, 16, 17, 40].map(|segments| segments * SEGMENT_LEN + 11) {
        let plaintext = plaintext(length);
        let payload = payload(&plaintext);
        let (header, mut sealer) = payload_cipher.sealer_with_rng(&mut Fixed(&randomness()[64..])).unwrap();
        let mut expected = header.to_bytes().to_vec();
        let mut segment = [0; SEALED_SEGMENT_LEN];
        for full in plaintext.chunks_exact(SEGMENT_LEN) {
            sealer.seal(full.try_into().unwrap(), &mut segment).unwrap();
            expected.extend_from_slice(&segment);
        }
        sealer
            .seal_last(&plaintext[length - 11..], &mut segment[..11 + TAG_LEN])
            .unwrap();
        expected.extend_from_slice(&segment[..11 + TAG_LEN]);
        assert!(payload == expected, "{length}");
        assert!(*payload_cipher.decrypt(&payload).unwrap() == plaintext, "{length}");
    }
}

#[test]
fn a_random_source_that_fails_or_is_stuck_gives_no_payload() {
    let (engine, key_id, none) = (Engine::new(one_key()), key_id(KEY_ID), EncryptionContext::none());
    let failed = ErrorKind::Randomness(RandomnessFault::Failed);
    let stuck = ErrorKind::Randomness(RandomnessFault::Stuck);
    let kind = |result: Result<Vec<u8>, dekseal::Error>| result.unwrap_err().kind();

    assert_eq!(kind(encrypt(&engine, &key_id, &none, b"x", &mut Failing)), failed);
    assert_eq!(kind(payload_cipher().encrypt_with_rng(b"x", &mut Failing)), failed);
    // 64 bytes for the DEK, then 32 for the salt. One byte less is not enough.
    assert_eq!(
        kind(encrypt(&engine, &key_id, &none, b"x", &mut Fixed(&randomness()[..95]))),
        failed
    );
    assert_eq!(
        kind(payload_cipher().encrypt_with_rng(b"x", &mut Fixed(&randomness()[..31]))),
        failed
    );

    for period in [&[0; 1][..], &[1, 2, 3, 4], &[7; 16]] {
        assert_eq!(
            kind(payload_cipher().encrypt_with_rng(b"x", &mut Repeating(period))),
            stuck
        );
    }
    let mut good_dek_then_stuck = randomness();
    good_dek_then_stuck[64..].fill(9);
    assert_eq!(
        kind(encrypt(&engine, &key_id, &none, b"x", &mut Fixed(&good_dek_then_stuck))),
        stuck
    );
    // Halves that differ in one bit pass.
    let mut salt = [9; 32];
    salt[31] ^= 0x80;
    assert!(payload_cipher().encrypt_with_rng(b"x", &mut Fixed(&salt)).is_ok());
}

#[test]
fn a_header_says_what_a_payload_is_sealed_under() {
    let payload = payload(b"attack at dawn");
    let header = PayloadHeader::from_bytes(payload.first_chunk().unwrap()).unwrap();
    assert_eq!(header.sealed_dek(), payload_cipher().sealed_dek());
    assert_eq!(header.sealed_dek().key_id(), key_id(KEY_ID));
}

#[cfg(feature = "std")]
#[test]
fn payloads_of_one_dek_differ_in_their_salt() {
    let payload_cipher = payload_cipher();
    let payloads: Vec<_> = (0..50).map(|_| payload_cipher.encrypt(b"same").unwrap()).collect();
    for (at, payload) in payloads.iter().enumerate() {
        assert_eq!(payload[44..232], payloads[0][44..232], "the sealed DEK is the same");
        assert_eq!(*payload_cipher.decrypt(payload).unwrap(), b"same");
        for other in &payloads[..at] {
            assert_ne!(payload[12..44], other[12..44], "the payload salt");
            assert_ne!(payload[232..], other[232..], "commitment and segment");
        }
    }
    // Each payload opens by itself, and not with another DEK.
    let engine = Engine::new(one_key());
    let opened = engine.decrypt(&key_id(KEY_ID), &EncryptionContext::none(), &payloads[3]);
    assert_eq!(*opened.unwrap(), b"same");
    let other = engine
        .create_payload_cipher(&key_id(KEY_ID), &EncryptionContext::none())
        .unwrap();
    assert_eq!(
        other.decrypt(&payloads[0]).unwrap_err().kind(),
        ErrorKind::AuthenticationFailed
    );
}

#[test]
fn many_threads_share_a_data_key() {
    fn shared<T: Send + Sync>() {}
    shared::<PayloadCipher>();
    shared::<PayloadHeader>();
    shared::<dekseal::payload::SegmentSealer>();
    shared::<dekseal::payload::SegmentOpener>();
}

#[test]
fn secrets_are_wiped_on_drop() {
    fn wiped<T: zeroize::ZeroizeOnDrop>() {}
    wiped::<PayloadCipher>();
    // ring does not wipe its keys.
    #[cfg(not(feature = "ring"))]
    {
        wiped::<dekseal::payload::SegmentSealer>();
        wiped::<dekseal::payload::SegmentOpener>();
    }
}

/// Functions that draw from the operating system behave as with a caller's generator, and never give the same result
/// twice.
#[cfg(feature = "std")]
#[test]
fn the_system_is_a_source_of_randomness() {
    let (engine, id, none) = (Engine::new(one_key()), key_id(KEY_ID), EncryptionContext::none());
    let plaintext = plaintext(100_000);
    let length = usize::try_from(encrypted_len(100_000).unwrap()).unwrap();
    let payload_cipher = engine.create_payload_cipher(&id, &none).unwrap();
    let mut into_buffer = vec![0; length];
    payload_cipher.encrypt_into(&plaintext, &mut into_buffer).unwrap();
    let mut writer = engine.encrypt_writer(&id, &none, Vec::new()).unwrap();
    std::io::Write::write_all(&mut writer, &plaintext).unwrap();
    let (header, sealer) = payload_cipher.sealer().unwrap();
    let mut segment = vec![0; TAG_LEN];
    sealer.seal_last(&[], &mut segment).unwrap();
    let empty = [header.to_bytes().as_slice(), &segment].concat();
    let payloads = [
        writer.finish().unwrap(),
        into_buffer,
        engine.encrypt(&id, &none, &plaintext).unwrap(),
        payload_cipher.encrypt(&plaintext).unwrap(),
    ];
    let mut salts = vec![empty[12..44].to_vec()];
    for payload in &payloads {
        assert_eq!(*engine.decrypt(&id, &none, payload).unwrap(), plaintext);
        salts.push(payload[12..44].to_vec());
    }
    assert_eq!(*engine.decrypt(&id, &none, &empty).unwrap(), b"");
    salts.sort();
    salts.dedup();
    assert_eq!(salts.len(), 5);
}
