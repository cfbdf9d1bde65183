//! No text that the crate makes holds a secret.

use dekseal::{Dek, EncryptionContext, Engine};

use crate::support::{KEY_ID, cmk, key_id, one_key};

/// Every form in which `secret` might stand in a text.
fn forms(secret: &[u8]) -> Vec<String> {
    let hex = hex::encode(&secret[..4]);
    let list = format!("{:?}", &secret[..4]);
    vec![
        hex.to_uppercase(),
        hex,
        list.trim_matches(['[', ']']).to_owned(),
        String::from_utf8_lossy(&secret[..4]).into_owned(),
    ]
}

#[test]
fn debug_shows_no_secret() {
    let secret = b"S3cretS3cretS3cretS3cretS3cretS3cret0000111122223333444455556666";
    let dek = Dek::from_bytes(secret);
    let cmk = cmk(KEY_ID, 5, secret);
    let context = EncryptionContext::from_pairs([("S3cret", "S3cretvalue")]).unwrap();
    let engine = Engine::new(one_key());
    let (created, sealed) = engine
        .create_dek_with_rng(&key_id(KEY_ID), &context, &mut crate::support::Fixed(secret))
        .unwrap();
    let shown = [
        format!("{dek:?}"),
        format!("{:?}", Some(created)),
        format!("{cmk:?} {cmk:#?}"),
        format!("{context:?}"),
        format!("{engine:?} {:?}", engine.keyring()),
        format!("{sealed:?}"),
        format!("{:?}", cmk.open(&context, &sealed)),
    ];
    for text in &shown {
        for form in forms(secret) {
            assert!(!text.contains(&form), "{text} shows {form}");
        }
    }
    assert_eq!(shown[0], "Dek(..)");
    assert_eq!(
        shown[2],
        format!("Cmk({KEY_ID} version 5, ..) Cmk({KEY_ID} version 5, ..)")
    );
    assert_eq!(shown[3], "EncryptionContext(23 bytes)");
    assert_eq!(shown[4], "Engine(..) MemoryKeyring(..)");
    assert_eq!(shown[5], format!("SealedDek({KEY_ID} version 0)"));
    assert_eq!(format!("{:?}", key_id(KEY_ID)), format!("KeyId({KEY_ID})"));
}

#[test]
fn secrets_are_wiped_on_drop() {
    fn wiped<T: zeroize::ZeroizeOnDrop>() {}
    wiped::<Dek>();
    wiped::<dekseal::Cmk>();
}
