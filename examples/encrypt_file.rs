//! Encrypts a file as a stream, rotates the key, rewraps the file, and decrypts it. The command `dekseal`, in
//! `crates/dekseal-cli`, does this on the command line, and never leaves a part of a file behind.

use std::{error::Error, fs::File, io};

use dekseal::{EncryptionContext, Engine, KeyId, Keyset, MemoryKeyring};

fn main() -> Result<(), Box<dyn Error>> {
    let key_id = KeyId::generate()?;
    let mut keys = Keyset::new();
    keys.create_key(key_id)?;
    let engine = Engine::new(MemoryKeyring::new(keys));
    let context = EncryptionContext::from_pairs([("purpose", "example")])?;
    let directory = tempfile::tempdir()?;
    let [plain, sealed, opened] = ["plain", "sealed", "opened"].map(|name| directory.path().join(name));
    std::fs::write(&plain, vec![7; 1_000_000])?;

    // A file of any length needs constant memory. Without `finish`, the payload does not open.
    let mut writer = engine.encrypt_writer(&key_id, &context, File::create_new(&sealed)?)?;
    io::copy(&mut File::open(&plain)?, &mut writer)?;
    writer.finish()?.sync_all()?;

    // The DEK is sealed again under the new version. The data does not change.
    engine.keyring().update(|keys| keys.rotate(&key_id))?;
    let header = engine.rewrap_file(&key_id, &context, &key_id, &sealed)?;
    println!("sealed under version {}", header.sealed_dek().key_version());

    // Each part was verified when it is written. The file is complete only if no error follows.
    let mut reader = engine.decrypt_reader(&key_id, &context, File::open(&sealed)?)?;
    let length = io::copy(&mut reader, &mut File::create_new(&opened)?)?;
    println!("decrypted {length} bytes");
    assert!(std::fs::read(plain)? == std::fs::read(opened)?);
    Ok(())
}
