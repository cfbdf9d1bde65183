//! The rules about time (FORMAT.md D5), with a clock that the tests set.

use std::{
    boxed::Box,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    remembered::{Remembered, Seen, State},
    *,
};
use crate::{
    error::StoreFault,
    keyring::{
        document::Edition,
        store::{Action, MemoryStore, Request},
    },
};

const SECOND: Duration = Duration::from_secs(1);

fn root() -> CmkVersion {
    CmkVersion::new("00000000-0000-0000-0000-00000000root".parse().unwrap(), 0, &[7; 32]).unwrap()
}

fn key_id() -> KeyId {
    "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse().unwrap()
}

/// A store with one key, and a keyring that holds it. `max_age` is 60 s, and `max_stale` is an hour.
fn keyring() -> (Arc<MemoryStore>, StoreKeyring<Arc<MemoryStore>>) {
    let store = Arc::new(MemoryStore::new());
    let keyring = StoreKeyring::new(Arc::clone(&store), root());
    keyring.update(&key_id(), |keys| keys.create_key(key_id())).unwrap();
    (store, keyring)
}

/// Another keyring that holds the key, whose refresher checks it every 10 ms.
fn checked_often(store: &Arc<MemoryStore>) -> StoreKeyring<Arc<MemoryStore>> {
    let settings = StoreSettings {
        max_age: Duration::from_millis(40),
        ..StoreSettings::default()
    };
    let keyring = StoreKeyring::with_settings(Arc::clone(store), root(), [], settings).unwrap();
    keyring.load(&key_id()).unwrap();
    keyring
}

fn seal(keyring: &StoreKeyring<Arc<MemoryStore>>) -> Result<u32, ErrorKind> {
    keyring
        .with_current(&key_id(), CmkVersion::key_version)
        .map_err(|error| error.kind())
}

fn open(keyring: &StoreKeyring<Arc<MemoryStore>>, version: u32) -> Result<(), ErrorKind> {
    keyring
        .with_version(&key_id(), version, |_| ())
        .map_err(|error| error.kind())
}

/// Makes the store fail, and counts the requests.
fn away(store: &MemoryStore) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    store.set_script(move |_request, _call| {
        counter.fetch_add(1, Ordering::SeqCst);
        Action::Fail
    });
    count
}

fn back(store: &MemoryStore) {
    store.set_script(|_request, _call| Action::Serve);
}

fn disable(store: &Arc<MemoryStore>) {
    let elsewhere = StoreKeyring::new(Arc::clone(store), root());
    elsewhere.update(&key_id(), |keys| keys.disable(&key_id())).unwrap();
}

#[test]
fn without_a_refresher_a_call_confirms_a_document_older_than_max_age() {
    let (store, keyring) = keyring();
    disable(&store);
    keyring.shared.clock.advance(59 * SECOND);
    assert_eq!(seal(&keyring), Ok(0));
    assert!(keyring.is_ready(&key_id()));
    keyring.shared.clock.advance(2 * SECOND);
    assert!(!keyring.is_ready(&key_id()));
    assert_eq!(seal(&keyring), Err(ErrorKind::KeyDisabled));
}

#[test]
fn a_store_that_is_away_stops_nothing_until_max_stale() {
    let (store, keyring) = keyring();
    let requests = away(&store);
    keyring.shared.clock.advance(61 * SECOND);
    assert_eq!(seal(&keyring), Ok(0));
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    // For one second no other call waits for the store.
    assert_eq!((seal(&keyring), open(&keyring, 0)), (Ok(0), Ok(())));
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    keyring.shared.clock.advance(2 * SECOND);
    assert_eq!(seal(&keyring), Ok(0));
    assert_eq!(requests.load(Ordering::SeqCst), 2);

    keyring.shared.clock.advance(3536 * SECOND);
    assert_eq!(seal(&keyring), Ok(0));
    keyring.shared.clock.advance(2 * SECOND);
    let stale = ErrorKind::Store(StoreFault::Stale);
    assert_eq!((seal(&keyring), open(&keyring, 0)), (Err(stale), Err(stale)));
    let error = keyring.with_current(&key_id(), |_| ()).unwrap_err();
    assert_eq!((error.key_id(), error.newest_key_version()), (Some(key_id()), Some(0)));

    back(&store);
    keyring.shared.clock.advance(2 * SECOND);
    assert_eq!(seal(&keyring), Ok(0));
}

