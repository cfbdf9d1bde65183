//! FORMAT.md A4 and A5 from HMAC, SHA-256 and AES-256-GCM alone. What the crate seals is compared with it for any input, and the crate is
//! shown blobs in which everything holds but the salt. All the formats once more, with A3, are in `fuzz/src/second.rs`.

use aes_gcm::{AeadInOut, Aes256Gcm};
use dekseal::{Dek, EncryptionContext, ErrorKind, SealedDek};
use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use crate::{
    properties::{key_ids, maps},
    support::{KEY_ID, cmk, context, with_checksum},
};

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// HKDF-Expand to 32 bytes, which are its first block: `HMAC(PRK, info ‖ 1)` (RFC 5869, 2.3).
fn expand(prk: &[u8; 32], label: &[u8], rest: &[u8]) -> [u8; 32] {
    mac(prk, &[label, rest, &[1]])
}

/// One version of one CMK.
struct Keyset {
    trailer: Vec<u8>,
    salt_key: [u8; 32],
    wrap_key: [u8; 32],
}

impl Keyset {
    fn new(key_id: &str, version: u32, material: &[u8]) -> Self {
        let trailer = [key_id.as_bytes(), &version.to_le_bytes()].concat();
        let prk = mac(b"dekseal/v2", &[material]);
        Self {
            salt_key: expand(&prk, b"dekseal/v2 salt", &trailer),
            wrap_key: expand(&prk, b"dekseal/v2 wrap", &trailer),
            trailer,
        }
    }

    fn salt(&self, context: &[u8], dek: &[u8; 64]) -> [u8; 32] {
        mac(&self.salt_key, &[&Sha256::digest(context), dek])
    }

    /// A4 with any salt. Under one that is not that of the DEK and the context, the tag holds and step 7 of A5 does not.
    fn seal_under(&self, salt: &[u8; 32], context: &[u8], dek: &[u8; 64]) -> [u8; 188] {
        let gcm = Aes256Gcm::new(&expand(&self.wrap_key, b"dekseal/v2 key", salt).into());
        let nonce: &[u8; 12] = salt.first_chunk().unwrap();
        let aad = [&[2, 0, 152, 0], &*self.trailer, context].concat();
        let mut body = *dek;
        let tag = gcm.encrypt_inout_detached(nonce.into(), &aad, body.as_mut_slice().into());
        let blob = [
            &[2, 0, 152, 0],
            &salt[..],
            &body,
            &tag.unwrap(),
            &self.trailer,
            &[0; 32],
        ]
        .concat();
        with_checksum(blob.try_into().unwrap())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_seal_is_what_the_primitives_make(
        id in key_ids(), version: u32, material in prop::collection::vec(any::<u8>(), 32..=64),
        halves: [[u8; 32]; 2], map in maps(),
    ) {
        let dek: &[u8; 64] = halves.as_flattened().try_into().unwrap();
        let (cmk, keys, context) = (cmk(&id, version, &material), Keyset::new(&id, version, &material), context(&map));
        let made = keys.seal_under(&keys.salt(context.canonical(), dek), context.canonical(), dek);
        let sealed = cmk.seal(&context, &Dek::from_bytes(dek));
        prop_assert_eq!(sealed.as_bytes(), &made);
        let opened = cmk.open(&context, &SealedDek::from_bytes(&made).unwrap()).unwrap();
        prop_assert_eq!(opened.expose_secret(), dek);
    }
}

#[test]
fn a_right_tag_under_a_wrong_salt_is_the_same_error_as_a_wrong_tag() {
    let (cmk, keys, dek) = (
        cmk(KEY_ID, 3, &[7; 32]),
        Keyset::new(KEY_ID, 3, &[7; 32]),
        std::array::from_fn(|at| at as u8),
    );
    let none = EncryptionContext::none();
    let right = keys.salt(&[], &dek);
    let open = |blob: &[u8; 188]| cmk.open(&none, &SealedDek::from_bytes(blob).unwrap());
    assert_eq!(open(&keys.seal_under(&right, &[], &dek)).unwrap().expose_secret(), &dek);

    // Every bit of the salt by itself; all bytes in one way, so that their differences could cancel each other; the salt of another context.
    let bits = (0..256).map(|bit| std::array::from_fn(|at| right[at] ^ u8::from(at == bit / 8) << (bit % 8)));
    let others = [right.map(|byte| byte ^ 0x80), keys.salt(&[0], &dek), [0; 32]];
    let mut wrong_tag = keys.seal_under(&right, &[], &dek);
    wrong_tag[100] ^= 1;
    let blobs = bits.chain(others).map(|salt| keys.seal_under(&salt, &[], &dek));
    for blob in blobs.chain([with_checksum(wrong_tag)]) {
        let error = open(&blob).expect_err("it opened");
        assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
        assert_eq!(
            format!("{error:?}: {error}"),
            "Error { kind: AuthenticationFailed, text: authentication failed }: authentication failed"
        );
    }
}
