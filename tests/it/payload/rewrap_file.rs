//! Rewrapping a payload in a file. The tests of `crates/dekseal-cli` kill it at each system call.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use dekseal::{
    CmkVersion, EncryptionContext, Engine, Error, ErrorKind, KeyId, Keyring, MemoryKeyring, PayloadRule,
    payload::PayloadHeader,
};
use tempfile::TempDir;

use super::{file::File, inner::kind_of};
use crate::support::{KEY_ID, OTHER_KEY_ID, cmk, key_id};

/// A directory with one payload, under version 0 of a key that also has version 1.
struct Place {
    directory: TempDir,
    engine: Engine<MemoryKeyring>,
    id: KeyId,
    context: EncryptionContext,
    old: Vec<u8>,
    /// The payload `old` under version 1.
    new: Vec<u8>,
}

impl Place {
    fn new() -> Self {
        let file = File::read();
        let (engine, id, context) = (file.engine(2), file.key_id(), file.context());
        let old = file.base();
        let mut new = old.clone();
        engine.rewrap(&id, &context, &id, &mut new).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("sealed"), &old).unwrap();
        Self {
            directory,
            engine,
            id,
            context,
            old,
            new,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("sealed")
    }

    fn copy(&self) -> PathBuf {
        self.directory.path().join(".sealed.dekseal-header")
    }

    fn rewrap(&self) -> io::Result<PayloadHeader> {
        self.rewrap_with(&self.engine)
    }

    fn rewrap_with(&self, engine: &Engine<impl Keyring>) -> io::Result<PayloadHeader> {
        engine.rewrap_file(&self.id, &self.context, &self.id, self.path())
    }

    /// Asserts that the file and the copy have these bytes.
    fn has(&self, file: &[u8], copy: Option<&[u8]>) {
        assert!(fs::read(self.path()).unwrap() == file, "the file");
        let found = fs::read(self.copy());
        assert_eq!(found.ok().as_deref(), copy, "the copy");
    }

    /// Puts in place what a crash may leave.
    fn leaves(&self, file: &[u8], copy: &[u8]) {
        fs::write(self.path(), file).unwrap();
        fs::write(self.copy(), copy).unwrap();
    }

    /// Asserts that a rewrap fails with this error, and changes nothing.
    fn refuses(&self, engine: &Engine<impl Keyring>, kind: ErrorKind, path: Option<&Path>) {
        let before = (fs::read(self.path()).unwrap(), fs::read(self.copy()).ok());
        let error = self.rewrap_with(engine).unwrap_err();
        assert_eq!(kind_of(&error), Some(kind), "{error}");
        let ours: &Error = error.get_ref().unwrap().downcast_ref().unwrap();
        assert_eq!(ours.path(), path.map(|path| path.canonicalize().unwrap()).as_deref());
        self.has(&before.0, before.1.as_deref());
    }
}

#[test]
fn a_rotation_gives_the_known_answer() {
    let place = Place::new();
    let header = place.rewrap().unwrap();
    place.has(&place.new, None);
    assert_eq!(header.to_bytes(), place.new[..264]);

    // If nothing changes, nothing is written.
    let before = fs::metadata(place.path()).unwrap().modified().unwrap();
    assert_eq!(place.rewrap().unwrap(), header);
    assert_eq!(fs::metadata(place.path()).unwrap().modified().unwrap(), before);
}

#[test]
fn a_job_that_moves_files_to_another_key_can_run_again() {
    let place = Place::new();
    let other = key_id(OTHER_KEY_ID);
    let keyring = place.engine.keyring();
    keyring.update(|keys| keys.create_key(other)).unwrap();
    for _ in 0..2 {
        let header = place
            .engine
            .rewrap_file(&place.id, &place.context, &other, place.path())
            .unwrap();
        assert_eq!(header.sealed_dek().key_id(), other);
    }
    // A file under neither key is refused.
    place.refuses(&place.engine, ErrorKind::KeyMismatch, None);
}

/// All states that a crash can leave.
#[test]
fn the_next_call_completes_what_a_crash_interrupted() {
    let place = Place::new();
    let header = &place.old[..264];
    let half = |at: usize| [&place.new[..at], &place.old[at..]].concat();
    // Before, during and after the write of the copy; before, during and after the write of the header.
    for length in [0, 1, 100, 263, 264] {
        place.leaves(&place.old, &header[..length]);
        place.rewrap().unwrap();
        place.has(&place.new, None);
    }
    // A file system may keep the length of a file and lose its bytes.
    place.leaves(&place.old, &[0; 264]);
    place.rewrap().unwrap();
    place.has(&place.new, None);
    for at in [44, 45, 46, 100, 140, 200, 231, 232] {
        place.leaves(&half(at), header);
        place.rewrap().unwrap();
        place.has(&place.new, None);
    }
    place.leaves(&place.new, header);
    place.rewrap().unwrap();
    place.has(&place.new, None);
}