#[test]
fn a_stale_key_says_how_the_store_failed() {
    let (store, keyring) = keyring();
    away(&store);
    keyring.shared.clock.advance(3601 * SECOND);
    let error = keyring.with_current(&key_id(), |_| ()).unwrap_err();
    let source = core::error::Error::source(&error).unwrap();
    let source = source.downcast_ref::<Error>().unwrap();
    assert_eq!(source.kind(), ErrorKind::Store(StoreFault::Unavailable));
}

#[test]
fn an_infinite_max_stale_never_ends() {
    let store = Arc::new(MemoryStore::new());
    let settings = StoreSettings {
        max_stale: Duration::MAX,
        ..StoreSettings::default()
    };
    let keyring = StoreKeyring::with_settings(Arc::clone(&store), root(), [], settings).unwrap();
    keyring.update(&key_id(), |keys| keys.create_key(key_id())).unwrap();
    away(&store);
    keyring.shared.clock.advance(1_000_000_000 * SECOND);
    assert_eq!(seal(&keyring), Ok(0));
}

#[test]
fn age_counts_from_the_start_of_the_request() {
    let (store, keyring) = keyring();
    let keyring = Arc::new(keyring);
    let slow = Arc::clone(&keyring);
    let first = AtomicBool::new(true);
    store.set_script(move |request, _call| match request {
        Request::Changed { .. } if first.swap(false, Ordering::SeqCst) => {
            let slow = Arc::clone(&slow);
            Action::ServeThen(Box::new(move || slow.shared.clock.advance(50 * SECOND)))
        }
        _ => Action::Serve,
    });
    // The answer takes 50 seconds.
    keyring.load(&key_id()).unwrap();
    assert!(keyring.is_ready(&key_id()));
    keyring.shared.clock.advance(11 * SECOND);
    assert!(!keyring.is_ready(&key_id()));
    back(&store); // it holds the keyring
}

#[test]
fn with_a_refresher_no_call_waits_for_a_document_that_is_old() {
    let (store, keyring) = keyring();
    let requests = away(&store);
    // Pretends that a refresher runs and cannot reach the store.
    keyring.shared.refreshing.store(true, Ordering::Relaxed);
    keyring.shared.clock.advance(3599 * SECOND);
    assert_eq!((seal(&keyring), open(&keyring, 0)), (Ok(0), Ok(())));
    assert_eq!(requests.load(Ordering::SeqCst), 0);
    keyring.shared.clock.advance(2 * SECOND);
    assert_eq!(seal(&keyring), Err(ErrorKind::Store(StoreFault::Stale)));
}

#[test]
fn a_refresher_that_panicked_leaves_the_calls_to_confirm() {
    let (store, keyring) = keyring();
    let keyring_of_panics = checked_often(&store);
    store.set_script(|_request, call| {
        if call.is_refresh() {
            panic!("a fault of the store")
        } else {
            Action::Serve
        }
    });
    keyring_of_panics.start_refresher().unwrap();
    while keyring_of_panics.shared.refreshing.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(1));
    }
    store.set_script(|_request, _call| Action::Serve);
    disable(&store);
    keyring_of_panics.shared.clock.advance(SECOND);
    assert_eq!(seal(&keyring_of_panics), Err(ErrorKind::KeyDisabled));
    drop(keyring);
}

#[test]
fn a_store_that_panics_fails_the_calls_that_wait_for_it() {
    let (store, _keyring) = keyring();
    let keyring = Arc::new(StoreKeyring::new(Arc::clone(&store), root()));
    let first = AtomicBool::new(true);
    store.set_script(move |_request, _call| {
        if first.swap(false, Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(50));
            panic!("a fault of the store");
        }
        Action::Serve
    });
    let calling = Arc::clone(&keyring);
    assert!(thread::spawn(move || seal(&calling)).join().is_err());
    assert_eq!(seal(&keyring), Ok(0));
}

