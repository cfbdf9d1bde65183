//! The values in between, which only the inside of the module can see.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use serde::Deserialize;

use super::*;

/// The fields of tests/vectors/blob.json that `tests/it` does not look at, and what it takes to compute them.
#[derive(Deserialize)]
struct Vector {
    name: String,
    key_id: String,
    key_version: u32,
    material: String,
    context: BTreeMap<String, String>,
    dek: String,
    prk: String,
    salt_key: String,
    wrap_key: String,
    aad: String,
    salt: String,
    key: String,
}

#[test]
fn every_intermediate_value_is_the_known_one() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("../../tests/vectors/blob.json")).unwrap();
    assert_eq!(vectors.len(), 25);
    for v in vectors {
        let key_id: KeyId = v.key_id.parse().unwrap();
        let material = hex::decode(&v.material).unwrap();
        let trailer = blob::trailer(&key_id, v.key_version);
        let prk = extract(&material).unwrap();
        assert_eq!(hex::encode(*prk), v.prk, "{}", v.name);
        let salt_key = derive(&prk, &[labels::SALT_KEY, &trailer]).unwrap();
        assert_eq!(hex::encode(*salt_key), v.salt_key, "{}", v.name);
        let wrap_key = derive(&prk, &[labels::WRAP_KEY, &trailer]).unwrap();
        assert_eq!(hex::encode(*wrap_key), v.wrap_key, "{}", v.name);

        let cmk = Cmk::new(key_id, v.key_version, &material).unwrap();
        let context = EncryptionContext::from_pairs(&v.context).unwrap();
        let aad = with_aad(&trailer, &context, |aad| hex::encode(aad));
        assert_eq!(aad.as_ref(), Some(&v.aad), "{}", v.name);
        let salt = cmk.salt(&context, &hex::decode(&v.dek).unwrap().try_into().unwrap());
        assert_eq!(hex::encode(salt), v.salt, "{}", v.name);
        let mut key = Secret::zeroed();
        cmk.blob_key(&salt, &mut key).unwrap();
        assert_eq!(hex::encode(*key), v.key, "{}", v.name);
    }
}

#[test]
fn aad_of_every_length_around_the_buffers_is_whole() {
    let trailer = [b't'; TRAILER_LEN];
    // A pair with a key of one byte takes 2 + 2 + 1 + 2 bytes and those of its value; 44 come before.
    for length in [0, 1, 971, 972, 973, 974, 975, 8191] {
        let value = "v".repeat(length);
        let context = EncryptionContext::from_pairs([("k", value.as_str())]).unwrap();
        let expected = [&HEADER, trailer.as_slice(), context.canonical()].concat();
        let whole = with_aad(&trailer, &context, |aad| aad == expected);
        assert_eq!(whole, Some(true), "{length}");
    }
}