#[test]
fn a_copy_that_opens_no_more_is_never_put_back() {
    let place = Place::new();
    let (id, old_header) = (place.id, &place.old[..264]);
    let keyring = place.engine.keyring();
    let torn = [&place.new[..140], &place.old[140..]].concat();

    keyring.update(|keys| keys.set_min_version(&id, 1)).unwrap();
    place.leaves(&torn, old_header);
    place.refuses(&place.engine, ErrorKind::KeyVersionRetired, None);

    // The header is complete, so the copy is not needed.
    place.leaves(&place.new, old_header);
    keyring.update(|keys| keys.rotate(&id)).unwrap();
    let header = place.rewrap().unwrap();
    assert_eq!(header.sealed_dek().key_version(), 2);
    let payload = fs::read(place.path()).unwrap();
    place.has(&[&header.to_bytes()[..], &place.new[264..]].concat(), None);
    place.engine.decrypt(&id, &place.context, &payload).unwrap();
}

/// The keyring of this process has not seen a rotation yet, or the key is disabled. In neither case may the old header
/// be restored.
#[test]
fn a_whole_header_that_does_not_open_is_never_overwritten() {
    let place = Place::new();
    place.leaves(&place.new, &place.old[..264]);
    let behind = File::read().engine(1);
    place.refuses(&behind, ErrorKind::UnknownKeyVersion, None);
    let id = place.id;
    place.engine.keyring().update(|keys| keys.disable(&id)).unwrap();
    place.refuses(&place.engine, ErrorKind::KeyDisabled, None);
    place.engine.keyring().update(|keys| keys.enable(&id)).unwrap();
    place.rewrap().unwrap();
    place.has(&place.new, None);
}

#[test]
fn another_context_leaves_file_and_copy_alone() {
    let mut place = Place::new();
    let torn = [&place.new[..140], &place.old[140..]].concat();
    place.leaves(&torn, &place.old[..264]);
    let context = std::mem::replace(&mut place.context, EncryptionContext::none());
    place.refuses(&place.engine, ErrorKind::AuthenticationFailed, None);
    place.context = context;
    place.rewrap().unwrap();
    place.has(&place.new, None);
}

#[test]
fn a_copy_of_another_payload_is_kept_and_named() {
    let place = Place::new();
    let other = place.engine.encrypt(&place.id, &place.context, b"another").unwrap();
    let copy = place.copy();
    for (file, copied) in [
        (&place.old[..], &other[..264]),
        // The copy of this payload, with more bytes after it.
        (&place.old, &place.old[..265]),
    ] {
        place.leaves(file, copied);
        place.refuses(&place.engine, ErrorKind::ForeignHeaderCopy, Some(&copy));
    }
    fs::remove_file(&copy).unwrap();
    fs::create_dir(&copy).unwrap();
    let error = place.rewrap().unwrap_err();
    assert_eq!(kind_of(&error), Some(ErrorKind::ForeignHeaderCopy));
    assert!(error.to_string().contains(".sealed.dekseal-header"), "{error}");
}

#[cfg(unix)]
#[test]
fn links_are_followed_to_the_file_and_never_to_the_copy() {
    use std::os::unix::fs::symlink;

    let place = Place::new();
    let link = place.directory.path().join("link");
    symlink("sealed", &link).unwrap();
    fs::write(place.copy(), &place.old[..264]).unwrap();
    place
        .engine
        .rewrap_file(&place.id, &place.context, &place.id, &link)
        .unwrap();
    place.has(&place.new, None);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

    fs::write(place.path(), &place.old).unwrap();
    let victim = place.directory.path().join("victim");
    for exists in [false, true] {
        if exists {
            fs::write(&victim, &place.old[..264]).unwrap();
        }
        let _ = fs::remove_file(place.copy());
        symlink(&victim, place.copy()).unwrap();
        assert_eq!(
            kind_of(&place.rewrap().unwrap_err()),
            Some(ErrorKind::ForeignHeaderCopy)
        );
        assert_eq!(victim.exists(), exists);
    }
    assert!(fs::read(place.path()).unwrap() == place.old);
}

#[test]
fn a_file_that_cannot_be_rewrapped_is_named_and_stays_as_it_is() {
    let place = Place::new();
    let rewrap = |path: &Path| {
        let error = place
            .engine
            .rewrap_file(&place.id, &place.context, &place.id, path)
            .unwrap_err();
        assert!(
            error.to_string().contains(path.file_name().unwrap().to_str().unwrap()),
            "{error}"
        );
        error
    };
    assert_eq!(
        rewrap(&place.path().with_file_name("none")).kind(),
        io::ErrorKind::NotFound
    );
    assert_eq!(rewrap(place.directory.path()).kind(), io::ErrorKind::InvalidInput);
    let short = place.path().with_file_name("short");
    fs::write(&short, &place.old[..263]).unwrap();
    assert_eq!(
        kind_of(&rewrap(&short)),
        Some(ErrorKind::NotAPayload(PayloadRule::Length))
    );

    // The name of the copy would be too long.
    let long = place.path().with_file_name("n".repeat(250));
    fs::write(&long, &place.old).unwrap();
    rewrap(&long);
    assert!(fs::read(&long).unwrap() == place.old);
    assert_eq!(fs::read_dir(place.directory.path()).unwrap().count(), 3);
}

