//! `dekseal key`, over a keyring file and over SQLite.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{KEY_ID, OTHER_KEY_ID, Place, fails, write_private};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Runs `test` with a place for each kind of keyring, and the option that names it.
fn each_keyring(test: impl Fn(&Place, &dyn Fn(&[&str]) -> String)) {
    for keyring in ["file:keys", "sqlite:keys.db", "sqlite:keys.db#other_table"] {
        let place = Place::new();
        let does = |words: &[&str]| place.does(&[&["--keyring", keyring], words].concat());
        assert_eq!(
            does(&["keyring", "create"]),
            format!("{} is ready\n", keyring.split('#').next().unwrap())
        );
        test(&place, &does);
    }
}

#[test]
fn a_key_lives_from_its_making_to_its_deletion() {
    each_keyring(|_, does| {
        assert_eq!(does(&["key", "create", KEY_ID]), format!("{KEY_ID}\n"));
        assert_eq!(
            does(&["key", "create", "--json"]).len(),
            r#"{"key_id":"","key_version":0}"#.len() + 37
        );
        let says = does(&["key", "rotate", KEY_ID]);
        assert_eq!(says, format!("{KEY_ID} seals under version 1 from now on\n"));

        assert_eq!(does(&["key", "disable", KEY_ID]), format!("{KEY_ID} is disabled\n"));
        assert_eq!(does(&["key", "enable", KEY_ID]), format!("{KEY_ID} is enabled\n"));
        let deleted = json(&does(&["key", "delete", "--yes", "--days", "7", KEY_ID, "--json"]));
        assert_eq!(deleted["state"], "pending_deletion");
        assert!(deleted["purge_from"].as_str().unwrap().ends_with('Z'));
        assert_eq!(
            does(&["key", "cancel-deletion", KEY_ID]),
            format!("{KEY_ID} is disabled\n")
        );
        does(&["key", "enable", KEY_ID]);

        assert_eq!(
            does(&["key", "set-min-version", KEY_ID, "1"]),
            format!("{KEY_ID} opens from version 1 on\n")
        );
        let shown = json(&does(&["key", "show", KEY_ID, "--json"]));
        assert_eq!(shown["versions"].as_array().unwrap().len(), 2);
        let destroyed = does(&[
            "key",
            "destroy-versions",
            "--before",
            "1",
            "--no-grace",
            "--yes",
            KEY_ID,
        ]);
        assert_eq!(destroyed, "1 version is destroyed\n");
        let shown = json(&does(&["key", "show", KEY_ID, "--json"]));
        let created = &shown["current_created"];
        assert_eq!(
            shown,
            json!({
                "key_id": KEY_ID, "state": "enabled", "current_version": 1, "current_created": created,
                "min_version": 1, "versions": [{ "key_version": 1, "created": created }],
            })
        );

        let listed = does(&["key", "list", "--json"]);
        assert_eq!(listed.lines().count(), 2);
        let mine = listed.lines().map(json).find(|key| key["key_id"] == KEY_ID).unwrap();
        assert_eq!(mine["min_version"], 1);
        let table = does(&["key", "list"]);
        let line = table.lines().find(|line| line.starts_with(KEY_ID)).unwrap();
        assert!(line.ends_with("        1  enabled") && line.len() <= 80, "{line}");
    });
}

#[test]
fn imported_material_opens_what_was_sealed_elsewhere() {
    each_keyring(|place, does| {
        write_private(&place.path("first"), "11".repeat(32));
        write_private(&place.path("second"), [0xe2; 64]);
        does(&["key", "import", "--material", "file:first", KEY_ID]);
        let says = does(&["key", "import", "--material", "file:second", "--as-version", KEY_ID]);
        assert_eq!(says, format!("{KEY_ID} seals under version 1 from now on\n"));
        let cmk = dekseal::CmkVersion::new(KEY_ID.parse().unwrap(), 1, &[0xe2; 64]).unwrap();
        let sealed = cmk.seal(&dekseal::EncryptionContext::none(), &dekseal::Dek::from_bytes(&[3; 64]));
        assert_eq!(
            does(&["dek", "open", "--hex", &sealed.to_string()]),
            "03".repeat(64) + "\n"
        );
        let other = does(&["key", "import", "--material", "file:first"]);
        assert_eq!(other.trim().len(), 36);
    });
}

