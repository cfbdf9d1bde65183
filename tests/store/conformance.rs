//! The rules that every [`KeyStore`] must follow, as tests of one implementation.
//!
//! Include this file by its path, and call `conformance_tests!` with a function that makes an empty store. The function
//! returns `Some` of a value that dereferences to the store and may clean up when dropped. It returns `None`, after
//! printing why, if the tests cannot run here.

use std::{
    collections::BTreeSet,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use dekseal::{
    KeyId,
    store::{Call, Change, KeyStore, Revision, StoreError, StoreErrorKind, StoredDocument},
};

/// Makes a `#[test]` for each rule, with the stores that `$open` makes.
macro_rules! conformance_tests {
    ($open:expr) => {
        $crate::conformance::conformance_tests!($open;
            a_store_begins_empty
            a_document_comes_back_as_it_was_put
            a_document_is_created_once
            a_document_is_replaced_only_under_its_revision
            a_document_is_removed_only_under_its_revision
            documents_of_every_size_and_byte_are_kept
            pages_ascend_by_the_bytes_of_the_key_ids
            changed_tells_what_differs_and_nothing_else
            changed_takes_many_keys
            no_write_of_many_is_lost
            one_of_many_creators_wins
            a_reader_sees_whole_documents
            a_call_after_its_deadline_fails
            a_watcher_hears_of_changes
        );
    };
    ($open:expr; $($rule:ident)*) => {$(
        #[test]
        fn $rule() {
            if let Some(store) = $open() {
                $crate::conformance::$rule(&*store);
            }
        }
    )*};
}

pub(crate) use conformance_tests;

pub(crate) fn call() -> Call {
    Call::within(Duration::from_secs(20))
}

/// The key ID with this number.
pub(crate) fn key_id(number: u64) -> KeyId {
    format!("00000000-0000-0000-0000-{number:012}").parse().unwrap()
}

/// A document and its revision. The revision is a function of the document: 32 bytes, with zeros and 0xff among them.
pub(crate) fn stored(document: &[u8]) -> StoredDocument {
    let mut revision = [0; 32];
    revision[1] = 0xff;
    for (lane, out) in (0..).zip(revision[8..].chunks_mut(8)) {
        // FNV-1a with a different offset for each lane.
        let hash = document.iter().fold(0xcbf2_9ce4_8422_2325 ^ lane, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        out.copy_from_slice(&hash.to_le_bytes());
    }
    StoredDocument {
        revision: Revision::new(&revision).unwrap(),
        document: document.to_vec(),
    }
}

#[track_caller]
fn assert_conflict<T: std::fmt::Debug>(outcome: Result<T, StoreError>) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict, "{error:?}");
    assert!(!error.is_outcome_unknown());
}

pub(crate) fn a_store_begins_empty(store: &impl KeyStore) {
    for call in [call(), call().for_refresh()] {
        assert_eq!(store.get(&key_id(1), &call).unwrap(), None);
        assert_eq!(store.list(None, 10, &call).unwrap(), []);
        assert_eq!(store.changed(&[], &call).unwrap(), []);
        assert_eq!(store.changed(&[(key_id(1), None)], &call).unwrap(), []);
        let gone = stored(b"gone").revision;
        let changed = store.changed(&[(key_id(1), Some(gone))], &call).unwrap();
        assert_eq!(changed, [(key_id(1), None)]);
        assert_conflict(store.remove(&key_id(1), &gone, &call));
        assert_conflict(store.put(&key_id(1), Some(&gone), &stored(b"new"), &call));
        assert_eq!(store.get(&key_id(1), &call).unwrap(), None);
    }
}

pub(crate) fn a_document_comes_back_as_it_was_put(store: &impl KeyStore) {
    // Key IDs that differ in one place, and one without digits.
    let ids = [
        "00000000-0000-0000-0000-000000000000",
        "00000000-0000-0000-0000-00000000000a",
        "a0000000-0000-0000-0000-000000000000",
        "abcdefgh-ijkl-mnop-qrst-uvwxyzabcdef",
    ];
    for id in ids {
        let new = stored(id.as_bytes());
        let revision = store.put(&id.parse().unwrap(), None, &new, &call()).unwrap();
        assert_eq!(revision, new.revision);
    }
    for id in ids {
        let key_id = id.parse().unwrap();
        assert_eq!(store.get(&key_id, &call()).unwrap(), Some(stored(id.as_bytes())));
        assert_eq!(
            store.get(&key_id, &call().for_refresh()).unwrap(),
            Some(stored(id.as_bytes()))
        );
    }
}

