//! `dekseal encrypt`, `decrypt` and `rewrap`.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{PermissionsExt, symlink},
    process::{Command, Stdio},
};

use dekseal::payload::{PayloadHeader, encrypted_len};

use crate::{
    kills::plaintext,
    support::{KEY_ID, OTHER_KEY_ID, Place, fails, succeeds},
};

const CONTEXT: [&str; 4] = ["-c", "tenant=42", "--context", r#"{"purpose":"backup=old"}"#];

/// A place with the files `plain` and `sealed`, which has no context.
fn place() -> Place {
    let place = Place::with_keys();
    fs::write(place.path("plain"), plaintext()).unwrap();
    place.does(&["encrypt", "--key", KEY_ID, "-o", "sealed", "plain"]);
    place
}

fn sealed_dek_version(place: &Place, name: &str) -> u32 {
    let payload = fs::read(place.path(name)).unwrap();
    let header = PayloadHeader::from_bytes(payload.first_chunk().unwrap()).unwrap();
    header.sealed_dek().key_version()
}

#[test]
fn a_file_comes_back() {
    let place = place();
    place.does(&[&["encrypt", "-k", KEY_ID, "plain", "-o", "bound"][..], &CONTEXT].concat());
    let payload = fs::read(place.path("bound")).unwrap();
    assert_eq!(payload.len() as u64, encrypted_len(200_000).unwrap());
    let mode = fs::metadata(place.path("bound")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    place.does(&[&["decrypt", "bound", "-o", "opened"][..], &CONTEXT].concat());
    assert_eq!(fs::read(place.path("opened")).unwrap(), plaintext());
    // The order of the pairs does not matter, nor their form.
    let other = ["-c", "purpose=backup=old", "-c", "tenant=42"];
    let opened = place.does_bytes(&[&["decrypt", "bound"][..], &other].concat());
    assert!(opened == plaintext());
}

/// With the feature `parallel`, a file of this length is converted on all cores.
#[test]
fn a_large_file_comes_back_and_a_changed_one_does_not() {
    let place = place();
    let large: Vec<u8> = plaintext().into_iter().cycle().take(2 << 20).collect();
    fs::write(place.path("large"), &large).unwrap();
    place.does(&["encrypt", "--key", KEY_ID, "large", "-o", "bound"]);
    let mut payload = fs::read(place.path("bound")).unwrap();
    assert_eq!(payload.len() as u64, encrypted_len(2 << 20).unwrap());
    place.does(&["decrypt", "bound", "-o", "opened"]);
    assert!(fs::read(place.path("opened")).unwrap() == large);
    for at in [300, payload.len() / 2, payload.len() - 1] {
        payload[at] ^= 1;
        fs::write(place.path("changed"), &payload).unwrap();
        payload[at] ^= 1;
        let message = place.refuses(1, &["decrypt", "changed", "-o", "again"]);
        assert!(message.contains("authentication failed"), "{message}");
    }
}

#[test]
fn pipes_are_converted() {
    let place = place();
    let piped = |words: &[&str], input: &str| {
        let mut command = place.command(words);
        command.stdin(fs::File::open(place.path(input)).unwrap());
        succeeds(&mut command)
    };
    let sealed = piped(&["encrypt", "--key", KEY_ID], "plain");
    fs::write(place.path("from pipe"), &sealed).unwrap();
    assert!(piped(&["decrypt"], "from pipe") == plaintext());
    assert!(piped(&["decrypt", "-", "-o", "-"], "from pipe") == plaintext());

    place.does(&["key", "rotate", KEY_ID]);
    let renewed = piped(&["rewrap", "-"], "from pipe");
    assert_eq!((&sealed[..44], &sealed[232..]), (&renewed[..44], &renewed[232..]));
    fs::write(place.path("renewed"), renewed).unwrap();
    assert_eq!(sealed_dek_version(&place, "renewed"), 1);
    assert!(place.opens("renewed"));
}

#[test]
fn what_fails_leaves_nothing_under_the_final_name() {
    let place = place();
    let sealed = fs::read(place.path("sealed")).unwrap();
    // Two complete segments are written before the third is missing.
    fs::write(place.path("cut"), &sealed[..264 + 2 * 65552]).unwrap();
    fs::create_dir(place.path("directory")).unwrap();
    symlink("nowhere", place.path("dangling")).unwrap();

    fn decrypt<'a>(words: &[&'a str]) -> Vec<&'a str> {
        [&["decrypt", "-o", "out"], words].concat()
    }
    for (exit, words, says) in [
        (1, decrypt(&["cut"]), "cut to out: authentication failed"),
        (1, decrypt(&["sealed", "-c", "a=b"]), "authentication failed"),
        (
            1,
            decrypt(&["sealed", "--key", OTHER_KEY_ID]),
            "sealed under another key",
        ),
        (1, decrypt(&["plain"]), "not a sealed payload"),
        (4, decrypt(&["no such file"]), "no such file: "),
        (4, decrypt(&["directory"]), "directory: it is a directory; "),
        (2, decrypt(&["sealed", "-c", "a"]), "write KEY=VALUE"),
        (2, decrypt(&["sealed", "-c", "=b"]), "a key is empty"),
        (2, vec!["encrypt", "plain"], "--key"),
        (
            3,
            vec!["encrypt", "--key", "11111111-1111-1111-1111-111111111111", "plain"],
            "unknown key",
        ),
        (
            4,
            vec!["decrypt", "-o", "plain", "sealed"],
            "plain: it exists already; pass --force",
        ),
        (
            4,
            vec!["decrypt", "-o", "dangling", "sealed"],
            "dangling: it exists already",
        ),
        (
            4,
            vec!["decrypt", "-o", "directory", "sealed"],
            "directory: it is a directory",
        ),
        (
            4,
            vec!["decrypt", "-f", "-o", "directory", "sealed"],
            "directory: it is a directory",
        ),
        (
            4,
            vec!["decrypt", "-f", "-o", "/dev/null", "sealed"],
            "/dev/null: it is not a regular file",
        ),
        (4, vec!["decrypt", "-o", "nowhere/out", "sealed"], "nowhere/out: "),
        (
            1,
            vec!["rewrap", "-c", "a=b", "sealed"],
            "sealed: authentication failed",
        ),
        (4, vec!["rewrap", "directory"], "directory"),
        (4, vec!["rewrap", "no such file"], "no such file"),
        (1, vec!["rewrap", "plain"], "plain: not a sealed payload"),
    ] {
        let words: Vec<&str> = words;
        let message = place.refuses(exit, &words);
        assert!(message.contains(says), "{words:?}: {message}");
    }
    assert!(!place.path("out").exists());
    // A wrong file does not keep the others from being rewrapped.
    place.does(&["key", "rotate", KEY_ID]);
    let output = place.run(&["rewrap", "plain", "sealed"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("1 of 2 files were not rewrapped")
    );
    assert_eq!(sealed_dek_version(&place, "sealed"), 1);
}

