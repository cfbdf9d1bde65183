//! The effects of the statements, and the meaning of the server's errors.

use std::sync::mpsc;

use dekseal::store::{Change, KeyStore, Revision, StoreErrorKind};
use dekseal_postgres::PostgresStore;

use crate::{
    conformance::{call, key_id, stored},
    server::{Server, create, options, shared},
};

/// Makes each write to the store's table run this code first.
fn trigger(server: &Server, schema: &str, body: &str) {
    server.sql(&format!(
        "CREATE FUNCTION {schema}.trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$; \
         CREATE TRIGGER trouble BEFORE INSERT OR UPDATE ON {schema}.dekseal_key \
         FOR EACH ROW EXECUTE FUNCTION {schema}.trouble()"
    ));
}

#[test]
fn an_error_of_the_server_says_whether_the_outcome_is_known() {
    use StoreErrorKind::{Conflict, Deadline, Refused, Unavailable};
    let Some(server) = shared() else { return };
    let cases = [
        ("40001", Conflict, false),
        ("40P01", Conflict, false),
        ("40003", Unavailable, true),
        ("08006", Unavailable, true),
        ("57014", Deadline, true),
        ("57P01", Unavailable, true),
        ("58030", Unavailable, true),
        ("XX000", Unavailable, true),
        ("53100", Unavailable, false),
        ("55P03", Unavailable, false),
        ("25006", Unavailable, false),
        ("23514", Refused, false),
        ("42501", Refused, false),
    ];
    for (state, kind, unknown) in cases {
        let schema = format!("state_{}", state.to_lowercase());
        let store = create(server.options().schema(&schema));
        trigger(
            server,
            &schema,
            &format!("RAISE EXCEPTION 'trouble' USING ERRCODE = '{state}';"),
        );
        let error = store.put(&key_id(1), None, &stored(b""), &call()).unwrap_err();
        assert_eq!((error.kind(), error.is_outcome_unknown()), (kind, unknown), "{error:?}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(state), "{source}");
        // The store still works.
        assert_eq!(store.get(&key_id(1), &call()).unwrap(), None);
    }
}

#[test]
fn a_commit_is_durable_whatever_the_server_is_set_to() {
    let Some(server) = Server::start(&["synchronous_commit=off"]) else {
        return;
    };
    let store = create(server.options().schema("keys"));
    server.sql("CREATE TABLE seen (setting text)");
    trigger(
        &server,
        "keys",
        "INSERT INTO public.seen \
         VALUES (current_setting('synchronous_commit') || ' ' || current_setting('statement_timeout'));",
    );
    store.put(&key_id(1), None, &stored(b"first"), &call()).unwrap();
    assert_eq!(server.sql("SELECT setting FROM seen"), "on 5s\n");
    // A durable setting is not changed.
    server.sql("ALTER ROLE postgres SET synchronous_commit = remote_apply; DELETE FROM seen");
    let store = PostgresStore::new(server.options().schema("keys")).unwrap();
    store.put(&key_id(2), None, &stored(b"first"), &call()).unwrap();
    // A change of the setting does not affect existing connections.
    server.sql("ALTER ROLE postgres SET synchronous_commit = off");
    server.sql("ALTER SYSTEM SET synchronous_commit = off");
    server.sql("SELECT pg_reload_conf()");
    store.put(&key_id(3), None, &stored(b"first"), &call()).unwrap();
    assert_eq!(
        server.sql("SELECT setting FROM seen"),
        "remote_apply 5s\nremote_apply 5s\n"
    );
}

#[test]
fn a_server_without_notifications_serves() {
    let Some(server) = Server::start(&[]) else { return };
    server.sql("ALTER FUNCTION pg_catalog.pg_notify(text, text) RENAME TO pg_notify_gone");
    let store = create(server.options());
    let (first, second) = (stored(b"first"), stored(b"second"));
    store.put(&key_id(1), None, &first, &call()).unwrap();
    store.put(&key_id(1), Some(&first.revision), &second, &call()).unwrap();
    assert_eq!(store.get(&key_id(1), &call()).unwrap(), Some(second.clone()));
    store.remove(&key_id(1), &second.revision, &call()).unwrap();
    assert_eq!(store.get(&key_id(1), &call()).unwrap(), None);
}

#[test]
fn a_notification_that_names_no_key_stands_for_any_change() {
    let Some(server) = shared() else { return };
    let store = create(options().unwrap().table("channel"));
    let (sender, heard) = mpsc::channel();
    assert!(store.watch(Box::new(move |change| sender.send(change).is_ok())));
    assert_eq!(heard.recv().unwrap(), Change::Unknown);
    server.sql("NOTIFY channel, 'no key ID'");
    assert_eq!(heard.recv().unwrap(), Change::Unknown);
    server.sql("NOTIFY channel, '00000000-0000-0000-0000-000000000007'");
    assert_eq!(heard.recv().unwrap(), Change::Key(key_id(7)));
}

#[test]
fn a_watcher_that_panics_is_not_called_again_and_harms_no_other() {
    let Some(options) = options() else { return };
    let store = create(options.table("panics"));
    let (panics, panicked) = mpsc::channel();
    assert!(store.watch(Box::new(move |_| {
        panics.send(()).unwrap();
        panic!("a watcher's own fault");
    })));
    let (sender, heard) = mpsc::channel();
    assert!(store.watch(Box::new(move |change| sender.send(change).is_ok())));
    panicked.recv().unwrap();
    for number in 1..5 {
        store.put(&key_id(number), None, &stored(b"first"), &call()).unwrap();
        while heard.recv().unwrap() != Change::Key(key_id(number)) {}
    }
    assert!(panicked.recv().is_err(), "it was called again");
}

#[test]
fn a_row_that_no_store_wrote_is_refused() {
    let Some(server) = shared() else { return };
    let store = create(server.options().schema("odd_row"));
    server.sql("INSERT INTO odd_row.dekseal_key VALUES ('0000000A-0000-0000-0000-000000000000', sha256(''), '')");
    let error = store.list(None, 10, &call()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);
    server.sql(
        "CREATE SCHEMA other_table; \
         CREATE TABLE other_table.dekseal_key (key_id text, revision int, document int); \
         INSERT INTO other_table.dekseal_key VALUES ('00000000-0000-0000-0000-000000000001', 1, 2)",
    );
    let store = PostgresStore::new(server.options().schema("other_table")).unwrap();
    assert_eq!(
        store.get(&key_id(1), &call()).unwrap_err().kind(),
        StoreErrorKind::Refused
    );
}

#[test]
fn a_revision_of_another_length_is_refused() {
    let Some(options) = options() else { return };
    let store = create(options);
    let mut short = stored(b"first");
    short.revision = Revision::new(&[7; 31]).unwrap();
    let error = store.put(&key_id(1), None, &short, &call()).unwrap_err();
    assert_eq!(
        (error.kind(), error.is_outcome_unknown()),
        (StoreErrorKind::Refused, false)
    );
}

/// A session keeps its reads prepared. The server refuses a prepared statement when a column has got another type.
#[test]
fn a_read_survives_a_change_of_the_table() {
    let Some(server) = shared() else { return };
    let store = create(server.options().schema("altered"));
    store.put(&key_id(1), None, &stored(b"first"), &call()).unwrap();
    let known = [(key_id(1), None), (key_id(2), None)];
    let read = || (store.get(&key_id(1), &call()), store.changed(&known, &call()));
    let before = read();
    server.sql(
        "CREATE DOMAIN altered.bytes AS bytea; \
         ALTER TABLE altered.dekseal_key ALTER COLUMN document TYPE altered.bytes",
    );
    let after = read();
    assert_eq!(before.0.unwrap().unwrap().document, b"first");
    assert_eq!(after.0.unwrap().unwrap().document, b"first");
    assert_eq!(before.1.unwrap(), after.1.unwrap());
}
