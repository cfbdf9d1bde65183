//! Compares sealed DEKs with the reference for any input, and tests blobs in which everything is right except the salt.

use dekseal::{Dek, EncryptionContext, ErrorKind, SealedDek};
use proptest::prelude::*;

use crate::{
    properties::{key_ids, maps},
    reference::Key,
    support::{KEY_ID, cmk, context, with_checksum},
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_seal_equals_the_bare_primitives(
        id in key_ids(), version: u32, material in prop::collection::vec(any::<u8>(), 32..=64),
        halves: [[u8; 32]; 2], map in maps(),
    ) {
        let dek: &[u8; 64] = halves.as_flattened().try_into().unwrap();
        let (cmk, context) = (cmk(&id, version, &material), context(&map));
        let keys = Key::new(&id, version, &material).unwrap();
        let made = keys.seal(context.canonical(), dek);
        let sealed = cmk.seal(&context, &Dek::from_bytes(dek));
        prop_assert_eq!(sealed.as_bytes().as_slice(), &made);
        let opened = cmk.open(&context, &SealedDek::from_bytes(&made).unwrap()).unwrap();
        prop_assert_eq!(opened.expose_secret(), dek);
    }
}

#[test]
fn a_right_tag_under_a_wrong_salt_is_the_same_error_as_a_wrong_tag() {
    let (cmk, keys, dek) = (
        cmk(KEY_ID, 3, &[7; 32]),
        Key::new(KEY_ID, 3, &[7; 32]).unwrap(),
        std::array::from_fn(|at| at as u8),
    );
    let none = EncryptionContext::none();
    let right = keys.salt(&[], &dek);
    let seal = |salt: &[u8; 32]| <[u8; 188]>::try_from(keys.seal_under_salt(&[], &dek, salt)).unwrap();
    let open = |blob: &[u8; 188]| cmk.open(&none, &SealedDek::from_bytes(blob).unwrap());
    assert_eq!(open(&seal(&right)).unwrap().expose_secret(), &dek);

    // Each bit of the salt; all bytes changed in the same way, so that differences could cancel out; the salt of
    // another context.
    let bits = (0..256).map(|bit| std::array::from_fn(|at| right[at] ^ u8::from(at == bit / 8) << (bit % 8)));
    let others = [right.map(|byte| byte ^ 0x80), keys.salt(&[0], &dek), [0; 32]];
    let mut wrong_tag = seal(&right);
    wrong_tag[100] ^= 1;
    let blobs = bits.chain(others).map(|salt| seal(&salt));
    for blob in blobs.chain([with_checksum(wrong_tag)]) {
        let error = open(&blob).expect_err("it opened");
        assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
        assert_eq!(
            format!("{error:?}: {error}"),
            "Error { kind: AuthenticationFailed, text: authentication failed }: authentication failed"
        );
    }
}
