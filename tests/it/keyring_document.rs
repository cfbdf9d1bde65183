//! Documents that a holder of the root forged, so that their MAC is correct: FORMAT.md C2 and C5.

use std::fs;

use dekseal::{CmkVersion, Dek, EncryptionContext, ErrorKind, FileFault, FileKeyring, KeyState};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};

use crate::{
    keyring_file::directory,
    support::{cmk, key_id, time, vectors},
};

/// The test vector, which has the MAC key of its root.
struct Known {
    vector: Value,
    root: CmkVersion,
}

impl Known {
    fn new() -> Self {
        let vector: Value = vectors("keyring");
        let material = hex::decode(vector["root_material"].as_str().unwrap()).unwrap();
        let root = cmk(vector["root_key_id"].as_str().unwrap(), 0, &material);
        Self { vector, root }
    }

    fn root(&self) -> CmkVersion {
        Self::new().root
    }

    fn file(&self) -> Value {
        self.vector["file"].clone()
    }

    /// Replaces the MAC of a document by the correct one (C3).
    fn sign(&self, document: &mut Value) {
        let key = hex::decode(self.vector["mac_key"].as_str().unwrap()).unwrap();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
        mac.update(&message(document));
        document["mac"] = json!(hex::encode_upper(mac.finalize().into_bytes()));
    }

    /// Opens the text of a document.
    fn open_text(&self, text: impl AsRef<[u8]>) -> Result<FileKeyring, ErrorKind> {
        let (_directory, path) = directory();
        fs::write(&path, text).unwrap();
        FileKeyring::open(&path, self.root()).map_err(|error| {
            assert_eq!(error.path(), Some(&*path));
            error.kind()
        })
    }

    /// Opens the document of the test vector after `change`, with a correct MAC.
    fn open(&self, change: impl FnOnce(&mut Value)) -> Result<FileKeyring, ErrorKind> {
        let mut document = self.file();
        change(&mut document);
        assert_ne!(document, self.file());
        self.sign(&mut document);
        self.open_text(document.to_string())
    }
}

/// The message of C3, for fields that may break C2.
fn message(document: &Value) -> Vec<u8> {
    let number = |value: &Value| value.as_u64().unwrap();
    let u32 = |value: u64| u32::try_from(value).unwrap().to_be_bytes();
    let bytes = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
    let date = |value: &Value| match value.as_str() {
        // On 32-bit machines humantime refuses dates after January 2038.
        Some("9999-12-31T23:59:59Z") => 253_402_300_799,
        Some(date) => humantime::parse_rfc3339(date)
            .map_or(0, |time| time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()),
        None => 0,
    };
    let array = |value: &Value| value.as_array().unwrap().clone();

    let mut message = u32(number(&document["version"])).to_vec();
    message.extend(bytes(&document["id"]));
    message.extend(number(&document["generation"]).to_be_bytes());
    message.extend(u32(array(&document["keys"]).len() as u64));
    for key in array(&document["keys"]) {
        message.extend(key["key_id"].as_str().unwrap().bytes());
        let states = ["enabled", "disabled", "pending_deletion"];
        let state = states.iter().position(|state| key["state"] == *state);
        message.push(state.unwrap_or(0) as u8);
        message.extend(date(&key["deletion"]).to_be_bytes());
        message.extend(u32(number(&key["min_version"])));
        message.extend(u32(array(&key["versions"]).len() as u64));
        for version in array(&key["versions"]) {
            message.extend(u32(number(&version["version"])));
            message.push(number(&version["material_length"]) as u8);
            message.extend(date(&version["created"]).to_be_bytes());
            message.extend(bytes(&version["sealed"]));
        }
    }
    message
}

const NOT_A_KEYRING: ErrorKind = ErrorKind::File(FileFault::NotAKeyring);
const CHANGED: ErrorKind = ErrorKind::File(FileFault::Changed);

#[test]
fn the_mac_that_is_made_here_is_right() {
    let known = Known::new();
    let mut document = known.file();
    document["mac"] = json!("");
    known.sign(&mut document);
    assert_eq!(document, known.file());
    let opened = known.open(|document| document["generation"] = json!(u64::MAX)).unwrap();
    assert_eq!(opened.generation(), u64::MAX);
    // The highest generation has no successor.
    let full = opened.update(|_| Ok(())).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::File(FileFault::Io), "its directory is gone");
}

