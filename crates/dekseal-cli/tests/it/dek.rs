//! `dekseal dek`.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use dekseal::SealedDek;
use serde_json::Value;

use crate::support::{KEY_ID, OTHER_KEY_ID, Place, fails, write_private};

/// Runs a command with a shell, which has file descriptors and pipes. `dekseal` is the program.
fn shell(place: &Place, script: &str) -> Command {
    let program = place.command(&[]);
    let mut command = Command::new("bash");
    command.args([
        "-c",
        &format!("set -e; umask 077; dekseal() {{ \"$0\" \"$@\"; }}; {script}"),
    ]);
    command.arg(program.get_program()).current_dir(place.path("."));
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn run(place: &Place, script: &str) -> String {
    let output = shell(place, script).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{script}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_dek_is_made_opened_sealed_and_rewrapped() {
    let place = Place::with_keys();
    let sealed = place.does(&["dek", "create", "-c", "a=b", "--plaintext", "file:dek", KEY_ID]);
    let dek = fs::read(place.path("dek")).unwrap();
    assert_eq!(dek.len(), 64);
    assert_eq!(
        fs::metadata(place.path("dek")).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let parsed: SealedDek = sealed.trim().parse().unwrap();
    assert_eq!((parsed.key_id().as_str(), parsed.key_version()), (KEY_ID, 0));
    fs::write(place.path("sealed"), &sealed).unwrap();

    // Sealing is deterministic, so the same DEK gives the same blob.
    let again = place.does(&["dek", "encrypt", "-c", "a=b", "--plaintext", "file:dek", KEY_ID]);
    assert_eq!(again, sealed);
    assert_eq!(
        run(
            &place,
            "dekseal dek encrypt -c a=b $KEY < dek".replace("$KEY", KEY_ID).as_str()
        ),
        sealed
    );

    let opened = place.does_bytes(&["dek", "open", "-c", "a=b", sealed.trim()]);
    assert_eq!(opened, dek);
    let hex = hex::encode(&dek);
    assert_eq!(run(&place, "dekseal dek open -c a=b --hex < sealed").trim(), hex);
    assert_eq!(
        run(
            &place,
            "dekseal dek open -c a=b --plaintext fd:5 --hex < sealed 5>hex; cat hex"
        )
        .trim(),
        hex
    );
    run(
        &place,
        "dekseal dek open -c a=b --plaintext file:copy < sealed; cmp dek copy",
    );

    place.does(&["key", "rotate", KEY_ID]);
    let renewed = run(&place, "cat sealed sealed | dekseal dek rewrap -c a=b");
    let versions: Vec<_> = renewed
        .lines()
        .map(|line| line.parse::<SealedDek>().unwrap().key_version())
        .collect();
    assert_eq!(versions, [1, 1]);
    let moved = place.does(&[
        "dek",
        "rewrap",
        "-c",
        "a=b",
        "--to",
        OTHER_KEY_ID,
        "--json",
        sealed.trim(),
    ]);
    let moved: Value = serde_json::from_str(&moved).unwrap();
    assert_eq!(moved["key_id"], OTHER_KEY_ID);
    assert_eq!(
        place.does_bytes(&["dek", "open", "-c", "a=b", moved["sealed_dek"].as_str().unwrap()]),
        dek
    );
}

#[test]
fn every_form_of_a_sealed_dek_is_read() {
    let place = Place::with_keys();
    for format in ["hex", "base64", "binary"] {
        let script = format!(
            "dekseal dek create --format {format} --plaintext file:dek.{format} {KEY_ID} > {format};
             dekseal dek open < {format} | cmp - dek.{format}"
        );
        run(&place, &script);
    }
    assert_eq!(fs::read(place.path("binary")).unwrap().len(), 188);
}

/// A place where others would see the DEK is refused before the DEK is made.
#[test]
fn a_plaintext_dek_goes_to_no_place_that_others_see() {
    let place = Place::with_keys();
    let sealed = place.does(&["dek", "create", KEY_ID]);
    fs::write(place.path("sealed"), sealed).unwrap();
    for (script, exit, says) in [
        (
            "umask 022; dekseal dek open < sealed > public",
            4,
            "other users may read",
        ),
        (
            "umask 022; dekseal dek open --plaintext fd:3 < sealed 3> public",
            4,
            "other users may read",
        ),
        (
            "dekseal dek open --plaintext fd:9 < sealed",
            4,
            "fd:9: this file descriptor is not open",
        ),
        (
            "dekseal dek open --plaintext file:sealed < sealed",
            4,
            "it exists already",
        ),
        ("dekseal dek open --json < sealed", 2, "JSON never holds"),
        (
            "dekseal dek create --plaintext fd:1 KEY",
            2,
            "the sealed DEK goes to standard output",
        ),
        ("dekseal dek create --plaintext - KEY", 2, "write file:PATH or fd:N"),
        ("dekseal dek open --key OTHER < sealed", 1, "another key"),
        ("dekseal dek open -c a=b < sealed", 1, "authentication failed"),
        ("dekseal dek open 1234", 1, "length is not 188 bytes"),
        ("dekseal dek open zz", 1, "base64"),
        ("dekseal dek rewrap <<< 12", 1, "line 1: "),
        ("dekseal dek encrypt KEY <<< 12", 3, "1 bytes of key; give it 64 bytes"),
    ] {
        let script = script.replace("KEY", KEY_ID).replace("OTHER", OTHER_KEY_ID);
        let message = fails(&mut shell(&place, &script), exit);
        assert!(message.contains(says), "{script}: {message}");
    }
    assert_eq!(fs::read(place.path("public")).unwrap(), b"");
}

/// `script` of util-linux gives the command a terminal.
#[test]
fn a_terminal_gets_a_secret_only_if_asked() {
    let place = Place::with_keys();
    let sealed = place.does(&["dek", "create", "--plaintext", "file:dek", KEY_ID]);
    let hex = hex::encode(fs::read(place.path("dek")).unwrap());
    let on_terminal = |words: &str| {
        let plain = place.command(&[]);
        let program = plain.get_program().to_str().unwrap().to_owned();
        let mut command = Command::new("script");
        command.args(["-qec", &format!("{program} {words}"), "/dev/null"]);
        command.current_dir(place.path(".")).stdin(Stdio::null());
        command
            .env("DEKSEAL_KEYRING", "file:keys")
            .env("DEKSEAL_ROOT", "file:root");
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let sealed = sealed.trim();
    let (exit, shown) = on_terminal(&format!("dek open {sealed}"));
    assert_eq!(exit, 2);
    assert!(
        shown.contains("is a terminal") && shown.contains("--show-secret"),
        "{shown}"
    );
    let (exit, shown) = on_terminal(&format!("dek open --show-secret {sealed}"));
    assert_eq!((exit, shown.trim()), (0, hex.as_str()));
    let (exit, shown) = on_terminal(&format!("encrypt --key {KEY_ID} root"));
    assert_eq!(exit, 2);
    assert!(shown.contains("not for a terminal"), "{shown}");
    let (exit, shown) = on_terminal("root new fd:1");
    assert_eq!(exit, 2);
    assert!(shown.contains("--show-secret"), "{shown}");
}

#[test]
fn a_dek_comes_from_every_source() {
    let place = Place::with_keys();
    let sealed = place.does(&["dek", "create", "--plaintext", "file:dek", KEY_ID]);
    let hex = hex::encode(fs::read(place.path("dek")).unwrap());
    write_private(&place.path("hex"), &hex);
    for source in ["file:hex", "env:HEX", "command:cat dek", "credential:hex"] {
        let mut command = place.command(&["dek", "encrypt", "--plaintext", source, KEY_ID]);
        command.env("HEX", &hex).env("CREDENTIALS_DIRECTORY", place.path("."));
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), sealed, "{source}");
    }
    let mut child = place
        .command(&["dek", "encrypt", KEY_ID])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(hex.as_bytes()).unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, sealed.as_bytes());
}
