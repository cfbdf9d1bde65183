//! A keyring whose CMKs many machines share through a store (FORMAT.md part D).

mod cache;
mod clock;
mod counters;
mod lookup;
mod misses;
mod reading;
mod refresh;
mod remembered;
mod reseal;
mod rollback;
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

use core::time::Duration;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    vec::Vec,
};

pub use self::{counters::StoreCounters, reseal::Resealed, settings::StoreSettings};
use self::{
    reading::Roots,
    refresh::Signal,
    shared::{Need, Shared},
};
use super::{
    key::{Key, KeyInfo, VersionInfo},
    keyset::Keyset,
    store::KeyStore,
};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::{cmk::CmkVersion, error::Error, key_id::KeyId, trace::Event};

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
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, StoreKeyring, store::MemoryStore};
    /// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
    /// let keyring = StoreKeyring::new(MemoryStore::new(), root);
    /// let backup = keyring.store().copy();
    /// # Ok::<(), dekseal::Error>(())
    /// ```
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
