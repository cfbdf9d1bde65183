//! Faults around the library lose nothing: a clock that goes back, racing threads, panics in the caller's code, and
//! running out of memory.

use std::{
    convert::Infallible,
    fs::{self, File},
    io::{Cursor, Read},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use dekseal::{
    CmkVersion, Dek, EncryptionContext, Engine, Error, ErrorKind, FileFault, FileKeyring, KeyId, KeyState, Keyring,
    Keyset, MemoryKeyring, Rewrapped, SealedDek, api,
    payload::PayloadHeader,
    rand_core::{TryCryptoRng, TryRng},
};

use crate::{
    keyring_file::{directory, root},
    support::{KEY_ID, NOW, OTHER_KEY_ID, cmk, in_shell, key_id, one_key, this_test, time, words_from_bytes},
};

const DAY: u64 = 86_400;
/// 2020-01-01T00:00:00Z
const FIRST_DATE: u64 = 1_577_836_800;
/// 9999-12-31T23:59:59Z
const LAST_DATE: u64 = 253_402_300_799;

/// The operations that both keyrings have.
trait Shared: Keyring {
    fn change<T>(&self, f: impl FnOnce(&mut Keyset) -> Result<T, Error>) -> Result<T, Error>;
    fn snapshot(&self) -> Arc<Keyset>;
}

impl Shared for MemoryKeyring {
    fn change<T>(&self, f: impl FnOnce(&mut Keyset) -> Result<T, Error>) -> Result<T, Error> {
        self.update(f)
    }

    fn snapshot(&self) -> Arc<Keyset> {
        self.keys()
    }
}

impl Shared for FileKeyring {
    fn change<T>(&self, f: impl FnOnce(&mut Keyset) -> Result<T, Error>) -> Result<T, Error> {
        self.update(f)
    }

    fn snapshot(&self) -> Arc<Keyset> {
        self.keys()
    }
}

/// A keyring file with one key of version 0.
fn one_key_in(path: &Path) -> FileKeyring {
    let keyring = FileKeyring::create(path, root()).unwrap();
    keyring
        .update(|keys| keys.import_key(key_id(KEY_ID), &[7; 32]))
        .unwrap();
    keyring
}

fn reopened(path: &Path) -> FileKeyring {
    FileKeyring::open(path, root()).unwrap()
}

fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// The message of the panic in `f`.
fn panic_of<T>(f: impl FnOnce() -> T) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(f)).err()?;
    Some((*panic.downcast::<&str>().unwrap()).to_owned())
}

// Clocks.

#[test]
fn a_clock_that_goes_back_deletes_nothing_before_its_date() {
    let (_directory, path) = directory();
    let (keyring, id) = (one_key_in(&path), key_id(KEY_ID));
    let scheduled = keyring.update(|keys| keys.schedule_deletion_at(&id, 7, time(NOW)));
    let at = scheduled.unwrap().as_secs();
    let (written, generation) = (fs::read(&path).unwrap(), keyring.generation());
    // The deletion is due by one clock. The clock of this call is behind, by a second or by the largest amount.
    for now in [at - 1, NOW, NOW - 1, FIRST_DATE] {
        for keyring in [&keyring, &reopened(&path)] {
            assert_eq!(
                kind(keyring.update(|keys| keys.purge_at(&id, time(now)))),
                Some(ErrorKind::DeletionNotDue)
            );
            assert_eq!(
                keyring.keys().info(&id).unwrap().state,
                KeyState::PendingDeletion { at: time(at) }
            );
        }
    }
    // No clock moves a date that is set.
    for now in [FIRST_DATE, NOW - 1, at, LAST_DATE] {
        let again = keyring.update(|keys| keys.schedule_deletion_at(&id, 7, time(now)));
        assert_eq!(kind(again), Some(ErrorKind::DeletionScheduled));
    }
    assert_eq!(fs::read(&path).unwrap(), written);
    assert_eq!(keyring.generation(), generation);

    // Cancelling needs no clock. The next date follows the clock of that call, even if it is behind the last one.
    keyring.update(|keys| keys.cancel_deletion(&id)).unwrap();
    assert_eq!(reopened(&path).keys().info(&id).unwrap().state, KeyState::Disabled);
    let back = NOW - 30 * DAY;
    let scheduled = keyring.update(|keys| keys.schedule_deletion_at(&id, 7, time(back)));
    let at = scheduled.unwrap().as_secs();
    assert_eq!(at, back + 7 * DAY);
    let keyring = reopened(&path);
    assert_eq!(
        keyring.keys().info(&id).unwrap().state,
        KeyState::PendingDeletion { at: time(at) }
    );
    assert_eq!(
        kind(keyring.update(|keys| keys.purge_at(&id, time(at - 1)))),
        Some(ErrorKind::DeletionNotDue)
    );
    keyring.update(|keys| keys.purge_at(&id, time(at))).unwrap();
    assert_eq!(kind(reopened(&path).keys().info(&id)), Some(ErrorKind::UnknownKey));
}

