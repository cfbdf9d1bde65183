//! Wrapping and unwrapping keys.

use std::{collections::HashMap, sync::Arc};

use base64ct::{Base64, Encoding};
use dekseal::{CmkVersion, EncryptionContext, Engine, ErrorKind as Refused, MemoryKeyring};
use dekseal_parquet::{ErrorKind, Kms, sealed_dek};
use parquet_key_management::{
    crypto_factory::CryptoFactory,
    kms::{KmsClient, KmsConnectionConfig},
};

use crate::support::{COLUMN, FOOTER, id, kind};

fn engine() -> Arc<Engine<MemoryKeyring>> {
    let cmks = [FOOTER, COLUMN].map(|key| CmkVersion::new(id(key), 0, &[7; 32]).unwrap());
    Arc::new(Engine::new(MemoryKeyring::from_versions(cmks).unwrap()))
}

fn kms() -> Kms<MemoryKeyring> {
    Kms::new(engine(), [("table", "orders")]).unwrap()
}

#[test]
fn a_wrapped_key_is_base64_of_a_payload_in_the_documented_context() {
    let (engine, kms) = (engine(), kms());
    let context = EncryptionContext::from_pairs([("purpose", "dekseal parquet"), ("table", "orders")]).unwrap();
    for (length, characters) in [(16, 396), (24, 408), (32, 416)] {
        let key: Vec<u8> = (0..length).collect();
        let wrapped = kms.wrap(&key, FOOTER).unwrap();
        assert_eq!(wrapped.len(), characters);
        let payload = Base64::decode_vec(&wrapped).unwrap();
        assert_eq!(*engine.decrypt(&id(FOOTER), &context, &payload).unwrap(), key);
        assert_eq!(kms.unwrap(&wrapped, FOOTER).unwrap(), key);
        // What the engine makes in that context is a wrapped key.
        let payload = engine.encrypt(&id(FOOTER), &context, &key).unwrap();
        assert_eq!(kms.unwrap_key(&Base64::encode_string(&payload), FOOTER).unwrap(), key);
    }
}

#[test]
fn keys_of_other_lengths_are_refused() {
    let (engine, kms) = (engine(), kms());
    let context = EncryptionContext::from_pairs([("purpose", "dekseal parquet"), ("table", "orders")]).unwrap();
    for length in [0, 1, 15, 17, 23, 25, 31, 33, 64] {
        let key = vec![1; length];
        assert_eq!(kms.wrap(&key, FOOTER).unwrap_err().kind(), ErrorKind::KeyLength);
        let payload = engine.encrypt(&id(FOOTER), &context, &key).unwrap();
        let refused = kms.unwrap(&Base64::encode_string(&payload), FOOTER).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WrappedKey, "{length}");
    }
}

#[test]
fn what_is_no_wrapped_key_is_refused() {
    let kms = kms();
    let wrapped = kms.wrap(&[1; 16], FOOTER).unwrap();
    let url_safe = wrapped.replace('+', "-").replace('/', "_");
    let long = format!("{wrapped}{wrapped}");
    let line = format!("{wrapped}\n");
    let short = &wrapped[..wrapped.len() - 4];
    // The last character before the padding stands for four bits. Its other two must be zero.
    let (start, end) = wrapped.split_at(wrapped.len() - 2);
    let last = if end == "A=" { "B=" } else { "/=" };
    let loose = format!("{start}{last}");
    assert!(end.ends_with('='));
    for wrong in ["", "no base64!", &line, &long, &loose, short] {
        assert_eq!(kms.unwrap(wrong, FOOTER).unwrap_err().kind(), ErrorKind::WrappedKey);
        assert_eq!(sealed_dek(wrong).unwrap_err().kind(), ErrorKind::WrappedKey);
    }
    if url_safe != wrapped {
        assert_eq!(kms.unwrap(&url_safe, FOOTER).unwrap_err().kind(), ErrorKind::WrappedKey);
    }
    let flipped = Base64::encode_string(&[0; 296]);
    let refused = kms.unwrap(&flipped, FOOTER).unwrap_err().kind();
    assert!(
        matches!(refused, ErrorKind::Dekseal(Refused::NotAPayload(_))),
        "{refused:?}"
    );
}

#[test]
fn a_key_opens_under_its_cmk_and_in_its_context_only() {
    let kms = kms();
    let wrapped = kms.wrap(&[1; 32], FOOTER).unwrap();
    let refused = kms.unwrap(&wrapped, COLUMN).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Dekseal(Refused::KeyMismatch));
    let other = Kms::new(engine(), [("table", "customers")]).unwrap();
    let refused = other.unwrap(&wrapped, FOOTER).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Dekseal(Refused::AuthenticationFailed));
    let refused = other.rewrap(&wrapped, FOOTER).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Dekseal(Refused::AuthenticationFailed));

    // A payload that another part of the application encrypted, in a context without the purpose.
    let context = EncryptionContext::from_pairs([("table", "orders")]).unwrap();
    let payload = engine().encrypt(&id(FOOTER), &context, &[1; 16]).unwrap();
    let refused = kms.unwrap(&Base64::encode_string(&payload), FOOTER).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Dekseal(Refused::AuthenticationFailed));
}

