//! Files exchanged with PyArrow: `tests/pyarrow_files.py`. `check` installs PyArrow, and names the Python that has it.
//! The tests of DataFusion use this module too.

use std::{fs, path::Path, path::PathBuf, process::Command};

use dekseal::{FileKeyring, SealedDek};
use dekseal_parquet::{KeyMaterial, Kms, rotate_master_keys};

use crate::support::{COLUMN, FOOTER, Form, Outcome, Setup};

/// How PyArrow reaches the keys.
#[derive(Clone, Copy)]
pub(crate) enum PyKms {
    /// By an implementation that was written from FORMAT.md and from the wire form in README.md, without this project's
    /// code in Rust.
    Reference,
    /// By `dekseal.pyarrow` of the Python package.
    Package,
}

/// A library in Rust that writes and reads Parquet files.
pub(crate) struct Library {
    /// The forms that it writes.
    pub(crate) forms: Vec<Form>,
    pub(crate) write: fn(&Kms<FileKeyring>, Form, &Path),
    pub(crate) read: fn(&Kms<FileKeyring>, Form, &Path) -> Outcome<()>,
}

impl PyKms {
    /// Runs the script. Returns its error output if it fails.
    fn script(self, setup: &Setup, command: &str, files: &[PathBuf]) -> Result<(), String> {
        let (name, variable) = match self {
            Self::Reference => ("reference", "PYARROW_PYTHON"),
            Self::Package => ("package", "DEKSEAL_PYTHON"),
        };
        let python = std::env::var_os(variable).unwrap_or_else(|| panic!("`check` sets {variable}"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let script = script.map(|parent| parent.join("tests/pyarrow_files.py"));
        let output = Command::new(python)
            .arg("-B")
            .arg(script.into_iter().find(|path| path.exists()).unwrap())
            .args(["--kms", name])
            .arg(setup.keyring())
            .args([&setup.root(), command, FOOTER, COLUMN])
            .args(files)
            .output()
            .unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

/// The versions that the keys of a file are under.
fn versions(path: &Path) -> Vec<u32> {
    let material = KeyMaterial::read(path).unwrap();
    let sealed = material.sealed_deks().unwrap();
    sealed.values().map(SealedDek::key_version).collect()
}

/// Files in a directory of their own, each with its form.
fn files(setup: &Setup, directory: &str, forms: &[Form]) -> Vec<(Form, PathBuf)> {
    let directory = setup.file(directory);
    fs::create_dir(&directory).unwrap();
    forms.iter().map(|form| (*form, directory.join(form.name()))).collect()
}

fn paths(files: &[(Form, PathBuf)]) -> Vec<PathBuf> {
    files.iter().map(|(_, path)| path.clone()).collect()
}

/// Each side reads what the other one wrote, before and after each side rotated the other one's key material.
pub(crate) fn exchange(kms: PyKms, library: &Library) {
    let setup = Setup::new();
    let theirs = files(&setup, "python", &Form::all(&[128, 192, 256]));
    let ours = files(&setup, "rust", &library.forms);
    kms.script(&setup, "write", &paths(&theirs)).unwrap();
    for (form, path) in &ours {
        (library.write)(&setup.kms(), *form, path);
    }
    let all_open = || {
        for (form, path) in &theirs {
            let outcome = (library.read)(&setup.kms(), *form, path);
            // The crate `parquet` has no AES-192.
            assert_eq!(outcome.is_ok(), form.bits != 192, "{}: {outcome:?}", path.display());
        }
        kms.script(&setup, "read", &paths(&theirs)).unwrap();
        kms.script(&setup, "read", &paths(&ours)).unwrap();
    };
    all_open();

    // PyArrow rotates both sides' files, and then this crate does.
    let both = [theirs.clone(), ours.clone()].concat();
    let (external, internal): (Vec<_>, Vec<_>) = both.into_iter().partition(|(form, _)| form.external);
    setup.rotate();
    kms.script(&setup, "rotate", &paths(&external)).unwrap();
    assert!(external.iter().all(|(_, path)| versions(path) == [1, 1]));
    all_open();
    setup.rotate();
    for (_, path) in &external {
        let file = fs::read(path).unwrap();
        assert_eq!(rotate_master_keys(&setup.kms(), path).unwrap(), 2);
        assert_eq!(versions(path), [2, 2]);
        assert_eq!(fs::read(path).unwrap(), file, "the Parquet file stays as it is");
    }
    all_open();

    // What was rotated opens under the new version alone. What could not be rotated does not.
    setup.retire_below(2);
    kms.script(&setup, "read", &paths(&external)).unwrap();
    for (form, path) in &external {
        assert_eq!((library.read)(&setup.kms(), *form, path).is_ok(), form.bits != 192);
    }
    for (form, path) in &internal {
        (library.read)(&setup.kms(), *form, path).unwrap_err();
    }
    kms.script(&setup, "read", &paths(&internal[..1])).unwrap_err();

    // Another keyring with keys of the same IDs.
    let stranger = Setup::new();
    for (form, path) in &external {
        (library.read)(&stranger.kms(), *form, path).unwrap_err();
    }
    kms.script(&stranger, "read", &paths(&external[..1])).unwrap_err();
}
