//! Rollbacks that a fleet's keyring must notice, and how the host's decisions meet other requests (FORMAT.md D4).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use dekseal::{
    Engine, ErrorKind, KeyId, KeyState, StoreFault, StoreKeyring, UnixTime,
    store::{Action, Call, KeyStore, MemoryStore, Request, Revision, StoreError, StoredDocument},
};

use crate::store_keyring::{
    Keyring, create, document, fault, id, kind, one_key, open, process, process_with, root, rotate, seal, slow_answer,
};

/// A process that has seen key 1 and has evicted it.
fn evicted(store: &Arc<MemoryStore>) -> Engine<Keyring> {
    let reader = process_with(store, |settings| settings.capacity = 1);
    seal(&reader, 1).unwrap();
    create(&reader, 2);
    create(&reader, 3);
    assert!(!reader.keyring().is_ready(&id(1)));
    reader
}

#[test]
fn eviction_forgets_no_branch_that_has_grown_past_it() {
    // The process has seen generation 2, with version 1. The other branch has generation 4.
    type Branch = fn(&Engine<Keyring>);
    let branches: [(&str, Branch); 2] = [
        ("another version 1", |other| {
            rotate(other, 1);
            rotate(other, 1);
            rotate(other, 1);
        }),
        ("no version 1", |other| {
            let key_id = id(1);
            for _ in 0..2 {
                other.keyring().update(&key_id, |keys| keys.disable(&key_id)).unwrap();
                other.keyring().update(&key_id, |keys| keys.enable(&key_id)).unwrap();
            }
        }),
    ];
    for (case, grow) in branches {
        let (store, engine) = one_key();
        let backup = store.copy();
        rotate(&engine, 1);
        let reader = evicted(&store);
        store.restore(&backup);
        grow(&process(&store));
        assert_eq!(fault(seal(&reader, 1)), StoreFault::RolledBack, "{case}");
        assert_eq!(reader.keyring().counters().rollbacks, 1, "{case}");
        reader.keyring().adopt(&id(1)).unwrap();
        seal(&reader, 1).unwrap();
    }
}

#[test]
fn an_evicted_key_may_have_changed_in_every_permitted_way() {
    let (store, engine) = one_key();
    rotate(&engine, 1);
    let reader = evicted(&store);
    let key_id = id(1);
    // Its newest version is still there, and then is destroyed.
    rotate(&engine, 1);
    seal(&reader, 1).unwrap();
    create(&reader, 4);
    assert!(!reader.keyring().is_ready(&key_id));
    rotate(&engine, 1);
    let destroy = |keys: &mut dekseal::Keyset| {
        keys.set_min_version(&key_id, 3)?;
        keys.force_destroy_versions(&key_id, 3)
    };
    assert_eq!(engine.keyring().update(&key_id, destroy).unwrap(), 3);
    assert_eq!(seal(&reader, 1).unwrap().1.key_version(), 3);
    assert_eq!(reader.keyring().counters().rollbacks, 0);
}

/// A process that has not seen that a key was to be deleted cannot distinguish its deletion from a loss.
#[test]
fn a_purge_of_an_evicted_key_is_reported_and_adopted() {
    let (store, engine) = one_key();
    let reader = evicted(&store);
    let key_id = id(1);
    schedule_deletion_a_year_ago(&engine, key_id);
    engine.keyring().update(&key_id, |keys| keys.purge(&key_id)).unwrap();
    assert_eq!(fault(seal(&reader, 1)), StoreFault::RolledBack);
    // The same if the key was made again.
    create(&engine, 1);
    assert_eq!(fault(seal(&reader, 1)), StoreFault::RolledBack);
    assert_eq!(kind(reader.keyring().write_back(&key_id)), ErrorKind::UnknownKey);
    reader.keyring().adopt(&key_id).unwrap();
    seal(&reader, 1).unwrap();
}

