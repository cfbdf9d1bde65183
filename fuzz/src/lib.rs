//! The fuzz targets. Each takes bytes, and panics if a promise is broken. The programs in `fuzz_targets` pass bytes
//! from the fuzzer. `tests/replay.rs` passes seeds, and inputs that a fuzzer has found.

#![forbid(unsafe_code)]

mod key_document;
mod keyring_file;
mod keyrings;
mod payload_read;
pub mod roundtrip;

pub use dekseal_reference as second;

pub use crate::{
    key_document::key_document, keyring_file::keyring_file, keyrings::keyrings, payload_read::payload_read,
    roundtrip::roundtrip,
};

use std::{collections::BTreeMap, convert::Infallible, sync::LazyLock};

use arbitrary::{Arbitrary, Unstructured};
use dekseal::{
    CmkVersion, EncryptionContext, Engine, ErrorKind, MemoryKeyring, SealedDek, api,
    rand_core::{TryCryptoRng, TryRng},
};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The name of a target, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 9] = [
    ("blob_parse", blob_parse),
    ("context", context),
    ("key_document", key_document),
    ("keyring_file", keyring_file),
    ("keyrings", keyrings),
    ("open", open),
    ("payload_read", payload_read),
    ("roundtrip", roundtrip),
    ("wire_request", wire_request),
];

const KEY_ID: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
const MATERIAL: [u8; 32] = *b"S3cretS3cretS3cretS3cretS3cret!!";

static ENGINE: LazyLock<Engine<MemoryKeyring>> = LazyLock::new(|| {
    let cmk = CmkVersion::new(KEY_ID.parse().expect("a key ID"), 0, &MATERIAL).expect("32 bytes");
    Engine::new(MemoryKeyring::from_versions([cmk]).expect("one key"))
});

/// A blob that parses is written as it was read, and reading it again gives the same parts.
pub fn blob_parse(data: &[u8]) {
    let Ok(sealed) = SealedDek::from_bytes(data) else {
        return;
    };
    assert_eq!(sealed.as_bytes().as_slice(), data);
    assert_eq!(sealed.key_id().as_str().as_bytes(), &data[116..152]);
    assert_eq!(sealed.key_version().to_le_bytes(), data[152..156]);
    assert_eq!(Sha256::digest(&data[..156]).as_slice(), &data[156..]);
}

/// Canonical bytes do not depend on the order, and give the map back, so two maps never have the same bytes.
pub fn context(data: &[u8]) {
    let Ok((a, b)) = <(Vec<(String, String)>, Vec<(String, String)>)>::arbitrary(&mut Unstructured::new(data)) else {
        return;
    };
    let (made_a, made_b) = (checked_context(a.clone()), checked_context(b.clone()));
    if let (Some(made_a), Some(made_b)) = (made_a, made_b) {
        let same = a.into_iter().collect::<BTreeMap<_, _>>() == b.into_iter().collect();
        assert_eq!(same, made_a.canonical() == made_b.canonical());
        assert_eq!(same, made_a == made_b);
    }
    json_context(data);
}

/// The context of these pairs, if they keep the rules of FORMAT.md A3, which are implemented here a second time.
fn checked_context(pairs: Vec<(String, String)>) -> Option<EncryptionContext> {
    let map: BTreeMap<&[u8], &[u8]> = pairs
        .iter()
        .map(|(key, value)| (key.as_bytes(), value.as_bytes()))
        .collect();
    let characters: usize = pairs
        .iter()
        .map(|(key, value)| key.chars().count() + value.chars().count())
        .sum();
    let allowed = map.len() == pairs.len() && !map.contains_key([].as_slice()) && characters <= 8192;
    let context = EncryptionContext::from_pairs(pairs.iter().rev().map(|(key, value)| (key, value)));
    let Ok(context) = context else {
        assert!(!allowed, "refused: {pairs:?}");
        return None;
    };
    assert!(allowed, "accepted: {pairs:?}");
    let mut expected = Vec::new();
    if !map.is_empty() {
        expected.extend(u16::try_from(map.len()).expect("8192 at most").to_be_bytes());
    }
    for text in map.into_iter().flat_map(|(key, value)| [key, value]) {
        expected.extend(u16::try_from(text.len()).expect("32 KiB at most").to_be_bytes());
        expected.extend(text);
    }
    assert_eq!(context.canonical(), expected);
    assert_eq!(context.sha256().as_slice(), Sha256::digest(&expected).as_slice());
    Some(context)
}

