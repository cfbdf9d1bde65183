//! A call that names a key or a version that is not in memory reads the file before it reports that it is unknown.

use std::{
    fs::{self, File, FileTimes},
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, SystemTime},
};

use dekseal::{EncryptionContext, Engine, ErrorKind, FileFault, FileKeyring, KeyId, Keyring};

use crate::{
    keyring_file::{directory, root},
    support::{KEY_ID, NOW, OTHER_KEY_ID, key_id, time},
};

fn open(path: &Path) -> FileKeyring {
    FileKeyring::open(path, root()).unwrap()
}

/// A keyring with one key of version 0.
fn one_key(path: &Path) -> FileKeyring {
    let keyring = FileKeyring::create(path, root()).unwrap();
    import(&keyring, KEY_ID);
    keyring
}

fn import(keyring: &FileKeyring, id: &str) {
    keyring
        .update(|keys| keys.import_key_at(key_id(id), &[1; 32], time(NOW)))
        .unwrap();
}

fn seals(keyring: &FileKeyring, id: &str) -> Result<u32, ErrorKind> {
    let version = keyring.with_current(&key_id(id), |cmk| cmk.key_version());
    version.map_err(|error| error.kind())
}

fn opens(keyring: &FileKeyring, id: &str, version: u32) -> Result<u32, ErrorKind> {
    let version = keyring.with_version(&key_id(id), version, |cmk| cmk.key_version());
    version.map_err(|error| error.kind())
}

fn set_modified(path: &Path, modified: SystemTime) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
}

/// The same file with the same length and time of modification, but with other bytes: reading it fails.
fn spoil(path: &Path) -> Vec<u8> {
    let (good, modified) = (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap());
    fs::write(path, vec![b'x'; good.len()]).unwrap();
    set_modified(path, modified);
    good
}

fn long_ago() -> SystemTime {
    SystemTime::now() - Duration::from_secs(3)
}

const UNREADABLE: ErrorKind = ErrorKind::File(FileFault::NotAKeyring);

#[test]
fn what_one_process_seals_opens_in_another_at_once() {
    let (_directory, path) = directory();
    let ours = Engine::new(one_key(&path));
    let theirs = Engine::new(open(&path));
    let (id, none) = (key_id(KEY_ID), EncryptionContext::none());
    for version in 1..4 {
        ours.keyring().update(|keys| keys.rotate(&id)).unwrap();
        let (dek, sealed) = ours.create_dek(&id, &none).unwrap();
        assert_eq!(sealed.key_version(), version);
        assert_eq!(theirs.decrypt_dek(&id, &none, &sealed).unwrap(), dek);
        assert_eq!(theirs.keyring().generation(), ours.keyring().generation());
    }
    // A new key also seals and opens.
    import(ours.keyring(), OTHER_KEY_ID);
    let (dek, sealed) = theirs.create_dek(&key_id(OTHER_KEY_ID), &none).unwrap();
    assert_eq!(ours.decrypt_dek(&key_id(OTHER_KEY_ID), &none, &sealed).unwrap(), dek);
    // A key that is not in the file either is unknown.
    assert_eq!(opens(theirs.keyring(), KEY_ID, 4), Err(ErrorKind::UnknownKeyVersion));
    assert_eq!(
        seals(theirs.keyring(), "43e243b5-0095-1b21-67b2-58370386cc4a"),
        Err(ErrorKind::UnknownKey)
    );
}

#[test]
fn forged_ids_cost_no_read_of_a_file_that_nobody_changes() {
    let (_directory, path) = directory();
    let keyring = one_key(&path);
    set_modified(&path, long_ago());
    assert!(!keyring.refresh().unwrap());
    let refreshed = keyring.last_refreshed();
    let good = spoil(&path);
    for _ in 0..100 {
        assert_eq!(
            seals(&keyring, KeyId::generate().unwrap().as_str()),
            Err(ErrorKind::UnknownKey)
        );
        assert_eq!(opens(&keyring, KEY_ID, 1), Err(ErrorKind::UnknownKeyVersion));
    }
    assert_eq!(keyring.last_refreshed(), refreshed);

    // A file with another time of modification, another length or another inode is read.
    let spoilt = fs::read(&path).unwrap();
    set_modified(&path, SystemTime::now());
    assert_eq!(seals(&keyring, OTHER_KEY_ID), Err(UNREADABLE));
    for change in [
        |path: &Path, _: &[u8]| drop(File::options().write(true).open(path).unwrap().set_len(10)),
        |path: &Path, spoilt: &[u8]| {
            let other = path.with_extension("other");
            fs::write(&other, spoilt).unwrap();
            fs::rename(other, path).unwrap();
        },
    ] {
        let modified = long_ago();
        fs::write(&path, &good).unwrap();
        set_modified(&path, modified);
        assert!(!keyring.refresh().unwrap());
        change(&path, &spoilt);
        set_modified(&path, modified);
        assert!(matches!(seals(&keyring, OTHER_KEY_ID), Err(ErrorKind::File(_))));
    }
    // The file was read, and its age is the same as before, so after this it need not be read again.
    fs::write(&path, &good).unwrap();
    set_modified(&path, long_ago());
    assert_eq!(seals(&keyring, OTHER_KEY_ID), Err(ErrorKind::UnknownKey));
    spoil(&path);
    assert_eq!(seals(&keyring, OTHER_KEY_ID), Err(ErrorKind::UnknownKey));
}

