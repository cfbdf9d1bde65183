//! A keyring file opens with exactly the contents that its MAC covers, or not at all.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process,
    sync::{LazyLock, Mutex, PoisonError},
};

use arbitrary::{Arbitrary, Unstructured};
use dekseal::{
    CmkVersion, Dek, EncryptionContext, ErrorKind, FileFault, FileKeyring, KeyId, KeyState, Keyring, SealedDek,
    UnixTime,
};
use serde_json::{Value, json};

use crate::second::{Key, KeyringFile};

const DEK: [u8; 64] = [0x5a; 64];

/// The root of the test vector, and files under it.
struct Known {
    root_id: String,
    root_material: Vec<u8>,
    second: Key,
    bases: Vec<Base>,
    shared: Mutex<Shared>,
}

/// A file to edit.
struct Base {
    document: Value,
    text: Vec<u8>,
    file: KeyringFile,
}

/// The state for one input at a time.
struct Shared {
    path: PathBuf,
    /// For each base, a keyring that has it open.
    keyrings: Vec<FileKeyring>,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let vectors = serde_json::from_str::<Value>(include_str!("../../tests/vectors/keyring.json")).expect("JSON");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let root_id = text(&vectors["root_key_id"]);
    let root_material = hex::decode(text(&vectors["root_material"])).expect("hex");
    let second = Key::new(&root_id, 0, &root_material).expect("material");
    let root = || root(&root_id, &root_material);

    // In memory, if the system has such a directory.
    let directory = Some(PathBuf::from("/dev/shm")).filter(|directory| directory.is_dir());
    let directory = directory.unwrap_or_else(env::temp_dir);
    let path = directory.join(format!("dekseal-fuzz-{}.json", process::id()));
    let known = serde_json::to_vec_pretty(&vectors["file"]).expect("JSON");
    let none = made(&path, root(), |_| ());
    let one = made(&path, root(), |keyring| {
        let id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse().expect("a key ID");
        let made = keyring.update(|keys| keys.import_key(id, &[7; 32]));
        made.expect("a key");
    });
    let bases: Vec<_> = [known, none, one]
        .into_iter()
        .map(|text| {
            let document = serde_json::from_slice(&text).expect("JSON");
            let file = second.open_keyring(&document).expect("a keyring");
            Base { document, text, file }
        })
        .collect();
    let opened = bases
        .iter()
        .map(|base| with_file(&path, &base.text, || FileKeyring::open(&path, root())));
    let keyrings = opened.collect::<Result<_, _>>().expect("keyrings");
    Known {
        shared: Mutex::new(Shared { path, keyrings }),
        bases,
        root_id,
        root_material,
        second,
    }
});

fn root(id: &str, material: &[u8]) -> CmkVersion {
    CmkVersion::new(id.parse().expect("a key ID"), 0, material).expect("material")
}

/// The text of a keyring file that the crate writes.
fn made(path: &Path, root: CmkVersion, change: impl FnOnce(&FileKeyring)) -> Vec<u8> {
    drop(fs::remove_file(path));
    change(&FileKeyring::create(path, root).expect("a file"));
    let text = fs::read(path).expect("a file");
    let name = path.file_name().expect("a name").display();
    drop(fs::remove_file(path.with_file_name(format!(".{name}.lock"))));
    drop(fs::remove_file(path));
    text
}

/// Calls `f` while `path` holds `text`.
fn with_file<T>(path: &Path, text: &[u8], f: impl FnOnce() -> T) -> T {
    drop(fs::remove_file(path));
    let file = fs::OpenOptions::new().write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(text)).expect("a file");
    let value = f();
    // A fuzzer may end at any time, so no file stays between two inputs.
    drop(fs::remove_file(path));
    value
}

#[derive(Arbitrary, Debug)]
struct Plan<'a> {
    values: Vec<ValueEdit<'a>>,
    /// A holder of the root can make the MAC correct, which reaches the checks behind it.
    signed: bool,
    compact: bool,
    bytes: Vec<ByteEdit<'a>>,
}

