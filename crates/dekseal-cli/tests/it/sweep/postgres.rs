//! What only PostgreSQL has.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use super::{
    counts,
    database::{Database, Stage, context, key_id},
    done, outcome, text,
};

/// A table with this definition and one row for each key, under version 0, after a rotation.
fn table(stage: &Stage, name: &str, key: &str, keys: &[&str]) {
    let mut database = stage.database();
    database.run(&format!("CREATE TABLE {name} ({key}, sealed bytea)"));
    for key in keys {
        let sealed = stage
            .engine
            .create_dek_without_plaintext(&key_id(), &context(1))
            .unwrap();
        let hex = base16ct::lower::encode_string(sealed.as_bytes());
        database.run(&format!(r"INSERT INTO {name} VALUES ({key}, '\x{hex}')"));
    }
}

#[test]
fn keys_of_many_types_order_the_sweep() {
    let Some(stage) = Stage::postgres(&[]) else { return };
    stage
        .database()
        .run("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN number AS int");
    let tables: [(&str, &str, &[&str]); 8] = [
        ("a", "k smallint PRIMARY KEY", &["-5", "0", "7"]),
        (
            "b",
            "k uuid PRIMARY KEY",
            &["gen_random_uuid()", "gen_random_uuid()", "gen_random_uuid()"],
        ),
        ("c", "k text PRIMARY KEY", &["'b'", "'1'", "'a''\"\\'", "''"]),
        ("d", "k bytea PRIMARY KEY", &[r"'\x00'", r"'\x'", r"'\xff00'"]),
        (
            "e",
            "k timestamptz, l char(3), PRIMARY KEY (l, k)",
            &["now(), 'b'", "now(), 'a'", "'2020-01-01', 'b'"],
        ),
        (
            "f",
            "k mood, l number, PRIMARY KEY (k, l)",
            &["'ok', 1", "'sad', 2", "'sad', 1"],
        ),
        ("g", "k numeric PRIMARY KEY", &["1.50", "-3", "1e30"]),
        (
            "h",
            "k varchar(5) COLLATE \"C\" UNIQUE NOT NULL, l date PRIMARY KEY",
            &["'z', '2020-01-01'", "'B', 'infinity'"],
        ),
    ];
    for (name, key, keys) in tables {
        table(&stage, name, key, keys);
    }
    stage.rotate();
    for (name, _, keys) in tables {
        let sweep = |options: &[&str]| done(&mut stage.sweep_table(name, options));
        let rows = keys.len() as u64;
        assert_eq!(counts(&sweep(&[])), [("rows", rows), ("rewrapped", rows)], "{name}");
        assert_eq!(
            counts(&sweep(&["--jobs", "3"])),
            [("rows", rows), ("current", rows)],
            "{name}"
        );
    }
    let words = [
        "sweep",
        "--database",
        &stage.address,
        "--table",
        "public.h",
        "--blob-column",
        "sealed",
    ];
    let words = [
        &words[..],
        &["--context", "tenant=1", "--key-column", "k", "--state", "h"],
    ]
    .concat();
    assert_eq!(
        counts(&done(&mut stage.place.command(&words))),
        [("rows", 2), ("current", 2)]
    );
}

#[test]
fn partitions_domains_and_odd_names_are_swept() {
    let Some(stage) = Stage::postgres(&[]) else { return };
    stage.database().run(
        r#"CREATE SCHEMA "odd.schema"; CREATE DOMAIN "odd blob" AS bytea;
           CREATE TABLE "odd.schema"."My ""Table" ("the id" int, "te{n}ant" text, "sea led" "odd blob",
               PRIMARY KEY ("the id")) PARTITION BY HASH ("the id");
           CREATE TABLE one PARTITION OF "odd.schema"."My ""Table" FOR VALUES WITH (MODULUS 2, REMAINDER 0);
           CREATE TABLE two PARTITION OF "odd.schema"."My ""Table" FOR VALUES WITH (MODULUS 2, REMAINDER 1);
           ALTER TABLE "odd.schema"."My ""Table" RENAME "te{n}ant" TO "te nant""#,
    );
    for id in 1..=30 {
        let sealed = stage
            .engine
            .create_dek_without_plaintext(&key_id(), &context(id))
            .unwrap();
        let hex = base16ct::lower::encode_string(sealed.as_bytes());
        stage.database().run(&format!(
            r#"INSERT INTO "odd.schema"."My ""Table" VALUES ({id}, '{id}', '\x{hex}')"#
        ));
    }
    stage.rotate();
    let words = [
        "sweep",
        "--database",
        &stage.address,
        "--table",
        r#""odd.schema"."My ""Table""#,
        "--batch",
        "4",
    ];
    let words = [
        &words[..],
        &[
            "--blob-column",
            "sea led",
            "--context",
            "tenant={te nant}",
            "--state",
            "s",
        ],
    ]
    .concat();
    assert_eq!(
        counts(&done(&mut stage.place.command(&words))),
        [("rows", 30), ("rewrapped", 30)]
    );
}

