//! Levels keyring_open and keyring_write.

use std::fs;

use dekseal::{CmkVersion, FileFault, FileKeyring, KeyState, Keyring, Keyset, MemoryKeyring};
use serde_json::{Value, json};

use super::{Fields, Outcome, RunTest, named as named_error, run};
use crate::{
    keyring_file::{Change, directory},
    reference,
    support::{cmk, dek},
};

/// How the kit names a fault of a keyring file.
pub(super) fn named(fault: FileFault) -> &'static str {
    match fault {
        FileFault::Truncated => "truncated",
        FileFault::NotAKeyring => "not_a_keyring",
        FileFault::UnknownFormat => "unknown_format",
        FileFault::WrongRoot => "wrong_root",
        FileFault::Changed => "changed",
        other => panic!("no test expects {other:?}"),
    }
}

/// How the kit names a fault of a document in a store. The crate tells two kinds of changed documents apart.
#[cfg(feature = "store-keyring")]
pub(super) fn named_of_store(fault: dekseal::StoreFault) -> &'static str {
    use dekseal::StoreFault;
    match fault {
        StoreFault::Changed | StoreFault::KeyCount | StoreFault::OtherKey => "changed",
        StoreFault::NotADocument => "not_a_keyring",
        StoreFault::UnknownFormat => "unknown_format",
        StoreFault::WrongRoot => "wrong_root",
        other => panic!("no test expects {other:?}"),
    }
}

/// A root, which `CmkVersion` does not let us copy.
struct Root {
    key_id: String,
    version: u32,
    material: Vec<u8>,
}

impl Root {
    fn take(group: &mut Fields) -> Self {
        let mut fields = group.object("root");
        let (key_id, version, material) = (fields.text("key_id"), fields.version(), fields.hex("material"));
        fields.done();
        Self {
            key_id,
            version,
            material,
        }
    }

    fn cmk(&self) -> CmkVersion {
        cmk(&self.key_id, self.version, &self.material)
    }
}

/// What runs the tests of a group of this type.
fn group(kind: &str, group: &mut Fields) -> Option<RunTest> {
    let root = Root::take(group);
    match kind {
        "KeyringDocument" => {
            let reference = reference::Key::new(&root.key_id, root.version, &root.material).unwrap();
            assert_eq!(
                group.text("check"),
                hex::encode_upper(reference.keyring_check()),
                "{}",
                group.at
            );
            assert_eq!(group.hex("mac_key"), reference.keyring_mac_key());
            Some(Box::new(move |test| keyring_document(&root, test)))
        }
        "KeyringChange" => Some(Box::new(move |test| keyring_change(&root, test))),
        "KeyDocument" => key_document(root),
        other => panic!("unknown type {other}"),
    }
}

fn keyring_document(root: &Root, test: &mut Fields) -> Outcome {
    let text = test.text("text");
    let (_directory, path) = directory();
    fs::write(&path, &text).unwrap();
    let keyring = FileKeyring::open(&path, root.cmk()).map_err(named_error)?;
    let opened = test.take("opened");
    assert_eq!(opened["generation"], keyring.generation(), "{}", test.at);
    let keys = opened_keys(&keyring.keys(), &opened);
    compare(test, &text, keyring.generation(), keys, &opened);
    Ok(())
}

/// Compares what the crate found in a document, and what stands there, with what a test expects.
fn compare(test: &mut Fields, text: &str, generation: u64, keys: Value, opened: &Value) {
    let document: Value = serde_json::from_str(text).unwrap();
    let file = reference::KeyringFile::parse(&document).unwrap();
    assert_eq!(hex::encode(file.message()), test.text("message"), "{}", test.at);
    let id = hex::encode_upper(&file.id);
    let found = json!({ "id": id, "generation": generation, "keys": keys });
    assert_eq!(found, *opened, "{}", test.at);
}