pub(crate) fn a_document_is_created_once(store: &impl KeyStore) {
    let (first, second) = (stored(b"first"), stored(b"second"));
    store.put(&key_id(1), None, &first, &call()).unwrap();
    assert_conflict(store.put(&key_id(1), None, &second, &call()));
    assert_conflict(store.put(&key_id(1), None, &first, &call()));
    assert_eq!(store.get(&key_id(1), &call()).unwrap(), Some(first));
}

pub(crate) fn a_document_is_replaced_only_under_its_revision(store: &impl KeyStore) {
    let (first, second, third) = (stored(b"first"), stored(b"second"), stored(b"third"));
    store.put(&key_id(1), None, &first, &call()).unwrap();
    store.put(&key_id(2), None, &third, &call()).unwrap();
    let replaced = store.put(&key_id(1), Some(&first.revision), &second, &call());
    assert_eq!(replaced.unwrap(), second.revision);
    // The request is sent again, as after an unknown outcome.
    assert_conflict(store.put(&key_id(1), Some(&first.revision), &second, &call()));
    // The revision of another key's document.
    assert_conflict(store.put(&key_id(1), Some(&third.revision), &first, &call()));
    assert_eq!(store.get(&key_id(1), &call()).unwrap(), Some(second.clone()));
    assert_eq!(store.get(&key_id(2), &call()).unwrap(), Some(third));
    // Writes an earlier document again.
    store.put(&key_id(1), Some(&second.revision), &first, &call()).unwrap();
    assert_eq!(store.get(&key_id(1), &call()).unwrap(), Some(first));
}

pub(crate) fn a_document_is_removed_only_under_its_revision(store: &impl KeyStore) {
    let (first, second) = (stored(b"first"), stored(b"second"));
    store.put(&key_id(1), None, &first, &call()).unwrap();
    store.put(&key_id(2), None, &second, &call()).unwrap();
    assert_conflict(store.remove(&key_id(1), &second.revision, &call()));
    assert_eq!(store.get(&key_id(1), &call()).unwrap(), Some(first.clone()));
    store.remove(&key_id(1), &first.revision, &call()).unwrap();
    assert_eq!(store.get(&key_id(1), &call()).unwrap(), None);
    assert_conflict(store.remove(&key_id(1), &first.revision, &call()));
    assert_conflict(store.put(&key_id(1), Some(&first.revision), &second, &call()));
    assert_eq!(store.list(None, 10, &call()).unwrap(), [key_id(2)]);
    // The key can be created again.
    store.put(&key_id(1), None, &second, &call()).unwrap();
    assert_eq!(store.get(&key_id(1), &call()).unwrap(), Some(second));
}

pub(crate) fn documents_of_every_size_and_byte_are_kept(store: &impl KeyStore) {
    for (number, size) in (0..).zip([0, 1, 255, 8192, 65_536, 5 * 1024 * 1024]) {
        let document: Vec<u8> = (0..size).map(|at: usize| (at % 251 + at / 256) as u8).collect();
        let new = stored(&document);
        store.put(&key_id(number), None, &new, &call()).unwrap();
        assert!(
            store.get(&key_id(number), &call()).unwrap() == Some(new.clone()),
            "{size} bytes changed"
        );
        let changed = store.changed(&[(key_id(number), None)], &call()).unwrap();
        assert!(changed == [(key_id(number), Some(new))], "{size} bytes changed");
    }
    let all_bytes = stored(&(0..=255).collect::<Vec<_>>());
    store.put(&key_id(100), None, &all_bytes, &call()).unwrap();
    assert_eq!(store.get(&key_id(100), &call()).unwrap(), Some(all_bytes));
    // Bytes that are not text in any encoding.
    let nulls = stored(&[0, 0, b'\\', b'\'', 0xc3, 0x28, 0]);
    store.put(&key_id(101), None, &nulls, &call()).unwrap();
    assert_eq!(store.get(&key_id(101), &call()).unwrap(), Some(nulls));
}

