//! Makes a keyring file with a key, rotates the key, and shows its versions. The command `dekseal`, in
//! `crates/dekseal-cli`, manages keyrings on the command line.

use std::error::Error;

use dekseal::{CmkVersion, Dek, EncryptionContext, Engine, FileKeyring, KeyId};

fn main() -> Result<(), Box<dyn Error>> {
    // A service takes the material of its root from a mounted secret, an HSM or a cloud KMS, and keeps it there.
    let material = Dek::generate()?;
    let root = || {
        CmkVersion::new(
            "00000000-0000-0000-0000-00000000root".parse()?,
            0,
            material.expose_secret(),
        )
    };

    // The operator makes the keyring and a key.
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("keyring.json");
    let key_id = KeyId::generate()?;
    FileKeyring::create(&path, root()?)?.update(|keys| keys.create_key(key_id))?;

    // The service opens the keyring, and seals a DEK.
    let engine = Engine::new(FileKeyring::open(&path, root()?)?);
    let (dek, sealed) = engine.create_dek(&key_id, &EncryptionContext::none())?;

    // The operator rotates the key. The service sees that at its next refresh, and opens what it sealed before.
    FileKeyring::open(&path, root()?)?.update(|keys| keys.rotate(&key_id))?;
    engine.keyring().refresh()?;
    assert_eq!(engine.decrypt_dek(&key_id, &EncryptionContext::none(), &sealed)?, dek);
    for version in engine.keyring().keys().versions(&key_id)? {
        println!(
            "{key_id} version {}, created {:?}",
            version.key_version, version.created
        );
    }
    Ok(())
}
