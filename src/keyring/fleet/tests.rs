//! The rules about time (FORMAT.md D5), with a clock that the tests set.

use std::{
    boxed::Box,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use super::*;
use crate::{
    error::{ErrorKind, StoreFault},
    keyring::{
        Keyring,
        store::{Action, MemoryStore, Request},
    },
};

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn root() -> CmkVersion {
    CmkVersion::new("00000000-0000-0000-0000-00000000root".parse().unwrap(), 0, &[7; 32]).unwrap()
}

pub(super) fn key_id() -> KeyId {
    "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse().unwrap()
}

/// A store with one key, and a keyring that holds it. `max_age` is 60 s, and `max_stale` is an hour.
pub(super) fn keyring() -> (Arc<MemoryStore>, StoreKeyring<Arc<MemoryStore>>) {
    let store = Arc::new(MemoryStore::new());
    let keyring = StoreKeyring::new(Arc::clone(&store), root());
    keyring.update(&key_id(), |keys| keys.create_key(key_id())).unwrap();
    (store, keyring)
}

pub(super) fn seal(keyring: &StoreKeyring<Arc<MemoryStore>>) -> Result<u32, ErrorKind> {
    keyring
        .with_current(&key_id(), CmkVersion::key_version)
        .map_err(|error| error.kind())
}

pub(super) fn open(keyring: &StoreKeyring<Arc<MemoryStore>>, version: u32) -> Result<(), ErrorKind> {
    keyring
        .with_version(&key_id(), version, |_| ())
        .map_err(|error| error.kind())
}

/// Makes the store fail, and counts the requests.
pub(super) fn away(store: &MemoryStore) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    store.set_script(move |_request, _call| {
        counter.fetch_add(1, Ordering::SeqCst);
        Action::Fail
    });
    count
}

pub(super) fn back(store: &MemoryStore) {
    store.set_script(|_request, _call| Action::Serve);
}

pub(super) fn disable(store: &Arc<MemoryStore>) {
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
