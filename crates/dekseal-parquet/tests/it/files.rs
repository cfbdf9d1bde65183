//! Files of the crate `parquet`.

use dekseal::ErrorKind as Refused;
use dekseal_parquet::ErrorKind;

use crate::support::{COLUMN, Form, Setup, kind, read, write};

#[test]
fn every_form_is_read_before_and_after_a_rotation() {
    let setup = Setup::new();
    for form in Form::all(&[128]) {
        let path = setup.file(&form.name());
        write(&setup.kms(), form, &path);
        read(&setup.kms(), &path).unwrap();
    }
    setup.rotate();
    for form in Form::all(&[128]) {
        read(&setup.kms(), &setup.file(&form.name())).unwrap();
    }
    // Without a rotation of the key material, a file needs the version that it was written under.
    setup.retire_below(1);
    for form in Form::all(&[128]) {
        let refused = read(&setup.kms(), &setup.file(&form.name())).unwrap_err();
        assert_eq!(
            kind(&*refused),
            ErrorKind::Dekseal(Refused::KeyVersionRetired),
            "{form:?}"
        );
    }
}

#[test]
fn a_file_opens_with_its_keys_and_in_its_context_only() {
    let setup = Setup::new();
    for form in Form::all(&[128]) {
        let path = setup.file(&form.name());
        write(&setup.kms(), form, &path);
        let refused = read(&setup.kms_of("customers"), &path).unwrap_err();
        assert_eq!(
            kind(&*refused),
            ErrorKind::Dekseal(Refused::AuthenticationFailed),
            "{form:?}"
        );
        let stranger = Setup::new();
        let refused = read(&stranger.kms(), &path).unwrap_err();
        assert_eq!(
            kind(&*refused),
            ErrorKind::Dekseal(Refused::AuthenticationFailed),
            "{form:?}"
        );
    }
    let kms = setup.kms();
    kms.engine()
        .keyring()
        .update(|keys| keys.disable(&COLUMN.parse().unwrap()))
        .unwrap();
    for form in Form::all(&[128]) {
        // The Arrow reader keeps the text alone.
        let refused = read(&kms, &setup.file(&form.name())).unwrap_err().to_string();
        let expected = format!("unwrapping under {COLUMN}: the key is disabled");
        assert!(refused.contains(&expected), "{form:?}: {refused}");
    }
}

#[test]
fn no_file_contains_what_was_encrypted() {
    let setup = Setup::new();
    for form in Form::all(&[128]) {
        let path = setup.file(&form.name());
        write(&setup.kms(), form, &path);
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(9).any(|part| part == b"4929-0007"), "{form:?}");
    }
}