#[test]
fn a_removed_file_counts_as_changed() {
    let (_directory, path) = directory();
    let keyring = one_key(&path);
    set_modified(&path, long_ago());
    assert!(!keyring.refresh().unwrap());
    fs::remove_file(&path).unwrap();
    assert_eq!(seals(&keyring, OTHER_KEY_ID), Err(ErrorKind::File(FileFault::Io)));
}

/// Its time of modification is too coarse to show another change.
#[test]
fn a_file_that_was_young_when_it_was_read_is_read_again() {
    let (_directory, path) = directory();
    let keyring = one_key(&path);
    set_modified(&path, SystemTime::now() - Duration::from_secs(1));
    assert!(!keyring.refresh().unwrap());
    let good = spoil(&path);
    assert_eq!(seals(&keyring, OTHER_KEY_ID), Err(UNREADABLE));
    // The present age of the file does not matter.
    fs::write(&path, good).unwrap();
    let modified = SystemTime::now() - Duration::from_millis(1500);
    set_modified(&path, modified);
    assert_eq!(seals(&keyring, OTHER_KEY_ID), Err(ErrorKind::UnknownKey));
    thread::sleep(Duration::from_millis(700));
    spoil(&path);
    assert_eq!(seals(&keyring, OTHER_KEY_ID), Err(UNREADABLE));
    // A time in the future is not trusted either.
    let (_directory, path) = directory();
    let keyring = one_key(&path);
    set_modified(&path, SystemTime::now() + Duration::from_secs(3600));
    assert!(!keyring.refresh().unwrap());
    spoil(&path);
    assert_eq!(seals(&keyring, OTHER_KEY_ID), Err(UNREADABLE));
}

#[test]
fn a_file_that_cannot_be_read_answers_for_unknown_keys_alone() {
    let (_directory, path) = directory();
    let keyring = one_key(&path);
    keyring
        .update(|keys| {
            keys.rotate(&key_id(KEY_ID))?;
            keys.set_min_version(&key_id(KEY_ID), 1)?;
            keys.force_destroy_versions(&key_id(KEY_ID), 1)?;
            keys.import_key_at(key_id(OTHER_KEY_ID), &[1; 32], time(NOW))?;
            keys.disable(&key_id(OTHER_KEY_ID))
        })
        .unwrap();
    let held = || {
        assert_eq!(seals(&keyring, KEY_ID), Ok(1));
        assert_eq!(opens(&keyring, KEY_ID, 1), Ok(1));
        // No version below the newest one can be new.
        assert_eq!(opens(&keyring, KEY_ID, 0), Err(ErrorKind::KeyVersionDestroyed));
        assert_eq!(seals(&keyring, OTHER_KEY_ID), Err(ErrorKind::KeyDisabled));
    };
    let unknown = "43e243b5-0095-1b21-67b2-58370386cc4a";
    let good = spoil(&path);
    for (expected, make) in [
        (UNREADABLE, (|_| ()) as fn(&Path)),
        (ErrorKind::File(FileFault::Truncated), |path| {
            fs::write(path, "{").unwrap()
        }),
        (ErrorKind::File(FileFault::Io), |path| fs::remove_file(path).unwrap()),
    ] {
        make(&path);
        assert_eq!(seals(&keyring, unknown), Err(expected));
        let error = keyring.with_version(&key_id(KEY_ID), 2, |_| ()).unwrap_err();
        assert_eq!((error.kind(), error.path()), (expected, Some(&*path)));
        held();
    }
    fs::write(&path, good).unwrap();
    assert_eq!(seals(&keyring, unknown), Err(ErrorKind::UnknownKey));
    held();
}

/// The host must decide whether the key exists on the other branch.
#[test]
fn a_lookup_that_finds_a_rollback_reports_it_until_it_is_resolved() {
    let (_directory, path) = directory();
    let keyring = one_key(&path);
    let older = fs::read(&path).unwrap();
    keyring.update(|keys| keys.rotate(&key_id(KEY_ID))).unwrap();
    let newer = fs::read(&path).unwrap();
    for modified in [SystemTime::now(), long_ago()] {
        fs::write(&path, &older).unwrap();
        set_modified(&path, modified);
        assert_eq!(seals(&keyring, KEY_ID), Ok(1), "nobody has looked yet");
        for _ in 0..3 {
            assert_eq!(opens(&keyring, KEY_ID, 2), Err(ErrorKind::RollbackUnresolved));
            assert_eq!(seals(&keyring, KEY_ID), Err(ErrorKind::RollbackUnresolved));
            assert_eq!(seals(&keyring, OTHER_KEY_ID), Err(ErrorKind::RollbackUnresolved));
            assert_eq!(opens(&keyring, KEY_ID, 1), Ok(1));
        }
        let refreshed = keyring.refresh().unwrap_err();
        assert_eq!(refreshed.kind(), ErrorKind::File(FileFault::RolledBack));
        // The newer file is restored, and a look-up finds it.
        fs::write(&path, &newer).unwrap();
        assert_eq!(opens(&keyring, KEY_ID, 2), Err(ErrorKind::UnknownKeyVersion));
        assert_eq!(seals(&keyring, KEY_ID), Ok(1));
    }
}

