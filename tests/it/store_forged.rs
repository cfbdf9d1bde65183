//! A flood of forged key IDs: each is a miss, and none can be answered from memory.

use std::{
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dekseal::{
    EncryptionContext, ErrorKind, StoreKeyring, StoreSettings,
    store::{Action, MemoryStore},
};

use crate::store_keyring::{id, process, root};

/// More threads than keys in flight would need at 10,000 a second and a millisecond for each query.
const FORGERS: u64 = 32;
const FORGED: u64 = 10_000;
const LEGITIMATE: u64 = 50;

/// Ends the flood, also if the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// While 10,000 forged IDs and more are looked up as fast as the keyring takes them, calls for keys that exist are
/// served, and the refresher takes up every change. The bound for each is the deadline of a call, after which the call
/// would fail. The test prints the rate: it is above 10,000 a second on an idle machine.
#[test]
fn forged_key_ids_hold_up_neither_a_legitimate_miss_nor_the_refresher() {
    let store = Arc::new(MemoryStore::new());
    let maker = process(&store);
    let update = |number, rotate| {
        maker.keyring().update(&id(number), |keys| match rotate {
            true => keys.rotate(&id(number)).map(drop),
            false => keys.create_key(id(number)),
        })
    };
    (0..=LEGITIMATE).for_each(|number| update(number, false).unwrap());
    // A query takes a millisecond, also one of the refresher, which has a connection of its own.
    store.set_script(|_request, _call| {
        thread::sleep(Duration::from_millis(1));
        Action::Serve
    });
    let mut settings = StoreSettings::default();
    settings.max_age = Duration::from_millis(40);
    let deadline = settings.deadline;
    let reader = StoreKeyring::with_settings(store, root(0), [], settings).unwrap();
    reader.load(&id(0)).unwrap();
    reader.start_refresher().unwrap();
    let reader = dekseal::Engine::new(reader);
    let seal = |number| reader.create_dek(&id(number), &EncryptionContext::none()).map(drop);

    let (begun, forged, ended) = (Instant::now(), AtomicU64::new(0), AtomicBool::new(false));
    let (mut miss, mut refresh) = (Duration::ZERO, Duration::ZERO);
    let elapsed = thread::scope(|scope| {
        let forgers: Vec<_> = (0..FORGERS)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = forged.fetch_add(1, Ordering::Relaxed);
                        if ended.load(Ordering::Relaxed) {
                            return;
                        }
                        assert_eq!(seal(1_000_000 + number).unwrap_err().kind(), ErrorKind::UnknownKey);
                    }
                })
            })
            .collect();
        let end = End(&ended);
        for number in 1..=LEGITIMATE {
            // The calls are spread over the flood.
            while forged.load(Ordering::Relaxed) < FORGED * number / LEGITIMATE {
                thread::sleep(Duration::from_millis(1));
            }
            let called = Instant::now();
            seal(number).unwrap();
            miss = miss.max(called.elapsed());
            if number % 10 == 0 {
                let version = u32::try_from(number / 10).unwrap();
                update(0, true).unwrap();
                let rotated = Instant::now();
                while !reader.keyring().is_ready_for(&id(0), version) {
                    assert!(rotated.elapsed() < deadline, "the refresher is held up");
                    thread::sleep(Duration::from_millis(1));
                }
                refresh = refresh.max(rotated.elapsed());
            }
        }
        drop(end);
        for forger in forgers {
            forger.join().unwrap();
        }
        begun.elapsed()
    });
    let rate = forged.into_inner() as f64 / elapsed.as_secs_f64();
    let _ = writeln!(
        io::stdout(),
        "{rate:.0} forged key IDs a second: a legitimate miss took at most {miss:?}, the refresher {refresh:?}"
    );
    let counters = reader.keyring().counters();
    // Forged IDs leave nothing in memory, and share queries with others.
    assert_eq!(counters.held, 1 + LEGITIMATE as usize);
    assert!(counters.fetches < counters.misses / 2, "{counters:?}");
}
