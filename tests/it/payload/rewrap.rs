//! Rewrapping the DEK of a payload.

use dekseal::{
    BlobRule, EncryptionContext, Engine, ErrorKind, MemoryKeyring, PayloadRule,
    payload::{PayloadCipher, PayloadHeader},
};

use super::{
    buffers::{payload, randomness},
    file::File,
};
use crate::support::{Fixed, KEY_ID, OTHER_KEY_ID, cmk, key_id, one_key};

#[test]
fn a_rotation_gives_the_known_answer() {
    let file = File::read();
    let (engine, key_id, context) = (file.engine(2), file.key_id(), file.context());
    let base = file.base();
    let mut payload = base.clone();
    engine.rewrap(&key_id, &context, &key_id, &mut payload).unwrap();
    assert_eq!(hex::encode(&payload[44..232]), file.rewrapped_sealed_dek);
    assert!(
        payload[..44] == base[..44] && payload[232..] == base[232..],
        "more than the sealed DEK has changed"
    );

    let header = PayloadHeader::from_bytes(base.first_chunk().unwrap()).unwrap();
    let rewrapped = engine.rewrap_header(&key_id, &context, &key_id, &header).unwrap();
    assert_eq!(rewrapped.to_bytes(), payload[..264]);
    assert_eq!(rewrapped.sealed_dek().key_version(), 1);

    assert!(*engine.decrypt(&key_id, &context, &payload).unwrap() == file.base_plaintext());
    // A holder of the old version alone still has the DEK, which opens both.
    let old = file.engine(1);
    let kind = old.decrypt(&key_id, &context, &payload).unwrap_err().kind();
    assert_eq!(kind, ErrorKind::UnknownKeyVersion);
    assert!(*file.payload_cipher().decrypt(&payload).unwrap() == file.base_plaintext());

    // A second rewrap changes nothing.
    let again = engine.rewrap_header(&key_id, &context, &key_id, &rewrapped).unwrap();
    assert_eq!(again, rewrapped);
}

fn two_keys() -> Engine<MemoryKeyring> {
    let keys = [cmk(KEY_ID, 0, &[7; 32]), cmk(OTHER_KEY_ID, 0, &[8; 32])];
    Engine::new(MemoryKeyring::from_versions(keys).unwrap())
}

#[test]
fn another_key_can_take_over() {
    let (engine, none) = (two_keys(), EncryptionContext::none());
    let (old, new) = (key_id(KEY_ID), key_id(OTHER_KEY_ID));
    let mut payload = payload(b"attack at dawn");
    engine.rewrap(&old, &none, &new, &mut payload).unwrap();
    assert_eq!(*engine.decrypt(&new, &none, &payload).unwrap(), b"attack at dawn");
    assert_eq!(
        engine.decrypt(&old, &none, &payload).unwrap_err().kind(),
        ErrorKind::KeyMismatch
    );
}

#[test]
fn what_cannot_be_opened_is_not_changed() {
    let (engine, none) = (two_keys(), EncryptionContext::none());
    let (old, new) = (key_id(KEY_ID), key_id(OTHER_KEY_ID));
    let payload = payload(b"attack at dawn");
    let refused = |key_id, context: &EncryptionContext, new_key_id, payload: &[u8]| {
        let mut changed = payload.to_vec();
        let error = engine.rewrap(key_id, context, new_key_id, &mut changed).unwrap_err();
        assert!(changed == payload, "{:?}, and it was changed", error.kind());
        #[cfg(feature = "std")]
        {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(&file, payload).unwrap();
            // A payload that is already under the new key is not an error.
            if !(error.kind() == ErrorKind::KeyMismatch && key_id == new_key_id) {
                let in_file = engine.rewrap_file(key_id, context, new_key_id, &file).unwrap_err();
                assert_eq!(super::inner::kind_of(&in_file), Some(error.kind()));
            }
            assert!(
                std::fs::read(&file).unwrap() == payload,
                "{:?}, and the file was changed",
                error.kind()
            );
        }
        error.kind()
    };
    let context = EncryptionContext::from_pairs([("a", "b")]).unwrap();
    let nobody = key_id("43e243b5-0095-1b21-67b2-58370386cc4a");
    assert_eq!(refused(&new, &none, &new, &payload), ErrorKind::KeyMismatch);
    assert_eq!(refused(&old, &context, &new, &payload), ErrorKind::AuthenticationFailed);
    assert_eq!(refused(&old, &none, &nobody, &payload), ErrorKind::UnknownKey);
    assert_eq!(
        refused(&old, &none, &new, &payload[..263]),
        ErrorKind::NotAPayload(PayloadRule::Length)
    );
    assert_eq!(
        refused(&old, &none, &new, b""),
        ErrorKind::NotAPayload(PayloadRule::Length)
    );

    let changed = |at: usize| {
        let mut changed = payload.clone();
        changed[at] ^= 1;
        changed
    };
    assert_eq!(
        refused(&old, &none, &new, &changed(7)),
        ErrorKind::NotAPayload(PayloadRule::Version)
    );
    assert_eq!(
        refused(&old, &none, &new, &changed(44)),
        ErrorKind::NotABlob(BlobRule::Version)
    );
    // The blob opens, but the commitment shows that it belongs to another payload.
    assert_eq!(
        refused(&old, &none, &new, &changed(12)),
        ErrorKind::AuthenticationFailed
    );
    assert_eq!(
        refused(&old, &none, &new, &changed(263)),
        ErrorKind::AuthenticationFailed
    );
    let other =
        engine.create_payload_cipher_with_rng(&old, &none, &mut Fixed(&[randomness(), randomness()].concat()[9..]));
    let mut of_another = payload.clone();
    of_another[44..232].copy_from_slice(other.unwrap().sealed_dek().as_bytes());
    assert_eq!(refused(&old, &none, &new, &of_another), ErrorKind::AuthenticationFailed);
}

#[test]
fn a_data_key_of_parts_is_the_same() {
    let (engine, id, none) = (Engine::new(one_key()), key_id(KEY_ID), EncryptionContext::none());
    let (dek, sealed) = engine
        .create_dek_with_rng(&id, &none, &mut Fixed(&randomness()))
        .unwrap();
    let made = PayloadCipher::new(&dek, sealed).encrypt_with_rng(b"attack at dawn", &mut Fixed(&randomness()[64..]));
    assert_eq!(made.unwrap(), payload(b"attack at dawn"));
}
