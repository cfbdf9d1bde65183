//! Commands over data that are killed, or whose system calls fail.

use std::{fs, path::PathBuf, process::Command};

use dekseal::{CmkVersion, EncryptionContext, Engine, FileKeyring, payload::PayloadHeader};

use crate::{
    strace,
    support::{KEY_ID, Place},
};

/// The copy of the header that a rewrap of `sealed` puts beside it.
const COPY: &str = ".sealed.dekseal-header";

/// 200,000 bytes, which is more than three segments.
pub(crate) fn plaintext() -> Vec<u8> {
    (0..200_000_u32).map(|at| (at / 251) as u8).collect()
}

fn header(place: &Place, name: &str) -> PayloadHeader {
    PayloadHeader::from_bytes(fs::read(place.path(name)).unwrap().first_chunk().unwrap()).unwrap()
}

fn root() -> CmkVersion {
    CmkVersion::new("00000000-0000-0000-0000-00000000root".parse().unwrap(), 0, &[0xf7; 32]).unwrap()
}

/// A copy that an interrupted rewrap left must never replace a header that opens.
#[test]
fn a_copy_that_is_out_of_date_is_not_put_back() {
    if !strace::works() {
        return;
    }
    let place = Place::with_keys();
    fs::write(place.path("plain"), plaintext()).unwrap();
    place.does(&["encrypt", "--key", KEY_ID, "-o", "sealed", "plain"]);
    place.does(&["key", "rotate", KEY_ID]);
    let rewrap = ["rewrap", "sealed"];
    let before = fs::read(place.path("sealed")).unwrap();
    let calls = strace::calls(&place.command(&rewrap));
    let removal = calls.iter().find(|call| call.name == "unlink").unwrap();
    fs::write(place.path("sealed"), before).unwrap();
    removal.kill_before(&place.command(&rewrap));
    assert_eq!(header(&place, "sealed").sealed_dek().key_version(), 1);

    // Version 0, which the copy is sealed under, is retired.
    place.does(&["key", "set-min-version", KEY_ID, "1"]);
    place.does(&["key", "rotate", KEY_ID]);
    let said = place.run(&rewrap);
    place.does(&["decrypt", "-o", "opened", "sealed"]);
    assert_eq!(fs::read(place.path("opened")).unwrap(), plaintext());
    assert!(said.status.success(), "{said:?}");
    assert_eq!(header(&place, "sealed").sealed_dek().key_version(), 2);
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
        let place = Place::with_keys();
        fs::write(place.path("plain"), plaintext()).unwrap();
        place.does(&["encrypt", "--key", KEY_ID, "-o", "sealed", "plain"]);
        place.does(&["key", "rotate", KEY_ID]);
        let old = fs::read(place.path("sealed")).unwrap();
        place.does(&["rewrap", "sealed"]);
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
        self.place.command(&["rewrap", "sealed"])
    }

    /// The system calls from the first one that names the file.
    fn calls(&self, state: &(Vec<u8>, Option<Vec<u8>>)) -> Vec<strace::Call> {
        self.set(state);
        let mut calls = strace::calls(&self.command());
        let first = calls
            .iter()
            .position(|call| call.name != "execve" && call.line.contains("sealed\""))
            .unwrap();
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
        assert!(printed || output.status.code() == Some(4), "{after}");
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
    let directory = format!("{}>", interrupted.place.path("sealed").parent().unwrap().display());
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

/// A command that makes the file `out`, and its system calls from the one that creates the output.
struct Conversion {
    place: Place,
    words: &'static [&'static str],
    calls: Vec<strace::Call>,
    /// The files before the command, and the length of `out` after it.
    before: Vec<(PathBuf, Vec<u8>)>,
    len: usize,
}

impl Conversion {
    const ENCRYPT: &[&str] = &["encrypt", "--key", KEY_ID, "-o", "out", "plain"];
    const DECRYPT: &[&str] = &["decrypt", "-o", "out", "sealed"];

