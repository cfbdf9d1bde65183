//! Processes that share CMKs through one real database, each with its own [`StoreKeyring`].
//!
//! Include this file by its path as the module `fleet` of a test binary. The binary has a function `fleet_store`, which
//! opens the store at an address. Each process is that binary, run again for the test `fleet::child`. The sizes are
//! those of ordinary tests; with `FLEET_FULL=1` they are those of `scripts/assure fleet`.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    io::{BufRead, BufReader, Lines, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dekseal::{
    CmkVersion, Dek, EncryptionContext, Engine, Error, ErrorKind, KeyId, SealedDek, StoreFault, StoreKeyring,
    StoreSettings, store::KeyStore,
};

use crate::{
    conformance::{call, key_id},
    fleet_store,
};

pub(crate) const KEYS: u64 = 20;

pub(crate) fn is_full() -> bool {
    env::var_os("FLEET_FULL").is_some()
}

/// The size of a test: the ordinary size, or that of the full run.
pub(crate) fn size<T>(ordinary: T, full: T) -> T {
    if is_full() { full } else { ordinary }
}

fn root() -> CmkVersion {
    let key_id = "00000000-0000-0000-0000-00000000root".parse().unwrap();
    CmkVersion::new(key_id, 0, &[7; 32]).unwrap()
}

/// A deadline that is long enough for a busy machine and for a restart of the database.
pub(crate) fn patient() -> StoreSettings {
    let mut settings = StoreSettings::default();
    settings.deadline = Duration::from_secs(30);
    settings
}

pub(crate) fn keyring<S: KeyStore>(store: S, settings: StoreSettings) -> StoreKeyring<S> {
    StoreKeyring::with_settings(store, root(), [], settings).unwrap()
}

pub(crate) fn engine<S: KeyStore>(store: S, settings: StoreSettings) -> Engine<StoreKeyring<S>> {
    Engine::new(keyring(store, settings))
}

/// Creates the keys that the processes share.
pub(crate) fn create_keys(store: impl KeyStore) {
    let engine = engine(store, patient());
    for number in 0..KEYS {
        let key_id = key_id(number);
        engine
            .keyring()
            .update(&key_id, |keys| keys.create_key(key_id))
            .unwrap();
    }
}

/// This test binary, run again for one test, which is ignored otherwise. Its output goes through a pipe.
pub(crate) fn rerun(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--ignored"])
        .stdout(Stdio::piped());
    command
}

/// A process of the fleet. It ends when its input ends: when this is dropped, or when the test process ends.
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(role: &str, address: &str, arguments: &[&str]) -> Self {
        let mut child = rerun("fleet::child")
            .env("FLEET_ROLE", role)
            .env("FLEET_ADDRESS", address)
            .env("FLEET_ARGUMENTS", arguments.join("\n"))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }

    /// The next line of the process, without the output of the test harness.
    pub(crate) fn line(&mut self) -> Option<String> {
        self.output
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.strip_prefix("> ")?.to_owned()))
    }

    /// Sends a command, and returns the answer.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
        self.line().expect("the process has ended")
    }

    /// The process ends when the returned input is dropped.
    pub(crate) fn take_input(&mut self) -> Option<ChildStdin> {
        self.input.take()
    }

    /// The remaining lines of the process, which must succeed.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let lines = std::iter::from_fn(|| self.line()).collect();
        assert!(self.child.wait().unwrap().success());
        lines
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(line: &str) {
    // The test harness may have started a line.
    let mut output = std::io::stdout().lock();
    output.write_all(format!("\n> {line}\n").as_bytes()).unwrap();
    output.flush().unwrap();
}

#[test]
#[ignore = "the child of other tests"]
fn child() {
    let store = fleet_store(&env::var("FLEET_ADDRESS").unwrap());
    let arguments = env::var("FLEET_ARGUMENTS").unwrap();
    let arguments: Vec<_> = arguments.split('\n').collect();
    match env::var("FLEET_ROLE").unwrap().as_str() {
        "sealer" => sealer(&engine(store, patient()), arguments[0], arguments[1].parse().unwrap()),
        "opener" => opener(&engine(store, patient()), Path::new(arguments[0])),
        "rotator" => rotator(
            &engine(store, patient()),
            arguments[0].parse().unwrap(),
            arguments[1].parse().unwrap(),
        ),
        "member" => member(&engine(store, patient())),
        role => panic!("{role}"),
    }
}