#[test]
fn the_first_and_the_last_date_are_accepted() {
    let id = key_id(KEY_ID);
    for (now, days, expected) in [
        (FIRST_DATE, 7, Ok((FIRST_DATE + 7 * DAY, "2020-01-08T00:00:00Z"))),
        (LAST_DATE - 7 * DAY, 7, Ok((LAST_DATE, "9999-12-31T23:59:59Z"))),
        (LAST_DATE - 7 * DAY + 1, 7, Err(ErrorKind::DeletionDays)),
        (LAST_DATE, 1096, Err(ErrorKind::DeletionDays)),
    ] {
        let (_directory, path) = directory();
        let keyring = one_key_in(&path);
        let written = fs::read(&path).unwrap();
        let scheduled = keyring.update(|keys| keys.schedule_deletion_at(&id, days, time(now)));
        match expected {
            Err(expected) => {
                assert_eq!(kind(scheduled), Some(expected), "{now}");
                assert_eq!(fs::read(&path).unwrap(), written);
            }
            Ok((at, date)) => {
                assert_eq!(scheduled.unwrap(), time(at));
                assert!(fs::read_to_string(&path).unwrap().contains(date));
                let keyring = reopened(&path);
                assert_eq!(
                    keyring.keys().info(&id).unwrap().state,
                    KeyState::PendingDeletion { at: time(at) }
                );
                assert_eq!(
                    kind(keyring.update(|keys| keys.purge_at(&id, time(now)))),
                    Some(ErrorKind::DeletionNotDue)
                );
                keyring.update(|keys| keys.purge_at(&id, time(LAST_DATE))).unwrap();
            }
        }
    }
}

// Threads.

/// Two threads rotate `rotations` times each. One makes and purges a second key repeatedly. Two seal, open and rewrap.
fn race<K: Shared>(keyring: K, rotations: u32) -> Arc<Engine<K>> {
    let (id, second) = (key_id(KEY_ID), key_id(OTHER_KEY_ID));
    let none = &EncryptionContext::none();
    let engine = Arc::new(Engine::new(keyring));
    let start = engine.create_dek(&id, none).unwrap();
    let before = engine.keyring().snapshot();

    let rotating = |engine: Arc<Engine<K>>| {
        for _ in 0..rotations {
            engine.keyring().change(|keys| keys.rotate(&id)).unwrap();
        }
    };
    let stop = &AtomicBool::new(false);
    let purging = |engine: Arc<Engine<K>>| {
        let mut blobs = Vec::new();
        loop {
            engine.keyring().change(|keys| keys.create_key(second)).unwrap();
            let snapshot = engine.keyring().snapshot();
            let (dek, sealed) = engine.create_dek(&second, none).unwrap();
            let at = engine
                .keyring()
                .change(|keys| keys.schedule_deletion_at(&second, 7, time(NOW)))
                .unwrap();
            engine.keyring().change(|keys| keys.purge_at(&second, at)).unwrap();
            blobs.push((snapshot, dek, sealed));
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        // The key is purged from the keyring, and still present in keys that were taken before.
        for (snapshot, dek, sealed) in &blobs {
            assert_eq!(
                kind(engine.decrypt_dek(&second, none, sealed)),
                Some(ErrorKind::UnknownKey)
            );
            let held = Engine::new(MemoryKeyring::new(Keyset::clone(snapshot)));
            assert!(held.decrypt_dek(&second, none, sealed).unwrap() == *dek);
        }
    };
    let using = |engine: Arc<Engine<K>>| {
        let mut made = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let (dek, sealed) = engine.create_dek(&id, none).unwrap();
            assert!(engine.decrypt_dek(&id, none, &sealed).unwrap() == dek);
            let renewed = *engine.rewrap_dek(&id, none, &sealed).unwrap().sealed();
            assert!(engine.decrypt_dek(&id, none, &renewed).unwrap() == dek);
            match kind(engine.encrypt_dek(&second, none, &dek)) {
                None | Some(ErrorKind::UnknownKey | ErrorKind::KeyPendingDeletion) => {}
                other => panic!("{other:?}"),
            }
            made.push((dek, sealed));
        }
        made
    };
    let made = thread::scope(|scope| {
        let rotators = [0, 1].map(|_| scope.spawn(|| rotating(Arc::clone(&engine))));
        let purger = scope.spawn(|| purging(Arc::clone(&engine)));
        let users = [0, 1].map(|_| scope.spawn(|| using(Arc::clone(&engine))));
        let rotated = rotators.map(|rotator| rotator.join());
        stop.store(true, Ordering::Relaxed);
        assert!(rotated.iter().all(Result::is_ok) && purger.join().is_ok());
        users.map(|user| user.join().unwrap())
    });

    // Each rotation made a version, and every version opens what it sealed.
    let keys = engine.keyring().snapshot();
    assert_eq!(keys.list().len(), 1);
    assert_eq!(keys.info(&id).unwrap().current_version, 2 * rotations);
    for version in 0..=2 * rotations {
        engine
            .keyring()
            .with_version(&id, version, |cmk| assert_eq!(cmk.key_version(), version))
            .unwrap();
    }
    for (dek, sealed) in made.iter().flatten().chain([&start]) {
        assert!(engine.decrypt_dek(&id, none, sealed).unwrap() == *dek);
    }
    // Keys that were taken before the first rotation still work as before it.
    let held = Engine::new(MemoryKeyring::new(Keyset::clone(&before)));
    assert!(held.rewrap_dek(&id, none, &start.1).unwrap() == Rewrapped::AlreadyCurrent(start.1));
    engine
}