pub(crate) fn pages_ascend_by_the_bytes_of_the_key_ids(store: &impl KeyStore) {
    // A linguistic collation would ignore hyphens, and might sort letters before digits.
    let mut ids: Vec<KeyId> = (0..20).map(key_id).collect();
    for id in [
        "a0000000-0000-0000-0000-000000000000",
        "0a000000-0000-0000-0000-000000000000",
        "0000000a-0000-0000-0000-000000000000",
        "00000000-a000-0000-0000-000000000000",
        "00000000-0000-0000-0000-00000000000a",
        "zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz",
        "99999999-9999-9999-9999-999999999999",
    ] {
        ids.push(id.parse().unwrap());
    }
    for id in ids.iter().rev() {
        store.put(id, None, &stored(id.as_bytes()), &call()).unwrap();
    }
    ids.sort_unstable();
    for limit in [1, 7, ids.len(), 1000] {
        let mut listed = Vec::new();
        loop {
            let page = store.list(listed.last(), limit, &call()).unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            listed.extend(page);
        }
        assert_eq!(listed, ids, "in pages of {limit}");
    }
    assert_eq!(store.list(None, 0, &call()).unwrap(), []);
    assert_eq!(store.list(None, usize::MAX, &call()).unwrap(), ids);
    // Continues after an ID that does not exist.
    let between = "00000000-0000-0000-0000-00000000001z".parse().unwrap();
    let above = ids.partition_point(|id| *id <= between);
    assert_eq!(store.list(Some(&between), 1000, &call()).unwrap(), ids[above..]);
}

pub(crate) fn changed_tells_what_differs_and_nothing_else(store: &impl KeyStore) {
    let (first, second) = (stored(b"first"), stored(b"second"));
    for number in 1..=4 {
        store.put(&key_id(number), None, &first, &call()).unwrap();
    }
    // Key 1 stays, 2 is replaced, 3 is removed, 4 is new to the caller, and 5 and 6 do not exist.
    store.put(&key_id(2), Some(&first.revision), &second, &call()).unwrap();
    store.remove(&key_id(3), &first.revision, &call()).unwrap();
    let known = [
        (key_id(1), Some(first.revision)),
        (key_id(2), Some(first.revision)),
        (key_id(3), Some(first.revision)),
        (key_id(4), None),
        (key_id(5), None),
        (key_id(6), Some(second.revision)),
    ];
    for call in [call(), call().for_refresh()] {
        let mut changed = store.changed(&known, &call).unwrap();
        changed.sort_by_key(|(key_id, _)| *key_id);
        let expected = [
            (key_id(2), Some(second.clone())),
            (key_id(3), None),
            (key_id(4), Some(first.clone())),
            (key_id(6), None),
        ];
        assert_eq!(changed, expected);
    }
}

pub(crate) fn changed_takes_many_keys(store: &impl KeyStore) {
    for number in (0..2000).step_by(100) {
        store
            .put(&key_id(number), None, &stored(&number.to_le_bytes()), &call())
            .unwrap();
    }
    let known: Vec<_> = (0..2000).map(|number| (key_id(number), None)).collect();
    let mut changed = store.changed(&known, &call()).unwrap();
    changed.sort_by_key(|(key_id, _)| *key_id);
    let expected: Vec<_> = (0..2000)
        .step_by(100)
        .map(|number: u64| (key_id(number), Some(stored(&number.to_le_bytes()))))
        .collect();
    assert_eq!(changed, expected);
}

pub(crate) fn no_write_of_many_is_lost(store: &impl KeyStore) {
    const WRITERS: u64 = 8;
    const WRITES: u64 = 25;
    store
        .put(&key_id(1), None, &stored(&0u64.to_le_bytes()), &call())
        .unwrap();
    let start = Barrier::new(WRITERS as usize);
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                start.wait();
                let mut done = 0;
                while done < WRITES {
                    let present = store.get(&key_id(1), &call()).unwrap().unwrap();
                    let count = u64::from_le_bytes(present.document.try_into().unwrap());
                    let next = stored(&(count + 1).to_le_bytes());
                    match store.put(&key_id(1), Some(&present.revision), &next, &call()) {
                        Ok(_) => done += 1,
                        Err(error) => assert_eq!(error.kind(), StoreErrorKind::Conflict, "{error:?}"),
                    }
                }
            });
        }
    });
    let last = store.get(&key_id(1), &call()).unwrap().unwrap();
    assert_eq!(last.document, (WRITERS * WRITES).to_le_bytes());
}

pub(crate) fn one_of_many_creators_wins(store: &impl KeyStore) {
    const CREATORS: u64 = 8;
    for round in 0..10 {
        let start = Barrier::new(CREATORS as usize);
        let winners: Vec<u64> = thread::scope(|scope| {
            let creators: Vec<_> = (0..CREATORS)
                .map(|creator| {
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        let new = stored(&creator.to_le_bytes());
                        match store.put(&key_id(round), None, &new, &call()) {
                            Ok(_) => Some(creator),
                            Err(error) => {
                                assert_eq!(error.kind(), StoreErrorKind::Conflict, "{error:?}");
                                None
                            }
                        }
                    })
                })
                .collect();
            creators
                .into_iter()
                .filter_map(|creator| creator.join().unwrap())
                .collect()
        });
        assert_eq!(winners.len(), 1, "{winners:?}");
        let present = store.get(&key_id(round), &call()).unwrap().unwrap();
        assert_eq!(present.document, winners[0].to_le_bytes());
    }
}

