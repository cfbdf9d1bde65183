//! A keyring whose CMKs many machines share through a store (FORMAT.md part D).

mod cache;
mod clock;
mod counters;
mod misses;
mod reading;
mod refresh;
mod remembered;
mod reseal;
mod settings;
mod settle;
mod shared;
mod snapshot;
/// The locks of `misses`.
mod sync {
    pub(super) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
}
#[cfg(test)]
mod tests;
mod write;

use core::{ops::ControlFlow, time::Duration};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    vec::Vec,
};

use self::{
    cache::{Held, Taken},
    reading::Roots,
    refresh::Signal,
    shared::{Need, Shared},
};
pub use self::{counters::StoreCounters, reseal::Resealed, settings::StoreSettings};
use super::{
    Keyring,
    key::{Key, KeyInfo, VersionInfo},
    keyset::Keyset,
    store::KeyStore,
};
use crate::{
    cmk::CmkVersion,
    error::{Error, ErrorKind},
    key_id::KeyId,
    trace::Event,
};

/// CMKs that many processes share through a [`KeyStore`], such as a table in a database.
///
/// The store keeps a key document for each CMK, sealed and authenticated under a root that the store does not have. The
/// keyring holds the documents of the keys in use in memory:
///
/// - A call for a key in memory needs no I/O and no lock.
/// - A call that names a key or a version that is not in memory asks the store first. So a DEK that one process has
///   sealed opens in all others at once.
/// - Changes of other processes are seen within [`max_age`](StoreSettings::max_age). Call
///   [`start_refresher`](Self::start_refresher) once, so that no call has to wait for the check.
/// - While the store does not answer, keys in memory stay in use for [`max_stale`](StoreSettings::max_stale).
///
/// Calls are synchronous. An async host may call directly if [`is_ready`](Self::is_ready) says that no I/O is needed.
/// Otherwise it calls [`load`](Self::load) first, on a thread for blocking work.
///
/// # Security
///
/// The store, and an attacker who can write to it, can withhold a document or return an older one. They cannot forge or
/// change a document, or pass off the document of one key as that of another. A process that has seen a newer document
/// refuses an older one: see *Rollback*. If the store keeps returning the newest document that a process has seen, the
/// process cannot detect it. An attacker who has a root has every key under it.
///
/// # Rollback
///
/// A store can lose changes: a backup is restored, a failover loses writes, or a row is deleted. If the store has a
/// document that cannot follow the held one, calls that meet it fail with
/// [`StoreFault::RolledBack`](crate::StoreFault::RolledBack). The key still opens with every held version. It refuses
/// to seal and to change ([`ErrorKind::RollbackUnresolved`]) until one of these happens:
///
/// - The store returns the newer document again.
/// - [`write_back`](Self::write_back) overwrites the document in the store with the one that this process holds.
/// - [`adopt`](Self::adopt) accepts the document of the store. Versions that only this process has are lost.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
///
/// use dekseal::{CmkVersion, EncryptionContext, Engine, StoreKeyring, store::MemoryStore};
///
/// // In place of a database. `dekseal-postgres` and `dekseal-sqlite` have real ones.
/// let store = Arc::new(MemoryStore::new());
/// let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32]);
/// let here = Engine::new(StoreKeyring::new(store.clone(), root()?));
/// let elsewhere = Engine::new(StoreKeyring::new(store, root()?));
/// here.keyring().start_refresher()?;
///
/// let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// let context = EncryptionContext::none();
/// here.keyring().update(&key_id, |keys| keys.create_key(key_id))?;
/// elsewhere.create_dek(&key_id, &context)?;
///
/// // The other process has not heard of the rotation, and opens what is sealed under the new version all the same.
/// here.keyring().update(&key_id, |keys| keys.rotate(&key_id))?;
/// let (dek, sealed) = here.create_dek(&key_id, &context)?;
/// assert_eq!(sealed.key_version(), 1);
/// assert_eq!(elsewhere.decrypt_dek(&key_id, &context, &sealed)?, dek);
/// # Ok::<(), dekseal::Error>(())
/// ```
pub struct StoreKeyring<S> {
    shared: Arc<Shared<S>>,
    /// The signal of the refresher, if it was started.
    refresher: Mutex<Option<Arc<Signal>>>,
}

