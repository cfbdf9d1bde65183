//! Levels parse, context, context_json, open, seal and root.

use dekseal::{CmkVersion, Dek, EncryptionContext, Engine, SealedDek};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};

use super::{Fields, Outcome, RunTest, named, run};
use crate::reference;

/// What runs the tests of a group of this type.
pub(super) fn group(kind: &str, group: &mut Fields) -> Option<RunTest> {
    match kind {
        "BlobParse" => Some(Box::new(blob_parse)),
        "Context" => Some(Box::new(context)),
        "ContextJson" => context_json(),
        "BlobOpen" => {
            let engine = Engine::new(group.keyring());
            Some(Box::new(move |test| blob_open(&engine, test)))
        }
        "BlobSeal" => Some(Box::new(blob_seal)),
        "Cmk" => Some(Box::new(|test| test.cmk().map(drop).map_err(named))),
        "RootDerivation" => Some(Box::new(root_derivation)),
        other => panic!("unknown type {other}"),
    }
}

fn blob_parse(test: &mut Fields) -> Outcome {
    let sealed = SealedDek::from_bytes(&test.hex("blob")).map_err(named)?;
    assert_eq!(sealed.key_id().as_str(), test.text("key_id"));
    assert_eq!(sealed.key_version(), test.version());
    Ok(())
}

fn same_canonical(test: &mut Fields, canonical: &[u8]) {
    assert_eq!(canonical.len() as u64, test.number("canonical_length"), "{}", test.at);
    assert_eq!(hex::encode(Sha256::digest(canonical)), test.text("canonical_sha256"));
    if let Some(expected) = test.maybe("canonical") {
        assert_eq!(hex::encode(canonical), expected, "{}", test.at);
    }
}

fn context(test: &mut Fields) -> Outcome {
    let pairs = test.array("pairs");
    let pairs = pairs.iter().map(|pair| match pair.as_array().unwrap().as_slice() {
        [key, value] => (key.as_str().unwrap(), value.as_str().unwrap()),
        other => panic!("{other:?} is no pair"),
    });
    let context = EncryptionContext::from_pairs(pairs).map_err(named)?;
    same_canonical(test, context.canonical());
    Ok(())
}

/// The crate reads JSON in requests only, and shows no canonical form there. So a DEK is made in the context of the
/// request, and opened in the one with the canonical form that the test expects.
#[cfg(feature = "api")]
fn context_json() -> Option<RunTest> {
    use crate::support::{Fixed, KEY_ID, key_id, one_key};

    let engine = Engine::new(one_key());
    Some(Box::new(move |test| {
        let json = test.text("json");
        let body = format!(r#"{{"key_id":"{KEY_ID}","datakey_length":"512","encryption_context":{json}}}"#);
        let path = "/v1.0/53d1aefc533f4ce9a59c26b01667cbcf/kms/create-datakey-without-plaintext";
        let bytes: [u8; 64] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let response = dekseal::api::handle_with_rng(&engine, "POST", path, body.as_bytes(), &mut Fixed(&bytes));
        if let Some(code) = response.error_code() {
            // Nothing but the context is wrong. A name that occurs twice is an error of the JSON text.
            assert!(["KMS.0202", "KMS.0208"].contains(&code), "{}: {code}", test.at);
            return Err("context");
        }
        let body: serde_json::Value = serde_json::from_str(response.body()).unwrap();
        let sealed = hex::decode(body["cipher_text"].as_str().unwrap()).unwrap();
        let pairs: std::collections::BTreeMap<String, String> = serde_json::from_str(&json).unwrap();
        let context = EncryptionContext::from_pairs(&pairs).unwrap();
        same_canonical(test, context.canonical());
        let sealed = SealedDek::from_bytes(&sealed).unwrap();
        assert!(
            engine.decrypt_dek(&key_id(KEY_ID), &context, &sealed).is_ok(),
            "{}",
            test.at
        );
        Ok(())
    }))
}

#[cfg(not(feature = "api"))]
fn context_json() -> Option<RunTest> {
    None
}

fn blob_open(engine: &Engine<dekseal::MemoryKeyring>, test: &mut Fields) -> Outcome {
    let (blob, context, key_id) = (test.hex("blob"), test.context(), test.text("expected_key_id"));
    let dek = SealedDek::from_bytes(&blob)
        .and_then(|sealed| engine.decrypt_dek(&key_id.parse()?, &context?, &sealed))
        .map_err(named)?;
    assert!(dek == Dek::from_bytes(&test.dek()), "{}", test.at);
    Ok(())
}

fn blob_seal(test: &mut Fields) -> Outcome {
    let (key_id, version, material) = (test.text("key_id"), test.version(), test.hex("material"));
    let (context, dek, mut between) = (test.context().map_err(named)?, test.dek(), test.object("intermediate"));
    let cmk = CmkVersion::new(key_id.parse().map_err(named)?, version, &material).map_err(named)?;
    let sealed = cmk.seal(&context, &Dek::from_bytes(&dek));
    assert_eq!(hex::encode(sealed.as_bytes()), test.text("blob"), "{}", test.at);
    assert!(
        cmk.open(&context, &sealed).unwrap() == Dek::from_bytes(&dek),
        "{}",
        test.at
    );

    // The crate keeps the values in between to itself, and compares them with tests/vectors in `cmk::tests`.
    let reference = reference::Key::new(&key_id, version, &material).unwrap();
    let blob = sealed.as_bytes();
    let salt = reference.salt(context.canonical(), &dek);
    let aad = [&blob[..4], &blob[116..156], context.canonical()].concat();
    assert_eq!(between.hex("prk"), reference.prk);
    assert_eq!(between.hex("salt_key"), reference.salt_key);
    assert_eq!(between.hex("wrap_key"), reference.wrap_key);
    assert_eq!(between.hex("aad"), aad);
    assert_eq!(between.hex("salt"), salt);
    assert_eq!(between.hex("key"), reference.blob_key(&salt));
    assert_eq!(blob[4..36], salt);
    between.done();
    Ok(())
}

/// The crate leaves the call of the device to its host. This shows that the material makes the root that is expected.
fn root_derivation(test: &mut Fields) -> Outcome {
    let (k, key_id, version) = (test.hex("k"), test.text("key_id"), test.version());
    let parsed: dekseal::KeyId = key_id.parse().map_err(named)?;
    let mut mac = Hmac::<Sha512>::new_from_slice(&k).unwrap();
    mac.update(b"dekseal/v2 root");
    mac.update(parsed.as_str().as_bytes());
    mac.update(&version.to_be_bytes());
    let material = mac.finalize().into_bytes();
    assert_eq!(hex::encode(material), test.text("material"), "{}", test.at);
    CmkVersion::new(parsed, version, &material).map_err(named)?;
    let reference = reference::Key::new(&key_id, version, &material).unwrap();
    let check = hex::encode_upper(reference.keyring_check());
    assert_eq!(check, test.text("check"), "{}", test.at);
    Ok(())
}

#[test]
fn parse() {
    run("parse", group);
}

#[test]
fn contexts() {
    run("context", group);
}

#[test]
fn contexts_as_json() {
    run("context_json", group);
}

#[test]
fn open() {
    run("open", group);
}

#[test]
fn seal() {
    run("seal", group);
}

#[test]
fn root() {
    run("root", group);
}
