//! Tests the store with real files.

#[path = "../../../../tests/store/conformance.rs"]
mod conformance;
mod examples;
mod files;
#[path = "../../../tests/fleet.rs"]
mod fleet;
mod locks;
mod processes;
mod shared_keys;

use std::ops::Deref;

use dekseal_sqlite::SqliteStore;
use tempfile::TempDir;

use crate::conformance::conformance_tests;
pub(crate) use crate::shared_keys::fleet_store;

/// A store in a temporary directory.
pub(crate) struct Temporary {
    store: SqliteStore,
    directory: TempDir,
}

impl Deref for Temporary {
    type Target = SqliteStore;

    fn deref(&self) -> &SqliteStore {
        &self.store
    }
}

impl Temporary {
    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("keys.db")
    }
}

pub(crate) fn temporary() -> Temporary {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("keys.db")).unwrap();
    Temporary { store, directory }
}

conformance_tests!(|| Some(temporary()));
