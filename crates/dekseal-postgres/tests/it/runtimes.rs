//! Calls from threads of an async runtime.

use std::{sync::Arc, thread, time::Duration};

use dekseal::store::{Call, KeyStore};
use tokio::runtime::Builder;

use crate::{
    conformance::{call, key_id, stored},
    server::{create, options},
};

#[test]
fn a_store_is_made_used_and_dropped_on_an_async_thread() {
    if options().is_none() {
        return;
    }
    let runtimes = [
        Builder::new_current_thread().enable_all().build().unwrap(),
        Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap(),
    ];
    for runtime in runtimes {
        let used = async {
            let store = create(options().unwrap());
            store.put(&key_id(1), None, &stored(b"first"), &call()).unwrap();
            assert!(store.watch(Box::new(|_| true)));
            assert_eq!(store.get(&key_id(1), &call()).unwrap(), Some(stored(b"first")));
            drop(store);
            tokio::task::yield_now().await;
        };
        runtime.block_on(async {
            used.await;
            tokio::spawn(async {
                let store = create(options().unwrap());
                assert_eq!(store.get(&key_id(1), &call()).unwrap(), None);
            })
            .await
            .unwrap();
        });
    }
}

/// The documented use.
#[test]
fn a_call_on_a_thread_for_blocking_calls_leaves_the_runtime_to_others() {
    let Some(options) = options() else { return };
    let store = Arc::new(create(options));
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..32)
            .map(|number| {
                let store = store.clone();
                tokio::task::spawn_blocking(move || store.put(&key_id(number), None, &stored(b"first"), &call()))
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
    });
    assert_eq!(store.list(None, 100, &call()).unwrap().len(), 32);
}

#[test]
fn the_thread_ends_with_the_store() {
    let Some(options) = options() else { return };
    let store = Arc::new(create(options));
    let weak = Arc::downgrade(&store);
    let alive = Arc::new(());
    let held = alive.clone();
    assert!(store.watch(Box::new(move |_| {
        let _ = &held;
        true
    })));
    store.get(&key_id(1), &Call::within(Duration::from_secs(5))).unwrap();
    drop(store);
    assert!(weak.upgrade().is_none());
    // Dropping the store frees everything that its tasks held.
    for _ in 0..200 {
        if Arc::strong_count(&alive) == 1 {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("its tasks live on");
}
