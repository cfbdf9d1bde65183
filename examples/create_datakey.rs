//! Sends the published create-datakey request through the wire API, and opens the returned blob with decrypt-datakey.
//!
//! ```text
//! cargo run --example create_datakey
//! ```

use std::error::Error;

use dekseal::{CmkVersion, Dek, Engine, MemoryKeyring, api};
use serde_json::Value;

/// The key ID and the project ID of the KMS documentation's examples.
const KEY_ID: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
const PROJECT: &str = "53d1aefc533f4ce9a59c26b01667cbcf";

fn main() -> Result<(), Box<dyn Error>> {
    // A new CMK from 64 random bytes. A service would store them.
    let material = Dek::generate()?;
    let cmk = CmkVersion::new(KEY_ID.parse()?, 0, material.expose_secret())?;
    let engine = Engine::new(MemoryKeyring::from_versions([cmk])?);

    let created = call(
        &engine,
        "create-datakey",
        &format!(r#"{{"key_id": "{KEY_ID}", "datakey_length": "512"}}"#),
    )?;
    let cipher_text = &created["cipher_text"];
    let opened = call(
        &engine,
        "decrypt-datakey",
        &format!(r#"{{"key_id": "{KEY_ID}", "cipher_text": {cipher_text}, "datakey_cipher_length": "64"}}"#),
    )?;
    if opened["data_key"] != created["plain_text"] {
        return Err("decrypt-datakey returned another DEK".into());
    }
    println!("decrypt-datakey returned the DEK that create-datakey made.");
    Ok(())
}

/// Prints the request and the response. The response contains a DEK: never print one outside of an example.
fn call(engine: &Engine<MemoryKeyring>, operation: &str, body: &str) -> Result<Value, Box<dyn Error>> {
    let path = format!("/v1.0/{PROJECT}/kms/{operation}");
    let response = api::handle(engine, "POST", &path, body.as_bytes());
    println!("POST {path}\n{body}\n\n{}\n{}\n", response.status(), response.body());
    match response.error_code() {
        None => Ok(serde_json::from_str(response.body())?),
        Some(code) => Err(code.into()),
    }
}