#[test]
fn an_answer_from_before_an_adoption_does_not_undo_it() {
    let (store, engine) = one_key();
    let engine = Arc::new(engine);
    // A request has read a newer document. Before its answer arrives, the key is lost, and the host adopts that.
    rotate(&process(&store), 1);
    let (read, go_on) = slow_answer(&store);
    let loading = Arc::clone(&engine);
    let load = thread::spawn(move || loading.keyring().load(&id(1)));
    read.wait();
    let lost = document(&store, 1);
    store.overwrite(&id(1), None);
    engine.keyring().adopt(&id(1)).unwrap();
    go_on.wait();
    load.join().unwrap().unwrap();
    assert_eq!(engine.keyring().counters().held, 0);
    assert_eq!(kind(seal(&engine, 1)), ErrorKind::UnknownKey);
    // The adoption does not keep the key from being there again: the same one, or a new one.
    store.overwrite(&id(1), Some(lost));
    seal(&engine, 1).unwrap();
    store.overwrite(&id(1), None);
    engine.keyring().adopt(&id(1)).unwrap();
    create(&process(&store), 1);
    seal(&engine, 1).unwrap();
    assert_eq!(engine.keyring().counters().rollbacks, 0);
}

#[test]
fn an_adoption_that_was_overtaken_reads_again() {
    let (store, engine) = one_key();
    let engine = Arc::new(engine);
    let (hears, other) = (Arc::clone(&engine), process(&store));
    let first = AtomicBool::new(true);
    store.set_script(move |request, _call| match request {
        Request::Get { .. } if first.swap(false, Ordering::SeqCst) => {
            let (hears, other) = (Arc::clone(&hears), process(other.keyring().store()));
            Action::ServeThen(Box::new(move || {
                rotate(&other, 1);
                hears.keyring().load(&id(1)).unwrap();
            }))
        }
        _ => Action::Serve,
    });
    engine.keyring().adopt(&id(1)).unwrap();
    // Without a request: the newer document was not replaced in memory.
    store.set_script(|_request, _call| Action::Fail);
    assert_eq!(engine.keyring().info(&id(1)).unwrap().current_version, 1);
}

#[test]
fn two_threads_write_one_key_back() {
    // While the first `put` is answered, another thread writes back: before the first was executed, or after it.
    for executed in [false, true] {
        let (store, engine) = one_key();
        let engine = Arc::new(engine);
        let backup = store.copy();
        rotate(&engine, 1);
        let (dek, sealed) = seal(&engine, 1).unwrap();
        store.restore(&backup);
        assert_eq!(fault(engine.keyring().load(&id(1))), StoreFault::RolledBack);
        let other = Arc::clone(&engine);
        let first = AtomicBool::new(true);
        store.set_script(move |request, _call| match request {
            Request::Put { .. } if first.swap(false, Ordering::SeqCst) => {
                let other = Arc::clone(&other);
                let write_back = move || other.keyring().write_back(&id(1)).unwrap();
                if executed {
                    return Action::ServeThen(Box::new(write_back));
                }
                write_back();
                Action::Serve
            }
            _ => Action::Serve,
        });
        engine.keyring().write_back(&id(1)).unwrap();
        store.set_script(|_request, _call| Action::Serve);
        // The document in memory is that of the store.
        assert_eq!(engine.keyring().refresh().unwrap(), 0, "executed: {executed}");
        assert_eq!(engine.keyring().counters().held, 1);
        assert_eq!(open(&engine, &sealed).unwrap(), dek);
        assert_eq!(rotate(&engine, 1), 2);
    }
}

#[test]
fn a_change_whose_key_is_absent_afterwards_is_unknown() {
    let (store, engine) = one_key();
    let (first, lost) = (AtomicBool::new(true), Arc::clone(&store));
    store.set_script(move |request, _call| match request {
        Request::Put { .. } if first.swap(false, Ordering::SeqCst) => Action::LoseAnswer,
        Request::Get { .. } if !first.load(Ordering::SeqCst) => {
            lost.set_script(|_request, _call| Action::Serve);
            lost.overwrite(&id(1), None);
            Action::Serve
        }
        _ => Action::Serve,
    });
    let key_id = id(1);
    let rotated = engine.keyring().update(&key_id, |keys| keys.rotate(&key_id));
    assert_eq!(fault(rotated), StoreFault::OutcomeUnknown);
    assert_eq!(fault(engine.keyring().load(&key_id)), StoreFault::RolledBack);
}

