//! Levels payload_open and payload_seal.

use base64ct::{Base64, Encoding};
use dekseal::{
    Dek, EncryptionContext, Engine, KeyId, MemoryKeyring,
    payload::{PayloadCipher, PayloadHeader, encrypted_len, plaintext_len},
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Fields, Outcome, RunTest, named, run};
use crate::{reference, support::Fixed};

/// What runs the tests of a group of this type.
fn group(kind: &str, group: &mut Fields) -> Option<RunTest> {
    Some(match kind {
        "PayloadOpen" => {
            let engine = Engine::new(group.keyring());
            let (key_id, context) = (group.text("key_id").parse().unwrap(), group.context().unwrap());
            let base = Base64::decode_vec(&group.text("base")).unwrap();
            Box::new(move |test| payload_open(&engine, &key_id, &context, &base, test))
        }
        "PayloadSegment" => {
            let (dek, header) = (group.dek(), group.hex("header"));
            let (key, commitment) = reference::payload_keys(&dek, &header);
            assert_eq!(group.hex("segment_key"), key);
            assert_eq!(group.hex("commitment"), commitment);
            Box::new(move |test| payload_segment(&key, test))
        }
        "PayloadSeal" => {
            let (cmk, context) = (group.whole_cmk("cmk"), group.context().unwrap());
            let (dek, plaintext) = (group.dek(), Base64::decode_vec(&group.text("plaintext")).unwrap());
            let sealed = cmk.seal(&context, &Dek::from_bytes(&dek));
            let cipher = PayloadCipher::new(&Dek::from_bytes(&dek), sealed);
            Box::new(move |test| payload_seal(&cipher, &plaintext, test))
        }
        "PayloadRewrap" => {
            let (engine, context) = (Engine::new(group.keyring()), group.context().unwrap());
            Box::new(move |test| payload_rewrap(&engine, &context, test))
        }
        "PayloadLength" => Box::new(|test| {
            let plaintext = test.number("plaintext_length");
            let length = encrypted_len(plaintext).ok_or("payload_too_long")?;
            assert_eq!(length, test.number("payload_length"), "{}", test.at);
            assert_eq!(plaintext_len(length), Some(plaintext), "{}", test.at);
            Ok(())
        }),
        other => panic!("unknown type {other}"),
    })
}

/// The bytes of a payload that is given in pieces.
fn joined(pieces: &[Value], base: &[u8], at: &str) -> Vec<u8> {
    let pieces = pieces.iter().map(|piece| {
        let mut piece = Fields::new(piece, at.into());
        let bytes = if let Some(range) = piece.maybe("base") {
            let [from, to] = serde_json::from_value::<[usize; 2]>(range).unwrap();
            base[from..to].to_vec()
        } else if let Some(text) = piece.maybe("base64") {
            Base64::decode_vec(text.as_str().unwrap()).unwrap()
        } else {
            piece.hex("hex")
        };
        piece.done();
        bytes
    });
    pieces.collect::<Vec<_>>().concat()
}

fn payload_open(
    engine: &Engine<MemoryKeyring>,
    key_id: &KeyId,
    context: &EncryptionContext,
    base: &[u8],
    test: &mut Fields,
) -> Outcome {
    let payload = joined(&test.array("payload"), base, &test.at);
    let opened = engine.decrypt(key_id, context, &payload);
    #[cfg(feature = "std")]
    {
        use std::io::{Cursor, Read};
        let mut read = Vec::new();
        let streamed = engine.decrypt_reader(key_id, context, payload.as_slice());
        let streamed = streamed.and_then(|mut reader| reader.read_to_end(&mut read));
        assert_eq!(streamed.is_ok(), opened.is_ok(), "{}", test.at);
        let mut sought = Vec::new();
        let reader = engine.decrypt_seek_reader(key_id, context, Cursor::new(&payload));
        let reader = reader.and_then(|mut reader| reader.read_to_end(&mut sought));
        assert_eq!(reader.is_ok(), opened.is_ok(), "{}", test.at);
        if let Ok(opened) = &opened {
            assert!(**opened == read && read == sought, "{}", test.at);
        }
    }
    let plaintext = opened.map_err(named)?;
    assert_eq!(plaintext.len() as u64, test.number("plaintext_length"), "{}", test.at);
    assert_eq!(hex::encode(Sha256::digest(&*plaintext)), test.text("plaintext_sha256"));
    Ok(())
}

/// The public API reaches no segment behind the first few, so the second implementation stands in.
/// `payload::segments::tests` in `src` compares the crate with the same values.
fn payload_segment(key: &[u8; 32], test: &mut Fields) -> Outcome {
    let index: usize = test.number("index").try_into().unwrap();
    let last = test.take("last").as_bool().unwrap();
    let nonce = reference::segment_nonce(index, last);
    let sealed = reference::encrypt(key, &nonce, &[], &test.hex("plaintext"));
    assert_eq!(sealed, test.hex("segment"), "{}", test.at);
    Ok(())
}

fn payload_seal(cipher: &PayloadCipher, plaintext: &[u8], test: &mut Fields) -> Outcome {
    let length: usize = test.number("plaintext_length").try_into().unwrap();
    let salt = test.hex("payload_salt");
    let payload = cipher
        .encrypt_with_rng(&plaintext[..length], &mut Fixed(&salt))
        .map_err(named)?;
    assert_eq!(payload.len() as u64, test.number("payload_length"), "{}", test.at);
    assert_eq!(
        hex::encode(Sha256::digest(&payload)),
        test.text("payload_sha256"),
        "{}",
        test.at
    );
    if let Some(expected) = test.maybe("payload") {
        assert_eq!(hex::encode(&payload), expected, "{}", test.at);
    }
    Ok(())
}

fn payload_rewrap(engine: &Engine<MemoryKeyring>, context: &EncryptionContext, test: &mut Fields) -> Outcome {
    let header: [u8; PayloadHeader::LEN] = test.hex("header").try_into().unwrap();
    let header = PayloadHeader::from_bytes(&header).map_err(named)?;
    let key_id = header.sealed_dek().key_id();
    let new = engine
        .rewrap_header(&key_id, context, &key_id, &header)
        .map_err(named)?;
    assert_eq!(
        hex::encode(new.to_bytes()),
        test.text("rewrapped_header"),
        "{}",
        test.at
    );
    Ok(())
}

#[test]
fn open() {
    run("payload_open", group);
}

#[test]
fn seal() {
    run("payload_seal", group);
}
