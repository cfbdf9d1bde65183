//! Servers that are killed, stopped, restarted or busy.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use dekseal::store::{Call, Change, KeyStore, StoreErrorKind};
use dekseal_postgres::{Options, PostgresStore};

use crate::{
    conformance::{call, key_id, stored},
    server::{Server, create, options, shared},
};

fn number(document: &[u8]) -> u64 {
    u64::from_le_bytes(document.try_into().unwrap())
}

#[test]
fn a_server_killed_amid_writes_leaves_each_outcome_known_or_unknown_and_never_wrong() {
    const WRITERS: u64 = 4;
    let Some(mut server) = Server::start(&[]) else { return };
    let store = create(server.options());
    let mut unknown = 0;
    for round in 0..4 {
        // Each writer counts up in its own key until its first error. It returns the last confirmed number and the
        // number of the failed attempt.
        let outcomes = thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let store = &store;
                    let present = store.get(&key_id(writer), &call()).unwrap();
                    let mut done = present.map(|present| number(&present.document));
                    scope.spawn(move || {
                        loop {
                            let expected = done.map(|done| stored(&done.to_le_bytes()).revision);
                            let next = done.map_or(0, |done| done + 1);
                            let new = stored(&next.to_le_bytes());
                            match store.put(&key_id(writer), expected.as_ref(), &new, &call()) {
                                Ok(_) => done = Some(next),
                                Err(error) => return (writer, done, next, error),
                            }
                        }
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(100 + 37 * round));
            server.kill();
            let outcomes = writers.into_iter().map(|writer| writer.join().unwrap());
            outcomes.collect::<Vec<_>>()
        });
        server.launch();
        for (writer, done, tried, error) in outcomes {
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
            // A read resolves the unknown outcome.
            let present = store.get(&key_id(writer), &call()).unwrap();
            let present = present.map(|present| number(&present.document));
            match error.is_outcome_unknown() {
                true => assert!(present == done || present == Some(tried), "{present:?} {done:?}"),
                false => assert_eq!(present, done, "it was said to have failed: {error:?}"),
            }
            unknown += u32::from(error.is_outcome_unknown());
        }
    }
    assert!(unknown > 0, "no write was under way");
}

#[test]
fn a_stopped_server_holds_no_call_beyond_its_deadline() {
    let Some(server) = Server::start(&[]) else { return };
    let store = create(server.options());
    let first = stored(b"first");
    store.put(&key_id(1), None, &first, &call()).unwrap();
    server.signal("STOP");
    let short = || Call::within(Duration::from_millis(300));
    for refresh in [false, true] {
        let begun = Instant::now();
        let call = if refresh { short().for_refresh() } else { short() };
        let error = store.get(&key_id(1), &call).unwrap_err();
        assert_eq!(
            (error.kind(), error.is_outcome_unknown()),
            (StoreErrorKind::Deadline, false)
        );
        let elapsed = begun.elapsed();
        assert!(
            elapsed >= Duration::from_millis(300) && elapsed < Duration::from_secs(2),
            "{elapsed:?}"
        );
    }
    server.signal("CONT");
    store.get(&key_id(1), &call()).unwrap().unwrap();
    server.signal("STOP");
    let begun = Instant::now();
    let second = stored(b"second");
    let error = store
        .put(&key_id(1), Some(&first.revision), &second, &short())
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.is_outcome_unknown()),
        (StoreErrorKind::Deadline, true)
    );
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // Without a connection nothing was sent, and the error says so.
    let error = store.put(&key_id(2), None, &second, &short()).unwrap_err();
    assert_eq!(
        (error.kind(), error.is_outcome_unknown()),
        (StoreErrorKind::Deadline, false)
    );

    server.signal("CONT");
    let begun = Instant::now();
    let present = store.get(&key_id(1), &call()).unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    // The server found the statement after its deadline.
    assert_eq!(present, first);
    assert_eq!(store.get(&key_id(2), &call()).unwrap(), None);
}

