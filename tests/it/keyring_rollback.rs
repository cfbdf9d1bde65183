//! The behaviour of a process when its keyring file goes back, branches or is swapped: FORMAT.md C6.

use std::{fs, path::Path, thread, time::Duration};

use dekseal::{CmkVersion, EncryptionContext, Error, ErrorKind, FileFault, FileKeyring, Keyring, SealedDek};

use crate::{
    keyring_file::{directory, root},
    support::{KEY_ID, NOW, OTHER_KEY_ID, cmk, dek, key_id, time},
};

fn open(path: &Path) -> FileKeyring {
    FileKeyring::open(path, root()).unwrap()
}

/// A keyring with one key of version 0.
fn one_key(path: &Path) -> FileKeyring {
    let keyring = FileKeyring::create(path, root()).unwrap();
    import(&keyring, 1);
    keyring
}

/// Creates `KEY_ID`, or its next version, with this material.
fn import(keyring: &FileKeyring, material: u8) {
    let id = key_id(KEY_ID);
    let imported = keyring.update(|keys| match keys.info(&id) {
        Ok(_) => keys.import_version_at(&id, &[material; 32], time(NOW)).map(drop),
        Err(_) => keys.import_key_at(id, &[material; 32], time(NOW)),
    });
    imported.unwrap();
}

fn kind<T>(result: Result<T, Error>) -> Result<T, ErrorKind> {
    result.map_err(|error| error.kind())
}

const ROLLED_BACK: ErrorKind = ErrorKind::File(FileFault::RolledBack);

/// Seals under the current version of `KEY_ID` and opens the blob. Returns the blob or the error.
fn seals(keyring: &FileKeyring) -> Result<SealedDek, ErrorKind> {
    kind(keyring.with_current(&key_id(KEY_ID), seal))
}

fn opens(keyring: &FileKeyring, version: u32) -> Result<SealedDek, ErrorKind> {
    kind(keyring.with_version(&key_id(KEY_ID), version, seal))
}

fn seal(cmk: &CmkVersion) -> SealedDek {
    cmk.seal(&EncryptionContext::none(), &dek(&"5a".repeat(64)))
}

fn of_material(version: u32, material: u8) -> SealedDek {
    seal(&cmk(KEY_ID, version, &[material; 32]))
}

/// Asserts that the keyring opens as before, and neither seals, changes nor writes.
fn is_suspended(keyring: &FileKeyring, path: &Path, newest: u32, material: u8) {
    let before = fs::read(path).unwrap();
    assert_eq!(seals(keyring), Err(ErrorKind::RollbackUnresolved));
    assert_eq!(opens(keyring, newest), Ok(of_material(newest, material)));
    assert_eq!(kind(keyring.update(|_| Ok(()))), Err(ErrorKind::RollbackUnresolved));
    let changed = keyring.change_root(cmk("00000000-0000-0000-0000-00000000root", 9, &[9; 32]));
    assert_eq!(changed.as_ref().unwrap_err().path(), Some(path));
    assert_eq!(kind(changed), Err(ErrorKind::RollbackUnresolved));
    assert_eq!(fs::read(path).unwrap(), before);
}

#[test]
fn after_a_rollback_nothing_is_sealed_until_the_file_is_put_back() {
    let (_directory, path) = directory();
    let keyring = one_key(&path);
    let older = fs::read(&path).unwrap();
    import(&keyring, 2);
    let newer = fs::read(&path).unwrap();
    fs::write(&path, older).unwrap();

    let refused = keyring.refresh().unwrap_err();
    assert_eq!((refused.kind(), refused.path()), (ROLLED_BACK, Some(&*path)));
    let source = std::error::Error::source(&refused).unwrap().to_string();
    assert_eq!(source, "generation 2 after generation 3");
    is_suspended(&keyring, &path, 1, 2);
    assert_eq!(kind(keyring.refresh()), Err(ROLLED_BACK));

    fs::write(&path, newer).unwrap();
    assert_eq!(kind(keyring.refresh()), Ok(false));
    assert_eq!(seals(&keyring), Ok(of_material(1, 2)));
    import(&keyring, 3);
}