#[test]
fn a_key_that_was_rolled_back_opens_for_as_long_as_it_is_held() {
    let (store, keyring) = keyring();
    store.overwrite(&key_id(), None);
    assert!(keyring.load(&key_id()).is_err());
    keyring.shared.clock.advance(10_000 * SECOND);
    assert_eq!(open(&keyring, 0), Ok(()));
    assert_eq!(seal(&keyring), Err(ErrorKind::RollbackUnresolved));
}

#[test]
fn a_rollback_that_a_call_finds_stops_that_call_too() {
    let (store, keyring) = keyring();
    store.overwrite(&key_id(), None);
    keyring.shared.clock.advance(61 * SECOND);
    assert_eq!(seal(&keyring), Err(ErrorKind::RollbackUnresolved));
    // The same after `max_stale`.
    let (store, keyring) = self::keyring();
    store.overwrite(&key_id(), None);
    keyring.shared.clock.advance(3601 * SECOND);
    assert_eq!(open(&keyring, 0), Ok(()));
    assert_eq!(seal(&keyring), Err(ErrorKind::RollbackUnresolved));
}

#[test]
fn a_refused_document_confirms_nothing() {
    let (store, keyring) = keyring();
    let call = crate::keyring::store::Call::within(SECOND);
    let mut bad = store.get(&key_id(), &call).unwrap().unwrap();
    let text = std::string::String::from_utf8(bad.document).unwrap();
    bad.document = text.replace("enabled", "disabled").into_bytes();
    bad.revision = crate::keyring::store::Revision::new(&[1; 32]).unwrap();
    store.overwrite(&key_id(), Some(bad));
    keyring.shared.clock.advance(61 * SECOND);
    assert_eq!(seal(&keyring), Ok(0));
    keyring.shared.clock.advance(3600 * SECOND);
    assert_eq!(seal(&keyring), Err(ErrorKind::Store(StoreFault::Changed)));
}

#[test]
fn the_limits_of_a_snapshot_count_from_the_confirmation() {
    let (store, keyring) = keyring();
    keyring.shared.clock.advance(3000 * SECOND);
    let snapshot = keyring.snapshot().unwrap();
    away(&store);
    let started = StoreKeyring::new(Arc::clone(&store), root());
    assert_eq!(started.restore(&snapshot).unwrap(), 1);
    assert_eq!(seal(&started), Ok(0));
    started.shared.clock.advance(590 * SECOND);
    assert_eq!(seal(&started), Ok(0));
    started.shared.clock.advance(20 * SECOND);
    assert_eq!(seal(&started), Err(ErrorKind::Store(StoreFault::Stale)));
}

#[test]
fn the_age_of_the_oldest_document_is_counted() {
    let (store, keyring) = keyring();
    keyring.shared.clock.advance(5 * SECOND);
    let other: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a380".parse().unwrap();
    keyring.update(&other, |keys| keys.create_key(other)).unwrap();
    let oldest = keyring.counters().oldest.unwrap();
    assert!((5 * SECOND..15 * SECOND).contains(&oldest), "{oldest:?}");
    keyring.refresh().unwrap();
    assert!(keyring.counters().oldest.unwrap() < 5 * SECOND);
    drop(store);
}

fn remembered(capacity: usize) -> (Remembered, impl Fn(u64) -> Seen) {
    let seen = |generation| Seen {
        order: generation,
        state: State::Purged(Edition {
            id: [0; 16],
            generation,
            mac: [0; 32],
        }),
    };
    (Remembered::new(capacity), seen)
}

fn numbered(number: usize) -> KeyId {
    std::format!("00000000-0000-0000-0000-{number:012}").parse().unwrap()
}

