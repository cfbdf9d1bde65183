//! Random sources that fail, that are stuck, and that give known bytes.

use dekseal::{Dek, EncryptionContext, Engine, ErrorKind, RandomnessFault};

use crate::support::{Failing, Fixed, KEY_ID, Repeating, key_id, one_key};

#[test]
fn a_failing_source_gives_an_error_and_no_blob() {
    let (engine, id, none) = (Engine::new(one_key()), key_id(KEY_ID), EncryptionContext::none());
    let failed = ErrorKind::Randomness(RandomnessFault::Failed);
    assert_eq!(Dek::generate_with_rng(&mut Failing).unwrap_err().kind(), failed);
    assert_eq!(
        engine.create_dek_with_rng(&id, &none, &mut Failing).unwrap_err().kind(),
        failed
    );
    let sealed = engine.create_dek_without_plaintext_with_rng(&id, &none, &mut Failing);
    assert_eq!(sealed.unwrap_err().kind(), failed);
    // 63 bytes are no DEK.
    assert_eq!(Dek::generate_with_rng(&mut Fixed(&[1; 63])).unwrap_err().kind(), failed);
}

#[test]
fn a_stuck_source_gives_an_error() {
    let stuck = ErrorKind::Randomness(RandomnessFault::Stuck);
    let counting: Vec<u8> = (0..32).collect();
    // One byte over and over, a word, and 32 bytes: two equal halves each.
    for period in [&[0; 1][..], &[0xff; 1], &[1, 2, 3, 4], &counting] {
        assert_eq!(
            Dek::generate_with_rng(&mut Repeating(period)).unwrap_err().kind(),
            stuck,
            "{period:?}"
        );
    }
    let engine = Engine::new(one_key());
    let created = engine.create_dek_with_rng(&key_id(KEY_ID), &EncryptionContext::none(), &mut Repeating(&[0]));
    assert_eq!(created.unwrap_err().kind(), stuck);
}

#[test]
fn halves_that_differ_in_one_bit_pass() {
    for bit in [0, 100, 255] {
        let mut bytes = [0x5a; 64];
        bytes[32 + bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            Dek::generate_with_rng(&mut Fixed(&bytes)).unwrap().expose_secret(),
            &bytes
        );
    }
}
