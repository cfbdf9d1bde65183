//! Sealed DEKs: known answers, invalid blobs, and every way to change one.

use std::collections::BTreeMap;

use dekseal::{BlobRule, EncryptionContext, Engine, ErrorKind, MemoryKeyring, SealedDek};
use serde::Deserialize;

use crate::support::{Fixed, KEY_ID, OTHER_KEY_ID, SealedVector, cmk, context, dek, key_id, vectors, with_checksum};

#[test]
fn every_known_answer_is_sealed_and_opened_to_the_byte() {
    let vectors: Vec<SealedVector> = vectors("blob");
    assert_eq!(vectors.len(), 25);
    for v in vectors {
        let cmk = cmk(&v.key_id, v.key_version, &hex::decode(&v.material).unwrap());
        let (context, dek) = (context(&v.context), dek(&v.dek));

        let sealed = cmk.seal(&context, &dek);
        assert_eq!(hex::encode(sealed.as_bytes()), v.blob, "{}", v.name);
        assert_eq!(sealed.key_id().as_str(), v.key_id, "{}", v.name);
        assert_eq!(sealed.key_version(), v.key_version, "{}", v.name);

        let known = SealedDek::from_bytes(&hex::decode(&v.blob).unwrap()).unwrap();
        assert!(cmk.open(&context, &known).unwrap() == dek, "{}", v.name);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InvalidFile {
    keys: Vec<Key>,
    valid: Valid,
    invalid: Vec<Invalid>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    key_id: String,
    key_version: u32,
    material: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Valid {
    blob: String,
    context: BTreeMap<String, String>,
    key_id: String,
    dek: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invalid {
    name: String,
    blob: String,
    context: BTreeMap<String, String>,
    expected_key_id: String,
    error: String,
}

fn invalid_file() -> (Engine<MemoryKeyring>, Valid, Vec<Invalid>) {
    let file: InvalidFile = vectors("blob_invalid");
    let cmks = file
        .keys
        .iter()
        .map(|key| cmk(&key.key_id, key.key_version, &hex::decode(&key.material).unwrap()));
    let engine = Engine::new(MemoryKeyring::from_versions(cmks).unwrap());
    (engine, file.valid, file.invalid)
}

#[test]
fn every_known_refusal_is_refused_for_its_reason() {
    let (engine, valid, invalid) = invalid_file();

    let sealed = SealedDek::from_bytes(&hex::decode(&valid.blob).unwrap()).unwrap();
    let opened = engine.decrypt_dek(&key_id(&valid.key_id), &context(&valid.context), &sealed);
    assert!(opened.unwrap() == dek(&valid.dek));

    assert_eq!(invalid.len(), 61);
    for v in invalid {
        let kind = SealedDek::from_bytes(&hex::decode(&v.blob).unwrap())
            .and_then(|sealed| engine.decrypt_dek(&key_id(&v.expected_key_id), &context(&v.context), &sealed))
            .expect_err(&v.name)
            .kind();
        let name = match kind {
            ErrorKind::NotABlob(_) => "blob",
            ErrorKind::MalformedKeyId => "key_id",
            ErrorKind::DamagedBlob => "checksum",
            ErrorKind::KeyMismatch => "key_mismatch",
            ErrorKind::UnknownKey => "unknown_key",
            ErrorKind::UnknownKeyVersion => "unknown_version",
            ErrorKind::AuthenticationFailed => "authentication",
            other => panic!("{}: {other:?}", v.name),
        };
        assert_eq!(name, v.error, "{}", v.name);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Samples {
    #[serde(rename = "source")]
    _source: String,
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    operation: String,
    cipher_text: String,
    bytes: usize,
    key_id: String,
}

#[test]
fn published_samples_have_the_frame_and_do_not_open() {
    let file: Samples = vectors("public_samples");
    assert_eq!(
        file.samples
            .iter()
            .filter(|sample| sample.bytes == SealedDek::LEN)
            .count(),
        3
    );
    for sample in file.samples {
        let bytes = hex::decode(&sample.cipher_text).unwrap();
        assert_eq!(bytes.len(), sample.bytes);
        let parsed = SealedDek::from_bytes(&bytes);
        if sample.bytes != SealedDek::LEN {
            assert_eq!(
                parsed.unwrap_err().kind(),
                ErrorKind::NotABlob(BlobRule::Length),
                "{}",
                sample.operation
            );
            continue;
        }
        let sealed = parsed.unwrap();
        assert_eq!(sealed.key_id().as_str(), sample.key_id, "{}", sample.operation);
        assert_eq!(sealed.key_version(), 0, "{}", sample.operation);
        assert_eq!(hex::encode_upper(sealed.as_bytes()), sample.cipher_text);

        let opened = cmk(&sample.key_id, 0, &[7; 32]).open(&EncryptionContext::none(), &sealed);
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::AuthenticationFailed);
    }
}

/// A blob under version 0, and an engine that also has version 1, with other material.
fn sealed() -> (Engine<MemoryKeyring>, EncryptionContext, [u8; 188]) {
    let context = EncryptionContext::from_pairs([("tenant", "42")]).unwrap();
    let blob = *cmk(KEY_ID, 0, &[7; 32])
        .seal(&context, &dek(&"5a".repeat(64)))
        .as_bytes();
    let cmks = [cmk(KEY_ID, 0, &[7; 32]), cmk(KEY_ID, 1, &[8; 32])];
    (Engine::new(MemoryKeyring::from_versions(cmks).unwrap()), context, blob)
}

/// Flips each bit of a blob in turn. The error must be one that is expected for the byte.
fn flip_every_bit(repair: fn([u8; 188]) -> [u8; 188], expected: impl Fn(usize, &[u8; 188]) -> Vec<ErrorKind>) {
    let (engine, context, blob) = sealed();
    let key_id = key_id(KEY_ID);
    for bit in 0..8 * 188 {
        let mut flipped = blob;
        flipped[bit / 8] ^= 1 << (bit % 8);
        let flipped = repair(flipped);
        if flipped == blob {
            assert!(bit / 8 >= 156, "bit {bit}: repairing the checksum undid another flip");
            continue;
        }
        let kind = SealedDek::from_bytes(&flipped)
            .and_then(|sealed| engine.decrypt_dek(&key_id, &context, &sealed))
            .map_or_else(|error| error.kind(), |_| panic!("bit {bit}: it opened"));
        assert!(expected(bit / 8, &flipped).contains(&kind), "bit {bit}: {kind:?}");
    }
}

/// The rules of the frame are checked before the checksum.
fn frame_error(byte: usize, flipped: &[u8; 188]) -> Option<ErrorKind> {
    match byte {
        0..2 => Some(ErrorKind::NotABlob(BlobRule::Version)),
        2..4 => Some(ErrorKind::NotABlob(BlobRule::BodyLength)),
        116..152 => {
            let id = &flipped[116..152];
            let well_formed = id.iter().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => *byte == b'-',
                _ => matches!(byte, b'0'..=b'9' | b'a'..=b'z'),
            });
            (!well_formed).then_some(ErrorKind::MalformedKeyId)
        }
        _ => None,
    }
}

#[test]
fn no_flipped_bit_passes_the_checksum() {
    flip_every_bit(
        |blob| blob,
        |byte, flipped| vec![frame_error(byte, flipped).unwrap_or(ErrorKind::DamagedBlob)],
    );
}

#[test]
fn no_flipped_bit_opens_with_the_checksum_repaired() {
    flip_every_bit(with_checksum, |byte, flipped| {
        match (frame_error(byte, flipped), byte) {
            (Some(kind), _) => vec![kind],
            (None, 116..152) => vec![ErrorKind::KeyMismatch],
            // One of the neighbouring versions exists, with other material.
            (None, 152..156) => vec![ErrorKind::UnknownKeyVersion, ErrorKind::AuthenticationFailed],
            (None, _) => vec![ErrorKind::AuthenticationFailed],
        }
    });
}

#[test]
fn no_other_length_is_a_blob() {
    let (_, _, blob) = sealed();
    for length in 0..=400 {
        let bytes: Vec<u8> = blob.iter().copied().cycle().take(length).collect();
        let kind = SealedDek::from_bytes(&bytes).map_err(|error| error.kind());
        match length {
            188 => assert_eq!(kind.unwrap().as_bytes(), bytes.as_slice()),
            _ => assert_eq!(
                kind.unwrap_err(),
                ErrorKind::NotABlob(BlobRule::Length),
                "{length} bytes"
            ),
        }
    }
}

/// "The first step that fails ends it": each step of A5 is broken together with all later ones.
#[test]
fn the_first_step_that_fails_names_the_error() {
    type Break = fn(&mut [u8; 188]);
    let steps: [(ErrorKind, Break); 7] = [
        (ErrorKind::NotABlob(BlobRule::Version), |blob| blob[0] = 3),
        (ErrorKind::NotABlob(BlobRule::BodyLength), |blob| blob[2] = 153),
        (ErrorKind::MalformedKeyId, |blob| blob[120] = b'A'),
        // Each entry breaks one of the later steps.
        (ErrorKind::DamagedBlob, |_| {}),
        (ErrorKind::KeyMismatch, |blob| {
            blob[116..152].copy_from_slice(OTHER_KEY_ID.as_bytes())
        }),
        (ErrorKind::UnknownKeyVersion, |blob| blob[152] = 9),
        (ErrorKind::AuthenticationFailed, |blob| blob[4] ^= 1),
    ];
    let (engine, context, good) = sealed();
    for (first, (expected, _)) in steps.iter().enumerate() {
        let mut blob = good;
        for (_, break_it) in steps[first..].iter().rev() {
            break_it(&mut blob);
        }
        if first > 3 {
            blob = with_checksum(blob);
        }
        let opened =
            SealedDek::from_bytes(&blob).and_then(|sealed| engine.decrypt_dek(&key_id(KEY_ID), &context, &sealed));
        assert_eq!(opened.unwrap_err().kind(), *expected);
        let short = SealedDek::from_bytes(&blob[..187]).unwrap_err();
        assert_eq!(short.kind(), ErrorKind::NotABlob(BlobRule::Length));
    }
}

#[test]
fn wrong_context_wrong_material_and_changed_byte_are_one_error() {
    let (right, none) = (
        EncryptionContext::from_pairs([("a", "b")]).unwrap(),
        EncryptionContext::none(),
    );
    let sealer = cmk(KEY_ID, 3, &[1; 32]);
    let sealed = sealer.seal(&right, &dek(&"5a".repeat(64)));
    let changed = |at: usize| {
        let mut blob = *sealed.as_bytes();
        blob[at] ^= 0x80;
        SealedDek::from_bytes(&with_checksum(blob)).unwrap()
    };

    let errors = [
        sealer.open(&none, &sealed),
        cmk(KEY_ID, 3, &[2; 32]).open(&right, &sealed),
        sealer.open(&right, &changed(4)),   // the nonce
        sealer.open(&right, &changed(35)),  // the rest of the salt
        sealer.open(&right, &changed(36)),  // the ciphertext
        sealer.open(&right, &changed(100)), // the tag
    ]
    .map(|opened| opened.expect_err("it opened"));
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
        assert_eq!(error.to_string(), "authentication failed");
        assert_eq!(
            format!("{error:?}"),
            "Error { kind: AuthenticationFailed, text: authentication failed }"
        );
    }
}

#[test]
fn a_cmk_opens_no_blob_of_another_key_or_version() {
    let none = EncryptionContext::none();
    let sealed = cmk(KEY_ID, 3, &[1; 32]).seal(&none, &dek(&"5a".repeat(64)));
    let kind = |key_id, version| cmk(key_id, version, &[1; 32]).open(&none, &sealed).unwrap_err().kind();
    assert_eq!(kind(OTHER_KEY_ID, 3), ErrorKind::KeyMismatch);
    assert_eq!(kind(KEY_ID, 4), ErrorKind::UnknownKeyVersion);
}

#[test]
fn material_has_32_to_64_bytes() {
    for length in 0..=130 {
        let made = dekseal::CmkVersion::new(key_id(KEY_ID), 0, &vec![9; length]);
        assert_eq!(made.is_ok(), (32..=64).contains(&length), "{length} bytes");
        if let Err(error) = made {
            assert_eq!(error.kind(), ErrorKind::InvalidMaterial);
        }
    }
}

#[test]
fn a_key_id_is_36_bytes_of_one_form() {
    for good in [
        KEY_ID,
        "zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz",
        "00000000-0000-0000-0000-000000000000",
    ] {
        assert_eq!(key_id(good).as_str(), good);
        assert_eq!(key_id(good).to_string(), good);
    }
    let upper = KEY_ID.to_uppercase();
    let bad = [
        "",
        &KEY_ID[1..],
        &format!("{KEY_ID}0"),
        &format!(" {}", &KEY_ID[1..]),
        &upper,
        "0d0466b0e-727-4d9c-b35d-f84bb474a37f",
        "0d0466b0-e727-4d9c-b35d-f84bb474a37-",
        "0d0466b0-e727-4d9c-b35d-f84bb474a3\u{e9}",
        "0d0466b0-e727-4d9c-b35d-f84bb474a37`",
        "0d0466b0-e727-4d9c-b35d-f84bb474a37{",
        "0d0466b0-e727-4d9c-b35d-f84bb474a37/",
        "0d0466b0-e727-4d9c-b35d-f84bb474a37:",
        "0d0466b0_e727_4d9c_b35d_f84bb474a37f",
    ];
    for bad in bad {
        let error = bad.parse::<dekseal::KeyId>().expect_err(bad);
        assert_eq!(error.kind(), ErrorKind::MalformedKeyId, "{bad}");
    }
}

/// Otherwise a map of keys would still be correct, but slow.
#[test]
fn key_ids_that_differ_hash_differently() {
    use std::hash::BuildHasher;
    let hasher = std::hash::RandomState::new();
    let hashes = [KEY_ID, OTHER_KEY_ID, KEY_ID].map(|id| hasher.hash_one(key_id(id)));
    assert_ne!(hashes[0], hashes[1]);
    assert_eq!(hashes[0], hashes[2]);
}

#[test]
fn the_text_form_is_hex() {
    for v in vectors::<Vec<SealedVector>>("blob") {
        let sealed = SealedDek::from_bytes(&hex::decode(&v.blob).unwrap()).unwrap();
        assert_eq!(sealed.to_string(), v.blob.to_uppercase(), "{}", v.name);
        for text in [v.blob.to_uppercase(), v.blob.to_lowercase()] {
            assert_eq!(text.parse::<SealedDek>().unwrap(), sealed, "{}", v.name);
        }
        let refused = |text: &str| text.parse::<SealedDek>().unwrap_err().kind();
        let with = |at: usize, text: &str| format!("{}{text}{}", &v.blob[..at], &v.blob[at + text.len()..]);
        for text in [
            "",
            &v.blob[1..],
            &v.blob[2..],
            &format!("{}0", v.blob),
            &format!("{}00", v.blob),
            &with(10, "g"),
            &with(11, " "),
            &with(375, "+"),
            &with(100, "é"),
        ] {
            assert_eq!(refused(text), ErrorKind::NotABlob(BlobRule::Hex), "{text}");
        }
        assert_eq!(refused(&with(0, "01")), ErrorKind::NotABlob(BlobRule::Version));
        let flipped = if v.blob.ends_with('0') { "1" } else { "0" };
        assert_eq!(refused(&with(375, flipped)), ErrorKind::DamagedBlob);
    }
}

#[cfg(feature = "serde")]
#[test]
fn serde_takes_text_in_formats_for_people_and_bytes_in_others() {
    use serde_test::{Configure, Token, assert_de_tokens_error, assert_tokens};

    let sealed = cmk(KEY_ID, 3, &[7; 32]).seal(&EncryptionContext::none(), &dek(&"5a".repeat(64)));
    let id = key_id(KEY_ID);
    let text: &'static str = sealed.to_string().leak();
    let bytes: &'static [u8] = sealed.as_bytes().to_vec().leak();
    assert_tokens(&sealed.readable(), &[Token::Str(text)]);
    assert_tokens(&sealed.compact(), &[Token::Bytes(bytes)]);
    assert_tokens(&id.readable(), &[Token::Str(KEY_ID)]);
    assert_tokens(&id.compact(), &[Token::Bytes(KEY_ID.as_bytes())]);

    assert_eq!(
        serde_json::to_string(&(id, sealed)).unwrap(),
        format!(r#"["{KEY_ID}","{text}"]"#)
    );
    let error = serde_json::from_str::<SealedDek>("\"02\"").unwrap_err().to_string();
    assert!(
        error.starts_with("not a sealed DEK: the text is not 376 hex digits"),
        "{error}"
    );
    let error = serde_json::from_str::<dekseal::KeyId>("\"x\"").unwrap_err().to_string();
    assert!(error.starts_with("malformed key ID"), "{error}");
    let error = serde_json::from_str::<SealedDek>("7").unwrap_err().to_string();
    assert!(error.contains("expected a sealed DEK"), "{error}");
    let short = [Token::Bytes(&bytes[1..])];
    assert_de_tokens_error::<serde_test::Compact<SealedDek>>(&short, "not a sealed DEK: the length is not 188 bytes");
    let short = [Token::Bytes(b"0d0466b0")];
    assert_de_tokens_error::<serde_test::Compact<dekseal::KeyId>>(&short, "malformed key ID");
}

#[test]
fn a_generated_key_id_is_a_uuid_of_version_4() {
    use dekseal::{KeyId, RandomnessFault};

    let random = hex::decode("00112233445566778899aabbccddeeff").unwrap();
    let id = KeyId::generate_with_rng(&mut Fixed(&random)).unwrap();
    assert_eq!(id.as_str(), "00112233-4455-4677-8899-aabbccddeeff");
    let id = KeyId::generate_with_rng(&mut Fixed(&[[0xff; 8], [0xfe; 8]].concat())).unwrap();
    assert_eq!(id.as_str(), "ffffffff-ffff-4fff-befe-fefefefefefe");
    // Sixteen bytes are taken.
    let kind = |random: &[u8]| KeyId::generate_with_rng(&mut Fixed(random)).unwrap_err().kind();
    assert_eq!(kind(&random[1..]), ErrorKind::Randomness(RandomnessFault::Failed));
    assert_eq!(kind(&[7; 16]), ErrorKind::Randomness(RandomnessFault::Stuck));
}