#[test]
fn force_replaces_a_file_but_not_what_a_link_leads_to() {
    let place = place();
    fs::write(place.path("target"), "old").unwrap();
    symlink("target", place.path("link")).unwrap();
    place.does(&["decrypt", "--force", "-o", "link", "sealed"]);
    assert_eq!(fs::read(place.path("link")).unwrap(), plaintext());
    assert_eq!(fs::read(place.path("target")).unwrap(), b"old");
    // In place.
    place.does(&["encrypt", "-k", KEY_ID, "--force", "-o", "plain", "plain"]);
    place.does(&["decrypt", "--force", "-o", "plain", "plain"]);
    assert_eq!(fs::read(place.path("plain")).unwrap(), plaintext());
    // A wrong context leaves the old file.
    let before = fs::read(place.path("link")).unwrap();
    place.refuses(1, &["decrypt", "-c", "a=b", "--force", "-o", "link", "sealed"]);
    assert_eq!(fs::read(place.path("link")).unwrap(), before);
}

#[test]
fn a_rewrapped_file_differs_in_its_sealed_dek_only() {
    let place = place();
    let before = fs::read(place.path("sealed")).unwrap();
    place.does(&["key", "rotate", KEY_ID]);
    assert_eq!(
        place.does(&["rewrap", "sealed"]),
        format!("sealed: under {KEY_ID} version 1\n")
    );
    let after = fs::read(place.path("sealed")).unwrap();
    assert_eq!((&before[..44], &before[232..]), (&after[..44], &after[232..]));
    assert_eq!(place.files().len(), 7 - 2, "the copy of the header is removed");

    place.does(&["rewrap", "sealed"]);
    assert_eq!(fs::read(place.path("sealed")).unwrap(), after);
    let json = place.does(&["rewrap", "--json", "sealed", "--to", OTHER_KEY_ID]);
    assert_eq!(
        json,
        format!("{{\"file\":\"sealed\",\"key_id\":\"{OTHER_KEY_ID}\",\"key_version\":0}}\n")
    );
    assert!(place.does_bytes(&["decrypt", "--key", OTHER_KEY_ID, "sealed"]) == plaintext());
}

