//! A directory with a root, and the command run in it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

/// The key ID in the examples of the KMS documentation.
pub(crate) const KEY_ID: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
pub(crate) const OTHER_KEY_ID: &str = "25abe69f-ae10-44cd-bc87-1bda1de3b7d7";

/// The command, with no settings from the environment.
pub(crate) fn dekseal() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dekseal"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DEKSEAL_") {
            command.env_remove(name);
        }
    }
    command
}

/// A directory with a root in the file `root`. The keyring is the file `keys`.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        write_private(&place.path("root"), "f7".repeat(32));
        place
    }

    /// With a keyring of two keys.
    pub(crate) fn with_keys() -> Self {
        let place = Self::new();
        place.does(&["keyring", "create"]);
        place.does(&["key", "create", KEY_ID]);
        place.does(&["key", "create", OTHER_KEY_ID]);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = dekseal();
        command.current_dir(self.0.path()).args(words);
        command
            .env("DEKSEAL_KEYRING", "file:keys")
            .env("DEKSEAL_ROOT", "file:root");
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs the command, which must succeed and print nothing to standard error. Returns its output.
    pub(crate) fn does(&self, words: &[&str]) -> String {
        String::from_utf8(self.does_bytes(words)).unwrap()
    }

    pub(crate) fn does_bytes(&self, words: &[&str]) -> Vec<u8> {
        succeeds(&mut self.command(words))
    }

    /// Runs the command, which must fail with this exit code, and change nothing. Returns its message.
    pub(crate) fn refuses(&self, exit: i32, words: &[&str]) -> String {
        let before = self.files();
        let message = fails(&mut self.command(words), exit);
        assert!(self.files() == before, "{words:?} changed something: {message}");
        message
    }

    /// Whether the payload in a file opens.
    pub(crate) fn opens(&self, name: &str) -> bool {
        self.run(&["decrypt", name]).status.success()
    }

    /// All files and their contents.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    }
}

/// Runs a command that must succeed and print nothing to standard error.
pub(crate) fn succeeds(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{command:?}: {stderr}");
    output.stdout
}

/// Runs a command that must fail with this exit code and one sentence.
pub(crate) fn fails(command: &mut Command, exit: i32) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(exit), "{command:?}: {stderr}");
    // The messages of clap have several lines.
    let is_sentence = stderr.starts_with("dekseal: ") && stderr.lines().count() == 1;
    assert!(is_sentence || stderr.starts_with("error: "), "{command:?}: {stderr}");
    stderr
}

/// Writes a file that only its owner can read.
pub(crate) fn write_private(path: &Path, contents: impl AsRef<[u8]>) {
    fs::write(path, contents).unwrap();
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}