    fn new(words: &'static [&'static str]) -> Self {
        let place = Place::with_keys();
        fs::write(place.path("plain"), plaintext()).unwrap();
        place.does(&["encrypt", "--key", KEY_ID, "-o", "sealed", "plain"]);
        if words.contains(&"--force") {
            fs::write(place.path("out"), "old").unwrap();
        }
        let before = place.files();
        let mut calls = strace::calls(&place.command(words));
        let first = calls.iter().position(|call| call.line.contains("O_TMPFILE"));
        calls.drain(..first.expect("a file without a name"));
        let conversion = Self {
            len: fs::read(place.path("out")).unwrap().len(),
            place,
            words,
            calls,
            before,
        };
        conversion.put_back();
        conversion
    }

    fn command(&self) -> Command {
        self.place.command(self.words)
    }

    fn put_back(&self) {
        for (path, _) in self.place.files() {
            if !self.before.iter().any(|(before, _)| *before == path) {
                fs::remove_file(path).unwrap();
            }
        }
        for (path, contents) in &self.before {
            fs::write(path, contents).unwrap();
        }
    }

    fn is_new(&self, contents: &[u8]) -> bool {
        if self.words[0] == "decrypt" {
            return contents == plaintext();
        }
        contents.len() == self.len && self.place.opens("out")
    }

    /// Asserts that the output is as before or complete, and that there is no other file.
    fn all_or_nothing(&self, after: &str) {
        let out = self.place.path("out");
        let mut now = self.place.files();
        if let Some(at) = now.iter().position(|file| file.0 == out && !self.before.contains(file)) {
            assert!(self.is_new(&now[at].1), "{after}: a part");
            now.remove(at);
        }
        // A complete file has a temporary name for the moment before it replaces another one.
        if self.words.contains(&"--force") {
            now.retain(|(path, contents)| !path.to_str().unwrap().ends_with(".tmp") || contents.len() != self.len);
        }
        let others = self
            .before
            .iter()
            .filter(|file| now.iter().any(|now| now.0 == file.0))
            .cloned();
        assert!(now == others.collect::<Vec<_>>(), "{after}: something is left");
        self.put_back();
    }

    fn is_killed_before_each_call(&self) {
        assert!(self.calls.len() > 10, "only {} calls", self.calls.len());
        for call in &self.calls {
            call.kill_before(&self.command());
            self.all_or_nothing(&format!("killed before {}", call.line));
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_encryption_that_is_killed_leaves_nothing() {
    if strace::works() {
        Conversion::new(Conversion::ENCRYPT).is_killed_before_each_call();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_decryption_that_is_killed_leaves_no_plaintext() {
    if strace::works() {
        Conversion::new(Conversion::DECRYPT).is_killed_before_each_call();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_is_replaced_is_the_old_one_or_the_new_one() {
    if strace::works() {
        Conversion::new(&["decrypt", "--force", "-o", "out", "sealed"]).is_killed_before_each_call();
        Conversion::new(&["encrypt", "--force", "--key", KEY_ID, "-o", "out", "plain"]).is_killed_before_each_call();
    }
}

/// A write, a sync or a name that fails is an error, and leaves nothing.
#[cfg(target_os = "linux")]
#[test]
fn an_output_that_cannot_be_written_is_an_error() {
    if !strace::works() {
        return;
    }
    for words in [
        Conversion::ENCRYPT,
        Conversion::DECRYPT,
        &["decrypt", "--force", "-o", "out", "sealed"],
    ] {
        let conversion = Conversion::new(words);
        for call in &conversion.calls {
            let on_output = ["write", "fsync", "linkat", "rename"].contains(&call.name.as_str());
            if !on_output || call.line.starts_with("write(1") {
                continue;
            }
            let output = call.inject(&conversion.command(), "error=ENOSPC");
            let stderr = String::from_utf8(output.stderr).unwrap();
            let after = format!("{} failed: {stderr}", call.line);
            assert_eq!(output.status.code(), Some(4), "{after}");
            assert!(stderr.contains("out: ") && stderr.contains("; make room"), "{after}");
            assert_eq!(stderr.lines().count(), 1, "{after}");
            conversion.all_or_nothing(&after);
        }
    }
}

/// If the file system has no unnamed files, a handler removes the named temporary file.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_leaves_no_plaintext_without_unnamed_files() {
    if !strace::works() {
        return;
    }
    let decryption = Conversion::new(Conversion::DECRYPT);
    let unnamed = &decryption.calls[0];
    let (_, unsupported) = unnamed.options("error=EOPNOTSUPP");
    let decrypt = |fault: &str| {
        let options = ["-o", "/dev/null", "-e", &unsupported, "-e", fault];
        let output = strace::traced(&options, &decryption.command()).output().unwrap();
        (output.status.success(), decryption.place.path("out").exists())
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