#[test]
fn a_locked_row_is_waited_for_without_holding_others() {
    let Some(stage) = Stage::postgres(&[]) else { return };
    stage.fill(50);
    stage.rotate();
    let mut other = stage.database();
    other.run("BEGIN; SELECT 1 FROM document WHERE id = 20 FOR UPDATE");
    let child = stage
        .sweep(&["--json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Row 20 keeps the sweep waiting, and row 10, of the same batch, can be written.
    let begun = Instant::now();
    let is_rewrapped = |database: &mut Database, id: i64| {
        let hex = database.text(&format!("SELECT encode(sealed, 'hex') FROM document WHERE id = {id}"));
        let sealed = base16ct::lower::decode_vec(hex).unwrap();
        dekseal::SealedDek::from_bytes(&sealed).unwrap().key_version() == 1
    };
    while !is_rewrapped(&mut other, 10) {
        assert!(begun.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(10));
    }
    stage
        .database()
        .run("SET lock_timeout = '5s'; UPDATE document SET tenant = tenant WHERE id = 10");
    other.run("COMMIT");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(stage.check(), [(1, 50)]);
}

#[test]
fn a_row_that_a_trigger_refuses_fails_alone() {
    let Some(stage) = Stage::postgres(&[]) else { return };
    stage.fill(200);
    stage.rotate();
    stage.database().run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN IF NEW.id = 77 THEN RAISE EXCEPTION 'not this row'; END IF; RETURN NEW; END $$; \
         CREATE TRIGGER refuse BEFORE UPDATE ON document FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    let (code, reports, _) = outcome(&mut stage.sweep(&[]));
    assert_eq!(
        (code, counts(&reports[0])),
        (1, vec![("rows", 200), ("rewrapped", 199), ("failed", 1)])
    );
    let failure = &reports[0]["failures"][0];
    assert_eq!(
        (&failure["key"]["id"], &failure["error"]),
        (&"77".into(), &"not this row (P0001)".into())
    );
}

/// A row whose new value does not stay is not under the new version, so it must not count as rewrapped.
#[test]
fn a_row_whose_change_a_trigger_undoes_fails() {
    let Some(stage) = Stage::postgres(&[]) else { return };
    stage.fill(50);
    stage.rotate();
    stage.database().run(
        "CREATE FUNCTION before() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN IF NEW.id = 7 THEN NEW.sealed := OLD.sealed; END IF; RETURN NEW; END $$; \
         CREATE TRIGGER before BEFORE UPDATE ON document FOR EACH ROW EXECUTE FUNCTION before(); \
         CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN IF NEW.id = TG_ARGV[0]::int AND NEW.sealed IS DISTINCT FROM OLD.sealed THEN \
             UPDATE document SET sealed = OLD.sealed WHERE id = NEW.id; END IF; RETURN NULL; END $$; \
         CREATE TRIGGER after AFTER UPDATE ON document FOR EACH ROW WHEN (pg_trigger_depth() = 0) \
             EXECUTE FUNCTION later(8); \
         CREATE CONSTRAINT TRIGGER deferred AFTER UPDATE ON document DEFERRABLE INITIALLY DEFERRED FOR EACH ROW \
             WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION later(9)",
    );
    let (code, reports, _) = outcome(&mut stage.sweep(&[]));
    assert_eq!(
        (code, counts(&reports[0])),
        (1, vec![("rows", 50), ("rewrapped", 47), ("failed", 3)])
    );
    let failures = reports[0]["failures"].as_array().unwrap();
    let mut ids: Vec<_> = failures.iter().map(|failure| &failure["key"]["id"]).collect();
    ids.sort_by_key(|id| id.as_str());
    assert_eq!(ids, ["7", "8", "9"]);
    for failure in failures {
        let error = failure["error"].as_str().unwrap();
        assert!(error.contains("or a trigger undoes the change"), "{error}");
    }
    assert_eq!(stage.check(), [(0, 3), (1, 47)]);
}

/// The password of a database is never shown and never stored.
#[test]
fn a_password_of_the_database_stays_secret() {
    const PASSWORD: &str = "marked-8a4f";
    let Some(stage) = Stage::postgres(&[]) else { return };
    stage.fill(2000);
    stage.rotate();
    let address = stage.address.replace("postgres@", &format!("postgres:{PASSWORD}@"));
    let words = |table| ["sweep", "--table", table, "--blob-column", "sealed"];
    let sweep = |table, address: &str, options: &[&str]| {
        let context = ["--context", "tenant={tenant}", "--state", "state"];
        let mut sweep = stage.place.command(&[&words(table)[..], &context, options].concat());
        sweep.env("DEKSEAL_DATABASE", address);
        sweep
    };
    let nowhere = format!("postgres://postgres:{PASSWORD}@127.0.0.1:1/nothing");
    let refused = [
        (4, sweep("document", &nowhere, &["--patience", "10ms"])),
        (2, sweep("nothing", &address, &[])),
        (2, sweep("document", &address, &["--key-column", "tenant"])),
        (2, sweep("document", &format!("postgres://u:{PASSWORD}@h:port/d"), &[])),
    ];
    for (exit, mut refused) in refused {
        let output = refused.output().unwrap();
        assert_eq!(output.status.code(), Some(exit), "{}", text(&output));
        assert!(!text(&output).contains(PASSWORD), "{}", text(&output));
    }
    // On the command line it is refused: others can read it there.
    let output = stage
        .place
        .run(&[&words("document")[..], &["--database", &address]].concat());
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("--database has a password"), "{}", text(&output));
    assert!(!text(&output).contains(PASSWORD), "{}", text(&output));
    // The state of a sweep that was stopped.
    let mut stopped = sweep("document", &address, &["--batch", "50", "--rate", "100"]);
    let mut child = stopped.spawn().unwrap();
    let begun = Instant::now();
    let state = loop {
        match fs::read_to_string(stage.place.path("state")) {
            Ok(state) => break state,
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(state.contains("document") && !state.contains(PASSWORD), "{state}");
}

#[test]
fn a_restart_of_the_server_is_waited_for() {
    let Some(mut stage) = Stage::postgres(&[]) else { return };
    stage.fill(3000);
    stage.rotate();
    let mut sweep = stage.sweep(&["--json", "--batch", "50", "--rate", "1500"]);
    let child = sweep.stdout(std::process::Stdio::piped()).spawn().unwrap();
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(400));
        stage.server().kill();
        stage.server().launch();
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(stage.check(), [(1, 3000)]);
}

#[test]
fn rows_that_a_policy_hides_are_not_forgotten() {
    let Some(mut stage) = Stage::postgres(&[]) else { return };
    stage.fill(10);
    stage.database().run(
        "CREATE ROLE sweeper LOGIN; GRANT SELECT, UPDATE ON document TO sweeper; \
         ALTER TABLE document ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON document USING (tenant = 1)",
    );
    stage.address = stage.address.replace("postgres://postgres@", "postgres://sweeper@");
    let output = stage.sweep(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output).contains("row-level security"), "{}", text(&output));
}

#[test]
fn commits_are_durable_whatever_the_server_says() {
    let Some(stage) = Stage::postgres(&["synchronous_commit=off", "log_statement=all"]) else {
        return;
    };
    stage.fill(10);
    stage.rotate();
    stage.database().run(
        "CREATE TABLE setting (value text); \
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN INSERT INTO setting VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$; \
         CREATE TRIGGER note BEFORE UPDATE ON document FOR EACH ROW EXECUTE FUNCTION note()",
    );
    done(&mut stage.sweep(&[]));
    assert_eq!(
        stage
            .database()
            .text("SELECT string_agg(DISTINCT value, ' ') FROM setting"),
        "on"
    );
    assert_eq!(stage.check(), [(1, 10)]);
}
