//! A fleet's keyring with the store in memory: FORMAT.md part D.

use std::{
    ops::ControlFlow,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dekseal::{
    CmkVersion, Dek, EncryptionContext, Engine, Error, ErrorKind, KeyId, KeyState, Keyring as _, SealedDek, StoreFault,
    StoreKeyring, StoreSettings,
    store::{Action, Call, KeyStore as _, MemoryStore, Request, Revision, StoredDocument},
};

use crate::support::{cmk, key_id};

const ROOT_ID: &str = "00000000-0000-0000-0000-00000000root";

pub(crate) type Keyring = StoreKeyring<Arc<MemoryStore>>;
/// A fault and its name.
type Named<F> = (&'static str, F);
/// An accident of a store, for which there is a backup.
type Mishap = fn(&Arc<MemoryStore>, &MemoryStore);

pub(crate) fn root(version: u32) -> CmkVersion {
    cmk(ROOT_ID, version, &[7 + u8::try_from(version).unwrap(); 32])
}

pub(crate) fn id(number: u64) -> KeyId {
    crate::conformance::key_id(number)
}

/// A process of the fleet. Documents are not confirmed again during a test.
pub(crate) fn process(store: &Arc<MemoryStore>) -> Engine<Keyring> {
    process_with(store, |_| {})
}

pub(crate) fn process_with(store: &Arc<MemoryStore>, set: impl FnOnce(&mut StoreSettings)) -> Engine<Keyring> {
    let mut settings = StoreSettings::default();
    set(&mut settings);
    Engine::new(StoreKeyring::with_settings(store.clone(), root(0), [], settings).unwrap())
}

/// A process that has one root alone.
fn process_under(store: &Arc<MemoryStore>, version: u32) -> Engine<Keyring> {
    Engine::new(StoreKeyring::new(store.clone(), root(version)))
}

/// A store with key 1, and the process that made the key.
pub(crate) fn one_key() -> (Arc<MemoryStore>, Engine<Keyring>) {
    let store = Arc::new(MemoryStore::new());
    let engine = process(&store);
    create(&engine, 1);
    (store, engine)
}

pub(crate) fn create(engine: &Engine<Keyring>, number: u64) {
    let key_id = id(number);
    engine
        .keyring()
        .update(&key_id, |keys| keys.create_key(key_id))
        .unwrap();
}

pub(crate) fn rotate(engine: &Engine<Keyring>, number: u64) -> u32 {
    let key_id = id(number);
    engine.keyring().update(&key_id, |keys| keys.rotate(&key_id)).unwrap()
}

pub(crate) fn seal(engine: &Engine<Keyring>, number: u64) -> Result<(Dek, SealedDek), Error> {
    engine.create_dek(&id(number), &EncryptionContext::none())
}

pub(crate) fn open(engine: &Engine<Keyring>, sealed: &SealedDek) -> Result<Dek, Error> {
    engine.decrypt_dek(&sealed.key_id(), &EncryptionContext::none(), sealed)
}

pub(crate) fn fault<T>(result: Result<T, Error>) -> StoreFault {
    match result.map_err(|error| error.kind()) {
        Err(ErrorKind::Store(fault)) => fault,
        Err(kind) => panic!("{kind:?}"),
        Ok(_) => panic!("no error"),
    }
}

pub(crate) fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    result.map(drop).unwrap_err().kind()
}

/// Counts the requests of one kind that a store serves.
fn counted(store: &MemoryStore, counts: impl Fn(&Request<'_>) -> bool + Send + Sync + 'static) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    store.set_script(move |request, _call| {
        if counts(request) {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        Action::Serve
    });
    count
}

pub(crate) fn document(store: &MemoryStore, number: u64) -> StoredDocument {
    store.get(&id(number), &crate::conformance::call()).unwrap().unwrap()
}

#[test]
fn what_one_process_seals_another_opens_at_once() {
    let (store, here) = one_key();
    let elsewhere = process(&store);
    // A key that is not held, then a version that is not held and is several rotations ahead.
    let (dek, sealed) = seal(&here, 1).unwrap();
    assert_eq!(open(&elsewhere, &sealed).unwrap(), dek);
    for _ in 0..3 {
        rotate(&here, 1);
    }
    let (dek, sealed) = seal(&here, 1).unwrap();
    assert_eq!(sealed.key_version(), 3);
    assert_eq!(open(&elsewhere, &sealed).unwrap(), dek);
    assert_eq!(seal(&elsewhere, 1).unwrap().1.key_version(), 3);
}

#[test]
fn a_key_that_is_held_costs_no_request() {
    let (store, engine) = one_key();
    let (_, old) = seal(&engine, 1).unwrap();
    rotate(&engine, 1);
    let requests = counted(&store, |_| true);
    let before = engine.keyring().counters().hits;
    for _ in 0..100 {
        let (dek, sealed) = seal(&engine, 1).unwrap();
        assert_eq!(open(&engine, &sealed).unwrap(), dek);
        open(&engine, &old).unwrap();
    }
    assert_eq!(requests.load(Ordering::SeqCst), 0);
    assert_eq!(engine.keyring().counters().hits - before, 300);
}

#[test]
fn a_destroyed_version_costs_no_request_and_an_unknown_one_costs_one() {
    let (store, engine) = one_key();
    let (_, destroyed) = seal(&engine, 1).unwrap();
    rotate(&engine, 1);
    let key_id = id(1);
    let destroy = |keys: &mut dekseal::Keyset| {
        keys.set_min_version(&key_id, 1)?;
        keys.force_destroy_versions(&key_id, 1)
    };
    assert_eq!(engine.keyring().update(&key_id, destroy).unwrap(), 1);
    let requests = counted(&store, |_| true);
    assert_eq!(kind(open(&engine, &destroyed)), ErrorKind::KeyVersionDestroyed);
    assert_eq!(requests.load(Ordering::SeqCst), 0);

    // There is no negative cache: each call asks the store.
    for n in 1..=3 {
        assert_eq!(
            kind(engine.keyring().with_version(&key_id, 9, |_| ())),
            ErrorKind::UnknownKeyVersion
        );
        assert_eq!(requests.load(Ordering::SeqCst), n);
    }
    assert_eq!(
        kind(engine.keyring().with_current(&id(9), |_| ())),
        ErrorKind::UnknownKey
    );
    assert_eq!(requests.load(Ordering::SeqCst), 4);
}

#[test]
fn a_fetch_that_began_before_the_call_does_not_serve_it() {
    let (store, here) = one_key();
    let elsewhere = Arc::new(process(&store));
    seal(&elsewhere, 1).unwrap();
    // A fetch has read the store. Before its answer arrives, the key is rotated and a DEK is sealed.
    let (read, go_on) = slow_answer(&store);
    let early = {
        let elsewhere = Arc::clone(&elsewhere);
        // A forged version makes the call ask the store.
        thread::spawn(move || kind(elsewhere.keyring().with_version(&id(1), 7, |_| ())))
    };
    read.wait();
    rotate(&here, 1);
    let (dek, sealed) = seal(&here, 1).unwrap();
    let late = {
        let elsewhere = Arc::clone(&elsewhere);
        thread::spawn(move || open(&elsewhere, &sealed))
    };
    assert_eq!(late.join().unwrap().unwrap(), dek);
    go_on.wait();
    assert_eq!(early.join().unwrap(), ErrorKind::UnknownKeyVersion);
}

#[test]
fn calls_that_miss_together_share_queries() {
    let store = Arc::new(MemoryStore::new());
    let writer = process(&store);
    for number in 0..40 {
        create(&writer, number);
    }
    let reader = Arc::new(process(&store));
    // The first four queries wait until all calls have arrived.
    let arrived = Arc::new(AtomicUsize::new(0));
    let (seen, queries) = (Arc::clone(&arrived), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&queries);
    store.set_script(move |request, _call| {
        if let Request::Changed { .. } = request
            && counted.fetch_add(1, Ordering::SeqCst) < 4
        {
            while seen.load(Ordering::SeqCst) < 80 {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(200));
        }
        Action::Serve
    });
    let calls: Vec<_> = (0..80)
        .map(|call| {
            let (reader, arrived) = (Arc::clone(&reader), Arc::clone(&arrived));
            thread::spawn(move || {
                arrived.fetch_add(1, Ordering::SeqCst);
                seal(&reader, call % 40).map(drop)
            })
        })
        .collect();
    for call in calls {
        call.join().unwrap().unwrap();
    }
    // Four queries began at once, and one serves all other calls.
    let queries = queries.load(Ordering::SeqCst);
    assert!((1..=6).contains(&queries), "{queries} queries for 80 calls");
    assert_eq!(reader.keyring().counters().fetches, u64::try_from(queries).unwrap());
}

#[test]
fn a_call_gives_up_at_its_deadline() {
    let (store, _) = one_key();
    let reader = process_with(&store, |settings| settings.deadline = Duration::from_millis(300));
    store.set_script(|_request, call: &Call| {
        thread::sleep(call.remaining());
        Action::Serve
    });
    let before = Instant::now();
    let error = seal(&reader, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store(StoreFault::Deadline));
    assert_eq!(error.key_id(), Some(id(1)));
    assert!(before.elapsed() >= Duration::from_millis(300));
}

#[test]
fn each_change_raises_the_generation_by_one_and_none_is_lost() {
    let (store, _) = one_key();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let store = Arc::clone(&store);
            thread::spawn(move || {
                // Long enough for a busy machine.
                let engine = process_with(&store, |settings| settings.deadline = Duration::from_secs(60));
                (0..25).map(|_| rotate(&engine, 1)).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut versions: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=100).collect::<Vec<_>>());
    let text = String::from_utf8(document(&store, 1).document).unwrap();
    assert!(text.contains("\"generation\": 101"), "{text}");
    assert_eq!(process(&store).keyring().versions(&id(1)).unwrap().len(), 101);
}

#[test]
fn a_conflict_that_does_not_end_has_its_own_error() {
    let (store, engine) = one_key();
    // Before each `put`, another writer changes the document.
    let other = process(&Arc::clone(&store));
    let busy = AtomicBool::new(false);
    store.set_script(move |request, _call| {
        if let Request::Put { .. } = request
            && !busy.swap(true, Ordering::SeqCst)
        {
            rotate(&other, 1);
            busy.store(false, Ordering::SeqCst);
        }
        Action::Serve
    });
    let key_id = id(1);
    let error = engine
        .keyring()
        .update(&key_id, |keys| keys.disable(&key_id))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store(StoreFault::Conflict));
    assert_eq!(error.key_id(), Some(key_id));
    assert!(engine.keyring().counters().conflicts > 8);
    assert_eq!(engine.keyring().info(&key_id).unwrap().state, KeyState::Enabled);
}

#[test]
fn a_change_makes_its_own_key_and_no_other() {
    let (_, engine) = one_key();
    let (key_id, other) = (id(1), id(2));
    let foreign = engine.keyring().update(&key_id, |keys| keys.create_key(other));
    assert_eq!(kind(foreign), ErrorKind::ForeignKeys);
    assert_eq!(kind(engine.keyring().info(&other)), ErrorKind::UnknownKey);
    // A key of another keyring is refused as well.
    let elsewhere = dekseal::MemoryKeyring::from_versions([cmk(other.as_str(), 0, &[1; 32])]).unwrap();
    let foreign = engine.keyring().update(&other, |keys| {
        *keys = dekseal::Keyset::clone(&elsewhere.keys());
        Ok(())
    });
    assert_eq!(kind(foreign), ErrorKind::ForeignKeys);
    // An error of the change is passed on, and nothing is written.
    let generation = document(engine.keyring().store(), 1).revision;
    assert_eq!(
        kind(engine.keyring().update(&key_id, |keys| keys.enable(&key_id))),
        ErrorKind::KeyNotDisabled
    );
    assert_eq!(document(engine.keyring().store(), 1).revision, generation);
}

#[test]
fn an_unknown_outcome_is_settled_by_reading() {
    let cases: [Named<fn() -> Action>; 3] = [
        ("carried out", || Action::LoseAnswer),
        ("lost", || Action::LoseRequest),
        ("late", || Action::HoldRequest),
    ];
    for (case, action) in cases {
        let (store, engine) = one_key();
        let first = AtomicBool::new(true);
        store.set_script(move |request, _call| match request {
            Request::Put { .. } if first.swap(false, Ordering::SeqCst) => action(),
            _ => Action::Serve,
        });
        assert_eq!(rotate(&engine, 1), 1, "{case}");
        // The delayed request arrives after it was sent again, and changes nothing.
        store.deliver_held();
        assert_eq!(
            process(&store).keyring().info(&id(1)).unwrap().current_version,
            1,
            "{case}"
        );
        let (dek, sealed) = seal(&engine, 1).unwrap();
        assert_eq!(open(&process(&store), &sealed).unwrap(), dek, "{case}");
    }
}

#[test]
fn an_unknown_outcome_followed_by_another_change_is_settled_too() {
    // Between the lost answer and the read, another writer changes the key: on top of the change, or instead of it.
    for on_top in [true, false] {
        let (store, engine) = one_key();
        let other = process(&store);
        let step = Arc::new(AtomicUsize::new(0));
        let steps = Arc::clone(&step);
        store.set_script(move |request, _call| match request {
            Request::Put { .. } if steps.load(Ordering::SeqCst) == 0 => {
                steps.store(1, Ordering::SeqCst);
                if on_top {
                    Action::LoseAnswer
                } else {
                    Action::LoseRequest
                }
            }
            Request::Get { .. } if steps.load(Ordering::SeqCst) == 1 => {
                steps.store(2, Ordering::SeqCst);
                rotate(&other, 1);
                Action::Serve
            }
            _ => Action::Serve,
        });
        let version = rotate(&engine, 1);
        assert_eq!(step.load(Ordering::SeqCst), 2);
        // The change was made exactly once, before the other one or after it.
        assert_eq!(version, if on_top { 1 } else { 2 });
        assert_eq!(process(&store).keyring().info(&id(1)).unwrap().current_version, 2);
    }
}

#[test]
fn an_unknown_outcome_followed_by_another_root_is_settled_too() {
    let (store, engine) = one_key();
    engine.keyring().set_roots(root(0), [root(1)]);
    let resealer = process(&store);
    resealer.keyring().set_roots(root(1), [root(0)]);
    let first = AtomicBool::new(true);
    let lost = store.clone();
    store.set_script(move |request, _call| match request {
        Request::Put { .. } if first.swap(false, Ordering::SeqCst) => Action::LoseAnswer,
        Request::Get { .. } if !first.load(Ordering::SeqCst) => {
            lost.set_script(|_request, _call| Action::Serve);
            let pass = resealer.keyring().reseal(None, |_, _| ControlFlow::Continue(()));
            assert_eq!(pass.unwrap().resealed, 1);
            Action::Serve
        }
        _ => Action::Serve,
    });
    assert_eq!(rotate(&engine, 1), 1, "rotated twice");
    assert_eq!(process_under(&store, 1).keyring().versions(&id(1)).unwrap().len(), 2);
}

/// What a process has changed it uses, whatever else it heard while the change was on its way.
#[test]
fn a_change_that_was_overtaken_by_answers_is_not_undone_in_memory() {
    // By a newer document, right after a key was made.
    let store = Arc::new(MemoryStore::new());
    let here = Arc::new(process(&store));
    let (hears, elsewhere) = (here.clone(), process(&store));
    let first = AtomicBool::new(true);
    store.set_script(move |request, _call| match request {
        Request::Put { .. } if first.swap(false, Ordering::SeqCst) => {
            let (hears, elsewhere) = (hears.clone(), process(elsewhere.keyring().store()));
            Action::ServeThen(Box::new(move || {
                rotate(&elsewhere, 1);
                hears.keyring().load(&id(1)).unwrap();
            }))
        }
        _ => Action::Serve,
    });
    create(&here, 1);
    assert_eq!(seal(&here, 1).unwrap().1.key_version(), 1);

    // By an older one, which was fetched because there was no room for it.
    let store = Arc::new(MemoryStore::new());
    let here = Arc::new(process_with(&store, |settings| settings.capacity = 1));
    create(&here, 1);
    create(&here, 2);
    let hears = here.clone();
    let first = AtomicBool::new(true);
    store.set_script(move |request, _call| {
        if matches!(request, Request::Put { .. }) && first.swap(false, Ordering::SeqCst) {
            hears.keyring().load(&id(2)).unwrap();
            hears.keyring().load(&id(1)).unwrap();
        }
        Action::Serve
    });
    assert_eq!(rotate(&here, 1), 1);
    assert_eq!(seal(&here, 1).unwrap().1.key_version(), 1);
}

#[test]
fn a_change_whose_outcome_stays_unknown_is_never_reported_as_failed() {
    let (store, _) = one_key();
    let engine = process_with(&store, |settings| settings.deadline = Duration::from_millis(300));
    seal(&engine, 1).unwrap();
    let sent = AtomicBool::new(false);
    store.set_script(move |request, _call| match request {
        Request::Put { .. } if !sent.swap(true, Ordering::SeqCst) => Action::LoseAnswer,
        _ if sent.load(Ordering::SeqCst) => Action::Fail,
        _ => Action::Serve,
    });
    let key_id = id(1);
    let error = engine
        .keyring()
        .update(&key_id, |keys| keys.rotate(&key_id))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store(StoreFault::OutcomeUnknown));
    // A change that was not confirmed is not used.
    assert_eq!(seal(&engine, 1).unwrap().1.key_version(), 0);
    store.set_script(|_request, _call| Action::Serve);
    engine.keyring().load(&key_id).unwrap();
    assert_eq!(seal(&engine, 1).unwrap().1.key_version(), 1);
}