#[test]
fn threads_that_change_a_keyring_and_use_it_lose_nothing() {
    race(one_key(), 500);
}

#[test]
fn threads_that_change_a_file_and_use_it_lose_nothing() {
    let (_directory, path) = directory();
    let engine = race(one_key_in(&path), 20);
    assert_eq!(reopened(&path).generation(), engine.keyring().generation());
    assert_eq!(reopened(&path).keys().list(), engine.keyring().keys().list());
}

// Panics.

/// A caller's keyring. It panics at lookup number `at`, before it lends the CMK version or after.
struct Panicking {
    inner: MemoryKeyring,
    at: usize,
    after: bool,
    lookups: AtomicUsize,
}

impl Panicking {
    fn lookup<T>(&self, f: impl FnOnce(&MemoryKeyring) -> Result<T, Error>) -> Result<T, Error> {
        let panics = self.lookups.fetch_add(1, Ordering::Relaxed) == self.at;
        if panics && !self.after {
            panic!("before");
        }
        let value = f(&self.inner);
        if panics {
            panic!("after");
        }
        value
    }
}

impl Keyring for Panicking {
    fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        self.lookup(|keyring| keyring.with_current(key_id, f))
    }

    fn with_version<T>(&self, key_id: &KeyId, version: u32, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        self.lookup(|keyring| keyring.with_version(key_id, version, f))
    }
}

fn panicking(at: usize, after: bool) -> Engine<Panicking> {
    let keys = [cmk(KEY_ID, 0, &[7; 32]), cmk(OTHER_KEY_ID, 0, &[8; 32])];
    Engine::new(Panicking {
        inner: MemoryKeyring::from_versions(keys).unwrap(),
        at,
        after,
        lookups: AtomicUsize::new(0),
    })
}

/// A keyring that never panics.
fn sound() -> Engine<Panicking> {
    panicking(usize::MAX, false)
}

fn opens(sealed: &SealedDek, dek: &Dek) {
    let none = EncryptionContext::none();
    assert!(sound().decrypt_dek_under_any_key(&none, sealed).unwrap() == *dek);
}

