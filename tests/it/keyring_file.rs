//! Keyring files: their contents, the files that are refused, and the state after a process dies.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use allocation_counter::measure;
use dekseal::{
    CmkVersion, EncryptionContext, Engine, ErrorKind, FileFault, FileKeyring, KeyId, KeyState, Keyring, Keyset,
    SealedDek,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    allocations::look_for_a_subscriber,
    support::{KEY_ID, NOW, OTHER_KEY_ID, cmk, dek, in_shell, key_id, this_test, time, vectors},
};

const ROOT_ID: &str = "00000000-0000-0000-0000-00000000root";
const THIRD_KEY_ID: &str = "43e243b5-0095-1b21-67b2-58370386cc4a";

pub(crate) fn root() -> CmkVersion {
    cmk(ROOT_ID, 0, &[0x77; 32])
}

/// In memory, if the system has such a directory: the tests are about killed processes, not about disks.
pub(crate) fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let path = directory.path().join("keyring.json");
    (directory, path)
}

/// Three keys: one with three versions, of which the first is retired; one disabled; one pending deletion.
fn three_keys(path: &Path) -> FileKeyring {
    let keyring = FileKeyring::create(path, root()).unwrap();
    keyring
        .update(|keys| {
            keys.import_key(key_id(KEY_ID), &[1; 32])?;
            keys.import_version(&key_id(KEY_ID), &[2; 64])?;
            keys.import_version(&key_id(KEY_ID), &[3; 45])?;
            keys.set_min_version(&key_id(KEY_ID), 1)?;
            keys.import_key(key_id(OTHER_KEY_ID), &[4; 64])?;
            keys.disable(&key_id(OTHER_KEY_ID))?;
            keys.import_key(key_id(THIRD_KEY_ID), &[5; 64])?;
            keys.schedule_deletion_at(&key_id(THIRD_KEY_ID), 30, time(NOW))?;
            Ok(())
        })
        .unwrap();
    keyring
}

fn open(path: &Path) -> Result<FileKeyring, ErrorKind> {
    FileKeyring::open(path, root()).map_err(|error| error.kind())
}

fn fault(fault: FileFault) -> ErrorKind {
    ErrorKind::File(fault)
}

/// The result of sealing a DEK under each key: the blob or the error.
fn behaviour(keyring: &impl Keyring) -> Vec<Result<SealedDek, ErrorKind>> {
    let dek = dek(&"5a".repeat(64));
    let none = EncryptionContext::none();
    let of = |id: &str, version: Option<u32>| match version {
        None => keyring
            .with_current(&key_id(id), |cmk| cmk.seal(&none, &dek))
            .map_err(|error| error.kind()),
        Some(v) => keyring
            .with_version(&key_id(id), v, |cmk| cmk.seal(&none, &dek))
            .map_err(|error| error.kind()),
    };
    [KEY_ID, OTHER_KEY_ID, THIRD_KEY_ID]
        .iter()
        .flat_map(|id| {
            [
                of(id, None),
                of(id, Some(0)),
                of(id, Some(1)),
                of(id, Some(2)),
                of(id, Some(3)),
            ]
        })
        .collect()
}

#[test]
fn what_is_written_is_read() {
    let (_directory, path) = directory();
    let written = three_keys(&path);
    let read = open(&path).unwrap();
    assert_eq!(read.generation(), 2);
    assert_eq!(read.keys().list(), written.keys().list());
    assert_eq!(behaviour(&read), behaviour(&written));
    let seals = |version: u32, material: &[u8]| {
        Ok(cmk(KEY_ID, version, material).seal(&EncryptionContext::none(), &dek(&"5a".repeat(64))))
    };
    assert_eq!(
        behaviour(&read)[..5],
        [
            seals(2, &[3; 45]),
            Err(ErrorKind::KeyVersionRetired),
            seals(1, &[2; 64]),
            seals(2, &[3; 45]),
            Err(ErrorKind::UnknownKeyVersion)
        ]
    );
    let states: Vec<_> = read.keys().list().iter().map(|info| info.state).collect();
    assert_eq!(
        states,
        [
            KeyState::Enabled,
            KeyState::Disabled,
            KeyState::PendingDeletion {
                at: time(NOW + 30 * 86_400)
            }
        ]
    );
}

/// A change in tests/vectors/keyring.json.
#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields, tag = "do")]
pub(crate) enum Change {
    ImportKey { key_id: String, material: String, now: u64 },
    ImportVersion { key_id: String, material: String, now: u64 },
    SetMinVersion { key_id: String, version: u32 },
    DestroyVersions { key_id: String, version: u32 },
    Enable { key_id: String },
    Disable { key_id: String },
    ScheduleDeletion { key_id: String, days: u32, now: u64 },
    Purge { key_id: String, now: u64 },
}