#[test]
fn a_change_that_certainly_failed_says_so() {
    let (store, engine) = one_key();
    store.set_script(|request, _call| match request {
        Request::Put { .. } => Action::Fail,
        _ => Action::Serve,
    });
    let key_id = id(1);
    assert_eq!(
        fault(engine.keyring().update(&key_id, |keys| keys.rotate(&key_id))),
        StoreFault::Unavailable
    );
}

/// The ways in which a store can lose documents that a process has seen.
fn rollbacks() -> [Named<Mishap>; 3] {
    [
        ("restored", |store, backup| store.restore(backup)),
        ("deleted", |store, _| store.overwrite(&id(1), None)),
        ("failed over", |store, backup| {
            // Another branch with the same generation.
            store.restore(backup);
            rotate(&process(store), 1);
        }),
    ]
}

/// A store that has lost a rotation, and the process that made it, with a DEK under the lost version. The process has
/// found the rollback.
fn rolled_back(case: &str, roll_back: Mishap) -> (Arc<MemoryStore>, Engine<Keyring>, (Dek, SealedDek)) {
    let (store, engine) = one_key();
    let backup = store.copy();
    rotate(&engine, 1);
    let lost = seal(&engine, 1).unwrap();
    roll_back(&store, &backup);
    assert_eq!(fault(engine.keyring().load(&id(1))), StoreFault::RolledBack, "{case}");
    (store, engine, lost)
}