/// Step 5 of C5 applies whatever the MAC is.
#[test]
fn documents_that_break_a_rule_are_refused_though_their_mac_is_right() {
    let known = Known::new();
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 30] = [
        ("generation 0", |d| d["generation"] = json!(0)),
        ("the root's ID is a key's", |d| {
            d["keys"][3]["key_id"] = d["root"]["key_id"].clone();
            let keys = d["keys"].as_array_mut().unwrap();
            keys.rotate_right(1);
        }),
        ("keys out of order", |d| d["keys"].as_array_mut().unwrap().swap(0, 1)),
        ("a key twice", |d| d["keys"][1] = d["keys"][0].clone()),
        ("no versions", |d| d["keys"][1]["versions"] = json!([])),
        ("versions out of order", |d| {
            d["keys"][0]["versions"].as_array_mut().unwrap().swap(0, 1);
        }),
        ("a version twice", |d| {
            d["keys"][0]["versions"][1] = d["keys"][0]["versions"][0].clone();
        }),
        ("a minimum above the current version", |d| {
            d["keys"][0]["min_version"] = json!(3)
        }),
        ("material of 31 bytes", |d| {
            d["keys"][0]["versions"][0]["material_length"] = json!(31)
        }),
        ("material of 65 bytes", |d| {
            d["keys"][0]["versions"][0]["material_length"] = json!(65)
        }),
        ("material of 31 bytes in the last version", |d| {
            d["keys"][0]["versions"][2]["material_length"] = json!(31)
        }),
        ("a minimum above the current version of the last key", |d| {
            d["keys"][3]["min_version"] = json!(9)
        }),
        ("a date without its state", |d| {
            d["keys"][0]["deletion"] = json!("2027-01-15T08:00:00Z")
        }),
        ("a date of a disabled key", |d| {
            d["keys"][1]["state"] = json!("disabled");
            d["keys"][1]["deletion"] = json!("2027-01-15T08:00:00Z");
        }),
        ("a state without its date", |d| {
            d["keys"][0]["state"] = json!("pending_deletion")
        }),
        ("another state", |d| d["keys"][0]["state"] = json!("Enabled")),
        ("a state as an object", |d| {
            d["keys"][0]["state"] = json!({"enabled": null})
        }),
        ("a deletion before 2020", |d| {
            d["keys"][2]["deletion"] = json!("2019-12-31T23:59:59Z")
        }),
        ("no day of creation", |d| {
            d["keys"][0]["versions"][0].as_object_mut().unwrap().remove("created");
        }),
        ("created before 2020", |d| {
            d["keys"][0]["versions"][0]["created"] = json!("2019-12-31T23:59:59Z");
        }),
        ("created in 1970", |d| {
            d["keys"][0]["versions"][0]["created"] = json!("1970-01-01T00:00:00Z");
        }),
        ("created with a fraction", |d| {
            d["keys"][0]["versions"][0]["created"] = json!("2026-01-15T08:00:00.0Z");
        }),
        ("created in a time zone", |d| {
            d["keys"][0]["versions"][0]["created"] = json!("2026-01-15T08:00:00+00:00");
        }),
        ("created on no day", |d| {
            d["keys"][0]["versions"][0]["created"] = json!("2026-02-30T08:00:00Z");
        }),
        ("an id of 15 bytes", |d| d["id"] = json!("00".repeat(15))),
        ("an id of 17 bytes", |d| d["id"] = json!("00".repeat(17))),
        ("an unknown field of a version", |d| {
            d["keys"][0]["versions"][0]["note"] = json!("")
        }),
        ("an unknown field of a key", |d| d["keys"][0]["note"] = json!("")),
        ("an unknown field of the root", |d| d["root"]["note"] = json!("")),
        ("an unknown field of the document", |d| d["note"] = json!("")),
    ];
    for (name, change) in changes {
        assert_eq!(known.open(change).err(), Some(NOT_A_KEYRING), "{name}");
    }
}

