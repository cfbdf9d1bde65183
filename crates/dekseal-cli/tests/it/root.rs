//! Roots by source.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use crate::support::{KEY_ID, Place, dekseal, fails, write_private};

/// Lists the keys with this root. A shell runs the command, so that it can have open file descriptors.
fn list(place: &Place, root: &str, redirection: &str) -> Command {
    let program = dekseal();
    let mut command = Command::new("bash");
    command.args(["-c", &format!("exec \"$0\" key list {redirection}")]);
    command.arg(program.get_program()).current_dir(place.path("."));
    command.env("DEKSEAL_KEYRING", "file:keys").env("DEKSEAL_ROOT", root);
    command
        .env("HEX", "f7".repeat(32))
        .env("CREDENTIALS_DIRECTORY", place.path("."));
    command
}

#[test]
fn the_same_root_comes_from_every_source() {
    let place = Place::with_keys();
    write_private(&place.path("raw"), [0xf7; 32]);
    for (root, redirection) in [
        ("file:root", ""),
        ("file:raw", ""),
        ("env:HEX", ""),
        ("fd:3", "3<root"),
        ("fd:0", "<raw"),
        ("fd:7", "7< <(cat root)"),
        ("command:cat root | tr -d '\\n'", ""),
        ("credential:root", ""),
        ("file:root#version=0", ""),
        ("file:root#id=00000000-0000-0000-0000-00000000root,version=0", ""),
    ] {
        let output = list(&place, root, redirection).output().unwrap();
        assert!(output.status.success(), "{root}: {output:?}");
        assert!(String::from_utf8(output.stdout).unwrap().contains(KEY_ID), "{root}");
    }
}

#[test]
fn a_root_that_cannot_be_used_has_an_error_of_its_own() {
    let place = Place::with_keys();
    write_private(&place.path("other"), "88".repeat(32));
    write_private(&place.path("short"), "f7".repeat(31));
    write_private(&place.path("password"), "correct horse battery staple");
    write_private(&place.path("empty"), "");
    fs::write(place.path("public"), "f7".repeat(32)).unwrap();
    fs::set_permissions(place.path("public"), PermissionsExt::from_mode(0o640)).unwrap();
    for (exit, root, says) in [
        (
            3,
            "file:public",
            "public: other users may read or write this file; run `chmod 600 public`",
        ),
        (3, "file:nowhere", "nowhere: No such file"),
        (3, "file:.", "."),
        (3, "file:short", "31 bytes of key; give it 32 to 64 bytes"),
        (
            3,
            "file:password",
            "text, but not hex; give it 32 to 64 bytes, raw or in hex, never a password",
        ),
        (3, "file:empty", "empty is empty"),
        (3, "file:other", "sealed under another root"),
        (3, "file:root#version=1", "00000000-0000-0000-0000-00000000root"),
        (3, "env:NOT_SET", "not set"),
        (3, "fd:9", "fd:9: this file descriptor is not open"),
        (3, "command:exit 3", "the command failed with exit status: 3"),
        (3, "command:true", "the command is empty"),
        (3, "credential:nowhere", "nowhere: No such file"),
        (2, "credential:../root", "no slash"),
        (
            2,
            "f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7",
            "other users have seen it",
        ),
        (2, "file:", "nothing after the colon"),
        (2, "file:root#version=x", "not a number"),
    ] {
        let message = fails(&mut list(&place, root, ""), exit);
        assert!(message.contains(says), "{root}: {message}");
        assert!(!message.contains("f7f7"), "{root}: {message}");
    }
    let mut without = list(&place, "env:HEX", "");
    without.env_remove("DEKSEAL_ROOT");
    assert!(fails(&mut without, 2).contains("no root is named: pass --root"));
}

#[test]
fn a_new_root_is_in_a_new_private_file() {
    let place = Place::new();
    let made = place.does(&["root", "new", "file:new"]);
    assert_eq!(made, "made new: root 00000000-0000-0000-0000-00000000root version 0\n");
    let text = fs::read_to_string(place.path("new")).unwrap();
    assert_eq!(hex::decode(text.trim()).unwrap().len(), 64);
    assert_eq!(
        fs::metadata(place.path("new")).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(
        place
            .refuses(4, &["root", "new", "file:new"])
            .contains("it exists already")
    );

    // On a pipe.
    let first = place.does(&["root", "new", "fd:1"]);
    let second = place.does(&["root", "new", "fd:1"]);
    assert_eq!(hex::decode(first.trim()).unwrap().len(), 64);
    assert_ne!(first, second);

    place.does(&["--root", "file:new", "keyring", "create"]);
    place.does(&["--root", "file:new", "key", "create", KEY_ID]);
    for source in ["env:A", "command:a", "credential:a"] {
        assert!(place.refuses(2, &["root", "new", source]).contains("pipe the output"));
    }
}
