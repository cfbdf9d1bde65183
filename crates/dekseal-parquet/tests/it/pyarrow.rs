//! Files of PyArrow: `tests/pyarrow_files.py`. `check` installs PyArrow, and names the Python that has it.

use std::{fs, path::PathBuf, process::Command, sync::Arc};

use dekseal::{CmkVersion, Engine, FileKeyring, KeyId, SealedDek};
use dekseal_parquet::{ErrorKind, KeyMaterial, Kms, rotate_master_keys};
use parquet_key_management::{
    crypto_factory::{CryptoFactory, DecryptionConfiguration},
    kms::KmsConnectionConfig,
};
use serde_json::Value;
use tempfile::TempDir;

const FOOTER: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
const COLUMN: &str = "25abe69f-ae10-44cd-bc87-1bda1de3b7d7";
const ROOT: &str = "00000000-0000-0000-0000-00000000root";

fn id(text: &str) -> KeyId {
    text.parse().unwrap()
}

fn root() -> CmkVersion {
    CmkVersion::new(id(ROOT), 0, &[7; 64]).unwrap()
}

/// A keyring file with two CMKs, and Parquet files of PyArrow beside it, in every form with external key material.
struct Setup {
    directory: TempDir,
    files: Vec<PathBuf>,
}

impl Setup {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keyring = FileKeyring::create(directory.path().join("keyring.json"), root()).unwrap();
        keyring
            .update(|keys| {
                keys.create_key(id(FOOTER))?;
                keys.create_key(id(COLUMN))
            })
            .unwrap();
        let mut files = Vec::new();
        for footer in ["plaintext", "encrypted"] {
            for wrapping in ["single", "double"] {
                for bits in [128, 192, 256] {
                    let name = format!("{footer}-footer.external.{wrapping}.{bits}.parquet");
                    files.push(directory.path().join(name));
                }
            }
        }
        let setup = Self { directory, files };
        setup.script("write").unwrap();
        setup
    }

    fn kms(&self, table: &str) -> Kms<FileKeyring> {
        let keyring = FileKeyring::open(self.directory.path().join("keyring.json"), root()).unwrap();
        Kms::new(Engine::new(keyring), [("table", table)]).unwrap()
    }

    /// Runs the script over all files. Returns its error output if it fails.
    fn script(&self, command: &str) -> Result<(), String> {
        let python = std::env::var_os("PYARROW_PYTHON").unwrap_or_else(|| panic!("`check` sets PYARROW_PYTHON"));
        let output = Command::new(python)
            .arg("-B")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pyarrow_files.py"))
            .args(["--kms", "reference"])
            .arg(self.directory.path().join("keyring.json"))
            .args([&format!("{ROOT}:0:{}", "07".repeat(64)), command, FOOTER, COLUMN])
            .args(&self.files)
            .output()
            .unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn rotate(&self) {
        let kms = self.kms("orders");
        let rotated = kms
            .engine()
            .keyring()
            .update(|keys| Ok((keys.rotate(&id(FOOTER))?, keys.rotate(&id(COLUMN))?)));
        rotated.unwrap();
    }

    fn retire_below(&self, version: u32) {
        let kms = self.kms("orders");
        kms.engine()
            .keyring()
            .update(|keys| {
                keys.set_min_version(&id(FOOTER), version)?;
                keys.set_min_version(&id(COLUMN), version)
            })
            .unwrap();
    }

    /// Asserts that all keys of all files are under this version, and that parquet-key-management unwraps them.
    fn opens_under(&self, version: u32) {
        for path in &self.files {
            let material = KeyMaterial::read(path).unwrap();
            let sealed = material.sealed_deks().unwrap();
            let found: Vec<_> = sealed
                .values()
                .map(|dek| (dek.key_id().to_string(), dek.key_version()))
                .collect();
            assert_eq!(
                found,
                [(COLUMN.into(), version), (FOOTER.into(), version)],
                "{}",
                path.display()
            );
            let factory = CryptoFactory::new(self.kms("orders"));
            let connection = Arc::new(KmsConnectionConfig::default());
            let unwrapper = factory
                .key_unwrapper(connection, DecryptionConfiguration::default())
                .unwrap();
            let bits = path
                .to_str()
                .unwrap()
                .rsplit('.')
                .nth(1)
                .unwrap()
                .parse::<usize>()
                .unwrap();
            let entries: Value = serde_json::from_str(&material.to_json()).unwrap();
            for entry in entries.as_object().unwrap().values() {
                // As it would stand in the Parquet file.
                let mut entry: Value = serde_json::from_str(entry.as_str().unwrap()).unwrap();
                entry["internalStorage"] = true.into();
                let key = unwrapper.unwrap_key(entry.to_string().as_bytes()).unwrap();
                assert_eq!(key.len() * 8, bits);
            }
        }
    }
}