/// A store whose client sends each write twice and reports the second answer, like a library that retries by itself.
struct Twice(MemoryStore);

impl KeyStore for Twice {
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
        self.0.put(key_id, expected, new, call)?;
        self.0.put(key_id, expected, new, call)
    }

    fn remove(&self, key_id: &KeyId, expected: &Revision, call: &Call) -> Result<(), StoreError> {
        self.0.remove(key_id, expected, call)
    }

    fn list(&self, after: Option<&KeyId>, limit: usize, call: &Call) -> Result<Vec<KeyId>, StoreError> {
        self.0.list(after, limit, call)
    }
}

#[test]
fn a_change_that_conflicts_with_itself_is_made_once() {
    let keyring = StoreKeyring::new(Twice(MemoryStore::new()), root(0));
    let key_id = id(1);
    keyring.update(&key_id, |keys| keys.create_key(key_id)).unwrap();
    assert_eq!(keyring.update(&key_id, |keys| keys.rotate(&key_id)).unwrap(), 1);
    keyring.update(&key_id, |keys| keys.disable(&key_id)).unwrap();
    let info = keyring.info(&key_id).unwrap();
    assert_eq!((info.current_version, info.state), (1, KeyState::Disabled));
}

fn schedule_deletion_a_year_ago(engine: &Engine<Keyring>, key_id: KeyId) {
    let year_ago = UnixTime::from_secs(UnixTime::now().unwrap().as_secs() - 365 * 24 * 60 * 60).unwrap();
    let schedule = |keys: &mut dekseal::Keyset| keys.schedule_deletion_at(&key_id, 7, year_ago).map(drop);
    engine.keyring().update(&key_id, schedule).unwrap();
}

/// Other processes would refuse the document, or its absence, as a rollback.
#[test]
fn a_change_neither_replaces_a_key_nor_removes_one_before_its_time() {
    let (store, engine) = one_key();
    let key_id = id(1);
    let before = document(&store, 1);
    let empty = |keys: &mut dekseal::Keyset| {
        *keys = dekseal::Keyset::new();
        Ok(())
    };
    let error = engine.keyring().update(&key_id, empty).unwrap_err();
    assert_eq!(
        (error.kind(), error.key_id()),
        (ErrorKind::DeletionNotScheduled, Some(key_id))
    );
    assert_eq!(document(&store, 1), before);

    schedule_deletion_a_year_ago(&engine, key_id);
    let reader = process(&store);
    reader.keyring().load(&key_id).unwrap();
    let before = document(&store, 1);
    let replace = |keys: &mut dekseal::Keyset| {
        keys.purge(&key_id)?;
        keys.create_key(key_id)
    };
    let error = engine.keyring().update(&key_id, replace).unwrap_err();
    assert_eq!((error.kind(), error.key_id()), (ErrorKind::KeyExists, Some(key_id)));
    assert_eq!(document(&store, 1), before);

    // As two changes, both are made, and other processes follow.
    engine.keyring().update(&key_id, |keys| keys.purge(&key_id)).unwrap();
    assert_eq!(kind(reader.keyring().load(&key_id)), ErrorKind::UnknownKey);
    create(&engine, 1);
    reader.keyring().load(&key_id).unwrap();
    assert_eq!(reader.keyring().counters().rollbacks, 0);
}

#[test]
fn a_key_that_was_made_again_while_it_was_purged_stays_in_memory() {
    let (store, engine) = one_key();
    let engine = Arc::new(engine);
    let key_id = id(1);
    schedule_deletion_a_year_ago(&engine, key_id);
    let hears = Arc::clone(&engine);
    let maker = process(&store);
    store.set_script(move |request, _call| match request {
        Request::Remove { .. } => {
            let (hears, maker) = (Arc::clone(&hears), process(maker.keyring().store()));
            Action::ServeThen(Box::new(move || {
                assert_eq!(kind(hears.keyring().load(&key_id)), ErrorKind::UnknownKey);
                create(&maker, 1);
                hears.keyring().load(&key_id).unwrap();
            }))
        }
        _ => Action::Serve,
    });
    engine.keyring().update(&key_id, |keys| keys.purge(&key_id)).unwrap();
    assert!(engine.keyring().is_ready(&key_id));
    engine.keyring().load(&key_id).unwrap();
    assert_eq!(engine.keyring().counters().rollbacks, 0);
}

