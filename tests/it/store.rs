//! The store in memory, and its scripted failures.

use std::{
    error::Error as _,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use dekseal::{
    KeyId,
    store::{
        Action, Call, Change, KeyStore, MemoryStore, Request, Revision, StoreError, StoreErrorKind, StoredDocument,
    },
};

use crate::conformance::{call, conformance_tests, key_id, stored};

mod memory {
    use super::*;
    conformance_tests!(|| Some(Box::new(MemoryStore::new())));
}

mod memory_that_notifies {
    use super::*;
    conformance_tests!(|| Some(Box::new(Arc::new(MemoryStore::new().with_notifications()))));
}

/// A store that uses the default implementations of `changed` and `watch`.
mod with_the_defaults_of_the_trait {
    use super::*;

    struct Plain(MemoryStore);

    impl KeyStore for Plain {
        fn get(&self, key_id: &KeyId, call: &Call) -> Result<Option<StoredDocument>, StoreError> {
            self.0.get(key_id, call)
        }

        fn put(
            &self,
            key_id: &KeyId,
            expected: Option<&Revision>,
            new: &StoredDocument,
            call: &Call,
        ) -> Result<Revision, StoreError> {
            self.0.put(key_id, expected, new, call)
        }

        fn remove(&self, key_id: &KeyId, expected: &Revision, call: &Call) -> Result<(), StoreError> {
            self.0.remove(key_id, expected, call)
        }

        fn list(&self, after: Option<&KeyId>, limit: usize, call: &Call) -> Result<Vec<KeyId>, StoreError> {
            self.0.list(after, limit, call)
        }
    }

    conformance_tests!(|| Some(Box::new(Plain(MemoryStore::new()))));
}

#[track_caller]
fn assert_error<T: std::fmt::Debug>(outcome: Result<T, StoreError>, kind: StoreErrorKind, unknown: bool) {
    let error = outcome.unwrap_err();
    assert_eq!((error.kind(), error.is_outcome_unknown()), (kind, unknown), "{error:?}");
}

#[test]
fn each_action_does_what_it_says() {
    use StoreErrorKind::Unavailable;
    let (first, second) = (stored(b"first"), stored(b"second"));
    // For each action: whether it executes a write at once, and whether the outcome is unknown.
    for (name, carried_out, unknown) in [
        ("Fail", false, false),
        ("LoseRequest", false, true),
        ("LoseAnswer", true, true),
        ("HoldRequest", false, true),
    ] {
        let action = move || match name {
            "Fail" => Action::Fail,
            "LoseRequest" => Action::LoseRequest,
            "LoseAnswer" => Action::LoseAnswer,
            _ => Action::HoldRequest,
        };
        assert_eq!(format!("{:?}", action()), name);
        let store = MemoryStore::new();
        store.put(&key_id(1), None, &first, &call()).unwrap();
        store.set_script(move |_, _| action());
        assert_error(store.get(&key_id(1), &call()), Unavailable, false);
        assert_error(store.list(None, 10, &call()), Unavailable, false);
        assert_error(store.changed(&[], &call()), Unavailable, false);
        assert_error(store.put(&key_id(2), None, &first, &call()), Unavailable, unknown);
        assert_error(
            store.put(&key_id(1), Some(&first.revision), &second, &call()),
            Unavailable,
            unknown,
        );
        store.set_script(|_, _| Action::Serve);
        let one = if carried_out { &second } else { &first };
        assert_eq!(store.get(&key_id(1), &call()).unwrap().as_ref(), Some(one));
        assert_eq!(store.get(&key_id(2), &call()).unwrap().is_some(), carried_out);

        store.set_script(move |_, _| action());
        assert_error(store.remove(&key_id(1), &one.revision, &call()), Unavailable, unknown);
        store.set_script(|_, _| Action::Serve);
        assert_eq!(store.get(&key_id(1), &call()).unwrap().is_none(), carried_out);
    }
}

#[test]
fn a_held_request_arrives_late_and_only_where_it_still_fits() {
    let (first, second, third) = (stored(b"first"), stored(b"second"), stored(b"third"));
    let store = MemoryStore::new();
    for number in [1, 2] {
        store.put(&key_id(number), None, &first, &call()).unwrap();
    }
    store.set_script(|_, _| Action::HoldRequest);
    for number in [1, 2] {
        let outcome = store.put(&key_id(number), Some(&first.revision), &second, &call());
        assert!(outcome.unwrap_err().is_outcome_unknown());
    }
    store.set_script(|_, _| Action::Serve);
    store.put(&key_id(2), Some(&first.revision), &third, &call()).unwrap();
    store.deliver_held();
    assert_eq!(store.get(&key_id(1), &call()).unwrap(), Some(second));
    assert_eq!(store.get(&key_id(2), &call()).unwrap(), Some(third));
    // Nothing is delivered twice.
    store.overwrite(&key_id(1), Some(first.clone()));
    store.deliver_held();
    assert_eq!(store.get(&key_id(1), &call()).unwrap(), Some(first));
}

#[test]
fn a_slow_answer_tells_what_held_before() {
    let (first, second) = (stored(b"first"), stored(b"second"));
    let store = Arc::new(MemoryStore::new());
    store.put(&key_id(1), None, &first, &call()).unwrap();
    let (reached, at_the_gate) = mpsc::channel();
    let (open, opened) = mpsc::channel();
    let gate = std::sync::Mutex::new(Some((reached, opened)));
    store.set_script(move |request, _| match (request, gate.lock().unwrap().take()) {
        (Request::Get { .. }, Some((reached, opened))) => Action::ServeThen(Box::new(move || {
            reached.send(()).unwrap();
            opened.recv().unwrap();
        })),
        _ => Action::Serve,
    });
    let reader = thread::spawn({
        let store = store.clone();
        move || store.get(&key_id(1), &call())
    });
    at_the_gate.recv().unwrap();
    store.put(&key_id(1), Some(&first.revision), &second, &call()).unwrap();
    open.send(()).unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), Some(first));
    assert_eq!(store.get(&key_id(1), &call()).unwrap(), Some(second));
}