/// C6: the text does not matter, the state does.
#[test]
fn the_state_that_is_held_ends_a_rollback_in_any_text() {
    let (_directory, path) = directory();
    let keyring = one_key(&path);
    let older = fs::read(&path).unwrap();
    import(&keyring, 2);
    let mut newer = fs::read(&path).unwrap();
    fs::write(&path, older).unwrap();
    assert_eq!(kind(keyring.refresh()), Err(ROLLED_BACK));
    let refreshed = keyring.last_refreshed();
    newer.push(b' ');
    fs::write(&path, newer).unwrap();
    assert_eq!(kind(keyring.refresh()), Ok(false));
    assert_eq!(seals(&keyring), Ok(of_material(1, 2)));
    assert!(keyring.last_refreshed() > refreshed);
}

/// A branch that contradicts nothing, once it was seen to be one: only the host knows what it lacks.
#[test]
fn after_a_rollback_no_later_state_is_taken_up_unasked() {
    let (_directory, path) = directory();
    let ours = one_key(&path);
    let older = fs::read(&path).unwrap();
    ours.update(|keys| keys.disable(&key_id(KEY_ID))).unwrap();
    fs::write(&path, older).unwrap();
    assert_eq!(kind(ours.refresh()), Err(ROLLED_BACK));
    let theirs = open(&path);
    import(&theirs, 2);
    import(&theirs, 3);
    assert!(theirs.generation() > ours.generation());
    assert_eq!(kind(ours.refresh()), Err(ROLLED_BACK));
    assert_eq!(ours.generation(), 3);
    ours.adopt().unwrap();
    assert_eq!(seals(&ours), Ok(of_material(2, 3)));
}

#[test]
fn an_update_that_finds_the_rollback_stops_sealing_too() {
    let (_directory, path) = directory();
    let keyring = one_key(&path);
    let older = fs::read(&path).unwrap();
    import(&keyring, 2);
    fs::write(&path, &older).unwrap();
    assert_eq!(kind(keyring.update(|_| Ok(()))), Err(ROLLED_BACK));
    is_suspended(&keyring, &path, 1, 2);
}

/// A branch that has grown beyond the state that was seen. Only its material shows that it is a branch.
#[test]
fn a_restored_branch_that_is_ahead_is_refused() {
    let (_directory, path) = directory();
    let ours = one_key(&path);
    let older = fs::read(&path).unwrap();
    import(&ours, 2);
    fs::write(&path, older).unwrap();
    let theirs = open(&path);
    import(&theirs, 3);
    import(&theirs, 4);
    assert!(theirs.generation() > ours.generation());

    let refused = ours.refresh().unwrap_err();
    assert_eq!(refused.kind(), ROLLED_BACK);
    assert_eq!(refused.key_id(), Some(key_id(KEY_ID)));
    assert_eq!(
        (refused.key_version(), refused.newest_key_version()),
        (Some(1), Some(2))
    );
    is_suspended(&ours, &path, 1, 2);

    // It is not accepted later either, however high its generation becomes.
    for material in 5..8 {
        import(&theirs, material);
        assert_eq!(kind(ours.refresh()), Err(ROLLED_BACK));
    }
    is_suspended(&ours, &path, 1, 2);
}

/// The branch contradicts no version that this process holds, but lacks one that this process sealed under.
#[test]
fn a_branch_that_lacks_a_version_is_refused() {
    let (_directory, path) = directory();
    let ours = one_key(&path);
    let older = fs::read(&path).unwrap();
    import(&ours, 2);
    fs::write(&path, older).unwrap();
    let theirs = open(&path);
    for _ in 0..3 {
        theirs.update(|_| Ok(())).unwrap();
    }
    let refused = ours.refresh().unwrap_err();
    assert_eq!(refused.kind(), ROLLED_BACK);
    assert_eq!(
        (refused.key_version(), refused.newest_key_version()),
        (Some(1), Some(0))
    );
    is_suspended(&ours, &path, 1, 2);
}

#[test]
fn destroyed_versions_and_purged_keys_are_no_branch() {
    let (_directory, path) = directory();
    let (id, other) = (key_id(KEY_ID), key_id(OTHER_KEY_ID));
    let ours = one_key(&path);
    import(&ours, 2);
    ours.update(|keys| keys.import_key(other, &[7; 32])).unwrap();
    let theirs = open(&path);
    theirs
        .update(|keys| {
            keys.set_min_version(&id, 1)?;
            assert_eq!(keys.force_destroy_versions(&id, 1)?, 1);
            let at = keys.schedule_deletion_at(&other, 7, time(NOW))?;
            keys.purge_at(&other, at)
        })
        .unwrap();
    assert_eq!(kind(ours.refresh()), Ok(true));
    assert_eq!(opens(&ours, 0), Err(ErrorKind::KeyVersionDestroyed));
    assert_eq!(opens(&ours, 1), Ok(of_material(1, 2)));
    assert_eq!(kind(ours.keys().info(&other)), Err(ErrorKind::UnknownKey));
}