impl Change {
    pub(crate) fn apply(&self, keys: &mut Keyset) -> Result<(), dekseal::Error> {
        let bytes = |digits: &str| hex::decode(digits).unwrap();
        match self {
            Self::ImportKey {
                key_id: id,
                material,
                now,
            } => keys.import_key_at(key_id(id), &bytes(material), time(*now)),
            Self::ImportVersion {
                key_id: id,
                material,
                now,
            } => keys
                .import_version_at(&key_id(id), &bytes(material), time(*now))
                .map(drop),
            Self::SetMinVersion { key_id: id, version } => keys.set_min_version(&key_id(id), *version),
            Self::DestroyVersions { key_id: id, version } => {
                assert_eq!(keys.force_destroy_versions(&key_id(id), *version)?, 1);
                Ok(())
            }
            Self::Enable { key_id: id } => keys.enable(&key_id(id)),
            Self::Disable { key_id: id } => keys.disable(&key_id(id)),
            Self::ScheduleDeletion { key_id: id, days, now } => {
                keys.schedule_deletion_at(&key_id(id), *days, time(*now)).map(drop)
            }
            Self::Purge { key_id: id, now } => keys.purge_at(&key_id(id), time(*now)),
        }
    }
}

#[test]
fn a_known_file_is_read_and_written_to_the_byte() {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vector {
        root_key_id: String,
        root_key_version: u32,
        root_material: String,
        check: String,
        mac_key: String,
        message: String,
        file: Value,
        keys: Vec<Material>,
        changes: Vec<Change>,
        after: After,
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct After {
        message: String,
        file: Value,
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Material {
        key_id: String,
        version: u32,
        material: String,
    }
    let v: Vector = vectors("keyring");
    let bytes = |digits: &str| hex::decode(digits).unwrap();
    // The MAC, computed with the primitives and not with the crate.
    for (file, message) in [(&v.file, &v.message), (&v.after.file, &v.after.message)] {
        use hmac::{KeyInit, Mac};
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&bytes(&v.mac_key)).unwrap();
        mac.update(&bytes(message));
        assert_eq!(file["mac"], hex::encode_upper(mac.finalize().into_bytes()));
        assert_eq!(file["root"]["check"], v.check);
    }

    let (_directory, path) = directory();
    fs::write(&path, serde_json::to_string_pretty(&v.file).unwrap()).unwrap();
    let root = cmk(&v.root_key_id, v.root_key_version, &bytes(&v.root_material));
    let keyring = FileKeyring::open(&path, root).unwrap();
    assert_eq!(keyring.generation(), v.file["generation"].as_u64().unwrap());

    // Each version has the material that the vector names.
    let (none, dek) = (EncryptionContext::none(), dek(&"5a".repeat(64)));
    let infos: Vec<_> = keyring.keys().list();
    let entries = v.file["keys"].as_array().unwrap();
    assert_eq!(infos.len(), entries.len());
    keyring
        .update(|keys| {
            // A copy of the keys in which every key and version is in use.
            let mut count = 0;
            for (info, entry) in infos.iter().zip(entries) {
                let id = info.key_id;
                assert_eq!(entry["key_id"], id.as_str());
                assert_eq!(entry["min_version"], info.min_version);
                match info.state {
                    KeyState::PendingDeletion { at } => {
                        assert_eq!(entry["deletion"], date(at));
                        keys.cancel_deletion(&id)?;
                        keys.enable(&id)?;
                    }
                    KeyState::Disabled => keys.enable(&id)?,
                    _ => assert_eq!(entry["state"], "enabled"),
                }
                let versions = keys.versions(&id)?;
                keys.set_min_version(&id, versions[0].key_version)?;
                for (info, entry) in versions.iter().zip(entry["versions"].as_array().unwrap()) {
                    assert_eq!(entry["version"], info.key_version);
                    assert_eq!(entry["created"], date(info.created.unwrap()));
                    let known = v
                        .keys
                        .iter()
                        .find(|key| key.key_id == id.as_str() && key.version == info.key_version);
                    let same = cmk(id.as_str(), info.key_version, &bytes(&known.unwrap().material));
                    let copy = dekseal::MemoryKeyring::new(keys.clone());
                    let sealed = copy.with_version(&id, info.key_version, |cmk| cmk.seal(&none, &dek));
                    assert_eq!(sealed.unwrap(), same.seal(&none, &dek));
                    count += 1;
                }
            }
            assert_eq!(count, v.keys.len());
            Err::<(), _>(ErrorKind::Keyring.into())
        })
        .unwrap_err();

    // The same changes give the same bytes.
    keyring
        .update(|keys| {
            v.changes.iter().try_for_each(|change| change.apply(keys))?;
            Ok(())
        })
        .unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), v.after.file);
    // For people and their tools: one field on each line, and a newline at the end.
    assert!(text.starts_with("{\n  \"format\": \"dekseal keyring\",\n  \"version\": 1,\n  \"id\": "));
    assert!(text.ends_with("\"\n}\n"));
}

/// The date in the form of the file.
fn date(time: dekseal::UnixTime) -> String {
    humantime::format_rfc3339_seconds(time.into()).to_string()
}

#[test]
fn a_file_is_made_once_and_for_its_owner() {
    let (directory, path) = directory();
    three_keys(&path);
    let again = FileKeyring::create(&path, root());
    assert_eq!(again.unwrap_err().kind(), fault(FileFault::Exists));
    assert_eq!(open(&path).unwrap().keys().list().len(), 3);
    #[cfg(unix)]
    for entry in fs::read_dir(directory.path()).unwrap() {
        use std::os::unix::fs::PermissionsExt;
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{:?}",
            entry.path()
        );
    }
    let names: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "the keyring and its lock: {names:?}");
}