/// The update holds the lock that a look-up takes to read the file. If it waited for itself, this test would never end.
#[test]
fn the_closure_of_update_may_look_keys_up() {
    let (_directory, path) = directory();
    let keyring = one_key(&path);
    let id = key_id(KEY_ID);
    keyring
        .update(|keys| {
            assert_eq!(seals(&keyring, OTHER_KEY_ID), Err(ErrorKind::UnknownKey));
            assert_eq!(opens(&keyring, KEY_ID, 1), Err(ErrorKind::UnknownKeyVersion));
            keys.rotate(&id)?;
            // The key cannot be used before it is written.
            assert_eq!(opens(&keyring, KEY_ID, 1), Err(ErrorKind::UnknownKeyVersion));
            Ok(())
        })
        .unwrap();
    // After the update, this thread reads the file as any other does, even if a closure panicked.
    let panicked = thread::scope(|scope| {
        let thread = scope.spawn(|| keyring.update(|_| -> Result<(), _> { panic!("on purpose") }));
        thread.join()
    });
    assert!(panicked.is_err());
    spoil(&path);
    assert_eq!(seals(&keyring, OTHER_KEY_ID), Err(UNREADABLE));
}

/// Whoever holds the lock, a thread whose update has ended looks at the file.
#[test]
fn an_update_that_has_ended_is_not_taken_for_one_under_way() {
    let (_directory, path) = directory();
    let keyring = one_key(&path);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        keyring.update(|_| -> Result<(), _> { panic!("on purpose") })
    }));
    assert!(panicked.is_err());
    // It takes a while to read.
    fs::write(&path, vec![b' '; 1 << 20]).unwrap();
    thread::scope(|scope| {
        let refreshing = scope.spawn(|| {
            for _ in 0..20 {
                keyring.refresh().unwrap_err();
            }
        });
        while !refreshing.is_finished() {
            assert_eq!(
                seals(&keyring, OTHER_KEY_ID),
                Err(ErrorKind::File(FileFault::Truncated))
            );
        }
    });
}

/// A lookup in another thread waits for the update, and finds what it made.
#[test]
fn a_lookup_waits_for_an_update_of_another_thread() {
    let (_directory, path) = directory();
    let keyring = one_key(&path);
    let (started, start) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let started = started;
            keyring.update(|keys| {
                keys.rotate(&key_id(KEY_ID))?;
                started.send(()).unwrap();
                thread::sleep(Duration::from_millis(100));
                Ok(())
            })
        });
        start.recv().unwrap();
        // A look-up of a key in memory does not wait.
        assert_eq!(seals(&keyring, KEY_ID), Ok(0));
        assert_eq!(opens(&keyring, KEY_ID, 1), Ok(1));
    });
}

/// It does not wait for a writer in another process either, which may take long, although an update of this process
/// does.
#[test]
fn a_lookup_waits_for_no_other_process() {
    let (_directory, path) = directory();
    let keyring = one_key(&path);
    let lock = File::options()
        .write(true)
        .open(path.with_file_name(".keyring.json.lock"))
        .unwrap();
    lock.lock().unwrap();
    thread::scope(|scope| {
        let update = scope.spawn(|| keyring.update(|keys| keys.rotate(&key_id(KEY_ID))));
        thread::sleep(Duration::from_millis(50));
        let lookup = scope.spawn(|| opens(&keyring, KEY_ID, 9));
        let found = (0..100).find(|_| {
            thread::sleep(Duration::from_millis(20));
            lookup.is_finished()
        });
        lock.unlock().unwrap();
        assert!(found.is_some(), "it waited");
        assert_eq!(lookup.join().unwrap(), Err(ErrorKind::UnknownKeyVersion));
        assert_eq!(update.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn a_key_that_is_found_in_memory_is_not_looked_for() {
    let (_directory, path) = directory();
    let (keyring, other) = (one_key(&path), open(&path));
    other.update(|keys| keys.disable(&key_id(KEY_ID))).unwrap();
    assert_eq!(seals(&keyring, KEY_ID), Ok(0), "seen with the next read");
    assert_eq!(seals(&keyring, OTHER_KEY_ID), Err(ErrorKind::UnknownKey));
    assert_eq!(seals(&keyring, KEY_ID), Err(ErrorKind::KeyDisabled));
}
