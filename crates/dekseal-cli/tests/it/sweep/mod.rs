//! `dekseal sweep` over real databases.

mod database;
mod kills;
mod postgres;
mod refused;
mod sqlite;

use std::{
    fs,
    process::{Command, Output},
    thread,
    time::Duration,
};

use base64ct::{Base64Url, Encoding};
use serde_json::Value;

use self::database::{KEY, Stage};

/// Runs a command. Returns its exit code, the lines of JSON on standard output, and standard error.
#[track_caller]
fn outcome(command: &mut Command) -> (i32, Vec<Value>, String) {
    let output = command.arg("--json").output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let error = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), lines, error)
}

/// Runs a command that must succeed, and returns its last report.
#[track_caller]
fn done(command: &mut Command) -> Value {
    let (code, mut reports, error) = outcome(command);
    assert!(code == 0 && error.is_empty(), "{code}: {error}");
    reports.pop().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The counts in a report that are not zero.
fn counts(report: &Value) -> Vec<(&str, u64)> {
    let names = ["rows", "rewrapped", "current", "null", "other_keys", "gone", "failed"];
    let counts = names.map(|name| (name, report[name].as_u64().unwrap()));
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// Each database with its own stage.
fn stages() -> Vec<Stage> {
    let mut stages = vec![Stage::sqlite()];
    stages.extend(Stage::postgres(&[]));
    stages
}

#[test]
fn every_row_is_rewrapped_and_counted() {
    for stage in stages() {
        stage.fill(2500);
        stage.rotate();
        let dry = done(&mut stage.sweep(&["--dry-run"]));
        assert_eq!(counts(&dry), [("rows", 2500), ("rewrapped", 2500)]);
        assert_eq!(
            dry["keys"][0]["versions"],
            serde_json::json!([{"version": 0, "rows": 2500}])
        );
        assert_eq!(stage.check(), [(0, 2500)]);
        assert!(!stage.place.path("state").exists());

        let swept = done(&mut stage.sweep(&["--batch", "400"]));
        assert_eq!(counts(&swept), [("rows", 2500), ("rewrapped", 2500)]);
        assert_eq!(
            swept["keys"][0]["versions"],
            serde_json::json!([{"version": 1, "rows": 2500}])
        );
        assert_eq!(swept["keys"][0]["old_versions"]["may_be_destroyed"], "after_pass_from");
        assert_eq!(stage.check(), [(1, 2500)]);
        assert!(!stage.place.path("state").exists() && !stage.place.path("state.lock").exists());

        let again = done(&mut stage.sweep(&["--grace", "0s"]));
        assert_eq!(counts(&again), [("rows", 2500), ("current", 2500)]);
        assert_eq!(again["keys"][0]["old_versions"]["may_be_destroyed"], "now");
    }
}

#[test]
fn repeat_passes_until_nothing_is_left() {
    for stage in stages() {
        stage.fill(300);
        stage.rotate();
        let (code, reports, _) = outcome(&mut stage.sweep(&["--repeat", "--batch", "7"]));
        assert_eq!(code, 0);
        let passes: Vec<_> = reports
            .iter()
            .map(|report| (report["pass"].clone(), counts(report)))
            .collect();
        assert_eq!(
            passes,
            [
                (1.into(), vec![("rows", 300), ("rewrapped", 300)]),
                (2.into(), vec![("rows", 300), ("current", 300)]),
            ]
        );
    }
}

#[test]
fn a_row_that_fails_is_named_and_keeps_its_value() {
    for stage in stages() {
        stage.fill(100);
        stage.rotate();
        let mut database = stage.database();
        let hex = match stage.address.starts_with("sqlite") {
            true => "x'00ff'",
            false => r"'\x00ff'",
        };
        database.run(&format!("UPDATE document SET sealed = {hex} WHERE id = 17"));
        database.run("UPDATE document SET tenant = 99 WHERE id = 18");
        database.run("UPDATE document SET sealed = NULL WHERE id = 19");
        let before = database.text("SELECT sealed FROM document WHERE id = 18");
        for options in [&["--dry-run"][..], &[]] {
            let (code, reports, error) = outcome(&mut stage.sweep(options));
            assert_eq!(code, 1, "{error}");
            assert_eq!(
                counts(&reports[0]),
                [("rows", 100), ("rewrapped", 97), ("null", 1), ("failed", 2)]
            );
            let failures = reports[0]["failures"].as_array().unwrap();
            let errors = failures.iter().map(|failure| failure["error"].as_str().unwrap());
            let errors: Vec<_> = errors
                .map(|error| error.split(['(', ':']).next().unwrap().trim())
                .collect();
            assert_eq!(errors, ["not a sealed DEK", "authentication failed"]);
            assert!(
                failures[0]["key"]["id"] == "17" || failures[0]["key"]["id"] == 17,
                "{}",
                failures[0]
            );
            assert!(reports[0]["keys"][0]["old_versions"]["may_be_destroyed"] == "no");
        }
        assert_eq!(database.text("SELECT sealed FROM document WHERE id = 18"), before);
        // For people.
        let shown = text(&stage.sweep(&[]).output().unwrap());
        assert!(
            shown.contains("\n  id=17: not a sealed DEK: the length is not 188 bytes\n"),
            "{shown}"
        );
        assert!(
            shown.contains(&format!("\n{KEY}           1            97\n")),
            "{shown}"
        );
    }
}

#[test]
fn payloads_and_texts_keep_what_is_not_the_header() {
    for stage in stages() {
        let (key_id, context) = (database::key_id(), database::context(1));
        let plaintext = vec![5; 5000];
        let payload = stage.engine.encrypt(&key_id, &context, &plaintext).unwrap();
        let sealed = stage.engine.create_dek_without_plaintext(&key_id, &context).unwrap();
        let hex = base16ct::lower::encode_string(&payload);
        let base64 = Base64Url::encode_string(sealed.as_bytes());
        let (bytes, literal, show) = match stage.address.starts_with("sqlite") {
            true => ("blob", format!("x'{hex}'"), "lower(hex(sealed))"),
            false => ("bytea", format!(r"'\x{hex}'"), "encode(sealed, 'hex')"),
        };
        let mut database = stage.database();
        database.run(&format!(
            "CREATE TABLE document (tenant int PRIMARY KEY, sealed {bytes}, digits varchar(20000), base64 text); \
             INSERT INTO document VALUES (1, {literal}, '0x{}', '{base64}')",
            hex.to_uppercase()
        ));
        stage.rotate();
        for (column, option) in [
            ("sealed", Some("--payload")),
            ("digits", Some("--payload")),
            ("base64", None),
        ] {
            let report = done(stage.sweep_column(column, &[]).args(option));
            assert_eq!(counts(&report), [("rows", 1), ("rewrapped", 1)], "{column}");
        }
        let digits = database.text("SELECT digits FROM document");
        let digits = digits.strip_prefix("0x").unwrap();
        assert_eq!(digits, digits.to_uppercase());
        for hex in [
            database.text(&format!("SELECT {show} FROM document")),
            digits.to_lowercase(),
        ] {
            let payload = base16ct::lower::decode_vec(hex).unwrap();
            let header = dekseal::payload::PayloadHeader::from_bytes(payload.first_chunk().unwrap()).unwrap();
            assert_eq!(header.sealed_dek().key_version(), 1);
            assert_eq!(*stage.engine.decrypt(&key_id, &context, &payload).unwrap(), plaintext);
        }
        let base64 = Base64Url::decode_vec(&database.text("SELECT base64 FROM document")).unwrap();
        let renewed = dekseal::SealedDek::from_bytes(&base64).unwrap();
        assert_eq!(renewed.key_version(), 1);
        let opened = |sealed| stage.engine.decrypt_dek(&key_id, &context, sealed).unwrap();
        assert_eq!(opened(&renewed), opened(&sealed));
    }
}

#[test]
fn what_was_begun_is_continued_only_as_it_was_begun() {
    for stage in stages() {
        stage.fill(3000);
        stage.rotate();
        // Stopped in the middle.
        let mut child = stage.sweep(&["--batch", "100", "--rate", "600"]).spawn().unwrap();
        let state = || -> Option<Value> { serde_json::from_slice(&fs::read(stage.place.path("state")).ok()?).ok() };
        while state().is_none_or(|state| state["tally"]["rewrapped"] == 0) {
            assert_eq!(child.try_wait().unwrap(), None);
            thread::sleep(Duration::from_millis(10));
        }
        signal(&child, "TERM");
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(4));
        let done_before = stage.check();
        assert!(matches!(done_before.as_slice(), [(0, _), (1, _)]), "{done_before:?}");
        let state = state().unwrap();
        assert_eq!(state["tally"]["rewrapped"].as_u64(), Some(done_before[1].1));

        let other = stage.sweep_column("digest", &[]).output().unwrap();
        assert_eq!(other.status.code(), Some(2));
        assert!(text(&other).contains("the state of another sweep"), "{}", text(&other));

        let report = done(&mut stage.sweep(&[]));
        assert_eq!(counts(&report), [("rows", 3000), ("rewrapped", 3000)]);
        assert_eq!(report["began"].as_str().unwrap().len(), 20);
        assert_eq!(stage.check(), [(1, 3000)]);
    }
}

/// Sends a signal to a child.
fn signal(child: &std::process::Child, signal: &str) {
    let sent = Command::new("kill")
        .args([format!("-{signal}"), child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}