/// A process that missed the purge sees only that a version it holds has other material.
#[test]
fn a_key_that_was_purged_and_made_again_is_refused_by_a_process_that_holds_the_old_one() {
    let (_directory, path) = directory();
    let (ours, theirs) = (one_key(&path), open(&path));
    let id = key_id(KEY_ID);
    theirs
        .update(|keys| {
            let at = keys.schedule_deletion_at(&id, 7, time(NOW))?;
            keys.purge_at(&id, at)
        })
        .unwrap();
    let absent = open(&path);
    import(&theirs, 9);

    assert_eq!(kind(ours.refresh()), Err(ROLLED_BACK));
    is_suspended(&ours, &path, 0, 1);
    ours.adopt().unwrap();
    assert_eq!(seals(&ours), Ok(of_material(0, 9)));
    // A process that saw the purge accepts the new key.
    assert_eq!(kind(absent.refresh()), Ok(true));
    assert_eq!(seals(&absent), Ok(of_material(0, 9)));
    // With the same material nothing is lost, so nothing is refused.
    ours.update(|keys| {
        let at = keys.schedule_deletion_at(&id, 7, time(NOW))?;
        keys.purge_at(&id, at)?;
        keys.import_key(id, &[9; 32])
    })
    .unwrap();
    assert_eq!(kind(theirs.refresh()), Ok(true));
}

#[test]
fn two_files_under_one_root_cannot_be_swapped() {
    let (_directory, path) = directory();
    let (_other_directory, other_path) = directory();
    let keyring = one_key(&path);
    let other = FileKeyring::create(&other_path, root()).unwrap();
    for material in 5..9 {
        import(&other, material);
    }
    let own = fs::read(&path).unwrap();
    let others = fs::read(&other_path).unwrap();
    fs::write(&path, &others).unwrap();

    let other_keyring = ErrorKind::File(FileFault::OtherKeyring);
    assert_eq!(kind(keyring.refresh()), Err(other_keyring));
    is_suspended(&keyring, &path, 0, 1);
    // The file may be the only copy of the other keyring.
    assert_eq!(kind(keyring.write_back()), Err(other_keyring));
    assert_eq!(fs::read(&path).unwrap(), others);
    fs::write(&path, own).unwrap();
    assert_eq!(kind(keyring.refresh()), Ok(false));
    assert_eq!(seals(&keyring), Ok(of_material(0, 1)));

    fs::write(&path, &others).unwrap();
    keyring.adopt().unwrap();
    assert_eq!(seals(&keyring), Ok(of_material(3, 8)));
}

#[test]
fn adopt_takes_what_the_file_has() {
    let (_directory, path) = directory();
    let keyring = one_key(&path);
    let older = fs::read(&path).unwrap();
    import(&keyring, 2);
    fs::write(&path, older).unwrap();
    assert_eq!(kind(keyring.refresh()), Err(ROLLED_BACK));
    keyring.adopt().unwrap();
    assert_eq!(keyring.generation(), 2);
    assert_eq!(seals(&keyring), Ok(of_material(0, 1)));
    assert_eq!(opens(&keyring, 1), Err(ErrorKind::UnknownKeyVersion));
    import(&keyring, 3);
    assert_eq!(seals(&open(&path)), Ok(of_material(1, 3)));

    // A file that does not open is not adopted.
    fs::write(&path, "{}").unwrap();
    assert_eq!(kind(keyring.adopt()), Err(ErrorKind::File(FileFault::NotAKeyring)));
    assert_eq!(seals(&keyring), Ok(of_material(1, 3)));
}