#[test]
fn no_material_stands_in_the_file() {
    let (_directory, path) = directory();
    let keyring = FileKeyring::create(&path, root()).unwrap();
    let material = *b"S3cretS3cretS3cretS3cretS3cret0000111122223333444455556666777788";
    keyring
        .update(|keys| keys.import_key(key_id(KEY_ID), &material))
        .unwrap();
    let text = fs::read_to_string(&path).unwrap();
    for form in [
        hex::encode(&material[..8]),
        hex::encode_upper(&material[..8]),
        "S3cretS3".to_owned(),
    ] {
        assert!(!text.contains(&form), "{text}");
    }
    assert!(format!("{keyring:?}").starts_with("FileKeyring(/"));
}

#[test]
fn each_bad_file_has_its_own_error_and_stays_as_it_is() {
    let (directory, path) = directory();
    three_keys(&path);
    let good = fs::read_to_string(&path).unwrap();

    let another_material = FileKeyring::open(&path, cmk(ROOT_ID, 0, &[0x78; 32]));
    assert_eq!(another_material.unwrap_err().kind(), fault(FileFault::WrongRoot));
    let another_id = FileKeyring::open(&path, cmk(KEY_ID, 0, &[0x77; 32]));
    assert_eq!(another_id.unwrap_err().kind(), fault(FileFault::WrongRoot));
    let another_version = FileKeyring::open(&path, cmk(ROOT_ID, 1, &[0x77; 32]));
    assert_eq!(another_version.unwrap_err().kind(), fault(FileFault::WrongRoot));

    let bad: Vec<(FileFault, Vec<u8>)> = vec![
        (FileFault::Truncated, Vec::new()),
        (FileFault::Truncated, good.as_bytes()[..good.len() / 2].to_vec()),
        (FileFault::Truncated, good.as_bytes()[..good.len() - 2].to_vec()),
        (FileFault::NotAKeyring, b"[]".to_vec()),
        (FileFault::NotAKeyring, b"{}".to_vec()),
        (FileFault::NotAKeyring, vec![0; 4096]),
        (FileFault::NotAKeyring, format!("{good}x").into_bytes()),
        (
            FileFault::NotAKeyring,
            good.replace("dekseal keyring", "other keyring").into_bytes(),
        ),
        (
            FileFault::NotAKeyring,
            good.replacen("\"generation\"", "\"generations\"", 1).into_bytes(),
        ),
        (
            FileFault::NotAKeyring,
            good.replacen("\"generation\": 2,", "\"generation\": 2, \"generation\": 2,", 1)
                .into_bytes(),
        ),
        (
            FileFault::UnknownFormat,
            good.replacen("\"version\": 1", "\"version\": 2", 1).into_bytes(),
        ),
        (
            FileFault::UnknownFormat,
            br#"{"format":"dekseal keyring","version":77,"x":[]}"#.to_vec(),
        ),
        (
            FileFault::Changed,
            good.replacen("\"generation\": 2", "\"generation\": 3", 1).into_bytes(),
        ),
        (
            FileFault::Changed,
            good.replacen("\"disabled\"", "\"enabled\"", 1).into_bytes(),
        ),
        (
            FileFault::Changed,
            good.replacen("\"min_version\": 1", "\"min_version\": 0", 1)
                .into_bytes(),
        ),
        (FileFault::TooLarge, vec![b'x'; 100 * 1024 * 1024]),
    ];
    for (expected, bytes) in bad {
        fs::write(&path, &bytes).unwrap();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        let opened = FileKeyring::open(&path, root()).expect_err(&shown);
        assert_eq!(opened.kind(), fault(expected), "{shown}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    fs::remove_file(&path).unwrap();
    let missing = FileKeyring::open(&path, root()).unwrap_err();
    assert_eq!(missing.kind(), fault(FileFault::Io));
    assert!(
        std::error::Error::source(&missing)
            .unwrap()
            .to_string()
            .contains("No such file")
    );
    assert!(FileKeyring::create(directory.path().join("no/such/directory"), root()).is_err());
}

#[test]
fn removed_swapped_and_foreign_entries_are_detected() {
    let (_directory, path) = directory();
    three_keys(&path);
    let good: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    // A key from another file under the same root.
    let (_other_directory, other_path) = self::directory();
    let other = FileKeyring::create(&other_path, root()).unwrap();
    other
        .update(|keys| keys.import_key(key_id("90000000-0000-0000-0000-000000000000"), &[9; 32]))
        .unwrap();
    let other: Value = serde_json::from_str(&fs::read_to_string(&other_path).unwrap()).unwrap();

    // Keys out of order are no keyring, whatever the MAC is. With keys in order, the MAC shows the change.
    use FileFault::{Changed, NotAKeyring};
    let change = |what: &str, fault: FileFault, f: &dyn Fn(&mut Vec<Value>)| {
        let mut changed = good.clone();
        f(changed["keys"].as_array_mut().unwrap());
        assert_ne!(changed, good, "{what}");
        fs::write(&path, changed.to_string()).unwrap();
        assert_eq!(open(&path).err(), Some(ErrorKind::File(fault)), "{what}");
    };
    change("a key removed", Changed, &|keys| drop(keys.remove(1)));
    change("all keys removed", Changed, &Vec::clear);
    change("keys swapped", NotAKeyring, &|keys| keys.swap(0, 1));
    change("a key twice", NotAKeyring, &|keys| keys.push(keys[2].clone()));
    change("a key of another file", Changed, &|keys| {
        keys.push(other["keys"][0].clone())
    });
    change("a version removed", Changed, &|keys| {
        drop(keys[0]["versions"].as_array_mut().unwrap().pop())
    });
    change("versions swapped", NotAKeyring, &|keys| {
        keys[0]["versions"].as_array_mut().unwrap().swap(0, 1);
    });
    change("a version twice", NotAKeyring, &|keys| {
        let versions = keys[0]["versions"].as_array_mut().unwrap();
        versions.insert(0, versions[0].clone());
    });
    change("material of another version", Changed, &|keys| {
        let versions = keys[0]["versions"].as_array_mut().unwrap();
        versions[0]["sealed"] = versions[1]["sealed"].clone();
    });
    change("a blob cut short", NotAKeyring, &|keys| {
        let digits = keys[0]["versions"][0]["sealed"].as_str().unwrap();
        keys[0]["versions"][0]["sealed"] = digits[..374].into();
    });
    change("a later date", Changed, &|keys| {
        let pending = keys.iter_mut().find(|key| key["state"] == "pending_deletion").unwrap();
        pending["deletion"] = "2999-01-01T00:00:00Z".into();
    });
    fs::write(&path, good.to_string()).unwrap();
    assert_eq!(open(&path).unwrap().keys().list().len(), 3);
}

/// Each changed file is refused, or is the same keyring.
#[test]
fn every_byte_changed_in_turn() {
    let (_directory, path) = directory();
    let keyring = three_keys(&path);
    let (list, expected) = (keyring.keys().list(), behaviour(&keyring));
    let good = fs::read(&path).unwrap();
    let mut same = 0;
    for at in 0..good.len() {
        for change in [0x01, 0x20, 0x80] {
            let mut changed = good.clone();
            changed[at] ^= change;
            fs::write(&path, &changed).unwrap();
            match open(&path) {
                Err(ErrorKind::File(_)) => {}
                Err(other) => panic!("byte {at}: {other:?}"),
                Ok(read) => {
                    assert_eq!(read.keys().list(), list, "byte {at}");
                    assert_eq!(behaviour(&read), expected, "byte {at}");
                    let (was, is) = (good[at], changed[at]);
                    let meaningless =
                        was.eq_ignore_ascii_case(&is) || (was.is_ascii_whitespace() && is.is_ascii_whitespace());
                    assert!(meaningless, "byte {at}: {was} and {is} are taken for the same");
                    same += 1;
                }
            }
        }
    }
    assert!(same > 100, "the case of hex carries no meaning");
}

#[test]
fn refresh_and_update_see_the_changes_of_another_process() {
    let (_directory, path) = directory();
    let (ours, theirs) = (three_keys(&path), open(&path).unwrap());
    theirs
        .update(|keys| keys.import_version(&key_id(KEY_ID), &[6; 32]))
        .unwrap();
    assert_eq!(ours.keys().info(&key_id(KEY_ID)).unwrap().current_version, 2);
    assert!(ours.refresh().unwrap());
    assert!(!ours.refresh().unwrap());
    assert_eq!(ours.keys().info(&key_id(KEY_ID)).unwrap().current_version, 3);
    // Without a refresh in between.
    assert_eq!(
        theirs
            .update(|keys| keys.import_version(&key_id(KEY_ID), &[7; 32]))
            .unwrap(),
        4
    );
    assert_eq!(
        ours.update(|keys| keys.import_version(&key_id(KEY_ID), &[8; 32]))
            .unwrap(),
        5
    );
    assert_eq!(ours.generation(), 5);
    theirs.refresh().unwrap();
    assert_eq!(behaviour(&ours), behaviour(&theirs));
}

#[test]
fn a_process_that_read_a_newer_file_refuses_an_older_one() {
    let (_directory, path) = directory();
    let keyring = three_keys(&path);
    let old = fs::read(&path).unwrap();
    keyring.update(|keys| keys.enable(&key_id(OTHER_KEY_ID))).unwrap();
    fs::write(&path, old).unwrap();
    assert_eq!(keyring.refresh().unwrap_err().kind(), fault(FileFault::RolledBack));
    let update = keyring.update(|keys| keys.disable(&key_id(OTHER_KEY_ID)));
    assert_eq!(update.unwrap_err().kind(), ErrorKind::RollbackUnresolved);
    assert_eq!(
        keyring.keys().info(&key_id(OTHER_KEY_ID)).unwrap().state,
        KeyState::Enabled
    );
    // A process that opens the file for the first time sees the rollback only by the generation.
    assert_eq!(open(&path).unwrap().generation(), 2);
}

#[test]
fn a_generation_identifies_one_state() {
    let (_directory, path) = directory();
    let ours = three_keys(&path);
    let old = fs::read(&path).unwrap();
    ours.update(|keys| keys.import_version(&key_id(KEY_ID), &[6; 32]))
        .unwrap();
    // An older copy is restored, and another process changes it up to the same generation.
    fs::write(&path, old).unwrap();
    let theirs = open(&path).unwrap();
    theirs
        .update(|keys| keys.import_version(&key_id(KEY_ID), &[7; 32]))
        .unwrap();
    assert_eq!(theirs.generation(), ours.generation());
    let expected = behaviour(&ours);
    assert_eq!(ours.refresh().unwrap_err().kind(), fault(FileFault::RolledBack));
    assert_eq!(
        ours.update(|keys| keys.rotate(&key_id(KEY_ID))).unwrap_err().kind(),
        ErrorKind::RollbackUnresolved
    );
    // The keyring opens as before, and does not seal: the rows of `behaviour` without a version.
    for (number, (is, was)) in behaviour(&ours).iter().zip(&expected).enumerate() {
        match number % 5 {
            0 => assert_eq!(*is, Err(ErrorKind::RollbackUnresolved)),
            _ => assert_eq!(is, was),
        }
    }
}

#[test]
fn keys_of_another_keyring_are_not_written() {
    let (_directory, path) = directory();
    let keyring = three_keys(&path);
    let (_other_directory, other_path) = self::directory();
    let other = FileKeyring::create(&other_path, cmk(ROOT_ID, 0, &[0x78; 32])).unwrap();
    other.update(|keys| keys.import_key(key_id(KEY_ID), &[1; 32])).unwrap();
    let in_memory = dekseal::MemoryKeyring::from_versions([cmk(KEY_ID, 0, &[1; 32])]).unwrap();
    let snapshot = keyring.keys();
    let before = fs::read(&path).unwrap();
    for foreign in [other.keys(), in_memory.keys()] {
        let put = keyring.update(|keys| {
            *keys = dekseal::Keyset::clone(&foreign);
            Ok(())
        });
        assert_eq!(put.unwrap_err().kind(), ErrorKind::ForeignKeys);
        assert_eq!(fs::read(&path).unwrap(), before);
    }
    let named = keyring.update(|keys| {
        *keys = dekseal::Keyset::clone(&in_memory.keys());
        Ok(())
    });
    let named = named.unwrap_err();
    assert_eq!((named.key_id(), named.key_version()), (Some(key_id(KEY_ID)), Some(0)));
    // Files from before the change of the root are refused too.
    keyring.change_root(cmk(ROOT_ID, 1, &[9; 32])).unwrap();
    let put = keyring.update(|keys| {
        *keys = dekseal::Keyset::clone(&snapshot);
        Ok(())
    });
    assert_eq!(put.unwrap_err().kind(), ErrorKind::ForeignKeys);
    assert_eq!(
        FileKeyring::open(&path, cmk(ROOT_ID, 1, &[9; 32]))
            .unwrap()
            .keys()
            .list(),
        keyring.keys().list()
    );
}

#[test]
fn the_root_is_not_among_the_keys() {
    let (_directory, path) = directory();
    let keyring = three_keys(&path);
    let before = fs::read(&path).unwrap();
    let itself = keyring.change_root(cmk(KEY_ID, 0, &[1; 32]));
    assert_eq!(itself.unwrap_err().kind(), ErrorKind::KeyExists);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(open(&path).unwrap().keys().list().len(), 3);
}

#[test]
fn a_refused_change_writes_nothing() {
    let (_directory, path) = directory();
    let keyring = three_keys(&path);
    let before = fs::read(&path).unwrap();
    let refused = keyring.update(|keys| {
        keys.import_version(&key_id(KEY_ID), &[9; 32])?;
        keys.enable(&key_id(KEY_ID))
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::KeyNotDisabled);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(
        (
            keyring.generation(),
            keyring.keys().info(&key_id(KEY_ID)).unwrap().current_version
        ),
        (2, 2)
    );
    let root_itself = keyring.update(|keys| keys.import_key(key_id(ROOT_ID), &[9; 32]));
    assert_eq!(root_itself.unwrap_err().kind(), ErrorKind::KeyExists);
}

#[test]
fn a_purged_key_is_gone_from_the_file() {
    let (_directory, path) = directory();
    let keyring = three_keys(&path);
    let at = NOW + 30 * 86_400;
    let early = keyring.update(|keys| keys.purge_at(&key_id(THIRD_KEY_ID), time(at - 1)));
    assert_eq!(early.unwrap_err().kind(), ErrorKind::DeletionNotDue);
    keyring
        .update(|keys| keys.purge_at(&key_id(THIRD_KEY_ID), time(at)))
        .unwrap();
    assert!(!fs::read_to_string(&path).unwrap().contains(THIRD_KEY_ID));
    assert_eq!(open(&path).unwrap().keys().list().len(), 2);
}

#[test]
fn the_root_can_be_changed() {
    let (_directory, path) = directory();
    let (keyring, bystander) = (three_keys(&path), open(&path).unwrap());
    let expected = behaviour(&keyring);
    let new_root = || cmk(ROOT_ID, 1, &[0x99; 64]);
    keyring.change_root(new_root()).unwrap();
    assert_eq!(behaviour(&keyring), expected);
    assert_eq!(keyring.generation(), 3);
    keyring
        .update(|keys| keys.import_version(&key_id(KEY_ID), &[6; 32]))
        .unwrap();

    assert_eq!(open(&path).unwrap_err(), fault(FileFault::WrongRoot));
    assert_eq!(bystander.refresh().unwrap_err().kind(), fault(FileFault::WrongRoot));
    // The keyring still uses the keys that it holds. Keys that it does not hold may be in the file that it cannot open.
    let is_unknown = |kind: &ErrorKind| [ErrorKind::UnknownKey, ErrorKind::UnknownKeyVersion].contains(kind);
    for (is, was) in behaviour(&bystander).into_iter().zip(expected) {
        match was {
            Err(kind) if is_unknown(&kind) => assert_eq!(is, Err(fault(FileFault::WrongRoot))),
            was => assert_eq!(is, was),
        }
    }
    let read = FileKeyring::open(&path, new_root()).unwrap();
    assert_eq!(read.keys().list(), keyring.keys().list());
    assert_eq!(behaviour(&read), behaviour(&keyring));
}

/// Root ignores permissions, so a directory in place of the lock file makes writes fail. `keyring_kills` makes each
/// system call fail.
#[test]
fn a_write_that_fails_leaves_the_old_file_and_says_why() {
    let (directory, path) = directory();
    let keyring = three_keys(&path);
    let before = fs::read(&path).unwrap();
    let obstacle = directory.path().join(".keyring.json.lock");
    fs::remove_file(&obstacle).unwrap();
    fs::create_dir(&obstacle).unwrap();

    let failed = keyring
        .update(|keys| keys.import_version(&key_id(KEY_ID), &[6; 32]))
        .unwrap_err();
    assert_eq!(failed.kind(), fault(FileFault::Io));
    assert!(std::error::Error::source(&failed).is_some());
    assert_eq!(failed.path(), Some(&*obstacle));
    assert_eq!(
        keyring.change_root(cmk(ROOT_ID, 1, &[1; 32])).unwrap_err().kind(),
        fault(FileFault::Io)
    );
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(
        (
            keyring.generation(),
            keyring.keys().info(&key_id(KEY_ID)).unwrap().current_version
        ),
        (2, 2)
    );

    fs::remove_dir(obstacle).unwrap();
    assert_eq!(
        keyring
            .update(|keys| keys.import_version(&key_id(KEY_ID), &[6; 32]))
            .unwrap(),
        3
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_old_file_and_says_why() {
    let (directory, path) = directory();
    let keyring = three_keys(&path);
    let before = fs::read(&path).unwrap();
    // A process that may write only one block to a file. The system answers as it does when a disk is full.
    let output = child("limited", directory.path())
        .env("DEKSEAL_TEST_LIMIT", "1")
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let path_text = path.display();
    assert!(
        output.contains(&format!(
            "failed: the keyring file cannot be read or written: {path_text}: File too large"
        )),
        "{output}"
    );
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        2,
        "the file and its lock"
    );
    keyring
        .update(|keys| keys.import_version(&key_id(KEY_ID), &[6; 32]))
        .unwrap();
}

#[test]
fn a_half_written_temporary_file_does_not_block_writers() {
    let (directory, path) = directory();
    let keyring = three_keys(&path);
    let left = directory.path().join(".keyring.json.tmp-0123456789abcdef");
    fs::write(&left, "{\"format\": \"dekseal").unwrap();
    assert_eq!(open(&path).unwrap().keys().list().len(), 3);
    keyring
        .update(|keys| keys.import_version(&key_id(KEY_ID), &[6; 32]))
        .unwrap();
    assert!(!left.exists());
    assert_eq!(
        open(&path)
            .unwrap()
            .keys()
            .info(&key_id(KEY_ID))
            .unwrap()
            .current_version,
        3
    );
}

#[test]
fn blobs_open_after_a_restart_and_a_rotation_until_their_version_is_retired() {
    let (_directory, path) = directory();
    let (id, none) = (key_id(KEY_ID), EncryptionContext::none());
    let engine = Engine::new(three_keys(&path));
    let (dek, sealed) = engine.create_dek(&id, &none).unwrap();
    engine.keyring().update(|keys| keys.rotate(&id)).unwrap();
    drop(engine);

    let engine = Engine::new(open(&path).unwrap());
    assert!(engine.decrypt_dek(&id, &none, &sealed).unwrap() == dek);
    let renewed = *engine.rewrap_dek(&id, &none, &sealed).unwrap().sealed();
    engine.keyring().update(|keys| keys.set_min_version(&id, 3)).unwrap();
    drop(engine);

    let engine = Engine::new(open(&path).unwrap());
    assert_eq!(
        engine.decrypt_dek(&id, &none, &sealed).unwrap_err().kind(),
        ErrorKind::KeyVersionRetired
    );
    assert!(engine.decrypt_dek(&id, &none, &renewed).unwrap() == dek);
}

#[test]
fn ten_thousand_keys() {
    let (_directory, path) = directory();
    let keyring = FileKeyring::create(&path, root()).unwrap();
    let id = |n: u32| -> KeyId { key_id(&format!("{n:08}-0000-0000-0000-000000000000")) };
    keyring
        .update(|keys| (0..10_000).try_for_each(|n| keys.create_key(id(n))))
        .unwrap();
    let read = open(&path).unwrap();
    assert_eq!(read.keys().list(), keyring.keys().list());
    assert_eq!(read.keys().list().len(), 10_000);
}

/// This test binary, run again in `directory` for `child_process` alone.
fn child(job: &str, directory: &Path) -> Command {
    let mut command = this_test();
    command
        .args(["--exact", "keyring_file::child_process", "--nocapture"])
        .env("DEKSEAL_TEST_JOB", job)
        .env("DEKSEAL_TEST_DIRECTORY", directory);
    command
}

/// The number of rotations of each process. Each writes the whole file, so the time grows with the square.
const EACH: u32 = if cfg!(debug_assertions) { 100 } else { 500 };

/// The jobs of the child process. Without a job, it does nothing.
#[test]
fn child_process() {
    let Ok(job) = std::env::var("DEKSEAL_TEST_JOB") else {
        return;
    };
    let path = Path::new(&std::env::var_os("DEKSEAL_TEST_DIRECTORY").unwrap()).join("keyring.json");
    let id = key_id(KEY_ID);
    match job.as_str() {
        "rotate often" => {
            let keyring = FileKeyring::open(path, root()).unwrap();
            for _ in 0..EACH {
                println!("rotated {}", keyring.update(|keys| keys.rotate(&id)).unwrap());
            }
        }
        "change for ever" => {
            let keyring = FileKeyring::open(path, root()).unwrap();
            for n in 0_u32.. {
                let version = keyring.update(|keys| keys.rotate(&id)).unwrap();
                println!("rotated {version}");
                let new = key_id(&format!(
                    "{n:08}-{:04}-0000-0000-000000000000",
                    std::process::id() % 10_000
                ));
                match keyring.update(|keys| keys.create_key(new)) {
                    Ok(()) => println!("created {new}"),
                    // Another process with the same number has made the key.
                    Err(error) => assert_eq!(error.kind(), ErrorKind::KeyExists),
                }
                let disabled = keyring.update(|keys| keys.disable(&new));
                if disabled.is_ok() {
                    println!("disabled {new}");
                }
            }
        }
        "limited" => {
            // A program without unsafe code cannot limit itself, so a shell calls `ulimit -f`: see `a_full_disk`.
            let script = "ulimit -f 1; trap '' XFSZ; DEKSEAL_TEST_JOB='rotate once' exec \"$0\" \"$@\"";
            let mut command = this_test();
            command.args(["--exact", "keyring_file::child_process", "--nocapture"]);
            let status = in_shell(script, &command).status().unwrap();
            assert!(status.success());
        }
        "rotate once" => {
            let keyring = FileKeyring::open(path, root()).unwrap();
            let error = keyring.update(|keys| keys.rotate(&id)).unwrap_err();
            println!("failed: {error}: {}", std::error::Error::source(&error).unwrap());
        }
        other => panic!("{other}"),
    }
}

#[test]
fn two_processes_that_rotate_lose_no_version() {
    let all = 2 * EACH;
    let (directory, path) = directory();
    let keyring = FileKeyring::create(&path, root()).unwrap();
    keyring.update(|keys| keys.create_key(key_id(KEY_ID))).unwrap();
    let children: Vec<Child> = (0..2)
        .map(|_| {
            child("rotate often", directory.path())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut reported: Vec<u32> = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        reported.extend(
            text.lines()
                .filter_map(|line| line.split_once("rotated "))
                .map(|(_, n)| n.parse::<u32>().unwrap()),
        );
    }
    reported.sort_unstable();
    assert_eq!(reported, (1..=all).collect::<Vec<_>>());

    assert!(keyring.refresh().unwrap());
    assert_eq!(keyring.keys().info(&key_id(KEY_ID)).unwrap().current_version, all);
    for version in 0..=all {
        keyring
            .with_version(&key_id(KEY_ID), version, |cmk| assert_eq!(cmk.key_version(), version))
            .unwrap();
    }
}

/// Kills a process that rotates, creates and disables keys, 200 times: after some of its reports, at varying moments.
/// `keyring_kills` kills at each system call.
#[test]
fn what_a_killed_process_reported_is_in_the_file() {
    fn report(line: &str) -> Option<(&str, &str)> {
        let mut reports = ["rotated ", "created ", "disabled "].iter();
        reports.find_map(|what| line.split_once(what).map(|(_, subject)| (what.trim(), subject)))
    }
    let (directory, path) = directory();
    let fresh = || {
        let _ = fs::remove_file(&path);
        FileKeyring::create(&path, root())
            .unwrap()
            .update(|keys| keys.create_key(key_id(KEY_ID)))
            .unwrap();
    };
    fresh();
    for round in 0_u64..200 {
        // This keeps the file small, and so the time of a round short.
        if round % 20 == 0 {
            fresh();
        }
        let mut killed = child("change for ever", directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(killed.stdout.take().unwrap()).lines();
        let mut output = output.map_while(Result::ok).filter(|line| report(line).is_some());
        // After none to five of its reports, and in the middle of a change.
        let mut lines: Vec<_> = output.by_ref().take(round as usize % 6).collect();
        assert_eq!(
            lines.len(),
            round as usize % 6,
            "round {round}: the process ended by itself"
        );
        thread::sleep(Duration::from_micros(round * 397 % 2_000));
        killed.kill().unwrap();
        killed.wait().unwrap();
        lines.extend(output);

        let keyring = open(&path).unwrap_or_else(|kind| panic!("round {round}: {kind:?}"));
        let keys = keyring.keys();
        for line in &lines {
            let (what, subject) = report(line).unwrap();
            match what {
                "rotated" => {
                    let version: u32 = subject.parse().unwrap();
                    assert!(
                        keys.info(&key_id(KEY_ID)).unwrap().current_version >= version,
                        "round {round}: {line}"
                    );
                    assert!(
                        keyring.with_version(&key_id(KEY_ID), version, |_| ()).is_ok(),
                        "round {round}: {line}"
                    );
                }
                "created" => assert!(keys.info(&key_id(subject)).is_ok(), "round {round}: {line}"),
                _ => assert_eq!(
                    keys.info(&key_id(subject)).unwrap().state,
                    KeyState::Disabled,
                    "round {round}: {line}"
                ),
            }
        }
    }
}

#[test]
fn one_keyring_serves_many_threads() {
    let (_directory, path) = directory();
    let keyring = Arc::new(three_keys(&path));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    keyring.update(|keys| keys.rotate(&key_id(KEY_ID))).unwrap();
                    keyring.refresh().unwrap();
                }
            });
        }
    });
    assert_eq!(keyring.keys().info(&key_id(KEY_ID)).unwrap().current_version, 42);
    assert_eq!(open(&path).unwrap().generation(), 42);
}

