//! The example that encrypts files, as a process.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use dekseal::payload::{PayloadHeader, encrypted_len};
use tempfile::TempDir;

use crate::support::{KEY_ID, OTHER_KEY_ID, example};

/// A directory with a keyring file of two keys, and files.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.path("root"), "07".repeat(32)).unwrap();
        for words in [&["init"][..], &["create-key", KEY_ID], &["create-key", OTHER_KEY_ID]] {
            assert!(place.run("keyring", words).status.success());
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, program: &str, words: &[&str]) -> Output {
        let mut command = Command::new(example(program));
        command.current_dir(self.0.path());
        command
            .args(["--keyring", "keys", "--root-key-file", "root"])
            .args(words);
        command.output().unwrap()
    }

    /// Runs the example on what succeeds: gives what it prints.
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

    /// Runs it on what fails: gives why.
    fn refuses(&self, words: &[&str]) -> String {
        let before = self.files();
        let output = self.run("encrypt_file", words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert_eq!(self.files(), before, "{words:?} left something behind");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Every file and what is in it.
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
    // Two whole segments come out before the third is missing.
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
            .contains("there already")
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
    assert!(!place.path("sealed.old-header").exists());

    place.does(&["rewrap", KEY_ID, "sealed"]);
    assert_eq!(fs::read(place.path("sealed")).unwrap(), after);

    place.does(&["rewrap", KEY_ID, "sealed", OTHER_KEY_ID]);
    place.does(&["decrypt", OTHER_KEY_ID, "sealed", "opened"]);
    assert_eq!(fs::read(place.path("opened")).unwrap(), plaintext());

    let refused = place.refuses(&["--context", "a=b", "rewrap", OTHER_KEY_ID, "sealed"]);
    assert!(refused.contains("authentication failed"), "{refused}");
}

/// A rewrap that stopped in the midst of the header leaves a copy of the old one, and the next puts it back.
#[test]
fn a_rewrap_that_broke_off_is_made_good() {
    let place = Place::new();
    fs::write(place.path("plain"), plaintext()).unwrap();
    place.does(&["encrypt", KEY_ID, "plain", "sealed"]);
    let whole = fs::read(place.path("sealed")).unwrap();
    let mut torn = whole.clone();
    torn[100..232].fill(0);
    let copy = Path::new("sealed.old-header");

    fs::write(place.path("sealed"), &torn).unwrap();
    assert!(place.refuses(&["rewrap", KEY_ID, "sealed"]).contains("sealed: "));
    fs::write(place.0.path().join(copy), &whole[..264]).unwrap();
    place.does(&["rewrap", KEY_ID, "sealed"]);
    assert_eq!(fs::read(place.path("sealed")).unwrap(), whole);
    assert!(!place.0.path().join(copy).exists());

    // The copy of another file's header is no use.
    place.does(&["encrypt", KEY_ID, "plain", "other"]);
    let other = fs::read(place.path("other")).unwrap();
    fs::write(place.0.path().join(copy), &other[..264]).unwrap();
    assert!(place.refuses(&["rewrap", KEY_ID, "sealed"]).contains("another file"));
}
