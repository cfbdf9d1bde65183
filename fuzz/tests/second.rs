//! The second implementation against the known answers.

use std::path::Path;

use base64ct::{Base64, Encoding};
use dekseal_fuzz::second::{self, Key, Refused};
use serde_json::Value;
use sha2::{Digest, Sha256};
use shake::{
    Shake256,
    digest::{ExtendableOutput, Update},
};

fn vectors(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/vectors")
        .join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn number(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

fn canonical(context: &Value) -> Option<Vec<u8>> {
    let pairs = context.as_object().unwrap().iter();
    second::canonical(pairs.map(|(key, value)| (key.as_str(), text(value))))
}

fn key(v: &Value) -> Key {
    Key::new(text(&v["key_id"]), number(&v["key_version"]), &bytes(&v["material"])).unwrap()
}

#[test]
fn it_uses_nothing_of_the_crate() {
    let source = include_str!("../src/second.rs");
    assert!(!source.contains("dekseal::") && !source.contains("crate::") && !source.contains("super::"));
}

#[test]
fn blobs() {
    let vectors = vectors("blob.json");
    for v in array(&vectors) {
        let (key, context) = (key(v), canonical(&v["context"]).unwrap());
        let (dek, blob) = (bytes(&v["dek"]).try_into().unwrap(), bytes(&v["blob"]));
        assert_eq!(key.seal(&context, &dek), blob, "{}", v["name"]);
        assert_eq!(key.open(&context, &blob), Ok(dek), "{}", v["name"]);
    }
    assert!(array(&vectors).len() > 20);
    let id = text(&vectors[0]["key_id"]);
    assert!(Key::new(id, 0, &[7; 31]).is_none() && Key::new(id, 0, &[7; 65]).is_none());
    assert!(Key::new(&id.to_uppercase(), 0, &[7; 32]).is_none());
}

#[test]
fn invalid_blobs() {
    let vectors = vectors("blob_invalid.json");
    let keys: Vec<_> = array(&vectors["keys"]).iter().map(|v| (v, key(v))).collect();
    for v in array(&vectors["invalid"]) {
        let expected = match text(&v["error"]) {
            "blob" => Refused::Frame,
            "key_id" => Refused::KeyId,
            "checksum" => Refused::Checksum,
            "key_mismatch" | "unknown_key" => Refused::OtherKey,
            "unknown_version" => Refused::OtherVersion,
            _ => Refused::Authentication,
        };
        let (blob, context) = (bytes(&v["blob"]), canonical(&v["context"]).unwrap());
        // The version that the blob names; where there is none of the ID, any key is another.
        let named = blob
            .get(152..156)
            .map(|version| u32::from_le_bytes(version.try_into().unwrap()));
        let of_id = keys.iter().filter(|(key, _)| key["key_id"] == v["expected_key_id"]);
        let exact = of_id
            .clone()
            .find(|(key, _)| Some(number(&key["key_version"])) == named);
        let (_, key) = exact.or(of_id.clone().next()).unwrap_or(&keys[0]);
        assert_eq!(key.open(&context, &blob), Err(expected), "{}", v["name"]);
    }
}

#[test]
fn contexts() {
    let vectors = vectors("context.json");
    for v in array(&vectors["valid"]) {
        let Some(context) = v.get("context") else { continue };
        let bytes = canonical(context).unwrap();
        assert_eq!(bytes.len(), number(&v["canonical_length"]) as usize, "{}", v["name"]);
        assert_eq!(
            hex::encode(Sha256::digest(&bytes)),
            v["canonical_sha256"],
            "{}",
            v["name"]
        );
        if let Some(known) = v.get("canonical") {
            assert_eq!(hex::encode(&bytes), *known, "{}", v["name"]);
        }
    }
    let long = "é".repeat(8192);
    assert!(second::canonical([("k", &*long)]).is_none() && second::canonical([(&*long, "")]).is_some());
    assert!(second::canonical([("", "v")]).is_none() && second::canonical([("k", "1"), ("k", "2")]).is_none());
}

/// "the first `length` bytes of SHAKE-256 of the ASCII text 'dekseal payload'"
fn plaintext(length: &Value) -> Vec<u8> {
    let mut shake = Shake256::default();
    shake.update(b"dekseal payload");
    let mut bytes = vec![0; number(length) as usize];
    shake.finalize_xof_into(&mut bytes);
    bytes
}

#[test]
fn payloads() {
    let vectors = vectors("payload.json");
    let material = bytes(&vectors["keys"][0]["material"]);
    let key = Key::new(text(&vectors["key_id"]), 0, &material).unwrap();
    let context = canonical(&vectors["context"]).unwrap();
    let dek = bytes(&vectors["dek"]).try_into().unwrap();
    let sealed = key.seal(&context, &dek);
    let made = |v: &Value| {
        let plaintext = plaintext(&v["plaintext_length"]);
        let salt = bytes(&v["payload_salt"]).try_into().unwrap();
        let payload = Key::seal_payload(&sealed, &dek, &salt, &plaintext);
        assert_eq!(
            hex::encode(Sha256::digest(&payload)),
            v["payload_sha256"],
            "{}",
            v["name"]
        );
        assert!(key.open_payload(&context, &payload) == Some(plaintext), "{}", v["name"]);
        payload
    };
    for v in array(&vectors["valid"]) {
        let payload = made(v);
        assert_eq!(payload.len(), number(&v["payload_length"]) as usize);
    }

    let base = made(&vectors["base"]);
    for v in array(&vectors["invalid"]) {
        let payload = match v.get("payload_base64") {
            Some(text) => Base64::decode_vec(self::text(text)).unwrap(),
            None => array(&v["pieces"])
                .iter()
                .flat_map(|piece| piece_of(&base, piece))
                .collect(),
        };
        assert_eq!(key.open_payload(&context, &payload), None, "{}", v["name"]);
    }

    // Sealed again under another version, the rest as it was.
    let material = bytes(&vectors["keys"][1]["material"]);
    let next = Key::new(text(&vectors["key_id"]), 1, &material).unwrap();
    let rewrapped = bytes(&vectors["rewrapped_sealed_dek"]);
    assert_eq!(next.seal(&context, &dek), rewrapped);
    let payload = [&base[..44], &rewrapped, &base[232..]].concat();
    assert!(next.open_payload(&context, &payload).is_some() && key.open_payload(&context, &payload).is_none());
}

fn piece_of(base: &[u8], piece: &Value) -> Vec<u8> {
    match piece {
        Value::Array(range) => base[number(&range[0]) as usize..number(&range[1]) as usize].to_vec(),
        digits => bytes(digits),
    }
}

#[test]
fn keyring_files() {
    let v = vectors("keyring.json");
    let root = Key::new(text(&v["root_key_id"]), 0, &bytes(&v["root_material"])).unwrap();
    assert_eq!(hex::encode_upper(root.keyring_check()), v["check"]);
    let file = root.open_keyring(&v["file"]).unwrap();
    assert_eq!(file.message(), bytes(&v["message"]));
    let materials = file.keys.iter().flat_map(|key| {
        let of = |version: &_| hex::encode(root.open_material(key, version).unwrap());
        key.versions.iter().map(of).collect::<Vec<_>>()
    });
    let known: Vec<_> = array(&v["keys"])
        .iter()
        .map(|key| text(&key["material"]).to_owned())
        .collect();
    assert_eq!(materials.collect::<Vec<_>>(), known);
}