/// FORMAT.md A6: a CMK is never sealed under itself.
#[test]
fn no_key_has_the_id_of_the_root() {
    let (_directory, path) = directory();
    let keyring = FileKeyring::create(&path, root()).unwrap();
    type Change = fn(&mut dekseal::Keyset) -> Result<(), dekseal::Error>;
    let changes: [Change; 2] = [
        |keys| keys.create_key(root().key_id()),
        |keys| keys.import_key(root().key_id(), &[7; 32]),
    ];
    for change in changes {
        let mut within = None;
        let error = keyring.update(|keys| {
            within = change(keys).err().map(|error| error.kind());
            Err::<(), _>(ErrorKind::Keyring.into())
        });
        assert_eq!(within, Some(ErrorKind::KeyExists));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Keyring);
    }
    assert_eq!(keyring.generation(), 1);
}

/// Changing one key does not derive ten thousand others again.
#[test]
fn unchanged_keys_are_not_derived_again() {
    let (_directory, path) = directory();
    let keyring = FileKeyring::create(&path, root()).unwrap();
    let id = key_id(KEY_ID);
    keyring.update(|keys| keys.create_key(id)).unwrap();
    // Kept, so that its memory is not reused.
    let _before = keyring.keys();
    let place = |version| keyring.with_version(&id, version, |cmk| std::ptr::from_ref(cmk).addr());
    let first = place(0).unwrap();
    let other = FileKeyring::open(&path, root()).unwrap();
    other.update(|keys| keys.rotate(&id)).unwrap();
    assert!(keyring.refresh().unwrap());
    assert_eq!(place(0).unwrap(), first);
    keyring.update(|keys| keys.rotate(&id)).unwrap();
    assert_eq!(place(0).unwrap(), first);
    assert_ne!(place(1).unwrap(), place(2).unwrap());
}

