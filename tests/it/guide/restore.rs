//! The code of docs/guide/restore.md.

// ANCHOR: check
use dekseal::{Error, ErrorKind, FileFault, FileKeyring};

/// What a process should do about its keyring file.
#[derive(Debug, PartialEq)]
enum Finding {
    /// The process has the newest keys.
    Current,
    /// The file is older than the keys of this process, or another branch. Compare the two generations and decide.
    RolledBack { held: u64 },
    /// The file is another keyring.
    OtherKeyring,
}

fn check(keyring: &FileKeyring) -> Result<Finding, Error> {
    match keyring.refresh().map_err(|error| (error.kind(), error)) {
        Ok(_) => Ok(Finding::Current),
        Err((ErrorKind::File(FileFault::RolledBack), _)) => Ok(Finding::RolledBack {
            held: keyring.generation(),
        }),
        Err((ErrorKind::File(FileFault::OtherKeyring), _)) => Ok(Finding::OtherKeyring),
        Err((_, error)) => Err(error),
    }
}
// ANCHOR_END: check

#[test]
fn a_rolled_back_keyring_opens_and_is_written_back_or_adopted() -> Result<(), Error> {
    use dekseal::{CmkVersion, EncryptionContext, Engine};

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keyring.json");
    let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 64]);
    let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    FileKeyring::create(&path, root()?)?.update(|keys| keys.create_key(key_id))?;
    let engine = Engine::new(FileKeyring::open(&path, root()?)?);
    assert_eq!(check(engine.keyring())?, Finding::Current);

    let backup = std::fs::read(&path).unwrap();
    engine.keyring().update(|keys| keys.rotate(&key_id))?;
    let newest = std::fs::read(&path).unwrap();
    let (dek, sealed) = engine.create_dek(&key_id, &EncryptionContext::none())?;
    std::fs::write(&path, &backup).unwrap();

    let held = engine.keyring().generation();
    assert_eq!(check(engine.keyring())?, Finding::RolledBack { held });
    // ANCHOR: held
    // Held keys still open.
    assert_eq!(engine.decrypt_dek(&key_id, &EncryptionContext::none(), &sealed)?, dek);
    // Sealing and changing keys is refused.
    let error = engine.create_dek(&key_id, &EncryptionContext::none()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RollbackUnresolved);
    // ANCHOR_END: held

    // The newest file is put back.
    std::fs::write(&path, &newest).unwrap();
    assert_eq!(check(engine.keyring())?, Finding::Current);
    engine.create_dek(&key_id, &EncryptionContext::none())?;

    // This process holds the newest keys.
    std::fs::write(&path, &backup).unwrap();
    assert_eq!(check(engine.keyring())?, Finding::RolledBack { held });
    // ANCHOR: write_back
    engine.keyring().write_back()?;
    // ANCHOR_END: write_back
    engine.create_dek(&key_id, &EncryptionContext::none())?;
    let again = Engine::new(FileKeyring::open(&path, root()?)?);
    assert_eq!(again.decrypt_dek(&key_id, &EncryptionContext::none(), &sealed)?, dek);

    // The file is right, and what this process holds is given up.
    std::fs::write(&path, &backup).unwrap();
    assert!(matches!(check(engine.keyring())?, Finding::RolledBack { .. }));
    // ANCHOR: adopt
    engine.keyring().adopt()?;
    // ANCHOR_END: adopt
    let error = engine
        .decrypt_dek(&key_id, &EncryptionContext::none(), &sealed)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownKeyVersion);
    Ok(())
}

#[test]
fn another_keyring_is_named() -> Result<(), Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = |name| directory.path().join(name);
    let root = || dekseal::CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 64]);
    let keyring = FileKeyring::create(path("a"), root()?)?;
    FileKeyring::create(path("b"), root()?)?;
    std::fs::copy(path("b"), path("a")).unwrap();
    assert_eq!(check(&keyring)?, Finding::OtherKeyring);
    Ok(())
}
