//! Tests two keyrings over one file, and other programs that restore and swap the file, against a model. No version is
//! lost, held versions still open, a rollback is reported exactly when there is one, and generations count all writes.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arbitrary::{Arbitrary, Unstructured};
use dekseal::{
    CmkVersion, Dek, EncryptionContext, Engine, Error, ErrorKind, FileFault, FileKeyring, KeyId, KeyState, Keyset,
    SealedDek, UnixTime,
};

use crate::Once;

const ROOT_ID: &str = "00000000-0000-0000-0000-00000000root";
/// The last ID is that of the root, which no key may have.
const KEY_IDS: [&str; 3] = [
    "0d0466b0-e727-4d9c-b35d-f84bb474a37f",
    "43e243b5-0095-1b21-67b2-58370386cc4a",
    ROOT_ID,
];
const START: u64 = 1_800_000_000;
const DAY: u64 = 24 * 60 * 60;

#[derive(Arbitrary, Debug)]
enum Op {
    Update(bool, Vec<Step>, bool),
    Refresh(bool),
    Adopt(bool),
    WriteBack(bool),
    ChangeRoot(bool, bool),
    /// With the root of the file, or with another one.
    Reopen(bool, bool),
    Seal(bool, u8),
    Open(bool, u8),
    /// Restores any file that ever existed: an older one, or one of another keyring. The text may differ, and the file
    /// is overwritten or replaced.
    Restore(u8, bool, bool),
    Remove,
    Spoil,
    /// Makes the file old enough that a lookup need not read it again.
    Age,
    Wait(u16),
}

#[derive(Arbitrary, Debug)]
enum Step {
    Import(u8, u8),
    Rotate(u8),
    ImportVersion(u8, u8),
    MinVersion(u8, u8),
    Destroy(u8, u8, u16),
    ForceDestroy(u8, u8),
    Disable(u8),
    Enable(u8),
    Schedule(u8, u16),
    Cancel(u8),
    Purge(u8, bool),
}

/// The contents of a document. Two equal documents are the same state.
#[derive(Clone, Debug, PartialEq)]
struct Document {
    keyring: u8,
    generation: u64,
    root: bool,
    keys: BTreeMap<&'static str, Key>,
}

#[derive(Clone, Debug, PartialEq)]
struct Key {
    state: KeyState,
    min: u32,
    versions: BTreeMap<u32, Version>,
}

#[derive(Clone, Debug, PartialEq)]
struct Version {
    material: Vec<u8>,
    created: u64,
}

#[derive(Clone, Debug, PartialEq)]
enum File {
    Missing,
    Spoilt,
    Is(Document),
}

/// A process: its keyring, and the state that it should hold.
struct Process {
    engine: Engine<FileKeyring>,
    held: Document,
    rolled_back: bool,
}

struct Blob {
    key: &'static str,
    version: u32,
    material: Vec<u8>,
    dek: Dek,
    sealed: SealedDek,
}

struct World {
    path: PathBuf,
    file: File,
    past: Vec<(Document, Vec<u8>)>,
    blobs: Vec<Blob>,
    now: u64,
    /// Makes every material and every DEK different.
    count: u64,
    /// The number of times that files were made older. Each time the age differs.
    aged: u64,
}

