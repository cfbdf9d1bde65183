//! Calls from threads of an async runtime.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use dekseal::{
    Engine, ErrorKind,
    store::{Call, KeyStore},
};
use dekseal_postgres::load;
use tokio::runtime::{Builder, Runtime};

use crate::{
    conformance::{call, key_id, stored},
    fleet::{context, engine, keyring, patient},
    server::{Server, create, options},
};

fn runtimes() -> [Runtime; 2] {
    [
        Builder::new_current_thread().enable_all().build().unwrap(),
        Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap(),
    ]
}

#[test]
fn a_store_is_made_used_and_dropped_on_an_async_thread() {
    if options().is_none() {
        return;
    }
    for runtime in runtimes() {
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
fn a_key_is_loaded_while_the_runtime_serves_others() {
    let Some(server) = Server::start(&[]) else { return };
    let writing = engine(create(server.options()), patient());
    let keys: Vec<_> = (0..100).map(key_id).collect();
    for key in &keys {
        writing.keyring().update(key, |keys| keys.create_key(*key)).unwrap();
    }
    for runtime in runtimes() {
        let keyring = Arc::new(keyring(create(server.options()), patient()));
        let engine = Engine::new(keyring.clone());
        runtime.block_on(async {
            server.signal("STOP");
            let loads: Vec<_> = keys
                .iter()
                .map(|key| {
                    let (keyring, key) = (keyring.clone(), *key);
                    assert!(!keyring.is_ready(&key));
                    tokio::spawn(async move { load(&keyring, key).await })
                })
                .collect();
            // The loads wait for the server, and the runtime's one thread does not.
            let begun = Instant::now();
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(begun.elapsed() < Duration::from_secs(10) && loads.iter().all(|load| !load.is_finished()));
            server.signal("CONT");
            for load in loads {
                load.await.unwrap().unwrap();
            }
            for key in &keys {
                assert!(keyring.is_ready(key));
                engine.create_dek(key, &context()).unwrap();
            }
            // They were joined: one query each for those that came at once.
            let counters = keyring.counters();
            assert!(counters.misses == 0 && counters.fetches < 20, "{counters:?}");
            let unknown = load(&keyring, key_id(1000)).await.unwrap_err();
            assert_eq!(unknown.kind(), ErrorKind::UnknownKey);
            // A call that fetches on the runtime's own thread is slow, no more.
            let blob = writing.create_dek(&keys[0], &context()).unwrap().1;
            let cold = Engine::new(self::keyring(create(server.options()), patient()));
            cold.decrypt_dek(&keys[0], &context(), &blob).unwrap();
        });
        // A load that nobody waits for holds the keyring until it ends, and the end of both harms nothing.
        let weak = Arc::downgrade(&keyring);
        runtime.block_on(async {
            let load = tokio::spawn(async move { load(&keyring, key_id(1)).await });
            tokio::task::yield_now().await;
            load.abort();
        });
        drop((engine, runtime));
        for _ in 0..1000 {
            if weak.upgrade().is_none() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert!(weak.upgrade().is_none());
    }
}

/// Any executor will do, also one that knows nothing of tokio.
#[test]
fn a_key_is_loaded_without_a_runtime_of_the_host() {
    let Some(options) = options() else { return };
    let keyring = Arc::new(keyring(create(options), patient()));
    keyring.update(&key_id(1), |keys| keys.create_key(key_id(1))).unwrap();
    let mut load = pin!(load(&keyring, key_id(1)));
    let mut context = Context::from_waker(Waker::noop());
    let loaded = loop {
        match load.as_mut().poll(&mut context) {
            Poll::Ready(loaded) => break loaded,
            Poll::Pending => thread::sleep(Duration::from_millis(1)),
        }
    };
    loaded.unwrap();
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
