//! What a sweep refuses before it reads a row.

use super::{database::Stage, stages, text};

#[track_caller]
fn refused(stage: &Stage, words: &[&str], expected: &str) {
    let words = [&["sweep", "--database", &stage.address, "--state", "state"], words].concat();
    let output = stage.place.run(&words);
    assert_eq!(output.status.code(), Some(2), "{words:?}: {}", text(&output));
    assert!(text(&output).contains(expected), "{words:?}: {}", text(&output));
    assert!(!stage.place.path("state").exists());
}

#[test]
fn tables_and_columns_that_cannot_be_swept_are_named() {
    for stage in stages() {
        stage.fill(1);
        stage
            .database()
            .run("CREATE VIEW shown AS SELECT * FROM document; CREATE TABLE keyless (id int, sealed text)");
        let sweep = |words: &[&str], expected: &str| refused(&stage, words, expected);
        sweep(&["--table", "nothing", "--blob-column", "sealed"], "no table");
        sweep(&["--table", "Document", "--blob-column", "sealed"], "no table");
        sweep(&["--table", "shown", "--blob-column", "sealed"], "is not a table");
        sweep(&["--table", "document", "--blob-column", "Sealed"], "no column Sealed");
        sweep(
            &["--table", "document", "--blob-column", "sealed", "-c", "a={b}"],
            "no column b",
        );
        sweep(
            &["--table", "document", "--blob-column", "sealed", "--key-column", "x"],
            "no column x",
        );
        sweep(
            &[
                "--table",
                "document",
                "--blob-column",
                "sealed",
                "--key-column",
                "tenant",
            ],
            "no unique index",
        );
        sweep(&["--table", "keyless", "--blob-column", "sealed"], "has no primary key");
        let expected = if stage.address.starts_with("sqlite") {
            "the column id cannot be both the key and the blob column"
        } else {
            "neither bytes nor text"
        };
        sweep(&["--table", "document", "--blob-column", "id"], expected);
        sweep(
            &["--table", "document", "--blob-column", "sealed", "-c", "a={tenant"],
            "a brace is not closed",
        );
        sweep(
            &["--table", "a.b.c", "--blob-column", "sealed"],
            "--table a.b.c: write TABLE or SCHEMA.TABLE",
        );
    }
}

#[test]
fn types_that_are_not_supported_are_named() {
    let Some(stage) = Stage::postgres(&[]) else { return };
    stage.database().run(
        "CREATE TABLE document \
             (id float8 PRIMARY KEY, other int UNIQUE NOT NULL, sealed bytea, at timestamptz, doc json)",
    );
    let sweep = |words: &[&str], expected: &str| {
        refused(&stage, &[&["--table", "document"], words].concat(), expected);
    };
    sweep(
        &["--blob-column", "sealed"],
        "the column id of type float8 is not supported as a key",
    );
    let key = ["--key-column", "other", "--blob-column"];
    sweep(
        &[&key[..], &["doc"]].concat(),
        "the column doc of type json holds neither bytes nor text",
    );
    sweep(
        &[&key[..], &["sealed", "-c", "a={at}"]].concat(),
        "the column at of type timestamptz cannot be part",
    );
    stage.database().run("CREATE TABLE child () INHERITS (document)");
    sweep(&[&key[..], &["sealed"]].concat(), "other tables inherit");
}

#[test]
fn a_database_that_is_not_there_is_not_made() {
    let stage = Stage::sqlite();
    let missing = stage.place.path("missing.db");
    let address = format!("sqlite:{}", missing.display());
    let output = stage
        .place
        .run(&["sweep", "--database", &address, "--table", "t", "--blob-column", "b"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    assert!(!missing.exists());
    for address in ["file:keys", "mysql://x", "sqlite:app.db#table"] {
        let output = stage
            .place
            .run(&["sweep", "--database", address, "--table", "t", "--blob-column", "b"]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    }
}
