//! The hot path allocates nothing, and the wire API little.

use allocation_counter::measure;
use dekseal::{EncryptionContext, Engine, SealedDek};

use crate::support::{Fixed, KEY_ID, cmk, dek, key_id, one_key};

/// How many allocations `f` makes, on this thread.
fn allocations<T>(f: impl FnOnce() -> T) -> u64 {
    measure(|| drop(f())).count_total
}

#[test]
fn the_count_counts() {
    assert_eq!(allocations(|| std::hint::black_box(vec![1])), 1);
}

#[test]
fn nothing_between_a_dek_and_its_blob_allocates() {
    let (id, cmk, engine, dek) = (
        key_id(KEY_ID),
        cmk(KEY_ID, 0, &[7; 32]),
        Engine::new(one_key()),
        dek(&"5a".repeat(64)),
    );
    let random: Vec<u8> = (0..200 * 64_u32).map(|at| (at * at / 7) as u8).collect();
    // None, a short one, and the longest, which takes the large buffer.
    let long = "\u{1f511}".repeat(4000);
    let contexts = [
        EncryptionContext::none(),
        EncryptionContext::from_pairs([("tenant", "42")]).unwrap(),
        EncryptionContext::from_pairs([("a", &long), ("b", &long)]).unwrap(),
    ];
    for context in &contexts {
        let sealed = cmk.seal(context, &dek);
        let mut slots: Vec<_> = (0..100).map(|_| None).collect();
        // What a thread does once it does before it is counted.
        let opened = engine.decrypt_dek(&id, context, &sealed).unwrap();
        assert!(opened == dek);

        assert_eq!(allocations(|| cmk.seal(context, &dek)), 0);
        assert_eq!(allocations(|| cmk.open(context, &sealed)), 0);
        assert_eq!(allocations(|| cmk.open(&EncryptionContext::none(), &sealed)), 0);
        assert_eq!(allocations(|| SealedDek::from_bytes(sealed.as_bytes())), 0);
        assert_eq!(
            allocations(|| engine.create_dek_with_rng(&id, context, &mut Fixed(&random))),
            0
        );
        assert_eq!(
            allocations(|| engine.create_dek_without_plaintext_with_rng(&id, context, &mut Fixed(&random))),
            0
        );
        assert_eq!(
            allocations(|| engine.create_deks_with_rng(&id, context, &mut slots, &mut Fixed(&random))),
            0
        );
        assert_eq!(allocations(|| engine.encrypt_dek(&id, context, &dek)), 0);
        assert_eq!(allocations(|| engine.decrypt_dek(&id, context, &sealed)), 0);
        assert_eq!(allocations(|| engine.decrypt_dek_under_any_key(context, &sealed)), 0);
        #[cfg(feature = "std")]
        assert_eq!(allocations(|| engine.create_dek(&id, context)), 0);
    }
}

/// The pairs that come in, the same put in order, and the canonical form.
#[test]
fn a_context_allocates_three_times() {
    let pairs = [("tenant", "42"), ("purpose", "backup"), ("a", ""), ("b", "c")];
    assert_eq!(allocations(|| EncryptionContext::from_pairs(pairs)), 3);
    assert_eq!(allocations(EncryptionContext::none), 0);
}

#[cfg(feature = "json")]
#[test]
fn a_request_allocates_twelve_times_at_most() {
    use dekseal::{Dek, api};
    use sha2::{Digest, Sha256};

    let engine = Engine::new(one_key());
    let context = EncryptionContext::from_pairs([("tenant", "42"), ("purpose", "backup")]).unwrap();
    let bytes: [u8; 64] = core::array::from_fn(|at| at as u8);
    let sealed = engine
        .encrypt_dek(&key_id(KEY_ID), &context, &Dek::from_bytes(&bytes))
        .unwrap();
    let (cipher, plain) = (
        hex::encode(sealed),
        hex::encode(bytes) + &hex::encode(Sha256::digest(bytes)),
    );
    for (operation, fields) in [
        ("create-datakey", r#""datakey_length":"512""#.to_owned()),
        (
            "create-datakey-without-plaintext",
            r#""datakey_length":"512""#.to_owned(),
        ),
        (
            "encrypt-datakey",
            format!(r#""datakey_plain_length":"64","plain_text":"{plain}""#),
        ),
        (
            "decrypt-datakey",
            format!(r#""datakey_cipher_length":"64","cipher_text":"{cipher}""#),
        ),
    ] {
        // Every field that there is.
        let body = format!(
            r#"{{"key_id":"{KEY_ID}",{fields},"sequence":"919c82d4-8046-4722-9094-35c3c6524cff","encryption_context":{{"tenant":"42","purpose":"backup"}}}}"#
        );
        let path = format!("/v1.0/p/kms/{operation}");
        let mut status = 0;
        let count = allocations(|| {
            status = api::handle_with_rng(&engine, "POST", &path, body.as_bytes(), &mut Fixed(&bytes)).status();
        });
        assert_eq!(status, 200, "{operation}");
        assert!(count <= 12, "{operation}: {count} allocations");
    }
}
