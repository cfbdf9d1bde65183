//! Several processes use one database, and some of them are killed. Each process is this test binary, run again for one
//! test.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::Child,
};

use dekseal::store::{KeyStore, StoreErrorKind};
use dekseal_sqlite::SqliteStore;

use crate::{
    conformance::{call, key_id, stored},
    fleet::rerun,
    temporary,
};

const DATABASE: &str = "DEKSEAL_TEST_DATABASE";
const KEYS: u64 = 5;

/// Starts a process that counts up in the keys. It prints each number after the change is done, and ends after this
/// many changes.
fn child(path: &Path, times: u64) -> Child {
    rerun("processes::counting_child")
        .env(DATABASE, path)
        .env("TIMES", times.to_string())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "the child of other tests"]
fn counting_child() {
    let store = SqliteStore::open(env::var_os(DATABASE).unwrap()).unwrap();
    let times: u64 = env::var("TIMES").unwrap().parse().unwrap();
    let mut output = std::io::stdout();
    let mut done = 0;
    while done < times {
        let key_id = key_id(done % KEYS);
        let present = store.get(&key_id, &call()).unwrap();
        let (expected, number) = match &present {
            Some(present) => (Some(&present.revision), number(&present.document)),
            None => (None, 0),
        };
        let next = stored(&[&(number + 1).to_le_bytes()[..], &[7; 3000]].concat());
        match store.put(&key_id, expected, &next, &call()) {
            Ok(_) => {
                done += 1;
                writeln!(output, "\ndone {key_id} {}", number + 1).unwrap();
            }
            Err(error) => assert_eq!(error.kind(), StoreErrorKind::Conflict, "{error:?}"),
        }
    }
}

fn number(document: &[u8]) -> u64 {
    u64::from_le_bytes(document[..8].try_into().unwrap())
}

#[test]
fn no_write_of_several_processes_is_lost() {
    let store = temporary();
    let children: Vec<_> = (0..4).map(|_| child(&store.path(), 100)).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
    }
    let total: u64 = (0..KEYS)
        .map(|key| number(&store.get(&key_id(key), &call()).unwrap().unwrap().document))
        .sum();
    assert_eq!(total, 400);
}

#[test]
fn what_a_killed_process_reported_as_done_is_there_and_whole() {
    let store = temporary();
    for round in 0..10 {
        let mut child = child(&store.path(), u64::MAX);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The process is killed somewhere in its loop.
        let mut reported = Vec::new();
        while reported.len() < 5 + 3 * round {
            let line = lines.next().unwrap().unwrap();
            reported.extend(line.strip_prefix("done ").map(str::to_owned));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        reported.extend(
            lines
                .map_while(Result::ok)
                .filter_map(|line| Some(line.strip_prefix("done ")?.to_owned())),
        );
        for report in reported {
            let Some((key_id, done)) = report.split_once(' ').filter(|(_, done)| !done.is_empty()) else {
                continue;
            };
            let present = store.get(&key_id.parse().unwrap(), &call()).unwrap().unwrap();
            assert!(number(&present.document) >= done.parse().unwrap());
            assert!(present == stored(&present.document), "half a document");
        }
        // The dead process holds no lock.
        let present = store.get(&key_id(0), &call()).unwrap().unwrap();
        let next = stored(&[&(number(&present.document) + 1).to_le_bytes()[..], &[7; 3000]].concat());
        store.put(&key_id(0), Some(&present.revision), &next, &call()).unwrap();
    }
}