impl Drop for World {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(self.directory()));
    }
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub fn keyrings(data: &[u8]) {
    let mut rest = Unstructured::new(data);
    let mut ops = Vec::new();
    while !rest.is_empty() && ops.len() < 60 {
        let Ok(op) = Op::arbitrary(&mut rest) else { return };
        ops.push(op);
    }
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // In memory, if the system has such a directory.
    let directory = Some(PathBuf::from("/dev/shm")).filter(|directory| directory.is_dir());
    let directory = directory.unwrap_or_else(env::temp_dir);
    let directory = directory.join(format!("dekseal-fuzz-keyrings-{}", process::id()));
    drop(fs::remove_dir_all(&directory));
    fs::create_dir(&directory).expect("a directory");
    let mut world = World {
        path: directory.join("keyring.json"),
        file: File::Missing,
        past: Vec::new(),
        blobs: Vec::new(),
        now: START,
        count: 0,
        aged: 0,
    };
    let other = world.create(1);
    drop(other);
    fs::remove_file(&world.path).expect("a file");
    let first = world.create(0);
    let second = Process {
        engine: Engine::new(FileKeyring::open(&world.path, root(false)).expect("a file")),
        held: first.held.clone(),
        rolled_back: false,
    };
    let mut processes = [first, second];
    for op in &ops {
        world.run(op, &mut processes);
        for process in &processes {
            process.is_as_in_the_model();
        }
    }
    // At the end each keyring can accept the contents of the file, and then opens every blob under an allowed version.
    for who in [false, true] {
        world.run(&Op::Adopt(who), &mut processes);
        for blob in 0..world.blobs.len() {
            world.run(&Op::Open(who, blob as u8), &mut processes);
        }
    }
    if let File::Is(document) = &world.file {
        let opened = FileKeyring::open(&world.path, root(document.root)).expect("a file");
        let anew = Process {
            engine: Engine::new(opened),
            held: document.clone(),
            rolled_back: false,
        };
        anew.is_as_in_the_model();
    }
}

fn root(second: bool) -> CmkVersion {
    let id = ROOT_ID.parse().expect("a key ID");
    CmkVersion::new(id, u32::from(second), &[0x77 + u8::from(second); 64]).expect("material")
}

fn time(secs: u64) -> UnixTime {
    UnixTime::from_secs(secs).expect("a time")
}

fn id(number: u8) -> &'static str {
    KEY_IDS[usize::from(number) % KEY_IDS.len()]
}

fn key_id(id: &str) -> KeyId {
    id.parse().expect("a key ID")
}

fn fault<T>(fault: FileFault) -> Result<T, ErrorKind> {
    Err(ErrorKind::File(fault))
}

fn kind<T>(result: Result<T, Error>) -> Result<T, ErrorKind> {
    result.map_err(|error| error.kind())
}

impl World {
    fn directory(&self) -> &Path {
        self.path.parent().expect("a directory")
    }

    /// Creates a separate keyring in a new file.
    fn create(&mut self, keyring: u8) -> Process {
        let made = FileKeyring::create(&self.path, root(false)).expect("a file");
        let held = Document {
            keyring,
            generation: 1,
            root: false,
            keys: BTreeMap::new(),
        };
        self.wrote(held.clone());
        Process {
            engine: Engine::new(made),
            held,
            rolled_back: false,
        }
    }

    /// Records that a keyring wrote the file.
    fn wrote(&mut self, document: Document) {
        self.past
            .push((document.clone(), fs::read(&self.path).expect("a file")));
        self.file = File::Is(document);
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        self.count += 1;
        let count = self.count.to_le_bytes();
        // A generator that returns equal halves is refused as stuck.
        (0..=u8::MAX)
            .zip(count.into_iter().cycle())
            .map(|(at, byte)| at ^ byte)
            .take(length)
            .collect()
    }