/// Becomes `true` when the input has ended.
fn input_ended() -> Arc<AtomicBool> {
    let ended = Arc::new(AtomicBool::new(false));
    let ends = ended.clone();
    thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        ends.store(true, Ordering::Relaxed);
    });
    ended
}

// DEKs that one process seals open in all others.

const SEALERS: u64 = 4;
const OPENERS: usize = 4;
/// A sealed DEK and the DEK.
const FRAME: usize = 188 + Dek::LEN;

/// Seals under all keys and sends each blob to all openers. Each sealer rotates a key every 200 ms, so that all of them
/// rotate one every 50 ms, and sends what it seals under the new version at once.
fn sealer(engine: &Engine<impl Keys>, directory: &str, number: u64) {
    engine.keyring().refreshes();
    let connect = || -> Vec<_> {
        (0..OPENERS)
            .map(|opener| UnixStream::connect(socket(directory, opener)).unwrap())
            .collect()
    };
    let (mut openers, mut hurried) = (connect(), connect());
    let ended = input_ended();
    let rotated = thread::scope(|scope| {
        let rotating = scope.spawn(|| {
            let pause = Duration::from_millis(50 * SEALERS);
            let mut next = Instant::now() + pause.mul_f64(number as f64 / SEALERS as f64);
            let mut rotated = 0;
            while !ended.load(Ordering::Relaxed) {
                thread::sleep(next.saturating_duration_since(Instant::now()));
                next = Instant::now().max(next + pause);
                let key = key_id((rotated * SEALERS + number) % KEYS);
                let version = match engine.keyring().rotates(&key) {
                    Ok(version) => version,
                    // If this process is stopped for longer than the deadline, the change is not made.
                    Err(error) if error.kind() == ErrorKind::Store(StoreFault::Deadline) => continue,
                    Err(error) => panic!("{error:?}"),
                };
                rotated += 1;
                let (dek, blob) = engine.create_dek(&key, &context()).unwrap();
                assert!(blob.key_version() >= version, "sealed under a version before its own");
                send(&mut hurried, &dek, &blob);
            }
            rotated
        });
        let mut sealed = 0;
        while !ended.load(Ordering::Relaxed) {
            let (dek, blob) = engine.create_dek(&key_id(sealed * 7 % KEYS), &context()).unwrap();
            send(&mut openers, &dek, &blob);
            sealed += 1;
            if sealed % 8 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        rotating.join().unwrap()
    });
    say(&format!("rotated {rotated}"));
}

fn send(openers: &mut [UnixStream], dek: &Dek, blob: &SealedDek) {
    let frame = [&blob.as_bytes()[..], dek.expose_secret()].concat();
    for opener in openers {
        opener.write_all(&frame).unwrap();
    }
}

fn socket(directory: &str, opener: usize) -> String {
    format!("{directory}/opener-{opener}")
}

/// Opens all blobs of the sealers.
fn opener(engine: &Engine<impl Keys>, socket: &Path) {
    engine.keyring().refreshes();
    let listener = UnixListener::bind(socket).unwrap();
    say("ready");
    let (opens, unseen) = (AtomicU64::new(0), AtomicU64::new(0));
    let working = AtomicU64::new(2 * SEALERS);
    let report = || say(&format!("opened {opens:?} {unseen:?}"));
    thread::scope(|scope| {
        for _ in 0..2 * SEALERS {
            let mut sealer = listener.accept().unwrap().0;
            let (opens, unseen, working) = (&opens, &unseen, &working);
            scope.spawn(move || {
                let mut frame = [0; FRAME];
                while sealer.read_exact(&mut frame).is_ok() {
                    let (blob, dek) = frame.split_at(188);
                    let blob = SealedDek::from_bytes(blob).unwrap();
                    let seen = engine.keyring().is_seen(&blob.key_id(), blob.key_version());
                    match engine.decrypt_dek(&blob.key_id(), &context(), &blob) {
                        Ok(opened) if opened.expose_secret()[..] == *dek => {}
                        Ok(_) => say("failed: another DEK"),
                        Err(error) => say(&format!("failed: {error:?}")),
                    }
                    opens.fetch_add(1, Ordering::Relaxed);
                    unseen.fetch_add(u64::from(!seen), Ordering::Relaxed);
                }
                working.fetch_sub(1, Ordering::Relaxed);
            });
        }
        while working.load(Ordering::Relaxed) > 0 {
            thread::sleep(Duration::from_millis(200));
            report();
        }
    });
    report();
    say(&engine.keyring().counts());
}

/// 4 processes seal and rotate, and 4 others open their blobs. The test ends after enough opens, one in a hundred of
/// them under a version that the opener had not seen.
pub(crate) fn what_is_sealed_anywhere_opens_everywhere(name: &str, address: &str) {
    let opens = env::var("FLEET_OPENS").map_or(size(20_000, 1_000_000), |opens| opens.parse().unwrap());
    create_keys(fleet_store(address));
    let begun = Instant::now();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().to_str().unwrap();
    let mut openers: Vec<_> = (0..OPENERS)
        .map(|number| Process::start("opener", address, &[&socket(directory, number)]))
        .collect();
    for opener in &mut openers {
        assert_eq!(opener.line().unwrap(), "ready");
    }
    let mut sealers: Vec<_> = (0..SEALERS)
        .map(|number| Process::start("sealer", address, &[directory, &number.to_string()]))
        .collect();
    // The last report of each opener.
    let counts: Vec<_> = (0..OPENERS).map(|_| [AtomicU64::new(0), AtomicU64::new(0)]).collect();
    let total = |which: usize| -> u64 { counts.iter().map(|counts| counts[which].load(Ordering::Relaxed)).sum() };
    let failures = thread::scope(|scope| {
        let readers: Vec<_> = openers
            .into_iter()
            .zip(&counts)
            .map(|(mut opener, counts)| {
                scope.spawn(move || {
                    let mut failures = Vec::new();
                    while let Some(line) = opener.line() {
                        let mut words = line.split(' ');
                        match words.next() {
                            Some("opened") => {
                                for (count, word) in counts.iter().zip(words) {
                                    count.store(word.parse().unwrap(), Ordering::Relaxed);
                                }
                            }
                            Some("failed:") => failures.push(line),
                            _ => println!("{line}"),
                        }
                    }
                    opener.finish();
                    failures
                })
            })
            .collect();
        // A reader ends early if its opener does.
        while (total(0) < opens || total(1) < opens / 100) && !readers.iter().any(|reader| reader.is_finished()) {
            thread::sleep(Duration::from_millis(100));
        }
        sealers.iter_mut().for_each(|sealer| drop(sealer.take_input()));
        let failures = readers.into_iter().map(|reader| reader.join().unwrap());
        failures.collect::<Vec<_>>().concat()
    });
    let rotated: u64 = sealers
        .into_iter()
        .map(|sealer| {
            let lines = sealer.finish();
            lines[0].strip_prefix("rotated ").unwrap().parse::<u64>().unwrap()
        })
        .sum();
    println!(
        "{name}: {} opens, {} of a version not seen before, {} failures, {rotated} rotations, {:.0} s",
        total(0),
        total(1),
        failures.len(),
        begun.elapsed().as_secs_f64()
    );
    assert_eq!(failures, Vec::<String>::new());
    assert!(total(0) >= opens && total(1) >= opens / 100);
    let versions = versions(fleet_store(address));
    assert_eq!(
        versions.values().map(|versions| versions.len() as u64 - 1).sum::<u64>(),
        rotated
    );
}

// No rotation is lost.

/// Rotates the keys this many times, or until the input ends. Reports the outcome of each rotation, and a blob under
/// the new version. Every second rotator has a refresher.
fn rotator(engine: &Engine<impl Keys>, number: u64, times: u64) {
    if number.is_multiple_of(2) {
        engine.keyring().refreshes();
    }
    let ended = input_ended();
    let mut tried = 0;
    let mut done = 0;
    while done < times && !ended.load(Ordering::Relaxed) {
        let key = key_id(tried % KEYS);
        tried += 1;
        match engine.keyring().rotates(&key) {
            Ok(version) => {
                done += 1;
                let (dek, blob) = match engine.create_dek(&key, &context()) {
                    Ok(sealed) => sealed,
                    Err(error) => panic!("{error:?}"),
                };
                assert!(blob.key_version() >= version, "sealed under a version before its own");
                say(&format!(
                    "done {key} {version} {}",
                    hex(&[&blob.as_bytes()[..], dek.expose_secret()].concat())
                ));
            }
            Err(error) => {
                let known = [StoreFault::Unavailable, StoreFault::Deadline, StoreFault::Conflict];
                match error.kind() {
                    ErrorKind::Store(StoreFault::OutcomeUnknown) => say(&format!("unknown {key} {error:?}")),
                    ErrorKind::Store(fault) if known.contains(&fault) => say(&format!("failed {key} {fault:?}")),
                    _ => panic!("{error:?}"),
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
    say(&format!("conflicts {}", engine.keyring().conflicts()));
}

/// The reports of rotators.
#[derive(Default)]
pub(crate) struct Rotations {
    done: BTreeMap<KeyId, BTreeSet<u32>>,
    unknown: BTreeMap<KeyId, usize>,
    failed: BTreeMap<String, usize>,
    conflicts: usize,
    sealed: Vec<Vec<u8>>,
}

impl Rotations {
    pub(crate) fn hear(&mut self, lines: Vec<String>) {
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            if words[0] == "conflicts" {
                self.conflicts += words[1].parse::<usize>().unwrap();
                continue;
            }
            let key = words[1].parse().unwrap();
            match words[0] {
                "done" => {
                    let new = self.done.entry(key).or_default().insert(words[2].parse().unwrap());
                    assert!(new, "two rotations made one version: {line}");
                    self.sealed.push(unhex(words[3]));
                }
                "unknown" => {
                    println!("{line}");
                    *self.unknown.entry(key).or_default() += 1;
                }
                _ => *self.failed.entry(words[2].to_owned()).or_default() += 1,
            }
        }
    }

    /// The numbers of rotations that were done and of outcomes that stayed unknown.
    pub(crate) fn count(&self) -> (usize, usize) {
        let done = self.done.values().map(BTreeSet::len).sum();
        (done, self.unknown.values().sum())
    }

    pub(crate) fn describe(&self) -> String {
        let (done, unknown) = self.count();
        format!(
            "{done} rotations done, {unknown} of unknown outcome, {} conflicts, reported as failed: {:?}",
            self.conflicts, self.failed
        )
    }

    /// Asserts that each change that was reported as done was made, and that no change that was reported as failed was
    /// made.
    pub(crate) fn check(&self, address: &str) {
        let versions = versions(fleet_store(address));
        let store = fleet_store(address);
        for number in 0..KEYS {
            let key = key_id(number);
            let made: BTreeSet<_> = versions[&key].iter().copied().filter(|version| *version > 0).collect();
            let done = self.done.get(&key).cloned().unwrap_or_default();
            let unknown = self.unknown.get(&key).copied().unwrap_or_default();
            assert!(done.is_subset(&made), "{key}: lost {:?}", done.difference(&made));
            let more = made.difference(&done).count();
            assert!(
                more <= unknown,
                "{key}: {more} rotations were made, of which at most {unknown} are not known to have failed"
            );
            // Versions have no gaps, and the generation counts the changes.
            assert_eq!(versions[&key].iter().copied().max(), Some(made.len() as u32));
            let stored = store.get(&key, &call()).unwrap().unwrap();
            assert_eq!(generation(&stored.document), made.len() as u64 + 1, "{key}");
        }
        // In a process that has seen none of the changes.
        let engine = engine(fleet_store(address), patient());
        for frame in &self.sealed {
            open(&engine, frame).unwrap();
        }
    }
}

fn generation(document: &[u8]) -> u64 {
    let text = std::str::from_utf8(document).unwrap();
    let (_, number) = text.split_once("\"generation\":").unwrap();
    let number: String = number.trim_start().chars().take_while(char::is_ascii_digit).collect();
    number.parse().unwrap()
}

/// All versions of the keys, as a new process sees them.
fn versions(store: impl KeyStore) -> BTreeMap<KeyId, Vec<u32>> {
    let engine = engine(store, patient());
    let versions = |number| {
        let key = key_id(number);
        let versions = engine.keyring().versions(&key).unwrap();
        (key, versions.iter().map(|version| version.key_version).collect())
    };
    (0..KEYS).map(versions).collect()
}

pub(crate) fn no_rotation_of_many_processes_is_lost(name: &str, address: &str) {
    const PROCESSES: u64 = 8;
    let times = size(25, 250);
    create_keys(fleet_store(address));
    let begun = Instant::now();
    let rotators: Vec<_> = (0..PROCESSES)
        .map(|number| Process::start("rotator", address, &[&number.to_string(), &times.to_string()]))
        .collect();
    // The output is read while the processes run, because a pipe cannot hold all of it.
    let readers: Vec<_> = rotators
        .into_iter()
        .map(|rotator| thread::spawn(move || rotator.finish()))
        .collect();
    let mut rotations = Rotations::default();
    for reader in readers {
        rotations.hear(reader.join().unwrap());
    }
    println!(
        "{name}: {PROCESSES} processes, {}, {:.0} s",
        rotations.describe(),
        begun.elapsed().as_secs_f64()
    );
    assert_eq!(rotations.count(), (8 * times, 0));
    rotations.check(address);
}

// A process that follows commands.

/// Answers commands: `seal KEY`, `open FRAME`, `rotate KEY`, `create KEY`, `load KEY`, `refresh`, `adopt KEY`,
/// `write_back KEY`.
fn member(engine: &Engine<impl Keys>) {
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (command, argument) = line.split_once(' ').unwrap();
        let key = argument.parse::<KeyId>();
        let keys = engine.keyring();
        let answer = match command {
            "open" => open(engine, &unhex(argument)).map(|()| String::new()),
            "seal" => engine
                .create_dek(&key.unwrap(), &context())
                .map(|(dek, blob)| hex(&[&blob.as_bytes()[..], dek.expose_secret()].concat())),
            "rotate" => keys.rotates(&key.unwrap()).map(|version| version.to_string()),
            _ => keys.does(command, &key.unwrap()).map(|()| String::new()),
        };
        match answer {
            Ok(answer) => say(&format!("ok {answer}")),
            Err(error) => say(&format!("{:?}", error.kind())),
        }
    }
}

/// A database that can be restored to an earlier state.
pub(crate) trait Backup {
    fn back_up(&self);
    fn restore(&self);
    fn delete(&self, key: &KeyId);
}

const ROLLED_BACK: &str = "Store(RolledBack)";
const UNRESOLVED: &str = "RollbackUnresolved";

pub(crate) fn ok(answer: &str) -> &str {
    answer.strip_prefix("ok ").unwrap_or_else(|| panic!("{answer}"))
}

/// Asserts that the process has noticed a rollback of the key: it opens these blobs, and neither seals nor changes it.
pub(crate) fn assert_rolled_back(process: &mut Process, address: &str, key: &KeyId, blobs: &[&str]) {
    let store = fleet_store(address);
    let before = store.get(key, &call()).unwrap();
    assert_eq!(process.ask(&format!("load {key}")), ROLLED_BACK);
    assert_eq!(process.ask(&format!("seal {key}")), UNRESOLVED);
    assert_eq!(process.ask(&format!("rotate {key}")), ROLLED_BACK);
    assert_eq!(process.ask(&format!("create {key}")), ROLLED_BACK);
    assert_eq!(process.ask(&format!("refresh {key}")), "ok ");
    for blob in blobs {
        assert_eq!(process.ask(&format!("open {blob}")), "ok ");
    }
    assert_eq!(process.ask(&format!("seal {key}")), UNRESOLVED);
    assert!(store.get(key, &call()).unwrap() == before, "it has written");
}

/// Asserts that the processes seal and open each other's blobs, and that both see a rotation.
pub(crate) fn assert_at_work(processes: [&mut Process; 2], key: &KeyId) {
    let [mut one, mut other] = processes;
    for _ in 0..2 {
        ok(&one.ask(&format!("rotate {key}")));
        let blob = one.ask(&format!("seal {key}"));
        assert_eq!(other.ask(&format!("open {}", ok(&blob))), "ok ");
        (one, other) = (other, one);
    }
}

/// The effect of a restored database on running processes.
pub(crate) fn a_rollback_is_noticed_and_the_host_decides(address: &str, database: &dyn Backup) {
    create_keys(fleet_store(address));
    let mut first = Process::start("member", address, &[]);
    let mut second = Process::start("member", address, &[]);

    // An older state for all keys.
    let (adopted, written) = (key_id(0), key_id(1));
    let mut blobs = BTreeMap::new();
    for key in [adopted, written] {
        let old = first.ask(&format!("seal {key}"));
        ok(&second.ask(&format!("load {key}")));
        blobs.insert(key, vec![ok(&old).to_owned()]);
    }
    database.back_up();
    for key in [adopted, written] {
        assert_eq!(first.ask(&format!("rotate {key}")), "ok 1");
        let new = first.ask(&format!("seal {key}"));
        blobs.get_mut(&key).unwrap().push(ok(&new).to_owned());
        assert_eq!(second.ask(&format!("open {}", ok(&new))), "ok ");
    }
    database.restore();
    for key in [adopted, written] {
        let blobs: Vec<_> = blobs[&key].iter().map(String::as_str).collect();
        for process in [&mut first, &mut second] {
            assert_rolled_back(process, address, &key, &blobs);
        }
    }
    for process in [&mut first, &mut second] {
        assert_eq!(process.ask(&format!("adopt {adopted}")), "ok ");
    }
    assert_eq!(first.ask(&format!("open {}", blobs[&adopted][0])), "ok ");
    assert_eq!(first.ask(&format!("open {}", blobs[&adopted][1])), "UnknownKeyVersion");
    assert_at_work([&mut first, &mut second], &adopted);
    // The lost version and the new one have the same number.
    assert_eq!(
        second.ask(&format!("open {}", blobs[&adopted][1])),
        "AuthenticationFailed"
    );
    assert_eq!(first.ask(&format!("write_back {written}")), "ok ");
    // The other process has noticed it too, and opens until the host decides.
    assert_eq!(second.ask(&format!("load {written}")), ROLLED_BACK);
    assert_eq!(second.ask(&format!("seal {written}")), UNRESOLVED);
    assert_eq!(second.ask(&format!("adopt {written}")), "ok ");
    for process in [&mut first, &mut second] {
        for blob in &blobs[&written] {
            assert_eq!(process.ask(&format!("open {blob}")), "ok ");
        }
    }
    assert_at_work([&mut first, &mut second], &written);
    // A new process sees a single history.
    let engine = engine(fleet_store(address), patient());
    assert_eq!(engine.keyring().info(&written).unwrap().current_version, 3);
    for blob in &blobs[&written] {
        open(&engine, &unhex(blob)).unwrap();
    }

    // A row is deleted.
    let (adopted, written) = (key_id(2), key_id(3));
    for key in [adopted, written] {
        let blob = first.ask(&format!("seal {key}"));
        ok(&second.ask(&format!("load {key}")));
        database.delete(&key);
        for process in [&mut first, &mut second] {
            assert_rolled_back(process, address, &key, &[ok(&blob)]);
        }
    }
    assert_eq!(first.ask(&format!("adopt {adopted}")), "ok ");
    assert_eq!(first.ask(&format!("seal {adopted}")), "UnknownKey");
    assert_eq!(first.ask(&format!("create {adopted}")), "ok ");
    assert_eq!(second.ask(&format!("load {adopted}")), ROLLED_BACK);
    assert_eq!(second.ask(&format!("adopt {adopted}")), "ok ");
    assert_at_work([&mut first, &mut second], &adopted);
    assert_eq!(second.ask(&format!("write_back {written}")), "ok ");
    assert_eq!(first.ask(&format!("adopt {written}")), "ok ");
    assert_at_work([&mut second, &mut first], &written);

    // Two branches with equal generations: the change of the first process is lost, and the second has not seen it.
    for (key, way) in [(key_id(4), "adopt"), (key_id(5), "write_back")] {
        ok(&second.ask(&format!("load {key}")));
        let old = first.ask(&format!("seal {key}"));
        database.back_up();
        assert_eq!(first.ask(&format!("rotate {key}")), "ok 1");
        let ours = first.ask(&format!("seal {key}"));
        database.restore();
        assert_eq!(second.ask(&format!("rotate {key}")), "ok 1");
        let theirs = second.ask(&format!("seal {key}"));
        branches(
            address,
            [&mut first, &mut second],
            &key,
            [ok(&old), ok(&ours), ok(&theirs)],
            way,
        );
    }
}

/// The store has the branch of the second process, and the first one has another branch of the same generation.
pub(crate) fn branches(address: &str, processes: [&mut Process; 2], key: &KeyId, blobs: [&str; 3], way: &str) {
    let [first, second] = processes;
    let [old, ours, theirs] = blobs;
    assert_rolled_back(first, address, key, &[old, ours]);
    assert_eq!(first.ask(&format!("open {theirs}")), "AuthenticationFailed");
    assert_eq!(second.ask(&format!("open {theirs}")), "ok ");
    assert_eq!(first.ask(&format!("{way} {key}")), "ok ");
    if way == "adopt" {
        assert_eq!(first.ask(&format!("open {theirs}")), "ok ");
    } else {
        assert_rolled_back(second, address, key, &[old, theirs]);
        assert_eq!(second.ask(&format!("adopt {key}")), "ok ");
        assert_eq!(second.ask(&format!("open {ours}")), "ok ");
    }
    assert_at_work([first, second], key);
}

// Helpers.

/// The operations of the child processes, for a keyring over any store.
trait Keys: dekseal::Keyring + Sync {
    fn refreshes(&self);
    fn rotates(&self, key: &KeyId) -> Result<u32, Error>;
    fn is_seen(&self, key: &KeyId, version: u32) -> bool;
    fn counts(&self) -> String;
    fn conflicts(&self) -> u64;
    fn does(&self, command: &str, key: &KeyId) -> Result<(), Error>;
}

impl<S: KeyStore + 'static> Keys for StoreKeyring<S> {
    fn refreshes(&self) {
        self.start_refresher().unwrap();
    }

    fn rotates(&self, key: &KeyId) -> Result<u32, Error> {
        self.update(key, |keys| keys.rotate(key))
    }

    fn is_seen(&self, key: &KeyId, version: u32) -> bool {
        self.is_ready_for(key, version)
    }

    fn counts(&self) -> String {
        format!("{:?}", self.counters())
    }

    fn conflicts(&self) -> u64 {
        self.counters().conflicts
    }

    fn does(&self, command: &str, key: &KeyId) -> Result<(), Error> {
        match command {
            "create" => self.update(key, |keys| keys.create_key(*key)),
            "load" => self.load(key),
            "refresh" => self.refresh().map(drop),
            "adopt" => self.adopt(key),
            "write_back" => self.write_back(key),
            _ => panic!("{command}"),
        }
    }
}

pub(crate) fn context() -> EncryptionContext {
    EncryptionContext::none()
}

fn open(engine: &Engine<impl dekseal::Keyring>, frame: &[u8]) -> Result<(), Error> {
    let blob = SealedDek::from_bytes(&frame[..188])?;
    let dek = engine.decrypt_dek(&blob.key_id(), &context(), &blob)?;
    assert!(dek.expose_secret()[..] == frame[188..], "another DEK");
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect()
}