impl<S: KeyStore> StoreKeyring<S> {
    /// Makes a keyring over a store, with one root and the default settings. It does not contact the store yet.
    #[must_use]
    pub fn new(store: S, root: CmkVersion) -> Self {
        Self::of(store, Roots::new(Arc::new(root), []), StoreSettings::default())
    }

    /// Makes a keyring that writes under `root`, and also reads documents under the `reading` roots.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Settings`](crate::StoreFault::Settings); no others.
    ///
    /// # Examples
    ///
    /// During a change of the root, new keys are under the new root, and keys under the old one can be read:
    ///
    /// ```
    /// # use dekseal::{CmkVersion, KeyId, StoreKeyring, StoreSettings, store::MemoryStore};
    /// # let old_root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
    /// # let new_root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 1, &[8; 32])?;
    /// let keyring = StoreKeyring::with_settings(MemoryStore::new(), new_root, [old_root], StoreSettings::default())?;
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # keyring.update(&key_id, |keys| keys.create_key(key_id))?;
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn with_settings(
        store: S,
        root: CmkVersion,
        reading: impl IntoIterator<Item = CmkVersion>,
        settings: StoreSettings,
    ) -> Result<Self, Error> {
        settings.check()?;
        Ok(Self::of(store, Roots::new(Arc::new(root), reading), settings))
    }

    fn of(store: S, roots: Roots, settings: StoreSettings) -> Self {
        Self {
            shared: Arc::new(Shared::new(store, roots, settings)),
            refresher: Mutex::new(None),
        }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.shared.store
    }

    /// The settings.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, StoreKeyring, store::MemoryStore};
    /// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
    /// # let keyring = StoreKeyring::new(MemoryStore::new(), root);
    /// let settings = keyring.settings();
    /// assert!(settings.max_age < settings.max_stale && settings.max_stale < settings.grace());
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[must_use]
    pub fn settings(&self) -> StoreSettings {
        self.shared.settings
    }

    /// Replaces the roots: see [`reseal`](Self::reseal). Keys in memory stay there.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, StoreKeyring, store::MemoryStore};
    /// # let root_id: dekseal::KeyId = "00000000-0000-0000-0000-00000000root".parse()?;
    /// # let root = |version, byte| CmkVersion::new(root_id, version, &[byte; 32]);
    /// let keyring = StoreKeyring::new(MemoryStore::new(), root(0, 7)?);
    /// keyring.set_roots(root(0, 7)?, [root(1, 8)?]); // step 1, in every process
    /// keyring.set_roots(root(1, 8)?, [root(0, 7)?]); // step 2, in every process
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn set_roots(&self, root: CmkVersion, reading: impl IntoIterator<Item = CmkVersion>) {
        self.shared.roots.store(Arc::new(Roots::new(Arc::new(root), reading)));
    }