/// Values are counted from the front. The document is the first, and the contents of a value follow it.
#[derive(Arbitrary, Debug)]
enum ValueEdit<'a> {
    Swap(u8, u8),
    Copy(u8, u8),
    Remove(u8, u8),
    Repeat(u8, u8),
    Put(u8, &'a str),
    Null(u8),
    Number(u8, i64),
    Add(u8, i8),
    Text(u8, &'a str),
    Letter(u8, u16, u8),
    Case(u8),
    Generation(u64),
    State(u8, u8),
    Date(u8, [u8; 6], bool),
    MinVersion(u8, u32),
}

#[derive(Arbitrary, Debug)]
enum ByteEdit<'a> {
    Flip(u16, u8),
    Insert(u16, &'a [u8]),
    Remove(u16, u8),
    Write(u16, &'a [u8]),
    Cut(u16),
    /// Repeats a line. If each field is on its own line, this repeats a field.
    Line(u16),
}

/// The first byte selects the meaning of the others: a whole file, or edits of a valid file.
pub fn keyring_file(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let known = &*KNOWN;
    let Some(number) = (usize::from(*first) % (1 + known.bases.len())).checked_sub(1) else {
        // The author of the file may have had the root.
        open(rest, 0, true);
        return;
    };
    let Ok(plan) = Plan::arbitrary_take_rest(Unstructured::new(rest)) else {
        return;
    };
    let mut document = known.bases[number].document.clone();
    plan.values.iter().take(8).for_each(|edit| edit.apply(&mut document));
    let file = KeyringFile::parse(&document).filter(|_| plan.signed);
    if let Some(file) = &file {
        document["mac"] = json!(hex::encode_upper(known.second.keyring_mac(&file.message())));
    }
    let text = if plan.compact {
        serde_json::to_vec(&document)
    } else {
        serde_json::to_vec_pretty(&document)
    };
    let mut text = text.expect("JSON");
    plan.bytes.iter().take(8).for_each(|edit| edit.apply(&mut text));
    let opened = open(&text, number, file.is_some());
    if plan.values.is_empty() && plan.bytes.is_empty() {
        assert!(opened, "what was written does not open");
    }
}

/// Opens `text` for the first time, and as a change of a base's file. Returns whether it opened. With `signed`, the MAC
/// may be correct although the file is not one of the bases.
fn open(text: &[u8], base: usize, signed: bool) -> bool {
    let known = &*KNOWN;
    let root = || root(&known.root_id, &known.root_material);
    let mut shared = known.shared.lock().unwrap_or_else(PoisonError::into_inner);
    let Shared { path, keyrings } = &mut *shared;
    let held = &mut keyrings[base];
    let before = (held.generation(), held.keys().list());

    let (opened, refreshed) = with_file(path, text, || (FileKeyring::open(&*path, root()), held.refresh()));
    let opened = opened.map_err(|error| error.kind());
    let refreshed = refreshed.map_err(|error| error.kind());
    let after = (held.generation(), held.keys().list());
    if refreshed == Ok(true) {
        let opened = opened.as_ref().expect("it was taken up");
        assert!(signed && after == (opened.generation(), opened.keys().list()));
    } else {
        // C5: after a failed check the keyring holds the same state as before.
        assert_eq!(after, before);
    }
    if refreshed != Ok(false) {
        let anew = with_file(path, &known.bases[base].text, || FileKeyring::open(&*path, root()));
        *held = anew.expect("a keyring");
    }
    match opened {
        Ok(keyring) => {
            let file = is_what_the_mac_is_of(&keyring, text, signed);
            assert_eq!(refreshed, may_follow(&known.bases[base].file, &file));
            true
        }
        Err(kind) => {
            assert_eq!(refreshed, Err(kind));
            let faults = [
                FileFault::Truncated,
                FileFault::NotAKeyring,
                FileFault::UnknownFormat,
                FileFault::WrongRoot,
                FileFault::Changed,
            ];
            assert!(
                matches!(kind, ErrorKind::File(fault) if faults.contains(&fault)),
                "{kind:?}"
            );
            false
        }
    }
}

/// C6: whether `file` is a later state than the held one, or why it is refused.
fn may_follow(held: &KeyringFile, file: &KeyringFile) -> Result<bool, ErrorKind> {
    let second = &KNOWN.second;
    if file.id != held.id {
        return Err(ErrorKind::File(FileFault::OtherKeyring));
    }
    if file == held {
        return Ok(false);
    }
    let kept = held.keys.iter().all(|key| {
        let Some(next) = file.keys.iter().find(|next| next.id == key.id) else {
            return true;
        };
        key.versions.iter().all(
            |version| match next.versions.iter().find(|next| next.version == version.version) {
                Some(same) => second.open_material(key, version) == second.open_material(next, same),
                None => version.version < next.versions[0].version,
            },
        )
    });
    if file.generation > held.generation && kept {
        Ok(true)
    } else {
        Err(ErrorKind::File(FileFault::RolledBack))
    }
}

/// Returns the file as the second implementation reads it.
fn is_what_the_mac_is_of(keyring: &FileKeyring, text: &[u8], signed: bool) -> KeyringFile {
    let known = &*KNOWN;
    let document: Value = serde_json::from_slice(text).expect("it opened");
    let file = known.second.open_keyring(&document).expect("it opened");
    assert!(signed || known.bases.iter().any(|base| base.file == file));
    // A parsed document has only one value of a repeated field.
    let written = text.contains(&b'\\') || without_space(text) == document.to_string().len();
    assert!(written, "a field stands twice");
    assert_eq!(keyring.generation(), file.generation);
    let list = keyring.keys().list();
    assert_eq!(list.len(), file.keys.len());
    for (info, key) in list.iter().zip(&file.keys) {
        let (state, refusal) = match key.state {
            0 => (KeyState::Enabled, None),
            1 => (KeyState::Disabled, Some(ErrorKind::KeyDisabled)),
            _ => (
                KeyState::PendingDeletion { at: time(key.deletion) },
                Some(ErrorKind::KeyPendingDeletion),
            ),
        };
        let versions = keyring.keys().versions(&info.key_id).expect("it opened");
        let shown = versions.iter().map(|info| (info.key_version, info.created));
        let written = key.versions.iter().map(|v| (v.version, Some(time(v.created))));
        assert!(shown.eq(written));
        let current = key.versions.last().expect("it opened").version;
        assert_eq!(
            (info.key_id.as_str(), info.state, info.current_version, info.min_version),
            (key.id.as_str(), state, current, key.min_version)
        );
        for version in &key.versions {
            let material = known.second.open_material(key, version).expect("it opened");
            let same = Key::new(&key.id, version.version, &material).expect("it opened");
            let expected = match refusal {
                _ if version.version < key.min_version => Err(ErrorKind::KeyVersionRetired),
                Some(kind) => Err(kind),
                None => Ok(same.seal(&[], &DEK)),
            };
            let sealed = keyring.with_version(&info.key_id, version.version, seal);
            assert_eq!(sealed.map_err(|error| error.kind()), expected);
            if version.version == current && expected.is_ok() {
                let sealed = keyring.with_current(&info.key_id, seal);
                assert_eq!(sealed.map_err(|error| error.kind()), expected);
            }
        }
    }
    file
}

fn time(secs: u64) -> UnixTime {
    UnixTime::from_secs(secs).expect("a date of C2")
}

/// The length of JSON without escapes and without the white space between its tokens.
fn without_space(text: &[u8]) -> usize {
    let mut quoted = false;
    let counts = |byte: &&u8| {
        quoted ^= **byte == b'"';
        quoted || !byte.is_ascii_whitespace()
    };
    text.iter().filter(counts).count()
}

fn seal(cmk: &CmkVersion) -> Vec<u8> {
    let sealed: SealedDek = cmk.seal(&EncryptionContext::none(), &Dek::from_bytes(&DEK));
    sealed.as_bytes().to_vec()
}

impl ValueEdit<'_> {
    fn apply(&self, document: &mut Value) {
        // Without a limit, copies of copies would grow without end.
        let count = count(document);
        if count > 1000 {
            return;
        }
        let at = |number: u8| usize::from(number) % count;
        match *self {
            Self::Swap(a, b) => {
                let (first, second) = (nth(document, at(a)).clone(), nth(document, at(b)).clone());
                *nth(document, at(a)) = second;
                // If the first value was inside the second, the second has fewer values now.
                let at = at(b) % self::count(document);
                *nth(document, at) = first;
            }
            Self::Copy(from, to) => {
                let copy = nth(document, at(from)).clone();
                *nth(document, at(to)) = copy;
            }
            Self::Remove(number, inner) => match nth(document, at(number)) {
                Value::Array(array) if !array.is_empty() => drop(array.remove(usize::from(inner) % array.len())),
                Value::Object(object) if !object.is_empty() => {
                    let name = object.keys().nth(usize::from(inner) % object.len()).cloned();
                    object.remove(&name.expect("it is there"));
                }
                _ => {}
            },
            Self::Repeat(number, inner) => {
                if let Value::Array(array) = nth(document, at(number))
                    && !array.is_empty()
                {
                    let inner = usize::from(inner) % array.len();
                    array.insert(inner, array[inner].clone());
                }
            }
            Self::Put(number, name) => {
                if let Value::Object(object) = nth(document, at(number)) {
                    object.insert(name.to_owned(), Value::Null);
                }
            }
            Self::Null(number) => *nth(document, at(number)) = Value::Null,
            Self::Number(number, value) => *nth(document, at(number)) = json!(value),
            Self::Add(number, by) => {
                let value = nth(document, at(number));
                if let Some(number) = value.as_i64() {
                    *value = json!(number.wrapping_add(by.into()));
                }
            }
            Self::Text(number, text) => *nth(document, at(number)) = json!(text),
            Self::Letter(number, at_letter, letter) => {
                if let Value::String(text) = nth(document, at(number)) {
                    let mut letters: Vec<_> = text.chars().collect();
                    if let Some(old) = letters.get_mut(usize::from(at_letter)) {
                        *old = char::from(letter);
                    }
                    *text = letters.into_iter().collect();
                }
            }
            Self::Case(number) => {
                if let Value::String(text) = nth(document, at(number)) {
                    let lower = text.to_ascii_lowercase();
                    *text = if lower == *text {
                        text.to_ascii_uppercase()
                    } else {
                        lower
                    };
                }
            }
            Self::Generation(generation) => field(document, "generation", json!(generation)),
            Self::State(number, state) => {
                let states = ["enabled", "disabled", "pending_deletion", "Enabled"];
                field(key(document, number), "state", json!(states[usize::from(state) % 4]));
            }
            Self::Date(number, [year, month, day, hour, minute, second], pending) => {
                // Values around those that exist: up to one more than there are of each kind.
                let date = format!(
                    "{}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
                    2010 + u32::from(year) * 33,
                    month % 14,
                    day % 33,
                    hour % 25,
                    minute % 61,
                    second % 62
                );
                let key = key(document, number);
                if pending {
                    field(key, "state", json!("pending_deletion"));
                }
                field(key, "deletion", json!(date));
            }
            Self::MinVersion(number, version) => field(key(document, number), "min_version", json!(version)),
        }
    }
}

/// The number of values, including this one.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(array) => array.iter().map(count).sum(),
        Value::Object(object) => object.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// The value with this number, modulo the number of values.
fn nth(value: &mut Value, number: usize) -> &mut Value {
    fn find<'a>(value: &'a mut Value, number: &mut usize) -> Option<&'a mut Value> {
        if *number == 0 {
            return Some(value);
        }
        *number -= 1;
        match value {
            Value::Array(array) => array.iter_mut().find_map(|value| find(value, number)),
            Value::Object(object) => object.values_mut().find_map(|value| find(value, number)),
            _ => None,
        }
    }
    find(value, &mut { number }).expect("there are as many")
}

