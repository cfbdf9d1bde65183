//! A sweep that is killed while another process writes to the table.

use std::{
    os::unix::process::ExitStatusExt,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use super::{
    database::{Stage, TABLE, Writer},
    done,
};
use crate::strace;

/// Kills a sweep `kills` times and then lets it pass to the end, while another process writes. Every row then opens, is
/// under the newest version, and has the DEK that was written last. Returns how many rows the other process wrote.
fn survives(stage: &Stage, rows: i64, kills: u32, options: &[&str], longest: Duration) -> u64 {
    let mut writer = Writer::start(stage, rows);
    stage.rotate();
    let mut random = 0x2545_f491_4f6c_dd1d_u64 ^ u64::from(std::process::id());
    let mut killed = 0;
    while killed < kills {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let mut child = stage.sweep(options).stdout(Stdio::null()).spawn().unwrap();
        thread::sleep(longest.mul_f64(random as f64 / u64::MAX as f64));
        let _ = child.kill();
        match child.wait().unwrap().code() {
            None => killed += 1,
            // It came to its end first. There is more to do after another rotation.
            Some(code) => {
                assert_eq!(code, 0);
                stage.rotate();
            }
        }
    }
    // The pass that was killed, and then one that begins after the other process knows of the rotation. The other
    // process goes on writing.
    done(&mut stage.sweep(options));
    writer.refresh();
    let report = done(&mut stage.sweep(&[]));
    assert_eq!((&report["failed"], &report["complete"]), (&0.into(), &true.into()));
    let written = writer.stop();
    let versions = stage.check();
    assert!(
        versions == [(stage.current_version(), u64::try_from(rows).unwrap())],
        "{versions:?}"
    );
    written
}

#[test]
fn a_killed_sweep_loses_nothing_in_sqlite() {
    let stage = Stage::sqlite();
    stage.fill(5000);
    let written = survives(
        &stage,
        5000,
        8,
        &["--batch", "50", "--rate", "5000"],
        Duration::from_millis(400),
    );
    assert!(written > 100, "{written}");
}

#[test]
fn a_killed_sweep_loses_nothing_in_postgresql() {
    let Some(stage) = Stage::postgres(&[]) else { return };
    stage.fill(5000);
    let options = ["--batch", "50", "--rate", "5000", "--jobs", "2"];
    let written = survives(&stage, 5000, 8, &options, Duration::from_millis(400));
    assert!(written > 100, "{written}");
}

/// Kills the sweep at each of its first writes to the disk and changes of names: of the database, and of the state.
#[test]
fn a_sweep_killed_at_any_write_is_continued() {
    if !strace::works() {
        return;
    }
    let stage = Stage::sqlite();
    stage.fill(40);
    for (call, times) in [("rename", 2), ("fsync", 4), ("pwrite64", 6), ("unlink", 2)] {
        for nth in 1..=times {
            stage.rotate();
            let mut sweep = stage.sweep(&["--batch", "10"]);
            let inject = format!("inject={call}:signal=KILL:when={nth}");
            let options = ["-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject];
            let status = strace::traced(&options, &sweep).output().unwrap().status;
            assert_eq!(status.signal(), Some(9), "{call} {nth}");
            stage.check();
            done(&mut sweep);
            assert_eq!(stage.check().len(), 1, "{call} {nth}");
        }
    }
}

/// A million rows: the rate beside that of a plain `UPDATE`, and then 50 kills. `scripts/sweep` runs it.
#[test]
#[ignore = "takes minutes"]
fn at_full_size() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |value| value.parse().unwrap());
    let rows = number("SWEEP_ROWS", 1_000_000);
    let kills = u32::try_from(number("SWEEP_KILLS", 50)).unwrap();
    let stage = match std::env::var("SWEEP_DATABASE").as_deref() {
        Ok("postgres") => Stage::postgres(&["fsync=on", "max_wal_size=4GB"]).unwrap(),
        _ => Stage::sqlite(),
    };
    let begun = Instant::now();
    stage.fill(rows);
    println!("{rows} rows made in {:.0?}", begun.elapsed());
    for _ in 0..number("SWEEP_ROUNDS", 1) {
        rate(&stage, rows);
    }
    if kills > 0 {
        let begun = Instant::now();
        let written = survives(&stage, rows, kills, &["--batch", "1000"], Duration::from_millis(1500));
        println!(
            "{kills} kills: the other process wrote {written} rows, none was lost, in {:.0?}",
            begun.elapsed()
        );
    }
}

/// Prints the rate of a sweep, and that of an `UPDATE` of as many rows in as many transactions.
fn rate(stage: &Stage, rows: i64) {
    let per_second = |time: Duration| rows as f64 / time.as_secs_f64();
    let mut database = stage.database();
    let is_sqlite = stage.address.starts_with("sqlite");
    // Another table, since the values become something else. SQLite does not write a value that stays the same.
    let (table, value) = match is_sqlite {
        true => (TABLE.to_owned(), "randomblob(188)"),
        false => (
            TABLE.replace("BLOB", "bytea"),
            "substr(sealed, 2) || substr(sealed, 1, 1)",
        ),
    };
    database.run(&table.replace("document", "plain"));
    database.run("INSERT INTO plain SELECT * FROM document");
    if is_sqlite {
        database.run("PRAGMA synchronous = FULL");
    }
    let begun = Instant::now();
    for first in (1..=rows).step_by(1000) {
        database.run(&format!(
            "UPDATE plain SET sealed = {value} WHERE id >= {first} AND id < {first} + 1000"
        ));
    }
    let plain = per_second(begun.elapsed());
    println!("plain UPDATE: {plain:.0} rows/s");
    database.run("DROP TABLE plain");
    let swept = |options: &[&str]| {
        stage.rotate();
        let begun = Instant::now();
        let swept = done(&mut stage.sweep(&[&["--batch", "1000"], options].concat()));
        assert_eq!(swept["rewrapped"], rows);
        let swept = per_second(begun.elapsed());
        println!("sweep {options:?}: {swept:.0} rows/s, {:.2} of it", swept / plain);
    };
    swept(&[]);
    if is_sqlite {
        return;
    }
    swept(&["--jobs", "2"]);
    // A sweep reads each row a second time if a trigger may have changed it. This one does nothing, and runs once for
    // each statement.
    database.run("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'");
    database.run("CREATE TRIGGER later AFTER UPDATE ON document EXECUTE FUNCTION nothing()");
    println!("with a trigger that runs after the update:");
    swept(&[]);
    swept(&["--jobs", "2"]);
    database.run("DROP FUNCTION nothing CASCADE");
}