#[test]
fn connections_come_back_after_a_restart() {
    let Some(mut server) = Server::start(&[]) else { return };
    let store = create(server.options());
    let first = stored(b"first");
    store.put(&key_id(1), None, &first, &call()).unwrap();
    let (sender, heard) = mpsc::channel();
    assert!(store.watch(Box::new(move |change| sender.send((change, Instant::now())).is_ok())));
    assert_eq!(heard.recv_timeout(Duration::from_secs(10)).unwrap().0, Change::Unknown);
    for orderly in [true, false] {
        // Uses every connection once.
        store.get(&key_id(1), &call().for_refresh()).unwrap();
        if orderly {
            server.stop();
        } else {
            server.kill();
        }
        let begun = Instant::now();
        for error in [
            store.get(&key_id(1), &call()).unwrap_err(),
            store.put(&key_id(2), None, &first, &call()).unwrap_err(),
            store.remove(&key_id(1), &first.revision, &call()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
            assert!(!error.is_outcome_unknown(), "there is nobody to send to: {error:?}");
        }
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "it waits for a server that is not there"
        );
        server.launch();
        let back = Instant::now();
        for call in [call(), call().for_refresh()] {
            assert_eq!(store.get(&key_id(1), &call).unwrap(), Some(first.clone()));
        }
        store.put(&key_id(3), None, &first, &call()).unwrap();
        store.remove(&key_id(3), &first.revision, &call()).unwrap();
        // The listener reports that it may have missed changes, and listens again.
        let (change, at) = heard.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(change, Change::Unknown);
        assert!(at < back + Duration::from_secs(1), "{:?}", at - back);
        store.put(&key_id(4), None, &first, &call()).unwrap();
        while heard.recv_timeout(Duration::from_secs(5)).unwrap().0 != Change::Key(key_id(4)) {}
        store.remove(&key_id(4), &first.revision, &call()).unwrap();
        assert_eq!(
            heard.recv_timeout(Duration::from_secs(5)).unwrap().0,
            Change::Key(key_id(4))
        );
    }
}