/// A file with the text that was read or written last is compared, and not parsed. Reading it makes three allocations
/// and holds the text once, however many keys the file has.
#[test]
fn a_refresh_with_nothing_new_does_not_parse() {
    look_for_a_subscriber();
    let (_directory, path) = directory();
    let keyring = FileKeyring::create(&path, root()).unwrap();
    let add = |number: u8| {
        let id = key_id(&format!("43e243b5-0095-1b21-67b2-58370386{number:04}"));
        keyring
            .update(|keys| keys.import_key_at(id, &[number; 32], time(NOW)))
            .unwrap();
    };
    let unchanged = |keyring: &FileKeyring, after: &str| {
        let length = fs::metadata(&path).unwrap().len();
        let used = measure(|| assert!(!keyring.refresh().unwrap()));
        assert!(used.count_total < 16, "after {after}: {used:?}");
        assert!(used.bytes_max < length + 1024, "after {after}: {used:?}");
    };
    (0..50).for_each(add);
    unchanged(&keyring, "a change");
    let other = FileKeyring::open(&path, root()).unwrap();
    unchanged(&other, "opening");
    add(50);
    assert!(other.refresh().unwrap());
    unchanged(&other, "a refresh that found a change");
    // The same state in another text is parsed once.
    let text = [fs::read(&path).unwrap(), b" ".to_vec()].concat();
    fs::write(&path, text).unwrap();
    let used = measure(|| assert!(!other.refresh().unwrap()));
    assert!(used.count_total > 100, "{used:?}");
    unchanged(&other, "a refresh that found another text");
}

/// Replacing the file would lock its owner out. The test needs the right to give files away, which root has.
#[cfg(unix)]
#[test]
fn the_file_of_another_user_is_not_replaced() {
    let (_directory, path) = directory();
    let keyring = FileKeyring::create(&path, root()).unwrap();
    if std::os::unix::fs::chown(&path, Some(1), None).is_err() {
        return;
    }
    let before = fs::read(&path).unwrap();
    let error = keyring.update(|keys| keys.create_key(key_id(KEY_ID))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::File(FileFault::Io));
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "the keyring file belongs to another user");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(
        fs::read_dir(path.parent().unwrap()).unwrap().count(),
        2,
        "the file and its lock"
    );
}