/// A reader that goes away is an error, and so is a full disk.
#[test]
fn an_output_that_takes_no_more_is_an_error() {
    let place = place();
    for words in [&["decrypt", "sealed"][..], &["encrypt", "-k", KEY_ID, "plain"]] {
        let mut child = place
            .command(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 100]).unwrap();
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{stderr}");
        assert!(stderr.contains("the program that reads it has ended"), "{stderr}");

        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let message = fails(place.command(words).stdout(full), 4);
        assert!(
            message.contains("No space left") && message.contains("make room"),
            "{message}"
        );
    }
}

/// Another user may write neither the directory nor the file.
#[test]
fn a_directory_that_may_not_be_written_is_an_error() {
    let place = place();
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let directory = place.path("read only");
    fs::create_dir(&directory).unwrap();
    fs::copy(place.path("sealed"), directory.join("sealed")).unwrap();
    let words = ["-o", "read only/out", "sealed"];
    let commands = [[&["decrypt"], &words[..]].concat(), vec!["rewrap", "read only/sealed"]];
    if is_root {
        // Root may write everywhere, so another user runs the command.
        for path in [&place.path("keys"), &place.path("sealed"), &directory.join("sealed")] {
            fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
        }
        fs::set_permissions(place.path("."), PermissionsExt::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&directory, PermissionsExt::from_mode(0o555)).unwrap();
    place.does(&["key", "rotate", KEY_ID]);
    for words in commands {
        let plain = place.command(&words);
        let mut command = if is_root {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
            command.arg(plain.get_program()).args(plain.get_args());
            command.current_dir(place.path(".")).env("DEKSEAL_KEYRING", "file:keys");
            command
                .env("DEKSEAL_ROOT", "env:MATERIAL")
                .env("MATERIAL", "f7".repeat(32));
            command
        } else {
            plain
        };
        let message = fails(&mut command, 4);
        assert!(
            message.contains("read only/") && message.contains("check the permissions"),
            "{message}"
        );
    }
    fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
}

/// A file system with room for less than the output.
#[test]
fn a_full_disk_is_an_error_and_keeps_nothing() {
    let place = place();
    fs::create_dir(place.path("disk")).unwrap();
    let script = r#"
        mount -t tmpfs -o size=128k none disk || exit 77
        "$0" "$@"
        status=$?
        [ -z "$(ls -A disk)" ] || exit 78
        exit $status"#;
    let plain = place.command(&["decrypt", "-o", "disk/out", "sealed"]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    command
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(place.path("."));
    for (name, value) in plain.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    if output.status.code() == Some(77) || stderr.starts_with("unshare") {
        let required = std::env::var_os("REQUIRE_TOOLS").is_some_and(|value| value == "1");
        assert!(!required, "a file system cannot be mounted: {stderr}");
        return;
    }
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(
        stderr.contains("disk/out: ") && stderr.contains("No space left"),
        "{stderr}"
    );
}

/// A stream that is not complete is refused, although its beginning was written.
#[test]
fn a_pipe_that_ends_early_is_refused() {
    let place = place();
    let sealed = fs::read(place.path("sealed")).unwrap();
    let mut child = place
        .command(&["decrypt"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&sealed[..264 + 2 * 65552]));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(plaintext().starts_with(&output.stdout));
}