#[test]
fn write_back_writes_what_is_held_above_both() {
    let (_directory, path) = directory();
    let ours = one_key(&path);
    let older = fs::read(&path).unwrap();
    import(&ours, 2);
    fs::write(&path, older).unwrap();
    let theirs = open(&path);
    for material in 3..6 {
        import(&theirs, material);
    }
    assert_eq!(kind(ours.refresh()), Err(ROLLED_BACK));
    let above = theirs.generation() + 1;
    assert!(above > ours.generation());
    ours.write_back().unwrap();
    assert_eq!(ours.generation(), above);
    for keyring in [&ours, &open(&path)] {
        assert_eq!(seals(keyring), Ok(of_material(1, 2)));
        assert_eq!(opens(keyring, 2), Err(ErrorKind::UnknownKeyVersion));
    }
    import(&ours, 7);
    // The other branch learns that it was abandoned.
    assert_eq!(kind(theirs.refresh()), Err(ROLLED_BACK));

    // The process that holds more versions has the lower generation.
    let (_directory, path) = directory();
    let ours = one_key(&path);
    let older = fs::read(&path).unwrap();
    for material in 2..6 {
        import(&ours, material);
    }
    fs::write(&path, older).unwrap();
    ours.write_back().unwrap();
    assert_eq!((ours.generation(), open(&path).generation()), (7, 7));
    assert_eq!(seals(&open(&path)), Ok(of_material(4, 5)));
}

#[test]
fn write_back_without_a_rollback_loses_nothing() {
    let (_directory, path) = directory();
    let (ours, theirs) = (one_key(&path), open(&path));
    import(&theirs, 2);
    let before = fs::read(&path).unwrap();
    ours.write_back().unwrap();
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(seals(&ours), Ok(of_material(1, 2)));

    // A file that cannot be read is kept, and a missing file is created.
    for text in ["", "{}", "{\"format\":\"dekseal keyring\",\"version\":2}"] {
        fs::write(&path, text).unwrap();
        let refused = ours.write_back().unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::File(_)));
        assert_eq!(refused.path(), Some(&*path));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    fs::write(&path, &before).unwrap();
    fs::remove_file(&path).unwrap();
    let missing = ours.refresh().unwrap_err();
    assert_eq!(
        (missing.kind(), missing.path()),
        (ErrorKind::File(FileFault::Io), Some(&*path))
    );
    fs::create_dir(&path).unwrap();
    assert_eq!(
        kind(ours.write_back()),
        Err(ErrorKind::File(FileFault::Io)),
        "it is not missing"
    );
    fs::remove_dir(&path).unwrap();
    ours.write_back().unwrap();
    assert_eq!(ours.generation(), 4);
    assert_eq!(kind(theirs.refresh()), Ok(true));
    assert_eq!(seals(&theirs), Ok(of_material(1, 2)));
}

/// Each `refresh` reads the file after the newest state was accepted, so none takes the success of another for a
/// rollback.
#[test]
fn concurrent_refreshes_see_no_rollback() {
    let (_directory, path) = directory();
    let (ours, theirs) = (one_key(&path), open(&path));
    thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| (0..200).try_for_each(|_| ours.refresh().map(drop))))
            .collect();
        for _ in 0..40 {
            theirs.update(|keys| keys.rotate(&key_id(KEY_ID))).unwrap();
            ours.update(|_| Ok(())).unwrap();
        }
        for reader in readers {
            reader.join().unwrap().unwrap();
        }
    });
    ours.refresh().unwrap();
    assert_eq!(ours.generation(), 82);
}

#[test]
fn the_time_of_the_last_refresh_is_available() {
    let (_directory, path) = directory();
    let keyring = one_key(&path);
    let (written, good) = (keyring.last_refreshed(), fs::read(&path).unwrap());
    thread::sleep(Duration::from_millis(20));
    let age = keyring.age();
    assert!(age >= Duration::from_millis(20), "{age:?}");

    // A failed refresh confirms nothing.
    fs::write(&path, "{").unwrap();
    keyring.refresh().unwrap_err();
    fs::remove_file(&path).unwrap();
    keyring.refresh().unwrap_err();
    keyring.update(|_| Ok(())).unwrap_err();
    assert_eq!(keyring.last_refreshed(), written);
    assert!(keyring.age() >= age);

    // Reading the same text confirms it, although nothing changes.
    fs::write(&path, good).unwrap();
    assert_eq!(kind(keyring.refresh()), Ok(false));
    let confirmed = keyring.last_refreshed();
    assert!(confirmed > written && keyring.age() < age);
    thread::sleep(Duration::from_millis(2));
    keyring.update(|_| Ok(())).unwrap();
    assert!(keyring.last_refreshed() > confirmed);
}