#[test]
fn a_panic_of_a_callers_keyring_goes_through_and_the_next_call_works() {
    let (id, second, none) = (&key_id(KEY_ID), &key_id(OTHER_KEY_ID), &EncryptionContext::none());
    let (dek, sealed) = &sound().create_dek(id, none).unwrap();
    let payload = &sound().encrypt(id, none, b"attack at dawn").unwrap();
    let header = &PayloadHeader::from_bytes(payload.first_chunk().unwrap()).unwrap();
    let body = format!(r#"{{"key_id":"{KEY_ID}","datakey_length":"512"}}"#);
    type Call<'a> = &'a dyn Fn(&Engine<Panicking>);
    let calls: [(&str, Call<'_>); 12] = [
        ("create_dek", &|engine| {
            let (dek, sealed) = engine.create_dek(id, none).unwrap();
            opens(&sealed, &dek);
        }),
        ("encrypt_dek", &|engine| {
            opens(&engine.encrypt_dek(id, none, dek).unwrap(), dek);
        }),
        ("decrypt_dek", &|engine| {
            assert!(engine.decrypt_dek(id, none, sealed).unwrap() == *dek);
        }),
        ("rewrap_dek", &|engine| {
            opens(engine.rewrap_dek(id, none, sealed).unwrap().sealed(), dek);
        }),
        ("rewrap_dek_to", &|engine| {
            opens(&engine.rewrap_dek_to((id, none), sealed, (second, none)).unwrap(), dek);
        }),
        ("encrypt", &|engine| {
            let payload = engine.encrypt(id, none, b"x").unwrap();
            assert_eq!(*sound().decrypt(id, none, &payload).unwrap(), b"x");
        }),
        ("decrypt", &|engine| {
            assert_eq!(*engine.decrypt(id, none, payload).unwrap(), b"attack at dawn");
        }),
        ("encrypt_writer", &|engine| {
            let payload = engine.encrypt_writer(id, none, Vec::new()).unwrap().finish().unwrap();
            assert_eq!(*sound().decrypt(id, none, &payload).unwrap(), b"");
        }),
        ("decrypt_reader", &|engine| {
            let mut reader = engine.decrypt_reader(id, none, payload.as_slice()).unwrap();
            assert_eq!(reader.read(&mut [0; 20]).unwrap(), 14);
        }),
        ("decrypt_seek_reader", &|engine| {
            let mut reader = engine.decrypt_seek_reader(id, none, Cursor::new(payload)).unwrap();
            assert_eq!(reader.plaintext_len().unwrap(), 14);
        }),
        ("rewrap_header", &|engine| {
            let header = engine.rewrap_header(id, none, second, header).unwrap();
            assert_eq!(header.sealed_dek().key_id(), *second);
        }),
        ("api::handle", &|engine| {
            let response = api::handle(engine, "POST", "/v1.0/p/kms/create-datakey", body.as_bytes());
            assert_eq!(response.status(), 200);
        }),
    ];
    for (name, call) in calls {
        for (after, message) in [(false, "before"), (true, "after")] {
            // For each lookup that the operation makes.
            let mut at = 0;
            while let Some(panic) = panic_of(|| call(&panicking(at, after))) {
                assert_eq!(panic, message, "{name}");
                at += 1;
            }
            assert!(at > 0, "{name} made no lookup");
            // The same engine again.
            let engine = panicking(0, after);
            assert!(panic_of(|| call(&engine)).is_some());
            call(&engine);
        }
    }
}

/// A generator that works a number of times, and then panics.
struct PanicsAfter(usize);

impl TryRng for PanicsAfter {
    type Error = Infallible;

    words_from_bytes!();

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0 = self.0.checked_sub(1).unwrap_or_else(|| panic!("the source"));
        for chunk in bytes.chunks_mut(Dek::LEN) {
            chunk.copy_from_slice(&Dek::generate().unwrap().expose_secret()[..chunk.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for PanicsAfter {}

#[test]
fn a_panic_leaves_nothing_half_done_in_a_callers_buffer() {
    let (id, second, none) = (key_id(KEY_ID), key_id(OTHER_KEY_ID), EncryptionContext::none());

    // A slot holds either nothing, or a DEK with its blob.
    type Slots = [Option<(Dek, SealedDek)>];
    let filled_by = |make: &dyn Fn(&mut Slots)| {
        let mut slots: Vec<_> = (0..130).map(|_| None).collect();
        assert!(panic_of(|| make(&mut slots)).is_some());
        for (dek, sealed) in slots.iter().flatten() {
            opens(sealed, dek);
        }
        slots.iter().flatten().count()
    };
    for (after, count) in [(false, 0), (true, 130)] {
        let filled = filled_by(&|slots| drop(panicking(0, after).create_deks(&id, &none, slots)));
        assert_eq!(filled, count);
    }
    // The third draw is for the last two DEKs.
    let filled = filled_by(&|slots| drop(sound().create_deks_with_rng(&id, &none, slots, &mut PanicsAfter(2))));
    assert_eq!(filled, 128);

    let payload = sound().encrypt(&id, &none, b"attack at dawn").unwrap();
    let header = PayloadHeader::from_bytes(payload.first_chunk().unwrap()).unwrap();
    let payload_cipher = sound().open_payload_cipher(&id, &none, header.sealed_dek()).unwrap();
    let mut room = vec![0xa5; payload.len()];
    panic_of(|| payload_cipher.encrypt_into_with_rng(b"attack at dawn", &mut room, &mut PanicsAfter(0))).unwrap();
    assert!(room.iter().all(|byte| *byte == 0xa5));
    for after in [false, true] {
        panic_of(|| panicking(0, after).encrypt(&id, &none, b"attack at dawn")).unwrap();
        panic_of(|| panicking(0, after).decrypt(&id, &none, &payload)).unwrap();

        // The look-ups of the old key and of the new one.
        for lookup in [0, 1] {
            let mut same = payload.clone();
            panic_of(|| panicking(lookup, after).rewrap(&id, &none, &second, &mut same)).unwrap();
            assert!(same == payload);
        }
        // The look-ups of the old key, of the new key, of the trial before the header is written, and of the one after
        // it.
        let file = tempfile::NamedTempFile::new().unwrap();
        for lookup in 0..4 {
            fs::write(&file, &payload).unwrap();
            panic_of(|| panicking(lookup, after).rewrap_file(&id, &none, &second, &file)).unwrap();
            assert_eq!(fs::read(&file).unwrap() == payload, lookup < 3);
            sound().rewrap_file(&id, &none, &second, &file).unwrap();
            let opened = sound().decrypt(&second, &none, &fs::read(&file).unwrap());
            assert_eq!(*opened.unwrap(), b"attack at dawn");
        }
    }
}

/// Changes `keyring` with a panic at every place where the caller's code runs. Afterwards the keyring must be
/// unchanged, and must accept changes.
fn panic_in_updates<K: Shared>(keyring: &K) {
    let (id, second) = (key_id(KEY_ID), key_id(OTHER_KEY_ID));
    let before = keyring.snapshot().list();
    type Update<'a> = &'a dyn Fn(&mut Keyset) -> Result<(), Error>;
    let updates: [Update<'_>; 4] = [
        &|_| panic!("at once"),
        &|keys| {
            keys.rotate(&id)?;
            keys.schedule_deletion_at(&id, 7, time(NOW))?;
            panic!("after changes")
        },
        &|keys| keys.create_key_with_rng(second, time(NOW), &mut PanicsAfter(0)),
        &|keys| keys.rotate_with_rng(&id, time(NOW), &mut PanicsAfter(0)).map(drop),
    ];
    for update in updates {
        panic_of(|| keyring.change(update)).unwrap();
        assert_eq!(keyring.snapshot().list(), before);
        // No lock is left held, for this thread or another.
        thread::scope(|scope| drop(scope.spawn(|| keyring.change(|_| Ok(())).unwrap())));
        keyring.with_current(&id, |_| ()).unwrap();
    }
    keyring.change(|keys| keys.rotate(&id)).unwrap();
    assert_eq!(
        keyring.snapshot().info(&id).unwrap().current_version,
        before[0].current_version + 1
    );
}

#[test]
fn a_panic_in_an_update_of_a_keyring_changes_nothing() {
    panic_in_updates(&one_key());
}

#[test]
fn a_panic_in_an_update_of_a_file_changes_nothing_and_unlocks_it() {
    let (directory, path) = directory();
    let keyring = one_key_in(&path);
    let written = fs::read(&path).unwrap();
    panic_of(|| {
        keyring.update(|keys| -> Result<(), Error> {
            keys.rotate(&key_id(KEY_ID))?;
            panic!("after a change")
        })
    })
    .unwrap();
    // Only the file and its lock file are left, and nobody holds the lock.
    assert_eq!(fs::read(&path).unwrap(), written);
    assert_eq!(keyring.generation(), 2);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    let lock = File::open(directory.path().join(".keyring.json.lock")).unwrap();
    // A process that another test starts has every open file of this one until it runs its program.
    assert!((0..500).any(|_| {
        thread::sleep(Duration::from_millis(10));
        lock.try_lock().is_ok()
    }));
    drop(lock);

    // No lock is poisoned.
    assert!(!keyring.refresh().unwrap());
    reopened(&path).update(|keys| keys.rotate(&key_id(KEY_ID))).unwrap();
    assert!(keyring.refresh().unwrap());
    panic_in_updates(&keyring);
    keyring.change_root(cmk(root().key_id().as_str(), 1, &[9; 32])).unwrap();
    assert_eq!(
        kind(FileKeyring::open(&path, root())),
        Some(ErrorKind::File(FileFault::WrongRoot))
    );
}

// Memory.

/// The child process: it allocates all memory that it may use except for a number of KiB, and then does its task.
#[cfg(target_os = "linux")]
#[test]
fn child_short_of_memory() {
    let Ok(job) = std::env::var("DEKSEAL_TEST_SHORT") else {
        return;
    };
    let (job, spare) = job.split_once(' ').unwrap();
    let path = std::env::var("DEKSEAL_TEST_KEYRING").unwrap();
    let engine = Engine::new(reopened(Path::new(&path)));
    let pairs: Vec<String> = (0..20_000).map(|number| format!("\"{number:05}\":0")).collect();
    let body = format!("{{{}}}", pairs.join(","));
    println!("ready");

    let spare: Vec<u8> = Vec::with_capacity(spare.parse::<usize>().unwrap() * 1024);
    let mut taken: Vec<Vec<u8>> = Vec::with_capacity(10_000);
    for size in (5..30).rev().map(|power| 1 << power) {
        while taken.len() < taken.capacity() {
            let mut all = Vec::new();
            if all.try_reserve_exact(size).is_err() {
                break;
            }
            taken.push(all);
        }
    }
    drop(spare);
    match job {
        "request" => {
            let response = api::handle(&engine, "POST", "/v1.0/p/kms/create-datakey", body.as_bytes());
            assert_eq!(response.error_code(), Some("KMS.0308"));
        }
        "update" => match engine.keyring().update(|keys| keys.rotate(&key_id(KEY_ID))) {
            Ok(version) => assert_eq!(version, 1),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::File(FileFault::Io));
                return;
            }
        },
        other => panic!("{other}"),
    }
    println!("done");
}

/// Running out of memory aborts, as in all collections of Rust. If the standard library reports an error instead, as
/// when a file is read, so does the crate.
#[cfg(target_os = "linux")]
#[test]
fn memory_that_runs_out_ends_the_process_and_loses_nothing() {
    use std::os::unix::process::ExitStatusExt;
    const SIGABRT: i32 = 6;

    let (_directory, path) = directory();
    for job in ["request", "update"] {
        let (mut done, mut aborted) = (0, 0);
        for spare in [0, 1, 2, 4, 6, 8, 12, 16, 64, 1024, 16_384] {
            let _ = fs::remove_file(&path);
            one_key_in(&path);
            // A program without unsafe code cannot limit its own memory, so a shell does it. With one arena, every
            // thread can use the spare memory.
            let mut command = this_test();
            command.args([
                "--exact",
                "faults::child_short_of_memory",
                "--nocapture",
                "--test-threads=1",
            ]);
            let child = in_shell("ulimit -v 500000; exec \"$0\" \"$@\"", &command)
                .env("DEKSEAL_TEST_SHORT", format!("{job} {spare}"))
                .env("DEKSEAL_TEST_KEYRING", &path)
                .env("MALLOC_ARENA_MAX", "1")
                .output()
                .unwrap();
            let (out, err) = (
                String::from_utf8(child.stdout).unwrap(),
                String::from_utf8(child.stderr).unwrap(),
            );
            assert!(out.contains("ready"), "{out}{err}");
            if child.status.signal() == Some(SIGABRT) {
                assert!(err.starts_with("memory allocation of "), "{err}");
                aborted += 1;
            } else {
                assert!(child.status.success(), "{err}");
                done += u32::from(out.contains("done"));
            }

            let keyring = reopened(&path);
            let version = keyring.keys().info(&key_id(KEY_ID)).unwrap().current_version;
            assert_eq!(keyring.generation(), u64::from(version) + 2);
            assert!(version == 1 || job == "request" || !out.contains("done"));
            keyring.update(|keys| keys.rotate(&key_id(KEY_ID))).unwrap();
        }
        assert!(done > 0 && aborted > 0, "{job}: {done} done, {aborted} aborted");
    }
}
