//! Key material beside a file.

use std::{fs, path::Path};

use dekseal::ErrorKind as Refused;
use dekseal_parquet::{ErrorKind, KeyMaterial, rotate_master_keys};

use crate::support::{COLUMN, FOOTER, Form, Setup, read, write};

fn versions(path: &Path) -> Vec<(String, u32)> {
    let material = KeyMaterial::read(path).unwrap();
    let sealed = material.sealed_deks().unwrap();
    let versions = sealed
        .values()
        .map(|sealed| (sealed.key_id().to_string(), sealed.key_version()));
    versions.collect()
}

#[test]
fn rotation_rewraps_every_key_and_nothing_else() {
    let setup = Setup::new();
    for form in Form::all(&[128]).into_iter().filter(|form| form.external) {
        let path = setup.file(&form.name());
        write(&setup.kms(), form, &path);
        let version = setup
            .kms()
            .engine()
            .keyring()
            .keys()
            .info(&FOOTER.parse().unwrap())
            .unwrap()
            .current_version;
        assert_eq!(versions(&path), [(COLUMN.into(), version), (FOOTER.into(), version)]);
        let file = fs::read(&path).unwrap();
        assert_eq!(rotate_master_keys(&setup.kms(), &path).unwrap(), 0, "nothing to do");
        setup.rotate();
        assert_eq!(rotate_master_keys(&setup.kms(), &path).unwrap(), 2);
        assert_eq!(
            versions(&path),
            [(COLUMN.into(), version + 1), (FOOTER.into(), version + 1)]
        );
        assert_eq!(fs::read(&path).unwrap(), file, "the Parquet file stays as it is");
        // Both keys may now open under the new version only.
        setup.retire_below(version + 1);
        read(&setup.kms(), &path).unwrap();
    }
}

#[test]
fn a_failed_rotation_changes_nothing() {
    let setup = Setup::new();
    let form = Form::all(&[128]).into_iter().find(|form| form.external).unwrap();
    let path = setup.file(&form.name());
    write(&setup.kms(), form, &path);
    let beside = KeyMaterial::path(&path).unwrap();
    let before = fs::read(&beside).unwrap();
    setup.rotate();

    let refused = rotate_master_keys(&setup.kms_of("customers"), &path).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Dekseal(Refused::AuthenticationFailed));
    let kms = setup.kms();
    kms.engine()
        .keyring()
        .update(|keys| keys.disable(&FOOTER.parse().unwrap()))
        .unwrap();
    let refused = rotate_master_keys(&kms, &path).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Dekseal(Refused::KeyDisabled));
    assert_eq!(
        fs::read(&beside).unwrap(),
        before,
        "the column key was rewrapped in memory only"
    );

    let refused = rotate_master_keys(&kms, setup.file("missing.parquet")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Io);
    assert!(
        refused.to_string().contains("_KEY_MATERIAL_FOR_missing.parquet.json"),
        "{refused}"
    );
    let left = fs::read_dir(setup.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().ends_with(".tmp")));
}

#[cfg(unix)]
#[test]
fn new_key_material_is_as_readable_as_its_file_and_rotation_keeps_that() {
    use std::os::unix::fs::PermissionsExt;
    let setup = Setup::new();
    let form = Form::all(&[128]).into_iter().find(|form| form.external).unwrap();
    let path = setup.file(&form.name());
    write(&setup.kms(), form, &path);
    let beside = KeyMaterial::path(&path).unwrap();
    let of = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mode = || of(&beside);
    assert_eq!(mode(), of(&path));
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o640)).unwrap();
    setup.rotate();
    rotate_master_keys(&setup.kms(), &path).unwrap();
    assert_eq!(mode(), 0o640);
}

#[test]
fn what_is_no_key_material_is_refused() {
    let setup = Setup::new();
    let form = Form::all(&[128])
        .into_iter()
        .find(|form| form.external && form.double)
        .unwrap();
    let path = setup.file(&form.name());
    write(&setup.kms(), form, &path);
    let text = KeyMaterial::read(&path).unwrap().to_json();
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
    // A file whose references are not there.
    fs::write(KeyMaterial::path(&path).unwrap(), text.replace("footerKey", "otherKey")).unwrap();
    let refused = read(&setup.kms(), &path).unwrap_err();
    assert_eq!(crate::support::kind(&*refused), ErrorKind::KeyReference);
    fs::remove_file(KeyMaterial::path(&path).unwrap()).unwrap();
    let refused = read(&setup.kms(), &path).unwrap_err();
    assert_eq!(crate::support::kind(&*refused), ErrorKind::Io);
}