#[test]
fn after_a_rollback_held_versions_open_and_nothing_is_sealed_or_written() {
    for (case, roll_back) in rollbacks() {
        let (store, engine, (dek, sealed)) = rolled_back(case, roll_back);
        let before = store.copy();

        assert_eq!(open(&engine, &sealed).unwrap(), dek, "{case}");
        assert_eq!(kind(seal(&engine, 1)), ErrorKind::RollbackUnresolved, "{case}");
        let key_id = id(1);
        assert_eq!(
            fault(engine.keyring().update(&key_id, |keys| keys.rotate(&key_id))),
            StoreFault::RolledBack,
            "{case}"
        );
        // A version that is not held may be on the other branch.
        let unheld = engine.keyring().with_version(&key_id, 5, |_| ());
        assert_eq!(fault(unheld), StoreFault::RolledBack, "{case}");
        assert_eq!(format!("{store:?}"), format!("{before:?}"), "{case}");
        assert!(engine.keyring().counters().rollbacks >= 2, "{case}");

        // The same when the other branch is ahead.
        if case == "restored" {
            for _ in 0..5 {
                rotate(&process(&store), 1);
            }
            assert_eq!(fault(engine.keyring().load(&id(1))), StoreFault::RolledBack, "{case}");
            assert_eq!(kind(seal(&engine, 1)), ErrorKind::RollbackUnresolved, "{case}");
        }
    }
}