pub(crate) fn a_reader_sees_whole_documents(store: &impl KeyStore) {
    // The document is long enough that a store keeps it in several pieces.
    let document = |number: u8| stored(&vec![number; 20_000]);
    store.put(&key_id(1), None, &document(0), &call()).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for refresh in [false, true] {
            let done = &done;
            scope.spawn(move || {
                let call = || if refresh { call().for_refresh() } else { call() };
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let known = document(last);
                    let changed = store.changed(&[(key_id(1), Some(known.revision))], &call()).unwrap();
                    for (_, present) in changed {
                        let present = present.unwrap();
                        assert!(present.document[0] > last, "an older document came back");
                        last = present.document[0];
                        assert!(present == document(last), "half a document");
                    }
                }
            });
        }
        for number in 1..=60 {
            let before = document(number - 1).revision;
            store
                .put(&key_id(1), Some(&before), &document(number), &call())
                .unwrap();
            // A read that begins now sees every change that was reported as done.
            assert!(store.get(&key_id(1), &call()).unwrap() == Some(document(number)));
        }
        done.store(true, Ordering::Relaxed);
    });
}

pub(crate) fn a_call_after_its_deadline_fails(store: &impl KeyStore) {
    let new = stored(b"new");
    store.put(&key_id(1), None, &new, &call()).unwrap();
    let late = Call::within(Duration::ZERO);
    let errors = [
        store.get(&key_id(1), &late).unwrap_err(),
        store.changed(&[(key_id(1), None)], &late).unwrap_err(),
        store.list(None, 10, &late).unwrap_err(),
        store.put(&key_id(2), None, &new, &late).unwrap_err(),
        store.remove(&key_id(1), &new.revision, &late).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), StoreErrorKind::Deadline, "{error:?}");
        assert!(!error.is_outcome_unknown(), "nothing was sent: {error:?}");
    }
    assert_eq!(store.list(None, 10, &call()).unwrap(), [key_id(1)]);
}

/// Tests that a store with notifications sends them, and that any other store says that it has none.
pub(crate) fn a_watcher_hears_of_changes(store: &impl KeyStore) {
    // Other tests may share the channel of notifications; they do not use this key.
    let key = key_id(777_777);
    let (sender, heard) = mpsc::channel();
    if !store.watch(Box::new(move |change| sender.send(change).is_ok())) {
        return;
    }
    let wait_for = |key_id| {
        let mut others = BTreeSet::new();
        loop {
            match heard.recv_timeout(Duration::from_secs(10)) {
                Ok(Change::Key(changed)) if changed == key_id => return,
                Ok(Change::Key(other)) => drop(others.insert(other)),
                // The store is listening now.
                Ok(Change::Unknown) => {}
                Err(_) => panic!("no word of {key_id}, but of {others:?}"),
            }
        }
    };
    let (first, second) = (stored(b"first"), stored(b"second"));
    // A store may need a moment until it listens.
    for number in 1.. {
        store.put(&key_id(number), None, &first, &call()).unwrap();
        match heard.recv_timeout(Duration::from_millis(200)) {
            Ok(Change::Key(_)) => break,
            _ => assert!(number < 50, "no word of any change"),
        }
    }
    store.put(&key, None, &first, &call()).unwrap();
    wait_for(key);
    store.put(&key, Some(&first.revision), &second, &call()).unwrap();
    wait_for(key);
    store.remove(&key, &second.revision, &call()).unwrap();
    wait_for(key);

    // A refused change is not notified.
    assert_conflict(store.put(&key, Some(&first.revision), &second, &call()));
    thread::sleep(Duration::from_millis(200));
    assert!(!heard.try_iter().any(|change| change == Change::Key(key)));

    // A watcher that returns `false` is not called again.
    let (sender, heard) = mpsc::channel();
    assert!(store.watch(Box::new(move |change| {
        let _ = sender.send(change);
        false
    })));
    for number in 101..110 {
        store.put(&key_id(number), None, &first, &call()).unwrap();
    }
    heard.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(heard.recv_timeout(Duration::from_secs(1)).is_err());
}