#[test]
fn documents_that_c2_permits_open() {
    let known = Known::new();
    let none = known.open(|d| d["keys"] = json!([])).unwrap();
    assert!(none.keys().list().is_empty());
    // The earliest and the latest date, and a version that is older than the one before it.
    let dates = known.open(|d| {
        d["keys"][0]["versions"][2]["created"] = json!("2020-01-01T00:00:00Z");
        d["keys"][2]["deletion"] = json!("9999-12-31T23:59:59Z");
    });
    let keys = dates.unwrap().keys();
    let list = keys.list();
    assert_eq!(list[0].current_created, Some(time(1_577_836_800)));
    assert_eq!(
        list[2].state,
        KeyState::PendingDeletion {
            at: time(253_402_300_799)
        }
    );
    // Gaps between versions, and a minimum version that does not exist.
    let gap = known.open(|d| {
        let versions = d["keys"][0]["versions"].as_array_mut().unwrap();
        versions.remove(1);
    });
    let keys = gap.unwrap().keys();
    let info = keys.info(&list[0].key_id).unwrap();
    let versions: Vec<_> = keys
        .versions(&info.key_id)
        .unwrap()
        .iter()
        .map(|v| v.key_version)
        .collect();
    assert_eq!((versions, info.min_version), (vec![0, 2], 1));
    // Null in place of a missing date; another order of fields; another case of hex.
    known.open(|d| d["keys"][0]["deletion"] = Value::Null).unwrap();
    known
        .open_text(
            known
                .file()
                .to_string()
                .to_lowercase()
                .replace("t08:00:00z", "T08:00:00Z")
                .replace("t07:59:59z", "T07:59:59Z")
                .replace("t00:00:00z", "T00:00:00Z"),
        )
        .unwrap();
}

/// The code that serde's derive makes also accepts an array of a struct's fields.
#[test]
fn arrays_in_the_place_of_objects_are_refused() {
    let known = Known::new();
    let file = known.file();
    let fields = |value: &Value, names: &[&str]| Value::Array(names.iter().map(|name| value[*name].clone()).collect());
    let root = fields(&file["root"], &["key_id", "key_version", "check"]);
    let version = fields(
        &file["keys"][0]["versions"][0],
        &["version", "created", "material_length", "sealed"],
    );
    let key = fields(
        &file["keys"][0],
        &["key_id", "state", "deletion", "min_version", "versions"],
    );
    let whole = fields(&file, &["format", "version", "id", "generation", "root", "keys", "mac"]);
    for (place, array) in [
        ("/root", root),
        ("/keys/0/versions/0", version),
        ("/keys/0", key),
        ("", whole),
        ("", json!(["dekseal keyring", 2])),
    ] {
        let mut document = file.clone();
        *document.pointer_mut(place).unwrap() = array;
        let opened = known.open_text(document.to_string());
        assert_eq!(opened.err(), Some(NOT_A_KEYRING), "{place:?}");
    }
}

#[test]
fn only_the_text_of_one_object_is_read() {
    let known = Known::new();
    let text = known.file().to_string();
    known.open_text(format!(" \n\t\r{text} \n\t\r")).unwrap();
    for bad in [
        format!("\u{feff}{text}"),
        format!("{text}{text}"),
        format!("{text}\0"),
        format!("[{text}]"),
        text.replacen("\"generation\":7", "\"generation\":7.0", 1),
        text.replacen("\"generation\":7", "\"generation\":\"7\"", 1),
        text.replacen("\"generation\":7", "\"generation\":18446744073709551616", 1),
        text.replacen("\"min_version\":1", "\"min_version\":-0", 1),
    ] {
        assert_ne!(bad, text);
        assert_eq!(known.open_text(&bad).err(), Some(NOT_A_KEYRING), "{}", &bad[..60]);
    }
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(known.open_text(utf16).err(), Some(NOT_A_KEYRING));
}

