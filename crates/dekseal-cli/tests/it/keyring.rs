//! `dekseal keyring`, over a file, SQLite and PostgreSQL.

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::{
    server,
    support::{KEY_ID, OTHER_KEY_ID, Place, fails, succeeds, write_private},
};

/// A keyring of some kind with two keys, which can be put back to an earlier state.
struct Keyring {
    place: Place,
    address: String,
}

impl Keyring {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.place.command(words);
        command.env("DEKSEAL_KEYRING", &self.address);
        command
    }

    fn does(&self, words: &[&str]) -> String {
        String::from_utf8(succeeds(&mut self.command(words))).unwrap()
    }

    fn refuses(&self, exit: i32, words: &[&str]) -> String {
        fails(&mut self.command(words), exit)
    }

    fn current_version(&self) -> u64 {
        let key: Value = serde_json::from_str(&self.does(&["key", "show", KEY_ID, "--json"])).unwrap();
        key["current_version"].as_u64().unwrap()
    }
}

/// Runs `test` with a keyring of each kind.
fn each_keyring(test: impl Fn(&Keyring)) {
    let mut addresses = vec!["file:keys".to_owned(), "sqlite:keys.db".to_owned()];
    if let Some(server) = server::shared() {
        // Tests that run at the same time have tables of their own.
        let table = format!("t{}", std::process::id() * 10 + addresses.len() as u32);
        let host = server
            .path("")
            .display()
            .to_string()
            .trim_end_matches('/')
            .replace('/', "%2F");
        static TABLES: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = TABLES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let port = server.port;
        addresses.push(format!("postgres://postgres@{host}:{port}/postgres#{table}_{number}"));
    }
    for address in addresses {
        let keyring = Keyring {
            place: Place::new(),
            address,
        };
        keyring.does(&["keyring", "create"]);
        keyring.does(&["key", "create", KEY_ID]);
        keyring.does(&["key", "create", OTHER_KEY_ID]);
        test(&keyring);
    }
}

#[test]
fn a_keyring_is_checked() {
    each_keyring(|keyring| {
        keyring.does(&["key", "rotate", KEY_ID]);
        let checked = keyring.does(&["keyring", "check"]);
        assert!(checked.contains(": authentic, keys: 2, versions: 3"), "{checked}");
        let json: Value = serde_json::from_str(&keyring.does(&["keyring", "check", "--json"])).unwrap();
        let generation = keyring.address.starts_with("file").then_some(4);
        let expected = json!({ "faults": {}, "keys": 2, "versions": 3, "generation": generation });
        assert_eq!(json, expected);
    });
}

#[test]
fn the_root_is_changed() {
    each_keyring(|keyring| {
        write_private(&keyring.place.path("new"), "88".repeat(64));
        let new = ["--root", "file:new#version=1"];
        let both = [&new[..], &["--reading-root", "file:root"]].concat();
        let sealed = keyring.does(&["dek", "create", KEY_ID]);

        let change = [&both[..], &["keyring", "change-root"]].concat();
        assert!(keyring.refuses(2, &change).contains("pass --yes to do it"));
        assert!(
            keyring
                .refuses(2, &["keyring", "change-root", "--yes"])
                .contains("--reading-root")
        );
        let change = [&change[..], &["--yes"]].concat();
        let keys = if keyring.address.starts_with("file") { 1 } else { 2 };
        let root = "root 00000000-0000-0000-0000-00000000root version 1";
        assert_eq!(
            keyring.does(&change),
            format!("sealed under {root}: {keys} now, 0 before\n")
        );
        assert_eq!(
            keyring.does(&change),
            format!("sealed under {root}: 0 now, {keys} before\n")
        );

        keyring.does(&[&new[..], &["dek", "open", "--hex", sealed.trim()]].concat());
        let message = keyring.refuses(3, &["dek", "open", sealed.trim()]);
        assert!(
            message.contains("version 1") && message.contains("--reading-root"),
            "{message}"
        );
        // A process that has both roots goes on.
        let other = ["--root", "file:root", "--reading-root", "file:new#version=1"];
        keyring.does(&[&other[..], &["key", "rotate", KEY_ID]].concat());
    });
}