#[test]
fn calls_at_the_same_time_wait_for_each_other() {
    let place = Place::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    place.engine.keyring().update(|keys| keys.rotate(&place.id)).unwrap();
                    place.rewrap().unwrap();
                }
            });
        }
    });
    let header = place.rewrap().unwrap();
    assert_eq!(header.sealed_dek().key_version(), 41);
    place.has(&[&header.to_bytes()[..], &place.old[264..]].concat(), None);
}

/// A keyring that lets something happen to the file during its `nth` use.
struct Meddling<'a> {
    keyring: MemoryKeyring,
    uses: AtomicUsize,
    nth: usize,
    meddle: &'a (dyn Fn() + Sync),
}

impl Meddling<'_> {
    fn meddle(&self) {
        if self.uses.fetch_add(1, Ordering::Relaxed) == self.nth {
            (self.meddle)();
        }
    }
}

impl Keyring for Meddling<'_> {
    fn with_current<R>(&self, key_id: &KeyId, f: impl FnOnce(&CmkVersion) -> R) -> Result<R, Error> {
        self.meddle();
        self.keyring.with_current(key_id, f)
    }

    fn with_version<R>(&self, key_id: &KeyId, version: u32, f: impl FnOnce(&CmkVersion) -> R) -> Result<R, Error> {
        self.meddle();
        self.keyring.with_version(key_id, version, f)
    }
}

/// The uses: open the old header, seal, try the new header; after the write, open it again.
const USES: usize = 4;

#[test]
fn what_other_programs_do_to_the_file_meanwhile_is_not_undone() {
    let id = key_id(KEY_ID);
    let none = EncryptionContext::none();
    let versions = || [cmk(KEY_ID, 0, &[7; 32]), cmk(KEY_ID, 1, &[8; 32])];
    let current = Engine::new(MemoryKeyring::from_versions(versions()).unwrap());
    let [first, second] = versions();
    drop(second);
    let before = Engine::new(MemoryKeyring::from_versions([first]).unwrap());
    let (old, another) = (
        before.encrypt(&id, &none, b"one").unwrap(),
        before.encrypt(&id, &none, b"two").unwrap(),
    );

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sealed");
    let aside = directory.path().join("aside");
    // The file is replaced, moved away, emptied, overwritten, or appended to.
    let replace = || {
        fs::write(&aside, &another).unwrap();
        fs::rename(&aside, &path).unwrap();
    };
    let truncate = || fs::write(&path, b"").unwrap();
    let overwrite = || fs::write(&path, &another).unwrap();
    let append = || {
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"more").unwrap();
    };
    let busy = Some(io::ErrorKind::ResourceBusy);
    let cut = Some(io::ErrorKind::InvalidData);
    for nth in 0..USES {
        // A call cannot see changes that are made after it has finished with the file.
        let written = nth == USES - 1;
        let cases: [(&(dyn Fn() + Sync), _, _); 4] = [
            (&replace, busy, another.clone()),
            (&truncate, cut.filter(|_| !written), Vec::new()),
            (&overwrite, busy.filter(|_| !written), another.clone()),
            (&append, None, [&old[..], b"more"].concat()),
        ];
        for (case, (meddle, kind, expected)) in cases.into_iter().enumerate() {
            fs::write(&path, &old).unwrap();
            let engine = Engine::new(Meddling {
                keyring: MemoryKeyring::from_versions(versions()).unwrap(),
                uses: AtomicUsize::new(0),
                nth,
                meddle,
            });
            let result = engine.rewrap_file(&id, &none, &id, &path);
            assert_eq!(
                result.as_ref().err().map(io::Error::kind),
                kind,
                "{case} at {nth}: {result:?}"
            );
            assert_eq!(engine.keyring().uses.load(Ordering::Relaxed).min(nth + 1), nth + 1);
            let found = fs::read(&path).unwrap();
            // Only an append is compatible with a rewrap.
            assert_eq!(found.get(..44), expected.get(..44), "{case} at {nth}");
            assert_eq!(found.get(232..), expected.get(232..), "{case} at {nth}");
            assert_eq!(
                fs::read_dir(directory.path()).unwrap().count(),
                1,
                "{case} at {nth}: a copy is left"
            );
            if kind.is_some() && !found.is_empty() {
                assert_eq!(*current.decrypt(&id, &none, &found).unwrap(), b"two");
            }
        }
    }
}