/// The first check of C5 that fails determines the error.
#[test]
fn the_first_check_that_fails_says_why() {
    let known = Known::new();
    let other_root = |d: &mut Value| d["root"]["check"] = json!("00".repeat(32));
    let break_rule = |d: &mut Value| d["generation"] = json!(0);
    let change = |d: &mut Value| d["keys"][0]["min_version"] = json!(0);
    let version_2 = |d: &mut Value| d["version"] = json!(2);
    type Change<'a> = &'a dyn Fn(&mut Value);
    let cases: [(&[Change<'_>], FileFault); 7] = [
        (&[&change], FileFault::Changed),
        (&[&change, &other_root], FileFault::WrongRoot),
        (&[&change, &other_root, &break_rule], FileFault::NotAKeyring),
        (
            &[&change, &other_root, &break_rule, &version_2],
            FileFault::UnknownFormat,
        ),
        (&[&version_2, &|d| d["format"] = json!("other")], FileFault::NotAKeyring),
        (&[&version_2, &|d| d["keys"] = json!({})], FileFault::UnknownFormat),
        (
            &[&version_2, &|d| d["keys"] = json!({}), &|d| {
                d["format"] = json!("other")
            }],
            FileFault::NotAKeyring,
        ),
    ];
    for (changes, fault) in cases {
        let mut document = known.file();
        changes.iter().for_each(|change| change(&mut document));
        let text = document.to_string();
        assert_eq!(known.open_text(&text).err(), Some(ErrorKind::File(fault)));
        let cut = &text[..text.len() - 1];
        assert_eq!(known.open_text(cut).err(), Some(ErrorKind::File(FileFault::Truncated)));
    }
}

/// C5: checks 3 and 4 read only `format` and `version`.
#[test]
fn a_text_of_another_version_may_hold_anything_else() {
    let known = Known::new();
    let open = |text: &[u8]| known.open_text(text).err();
    let with = |version: &str, other: &[u8]| {
        let head = format!(r#"{{"format": "dekseal keyring", "version": {version}, "x": "#);
        open(&[head.as_bytes(), other, b"}"].concat())
    };
    let unknown_format = Some(ErrorKind::File(FileFault::UnknownFormat));
    let not_a_keyring = Some(ErrorKind::File(FileFault::NotAKeyring));
    let deep = ["[".repeat(300), "]".repeat(300)].concat();
    for other in [&b"1"[..], br#""\ud800""#, b"\"\xff\"", b"1e999", deep.as_bytes()] {
        assert_eq!(with("2", other), unknown_format, "{other:?}");
        assert_eq!(with("1", other), not_a_keyring, "{other:?}");
    }
    for version in ["0", "4294967296", "18446744073709551615"] {
        assert_eq!(with(version, b"1"), unknown_format, "{version}");
    }
    for version in [
        "18446744073709551616",
        "-1",
        "2.0",
        "2e0",
        "null",
        "\"2\"",
        "[2]",
        "2, \"version\": 2",
    ] {
        assert_eq!(with(version, b"1"), not_a_keyring, "{version}");
    }
    // However deep a text is nested, it takes no stack.
    let open_arrays = open(&[b'['; 100_000]);
    assert_eq!(open_arrays, Some(ErrorKind::File(FileFault::Truncated)));
}

/// C6: the later texts that a keyring with the known file accepts.
#[test]
fn a_successor_keeps_every_version_that_is_held() {
    let known = Known::new();
    let file = known.file();
    let id = key_id(file["keys"][0]["key_id"].as_str().unwrap());
    let (_directory, path) = directory();
    let after = |change: &dyn Fn(&mut Value)| {
        fs::write(&path, file.to_string()).unwrap();
        let keyring = FileKeyring::open(&path, known.root()).unwrap();
        let mut next = file.clone();
        next["generation"] = json!(8);
        change(&mut next);
        known.sign(&mut next);
        fs::write(&path, next.to_string()).unwrap();
        (keyring.refresh(), keyring)
    };
    let refused = |change: &dyn Fn(&mut Value)| {
        let (refreshed, keyring) = after(change);
        let error = refreshed.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::File(FileFault::RolledBack));
        assert_eq!(keyring.generation(), 7);
        assert_eq!(error.path(), Some(&*path));
        (error.key_id().is_some_and(|named| named == id), error.key_version())
    };
    let other_material = |d: &mut Value, version: usize| {
        let entry = &mut d["keys"][0]["versions"][version];
        let context = EncryptionContext::from_pairs([
            ("purpose", "dekseal keyring"),
            ("key_id", id.as_str()),
            ("key_version", &entry["version"].to_string()),
            ("material_length", "64"),
        ]);
        let sealed = known.root.seal(&context.unwrap(), &Dek::from_bytes(&[9; 64]));
        entry["sealed"] = json!(hex::encode(sealed.as_bytes()));
        entry["material_length"] = json!(64);
    };
    let without = |d: &mut Value, version: usize| {
        d["keys"][0]["versions"].as_array_mut().unwrap().remove(version);
    };
    for version in 0..3 {
        let named = (true, Some(version as u32));
        assert_eq!(refused(&|d| other_material(d, version)), named);
    }
    // Only the oldest versions are destroyed.
    assert_eq!(refused(&|d| without(d, 1)), (true, Some(1)));
    assert_eq!(
        refused(&|d| {
            without(d, 2);
            d["keys"][0]["min_version"] = json!(0);
        }),
        (true, Some(2))
    );
    assert!(after(&|d| without(d, 0)).0.unwrap());
    // A whole key may be purged.
    assert!(after(&|d| drop(d["keys"].as_array_mut().unwrap().remove(0))).0.unwrap());
    // Two states with the same generation are on two branches, even if no version contradicts the other.
    assert_eq!(
        refused(&|d| {
            d["generation"] = json!(7);
            d["keys"][0]["state"] = json!("disabled");
        }),
        (false, None)
    );
    // The same state in another text.
    let (same, keyring) = after(&|d| d["generation"] = json!(7));
    assert!(!same.unwrap());
    fs::write(&path, format!("{file:#}")).unwrap();
    assert!(!keyring.refresh().unwrap());
    // A known version is not opened again, but its date is read from the file.
    let (later, keyring) = after(&|d| d["keys"][0]["versions"][0]["created"] = json!("2021-01-01T00:00:00Z"));
    assert!(later.unwrap());
    let created = keyring.keys().versions(&id).unwrap()[0].created;
    assert_eq!(created, Some(time(1_609_459_200)));
}

/// Step 8 of C5: a holder of the root can seal anything as material.
#[test]
fn material_that_does_not_open_is_refused_wherever_it_stands() {
    let known = Known::new();
    let file = known.file();
    let reseal = |key: usize, version: usize, length: u8, padded: &[u8; 64]| {
        let entry = &file["keys"][key]["versions"][version];
        let context = EncryptionContext::from_pairs([
            ("purpose", "dekseal keyring"),
            ("key_id", file["keys"][key]["key_id"].as_str().unwrap()),
            ("key_version", &entry["version"].to_string()),
            ("material_length", &length.to_string()),
        ]);
        let sealed = known.root.seal(&context.unwrap(), &Dek::from_bytes(padded));
        let mut entry = entry.clone();
        entry["sealed"] = json!(hex::encode(sealed.as_bytes()));
        entry["material_length"] = json!(length);
        entry
    };
    let padded = |length: usize| std::array::from_fn(|at| u8::from(at < length));
    // The first and the last byte of the padding, also in keys that are not in use.
    for (key, version) in [(0, 0), (0, 2), (1, 0), (2, 0), (3, 1)] {
        for (length, nonzero) in [(32, 32), (32, 63), (45, 45), (63, 63)] {
            let mut bytes = padded(length);
            let good = reseal(key, version, length as u8, &bytes);
            known.open(|d| d["keys"][key]["versions"][version] = good).unwrap();
            bytes[nonzero] = 1;
            let bad = reseal(key, version, length as u8, &bytes);
            let (_directory, path) = directory();
            let mut document = file.clone();
            document["keys"][key]["versions"][version] = bad;
            known.sign(&mut document);
            fs::write(&path, document.to_string()).unwrap();
            let error = FileKeyring::open(&path, known.root()).unwrap_err();
            assert_eq!(error.kind(), CHANGED);
            let number = file["keys"][key]["versions"][version]["version"].as_u64();
            assert_eq!(error.key_version().map(u64::from), number);
            assert_eq!(error.key_id().unwrap().as_str(), file["keys"][key]["key_id"]);
        }
    }
    // A blob of another version, a blob of another root, and no blob at all.
    let other = cmk(known.root.key_id().as_str(), 0, &[1; 32]);
    let foreign = other.seal(&EncryptionContext::none(), &Dek::from_bytes(&[1; 64]));
    for sealed in [
        file["keys"][0]["versions"][1]["sealed"].clone(),
        json!(hex::encode(foreign.as_bytes())),
        json!("00".repeat(188)),
    ] {
        let opened = known.open(|d| d["keys"][3]["versions"][0]["sealed"] = sealed.clone());
        assert_eq!(opened.err(), Some(CHANGED));
    }
}

#[test]
fn an_error_of_another_root_names_both() {
    let known = Known::new();
    let (_directory, path) = directory();
    fs::write(&path, known.file().to_string()).unwrap();
    let expected = cmk("11111111-0000-0000-0000-00000000root", 3, &[1; 32]);
    let error = FileKeyring::open(&path, expected).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::File(FileFault::WrongRoot));
    let text = error.to_string();
    for part in [
        "key 11111111-0000-0000-0000-00000000root, version 3",
        "found key 00000000-0000-0000-0000-00000000root, version 0",
        path.to_str().unwrap(),
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn two_keyrings_have_two_ids() {
    let known = Known::new();
    let ids: Vec<_> = (0..2)
        .map(|_| {
            let (_directory, path) = directory();
            let keyring = FileKeyring::create(&path, known.root()).unwrap();
            let id = || serde_json::from_slice::<Value>(&fs::read(&path).unwrap()).unwrap()["id"].clone();
            let made = id();
            keyring.update(|_| Ok(())).unwrap();
            keyring
                .change_root(cmk(known.root.key_id().as_str(), 1, &[1; 32]))
                .unwrap();
            assert_eq!(id(), made, "it never changes");
            made
        })
        .collect();
    assert_ne!(ids[0], ids[1]);
}