#[test]
fn the_newer_document_ends_a_rollback_if_it_comes_back() {
    let (store, engine) = one_key();
    let old = store.copy();
    rotate(&engine, 1);
    let new = store.copy();
    store.restore(&old);
    assert_eq!(fault(engine.keyring().load(&id(1))), StoreFault::RolledBack);
    store.restore(&new);
    engine.keyring().load(&id(1)).unwrap();
    assert_eq!(seal(&engine, 1).unwrap().1.key_version(), 1);
}

#[test]
fn write_back_puts_the_held_document_above_the_one_in_the_store() {
    for (case, roll_back) in rollbacks() {
        let (store, engine, (dek, sealed)) = rolled_back(case, roll_back);

        engine.keyring().write_back(&id(1)).unwrap();
        assert_eq!(open(&process(&store), &sealed).unwrap(), dek, "{case}");
        assert_eq!(rotate(&engine, 1), 2, "{case}");
        assert_eq!(seal(&process(&store), 1).unwrap().1.key_version(), 2, "{case}");
        // Without a rollback, it writes nothing.
        let before = document(&store, 1);
        engine.keyring().write_back(&id(1)).unwrap();
        assert_eq!(document(&store, 1), before, "{case}");
    }
}

#[test]
fn adopt_takes_what_the_store_has() {
    for (case, roll_back) in rollbacks() {
        let (store, engine) = one_key();
        let (dek, old) = seal(&engine, 1).unwrap();
        let backup = store.copy();
        rotate(&engine, 1);
        let (_, lost) = seal(&engine, 1).unwrap();
        roll_back(&store, &backup);
        assert_eq!(fault(engine.keyring().load(&id(1))), StoreFault::RolledBack, "{case}");

        engine.keyring().adopt(&id(1)).unwrap();
        if case == "deleted" {
            assert_eq!(kind(open(&engine, &old)), ErrorKind::UnknownKey);
            create(&engine, 1);
        } else {
            assert_eq!(open(&engine, &old).unwrap(), dek, "{case}");
            assert!(open(&engine, &lost).is_err(), "{case}");
            rotate(&engine, 1);
        }
        seal(&engine, 1).unwrap();
    }
}

