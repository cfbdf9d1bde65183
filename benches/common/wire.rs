//! Requests of the wire API, and their floor: the call of the engine, hex and serde_json on the same texts.

use dekseal::{EncryptionContext, Engine, MemoryKeyring, SealedDek};
use serde::{Deserialize, Serialize};

use super::{KEY_ID, cmk, dek};

pub(crate) fn path(operation: &str) -> String {
    format!("/v1.0/53d1aefc533f4ce9a59c26b01667cbcf/kms/{operation}")
}

pub(crate) fn create_body() -> String {
    format!(r#"{{"key_id": "{KEY_ID}", "datakey_length": "512"}}"#)
}

pub(crate) fn decrypt_body() -> String {
    let sealed = cmk().seal(&EncryptionContext::none(), &dek());
    let cipher_text = hex::encode_upper(sealed.as_bytes());
    format!(r#"{{"key_id": "{KEY_ID}", "cipher_text": "{cipher_text}", "datakey_cipher_length": "64"}}"#)
}

/// 256 KiB of nested arrays in an unknown field.
pub(crate) fn nested_body(depth: usize) -> String {
    let item = "[".repeat(depth) + &"]".repeat(depth);
    let count = (dekseal::api::MAX_BODY - 10) / (item.len() + 1);
    format!(r#"{{"x":[{}]}}"#, vec![item; count].join(","))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    key_id: &'a str,
    #[serde(rename = "datakey_length")]
    _datakey_length: Option<&'a str>,
    cipher_text: Option<&'a str>,
    #[serde(rename = "datakey_cipher_length")]
    _datakey_cipher_length: Option<&'a str>,
}

#[derive(Serialize)]
struct Created<'a> {
    key_id: &'a str,
    plain_text: &'a str,
    cipher_text: &'a str,
}

#[derive(Serialize)]
struct Opened<'a> {
    payload_cipher: &'a str,
    datakey_length: &'a str,
    datakey_dgst: &'a str,
}

/// The response to `body`, checking only the types.
pub(crate) fn floor(engine: &Engine<MemoryKeyring>, operation: &str, body: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let request: Body<'_> = serde_json::from_slice(body).expect("it is well-formed");
    let key_id = request.key_id.parse().expect("it is well-formed");
    let none = EncryptionContext::none();
    let mut plain = [0; 128];
    let answer = if operation == "create-datakey" {
        let (dek, sealed) = engine.create_dek(&key_id, &none).expect("the key is there");
        let mut cipher = [0; 376];
        serde_json::to_string(&Created {
            key_id: request.key_id,
            plain_text: base16ct::upper::encode_str(dek.expose_secret(), &mut plain).expect("room"),
            cipher_text: base16ct::upper::encode_str(sealed.as_bytes(), &mut cipher).expect("room"),
        })
    } else {
        let mut sealed = [0; 188];
        base16ct::mixed::decode(request.cipher_text.expect("it is there"), &mut sealed).expect("it is hex");
        let sealed = SealedDek::from_bytes(&sealed).expect("it is whole");
        let dek = engine.decrypt_dek(&key_id, &none, &sealed).expect("it opens");
        let mut digest = [0; 64];
        serde_json::to_string(&Opened {
            payload_cipher: base16ct::upper::encode_str(dek.expose_secret(), &mut plain).expect("room"),
            datakey_length: "64",
            datakey_dgst: base16ct::upper::encode_str(&Sha256::digest(dek.expose_secret()), &mut digest).expect("room"),
        })
    };
    answer.expect("strings serialize")
}