/// A later document of the other branch may have the versions and the state of the document that was sent.
#[test]
fn a_write_back_that_was_lost_is_not_reported_as_done() {
    let (store, engine) = one_key();
    let key_id = id(1);
    rotate(&engine, 1);
    let backup = store.copy();
    engine.keyring().update(&key_id, |keys| keys.disable(&key_id)).unwrap();
    store.restore(&backup);
    assert_eq!(fault(engine.keyring().load(&key_id)), StoreFault::RolledBack);

    // The `put` of generation 4 does not arrive, and another process goes on from generation 2 to 5.
    let (first, other, present) = (AtomicBool::new(true), process(&store), Arc::clone(&store));
    store.set_script(move |request, _call| match request {
        Request::Put { .. } if first.swap(false, Ordering::SeqCst) => Action::LoseRequest,
        Request::Get { .. } if !first.load(Ordering::SeqCst) => {
            present.set_script(|_request, _call| Action::Serve);
            let update = |change: fn(&mut dekseal::Keyset, &KeyId) -> Result<(), dekseal::Error>| {
                other.keyring().update(&key_id, |keys| change(keys, &key_id)).unwrap();
            };
            update(dekseal::Keyset::disable);
            update(dekseal::Keyset::enable);
            update(dekseal::Keyset::disable);
            Action::Serve
        }
        _ => Action::Serve,
    });
    assert_eq!(fault(engine.keyring().write_back(&key_id)), StoreFault::OutcomeUnknown);
    // The host still has to decide.
    assert_eq!(fault(engine.keyring().load(&key_id)), StoreFault::RolledBack);
    engine.keyring().write_back(&key_id).unwrap();
    engine.keyring().load(&key_id).unwrap();
}

/// The grace period of a destruction counts from `created`, so an older time would end it early.
#[test]
fn a_version_that_is_added_to_a_key_is_not_dated_back() {
    let (store, engine) = one_key();
    let key_id = id(1);
    let before = document(&store, 1);
    let import = |age: u64| {
        engine.keyring().update(&key_id, |keys| {
            let created = UnixTime::from_secs(UnixTime::now()?.as_secs() - age)?;
            keys.import_version_at(&key_id, &[8; 32], created)
        })
    };
    // Less than the deadline of a call is too much. Between the two times, the clock may tick once.
    let error = import(2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ImplausibleTime);
    assert_eq!((error.key_id(), error.key_version()), (Some(key_id), Some(1)));
    assert_eq!(document(&store, 1), before);
    assert_eq!(import(0).unwrap(), 1);
    // A key that comes from elsewhere keeps the times of its versions.
    let (other, now) = (id(2), UnixTime::now().unwrap().as_secs());
    let import = |keys: &mut dekseal::Keyset| {
        keys.import_key_at(other, &[1; 32], UnixTime::from_secs(now - 7200)?)?;
        keys.import_version_at(&other, &[2; 32], UnixTime::from_secs(now - 3600)?)
    };
    assert_eq!(engine.keyring().update(&other, import).unwrap(), 1);
}

#[test]
fn the_grace_period_covers_a_put_and_the_clocks() {
    use std::time::Duration;
    let keyring = |set: fn(&mut dekseal::StoreSettings)| {
        let engine = process_with(&Arc::new(MemoryStore::new()), set);
        engine.keyring().settings().grace()
    };
    assert_eq!(keyring(|_| {}), Duration::from_secs(3600 + 5 + 60 + 60 + 1));
    let longer = keyring(|settings| {
        settings.max_stale = Duration::from_secs(7200);
        settings.deadline = Duration::MAX; // counts as a day
        settings.clock_skew = Duration::from_secs(5);
    });
    assert_eq!(longer, Duration::from_secs(7200 + 86_400 + 5 + 5 + 1));
    assert_eq!(keyring(|settings| settings.max_stale = Duration::MAX), Duration::MAX);
}
