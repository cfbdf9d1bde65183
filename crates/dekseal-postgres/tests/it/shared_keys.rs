//! Keyrings of several processes over one database, which is killed, stopped, restored and failed over.

use std::{
    collections::BTreeMap,
    fs,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use dekseal::{Engine, ErrorKind, KeyId, StoreFault, StoreKeyring, StoreSettings};
use dekseal_postgres::{Options, PostgresStore};

use crate::{
    conformance::key_id,
    fleet::{self, Process, Rotations, context, engine, size},
    server::{Server, create},
};

/// Opens the store in a child process of `fleet`.
pub(crate) fn fleet_store(address: &str) -> PostgresStore {
    let (connection, notify) = address.split_once('|').unwrap();
    PostgresStore::new(Options::new(connection).unwrap().notify(notify == "notify")).unwrap()
}

/// The address of the table in a server, with the setting for notifications.
fn address(server: &Server, notify: &str) -> String {
    create(server.options());
    format!("{}|{notify}", server.socket())
}

#[test]
fn what_is_sealed_anywhere_opens_everywhere() {
    let Some(server) = Server::start(&[]) else { return };
    fleet::what_is_sealed_anywhere_opens_everywhere("PostgreSQL", &address(&server, "notify"));
}

#[test]
fn what_is_sealed_anywhere_opens_everywhere_without_notifications() {
    let Some(server) = Server::start(&[]) else { return };
    fleet::what_is_sealed_anywhere_opens_everywhere("PostgreSQL without NOTIFY", &address(&server, "quiet"));
}

#[test]
fn no_rotation_of_many_processes_is_lost() {
    let Some(server) = Server::start(&[]) else { return };
    fleet::no_rotation_of_many_processes_is_lost("PostgreSQL", &address(&server, "notify"));
}

#[test]
fn what_becomes_of_a_rotation_is_known_although_the_server_is_killed() {
    const PROCESSES: u64 = 4;
    let Some(mut server) = Server::start(&[]) else { return };
    let address = address(&server, "notify");
    fleet::create_keys(fleet_store(&address));
    let begun = Instant::now();
    let mut rotations = Rotations::default();
    let mut kills = 0;
    // Starts new processes from time to time, because documents with many versions would take most of the time.
    while kills < size(20, 200) {
        let mut rotators: Vec<_> = (0..PROCESSES)
            .map(|number| Process::start("rotator", &address, &[&number.to_string(), &u64::MAX.to_string()]))
            .collect();
        let ends: Vec<_> = rotators.iter_mut().map(Process::take_input).collect();
        let readers: Vec<_> = rotators
            .into_iter()
            .map(|rotator| thread::spawn(move || rotator.finish()))
            .collect();
        for kill in 0..20 {
            thread::sleep(Duration::from_millis(100 + 37 * kill % 150));
            // In every second round commits are durable and not answered: they wait for a standby that is not there.
            if kill % 2 == 1 {
                server.sql("ALTER SYSTEM SET synchronous_standby_names = '*'");
                server.sql("SELECT pg_reload_conf()");
                thread::sleep(Duration::from_millis(50));
            }
            server.kill();
            fs::write(server.path("data/postgresql.auto.conf"), "").unwrap();
            server.launch();
            kills += 1;
        }
        drop(ends);
        for reader in readers {
            rotations.hear(reader.join().unwrap());
        }
    }
    println!(
        "{kills} kills: {}; {:.0} s",
        rotations.describe(),
        begun.elapsed().as_secs_f64()
    );
    // The database was available again long before the deadline.
    assert_eq!(rotations.count().1, 0, "outcomes that were not settled");
    rotations.check(&address);
}

/// The times of hits in nanoseconds, in ascending order.
fn hits(engine: &Engine<StoreKeyring<PostgresStore>>, until: &AtomicBool) -> Vec<u64> {
    let keys: Vec<_> = (0..fleet::KEYS).map(key_id).collect();
    let blobs: Vec<_> = keys
        .iter()
        .map(|key| engine.create_dek(key, &context()).unwrap().1)
        .collect();
    let mut times = Vec::new();
    while !until.load(Ordering::Relaxed) {
        for (key, blob) in keys.iter().zip(&blobs) {
            let begun = Instant::now();
            engine.decrypt_dek(key, &context(), blob).unwrap();
            engine.create_dek(key, &context()).unwrap();
            times.push(u64::try_from(begun.elapsed().as_nanos()).unwrap());
        }
        thread::sleep(Duration::from_millis(1));
    }
    times.sort_unstable();
    times
}

fn hits_for(engine: &Engine<StoreKeyring<PostgresStore>>, time: Duration) -> Vec<u64> {
    let until = AtomicBool::new(false);
    thread::scope(|scope| {
        let hits = scope.spawn(|| hits(engine, &until));
        thread::sleep(time);
        until.store(true, Ordering::Relaxed);
        hits.join().unwrap()
    })
}

/// The deadline of calls to a server that is stopped.
const DEADLINE: Duration = Duration::from_secs(1);

fn settings(max_age: Duration, max_stale: Duration) -> StoreSettings {
    let mut settings = StoreSettings::default();
    settings.max_age = max_age;
    settings.max_stale = max_stale;
    settings.deadline = DEADLINE;
    settings
}

#[test]
fn no_hit_waits_for_a_server_that_is_stopped() {
    let Some(server) = Server::start(&[]) else { return };
    let address = address(&server, "notify");
    fleet::create_keys(fleet_store(&address));
    // Documents become old while the server is stopped, and are checked again.
    let settings = settings(Duration::from_millis(500), Duration::from_secs(3600));
    let engine = engine(fleet_store(&address), settings);
    engine.keyring().start_refresher().unwrap();
    let time = size(Duration::from_secs(3), Duration::from_secs(30));
    let without = hits_for(&engine, time);
    let misses = engine.keyring().counters().misses;
    server.signal("STOP");
    let stopped = hits_for(&engine, time);
    let counters = engine.keyring().counters();
    let blob = engine.create_dek(&key_id(0), &context()).unwrap().1;
    server.signal("CONT");
    let again = Instant::now();
    while engine.keyring().counters().oldest.unwrap() > Duration::from_millis(500) {
        thread::sleep(Duration::from_millis(1));
    }
    let again = again.elapsed();
    let at = |times: &[u64], share: f64| times[(times.len() as f64 * share) as usize] as f64 / 1000.0;
    println!(
        "{} and {} hits, p50 {:.1} and {:.1} µs, p99.9 {:.1} and {:.1} µs, longest {:.1} and {:.1} µs \
         (without and with SIGSTOP for {time:?}); all documents confirmed {again:?} after SIGCONT",
        without.len(),
        stopped.len(),
        at(&without, 0.5),
        at(&stopped, 0.5),
        at(&without, 0.999),
        at(&stopped, 0.999),
        at(&without, 0.999_999),
        at(&stopped, 0.999_999),
    );
    // The documents were old, and no call asked for them.
    assert_eq!(counters.misses, misses);
    assert!(
        counters.oldest.unwrap() > time.mul_f64(0.8) && counters.failures > 0,
        "{counters:?}"
    );
    // A call that waited for the server would have reached its deadline. Delays by a busy machine are much shorter.
    assert!(at(&stopped, 0.999_999) * 1e3 < DEADLINE.mul_f64(0.8).as_nanos() as f64);
    assert!(again < Duration::from_secs(1), "{again:?}");
    engine.decrypt_dek(&key_id(0), &context(), &blob).unwrap();
}

#[test]
fn a_key_is_out_of_use_after_max_stale_and_back_within_a_second() {
    let Some(server) = Server::start(&[]) else { return };
    let address = address(&server, "notify");
    fleet::create_keys(fleet_store(&address));
    let max_stale = size(Duration::from_secs(1), Duration::from_secs(5));
    for refresher in [true, false] {
        let engine = engine(fleet_store(&address), settings(max_stale / 4, max_stale));
        if refresher {
            engine.keyring().start_refresher().unwrap();
        }
        let sealed: BTreeMap<_, _> = (0..fleet::KEYS)
            .map(|number| {
                (
                    key_id(number),
                    engine.create_dek(&key_id(number), &context()).unwrap().1,
                )
            })
            .collect();
        let calls = |key: &KeyId| {
            let sealing = engine.create_dek(key, &context()).map(drop);
            sealing.and(engine.decrypt_dek(key, &context(), &sealed[key]).map(drop))
        };
        server.signal("STOP");
        let stopped = Instant::now();
        let error = loop {
            let key = key_id(7);
            match calls(&key) {
                Ok(()) => thread::sleep(Duration::from_millis(1)),
                Err(error) => break error,
            }
        };
        let stale = stopped.elapsed();
        assert_eq!(error.kind(), ErrorKind::Store(StoreFault::Stale), "{error:?}");
        assert_eq!(error.key_id(), Some(key_id(7)));
        assert!(stale >= max_stale.mul_f64(0.7), "{stale:?}");
        // The refresher may have confirmed other keys later, but before the server was stopped. The clock of calls is
        // coarse: it is late by some milliseconds.
        thread::sleep((max_stale + Duration::from_millis(100)).saturating_sub(stopped.elapsed()));
        // As long as it is stopped.
        let until = Instant::now() + size(Duration::from_millis(500), Duration::from_secs(20));
        while Instant::now() < until {
            let error = calls(&key_id(8)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Store(StoreFault::Stale), "{error:?}");
        }
        server.signal("CONT");
        let resumed = Instant::now();
        for key in sealed.keys() {
            while let Err(error) = calls(key) {
                assert_eq!(error.kind(), ErrorKind::Store(StoreFault::Stale), "{error:?}");
                thread::sleep(Duration::from_millis(1));
            }
        }
        let well = resumed.elapsed();
        println!("refresher: {refresher}; stale after {stale:?}, all well {well:?} after SIGCONT");
        assert!(well < Duration::from_secs(1), "{well:?}");
    }
}

/// The server refuses the refresher a connection, and the one for calls still works.
#[test]
fn a_refresher_that_gets_no_connection_uses_that_of_calls() {
    let Some(server) = Server::start(&[]) else { return };
    fleet::create_keys(fleet_store(&address(&server, "quiet")));
    server.sql("CREATE ROLE service LOGIN");
    server.sql("GRANT SELECT ON dekseal_key TO service");
    let store = PostgresStore::new(server.options_as("service").connections(1).notify(false)).unwrap();
    let max_stale = Duration::from_secs(2);
    let engine = engine(store, settings(Duration::from_millis(200), max_stale));
    engine.keyring().load(&key_id(0)).unwrap();
    server.sql("ALTER ROLE service CONNECTION LIMIT 1");
    engine.keyring().start_refresher().unwrap();
    let begun = Instant::now();
    while begun.elapsed() < 2 * max_stale {
        engine.create_dek(&key_id(0), &context()).unwrap();
        thread::sleep(Duration::from_millis(5));
    }
    let counters = engine.keyring().counters();
    assert!(counters.failures > 0, "the server gave the refresher a connection");
    assert_eq!(counters.misses, 0, "a call had to wait");
    // It sees changes, too.
    let elsewhere = fleet::keyring(
        fleet_store(&address(&server, "quiet")),
        settings(max_stale, 2 * max_stale),
    );
    elsewhere.update(&key_id(0), |keys| keys.disable(&key_id(0))).unwrap();
    let disabled = Instant::now();
    while engine.create_dek(&key_id(0), &context()).is_ok() {
        assert!(disabled.elapsed() < Duration::from_secs(5));
        thread::sleep(Duration::from_millis(5));
    }
}

/// `pg_dump`, and restoring its output.
struct Dump<'a>(&'a Server);

impl fleet::Backup for Dump<'_> {
    fn back_up(&self) {
        fs::write(self.0.path("dump"), self.0.dump()).unwrap();
    }

    fn restore(&self) {
        let mut psql = self.0.psql();
        let dump = fs::File::open(self.0.path("dump")).unwrap();
        let psql = psql.args(["-1", "-c", "TRUNCATE dekseal_key", "-f", "-"]);
        let output = psql.stdin(dump).stdout(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn delete(&self, key: &KeyId) {
        self.0.sql(&format!("DELETE FROM dekseal_key WHERE key_id = '{key}'"));
    }
}

#[test]
fn a_rollback_is_noticed_and_the_host_decides() {
    let Some(server) = Server::start(&[]) else { return };
    fleet::a_rollback_is_noticed_and_the_host_decides(&address(&server, "quiet"), &Dump(&server));
}