    fn run(&mut self, op: &Op, processes: &mut [Process; 2]) {
        let process = &mut processes[usize::from(op.who())];
        match *op {
            Op::Update(_, ref steps, fail) => self.update(process, steps, fail),
            Op::Refresh(_) => {
                let expected = process.judge(&self.file);
                assert_eq!(kind(process.keyring().refresh()), expected);
            }
            Op::Adopt(_) => {
                let expected = process.readable(&self.file);
                assert_eq!(kind(process.keyring().adopt()), expected.clone().map(drop));
                if let Ok(document) = expected {
                    process.held = document;
                    process.rolled_back = false;
                }
            }
            Op::WriteBack(_) => self.write_back(process),
            Op::ChangeRoot(_, second) => {
                let expected = process.prepare(&self.file);
                assert_eq!(kind(process.keyring().change_root(root(second))), expected);
                if expected.is_ok() {
                    process.held.root = second;
                    process.held.generation += 1;
                    self.wrote(process.held.clone());
                }
            }
            Op::Reopen(_, right) => {
                let opened = |second| kind(FileKeyring::open(&self.path, root(second)));
                match &self.file {
                    File::Missing => assert_eq!(opened(false).err(), Some(ErrorKind::File(FileFault::Io))),
                    File::Spoilt => assert_eq!(opened(false).err(), Some(ErrorKind::File(FileFault::NotAKeyring))),
                    File::Is(document) if !right => {
                        assert_eq!(
                            opened(!document.root).err(),
                            Some(ErrorKind::File(FileFault::WrongRoot))
                        );
                    }
                    File::Is(document) => {
                        *process = Process {
                            engine: Engine::new(opened(document.root).expect("a file")),
                            held: document.clone(),
                            rolled_back: false,
                        };
                    }
                }
            }
            Op::Seal(_, key) => self.seal(process, id(key)),
            Op::Open(_, number) => {
                if let Some(blob) = self.blobs.get(usize::from(number) % self.blobs.len().max(1)) {
                    process.opens(blob, &self.file);
                }
            }
            Op::Restore(number, spaced, in_place) => {
                let (document, text) = &self.past[usize::from(number) % self.past.len()];
                let mut text = text.clone();
                text.extend(spaced.then_some(b' '));
                self.file = File::Is(document.clone());
                self.replace(&text, in_place);
            }
            Op::Remove => {
                drop(fs::remove_file(&self.path));
                self.file = File::Missing;
            }
            Op::Spoil => {
                self.file = File::Spoilt;
                self.replace(b"{}", true);
            }
            Op::Age => {
                self.aged += 1;
                let modified = SystemTime::now() - Duration::from_secs(10 * self.aged);
                if let Ok(file) = fs::File::options().write(true).open(&self.path) {
                    file.set_modified(modified).expect("a time");
                }
            }
            Op::Wait(seconds) => self.now += u64::from(seconds) * 60,
        }
    }

    fn replace(&self, text: &[u8], in_place: bool) {
        if in_place {
            fs::write(&self.path, text).expect("a file");
        } else {
            let new = self.path.with_extension("new");
            fs::write(&new, text).expect("a file");
            fs::rename(new, &self.path).expect("a file");
        }
    }

    fn update(&mut self, process: &mut Process, steps: &[Step], fail: bool) {
        let mut expected = process.prepare(&self.file);
        let mut next = process.held.clone();
        let steps: Vec<_> = steps.iter().take(4).map(|step| (step, self.bytes(66))).collect();
        let now = self.now;
        if expected.is_ok() {
            for (step, bytes) in &steps {
                expected = expected.and_then(|()| step.in_model(&mut next, bytes, now));
            }
            if fail {
                expected = expected.and(Err(ErrorKind::Keyring));
            }
        }
        let updated = process.keyring().update(|keys| {
            for (step, bytes) in &steps {
                step.take(keys, bytes, now)?;
            }
            if fail {
                return Err(ErrorKind::Keyring.into());
            }
            Ok(())
        });
        assert_eq!(kind(updated), expected);
        if expected.is_ok() {
            next.generation += 1;
            process.held = next.clone();
            self.wrote(next);
        }
    }

    fn write_back(&mut self, process: &mut Process) {
        let found = process.readable(&self.file).map(|document| document.generation);
        let expected = match (process.judge(&self.file), &self.file) {
            (_, File::Missing) | (Err(ErrorKind::File(FileFault::RolledBack)), _) => Ok(true),
            (judged, _) => judged.map(|_| false),
        };
        assert_eq!(kind(process.keyring().write_back()), expected.map(drop));
        if expected == Ok(true) {
            process.rolled_back = false;
            process.held.generation = process.held.generation.max(found.unwrap_or(0)) + 1;
            self.wrote(process.held.clone());
        }
    }

    fn seal(&mut self, process: &mut Process, key: &'static str) {
        let dek = Dek::from_bytes(&self.bytes(64).try_into().expect("64 bytes"));
        let expected = process.current(key, &self.file);
        let none = EncryptionContext::none();
        let sealed = kind(process.engine.encrypt_dek(&key_id(key), &none, &dek));
        let (version, material) = match expected {
            Ok(expected) => expected,
            Err(kind) => return assert_eq!(sealed, Err(kind)),
        };
        let cmk = CmkVersion::new(key_id(key), version, &material).expect("material");
        let expected = cmk.seal(&none, &dek);
        assert_eq!(sealed, Ok(expected));
        self.blobs.push(Blob {
            key,
            version,
            material,
            dek,
            sealed: expected,
        });
    }
}

