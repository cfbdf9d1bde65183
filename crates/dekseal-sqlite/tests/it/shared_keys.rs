//! Keyrings of several processes over one database.

use std::{
    fs,
    path::{Path, PathBuf},
};

use dekseal::{KeyId, store::KeyStore};
use dekseal_sqlite::SqliteStore;

use crate::{conformance::call, fleet, temporary};

/// Opens the store in a child process of `fleet`.
pub(crate) fn fleet_store(address: &str) -> SqliteStore {
    SqliteStore::open(address).unwrap()
}

fn address(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn what_is_sealed_anywhere_opens_everywhere() {
    let store = temporary();
    fleet::what_is_sealed_anywhere_opens_everywhere("SQLite", address(&store.path()));
}

#[test]
fn no_rotation_of_many_processes_is_lost() {
    let store = temporary();
    fleet::no_rotation_of_many_processes_is_lost("SQLite", address(&store.path()));
}

/// A database whose file is replaced by an older copy.
struct Files(PathBuf);

impl Files {
    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.0.clone().into_os_string();
        path.push(suffix);
        path.into()
    }
}

impl fleet::Backup for Files {
    fn back_up(&self) {
        let _ = fs::remove_file(self.beside("-backup"));
        let database = rusqlite::Connection::open(&self.0).unwrap();
        database
            .execute("VACUUM INTO ?1", [self.beside("-backup").to_str()])
            .unwrap();
    }

    fn restore(&self) {
        for suffix in ["-wal", "-shm"] {
            fs::remove_file(self.beside(suffix)).unwrap();
        }
        fs::copy(self.beside("-backup"), self.beside("-new")).unwrap();
        fs::rename(self.beside("-new"), &self.0).unwrap();
    }

    fn delete(&self, key: &KeyId) {
        let store = SqliteStore::open(&self.0).unwrap();
        let present = store.get(key, &call()).unwrap().unwrap();
        store.remove(key, &present.revision, &call()).unwrap();
    }
}

#[test]
fn a_rollback_is_noticed_and_the_host_decides() {
    let store = temporary();
    fleet::a_rollback_is_noticed_and_the_host_decides(address(&store.path()), &Files(store.path()));
}