#[test]
fn each_refusal_says_what_to_do() {
    let place = Place::with_keys();
    let sealed = place.does(&["dek", "create", KEY_ID]);
    let sealed = sealed.trim();
    let unknown = "11111111-1111-1111-1111-111111111111";
    for (exit, words, says) in [
        (3, &["key", "create", KEY_ID][..], "already holds a key"),
        (3, &["key", "show", unknown], "`dekseal key list` shows the keys"),
        (3, &["key", "enable", KEY_ID], "the key is not disabled"),
        (3, &["key", "cancel-deletion", KEY_ID], "no scheduled deletion"),
        (3, &["key", "purge", "--yes", KEY_ID], "no scheduled deletion"),
        (2, &["key", "delete", "--yes", "--days", "6", KEY_ID], "7 to 1096 days"),
        (2, &["key", "delete", KEY_ID], "pass --yes to do it"),
        (
            2,
            &["key", "destroy-versions", "--before", "0", KEY_ID],
            "pass --yes to do it",
        ),
        (
            3,
            &["key", "destroy-versions", "--before", "1", "--yes", KEY_ID],
            "first run `dekseal key set-min-version",
        ),
        (3, &["key", "set-min-version", KEY_ID, "1"], "minimum version"),
        (2, &["key", "show", "not a key ID"], "key ID"),
        (2, &["key", "import", KEY_ID], "--material"),
        (
            3,
            &["key", "import", "--material", "file:root", KEY_ID],
            "already holds a key",
        ),
        (
            2,
            &["key", "import", "--material", "file:root", "--as-version"],
            "KEY_ID",
        ),
        (2, &["key"], ""),
        (
            2,
            &["--keyring", "keys", "key", "list"],
            "file:PATH, sqlite:PATH and postgres://",
        ),
        (2, &["--keyring", "file:", "key", "list"], "no path"),
        (4, &["--keyring", "file:nowhere", "key", "list"], "nowhere"),
        (
            4,
            &["--keyring", "sqlite:nowhere.db", "key", "list"],
            "`dekseal keyring create` makes a keyring",
        ),
        (
            2,
            &["--keyring", "postgres://a:secret@h/d", "key", "list"],
            "set DEKSEAL_KEYRING or PGPASSWORD",
        ),
        (2, &["--keyring", "postgres://h:nan/d", "key", "list"], "not a URL"),
        (
            4,
            &["--keyring", "postgres://localhost:1/d?sslmode=disable", "key", "list"],
            "try again",
        ),
    ] {
        if words == ["key"] {
            assert_eq!(place.run(words).status.code(), Some(2));
            continue;
        }
        let message = place.refuses(exit, words);
        assert!(
            message.contains(says) && !message.contains("secret@"),
            "{words:?}: {message}"
        );
    }
    place.does(&["key", "disable", KEY_ID]);
    let message = place.refuses(3, &["dek", "open", sealed]);
    assert!(
        message.contains(&format!("`dekseal key enable {KEY_ID}` enables it")),
        "{message}"
    );
    place.does(&["key", "enable", KEY_ID]);
    place.does(&["key", "delete", "--yes", KEY_ID]);
    let message = place.refuses(3, &["dek", "open", sealed]);
    assert!(
        message.contains(&format!("`dekseal key cancel-deletion {KEY_ID}` keeps it")),
        "{message}"
    );
    assert!(place.refuses(3, &["key", "purge", "--yes", KEY_ID]).contains("not due"));
    place.does(&["key", "cancel-deletion", KEY_ID]);
    place.does(&["key", "enable", KEY_ID]);
    place.does(&["key", "rotate", KEY_ID]);
    place.does(&["key", "set-min-version", KEY_ID, "1"]);
    assert!(place.refuses(3, &["dek", "open", sealed]).contains("brings it back"));
    let young = ["key", "destroy-versions", "--before", "1", "--yes", KEY_ID];
    assert!(place.refuses(3, &young).contains("younger than the grace period"));
}

/// On a terminal, the key ID must be typed.
#[test]
fn a_dangerous_operation_wants_the_key_id() {
    let place = Place::with_keys();
    let delete = |typed: &str| {
        let plain = place.command(&[]);
        let command = format!("{} key delete {KEY_ID}", plain.get_program().to_str().unwrap());
        let mut script = Command::new("script");
        script
            .args(["-qec", &command, "/dev/null"])
            .current_dir(place.path("."));
        script
            .env("DEKSEAL_KEYRING", "file:keys")
            .env("DEKSEAL_ROOT", "file:root");
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.as_mut().unwrap(), format!("{typed}\n").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (exit, shown) = delete(OTHER_KEY_ID);
    assert_eq!(exit, 2, "{shown}");
    assert!(
        shown.contains("can be purged in 30 days") && shown.contains("nothing was changed"),
        "{shown}"
    );
    assert!(place.does(&["key", "show", KEY_ID]).contains("enabled"));
    let (exit, shown) = delete(KEY_ID);
    assert_eq!(exit, 0, "{shown}");
    assert!(place.does(&["key", "show", KEY_ID]).contains("pending deletion"));
}

#[test]
fn a_pipe_that_is_closed_is_an_error() {
    let place = Place::with_keys();
    let mut command = place.command(&["key", "list"]);
    command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
    assert!(fails(&mut command, 4).contains("standard output: No space left"));
}
