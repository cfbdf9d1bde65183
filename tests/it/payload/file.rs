//! The test vectors of tests/vectors/payload.json.

use std::collections::BTreeMap;

use base64ct::{Base64, Encoding};
use dekseal::{EncryptionContext, Engine, KeyId, MemoryKeyring, payload::PayloadCipher};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use shake::{
    Shake256,
    digest::{ExtendableOutput, Update},
};

use crate::support::{Fixed, cmk, context, dek, encrypt, key_id, vectors};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(rename = "plaintext")]
    _plaintext: String,
    key_id: String,
    keys: Vec<Key>,
    context: BTreeMap<String, String>,
    dek: String,
    pub(super) valid: Vec<Valid>,
    base: Base,
    pub(super) rewrapped_sealed_dek: String,
    /// The derived keys of the base payload, and single segments under them. `payload::segments::tests` in `src` reads
    /// these, because the index 2³² − 2 cannot be reached through the public API.
    #[serde(rename = "segment_key")]
    _segment_key: String,
    #[serde(rename = "commitment")]
    _commitment: String,
    #[serde(rename = "segments")]
    _segments: Vec<serde_json::Value>,
    invalid: Vec<Invalid>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    key_version: u32,
    material: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Valid {
    pub(super) name: String,
    pub(super) plaintext_length: usize,
    pub(super) payload_salt: String,
    pub(super) payload_length: usize,
    pub(super) payload_sha256: String,
    /// Not present for long payloads.
    pub(super) payload: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base {
    payload_salt: String,
    plaintext_length: usize,
    payload_sha256: String,
}

/// Given as pieces or as a whole.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invalid {
    name: String,
    pieces: Option<Vec<Piece>>,
    payload_base64: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Piece {
    /// `[from, to)` of the base payload
    Base(usize, usize),
    Hex(String),
}

impl File {
    pub(super) fn read() -> Self {
        vectors("payload")
    }

    pub(super) fn key_id(&self) -> KeyId {
        key_id(&self.key_id)
    }

    pub(super) fn context(&self) -> EncryptionContext {
        context(&self.context)
    }

    /// An engine that knows the first `count` versions of the key.
    pub(super) fn engine(&self, count: usize) -> Engine<MemoryKeyring> {
        let cmks = self.keys.iter().take(count).map(|key| {
            let material = hex::decode(&key.material).unwrap();
            cmk(&self.key_id, key.key_version, &material)
        });
        Engine::new(MemoryKeyring::from_versions(cmks).unwrap())
    }

    /// The random bytes for the payload with this salt: first the DEK, then the salt.
    pub(super) fn randomness(&self, payload_salt: &str) -> Vec<u8> {
        hex::decode(format!("{}{payload_salt}", self.dek)).unwrap()
    }

    pub(super) fn payload_cipher(&self) -> PayloadCipher {
        let dek = dek(&self.dek);
        let sealed = self.engine(1).encrypt_dek(&self.key_id(), &self.context(), &dek);
        PayloadCipher::new(&dek, sealed.unwrap())
    }

    pub(super) fn base(&self) -> Vec<u8> {
        let engine = self.engine(1);
        let plaintext = plaintext(self.base.plaintext_length);
        let randomness = self.base_randomness();
        let payload = encrypt(
            &engine,
            &self.key_id(),
            &self.context(),
            &plaintext,
            &mut Fixed(&randomness),
        );
        let payload = payload.unwrap();
        assert_eq!(hex::encode(Sha256::digest(&payload)), self.base.payload_sha256);
        payload
    }

    /// The random bytes for the base payload.
    pub(super) fn base_randomness(&self) -> Vec<u8> {
        self.randomness(&self.base.payload_salt)
    }

    pub(super) fn base_plaintext(&self) -> Vec<u8> {
        plaintext(self.base.plaintext_length)
    }

    /// The name and the bytes of each payload that must be refused.
    pub(super) fn invalid(&self) -> impl Iterator<Item = (&str, Vec<u8>)> {
        let base = self.base();
        self.invalid.iter().map(move |invalid| {
            let bytes = match (&invalid.pieces, &invalid.payload_base64) {
                (Some(pieces), None) => pieces.iter().flat_map(|piece| piece.bytes(&base)).collect(),
                (None, Some(text)) => Base64::decode_vec(text).unwrap(),
                _ => panic!("{}: not one of two forms", invalid.name),
            };
            (invalid.name.as_str(), bytes)
        })
    }
}

impl Piece {
    fn bytes(&self, base: &[u8]) -> Vec<u8> {
        match self {
            Self::Base(from, to) => base[*from..*to].to_vec(),
            Self::Hex(digits) => hex::decode(digits).unwrap(),
        }
    }
}

/// "the first `length` bytes of SHAKE-256 of the ASCII text 'dekseal payload'"
pub(super) fn plaintext(length: usize) -> Vec<u8> {
    let mut shake = Shake256::default();
    shake.update(b"dekseal payload");
    let mut bytes = vec![0; length];
    shake.finalize_xof_into(&mut bytes);
    bytes
}