/// Puts a keyring back to an earlier state, as a restored backup does.
fn roll_back(keyring: &Keyring, change: impl FnOnce()) {
    let place = &keyring.place;
    if let Some(file) = keyring.address.strip_prefix("file:") {
        let before = fs::read(place.path(file)).unwrap();
        change();
        fs::write(place.path(file), before).unwrap();
    } else if let Some(file) = keyring.address.strip_prefix("sqlite:") {
        let sql = |text: &str| succeeds(Command::new("sqlite3").arg(place.path(file)).arg(text));
        sql("CREATE TABLE backup AS SELECT * FROM dekseal_key");
        change();
        sql("DELETE FROM dekseal_key; INSERT INTO dekseal_key SELECT * FROM backup; DROP TABLE backup");
    } else {
        let server = server::shared().unwrap();
        let (_, table) = keyring.address.split_once('#').unwrap();
        server.sql(&format!("CREATE TABLE {table}_backup AS SELECT * FROM {table}"));
        change();
        server.sql(&format!(
            "DELETE FROM {table}; INSERT INTO {table} SELECT * FROM {table}_backup"
        ));
    }
}

#[test]
fn a_rollback_is_found_and_undone() {
    each_keyring(|keyring| {
        roll_back(keyring, || {
            keyring.does(&["key", "rotate", KEY_ID]);
            let says = keyring.does(&["keyring", "snapshot", "snapshot"]);
            assert_eq!(says, "snapshot: keys: 2\n");
            assert_eq!(keyring.current_version(), 1);
        });
        assert_eq!(keyring.current_version(), 0);
        let check = ["keyring", "check", "--snapshot", "snapshot"];
        let output = keyring.command(&check).output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains(": it is older than in the snapshot\n"), "{stdout}");

        let write_back = ["keyring", "write-back", "--snapshot", "snapshot"];
        assert!(keyring.refuses(2, &write_back).contains("pass --yes to do it"));
        keyring.does(&[&write_back[..], &["--yes"]].concat());
        assert_eq!(keyring.current_version(), 1);
        keyring.does(&check);
        assert!(keyring.does(&write_back).contains("there is nothing to do"));
    });
}

#[test]
fn a_rollback_is_accepted() {
    each_keyring(|keyring| {
        roll_back(keyring, || {
            keyring.does(&["key", "rotate", KEY_ID]);
            keyring.does(&["keyring", "snapshot", "snapshot"]);
        });
        let adopt = ["keyring", "adopt", "--snapshot", "snapshot"];
        assert!(keyring.refuses(2, &adopt).contains("pass --yes to do it"));
        keyring.does(&[&adopt[..], &["--yes"]].concat());
        assert_eq!(keyring.current_version(), 0);
        keyring.does(&["keyring", "check", "--snapshot", "snapshot"]);
    });
}

#[test]
fn a_lost_keyring_is_restored_from_a_snapshot() {
    each_keyring(|keyring| {
        keyring.does(&["keyring", "snapshot", "snapshot"]);
        assert!(
            keyring
                .refuses(4, &["keyring", "snapshot", "snapshot"])
                .contains("it exists already")
        );
        keyring.does(&["keyring", "snapshot", "--force", "snapshot"]);
        let sealed = keyring.does(&["dek", "create", KEY_ID]);
        if let Some(file) = keyring.address.strip_prefix("file:") {
            fs::remove_file(keyring.place.path(file)).unwrap();
        } else if keyring.address.starts_with("sqlite:") {
            let database = keyring.place.path("keys.db");
            succeeds(Command::new("sqlite3").arg(database).arg("DELETE FROM dekseal_key"));
        } else {
            let (_, table) = keyring.address.split_once('#').unwrap();
            server::shared().unwrap().sql(&format!("DELETE FROM {table}"));
        }
        let write_back = ["keyring", "write-back", "--yes", "--snapshot", "snapshot"];
        keyring.does(&write_back);
        keyring.does(&["dek", "open", "--hex", sealed.trim()]);
        let checked = keyring.does(&["keyring", "check", "--snapshot", "snapshot"]);
        assert!(checked.contains("keys: 2, versions: 2"), "{checked}");
    });
}

#[test]
fn what_is_no_snapshot_is_refused() {
    each_keyring(|keyring| {
        fs::write(keyring.place.path("snapshot"), "nothing of the kind").unwrap();
        for words in [["keyring", "check"], ["keyring", "adopt"], ["keyring", "write-back"]] {
            let message = keyring.refuses(3, &[&words[..], &["--snapshot", "snapshot"]].concat());
            assert!(message.contains("snapshot"), "{message}");
            keyring.refuses(4, &[&words[..], &["--snapshot", "nowhere"]].concat());
        }
    });
}

#[test]
fn a_keyring_is_not_made_over_another_one() {
    let place = Place::with_keys();
    assert!(place.refuses(4, &["keyring", "create"]).contains("exists"));
}

#[test]
fn a_changed_keyring_is_refused() {
    let place = Place::with_keys();
    let changed = fs::read_to_string(place.path("keys"))
        .unwrap()
        .replacen("enabled", "disabled", 1);
    fs::write(place.path("keys"), changed).unwrap();
    assert!(place.refuses(3, &["keyring", "check"]).contains("MAC"));
}