#[test]
fn a_replay_answers_reads_from_another_store_and_carries_writes_out() {
    let (first, second) = (stored(b"first"), stored(b"second"));
    let store = MemoryStore::new();
    store.put(&key_id(1), None, &first, &call()).unwrap();
    let old = Arc::new(store.copy());
    store.set_script(move |_, _| Action::Replay(old.clone()));
    store.put(&key_id(1), Some(&first.revision), &second, &call()).unwrap();
    assert_eq!(store.get(&key_id(1), &call()).unwrap(), Some(first.clone()));
    let known = [(key_id(1), Some(second.revision))];
    assert_eq!(store.changed(&known, &call()).unwrap(), [(key_id(1), Some(first))]);
    store.set_script(|_, _| Action::Serve);
    assert_eq!(store.get(&key_id(1), &call()).unwrap(), Some(second));
}

#[test]
fn a_script_that_sleeps_meets_the_deadline() {
    let store = MemoryStore::new();
    let short = || Call::within(Duration::from_millis(20));
    store.set_script(|_, call| {
        thread::sleep(call.remaining());
        Action::Serve
    });
    assert_error(store.get(&key_id(1), &short()), StoreErrorKind::Deadline, false);
    assert_error(
        store.put(&key_id(1), None, &stored(b""), &short()),
        StoreErrorKind::Deadline,
        false,
    );
    store.set_script(|_, call| {
        let remaining = call.remaining();
        Action::ServeThen(Box::new(move || thread::sleep(remaining)))
    });
    assert_error(store.get(&key_id(1), &short()), StoreErrorKind::Deadline, false);
    // It was executed before the deadline.
    assert_error(
        store.put(&key_id(1), None, &stored(b""), &short()),
        StoreErrorKind::Deadline,
        true,
    );
    store.set_script(|_, _| Action::Serve);
    assert!(store.get(&key_id(1), &call()).unwrap().is_some());
}

#[test]
fn a_script_sees_the_request_and_who_makes_it() {
    let store = MemoryStore::new();
    let (sender, seen) = mpsc::channel();
    store.set_script(move |request, call| {
        sender.send((format!("{request:?}"), call.is_refresh())).unwrap();
        Action::Serve
    });
    store.get(&key_id(1), &call().for_refresh()).unwrap();
    store.list(None, 5, &call()).unwrap();
    let get = format!("Get {{ key_id: {:?} }}", key_id(1));
    assert_eq!(seen.recv().unwrap(), (get, true));
    assert_eq!(seen.recv().unwrap(), ("List { after: None, limit: 5 }".into(), false));
}

#[test]
fn a_restored_store_does_not_know_what_changed() {
    let store = MemoryStore::new().with_notifications();
    let (sender, heard) = mpsc::channel();
    assert!(store.watch(Box::new(move |change| sender.send(change).is_ok())));
    store.restore(&MemoryStore::new());
    assert_eq!(heard.recv().unwrap(), Change::Unknown);
    store.overwrite(&key_id(1), None);
    assert_eq!(heard.recv().unwrap(), Change::Key(key_id(1)));
}

#[test]
fn a_call_ends_in_a_day_at_the_latest_and_is_over_when_it_is_over() {
    let day = Duration::from_secs(24 * 60 * 60);
    assert!(Call::within(Duration::MAX).remaining() <= day);
    assert!(Call::within(Duration::MAX).deadline() > Instant::now() + day / 2);
    assert_eq!(Call::within(Duration::ZERO).remaining(), Duration::ZERO);
}

#[test]
fn a_revision_is_compared_with_its_length() {
    let revision = |bytes: &[u8]| Revision::new(bytes).unwrap();
    assert_ne!(revision(&[]), revision(&[0]));
    assert_ne!(revision(&[7, 0]), revision(&[7]));
    assert_eq!(revision(&[7, 0]), revision(&[7, 0]));
    assert_eq!(revision(&[9; 64]).as_bytes(), [9; 64]);
    assert_eq!(Revision::new(&[0; 65]), None);
}

#[test]
fn an_error_says_what_failed_and_whether_the_outcome_is_known() {
    let error = StoreError::new(StoreErrorKind::Deadline, "no answer in 5 s");
    assert_eq!(error.to_string(), "the store did not answer before the deadline");
    assert_eq!(error.source().unwrap().to_string(), "no answer in 5 s");
    let error = error.with_outcome_unknown();
    assert_eq!(
        error.to_string(),
        "the store did not answer before the deadline: the change may or may not have been made"
    );
    assert_eq!(
        format!("{error:?}"),
        r#"StoreError { kind: Deadline, outcome_unknown: true, source: "no answer in 5 s" }"#
    );
}

/// Stores that need more dependencies are separate crates in another workspace.
#[test]
fn nothing_of_a_database_or_a_network_is_in_the_lock_file() {
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
    let packages: Vec<_> = lock.lines().filter_map(|line| line.strip_prefix("name = ")).collect();
    assert!(packages.contains(&"\"aes-gcm\""), "the search is broken");
    for package in [
        "rusqlite",
        "libsqlite3-sys",
        "tokio",
        "tokio-postgres",
        "rustls",
        "mio",
        "socket2",
    ] {
        assert!(!packages.contains(&format!("{package:?}").as_str()), "{package}");
    }
}
