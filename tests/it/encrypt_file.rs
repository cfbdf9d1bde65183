//! Runs the example `encrypt_file` as a process.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use dekseal::{
    EncryptionContext, Engine, FileKeyring,
    payload::{PayloadHeader, encrypted_len},
};
use tempfile::TempDir;

use crate::{
    keyring_file::root,
    strace,
    support::{KEY_ID, OTHER_KEY_ID, example},
};

/// The copy of the header that a rewrap of `sealed` puts beside it.
const COPY: &str = ".sealed.dekseal-header";

/// A directory with a keyring file of two keys, and with files.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.path("root"), "77".repeat(32)).unwrap();
        for words in [&["init"][..], &["create-key", KEY_ID], &["create-key", OTHER_KEY_ID]] {
            assert!(place.run("keyring", words).status.success());
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(example(program));
        command.current_dir(self.0.path());
        command
            .args(["--keyring", "keys", "--root-key-file", "root"])
            .args(words);
        command
    }

    fn run(&self, program: &str, words: &[&str]) -> Output {
        self.command(program, words).output().unwrap()
    }

    /// Changes the keyring.
    fn keyring(&self, words: &[&str]) {
        assert!(self.run("keyring", words).status.success(), "{words:?}");
    }

    /// Runs the example, which must succeed. Returns its output.
    fn does(&self, words: &[&str]) -> String {
        let output = self.run("encrypt_file", words);
        assert!(
            output.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.stderr.is_empty());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the example, which must fail. Returns its message.
    fn refuses(&self, words: &[&str]) -> String {
        let before = self.files();
        let output = self.run("encrypt_file", words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert_eq!(self.files(), before, "{words:?} left something behind");
        String::from_utf8(output.stderr).unwrap()
    }

    /// All files and their contents.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    }

    fn header(&self, name: &str) -> PayloadHeader {
        PayloadHeader::from_bytes(fs::read(self.path(name)).unwrap().first_chunk().unwrap()).unwrap()
    }
}

fn plaintext() -> Vec<u8> {
    (0..200_000_u32).map(|at| (at / 251) as u8).collect()
}

#[test]
fn a_file_comes_back_and_its_header_can_be_looked_at() {
    let place = Place::new();
    fs::write(place.path("plain"), plaintext()).unwrap();
    let context = ["--context", "tenant=42", "--context", "purpose=backup=old"];
    place.does(&[&context[..], &["encrypt", KEY_ID, "plain", "sealed"]].concat());
    let sealed = fs::read(place.path("sealed")).unwrap();
    assert_eq!(sealed.len() as u64, encrypted_len(200_000).unwrap());

    place.does(&[&context[..], &["decrypt", KEY_ID, "sealed", "opened"]].concat());
    assert_eq!(fs::read(place.path("opened")).unwrap(), plaintext());
    assert_eq!(
        place.does(&["inspect", "sealed"]),
        format!("sealed: {KEY_ID} version 0, 200000 bytes of plaintext\n")
    );
}

#[test]
fn what_fails_leaves_nothing_under_the_final_name() {
    let place = Place::new();
    fs::write(place.path("plain"), plaintext()).unwrap();
    place.does(&["encrypt", KEY_ID, "plain", "sealed"]);
    let sealed = fs::read(place.path("sealed")).unwrap();
    // Two complete segments are written before the third is missing.
    fs::write(place.path("cut"), &sealed[..264 + 2 * 65552]).unwrap();

    let failed = "authentication failed";
    assert!(place.refuses(&["decrypt", KEY_ID, "cut", "out"]).contains(failed));
    let other_context = ["--context", "a=b", "decrypt", KEY_ID, "sealed", "out"];
    assert!(place.refuses(&other_context).contains(failed));
    assert!(
        place
            .refuses(&["decrypt", OTHER_KEY_ID, "sealed", "out"])
            .contains("sealed to out")
    );
    assert!(place.refuses(&["decrypt", KEY_ID, "plain", "out"]).contains("payload"));
    assert!(
        place
            .refuses(&["encrypt", KEY_ID, "no such file", "out"])
            .contains("no such file")
    );
    assert!(
        place
            .refuses(&["encrypt", KEY_ID, "plain", "sealed"])
            .contains("exists already")
    );
    assert!(place.refuses(&["inspect", "plain"]).contains("plain: "));
    assert!(place.refuses(&["encrypt", KEY_ID, "plain"]).contains("usage"));
}

#[test]
fn a_rewrapped_file_differs_in_its_sealed_dek_only() {
    let place = Place::new();
    fs::write(place.path("plain"), plaintext()).unwrap();
    place.does(&["encrypt", KEY_ID, "plain", "sealed"]);
    let before = fs::read(place.path("sealed")).unwrap();
    assert!(place.run("keyring", &["rotate", KEY_ID]).status.success());

    assert_eq!(
        place.does(&["rewrap", KEY_ID, "sealed"]),
        format!("sealed: under {KEY_ID} version 1\n")
    );
    let after = fs::read(place.path("sealed")).unwrap();
    assert_eq!(place.header("sealed").sealed_dek().key_version(), 1);
    assert_eq!((&before[..44], &before[232..]), (&after[..44], &after[232..]));
    assert!(!place.path(COPY).exists());

    place.does(&["rewrap", KEY_ID, "sealed"]);
    assert_eq!(fs::read(place.path("sealed")).unwrap(), after);

    place.does(&["rewrap", KEY_ID, "sealed", OTHER_KEY_ID]);
    place.does(&["decrypt", OTHER_KEY_ID, "sealed", "opened"]);
    assert_eq!(fs::read(place.path("opened")).unwrap(), plaintext());

    let refused = place.refuses(&["--context", "a=b", "rewrap", OTHER_KEY_ID, "sealed"]);
    assert!(refused.contains("authentication failed"), "{refused}");
}

/// A copy that an interrupted rewrap left must never replace a header that opens.
#[test]
fn a_copy_that_is_out_of_date_is_not_put_back() {
    if !strace::works() {
        return;
    }
    let place = Place::new();
    fs::write(place.path("plain"), plaintext()).unwrap();
    place.does(&["encrypt", KEY_ID, "plain", "sealed"]);
    place.keyring(&["rotate", KEY_ID]);
    let rewrap = ["rewrap", KEY_ID, "sealed"];
    let before = fs::read(place.path("sealed")).unwrap();
    let calls = strace::calls(&place.command("encrypt_file", &rewrap));
    let removal = calls.iter().find(|call| call.name == "unlink").unwrap();
    fs::write(place.path("sealed"), before).unwrap();
    removal.kill_before(&place.command("encrypt_file", &rewrap));
    assert_eq!(place.header("sealed").sealed_dek().key_version(), 1);

    // Version 0, which the copy is sealed under, is retired.
    place.keyring(&["set-min-version", KEY_ID, "1"]);
    place.keyring(&["rotate", KEY_ID]);
    let said = place.run("encrypt_file", &rewrap);
    place.does(&["decrypt", KEY_ID, "sealed", "opened"]);
    assert_eq!(fs::read(place.path("opened")).unwrap(), plaintext());
    assert!(said.status.success(), "{said:?}");
    assert_eq!(place.header("sealed").sealed_dek().key_version(), 2);
}

/// A rewrap of `sealed` to version 1, from each state that an earlier rewrap can have left.
struct Interrupted {
    place: Place,
    engine: Engine<FileKeyring>,
    /// The file and its copy before the call.
    states: [(Vec<u8>, Option<Vec<u8>>); 5],
    rewrapped: Vec<u8>,
}

impl Interrupted {
    fn new() -> Self {
        let place = Place::new();
        fs::write(place.path("plain"), plaintext()).unwrap();
        place.does(&["encrypt", KEY_ID, "plain", "sealed"]);
        place.keyring(&["rotate", KEY_ID]);
        let old = fs::read(place.path("sealed")).unwrap();
        place.does(&["rewrap", KEY_ID, "sealed"]);
        let new = fs::read(place.path("sealed")).unwrap();
        let copy = Some(old[..264].to_vec());
        let half_written = [&new[..140], &old[140..]].concat();
        Self {
            engine: Engine::new(FileKeyring::open(place.path("keys"), root()).unwrap()),
            states: [
                (old.clone(), None),
                (old.clone(), Some(old[..100].to_vec())),
                (old, copy.clone()),
                (half_written, copy.clone()),
                (new.clone(), copy),
            ],
            rewrapped: new,
            place,
        }
    }

    fn set(&self, (file, copy): &(Vec<u8>, Option<Vec<u8>>)) {
        fs::write(self.place.path("sealed"), file).unwrap();
        let _ = fs::remove_file(self.place.path(COPY));
        if let Some(copy) = copy {
            fs::write(self.place.path(COPY), copy).unwrap();
        }
    }

    fn command(&self) -> Command {
        self.place.command("encrypt_file", &["rewrap", KEY_ID, "sealed"])
    }

    /// The system calls from the first one that names the file.
    fn calls(&self, state: &(Vec<u8>, Option<Vec<u8>>)) -> Vec<strace::Call> {
        self.set(state);
        let mut calls = strace::calls(&self.command());
        let first = calls.iter().position(|call| call.line.contains("/sealed\"")).unwrap();
        calls.drain(first..).collect()
    }

    fn opens(&self) -> bool {
        let (id, none) = (KEY_ID.parse().unwrap(), EncryptionContext::none());
        let opened = self
            .engine
            .decrypt(&id, &none, &fs::read(self.place.path("sealed")).unwrap());
        opened.is_ok_and(|opened| *opened == plaintext())
    }

    /// Asserts that another call completes the work of this one.
    fn is_completed_by_another_call(&self, after: &str) {
        let (id, none) = (KEY_ID.parse().unwrap(), EncryptionContext::none());
        let rewrapped = self.engine.rewrap_file(&id, &none, &id, self.place.path("sealed"));
        assert!(rewrapped.is_ok(), "{after}: {rewrapped:?}");
        assert!(
            fs::read(self.place.path("sealed")).unwrap() == self.rewrapped,
            "{after}"
        );
        assert!(!self.place.path(COPY).exists(), "{after}: the copy is left");
    }
}

#[test]
fn a_rewrap_that_is_killed_before_any_system_call_loses_nothing() {
    if !strace::works() {
        return;
    }
    let interrupted = Interrupted::new();
    let mut kills = 0;
    for (at, state) in interrupted.states.iter().enumerate() {
        for call in interrupted.calls(state) {
            interrupted.set(state);
            let opened = interrupted.opens();
            call.kill_before(&interrupted.command());
            kills += 1;
            let after = format!("state {at}, killed before {}", call.line);
            assert!(!opened || interrupted.opens(), "{after}: it opens no more");
            interrupted.is_completed_by_another_call(&after);
        }
    }
    assert!(kills > 100, "only {kills} kills");
}

#[test]
fn a_rewrap_whose_system_call_fails_loses_nothing() {
    if !strace::works() {
        return;
    }
    let interrupted = Interrupted::new();
    let state = &interrupted.states[0];
    let mut failures = 0;
    for call in interrupted.calls(state) {
        if !["openat", "read", "write", "fsync", "lseek", "unlink", "flock", "fchmod"].contains(&call.name.as_str()) {
            continue;
        }
        interrupted.set(state);
        let output = call.inject(&interrupted.command(), "error=ENOSPC");
        let stderr = String::from_utf8_lossy(&output.stderr);
        let after = format!("{} failed: {stderr}", call.line);
        let printed = call.line.starts_with("write(1");
        assert!(printed || output.status.code() == Some(1), "{after}");
        assert!(printed || stderr.contains("sealed"), "{after}");
        assert!(interrupted.opens(), "{after}: it opens no more");
        interrupted.is_completed_by_another_call(&after);
        failures += 1;
    }
    assert!(failures > 15, "only {failures} failures");
}

/// The copy and its name are on disk before the header is written. The header is on disk before the copy is removed.
#[test]
fn each_step_of_a_rewrap_is_on_disk_before_the_next() {
    if !strace::works() {
        return;
    }
    let interrupted = Interrupted::new();
    let calls = interrupted.calls(&interrupted.states[0]);
    let file = format!("{}>", interrupted.place.path("sealed").display());
    let copy = format!("{}>", interrupted.place.path(COPY).display());
    let directory = format!("{}>", interrupted.place.0.path().display());
    let steps: Vec<_> = calls
        .iter()
        .filter(|call| ["write", "fsync", "unlink"].contains(&call.name.as_str()))
        .filter_map(|call| {
            let about = [(&file, "file"), (&copy, "copy"), (&directory, "directory")];
            let about = about.iter().find(|(path, _)| call.line.contains(path.as_str()));
            let about = about
                .map(|(_, name)| *name)
                .or((call.name == "unlink").then_some("copy"))?;
            Some((call.name.as_str(), about))
        })
        .collect();
    assert_eq!(
        steps,
        [
            ("write", "copy"),
            ("fsync", "copy"),
            ("fsync", "directory"),
            ("write", "file"),
            ("fsync", "file"),
            ("unlink", "copy"),
            ("fsync", "directory"),
        ]
    );
}

/// A payload to decrypt, and the system calls of the decryption from the one that creates the output.
struct Decryption {
    place: Place,
    calls: Vec<strace::Call>,
    before: Vec<(PathBuf, Vec<u8>)>,
}

impl Decryption {
    const WORDS: [&str; 4] = ["decrypt", KEY_ID, "sealed", "opened"];

    fn new() -> Self {
        let place = Place::new();
        fs::write(place.path("plain"), plaintext()).unwrap();
        place.does(&["encrypt", KEY_ID, "plain", "sealed"]);
        let before = place.files();
        let mut calls = strace::calls(&place.command("encrypt_file", &Self::WORDS));
        assert_eq!(fs::read(place.path("opened")).unwrap(), plaintext());
        fs::remove_file(place.path("opened")).unwrap();
        let first = calls.iter().position(|call| call.line.contains("O_TMPFILE"));
        calls.drain(..first.expect("a file without a name"));
        Self { place, calls, before }
    }

    fn command(&self) -> Command {
        self.place.command("encrypt_file", &Self::WORDS)
    }

    /// Asserts that the output is complete or absent, and that there is no other file.
    fn all_or_nothing(&self, after: &str) {
        let opened = self.place.path("opened");
        if opened.exists() {
            assert!(fs::read(&opened).unwrap() == plaintext(), "{after}: a part");
            fs::remove_file(&opened).unwrap();
        }
        assert!(self.place.files() == self.before, "{after}: something is left");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_decryption_that_is_killed_leaves_no_plaintext() {
    if !strace::works() {
        return;
    }
    let decryption = Decryption::new();
    assert!(decryption.calls.len() > 30, "only {} calls", decryption.calls.len());
    // All steps at the end, and some of the many reads and writes before.
    let (body, end) = decryption.calls.split_at(decryption.calls.len() - 15);
    for call in body.iter().step_by(5).chain(end) {
        call.kill_before(&decryption.command());
        decryption.all_or_nothing(&format!("killed before {}", call.line));
    }
}

/// If the file system has no unnamed files, a handler removes the named temporary file.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_leaves_no_plaintext_without_unnamed_files() {
    if !strace::works() {
        return;
    }
    let decryption = Decryption::new();
    let unnamed = &decryption.calls[0];
    let (_, unsupported) = unnamed.options("error=EOPNOTSUPP");
    let decrypt = |fault: &str| {
        let options = ["-o", "/dev/null", "-e", &unsupported, "-e", fault];
        let output = strace::traced(&options, &decryption.command()).output().unwrap();
        (output.status.success(), decryption.place.path("opened").exists())
    };
    assert_eq!(decrypt("trace=none"), (true, true));
    decryption.all_or_nothing("no signal");
    let writes = decryption.calls.iter().filter(|call| call.name == "write").count();
    for signal in ["SIGINT", "SIGTERM", "SIGHUP"] {
        for nth in [1, writes / 2, writes] {
            // The call takes so long that the handler usually comes first. On a busy machine it may come when the file
            // is complete and has its name.
            let fault = format!("inject=write:signal={signal}:delay_exit=1000000:when={nth}");
            assert_ne!(decrypt(&fault), (true, false), "{signal} at {nth}");
            decryption.all_or_nothing(&format!("{signal} at {nth}"));
        }
    }
}
