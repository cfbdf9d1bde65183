//! A SQLite store that is closed before a fork, and opened again at the next call.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use dekseal::{
    KeyId,
    store::{Call, KeyStore, Revision, StoreError, StoredDocument},
};
use dekseal_sqlite::SqliteStore;

use crate::fork::{self, CloseBeforeFork};

pub(crate) struct ForkedStore(Arc<Slot>);

struct Slot {
    path: PathBuf,
    table: String,
    /// The lock is held only while the gate is.
    store: Mutex<Option<Arc<SqliteStore>>>,
}

impl ForkedStore {
    /// Opens the database, so that a path that is wrong is reported here.
    pub(crate) fn open(path: PathBuf, table: &str) -> Result<Self, StoreError> {
        let slot = Arc::new(Slot {
            path,
            table: table.to_owned(),
            store: Mutex::new(None),
        });
        let weak: Weak<dyn CloseBeforeFork> = Arc::downgrade(&(Arc::clone(&slot) as Arc<dyn CloseBeforeFork>));
        fork::close_before_fork(weak);
        slot.run(|_| Ok(()))?;
        Ok(Self(slot))
    }
}

impl Slot {
    fn run<T>(&self, f: impl FnOnce(&SqliteStore) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let _gate = fork::gate();
        let mut slot = self.slot();
        let store = match &*slot {
            Some(store) => Arc::clone(store),
            None => {
                let opened = Arc::new(SqliteStore::open_table(&self.path, &self.table)?);
                slot.insert(opened).clone()
            }
        };
        drop(slot);
        f(&store)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<SqliteStore>>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CloseBeforeFork for Slot {
    fn close(&self) {
        self.slot().take();
    }
}

impl KeyStore for ForkedStore {
    fn get(&self, key_id: &KeyId, call: &Call) -> Result<Option<StoredDocument>, StoreError> {
        self.0.run(|store| store.get(key_id, call))
    }

    fn put(
        &self,
        key_id: &KeyId,
        expected: Option<&Revision>,
        new: &StoredDocument,
        call: &Call,
    ) -> Result<Revision, StoreError> {
        self.0.run(|store| store.put(key_id, expected, new, call))
    }

    fn remove(&self, key_id: &KeyId, expected: &Revision, call: &Call) -> Result<(), StoreError> {
        self.0.run(|store| store.remove(key_id, expected, call))
    }

    fn changed(
        &self,
        known: &[(KeyId, Option<Revision>)],
        call: &Call,
    ) -> Result<Vec<(KeyId, Option<StoredDocument>)>, StoreError> {
        self.0.run(|store| store.changed(known, call))
    }

    fn list(&self, after: Option<&KeyId>, limit: usize, call: &Call) -> Result<Vec<KeyId>, StoreError> {
        self.0.run(|store| store.list(after, limit, call))
    }
}