    /// Changes one key and writes it to the store. When this returns, all changes of `f` are made, or none of them.
    ///
    /// `f` gets a keyset with this key, or an empty one if the key does not exist. It may create, change or purge this
    /// key, and no other. If another process changes the key at the same time, `f` is called again with the result of
    /// that change.
    ///
    /// # Errors
    ///
    /// The errors of `f`; [`ErrorKind::ForeignKeys`] if `f` made another key; [`ErrorKind::KeyExists`] if `f` replaced
    /// the key by another one with its ID: purge it in one change and create it in the next;
    /// [`ErrorKind::DeletionNotScheduled`] if `f` removed a key whose deletion was not scheduled before this change;
    /// [`ErrorKind::ImplausibleTime`] if the clock is not set, or if `f` added a version to an existing key with a
    /// `created` before this call of `f`, because the grace period of [`destroy_versions`](Keyset::destroy_versions)
    /// counts from that time; and [`ErrorKind::Store`] with any fault but `Stale`, `NotASnapshot` and `Settings`:
    /// `RolledBack` until a rollback is resolved. No others. The key is as it was before, unless the fault is
    /// [`StoreFault::OutcomeUnknown`](crate::StoreFault::OutcomeUnknown): then the change may have been made, or may
    /// yet be made.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, KeyId, StoreKeyring, store::MemoryStore};
    /// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
    /// # let keyring = StoreKeyring::new(MemoryStore::new(), root);
    /// let key_id = KeyId::generate()?;
    /// keyring.update(&key_id, |keys| keys.create_key(key_id))?;
    /// let version = keyring.update(&key_id, |keys| keys.rotate(&key_id))?;
    /// assert_eq!(version, 1);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn update<T>(&self, key_id: &KeyId, f: impl FnMut(&mut Keyset) -> Result<T, Error>) -> Result<T, Error> {
        Event::new("update_key", Some(key_id), None).of(|_| self.shared.update(key_id, f))
    }

    /// The description of a key. Asks the store if the key is not in memory, or was not confirmed for
    /// [`max_age`](StoreSettings::max_age).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], and [`ErrorKind::Store`] with a fault of the store or of the document; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, KeyId, StoreKeyring, store::MemoryStore};
    /// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
    /// # let keyring = StoreKeyring::new(MemoryStore::new(), root);
    /// # let key_id = KeyId::generate()?;
    /// # keyring.update(&key_id, |keys| keys.create_key(key_id))?;
    /// assert_eq!(keyring.info(&key_id)?.current_version, 0);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn info(&self, key_id: &KeyId) -> Result<KeyInfo, Error> {
        self.with_key(key_id, |key| key.info(*key_id))
    }

    /// The versions of a key in ascending order, as from [`Keyset::versions`].
    ///
    /// # Errors
    ///
    /// The errors of [`info`](Self::info); no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, KeyId, StoreKeyring, store::MemoryStore};
    /// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
    /// # let keyring = StoreKeyring::new(MemoryStore::new(), root);
    /// # let key_id = KeyId::generate()?;
    /// # keyring.update(&key_id, |keys| keys.create_key(key_id))?;
    /// assert_eq!(keyring.versions(&key_id)?.len(), 1);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn versions(&self, key_id: &KeyId) -> Result<Vec<VersionInfo>, Error> {
        self.with_key(key_id, Key::version_infos)
    }

    fn with_key<T>(&self, key_id: &KeyId, f: impl FnOnce(&Key) -> T) -> Result<T, Error> {
        self.with(key_id, Need::Open(0), |key, _| Ok(f(key)))
    }

    /// The IDs of the keys in the store, in ascending order: up to `limit` IDs after `after`. An empty page is the end.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] with a fault of the store; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, KeyId, StoreKeyring, store::MemoryStore};
    /// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
    /// # let keyring = StoreKeyring::new(MemoryStore::new(), root);
    /// # let key_id = KeyId::generate()?;
    /// # keyring.update(&key_id, |keys| keys.create_key(key_id))?;
    /// let mut after = None;
    /// loop {
    ///     let page = keyring.list(after.as_ref(), 1000)?;
    ///     let Some(last) = page.last() else { break };
    ///     after = Some(*last);
    ///     for key_id in &page {
    ///         println!("{:?}", keyring.info(key_id)?);
    ///     }
    /// }
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn list(&self, after: Option<&KeyId>, limit: usize) -> Result<Vec<KeyId>, Error> {
        Event::new("list_keys", None, None).of(|_| {
            let page = self.shared.store.list(after, limit, &self.shared.call());
            page.map_err(|error| self.shared.failed(error))
        })
    }

    /// Whether sealing under a key, or opening under a version that is in memory, needs no request to the store. Takes
    /// no lock and does no I/O.
    ///
    /// Opening a blob of a version that is not in memory asks the store too: use [`is_ready_for`](Self::is_ready_for)
    /// for that.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, KeyId, StoreKeyring, store::MemoryStore};
    /// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
    /// # let keyring = StoreKeyring::new(MemoryStore::new(), root);
    /// # let key_id = KeyId::generate()?;
    /// # keyring.update(&key_id, |keys| keys.create_key(key_id))?;
    /// // In an async function: `spawn_blocking(move || keyring.load(&key_id)).await`.
    /// if !keyring.is_ready(&key_id) {
    ///     keyring.load(&key_id)?;
    /// }
    /// assert!(keyring.is_ready(&key_id));
    /// assert!(keyring.is_ready_for(&key_id, 0) && !keyring.is_ready_for(&key_id, 1));
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[must_use]
    pub fn is_ready(&self, key_id: &KeyId) -> bool {
        self.is_ready_for(key_id, 0)
    }

    /// Whether opening under version `key_version` of a key needs no request to the store.
    #[must_use]
    pub fn is_ready_for(&self, key_id: &KeyId, key_version: u32) -> bool {
        let now = self.shared.clock.coarse();
        let pinned = self.shared.cache.entries.pin();
        let entry = pinned.get(key_id);
        entry.is_some_and(|entry| self.shared.is_hit(entry, Need::Open(key_version), now))
    }

    /// Reads the document of a key from the store. Calls that load or miss at the same time share queries.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], and [`ErrorKind::Store`] with a fault of the store or of the document; no others.
    pub fn load(&self, key_id: &KeyId) -> Result<(), Error> {
        let call = self.shared.call();
        match self.shared.fetch(key_id, &call)? {
            // A document that was accepted meanwhile is newer.
            Taken::Held(_) | Taken::Dropped => Ok(()),
            Taken::Absent => Err(Error::from(ErrorKind::UnknownKey).with_key_id(key_id)),
        }
    }

    /// Starts a thread that checks the documents of all keys in memory before they are older than
    /// [`max_age`](StoreSettings::max_age), many in one query. If the store sends notifications, it also checks at once
    /// after each. The thread ends with the keyring. A second call does nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Keyring`] if the system cannot start a thread; no others.
    pub fn start_refresher(&self) -> Result<(), Error>
    where
        S: 'static,
    {
        let mut refresher = self.refresher.lock().unwrap_or_else(PoisonError::into_inner);
        if refresher.is_none() {
            let signal = Arc::new(Signal::default());
            refresh::start(&self.shared, &signal)?;
            *refresher = Some(signal);
        }
        Ok(())
    }

    /// Checks the documents of all keys in memory now. Returns the number of changed documents. A host with its own
    /// timer uses this instead of [`start_refresher`](Self::start_refresher).
    ///
    /// A refused document does not keep the others from being checked. Calls for its key report the error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] with a fault of the store; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, StoreKeyring, store::MemoryStore};
    /// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
    /// # let keyring = StoreKeyring::new(MemoryStore::new(), root);
    /// assert_eq!(keyring.refresh()?, 0);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn refresh(&self) -> Result<usize, Error> {
        self.shared.refresh(Duration::ZERO)
    }

    /// Seals every document in the store again under the writing root, one at a time. Documents that are under the
    /// writing root already stay as they are, so a pass can be repeated. Calls `progress` for each key, and says
    /// whether its document was sealed again. `progress` can end the pass; a later call continues `after` the last key.
    ///
    /// A fleet changes its root in four steps:
    ///
    /// 1. Give every process the new root as a reading root.
    /// 2. Make the new root the writing root of every process, and the old one a reading root.
    /// 3. Call this method in one process.
    /// 4. If a complete pass that began after step 2 found no document under the old root, remove the old root.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] with a fault of the store; no others. A document that cannot be read or written is counted,
    /// passed to `progress`, and skipped.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::ops::ControlFlow;
    /// # use dekseal::{CmkVersion, KeyId, StoreKeyring, store::MemoryStore};
    /// # let root_id: dekseal::KeyId = "00000000-0000-0000-0000-00000000root".parse()?;
    /// # let root = |version, byte| CmkVersion::new(root_id, version, &[byte; 32]);
    /// let keyring = StoreKeyring::new(MemoryStore::new(), root(0, 7)?);
    /// let key_id = KeyId::generate()?;
    /// keyring.update(&key_id, |keys| keys.create_key(key_id))?;
    ///
    /// keyring.set_roots(root(1, 8)?, [root(0, 7)?]);
    /// let pass = keyring.reseal(None, |key_id, result| {
    ///     if let Err(error) = result {
    ///         println!("{key_id}: {error}");
    ///     }
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!((pass.resealed, pass.failed), (1, 0));
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn reseal(
        &self,
        after: Option<&KeyId>,
        progress: impl FnMut(&KeyId, Result<bool, Error>) -> ControlFlow<()>,
    ) -> Result<Resealed, Error> {
        Event::new("reseal_keys", None, None).of(|_| self.shared.reseal_all(after.copied(), progress))
    }

    /// Accepts the document of a key in the store after a rollback: see *Rollback* above. If the store has no such key,
    /// the key is removed from memory.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] with a fault of the store or of the document; no others. On an error nothing has changed.
    ///
    /// # Security
    ///
    /// Versions that are not in the store are lost, and with them all DEKs that are sealed under them. An attacker who
    /// can write to the store may have restored a state in which a disabled key is still enabled: check the key after
    /// this.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, ErrorKind, KeyId, StoreFault, StoreKeyring, store::MemoryStore};
    /// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
    /// # let keyring = StoreKeyring::new(MemoryStore::new(), root);
    /// # let key_id = KeyId::generate()?;
    /// keyring.update(&key_id, |keys| keys.create_key(key_id))?;
    /// let backup = keyring.store().copy();
    /// keyring.update(&key_id, |keys| keys.rotate(&key_id))?;
    /// keyring.store().restore(&backup); // somebody restores the database
    ///
    /// let error = keyring.load(&key_id).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Store(StoreFault::RolledBack));
    /// keyring.adopt(&key_id)?;
    /// assert_eq!(keyring.info(&key_id)?.current_version, 0);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn adopt(&self, key_id: &KeyId) -> Result<(), Error> {
        Event::new("adopt_key", Some(key_id), None).of(|_| self.shared.adopt(key_id))
    }

    /// Overwrites the document of a key in the store with the one that this process holds, after a rollback: see
    /// *Rollback* above. The new generation is above both. Without a rollback, this accepts the document of the store
    /// and writes nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`] if the key is not in memory, and [`ErrorKind::Store`] with any fault except `Stale`,
    /// `NotASnapshot` and `Settings`; no others. This does not overwrite a document that cannot be read: remove it from
    /// the store first.
    ///
    /// # Security
    ///
    /// Changes that others made since the rollback are lost, and with them all DEKs that are sealed under versions that
    /// they made. Call this in the process that holds the newest version.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, ErrorKind, KeyId, StoreKeyring, store::MemoryStore};
    /// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
    /// # let keyring = StoreKeyring::new(MemoryStore::new(), root);
    /// # let key_id = KeyId::generate()?;
    /// keyring.update(&key_id, |keys| keys.create_key(key_id))?;
    /// let backup = keyring.store().copy();
    /// keyring.update(&key_id, |keys| keys.rotate(&key_id))?;
    /// keyring.store().restore(&backup); // somebody restores the database
    ///
    /// assert!(keyring.load(&key_id).is_err());
    /// keyring.write_back(&key_id)?;
    /// assert_eq!(keyring.info(&key_id)?.current_version, 1);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn write_back(&self, key_id: &KeyId) -> Result<(), Error> {
        Event::new("write_back_key", Some(key_id), None).of(|_| self.shared.write_back(key_id))
    }

    /// Makes a snapshot of the documents in memory, for a process that starts while the store is away. The documents
    /// are sealed as in the store, and the snapshot is authenticated under the writing root.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] with `TooLarge`; no others.
    ///
    /// # Security
    ///
    /// An older snapshot also has a correct MAC. A key that was disabled since stays in use until the store answers, at
    /// most for [`max_stale`](StoreSettings::max_stale).
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, KeyId, StoreKeyring, store::{Action, MemoryStore}};
    /// # let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32]);
    /// # let keyring = StoreKeyring::new(MemoryStore::new(), root()?);
    /// # let key_id = KeyId::generate()?;
    /// # keyring.update(&key_id, |keys| keys.create_key(key_id))?;
    /// let snapshot = keyring.snapshot()?; // write it to a file from time to time
    ///
    /// let away = MemoryStore::new();
    /// away.set_script(|_request, _call| Action::Fail);
    /// let restarted = StoreKeyring::new(away, root()?);
    /// assert_eq!(restarted.restore(&snapshot)?, 1);
    /// assert!(restarted.is_ready(&key_id));
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn snapshot(&self) -> Result<Vec<u8>, Error> {
        self.shared.snapshot()
    }

    /// Loads the documents of a snapshot that are not in memory. Returns their number. The time limits of each document
    /// count from the time at which the store last confirmed it. A document that was confirmed in the future is left
    /// out, if the difference is more than the [`clock_skew`](StoreSettings::clock_skew).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] with `NotASnapshot`, `WrongRoot` or `Changed`; no others.
    pub fn restore(&self, snapshot: &[u8]) -> Result<usize, Error> {
        Event::new("restore_keys", None, None).of(|_| self.shared.restore(snapshot))
    }

    /// The counters of the keyring since it was made.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, KeyId, StoreKeyring, store::MemoryStore};
    /// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
    /// # let keyring = StoreKeyring::new(MemoryStore::new(), root);
    /// # let key_id = KeyId::generate()?;
    /// keyring.update(&key_id, |keys| keys.create_key(key_id))?;
    /// let counters = keyring.counters();
    /// assert_eq!((counters.held, counters.misses), (1, 0));
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[must_use]
    pub fn counters(&self) -> StoreCounters {
        let Shared {
            counters, cache, clock, ..
        } = &*self.shared;
        let (now, pinned) = (clock.now(), cache.entries.pin());
        let oldest = pinned.iter().map(|(_, entry)| now.since(entry.confirmed())).max();
        StoreCounters {
            held: pinned.len(),
            oldest: oldest.map(Duration::from_millis),
            evictions: cache.evictions(),
            ..counters.read()
        }
    }

    /// Calls `f` with the key that a call needs, and with whether the key was rolled back.
    #[inline]
    fn with<T>(&self, key_id: &KeyId, need: Need, f: impl FnOnce(&Key, bool) -> Result<T, Error>) -> Result<T, Error> {
        let now = self.shared.clock.coarse();
        let pinned = self.shared.cache.entries.pin();
        if let Some(entry) = pinned.get(key_id)
            && self.shared.is_hit(entry, need, now)
        {
            self.shared.counters.hit();
            entry.touch(now);
            return f(&entry.key, entry.is_rolled_back());
        }
        drop(pinned);
        let Held { key, rolled_back, .. } = self.shared.find(key_id, need)?;
        f(&key, rolled_back)
    }
}

impl<S: KeyStore> Keyring for StoreKeyring<S> {
    #[inline]
    fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        self.with(key_id, Need::Seal, |key, rolled_back| {
            if rolled_back {
                return Err(key.error(ErrorKind::RollbackUnresolved));
            }
            key.check_enabled()?;
            Ok(f(&key.current.cmk))
        })
    }

    #[inline]
    fn with_version<T>(&self, key_id: &KeyId, key_version: u32, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        self.with(key_id, Need::Open(key_version), |key, _| {
            let version = key.opening(key_version)?;
            key.check_enabled()?;
            Ok(f(&version.cmk))
        })
    }
}

impl<S> Drop for StoreKeyring<S> {
    fn drop(&mut self) {
        let refresher = self.refresher.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(signal) = refresher {
            signal.stop();
        }
    }
}

impl<S> fmt::Debug for StoreKeyring<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "StoreKeyring({} keys held, ..)",
            self.shared.cache.entries.pin().len()
        )
    }
}