impl Process {
    fn keyring(&self) -> &FileKeyring {
        self.engine.keyring()
    }

    /// The document in the file, if this process can read it.
    fn readable(&self, file: &File) -> Result<Document, ErrorKind> {
        match file {
            File::Missing => fault(FileFault::Io),
            File::Spoilt => fault(FileFault::NotAKeyring),
            File::Is(document) if document.root != self.held.root => fault(FileFault::WrongRoot),
            File::Is(document) => Ok(document.clone()),
        }
    }

    /// C6: accepts the contents of the file, and returns whether they are new, or why they are refused.
    fn judge(&mut self, file: &File) -> Result<bool, ErrorKind> {
        let document = self.readable(file)?;
        if document.keyring != self.held.keyring {
            self.rolled_back = true;
            return fault(FileFault::OtherKeyring);
        }
        if document == self.held {
            self.rolled_back = false;
            return Ok(false);
        }
        let later = document.generation > self.held.generation;
        if self.rolled_back || !later || !keeps(&self.held, &document) {
            self.rolled_back = true;
            return fault(FileFault::RolledBack);
        }
        self.held = document;
        Ok(true)
    }

    /// The step before a change.
    fn prepare(&mut self, file: &File) -> Result<(), ErrorKind> {
        if self.rolled_back {
            return Err(ErrorKind::RollbackUnresolved);
        }
        self.judge(file).map(drop)
    }

    /// Reads the file for a key or a version that is not held.
    fn look(&mut self, file: &File) -> Result<(), ErrorKind> {
        match self.judge(file) {
            Err(_) if self.rolled_back => Err(ErrorKind::RollbackUnresolved),
            judged => judged.map(drop),
        }
    }

    /// The version that seals, and its material.
    fn current(&mut self, key: &str, file: &File) -> Result<(u32, Vec<u8>), ErrorKind> {
        if self.rolled_back {
            return Err(ErrorKind::RollbackUnresolved);
        }
        if !self.held.keys.contains_key(key) {
            self.look(file)?;
        }
        let key = self.held.keys.get(key).ok_or(ErrorKind::UnknownKey)?;
        key.enabled()?;
        let (version, current) = key.versions.last_key_value().expect("versions");
        Ok((*version, current.material.clone()))
    }

    fn opens(&mut self, blob: &Blob, file: &File) {
        let mut expected = self.opening(blob);
        if let Err(ErrorKind::UnknownKey | ErrorKind::UnknownKeyVersion) = expected {
            expected = self.look(file).and_then(|()| self.opening(blob));
        }
        let opened = self
            .engine
            .decrypt_dek(&key_id(blob.key), &EncryptionContext::none(), &blob.sealed);
        match expected {
            Ok(()) => assert!(opened.expect("it is held") == blob.dek),
            Err(expected) => assert_eq!(kind(opened).err(), Some(expected)),
        }
    }

    fn opening(&self, blob: &Blob) -> Result<(), ErrorKind> {
        let key = self.held.keys.get(blob.key).ok_or(ErrorKind::UnknownKey)?;
        let newest = key.versions.last_key_value().expect("versions").0;
        match key.versions.get(&blob.version) {
            None if blob.version < *newest => Err(ErrorKind::KeyVersionDestroyed),
            None => Err(ErrorKind::UnknownKeyVersion),
            Some(_) if blob.version < key.min => Err(ErrorKind::KeyVersionRetired),
            Some(version) => {
                key.enabled()?;
                // A branch that was adopted may have another version with the same number.
                let same = version.material == blob.material;
                same.then_some(()).ok_or(ErrorKind::AuthenticationFailed)
            }
        }
    }

