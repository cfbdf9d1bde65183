//! What only SQLite has.

use super::{
    counts,
    database::{Stage, context, key_id},
    done, outcome, text,
};

/// One row for each key, under version 0.
fn table(stage: &Stage, definition: &str, keys: &[&str]) {
    let mut database = stage.database();
    database.run(&format!("CREATE TABLE {definition}"));
    for key in keys {
        let sealed = stage
            .engine
            .create_dek_without_plaintext(&key_id(), &context(1))
            .unwrap();
        let hex = base16ct::lower::encode_string(sealed.as_bytes());
        let name = definition.split(' ').next().unwrap();
        database.run(&format!("INSERT INTO {name} VALUES ({key}, x'{hex}')"));
    }
}

#[test]
fn keys_of_many_types_order_the_sweep() {
    let stage = Stage::sqlite();
    let tables: [(&str, &str, &[&str]); 6] = [
        (
            "a",
            "a (k INTEGER PRIMARY KEY, sealed)",
            &["-9223372036854775808", "0", "9223372036854775807"],
        ),
        (
            "b",
            "b (k TEXT PRIMARY KEY COLLATE NOCASE, sealed BLOB) WITHOUT ROWID",
            &["'b'", "'A'", "''", "'Ä''\"'"],
        ),
        (
            "c",
            "c (k, l BLOB, sealed, PRIMARY KEY (l, k)) WITHOUT ROWID",
            &["1, x'00ff'", "'1', x''", "x'31', 'x'", "2, 3"],
        ),
        ("d", "d (k PRIMARY KEY, sealed)", &["1", "'1'", "x'31'"]),
        ("e", "e (k TEXT COLLATE NOCASE, sealed)", &["'a'", "'A'"]),
        ("f", "f (k, l, sealed)", &["NULL, 1", "NULL, 2"]),
    ];
    for (_, definition, keys) in tables {
        table(&stage, definition, keys);
    }
    // An index that tells more apart than the column does.
    stage.database().run("CREATE UNIQUE INDEX e_k ON e (k COLLATE BINARY)");
    stage.rotate();
    for (name, _, keys) in tables {
        let key = match name {
            "e" => &["--key-column", "k"][..],
            "f" => &["--key-column", "rowid"],
            _ => &[],
        };
        let sweep = || done(&mut stage.sweep_table(name, key));
        let rows = keys.len() as u64;
        assert_eq!(counts(&sweep()), [("rows", rows), ("rewrapped", rows)], "{name}");
        assert_eq!(counts(&sweep()), [("rows", rows), ("current", rows)], "{name}");
    }
}

#[test]
fn a_writer_that_keeps_the_lock_is_waited_for() {
    let stage = Stage::sqlite();
    stage.fill(100);
    stage.rotate();
    let mut other = stage.database();
    other.run("BEGIN IMMEDIATE; UPDATE document SET tenant = tenant WHERE id = 5");
    let output = stage.sweep(&["--patience", "300ms"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(
        text(&output).contains("locked; run the command again later"),
        "{}",
        text(&output)
    );
    let child = stage
        .sweep(&["--json"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    other.run("COMMIT");
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(stage.check(), [(1, 100)]);
}

#[test]
fn a_row_that_a_trigger_refuses_fails_alone() {
    let stage = Stage::sqlite();
    stage.fill(200);
    stage.rotate();
    for action in ["ABORT", "ROLLBACK"] {
        stage.database().run(&format!(
            "DROP TRIGGER IF EXISTS refuse; CREATE TRIGGER refuse BEFORE UPDATE ON document WHEN NEW.id = 77 \
             BEGIN SELECT RAISE({action}, 'not this row'); END"
        ));
        let (code, reports, _) = outcome(&mut stage.sweep(&[]));
        assert_eq!((code, reports[0]["failed"].as_u64()), (1, Some(1)));
        let failure = &reports[0]["failures"][0];
        assert_eq!(
            (&failure["key"]["id"], &failure["error"]),
            (&77.into(), &"not this row".into())
        );
    }
    assert_eq!(stage.check(), [(0, 1), (1, 199)]);
}

#[test]
fn values_of_other_types_are_named() {
    let stage = Stage::sqlite();
    stage.database().run(
        "CREATE TABLE document (id INTEGER PRIMARY KEY, tenant, sealed); \
         INSERT INTO document VALUES (1, 1, 17), (2, 1, 1.5), (3, 1, CAST(x'ff' AS TEXT)), \
         (4, 1, 'text'), (5, 1, NULL)",
    );
    let (code, reports, _) = outcome(&mut stage.sweep(&["--encoding", "hex"]));
    assert_eq!(
        (code, counts(&reports[0])),
        (1, vec![("rows", 5), ("null", 1), ("failed", 4)])
    );
    let errors = reports[0]["failures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failure| failure["error"].clone());
    let expected =
        ["an integer", "a real number", "a text that is not UTF-8"].map(|kind| format!("the value is {kind}"));
    assert_eq!(
        errors.collect::<Vec<_>>(),
        [&expected[..], &["the text is not hex".into()]].concat()
    );
}

/// A row whose new value does not stay is not under the new version, so it must not count as rewrapped.
#[test]
fn a_row_whose_change_a_trigger_undoes_fails() {
    let stage = Stage::sqlite();
    stage.fill(50);
    stage.rotate();
    stage.database().run(
        "CREATE TRIGGER undo AFTER UPDATE ON document WHEN NEW.id = 7 AND NEW.sealed IS NOT OLD.sealed \
         BEGIN UPDATE document SET sealed = OLD.sealed WHERE id = 7; END",
    );
    let (code, reports, _) = outcome(&mut stage.sweep(&[]));
    assert_eq!(
        (code, counts(&reports[0])),
        (1, vec![("rows", 50), ("rewrapped", 49), ("failed", 1)])
    );
    assert_eq!(stage.check(), [(0, 1), (1, 49)]);
}