#[test]
fn a_store_is_made_while_the_server_is_away() {
    let Some(mut server) = Server::start(&[]) else { return };
    server.stop();
    let store = PostgresStore::new(server.options()).unwrap();
    let error = store.get(&key_id(1), &call()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    server.launch();
    store.create_schema(&call()).unwrap();
    assert_eq!(store.get(&key_id(1), &call()).unwrap(), None);
}

/// A write is not sent again. So the store must see that the connection has ended before it sends one.
#[test]
fn a_session_that_the_server_ends_is_replaced() {
    let Some(server) = shared() else { return };
    let store = create(options().unwrap());
    store.put(&key_id(1), None, &stored(b"first"), &call()).unwrap();
    // Other tests may run at the same time. The last query finds only the sessions of this store by the name of the
    // schema.
    let schema = format!("{store:?}");
    let schema = schema.split('"').nth(1).unwrap();
    let sessions = format!("pg_stat_activity WHERE application_name = 'dekseal' AND query LIKE '%\"{schema}\".%'");
    for number in 2..5 {
        let ended = server.sql(&format!("SELECT count(pg_terminate_backend(pid)) FROM {sessions}"));
        assert_ne!(ended.trim(), "0");
        assert!(store.get(&key_id(1), &call()).unwrap().is_some());
        server.sql(&format!("SELECT count(pg_terminate_backend(pid)) FROM {sessions}"));
        while server.sql(&format!("SELECT count(*) FROM {sessions}")).trim() != "0" {
            thread::sleep(Duration::from_millis(1));
        }
        store.put(&key_id(number), None, &stored(b"first"), &call()).unwrap();
    }
}

/// Threads that make one call after another do not keep others waiting.
#[test]
fn calls_get_a_connection_in_turn() {
    let Some(options) = options() else { return };
    let store = create(options.connections(1));
    let done = AtomicU64::new(0);
    // How many other calls ended while a call waited.
    let mut overtaken: Vec<u64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let (store, done) = (&store, &done);
                let timed = move || {
                    let before = done.load(Ordering::SeqCst);
                    store.get(&key_id(number), &call()).unwrap();
                    done.fetch_add(1, Ordering::SeqCst) - before
                };
                scope.spawn(move || (0..200).map(|_| timed()).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    // In turn, these are the calls of the seven other threads. More may end before a call is in the queue.
    overtaken.sort_unstable();
    let most = overtaken[overtaken.len() * 9 / 10];
    assert!(most < 10, "{most} calls overtook a tenth of all, or more");
}

/// Another client holds a lock on a row.
#[test]
fn a_locked_row_holds_up_neither_other_rows_nor_the_refresher() {
    let Some(server) = shared() else { return };
    let options = options()
        .unwrap()
        .statement_timeout(Duration::from_secs(2))
        .connections(2);
    let store = create(options);
    let (first, second) = (stored(b"first"), stored(b"second"));
    for number in [1, 2] {
        store.put(&key_id(number), None, &first, &call()).unwrap();
    }
    let sql = store.schema_sql();
    let table = sql
        .lines()
        .find_map(|line| line.strip_prefix("CREATE TABLE IF NOT EXISTS "))
        .unwrap();
    let table = table.trim_end_matches(" (");
    let mut other = server
        .psql()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = other.stdin.take().unwrap();
    writeln!(
        input,
        "BEGIN; UPDATE {table} SET document = document WHERE key_id = '{}';",
        key_id(1)
    )
    .unwrap();
    writeln!(input, "SELECT 'locked';").unwrap();
    let mut line = String::new();
    BufReader::new(other.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "locked\n");

    thread::scope(|scope| {
        let put = |call: Call| store.put(&key_id(1), Some(&first.revision), &second, &call);
        // The deadline of this call comes first.
        let short = scope.spawn(move || put(Call::within(Duration::from_millis(500))));
        thread::sleep(Duration::from_millis(100));
        // The other connection still works.
        store.put(&key_id(2), Some(&first.revision), &second, &call()).unwrap();
        let error = short.join().unwrap().unwrap_err();
        assert_eq!(
            (error.kind(), error.is_outcome_unknown()),
            (StoreErrorKind::Deadline, true)
        );

        // The timeout of the server comes first. All connections are in use, except that of the refresher.
        let long = [(); 2].map(|()| scope.spawn(move || put(call())));
        thread::sleep(Duration::from_millis(100));
        let begun = Instant::now();
        let known = [(key_id(1), Some(first.revision)), (key_id(2), Some(first.revision))];
        let changed = store.changed(&known, &call().for_refresh()).unwrap();
        assert_eq!(changed, [(key_id(2), Some(second.clone()))]);
        assert!(begun.elapsed() < Duration::from_secs(1));
        // A call that gets no connection reports that it changed nothing.
        let error = store.put(&key_id(3), None, &first, &Call::within(Duration::from_millis(100)));
        let error = error.unwrap_err();
        assert_eq!(
            (error.kind(), error.is_outcome_unknown()),
            (StoreErrorKind::Deadline, false)
        );
        for put in long {
            let error = put.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Deadline, "{error:?}");
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        }
    });
    drop(input);
    other.wait().unwrap();
    // The cancelled statements are gone, and no longer wait for locks.
    assert_eq!(store.get(&key_id(1), &call()).unwrap(), Some(first.clone()));
    assert_eq!(store.get(&key_id(3), &call()).unwrap(), None);
    store.put(&key_id(1), Some(&first.revision), &second, &call()).unwrap();
}

/// The statement waits for a lock, and its caller gives up. It must not be executed when the lock is gone.
#[test]
fn a_write_is_not_executed_after_its_deadline() {
    let Some(server) = shared() else { return };
    for notify in [true, false] {
        let store = create(options().unwrap().notify(notify));
        let (first, second) = (stored(b"first"), stored(b"second"));
        for number in [1, 2] {
            store.put(&key_id(number), None, &first, &call()).unwrap();
        }
        let table = store.schema_sql();
        let table = table
            .lines()
            .find_map(|line| line.strip_prefix("CREATE TABLE IF NOT EXISTS "));
        let table = table.unwrap().trim_end_matches(" (");
        let mut other = server
            .psql()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = other.stdin.take().unwrap();
        writeln!(
            input,
            "BEGIN; SELECT 'locked' FROM {table} FOR UPDATE; INSERT INTO {table} VALUES ('{}', '{}', 'x');",
            key_id(3),
            "x".repeat(32)
        )
        .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(other.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "locked\n");
        let short = || Call::within(Duration::from_secs(2));
        thread::scope(|scope| {
            let late = [
                scope.spawn(|| {
                    store
                        .put(&key_id(1), Some(&first.revision), &second, &short())
                        .map(drop)
                }),
                scope.spawn(|| store.remove(&key_id(2), &first.revision, &short())),
                scope.spawn(|| store.put(&key_id(3), None, &second, &short()).map(drop)),
            ];
            for late in late {
                let error = late.join().unwrap().unwrap_err();
                assert_eq!(
                    (error.kind(), error.is_outcome_unknown()),
                    (StoreErrorKind::Deadline, true)
                );
            }
        });
        writeln!(input, "ROLLBACK;").unwrap();
        drop(input);
        other.wait().unwrap();
        // The statements have ended: they hold no lock any more.
        server.sql(&format!("BEGIN; LOCK TABLE {table}; COMMIT"));
        for number in [1, 2] {
            assert_eq!(store.get(&key_id(number), &call()).unwrap(), Some(first.clone()));
        }
        assert_eq!(store.get(&key_id(3), &call()).unwrap(), None);
        store.put(&key_id(1), Some(&first.revision), &second, &call()).unwrap();
    }
}

#[test]
fn a_standby_is_passed_over() {
    let Some(server) = Server::start(&[]) else { return };
    let store = create(server.options());
    store.put(&key_id(1), None, &stored(b"first"), &call()).unwrap();
    let standby = server.standby();
    let both = format!(
        "host={0},{1} port={2},{3} dbname=postgres user=postgres",
        standby.path("").display(),
        server.path("").display(),
        standby.port,
        server.port
    );
    let store = PostgresStore::new(Options::new(&both).unwrap()).unwrap();
    store.put(&key_id(2), None, &stored(b"second"), &call()).unwrap();
    assert_eq!(store.get(&key_id(2), &call()).unwrap(), Some(stored(b"second")));
    // The standby alone would answer, but could lag behind.
    let store = PostgresStore::new(standby.options()).unwrap();
    let error = store.get(&key_id(1), &call()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
}

/// The fault that a proxy applies to its current connections. It forwards later ones.
#[derive(Clone, Copy)]
enum Fault {
    /// The connections stay open, but no data passes any more.
    Forget,
    /// The connections are closed when the client sends data. The data is lost.
    CutRequest,
    /// The connections are closed when the server sends data. The data is lost.
    CutAnswer,
}

/// Forwards connections to a server until a test makes it fail.
struct Proxy {
    port: u16,
    /// The fault of each past generation of connections.
    faults: Arc<Mutex<Vec<Fault>>>,
}

impl Proxy {
    fn new(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let faults = Arc::<Mutex<Vec<Fault>>>::default();
        let shared = faults.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else {
                    return;
                };
                let generation = shared.lock().unwrap().len();
                for (from, to, is_request) in [(&client, &server, true), (&server, &client, false)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let faults = shared.clone();
                    thread::spawn(move || {
                        let fault = || faults.lock().unwrap().get(generation).copied();
                        forward(from, to, is_request, fault);
                    });
                }
            }
        });
        Self { port, faults }
    }

    fn fail(&self, fault: Fault) {
        self.faults.lock().unwrap().push(fault);
    }

    fn options(&self, server: &Server) -> Options {
        let connection = server.tcp("127.0.0.1");
        let connection = connection.replace(&server.port.to_string(), &self.port.to_string());
        Options::new(&(connection + " sslmode=disable")).unwrap()
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, is_request: bool, fault: impl Fn() -> Option<Fault>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        match fault() {
            Some(Fault::Forget) => continue,
            Some(Fault::CutRequest) if is_request => break,
            Some(Fault::CutAnswer) if !is_request => break,
            _ => {}
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
fn a_write_whose_answer_is_lost_is_unknown_and_may_be_there() {
    let Some(server) = shared() else { return };
    let proxy = Proxy::new(server.port);
    let store = create(proxy.options(server).schema("lost_answer"));
    let (first, second) = (stored(b"first"), stored(b"second"));
    store.put(&key_id(1), None, &first, &call()).unwrap();
    for (fault, present) in [(Fault::CutRequest, &first), (Fault::CutAnswer, &second)] {
        proxy.fail(fault);
        let error = store
            .put(&key_id(1), Some(&first.revision), &second, &call())
            .unwrap_err();
        // The client sees the same error in both cases.
        assert_eq!(
            (error.kind(), error.is_outcome_unknown()),
            (StoreErrorKind::Unavailable, true)
        );
        // The server has executed the statement by now. Otherwise its connection would still hold the lock.
        assert_eq!(store.get(&key_id(1), &call()).unwrap().as_ref(), Some(present));
    }
    proxy.fail(Fault::CutAnswer);
    let error = store.remove(&key_id(1), &second.revision, &call()).unwrap_err();
    assert!(error.is_outcome_unknown());
    assert_eq!(store.get(&key_id(1), &call()).unwrap(), None);
}

#[test]
fn a_read_on_a_broken_idle_connection_takes_a_new_one() {
    let Some(server) = shared() else { return };
    let proxy = Proxy::new(server.port);
    let store = create(proxy.options(server).schema("broken_idle"));
    store.put(&key_id(1), None, &stored(b"first"), &call()).unwrap();
    for fault in [Fault::CutRequest, Fault::CutAnswer] {
        proxy.fail(fault);
        assert_eq!(store.get(&key_id(1), &call()).unwrap(), Some(stored(b"first")));
    }
}

#[test]
fn a_network_that_forgets_connections_costs_one_call() {
    let Some(server) = shared() else { return };
    let proxy = Proxy::new(server.port);
    let store = create(proxy.options(server).schema("forgotten"));
    let (sender, heard) = mpsc::channel();
    assert!(store.watch(Box::new(move |change| sender.send(change).is_ok())));
    assert_eq!(heard.recv_timeout(Duration::from_secs(10)).unwrap(), Change::Unknown);
    // Leaves four idle connections.
    thread::scope(|scope| {
        for number in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for _ in 0..20 {
                    store.get(&key_id(number), &call()).unwrap();
                }
            });
        }
    });
    proxy.fail(Fault::Forget);
    let error = store
        .get(&key_id(1), &Call::within(Duration::from_millis(500)))
        .unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Deadline);
    for _ in 0..4 {
        store.get(&key_id(1), &Call::within(Duration::from_secs(5))).unwrap();
    }
    // The listener tests its connection after a silence, and then listens again. Other tests use the same channel.
    let begun = Instant::now();
    while heard.recv_timeout(Duration::from_secs(20)).unwrap() != Change::Unknown {}
    assert!(begun.elapsed() < Duration::from_secs(20));
}
