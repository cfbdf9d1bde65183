//! No secret appears where it should not: secrets that can be recognized are fed in, and all output is searched.

use std::{
    fs,
    io::Write,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

use base64ct::{Base64, Encoding};

use crate::support::{KEY_ID, OTHER_KEY_ID, Place, write_private};

/// The secrets: each is one byte many times, so that a part of it is recognized as well.
const SECRETS: [u8; 4] = [0xf7, 0xa1, 0xb2, 0xc3];

/// Asserts that a text has no 12 bytes of a secret in a row, raw, in hex or in base64.
fn has_no_secret(what: &str, text: &[u8]) {
    for byte in SECRETS {
        let raw = [byte; 12];
        let hex = hex::encode(raw);
        let base64 = Base64::encode_string(&raw);
        for part in [
            &raw[..],
            hex.as_bytes(),
            hex.to_uppercase().as_bytes(),
            base64.as_bytes(),
        ] {
            assert!(
                !text.windows(part.len()).any(|window| window == part),
                "{what} shows {byte:#x}"
            );
        }
    }
}

fn place() -> Place {
    let place = Place::with_keys();
    write_private(&place.path("material"), hex::encode([0xa1; 48]));
    write_private(&place.path("dek"), [0xb2; 64]);
    write_private(&place.path("new"), hex::encode([0xc3; 64]));
    place
}

#[test]
fn no_output_has_a_secret() {
    let place = place();
    let sealed = place.does(&["dek", "encrypt", "--plaintext", "file:dek", KEY_ID]);
    let sealed = sealed.trim();
    fs::write(place.path("plain"), [0xb2; 4096]).unwrap();
    let imported = "33333333-3333-3333-3333-333333333333";
    let wrong_root = ["--root", "file:new", "key", "list"];
    let runs: &[&[&str]] = &[
        &["key", "import", "--material", "file:material", imported],
        &["key", "import", "--material", "file:material", imported],
        &["key", "import", "--material", "file:dek", "--as-version", imported],
        &["key", "import", "--material", "file:plain", "--as-version", imported],
        &["key", "list"],
        &["key", "show", imported],
        &["key", "rotate", KEY_ID],
        &["keyring", "check"],
        &["keyring", "snapshot", "--force", "snapshot"],
        &["dek", "encrypt", "--plaintext", "file:dek", KEY_ID],
        &["dek", "encrypt", "--plaintext", "file:material", KEY_ID],
        &["dek", "create", "--plaintext", "file:made", KEY_ID],
        &["dek", "open", "--plaintext", "file:opened", sealed],
        &["dek", "open", "-c", "a=b", sealed],
        &["dek", "rewrap", sealed],
        &["dek", "rewrap", "--to", OTHER_KEY_ID, sealed],
        &["inspect", "--each", "dek", "material"],
        &["encrypt", "--key", KEY_ID, "-o", "sealed", "-f", "plain"],
        &["rewrap", "sealed"],
        &["decrypt", "-c", "a=b", "sealed"],
        &["decrypt", "plain"],
        &wrong_root,
        &[
            "--root",
            "file:new#version=1",
            "--reading-root",
            "file:root",
            "keyring",
            "change-root",
            "--yes",
        ],
        &["root", "new", "file:root"],
        &[
            "--root",
            "f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7",
            "key",
            "list",
        ],
    ];
    for (at, words) in runs.iter().enumerate() {
        for json in [&[][..], &["--json"]] {
            let mut command = place.command(&[words, json].concat());
            // A log at every level would have to stay clean as well.
            command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full");
            let output = command.output().unwrap();
            let ended = output.status.code();
            assert!(matches!(ended, Some(0..=4)), "{words:?}: {output:?}");
            has_no_secret(&format!("{at} {words:?}: standard output"), &output.stdout);
            has_no_secret(&format!("{at} {words:?}: standard error"), &output.stderr);
        }
    }
    // The search finds what is there.
    let opened = fs::read(place.path("opened")).unwrap();
    assert!(std::panic::catch_unwind(|| has_no_secret("opened", &opened)).is_err());
    for sealed in ["keys", "snapshot", "sealed"] {
        has_no_secret(sealed, &fs::read(place.path(sealed)).unwrap());
    }
}

/// A process that works shows no secret in its arguments and its environment, and leaves no core dump.
#[cfg(target_os = "linux")]
#[test]
fn a_process_shows_no_secret_to_others() {
    let place = place();
    let plain = place.command(&[]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited 2>/dev/null; exec \"$0\" \"$@\""]);
    command
        .arg(plain.get_program())
        .args(["encrypt", "--key", KEY_ID])
        .current_dir(place.path("."));
    command.env("DEKSEAL_KEYRING", "file:keys").env("DEKSEAL_ROOT", "fd:3");
    let mut shell = Command::new("bash");
    shell
        .args(["-c", "exec \"$@\" 3< <(cat root)", "bash"])
        .arg(command.get_program())
        .args(command.get_args());
    shell.current_dir(place.path("."));
    for (name, value) in command.get_envs() {
        shell.env(name, value.unwrap());
    }
    let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // The header comes once the keyring was opened.
    let input = std::thread::spawn(move || stdin.write_all(&vec![0; 1 << 20]));
    let mut header = [0; 264];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut header).unwrap();

    let of_process = |name: &str| fs::read(format!("/proc/{}/{name}", child.id())).unwrap();
    assert!(String::from_utf8_lossy(&of_process("cmdline")).contains("encrypt"));
    has_no_secret("arguments", &of_process("cmdline"));
    has_no_secret("environment", &of_process("environ"));
    let limits = String::from_utf8(of_process("limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(
        core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(),
        ["0", "0"],
        "{core}"
    );

    let killed = Command::new("kill")
        .args(["-ABRT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let status = child.wait().unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
    // The process did not take all of it.
    assert!(input.join().unwrap().is_err());
}

/// The shell of a reader keeps the commands of the README in its history.
#[test]
fn no_command_of_the_readme_has_a_secret() {
    let readme = include_str!("../../README.md");
    let commands = readme
        .lines()
        .filter(|line| line.starts_with("$ ") || line.starts_with("> "));
    for command in commands {
        let words = command.split(|c: char| !c.is_ascii_alphanumeric());
        assert!(
            words
                .clone()
                .all(|word| word.len() < 32 || word.starts_with("02009800")),
            "{command}"
        );
        assert!(!command.contains("--show-secret"), "{command}");
    }
}