/// The keys as the kit describes them. The material comes from `expected`, once it was seen to be the one of the key:
/// the crate does not show it.
fn opened_keys(keys: &Keyset, expected: &Value) -> Value {
    // A copy in which every version may open.
    let copy = MemoryKeyring::new(keys.clone());
    copy.update(|keys| {
        for info in keys.list() {
            if let KeyState::PendingDeletion { .. } = info.state {
                keys.cancel_deletion(&info.key_id)?;
            }
            if info.state != KeyState::Enabled {
                keys.enable(&info.key_id)?;
            }
            let oldest = keys.versions(&info.key_id)?[0].key_version;
            keys.set_min_version(&info.key_id, oldest.min(info.min_version))?;
        }
        Ok(())
    })
    .unwrap();
    let (none, dek) = (dekseal::EncryptionContext::none(), dek(&"5a".repeat(64)));
    let keys = keys.list().into_iter().enumerate().map(|(number, info)| {
        let (state, deletion) = match info.state {
            KeyState::Enabled => ("enabled", None),
            KeyState::Disabled => ("disabled", None),
            KeyState::PendingDeletion { at } => ("pending_deletion", Some(at.as_secs())),
            other => panic!("{other:?}"),
        };
        let versions = copy.keys().versions(&info.key_id).unwrap();
        let versions = versions.into_iter().enumerate().map(|(place, version)| {
            let material = &expected["keys"][number]["versions"][place]["material"];
            let bytes = hex::decode(material.as_str().unwrap()).unwrap();
            let same = cmk(info.key_id.as_str(), version.key_version, &bytes);
            let sealed = copy.with_version(&info.key_id, version.key_version, |cmk| cmk.seal(&none, &dek));
            assert_eq!(sealed.unwrap(), same.seal(&none, &dek));
            json!({
                "version": version.key_version,
                "created": version.created.unwrap().as_secs(),
                "material": material,
            })
        });
        let versions: Vec<_> = versions.collect();
        json!({
            "key_id": info.key_id.as_str(),
            "state": state,
            "deletion": deletion,
            "min_version": info.min_version,
            "versions": versions,
        })
    });
    keys.collect()
}

/// The crate reads key documents in a fleet's keyring.
#[cfg(feature = "store-keyring")]
fn key_document(root: Root) -> Option<RunTest> {
    use dekseal::{
        StoreKeyring,
        store::{MemoryStore, Revision, StoredDocument},
    };

    Some(Box::new(move |test| {
        let (key_id, text) = (test.text("key_id").parse().unwrap(), test.text("text"));
        let store = MemoryStore::new();
        let stored = StoredDocument {
            revision: Revision::new(&[1; 32]).unwrap(),
            document: text.clone().into_bytes(),
        };
        store.overwrite(&key_id, Some(stored));
        let keyring = StoreKeyring::new(store, root.cmk());
        keyring.load(&key_id).map_err(named_error)?;
        let opened = test.take("opened");
        let generation = opened["generation"].as_u64().unwrap();
        let info = keyring.info(&key_id).unwrap();
        assert_eq!(opened["keys"][0]["min_version"], info.min_version, "{}", test.at);
        // The whole document, as a file.
        let (_directory, path) = directory();
        fs::write(&path, &text).unwrap();
        let file = FileKeyring::open(&path, root.cmk()).map_err(named_error)?;
        let keys = opened_keys(&file.keys(), &opened);
        compare(test, &text, generation, keys, &opened);
        Ok(())
    }))
}

#[cfg(not(feature = "store-keyring"))]
fn key_document(_: Root) -> Option<RunTest> {
    None
}

fn keyring_change(root: &Root, test: &mut Fields) -> Outcome {
    let (_directory, path) = directory();
    fs::write(&path, test.text("before")).unwrap();
    let keyring = FileKeyring::open(&path, root.cmk()).map_err(named_error)?;
    let changes: Vec<Change> = serde_json::from_value(test.take("changes")).unwrap();
    keyring
        .update(|keys| changes.iter().try_for_each(|change| change.apply(keys)))
        .unwrap();
    let written: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(written, test.take("after"), "{}", test.at);
    Ok(())
}

#[test]
fn open() {
    run("keyring_open", group);
}

#[test]
fn write() {
    run("keyring_write", group);
}