    fn is_as_in_the_model(&self) {
        let keys = self.keyring().keys();
        assert_eq!(self.keyring().generation(), self.held.generation);
        let list = keys.list();
        assert_eq!(list.len(), self.held.keys.len());
        for (info, (id, key)) in list.iter().zip(&self.held.keys) {
            let (newest, _) = key.versions.last_key_value().expect("versions");
            assert_eq!(info.key_id.as_str(), *id);
            assert_eq!(
                (info.state, info.min_version, info.current_version),
                (key.state, key.min, *newest)
            );
            let versions = keys.versions(&info.key_id).expect("a key");
            let versions = versions.iter().map(|info| (info.key_version, info.created));
            let expected = key.versions.iter();
            assert!(versions.eq(expected.map(|(number, version)| (*number, Some(time(version.created))))));
        }
    }
}

/// C6: whether `next` has all held versions except the oldest ones.
fn keeps(held: &Document, next: &Document) -> bool {
    held.keys.iter().all(|(id, key)| {
        let Some(next) = next.keys.get(id) else { return true };
        key.versions
            .iter()
            .all(|(number, version)| match next.versions.get(number) {
                Some(same) => same.material == version.material,
                None => next.versions.keys().all(|kept| number < kept),
            })
    })
}

impl Key {
    fn enabled(&self) -> Result<(), ErrorKind> {
        match self.state {
            KeyState::Enabled => Ok(()),
            KeyState::Disabled => Err(ErrorKind::KeyDisabled),
            _ => Err(ErrorKind::KeyPendingDeletion),
        }
    }

    fn newest(&self) -> u32 {
        *self.versions.last_key_value().expect("versions").0
    }

    fn destroy(&mut self, first_kept: u32, grace: Option<(u64, u64)>) -> Result<(), ErrorKind> {
        if first_kept > self.min {
            return Err(ErrorKind::VersionInUse);
        }
        if let Some((grace, now)) = grace {
            let successors = self.versions.values().skip(1);
            let mut pairs = self.versions.keys().zip(successors);
            let young = |created: u64| now.checked_sub(created).is_none_or(|age| age < grace);
            if pairs.any(|(number, successor)| *number < first_kept && young(successor.created)) {
                return Err(ErrorKind::GracePeriod);
            }
        }
        self.versions.retain(|number, _| *number >= first_kept);
        Ok(())
    }
}

/// 30 to 67 bytes, so some lengths are refused.
fn length(number: u8) -> usize {
    30 + usize::from(number) % 37
}

impl Op {
    /// The process that does the step.
    fn who(&self) -> bool {
        match *self {
            Self::Update(who, ..)
            | Self::Refresh(who)
            | Self::Adopt(who)
            | Self::WriteBack(who)
            | Self::ChangeRoot(who, _)
            | Self::Reopen(who, _)
            | Self::Seal(who, _)
            | Self::Open(who, _) => who,
            Self::Restore(..) | Self::Remove | Self::Spoil | Self::Age | Self::Wait(_) => false,
        }
    }
}

impl Step {
    fn take(&self, keys: &mut Keyset, bytes: &[u8], now: u64) -> Result<(), Error> {
        let at = time(now);
        match *self {
            Self::Import(key, len) => keys.import_key_at(key_id(id(key)), &bytes[..length(len)], at),
            Self::Rotate(key) => keys
                .rotate_with_rng(&key_id(id(key)), at, &mut Once(&bytes[..64]))
                .map(drop),
            Self::ImportVersion(key, len) => keys
                .import_version_at(&key_id(id(key)), &bytes[..length(len)], at)
                .map(drop),
            Self::MinVersion(key, min) => keys.set_min_version(&key_id(id(key)), u32::from(min % 8)),
            Self::Destroy(key, kept, grace) => keys
                .destroy_versions_at(
                    &key_id(id(key)),
                    u32::from(kept % 8),
                    Duration::from_secs(grace.into()),
                    at,
                )
                .map(drop),
            Self::ForceDestroy(key, kept) => keys
                .force_destroy_versions(&key_id(id(key)), u32::from(kept % 8))
                .map(drop),
            Self::Disable(key) => keys.disable(&key_id(id(key))),
            Self::Enable(key) => keys.enable(&key_id(id(key))),
            Self::Schedule(key, days) => keys
                .schedule_deletion_at(&key_id(id(key)), u32::from(days), at)
                .map(drop),
            Self::Cancel(key) => keys.cancel_deletion(&key_id(id(key))),
            Self::Purge(key, late) => keys.purge_at(&key_id(id(key)), time(now + u64::from(late) * 2000 * DAY)),
        }
    }

