//! Other users of the database, and deadlines.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use dekseal::store::{Call, KeyStore, StoreError, StoreErrorKind};
use rusqlite::Connection;

use crate::{
    conformance::{call, key_id, stored},
    temporary,
};

#[test]
fn a_writer_elsewhere_stops_no_reader_and_a_writer_only_until_its_deadline() {
    let store = temporary();
    store.put(&key_id(1), None, &stored(b"first"), &call()).unwrap();
    let other = Connection::open(store.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; DELETE FROM dekseal_key").unwrap();
    for call in [call(), call().for_refresh()] {
        let begun = Instant::now();
        assert_eq!(store.get(&key_id(1), &call).unwrap(), Some(stored(b"first")));
        assert_eq!(store.list(None, 10, &call).unwrap(), [key_id(1)]);
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
    let begun = Instant::now();
    let short = Call::within(Duration::from_millis(300));
    let error = store.put(&key_id(2), None, &stored(b"second"), &short).unwrap_err();
    assert_eq!(
        (error.kind(), error.is_outcome_unknown()),
        (StoreErrorKind::Deadline, false)
    );
    assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(2));

    // The call waits for the lock, and continues when it is free.
    thread::scope(|scope| {
        let writer = scope.spawn(|| store.put(&key_id(2), None, &stored(b"second"), &call()));
        thread::sleep(Duration::from_millis(100));
        other.execute_batch("ROLLBACK").unwrap();
        writer.join().unwrap().unwrap();
    });
    assert_eq!(store.list(None, 10, &call()).unwrap(), [key_id(1), key_id(2)]);
}

#[test]
fn a_reader_elsewhere_stops_no_writer() {
    let store = temporary();
    store.put(&key_id(1), None, &stored(b"first"), &call()).unwrap();
    let other = Connection::open(store.path()).unwrap();
    other.execute_batch("BEGIN; SELECT count(*) FROM dekseal_key").unwrap();
    let short = Call::within(Duration::from_secs(2));
    for number in 2..50 {
        store.put(&key_id(number), None, &stored(&[7; 10_000]), &short).unwrap();
    }
}

#[test]
fn a_long_statement_ends_at_its_deadline_and_the_store_goes_on() {
    let store = temporary();
    let mut database = Connection::open(store.path()).unwrap();
    let transaction = database.transaction().unwrap();
    for number in 0..100_000 {
        let row = rusqlite::params![key_id(number).to_string(), [7_u8; 32], [7_u8]];
        transaction
            .execute("INSERT INTO dekseal_key VALUES (?1, ?2, ?3)", row)
            .unwrap();
    }
    transaction.commit().unwrap();
    let known: Vec<_> = (0..100_000).map(|number| (key_id(number), None)).collect();
    assert_ends_in_time(|call| store.changed(&known, call).map(|changed| changed.len()));
    assert_ends_in_time(|call| store.list(None, usize::MAX, call).map(|page| page.len()));
}

/// Asserts that a read of 100,000 rows ends at its deadline, and that the next call succeeds.
#[track_caller]
fn assert_ends_in_time(read: impl Fn(&Call) -> Result<usize, StoreError>) {
    let begun = Instant::now();
    let error = read(&Call::within(Duration::from_millis(3))).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Deadline, "{error:?}");
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(read(&call()).unwrap(), 100_000);
}

/// Uses more callers than connections, each with a long call.
#[test]
fn the_refresher_and_the_writer_do_not_wait_for_other_calls() {
    let store = temporary();
    store.put(&key_id(1), None, &stored(b"first"), &call()).unwrap();
    let known: Vec<_> = (0..300_000).map(|number| (key_id(number), None)).collect();
    let start = Barrier::new(9);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                // These calls run until their deadline.
                let long = Call::within(Duration::from_secs(2));
                while store.changed(&known, &long).is_ok() {}
            });
        }
        start.wait();
        thread::sleep(Duration::from_millis(50));
        let short = Call::within(Duration::from_secs(1));
        store.get(&key_id(1), &short.for_refresh()).unwrap().unwrap();
        store.put(&key_id(2), None, &stored(b"second"), &short).unwrap();
    });
    // All of them have ended, and their connections are free again.
    assert!(store.get(&key_id(2), &call()).unwrap().is_some());
}
