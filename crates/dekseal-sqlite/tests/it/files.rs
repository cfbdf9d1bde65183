//! The files that the store makes, their names and modes, and the effects of removing them.

use std::{fs, os::unix::fs::PermissionsExt};

use dekseal::store::{KeyStore, StoreErrorKind};
use dekseal_sqlite::SqliteStore;
use rusqlite::Connection;

use crate::{
    conformance::{call, key_id, stored},
    temporary,
};

#[test]
fn each_file_is_for_its_owner_alone() {
    let store = temporary();
    store.put(&key_id(1), None, &stored(b"first"), &call()).unwrap();
    let mut names = Vec::new();
    for entry in fs::read_dir(store.path().parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        names.push(entry.file_name().into_string().unwrap());
        assert_eq!(mode & 0o777, 0o600, "{names:?}");
    }
    names.sort();
    assert_eq!(names, ["keys.db", "keys.db-shm", "keys.db-wal"]);
}

#[test]
fn the_mode_of_an_existing_file_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
    let store = SqliteStore::open(&path).unwrap();
    store.put(&key_id(1), None, &stored(b"first"), &call()).unwrap();
    for name in ["keys.db", "keys.db-wal", "keys.db-shm"] {
        let mode = fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660, "{name}");
    }
}

#[test]
fn documents_are_there_when_the_store_is_opened_again() {
    let store = temporary();
    store.put(&key_id(1), None, &stored(b"first"), &call()).unwrap();
    let again = SqliteStore::open(store.path()).unwrap();
    assert_eq!(again.get(&key_id(1), &call()).unwrap(), Some(stored(b"first")));
    // Each store sees the changes of the other.
    again
        .put(
            &key_id(1),
            Some(&stored(b"first").revision),
            &stored(b"second"),
            &call(),
        )
        .unwrap();
    assert_eq!(store.get(&key_id(1), &call()).unwrap(), Some(stored(b"second")));
}

#[test]
fn the_table_has_the_name_that_the_host_chooses() {
    let store = temporary();
    let other = SqliteStore::open_table(store.path(), "Keys_2").unwrap();
    other.put(&key_id(1), None, &stored(b"other"), &call()).unwrap();
    assert_eq!(store.get(&key_id(1), &call()).unwrap(), None);
    let database = Connection::open(store.path()).unwrap();
    let count = database.query_row(r#"SELECT count(*) FROM "Keys_2""#, [], |row| row.get::<_, u32>(0));
    assert_eq!(count.unwrap(), 1);
    let longest = "k".repeat(63);
    SqliteStore::open_table(store.path(), &longest).unwrap();
    for name in [
        "",
        "2keys",
        "a-b",
        "a\"b",
        "sqlite_keys",
        "SQLite_keys",
        "schlüssel",
        &"k".repeat(64),
    ] {
        let error = SqliteStore::open_table(store.path(), name).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Refused, "{name}");
    }
}

#[test]
fn the_table_keeps_nothing_but_key_documents() {
    let store = temporary();
    let database = Connection::open(store.path()).unwrap();
    let id = key_id(1).to_string();
    for (key_id, revision) in [(id.as_str(), 31), (id.as_str(), 33), (&id[..35], 32)] {
        let row = rusqlite::params![key_id, vec![7_u8; revision], [7_u8]];
        let insert = "INSERT INTO dekseal_key (key_id, revision, document) VALUES (?1, ?2, ?3)";
        assert!(database.execute(insert, row).is_err());
    }
    let mut short = stored(b"first");
    short.revision = dekseal::store::Revision::new(&[7; 31]).unwrap();
    let error = store.put(&key_id(1), None, &short, &call()).unwrap_err();
    assert_eq!(
        (error.kind(), error.is_outcome_unknown()),
        (StoreErrorKind::Refused, false)
    );
}

#[test]
fn a_row_that_no_store_wrote_is_refused() {
    let store = temporary();
    let database = Connection::open(store.path()).unwrap();
    let insert = "INSERT INTO dekseal_key VALUES (?1, zeroblob(32), zeroblob(1))";
    database
        .execute(insert, ["0000000A-0000-0000-0000-000000000000"])
        .unwrap();
    let error = store.list(None, 10, &call()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("0000000A-0000"), "{source}");
}

#[test]
fn what_is_not_such_a_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text");
    fs::write(
        &text,
        "a text, and longer than the header of a database is: ".repeat(100),
    )
    .unwrap();
    let error = SqliteStore::open(&text).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused, "{error:?}");

    let other = directory.path().join("other.db");
    let database = Connection::open(&other).unwrap();
    database
        .execute_batch("CREATE TABLE dekseal_key (key_id TEXT, text TEXT)")
        .unwrap();
    let error = SqliteStore::open(&other).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused, "{error:?}");

    let missing = directory.path().join("missing").join("keys.db");
    assert_eq!(
        SqliteStore::open(missing).unwrap_err().kind(),
        StoreErrorKind::Unavailable
    );
    assert_eq!(
        SqliteStore::open(directory.path()).unwrap_err().kind(),
        StoreErrorKind::Unavailable
    );
}

#[test]
fn a_special_name_of_sqlite_is_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join(":memory:")).unwrap();
    store.put(&key_id(1), None, &stored(b"first"), &call()).unwrap();
    assert!(directory.path().join(":memory:").exists());
}

/// SQLite itself keeps using the removed file.
#[test]
fn a_removed_file_takes_no_write_and_is_not_made_again() {
    let store = temporary();
    store.put(&key_id(1), None, &stored(b"first"), &call()).unwrap();
    fs::remove_file(store.path()).unwrap();
    let error = store.put(&key_id(2), None, &stored(b"second"), &call()).unwrap_err();
    assert_eq!(
        (error.kind(), error.is_outcome_unknown()),
        (StoreErrorKind::Unavailable, false)
    );
    let error = store.get(&key_id(1), &call()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(!store.path().exists());
}

#[test]
fn a_database_put_in_its_place_is_the_one_that_is_read_and_written() {
    let (store, backup) = (temporary(), temporary());
    store.put(&key_id(1), None, &stored(b"present"), &call()).unwrap();
    backup.put(&key_id(1), None, &stored(b"older"), &call()).unwrap();
    let (path, from) = (store.path(), backup.path());
    drop(backup.store);
    for name in ["keys.db-wal", "keys.db-shm"] {
        let _ = fs::remove_file(path.with_file_name(name));
    }
    fs::rename(from, &path).unwrap();
    for call in [call(), call().for_refresh()] {
        assert_eq!(store.get(&key_id(1), &call).unwrap(), Some(stored(b"older")));
    }
    store.put(&key_id(2), None, &stored(b"second"), &call()).unwrap();
    let again = SqliteStore::open(&path).unwrap();
    assert_eq!(again.get(&key_id(2), &call()).unwrap(), Some(stored(b"second")));
}