#[test]
fn each_side_rotates_and_reads_what_the_other_one_wrote() {
    let setup = Setup::new();
    setup.opens_under(0);
    setup.script("read").unwrap();

    setup.rotate();
    for path in &setup.files {
        let file = fs::read(path).unwrap();
        assert_eq!(rotate_master_keys(&setup.kms("orders"), path).unwrap(), 2);
        assert_eq!(
            rotate_master_keys(&setup.kms("orders"), path).unwrap(),
            0,
            "nothing to do"
        );
        assert_eq!(fs::read(path).unwrap(), file, "the Parquet file stays as it is");
    }
    setup.opens_under(1);
    setup.script("read").unwrap();

    setup.rotate();
    setup.script("rotate").unwrap();
    setup.opens_under(2);
    setup.retire_below(2);
    setup.opens_under(2);
    setup.script("read").unwrap();
    setup.rotate();
    setup.retire_below(3);
    setup.script("read").unwrap_err();
}

#[test]
fn a_failed_rotation_changes_nothing() {
    let setup = Setup::new();
    setup.rotate();
    let path = &setup.files[0];
    let beside = KeyMaterial::path(path).unwrap();
    let before = fs::read(&beside).unwrap();
    let refused = rotate_master_keys(&setup.kms("customers"), path).unwrap_err();
    assert_eq!(
        refused.kind(),
        ErrorKind::Dekseal(dekseal::ErrorKind::AuthenticationFailed)
    );
    let kms = setup.kms("orders");
    kms.engine().keyring().update(|keys| keys.disable(&id(FOOTER))).unwrap();
    let refused = rotate_master_keys(&kms, path).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Dekseal(dekseal::ErrorKind::KeyDisabled));
    assert_eq!(
        fs::read(&beside).unwrap(),
        before,
        "the column key was rewrapped in memory only"
    );
    let refused = rotate_master_keys(&kms, setup.directory.path().join("missing.parquet")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Io);
    assert!(
        refused.to_string().contains("_KEY_MATERIAL_FOR_missing.parquet.json"),
        "{refused}"
    );
}

#[test]
fn what_is_no_key_material_is_refused() {
    let setup = Setup::new();
    let double = setup
        .files
        .iter()
        .find(|path| path.to_str().unwrap().contains(".double."))
        .unwrap();
    let text = fs::read_to_string(KeyMaterial::path(double).unwrap()).unwrap();
    assert_eq!(KeyMaterial::parse(text.as_bytes()).unwrap().to_json(), text);
    for (what, wrong) in [
        ("nothing", String::new()),
        ("an array", "[]".into()),
        ("no text in it", r#"{"footerKey":{}}"#.into()),
        ("cut", text[..text.len() - 1].into()),
        ("another type", text.replace("PKMT1", "PKMT2")),
        ("no wrapped KEK", text.replace("wrappedKEK", "wrappedKey")),
        ("no wrapped key", text.replace("wrappedDEK", "wrapped")),
        ("no master key", text.replace("masterKeyID", "masterKey")),
    ] {
        let refused = KeyMaterial::parse(wrong.as_bytes()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::KeyMaterial, "{what}");
    }
}

#[cfg(unix)]
#[test]
fn rotation_keeps_the_permissions_of_key_material() {
    use std::os::unix::fs::PermissionsExt;
    let setup = Setup::new();
    let beside = KeyMaterial::path(&setup.files[0]).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o640)).unwrap();
    setup.rotate();
    rotate_master_keys(&setup.kms("orders"), &setup.files[0]).unwrap();
    assert_eq!(fs::metadata(&beside).unwrap().permissions().mode() & 0o777, 0o640);
    let version = |sealed: &SealedDek| sealed.key_version();
    let material = KeyMaterial::read(&setup.files[0]).unwrap();
    assert!(material.sealed_deks().unwrap().values().map(version).eq([1, 1]));
}
