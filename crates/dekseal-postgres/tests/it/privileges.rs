//! The privileges of roles, and the creation of the table.

use std::{fs, thread};

use dekseal::store::{KeyStore, StoreErrorKind};
use dekseal_postgres::{Options, PostgresStore};

use crate::{
    conformance::{call, key_id, stored},
    server::{Server, create, options, shared},
};

#[test]
fn a_role_with_select_alone_reads_and_cannot_write() {
    let Some(server) = Server::start(&[]) else { return };
    let owner = create(server.options().schema("keys"));
    let first = stored(b"first");
    owner.put(&key_id(1), None, &first, &call()).unwrap();
    server.sql(
        "CREATE ROLE service LOGIN; GRANT USAGE ON SCHEMA keys TO service; \
         GRANT SELECT ON keys.dekseal_key TO service; \
         CREATE ROLE administrator LOGIN; GRANT USAGE ON SCHEMA keys TO administrator; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON keys.dekseal_key TO administrator",
    );
    let service = PostgresStore::new(server.options_as("service").schema("keys")).unwrap();
    assert_eq!(service.get(&key_id(1), &call()).unwrap(), Some(first.clone()));
    assert_eq!(service.list(None, 10, &call()).unwrap(), [key_id(1)]);
    let changed = service.changed(&[(key_id(1), None)], &call().for_refresh()).unwrap();
    assert_eq!(changed, [(key_id(1), Some(first.clone()))]);
    assert!(service.watch(Box::new(|_| true)));
    for error in [
        service.put(&key_id(2), None, &first, &call()).unwrap_err(),
        service
            .put(&key_id(1), Some(&first.revision), &stored(b""), &call())
            .unwrap_err(),
        service.remove(&key_id(1), &first.revision, &call()).unwrap_err(),
    ] {
        assert_eq!(
            (error.kind(), error.is_outcome_unknown()),
            (StoreErrorKind::Refused, false)
        );
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            source.contains("permission denied") && source.contains("42501"),
            "{source}"
        );
    }
    let administrator = PostgresStore::new(server.options_as("administrator").schema("keys")).unwrap();
    administrator
        .put(&key_id(1), Some(&first.revision), &stored(b"second"), &call())
        .unwrap();
    administrator.put(&key_id(2), None, &first, &call()).unwrap();
    administrator.remove(&key_id(2), &first.revision, &call()).unwrap();
    // Existing objects stay as they are, also for a role that may not make them.
    owner.create_schema(&call()).unwrap();
    assert_eq!(owner.list(None, 10, &call()).unwrap(), [key_id(1)]);
}

#[test]
fn the_function_and_the_file_make_the_same_table() {
    let Some(server) = shared() else { return };
    create(server.options().schema("by_function"));
    let file = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/schema.sql")).unwrap();
    server.sql(&format!("CREATE SCHEMA by_file; SET search_path = by_file; {file}"));
    let described = |schema: &str| {
        let columns = server.sql(&format!(
            "SELECT attname, format_type(atttypid, atttypmod), attnotnull, collname FROM pg_attribute \
             LEFT JOIN pg_collation ON pg_collation.oid = attcollation \
             WHERE attrelid = '{schema}.dekseal_key'::regclass AND attnum > 0 ORDER BY attnum"
        ));
        let constraints = server.sql(&format!(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint \
             WHERE conrelid = '{schema}.dekseal_key'::regclass ORDER BY 1"
        ));
        columns + &constraints
    };
    let expected = "key_id|text|t|C\n\
                    revision|bytea|t|\n\
                    document|bytea|t|\n\
                    CHECK ((length(key_id) = 36))\n\
                    CHECK ((length(revision) = 32))\n\
                    PRIMARY KEY (key_id)\n";
    assert_eq!(described("by_function"), expected);
    assert_eq!(described("by_file"), expected);
    let store = PostgresStore::new(server.options()).unwrap();
    assert_eq!(store.schema_sql(), file.replace("dekseal_key", "\"dekseal_key\""));
}

#[test]
fn many_processes_make_the_table_at_once() {
    let Some(options) = options() else { return };
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| create(options.clone()));
        }
    });
}

#[test]
fn names_are_checked_and_used() {
    let connection = "host=/tmp user=postgres";
    for name in ["", "2keys", "a-b", "a\"b", "a'b", "Keys", "schlüssel", &"k".repeat(64)] {
        let options = || Options::new(connection).unwrap();
        for options in [options().table(name), options().schema(name)] {
            let error = PostgresStore::new(options).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Refused, "{name}");
        }
    }
    let Some(options) = options() else { return };
    // The longest possible name, and a reserved word of SQL.
    let long = "k".repeat(63);
    for table in [&long, "select"] {
        let store = create(options.clone().table(table));
        let (sender, heard) = std::sync::mpsc::channel();
        assert!(store.watch(Box::new(move |change| sender.send(change).is_ok())));
        heard.recv().unwrap();
        store.put(&key_id(1), None, &stored(b"first"), &call()).unwrap();
        assert_eq!(heard.recv().unwrap(), dekseal::store::Change::Key(key_id(1)));
    }
}

#[test]
fn what_is_wrong_with_the_options_is_refused() {
    for connection in [
        "host=/tmp sslmode=verify-ca",
        "host=/tmp port=x",
        "nonsense",
        "host=/tmp secret=1",
    ] {
        assert_eq!(
            Options::new(connection).unwrap_err().kind(),
            StoreErrorKind::Refused,
            "{connection}"
        );
    }
    let Some(server) = shared() else { return };
    let tcp = server.tcp("127.0.0.1");
    // A wrong password, no password, a role or a database that does not exist, no table.
    let wrong = [
        tcp.replace("correct", "wrong"),
        tcp.split(" password").next().unwrap().to_owned(),
        tcp.replace("user=postgres", "user=nobody"),
        tcp.replace("dbname=postgres", "dbname=nothing"),
        tcp.clone(),
    ];
    for connection in wrong {
        let options = Options::new(&format!("{connection} sslmode=disable")).unwrap();
        let store = PostgresStore::new(options.table("not_there")).unwrap();
        let error = store.get(&key_id(1), &call()).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Refused, "{error:?}");
        let error = store.put(&key_id(1), None, &stored(b""), &call()).unwrap_err();
        assert_eq!(
            (error.kind(), error.is_outcome_unknown()),
            (StoreErrorKind::Refused, false)
        );
    }
}

#[test]
fn no_text_shows_the_password() {
    let options = Options::new("host=127.0.0.1 port=1 user=u password=S3cr3t sslmode=disable").unwrap();
    let mut texts = format!("{options:?} {options:#?}");
    let store = PostgresStore::new(options).unwrap();
    texts += &format!("{store:?}");
    texts += &format!("{:?}", store.get(&key_id(1), &call()).unwrap_err());
    texts += &format!("{:?}", Options::new("host=/tmp password=S3cr3t port=x").unwrap_err());
    assert!(!texts.contains("S3cr3t"), "{texts}");
}