#[test]
fn remembered_documents_go_in_the_order_in_which_they_came() {
    let (mut remembered, seen) = remembered(3);
    for number in 0..3 {
        remembered.insert(numbered(number), seen(1));
    }
    // Key 0 is inserted again, so key 1 is dropped first.
    remembered.insert(numbered(0), seen(2));
    remembered.insert(numbered(3), seen(1));
    let left = (0..4).filter(|number| remembered.get(&numbered(*number)).is_some());
    assert_eq!(left.collect::<Vec<_>>(), [0, 2, 3]);
    assert_eq!(remembered.get(&numbered(0)).unwrap().order, 2);
}

/// The table of a map grows when removed entries have left marks in most of it. At this size it does.
#[test]
fn remembered_documents_take_the_stated_memory() {
    const CAPACITY: usize = 7_000;
    let (mut remembered, seen) = remembered(CAPACITY);
    let used = allocation_counter::measure(|| {
        for number in 0..20 * CAPACITY {
            remembered.insert(numbered(number), seen(1));
            // Keys that come back into memory are no longer remembered.
            remembered.remove(&numbered(number / 2));
        }
    });
    assert!(used.bytes_max < 250 * CAPACITY as u64, "{used:?}");
}

/// The grace period covers the deadline of a call. The machine may be suspended meanwhile.
#[test]
fn a_change_is_not_sent_after_its_deadline() {
    let (store, keyring) = keyring();
    let before = store
        .get(&key_id(), &crate::keyring::store::Call::within(SECOND))
        .unwrap();
    let late = keyring.update(&key_id(), |keys| {
        keyring.shared.clock.advance(6 * SECOND);
        keys.rotate(&key_id())
    });
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Store(StoreFault::Deadline));
    let after = store
        .get(&key_id(), &crate::keyring::store::Call::within(SECOND))
        .unwrap();
    assert_eq!(before, after);

    // It is not sent again either.
    let puts = Arc::new(AtomicUsize::new(0));
    let keyring = Arc::new(keyring);
    let (counter, suspended) = (Arc::clone(&puts), Arc::clone(&keyring));
    store.set_script(move |request, _call| match request {
        Request::Put { .. } => {
            counter.fetch_add(1, Ordering::SeqCst);
            suspended.shared.clock.advance(6 * SECOND);
            Action::LoseRequest
        }
        _ => Action::Serve,
    });
    let unknown = keyring.update(&key_id(), |keys| keys.rotate(&key_id()));
    assert_eq!(
        unknown.unwrap_err().kind(),
        ErrorKind::Store(StoreFault::OutcomeUnknown)
    );
    assert_eq!(puts.load(Ordering::SeqCst), 1);
    back(&store);
}

#[test]
fn one_call_at_a_time_waits_for_a_store_that_hangs() {
    let (store, keyring) = keyring();
    let keyring = Arc::new(keyring);
    away(&store);
    keyring.shared.clock.advance(3601 * SECOND);
    let stale = Err(ErrorKind::Store(StoreFault::Stale));
    assert_eq!(seal(&keyring), stale);
    // After the pause, the store hangs with the first call. Others do not wait.
    keyring.shared.clock.advance(SECOND);
    let (asked, go_on) = (
        Arc::new(std::sync::Barrier::new(2)),
        Arc::new(std::sync::Barrier::new(2)),
    );
    let (asking, going) = (Arc::clone(&asked), Arc::clone(&go_on));
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    store.set_script(move |_request, _call| {
        if counter.fetch_add(1, Ordering::SeqCst) == 0 {
            asking.wait();
            going.wait();
        }
        Action::Serve
    });
    let first = Arc::clone(&keyring);
    let first = thread::spawn(move || seal(&first));
    asked.wait();
    assert_eq!(
        (seal(&keyring), open(&keyring, 0)),
        (stale, Err(ErrorKind::Store(StoreFault::Stale)))
    );
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    go_on.wait();
    assert_eq!(first.join().unwrap(), Ok(0));
    assert_eq!(seal(&keyring), Ok(0));
}