    fn in_model(&self, document: &mut Document, bytes: &[u8], now: u64) -> Result<(), ErrorKind> {
        let version = |length: usize| Version {
            material: bytes[..length].to_vec(),
            created: now,
        };
        let keys = &mut document.keys;
        if let Self::Import(key, len) = *self {
            let id = id(key);
            if !(32..=64).contains(&length(len)) {
                return Err(ErrorKind::InvalidMaterial);
            }
            if id == ROOT_ID || keys.contains_key(id) {
                return Err(ErrorKind::KeyExists);
            }
            let key = Key {
                state: KeyState::Enabled,
                min: 0,
                versions: BTreeMap::from([(0, version(length(len)))]),
            };
            keys.insert(id, key);
            return Ok(());
        }
        let (Self::Import(number, ..)
        | Self::Rotate(number)
        | Self::ImportVersion(number, ..)
        | Self::MinVersion(number, ..)
        | Self::Destroy(number, ..)
        | Self::ForceDestroy(number, ..)
        | Self::Disable(number)
        | Self::Enable(number)
        | Self::Schedule(number, ..)
        | Self::Cancel(number)
        | Self::Purge(number, ..)) = *self;
        let key = keys.get_mut(id(number)).ok_or(ErrorKind::UnknownKey)?;
        match *self {
            Self::Import(..) => unreachable!("see above"),
            Self::Rotate(_) => {
                key.enabled()?;
                key.versions.insert(key.newest() + 1, version(64));
            }
            Self::ImportVersion(_, len) => {
                key.enabled()?;
                if !(32..=64).contains(&length(len)) {
                    return Err(ErrorKind::InvalidMaterial);
                }
                key.versions.insert(key.newest() + 1, version(length(len)));
            }
            Self::MinVersion(_, min) => {
                let min = u32::from(min % 8);
                let oldest = *key.versions.first_key_value().expect("versions").0;
                if min < oldest.min(key.min) || min > key.newest() {
                    return Err(ErrorKind::MinVersion);
                }
                key.min = min;
            }
            Self::Destroy(_, kept, grace) => key.destroy(u32::from(kept % 8), Some((grace.into(), now)))?,
            Self::ForceDestroy(_, kept) => key.destroy(u32::from(kept % 8), None)?,
            Self::Disable(_) if key.state == KeyState::Enabled => key.state = KeyState::Disabled,
            Self::Disable(_) => return Err(ErrorKind::KeyNotEnabled),
            Self::Enable(_) if key.state == KeyState::Disabled => key.state = KeyState::Enabled,
            Self::Enable(_) => return Err(ErrorKind::KeyNotDisabled),
            Self::Schedule(_, days) => match key.state {
                KeyState::PendingDeletion { .. } => return Err(ErrorKind::DeletionScheduled),
                _ if !(7..=1096).contains(&days) => return Err(ErrorKind::DeletionDays),
                _ => {
                    let at = time(now + u64::from(days) * DAY);
                    key.state = KeyState::PendingDeletion { at };
                }
            },
            Self::Cancel(_) => match key.state {
                KeyState::PendingDeletion { .. } => key.state = KeyState::Disabled,
                _ => return Err(ErrorKind::DeletionNotScheduled),
            },
            Self::Purge(_, late) => match key.state {
                KeyState::PendingDeletion { at } if at.as_secs() <= now + u64::from(late) * 2000 * DAY => {
                    keys.remove(id(number));
                }
                KeyState::PendingDeletion { .. } => return Err(ErrorKind::DeletionNotDue),
                _ => return Err(ErrorKind::DeletionNotScheduled),
            },
        }
        Ok(())
    }
}
