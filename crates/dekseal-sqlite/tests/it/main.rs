//! The store over real files.

#[path = "../../../../tests/store/conformance.rs"]
mod conformance;
mod examples;
mod files;
mod locks;
mod processes;

use std::ops::Deref;

use dekseal_sqlite::SqliteStore;
use tempfile::TempDir;

use crate::conformance::conformance_tests;

/// A store in a directory that goes with it.
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