/// A context in JSON is accepted if serde_json reads it as a map of strings.
fn json_context(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let body = format!(r#"{{"key_id":"{KEY_ID}","datakey_length":512,"encryption_context":{text}}}"#);
    let Ok(request) = api::Request::parse("POST", "/v1.0/p/kms/create-datakey", body.as_bytes()) else {
        return;
    };
    let body: Value = serde_json::from_str(&body).expect("it was accepted");
    let pairs = body["encryption_context"].as_object().expect("it was accepted");
    let pairs = pairs
        .iter()
        .map(|(key, value)| (key.clone(), value.as_str().expect("it was accepted").to_owned()));
    assert_eq!(
        Some(request.encryption_context()),
        checked_context(pairs.collect()).as_ref()
    );
}

/// Bytes with a valid frame and a valid checksum never open.
pub fn open(data: &[u8]) {
    let Some(middle) = data.first_chunk::<112>() else {
        return;
    };
    let mut blob = [&[2, 0, 152, 0], middle.as_slice(), KEY_ID.as_bytes(), &[0; 4]].concat();
    blob.extend_from_slice(&Sha256::digest(&blob));
    let sealed = SealedDek::from_bytes(&blob).expect("the frame is right");
    let pairs = data[112..]
        .chunks(8)
        .enumerate()
        .map(|(at, value)| (at.to_string(), String::from_utf8_lossy(value)));
    let Ok(context) = EncryptionContext::from_pairs(pairs) else {
        return;
    };
    let error = ENGINE
        .decrypt_dek(&sealed.key_id(), &context, &sealed)
        .expect_err("it opened");
    assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
}

#[derive(Arbitrary, Debug)]
struct WireRequest<'a> {
    method: Option<&'a str>,
    path: Result<(&'a str, u8), &'a str>,
    body: &'a [u8],
}

/// Every request has a response: JSON with the fields of its operation, or with an existing error code. No response to
/// a refused request contains a secret.
pub fn wire_request(data: &[u8]) {
    // The first byte selects whether the rest is a body for one of the operations, or a request in parts.
    let (operation, rest) = match data {
        [operation @ 0..4, rest @ ..] => (Some(*operation), rest),
        _ => (None, data),
    };
    if let Some(operation) = operation {
        return answered(
            "POST",
            &format!("/v1.0/p/kms/{}", OPERATIONS[usize::from(operation)]),
            rest,
        );
    }
    let Ok(request) = WireRequest::arbitrary_take_rest(Unstructured::new(rest)) else {
        return;
    };
    let path = match request.path {
        Ok((project, operation)) => format!("/v1.0/{project}/kms/{}", OPERATIONS[usize::from(operation % 4)]),
        Err(path) => path.to_owned(),
    };
    answered(request.method.unwrap_or("POST"), &path, request.body);
}

const OPERATIONS: [&str; 4] = [
    "create-datakey",
    "create-datakey-without-plaintext",
    "encrypt-datakey",
    "decrypt-datakey",
];

const CODES: [&str; 21] = [
    "KMS.0101", "KMS.0201", "KMS.0202", "KMS.0203", "KMS.0204", "KMS.0205", "KMS.0206", "KMS.0207", "KMS.0208",
    "KMS.0209", "KMS.0210", "KMS.0215", "KMS.0308", "KMS.1901", "KMS.2001", "KMS.2101", "KMS.2102", "KMS.2103",
    "KMS.2201", "KMS.2202", "KMS.2203",
];

fn answered(method: &str, path: &str, body: &[u8]) {
    let response = api::handle_with_rng(&ENGINE, method, path, body, &mut Marked);
    let json: Value = serde_json::from_str(response.body()).expect("the answer is JSON");
    let fields: Vec<&str> = json
        .as_object()
        .expect("it is an object")
        .keys()
        .map(String::as_str)
        .collect();
    let Some(code) = response.error_code() else {
        assert_eq!(response.status(), 200);
        let expected: &[&str] = match path.rsplit('/').next() {
            Some("create-datakey") => &["cipher_text", "key_id", "plain_text"],
            Some("create-datakey-without-plaintext") => &["cipher_text", "key_id"],
            Some("encrypt-datakey") => &["cipher_text", "datakey_length", "key_id"],
            _ => &["data_key", "datakey_dgst", "datakey_length"],
        };
        assert_eq!(fields, expected);
        return;
    };
    assert!(CODES.contains(&code), "{code}");
    assert_eq!(
        (fields, json["error"]["error_code"].as_str()),
        (vec!["error"], Some(code))
    );
    // A message may contain what the caller sent, but nothing that the engine holds.
    for secret in ["S3cret", "533363726574", "D3D3D3D3D3"] {
        let sent = String::from_utf8_lossy(body).contains(secret);
        assert!(sent || !response.body().contains(secret), "{}", response.body());
    }
}

/// Returns the bytes 0xd3, with a mark in the middle so that the halves differ.
struct Marked;

impl TryRng for Marked {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(0xd3d3_d3d3)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(0xd3d3_d3d3_d3d3_d3d3)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(0xd3);
        if let Some(first) = bytes.first_mut() {
            *first = 0;
        }
        Ok(())
    }
}

impl TryCryptoRng for Marked {}

/// Returns these bytes, for one call that takes all of them.
struct Once<'a>(&'a [u8]);

impl TryRng for Once<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("bytes are asked for")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("bytes are asked for")
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.copy_from_slice(self.0);
        Ok(())
    }
}

impl TryCryptoRng for Once<'_> {}
