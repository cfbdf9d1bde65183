//! A real failover: the primary is killed before its last changes reach an asynchronous standby, which is promoted.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    conformance::key_id,
    fleet::{self, Process, assert_at_work, assert_rolled_back, branches, ok},
    fleet_store,
    server::{Server, create},
};

/// Waits until a query of a server returns this text.
#[track_caller]
fn wait(server: &Server, query: &str, expected: &str) {
    let begun = Instant::now();
    while server.sql(query).trim() != expected {
        assert!(begun.elapsed() < Duration::from_secs(60), "{query}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_promoted_standby_that_lacks_changes_is_a_rollback() {
    let Some(mut primary) = Server::start(&[]) else { return };
    create(primary.options());
    let standby = primary.standby();
    // The processes know both servers, and find the one that accepts writes.
    let address = format!(
        "host={0},{1} port={2},{3} dbname=postgres user=postgres target_session_attrs=read-write|notify",
        primary.path("").display(),
        standby.path("").display(),
        primary.port,
        standby.port
    );
    fleet::create_keys(fleet_store(&address));
    let [adopted, written, branched] = [key_id(0), key_id(1), key_id(2)];
    let mut first = Process::start("member", &address, &[]);
    let mut second = Process::start("member", &address, &[]);
    let old = [adopted, written, branched].map(|key| {
        ok(&second.ask(&format!("load {key}")));
        ok(&first.ask(&format!("seal {key}"))).to_owned()
    });
    let position = primary.sql("SELECT pg_current_wal_flush_lsn()");
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{}'", position.trim());
    wait(&standby, &replayed, "t");

    // The replication breaks. The primary goes on, and acknowledges changes that it has not shipped.
    standby.sql("ALTER SYSTEM SET primary_conninfo = ''");
    standby.sql("SELECT pg_reload_conf()");
    wait(&primary, "SELECT count(*) FROM pg_stat_replication", "0");
    let new = [adopted, written, branched].map(|key| {
        assert_eq!(first.ask(&format!("rotate {key}")), "ok 1");
        ok(&first.ask(&format!("seal {key}"))).to_owned()
    });
    for blob in &new[..2] {
        assert_eq!(second.ask(&format!("open {blob}")), "ok ");
    }
    primary.kill();
    standby.sql("SELECT pg_promote()");

    // Both processes find the new primary by themselves.
    for (key, blobs) in [(adopted, [&old[0], &new[0]]), (written, [&old[1], &new[1]])] {
        for process in [&mut first, &mut second] {
            assert_rolled_back(process, &address, &key, &blobs.map(String::as_str));
        }
    }
    for process in [&mut first, &mut second] {
        assert_eq!(process.ask(&format!("adopt {adopted}")), "ok ");
        assert_eq!(process.ask(&format!("open {}", old[0])), "ok ");
        assert_eq!(process.ask(&format!("open {}", new[0])), "UnknownKeyVersion");
    }
    assert_at_work([&mut first, &mut second], &adopted);
    assert_eq!(first.ask(&format!("write_back {written}")), "ok ");
    assert_eq!(second.ask(&format!("adopt {written}")), "ok ");
    for process in [&mut first, &mut second] {
        for blob in [&old[1], &new[1]] {
            assert_eq!(process.ask(&format!("open {blob}")), "ok ");
        }
    }
    assert_at_work([&mut second, &mut first], &written);
    // The second process has not seen the lost rotation, and makes another one of the same generation.
    assert_eq!(second.ask(&format!("rotate {branched}")), "ok 1");
    let theirs = second.ask(&format!("seal {branched}"));
    let blobs = [&*old[2], &*new[2], ok(&theirs)];
    branches(&address, [&mut first, &mut second], &branched, blobs, "write_back");
}