#[test]
fn no_call_waits_if_the_refresher_finds_the_store_away() {
    let (store, _) = keyring();
    let keyring = checked_often(&store);
    // Those of this thread, because the refresher tries the connections of calls too.
    let calls = Arc::new(AtomicUsize::new(0));
    let (counter, caller) = (Arc::clone(&calls), thread::current().id());
    store.set_script(move |_request, _call| {
        if thread::current().id() == caller {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        Action::Fail
    });
    keyring.start_refresher().unwrap();
    while !keyring.shared.refresh_failed.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(1));
    }
    keyring.shared.clock.advance(3601 * SECOND);
    for _ in 0..3 {
        assert_eq!(seal(&keyring), Err(ErrorKind::Store(StoreFault::Stale)));
        keyring.shared.clock.advance(SECOND);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    // A key that is not held is asked for all the same.
    let other: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a380".parse().unwrap();
    assert!(keyring.load(&other).is_err());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    back(&store);
    while seal(&keyring).is_err() {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_refresher_whose_own_connection_fails_uses_those_of_calls() {
    let (store, _) = keyring();
    let keyring = checked_often(&store);
    store.set_script(|_request, call| if call.is_refresh() { Action::Fail } else { Action::Serve });
    let until = |wanted: Result<u32, ErrorKind>| {
        let begun = std::time::Instant::now();
        while seal(&keyring) != wanted {
            assert!(begun.elapsed() < 20 * SECOND, "{:?}", seal(&keyring));
            thread::sleep(Duration::from_millis(1));
        }
    };
    keyring.start_refresher().unwrap();
    // Older than `max_stale`, until the next check.
    keyring.shared.clock.advance(3601 * SECOND);
    until(Ok(0));
    disable(&store);
    until(Err(ErrorKind::KeyDisabled));
}

/// Two threads write one key back. The first to be answered comes last.
#[test]
fn an_older_document_that_was_written_back_does_not_replace_a_newer_one() {
    let (store, keyring) = keyring();
    let cache = &keyring.shared.cache;
    let stored = || {
        let call = crate::keyring::store::Call::within(SECOND);
        store.get(&key_id(), &call).unwrap().unwrap()
    };
    let rolled_back = cache.get(&key_id()).unwrap().edition;
    let begun = cache.begin(keyring.shared.clock.now());
    let mut written = [(); 2].map(|()| {
        let elsewhere = StoreKeyring::new(Arc::clone(&store), root());
        elsewhere.update(&key_id(), |keys| keys.rotate(&key_id())).unwrap();
        stored()
    });
    written.reverse();
    let taken = written.map(|stored| {
        let roots = keyring.shared.roots.load();
        let taken = cache.restored(&key_id(), begun, rolled_back, stored, &roots);
        taken.unwrap()
    });
    assert_eq!(taken, [true, false]);
    assert_eq!(cache.revision(&key_id()), Some(stored().revision));
}

#[test]
fn a_document_that_was_confirmed_in_the_future_is_left_out_of_a_snapshot() {
    let (store, keyring) = keyring();
    let snapshot = keyring.snapshot().unwrap();
    // magic, root, count and key ID come before the time.
    let at = 8 + 36 + 4 + 4 + 36;
    let confirmed = u64::from_be_bytes(snapshot[at..at + 8].try_into().unwrap());
    let ahead_by = |seconds: u64| {
        let mut snapshot = snapshot[..snapshot.len() - 32].to_vec();
        snapshot[at..at + 8].copy_from_slice(&(confirmed + seconds).to_be_bytes());
        let mac = root().mac(crate::labels::SNAPSHOT_MAC, &snapshot);
        snapshot.extend(mac);
        StoreKeyring::new(Arc::clone(&store), root()).restore(&snapshot)
    };
    assert_eq!(ahead_by(30).unwrap(), 1);
    assert_eq!(ahead_by(120).unwrap(), 0);
}

#[test]
fn the_coarse_clock_follows_the_precise_one() {
    let clock = clock::Clock::default();
    let mut last = clock.coarse();
    for _ in 0..20 {
        let now = clock.now();
        loop {
            let coarse = clock.coarse();
            assert!(coarse >= last, "it went back");
            assert!(clock.now() >= coarse, "it is ahead");
            last = coarse;
            if coarse >= now {
                break;
            }
        }
    }
    clock.advance(SECOND);
    assert!(clock.coarse().since(last) >= 1000);
}