#[test]
fn a_master_key_identifier_is_a_key_id() {
    let kms = kms();
    let wrapped = kms.wrap(&[1; 16], FOOTER).unwrap();
    for wrong in ["", "footer key", &FOOTER.to_uppercase(), &format!("{FOOTER} ")] {
        assert_eq!(kms.wrap(&[1; 16], wrong).unwrap_err().kind(), ErrorKind::MasterKeyId);
        assert_eq!(kms.unwrap(&wrapped, wrong).unwrap_err().kind(), ErrorKind::MasterKeyId);
    }
    let unknown = "43e243b5-0095-1b21-67b2-58370386cc4a";
    let refused = kms.wrap_key(&[1; 16], unknown).unwrap_err();
    assert_eq!(kind(&refused), ErrorKind::Dekseal(Refused::UnknownKey));
    assert!(refused.to_string().contains(unknown), "{refused}");
}

#[test]
fn rewrapping_names_the_current_version_and_keeps_the_key() {
    let engine = engine();
    let kms = Kms::new(Arc::clone(&engine), [("table", "orders")]).unwrap();
    let wrapped = kms.wrap(&[3; 24], FOOTER).unwrap();
    assert_eq!(kms.rewrap(&wrapped, FOOTER).unwrap(), wrapped, "nothing to do");
    engine.keyring().update(|keys| keys.rotate(&id(FOOTER))).unwrap();
    let rewrapped = kms.rewrap(&wrapped, FOOTER).unwrap();
    assert_eq!(sealed_dek(&wrapped).unwrap().key_version(), 0);
    assert_eq!(sealed_dek(&rewrapped).unwrap().key_version(), 1);
    engine
        .keyring()
        .update(|keys| keys.set_min_version(&id(FOOTER), 1))
        .unwrap();
    assert_eq!(kms.unwrap(&rewrapped, FOOTER).unwrap(), [3; 24]);
    let refused = kms.unwrap(&wrapped, FOOTER).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Dekseal(Refused::KeyVersionRetired));
}

#[test]
fn files_have_a_purpose() {
    let none: [(&str, &str); 0] = [];
    assert_eq!(Kms::new(engine(), none).unwrap_err().kind(), ErrorKind::Context);
    let taken = Kms::new(engine(), [("table", "orders"), ("purpose", "reports")]);
    assert_eq!(taken.unwrap_err().kind(), ErrorKind::Context);
    let empty = Kms::new(engine(), [("", "orders")]).unwrap_err();
    assert!(
        matches!(empty.kind(), ErrorKind::Dekseal(Refused::Context(_))),
        "{empty:?}"
    );
}

/// Clients are cached by instance, URL and token: two connections that differ in custom configuration share one.
#[test]
fn custom_configuration_is_refused_and_the_rest_of_a_connection_ignored() {
    let factory = CryptoFactory::new(kms());

    let configuration = parquet_key_management::crypto_factory::EncryptionConfiguration::builder(FOOTER.into())
        .set_double_wrapping(false)
        .build()
        .unwrap();
    let custom = KmsConnectionConfig::builder()
        .set_custom_kms_conf(HashMap::from([("table".into(), "customers".into())]))
        .build();
    let refused = factory
        .file_encryption_keys(Arc::new(custom), &configuration)
        .unwrap_err();
    assert_eq!(kind(&refused), ErrorKind::CustomConfiguration);
    let named = KmsConnectionConfig::builder()
        .set_kms_instance_id("one".into())
        .set_kms_instance_url("https://two.example".into())
        .set_key_access_token("three".into())
        .build();
    factory.file_encryption_keys(Arc::new(named), &configuration).unwrap();
}

#[test]
fn no_text_contains_a_key() {
    let secret = b"0123456789abcdef0123456789abcdef";
    let kms = kms();
    assert_eq!(format!("{kms:?}"), "Kms { .. }");
    let errors = [
        kms.wrap(&secret[..31], FOOTER).unwrap_err(),
        kms.wrap(secret, "a key").unwrap_err(),
        kms.wrap(secret, "43e243b5-0095-1b21-67b2-58370386cc4a").unwrap_err(),
    ];
    for error in errors {
        let mut text = format!("{error} {error:?}");
        text += &parquet_key_management::errors::Error::from(error).to_string();
        assert!(!text.contains("01234567") && !text.contains("48, 49, 50"), "{text}");
    }
}