/// Lets the next `changed` read the store, and holds its answer back. The first barrier tells that it was read, and the
/// second one lets the answer go.
pub(crate) fn slow_answer(store: &MemoryStore) -> (Arc<Barrier>, Arc<Barrier>) {
    let (read, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (reading, going) = (Arc::clone(&read), Arc::clone(&go_on));
    let first = AtomicBool::new(true);
    store.set_script(move |request, _call| match request {
        Request::Changed { .. } if first.swap(false, Ordering::SeqCst) => {
            let (reading, going) = (Arc::clone(&reading), Arc::clone(&going));
            Action::ServeThen(Box::new(move || {
                reading.wait();
                going.wait();
            }))
        }
        _ => Action::Serve,
    });
    (read, go_on)
}

#[test]
fn an_answer_from_before_a_rollback_does_not_end_it() {
    let (store, engine) = one_key();
    let engine = Arc::new(engine);
    let backup = store.copy();
    rotate(&engine, 1);
    // A refresh finds the document unchanged. Before its answer arrives, another call finds the rollback.
    let (read, go_on) = slow_answer(&store);
    let refreshing = Arc::clone(&engine);
    let refresh = thread::spawn(move || refreshing.keyring().refresh());
    read.wait();
    store.restore(&backup);
    assert_eq!(fault(engine.keyring().load(&id(1))), StoreFault::RolledBack);
    go_on.wait();
    refresh.join().unwrap().unwrap();
    assert_eq!(kind(seal(&engine, 1)), ErrorKind::RollbackUnresolved);
}

#[test]
fn an_answer_that_was_overtaken_is_no_rollback() {
    let (store, engine) = one_key();
    let engine = Arc::new(engine);
    // A refresh reads, and its answer arrives after this process has made a newer document.
    let other = process(&store);
    rotate(&other, 1);
    let (read, go_on) = slow_answer(&store);
    let refresh = {
        let engine = Arc::clone(&engine);
        thread::spawn(move || engine.keyring().refresh())
    };
    read.wait();
    assert_eq!(rotate(&engine, 1), 2);
    go_on.wait();
    assert_eq!(refresh.join().unwrap().unwrap(), 0);
    assert_eq!(seal(&engine, 1).unwrap().1.key_version(), 2);
    assert_eq!(engine.keyring().counters().rollbacks, 0);
}

#[test]
fn a_document_that_is_not_the_keys_is_refused_each_with_its_own_error() {
    let (store, engine) = one_key();
    create(&engine, 2);
    let reader = process(&store);
    seal(&reader, 1).unwrap();
    let good = document(&store, 1);
    let with = |text: Vec<u8>| StoredDocument {
        revision: Revision::new(&[9; 32]).unwrap(),
        document: text,
    };
    let file = |root: CmkVersion, keys: &[u64]| {
        let (_directory, path) = crate::keyring_file::directory();
        let keyring = dekseal::FileKeyring::create(&path, root).unwrap();
        keyring
            .update(|set| keys.iter().try_for_each(|number| set.create_key(id(*number))))
            .unwrap();
        std::fs::read(&path).unwrap()
    };
    let text = String::from_utf8(good.document.clone()).unwrap();
    let cases = [
        ("another row", document(&store, 2).document, StoreFault::OtherKey),
        ("two keys", file(root(0), &[1, 2]), StoreFault::KeyCount),
        ("no key", file(root(0), &[]), StoreFault::KeyCount),
        ("another root", file(root(1), &[1]), StoreFault::WrongRoot),
        ("another line", file(root(0), &[1]), StoreFault::RolledBack),
        ("other bytes", b"{}".to_vec(), StoreFault::NotADocument),
        (
            "changed",
            text.replace("\"enabled\"", "\"disabled\"").into_bytes(),
            StoreFault::Changed,
        ),
    ];
    for (case, text, expected) in cases {
        // A process that holds the key, and one that does not.
        for engine in [&reader, &process(&store)] {
            store.overwrite(&id(1), Some(with(text.clone())));
            let held = engine.keyring().is_ready(&id(1));
            if case == "another line" && !held {
                // This process has seen nothing that the document could contradict.
                continue;
            }
            let error = engine.keyring().load(&id(1)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Store(expected), "{case}: {error}");
            assert!(error.key_id().is_some(), "{case}: {error}");
            if expected == StoreFault::RolledBack {
                store.overwrite(&id(1), Some(good.clone()));
                engine.keyring().load(&id(1)).unwrap();
            } else if held {
                // The refused document does not confirm the held one, and does not replace it.
                seal(engine, 1).unwrap();
            } else {
                assert_eq!(fault(seal(engine, 1)), expected, "{case}");
            }
        }
    }
}

#[test]
fn no_byte_of_a_document_can_be_changed() {
    let (store, engine) = one_key();
    let good = document(&store, 1);
    let mut harmless = 0;
    for at in 0..good.document.len() {
        let mut bad = good.clone();
        bad.document[at] ^= 1;
        bad.revision = Revision::new(&[8; 32]).unwrap();
        store.overwrite(&id(1), Some(bad));
        // White space and the case of a digit have no meaning, so such a document is equal.
        match process(&store).keyring().load(&id(1)) {
            Ok(()) => harmless += 1,
            Err(error) => assert!(matches!(error.kind(), ErrorKind::Store(_)), "byte {at}: {error}"),
        }
    }
    assert!(harmless < good.document.len() / 10, "{harmless} bytes");
    drop(engine);
}

#[test]
fn a_purged_key_is_gone_everywhere_and_is_no_rollback() {
    let (store, engine) = one_key();
    let other = process(&store);
    seal(&other, 1).unwrap();
    let key_id = id(1);
    // A deletion that an administrator scheduled a year ago.
    let now = dekseal::UnixTime::now().unwrap().as_secs();
    let year_ago = dekseal::UnixTime::from_secs(now - 365 * 24 * 60 * 60).unwrap();
    let schedule = |keys: &mut dekseal::Keyset| keys.schedule_deletion_at(&key_id, 7, year_ago).map(drop);
    engine.keyring().update(&key_id, schedule).unwrap();
    other.keyring().load(&key_id).unwrap();
    let pending = document(&store, 1);
    engine.keyring().update(&key_id, |keys| keys.purge(&key_id)).unwrap();
    assert!(store.get(&key_id, &crate::conformance::call()).unwrap().is_none());
    for engine in [&engine, &other] {
        assert_eq!(kind(engine.keyring().load(&key_id)), ErrorKind::UnknownKey);
        assert_eq!(engine.keyring().counters().rollbacks, 0);
        assert_eq!(engine.keyring().counters().held, 0);
    }
    // An old copy of the row is a rollback.
    store.overwrite(&key_id, Some(pending));
    assert_eq!(fault(other.keyring().load(&key_id)), StoreFault::RolledBack);
    // A new key with the same ID is not.
    store.overwrite(&key_id, None);
    create(&engine, 1);
    other.keyring().load(&key_id).unwrap();
}

#[test]
fn eviction_keeps_what_was_used_last_and_forgets_no_rollback() {
    let store = Arc::new(MemoryStore::new());
    let writer = process(&store);
    for number in 0..40 {
        create(&writer, number);
    }
    let backup = store.copy();
    for number in 0..40 {
        rotate(&writer, number);
    }
    let reader = process_with(&store, |settings| settings.capacity = 16);
    for number in 0..40 {
        seal(&reader, number).unwrap();
        thread::sleep(Duration::from_millis(2));
        seal(&reader, 0).unwrap();
    }
    let counters = reader.keyring().counters();
    assert!((15..=16).contains(&counters.held), "{counters:?}");
    assert_eq!(counters.evictions, 40 - u64::try_from(counters.held).unwrap());
    assert!(reader.keyring().is_ready(&id(0)) && reader.keyring().is_ready(&id(39)));
    assert!(!reader.keyring().is_ready(&id(1)) && !reader.keyring().is_ready(&id(20)));
    // Key 1 is not held. Its older document is refused all the same.
    store.restore(&backup);
    assert_eq!(fault(seal(&reader, 1)), StoreFault::RolledBack);
    reader.keyring().adopt(&id(1)).unwrap();
    assert_eq!(seal(&reader, 1).unwrap().1.key_version(), 0);
}

#[test]
fn a_key_that_was_rolled_back_is_not_evicted() {
    let (store, _) = one_key();
    let reader = process_with(&store, |settings| settings.capacity = 4);
    let (_, sealed) = seal(&reader, 1).unwrap();
    store.overwrite(&id(1), None);
    assert_eq!(fault(reader.keyring().load(&id(1))), StoreFault::RolledBack);
    for number in 2..20 {
        create(&reader, number);
    }
    open(&reader, &sealed).unwrap();
}

#[test]
fn a_fleet_changes_its_root_without_stopping() {
    let store = Arc::new(MemoryStore::new());
    let [here, elsewhere] = [process(&store), process(&store)];
    for number in 0..5 {
        create(&here, number);
    }
    let sealed: Vec<_> = (0..5).map(|number| seal(&here, number).unwrap()).collect();
    // 1. Every process reads under the new root. 2. Every process writes under it.
    for (writing, reading) in [(0, 1), (1, 0)] {
        for engine in [&here, &elsewhere] {
            engine.keyring().set_roots(root(writing), [root(reading)]);
            let all: Vec<_> = sealed.iter().map(|(_, sealed)| open(engine, sealed).unwrap()).collect();
            assert!(all.iter().zip(&sealed).all(|(opened, (dek, _))| opened == dek));
        }
    }
    // An ordinary change keeps the old root. A new key gets the new one.
    rotate(&here, 0);
    create(&here, 5);
    let mut only_new = process(&store);
    only_new.keyring().set_roots(root(1), []);
    assert_eq!(fault(seal(&only_new, 0)), StoreFault::WrongRoot);
    let error = seal(&only_new, 0).unwrap_err();
    assert_eq!(
        (error.found_key_id(), error.found_key_version()),
        (Some(key_id(ROOT_ID)), Some(0))
    );
    seal(&only_new, 5).unwrap();

    // 3. A pass that stops after two documents, and one that continues.
    let mut last = None;
    let pass = here.keyring().reseal(None, |key_id, result| {
        assert!(result.unwrap());
        let second = last.replace(*key_id).is_some();
        if second {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    let pass = pass.unwrap();
    assert_eq!((pass.resealed, pass.present, pass.is_complete), (2, 0, false));
    let pass = here.keyring().reseal(last.as_ref(), |_, result| {
        result.unwrap();
        ControlFlow::Continue(())
    });
    let pass = pass.unwrap();
    assert_eq!(
        (pass.resealed, pass.present, pass.failed, pass.is_complete),
        (3, 1, 0, true)
    );
    // 4. A complete pass finds nothing to do.
    let pass = elsewhere.keyring().reseal(None, |_, result| {
        assert!(!result.unwrap());
        ControlFlow::Continue(())
    });
    assert_eq!(pass.unwrap().present, 6);
    only_new = process(&store);
    only_new.keyring().set_roots(root(1), []);
    for (dek, sealed) in &sealed {
        assert_eq!(open(&only_new, sealed).unwrap(), *dek);
        assert_eq!(open(&elsewhere, sealed).unwrap(), *dek);
    }
}

#[test]
fn a_pass_tells_of_a_document_that_it_cannot_read_and_goes_on() {
    let (store, engine) = one_key();
    create(&engine, 2);
    let mut bad = document(&store, 1);
    bad.document[100] ^= 1;
    store.overwrite(&id(1), Some(bad));
    let other = StoreKeyring::with_settings(store, root(1), [root(0)], StoreSettings::default()).unwrap();
    let mut failed = Vec::new();
    let pass = other.reseal(None, |key_id, result| {
        failed.extend(result.is_err().then_some(*key_id));
        ControlFlow::Continue(())
    });
    let pass = pass.unwrap();
    assert_eq!((pass.resealed, pass.failed, pass.is_complete), (1, 1, true));
    assert_eq!(failed, [id(1)]);
    // The pass leaves nothing in memory.
    assert_eq!(other.counters().held, 0);
}

#[test]
fn a_snapshot_serves_while_the_store_is_away() {
    let (store, engine) = one_key();
    create(&engine, 2);
    let (dek, sealed) = seal(&engine, 1).unwrap();
    let snapshot = engine.keyring().snapshot().unwrap();
    store.set_script(|_request, _call| Action::Fail);
    let started = process(&store);
    assert_eq!(fault(open(&started, &sealed)), StoreFault::Unavailable);
    assert_eq!(started.keyring().restore(&snapshot).unwrap(), 2);
    assert_eq!(open(&started, &sealed).unwrap(), dek);
    seal(&started, 2).unwrap();
    assert_eq!(fault(seal(&started, 3)), StoreFault::Unavailable);

    // A snapshot is refused if a byte is changed, removed or added, and under another root.
    for at in 0..snapshot.len() {
        let mut bad = snapshot.clone();
        bad[at] ^= 1;
        assert!(process(&store).keyring().restore(&bad).is_err(), "byte {at}");
    }
    for bad in [&snapshot[..snapshot.len() - 1], &[&snapshot[..], b"x"].concat(), b""] {
        assert!(process(&store).keyring().restore(bad).is_err());
    }
    let other = StoreKeyring::new(store.clone(), root(1));
    assert_eq!(fault(other.restore(&snapshot)), StoreFault::WrongRoot);
    // A snapshot does not replace newer documents.
    store.set_script(|_request, _call| Action::Serve);
    rotate(&started, 1);
    assert_eq!(started.keyring().restore(&snapshot).unwrap(), 0);
    assert_eq!(seal(&started, 1).unwrap().1.key_version(), 1);
}

/// FORMAT.md D6, implemented again from the document.
#[test]
fn a_snapshot_is_as_the_format_says() {
    let (store, engine) = one_key();
    create(&engine, 2);
    let before = dekseal::UnixTime::now().unwrap().as_secs();
    let snapshot = engine.keyring().snapshot().unwrap();
    let mut expected = [
        b"dekseals".as_slice(),
        ROOT_ID.as_bytes(),
        &0_u32.to_be_bytes(),
        &2_u32.to_be_bytes(),
    ]
    .concat();
    for number in [1, 2] {
        let StoredDocument { revision, document } = document(&store, number);
        expected.extend(id(number).as_bytes());
        // The store confirmed it when it was made, less than a minute ago.
        let confirmed: [u8; 8] = snapshot[expected.len()..][..8].try_into().unwrap();
        assert!((before - 60..=before).contains(&u64::from_be_bytes(confirmed)));
        expected.extend(confirmed);
        expected.push(32);
        expected.extend(revision.as_bytes());
        expected.extend(u32::try_from(document.len()).unwrap().to_be_bytes());
        expected.extend(document);
    }
    let reference = crate::reference::Key::new(ROOT_ID, 0, &[7; 32]).unwrap();
    expected.extend(reference.snapshot_mac(&expected));
    assert_eq!(snapshot, expected);
}

#[test]
fn a_snapshot_remembers_what_it_saw() {
    let (store, engine) = one_key();
    let backup = store.copy();
    rotate(&engine, 1);
    let snapshot = engine.keyring().snapshot().unwrap();
    store.restore(&backup);
    let started = process(&store);
    started.keyring().restore(&snapshot).unwrap();
    assert_eq!(fault(started.keyring().load(&id(1))), StoreFault::RolledBack);
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let set: [fn(&mut StoreSettings); 2] = [
        |settings| settings.max_age = settings.max_stale,
        |settings| settings.capacity = 0,
    ];
    for set in set {
        let mut settings = StoreSettings::default();
        set(&mut settings);
        let keyring = StoreKeyring::with_settings(MemoryStore::new(), root(0), [], settings);
        assert_eq!(fault(keyring), StoreFault::Settings);
    }
}

#[test]
fn the_refresher_takes_up_changes_and_ends_with_the_keyring() {
    for notifies in [true, false] {
        let store = MemoryStore::new();
        let store = Arc::new(if notifies { store.with_notifications() } else { store });
        let here = process(&store);
        create(&here, 1);
        let elsewhere = process_with(&store, |settings| {
            settings.max_age = Duration::from_millis(if notifies { 3_600_000 } else { 200 });
            settings.max_stale = Duration::from_secs(7200);
        });
        elsewhere.keyring().start_refresher().unwrap();
        elsewhere.keyring().start_refresher().unwrap();
        seal(&elsewhere, 1).unwrap();
        let key_id = id(1);
        here.keyring().update(&key_id, |keys| keys.disable(&key_id)).unwrap();
        let before = Instant::now();
        while seal(&elsewhere, 1).is_ok() {
            assert!(before.elapsed() < Duration::from_secs(20), "notifies: {notifies}");
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(kind(seal(&elsewhere, 1)), ErrorKind::KeyDisabled);
        assert!(elsewhere.keyring().counters().refreshes > 0);
        drop(elsewhere);
        // The thread keeps the store alive only until it notices.
        let before = Instant::now();
        while Arc::strong_count(&store) > 2 {
            assert!(before.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_blocking_fetch_in_an_update_of_another_key_is_no_deadlock() {
    let (_, engine) = one_key();
    create(&engine, 2);
    let (first, second) = (id(1), id(2));
    let nested = engine.keyring().update(&first, |keys| {
        engine.keyring().update(&second, |keys| keys.rotate(&second))?;
        seal(&engine, 1)?;
        keys.rotate(&first)
    });
    assert_eq!(nested.unwrap(), 1);
}