/// One of the keys, or the document if it has no keys.
fn key(document: &mut Value, number: u8) -> &mut Value {
    match document["keys"].as_array().map(Vec::len) {
        None | Some(0) => document,
        Some(count) => &mut document["keys"][usize::from(number) % count],
    }
}

fn field(value: &mut Value, name: &str, to: Value) {
    if let Value::Object(object) = value {
        object.insert(name.to_owned(), to);
    }
}

impl ByteEdit<'_> {
    fn apply(&self, text: &mut Vec<u8>) {
        let length = text.len();
        let at = |at: u16| usize::from(at) % (length + 1);
        match *self {
            Self::Flip(place, bit) => {
                if let Some(byte) = text.get_mut(at(place)) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Self::Insert(place, bytes) => drop(text.splice(at(place)..at(place), bytes.iter().copied())),
            Self::Remove(place, count) => drop(text.drain(at(place)..(at(place) + usize::from(count)).min(length))),
            Self::Write(place, bytes) => {
                let end = (at(place) + bytes.len()).min(length);
                drop(text.splice(at(place)..end, bytes.iter().copied()));
            }
            Self::Cut(place) => text.truncate(at(place)),
            Self::Line(place) => {
                let lines: Vec<_> = text
                    .split_inclusive(|byte| *byte == b'\n')
                    .map(<[u8]>::to_vec)
                    .collect();
                if let Some(line) = lines.get(usize::from(place) % lines.len().max(1)) {
                    let end: usize = lines[..=usize::from(place) % lines.len()].iter().map(Vec::len).sum();
                    drop(text.splice(end..end, line.iter().copied()));
                }
            }
        }
    }
}
