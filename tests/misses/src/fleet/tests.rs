//! Calls that miss at the same time, in many orders.

use std::time::{Duration, Instant};

use shuttle::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    cache::Taken,
    misses::{Found, Misses},
};
use crate::{
    error::{Error, StoreFault},
    key_id::KeyId,
};

/// How many orders are tried.
fn orders() -> usize {
    let wanted = std::env::var("ORDERS").ok();
    wanted.map_or(5_000, |wanted| wanted.parse().expect("a number"))
}

#[derive(Default)]
struct World {
    misses: Misses,
    newest: AtomicU64,
    queries: AtomicUsize,
}

impl World {
    /// A query: it begins, reads what is there, and takes its time.
    fn ask(&self, key_ids: &[KeyId]) -> Result<Found, Error> {
        self.queries.fetch_add(1, Ordering::SeqCst);
        let newest = self.newest.load(Ordering::SeqCst);
        thread::yield_now();
        Ok(key_ids
            .iter()
            .map(|key_id| (*key_id, Ok(Taken::Held(newest))))
            .collect())
    }

    /// A call that needs whatever was there when it began.
    fn call(&self, key_id: KeyId) {
        let needed = self.newest.load(Ordering::SeqCst);
        let deadline = Instant::now() + Duration::from_secs(3600);
        let taken = self.misses.fetch(&key_id, deadline, |key_ids| self.ask(key_ids));
        match taken.expect("no query fails") {
            Taken::Held(seen) => assert!(
                seen >= needed,
                "the query saw {seen}, and {needed} was there before the call"
            ),
            Taken::Dropped => panic!("the query did not ask for the key"),
        }
    }
}

#[test]
fn each_call_is_served_by_a_query_that_began_after_it() {
    let test = || {
        let world = Arc::new(World::default());
        let calls: Vec<_> = (0..6)
            .map(|number| {
                let world = Arc::clone(&world);
                thread::spawn(move || world.call(KeyId(number % 2)))
            })
            .collect();
        for _ in 0..3 {
            world.newest.fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
        }
        calls.into_iter().for_each(|call| call.join().expect("no call panics"));
        assert!(world.queries.load(Ordering::SeqCst) <= 6);
    };
    shuttle::check_random(test, orders());
    shuttle::check_pct(test, orders(), 3);
}

#[test]
fn a_query_that_fails_ends_for_all_calls_that_wait() {
    let test = || {
        let misses = Arc::new(Misses::default());
        let failed = Arc::new(AtomicUsize::new(0));
        let calls: Vec<_> = (0..5)
            .map(|_| {
                let (misses, failed) = (Arc::clone(&misses), Arc::clone(&failed));
                thread::spawn(move || {
                    let deadline = Instant::now() + Duration::from_secs(3600);
                    let result = misses.fetch(&KeyId(1), deadline, |_| {
                        thread::yield_now();
                        Err(StoreFault::Unavailable.into())
                    });
                    assert_eq!(result.expect_err("every query fails"), Error(StoreFault::Unavailable));
                    failed.fetch_add(1, Ordering::SeqCst);
                })
            })
            .collect();
        calls.into_iter().for_each(|call| call.join().expect("no call panics"));
        assert_eq!(failed.load(Ordering::SeqCst), 5);
    };
    shuttle::check_random(test, orders());
}

/// The check can fail: a call that is served by a query which had begun already.
#[test]
#[should_panic(expected = "was there before the call")]
fn a_query_that_began_before_the_call_is_found() {
    shuttle::check_random(
        || {
            let world = Arc::new(World::default());
            let asked = Arc::new(AtomicU64::new(u64::MAX));
            let (early, seen) = (Arc::clone(&world), Arc::clone(&asked));
            let query = thread::spawn(move || {
                let newest = early.newest.load(Ordering::SeqCst);
                seen.store(newest, Ordering::SeqCst);
            });
            world.newest.fetch_add(1, Ordering::SeqCst);
            let needed = world.newest.load(Ordering::SeqCst);
            query.join().expect("it does not panic");
            let seen = asked.load(Ordering::SeqCst);
            assert!(
                seen >= needed,
                "the query saw {seen}, and {needed} was there before the call"
            );
        },
        10_000,
    );
}
