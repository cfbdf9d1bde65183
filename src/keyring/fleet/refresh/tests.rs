//! Calls beside a refresher, with a clock that the tests set.

use std::sync::atomic::AtomicUsize;

use super::{
    super::{
        super::store::{Action, MemoryStore},
        StoreSettings,
        tests::{SECOND, away, back, disable, key_id, keyring, open, root, seal},
    },
    *,
};
use crate::error::{ErrorKind, StoreFault};

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
