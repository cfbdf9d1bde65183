//! The keyrings of the core and its companions as one type, and how each is opened.

use std::{path::PathBuf, sync::Arc, time::Duration};

use dekseal::{
    CmkVersion, Error, FileFault, FileKeyring, KeyId, KeyInfo, Keyring, Keyset, MemoryKeyring, StoreKeyring,
    StoreSettings, VersionInfo,
    store::{Call, KeyStore, StoreError},
};
use dekseal_postgres::{Options, PostgresStore};

use super::sqlite::ForkedStore;
use crate::{fork, root::Material};

/// The keys of a page of a store.
const PAGE: usize = 1000;

/// How a keyring is opened.
pub(super) enum Recipe {
    Memory,
    File(PathBuf),
    Sqlite(PathBuf, String, Fleet),
    Postgres(Box<Options>, Fleet),
}

#[derive(Clone, Copy)]
pub(super) struct Fleet {
    pub(super) settings: StoreSettings,
    pub(super) refresher: bool,
}

/// The root that writes, and those that only read.
pub(super) struct Roots {
    pub(super) writing: Option<Arc<Material>>,
    pub(super) reading: Vec<Arc<Material>>,
}

impl Roots {
    pub(super) fn root(&self) -> Result<CmkVersion, Error> {
        match &self.writing {
            Some(root) => root.cmk(),
            None => Err(dekseal::ErrorKind::InvalidMaterial.into()),
        }
    }

    pub(super) fn reading(&self) -> Result<Vec<CmkVersion>, Error> {
        self.reading.iter().map(|root| root.cmk()).collect()
    }
}

#[expect(clippy::large_enum_variant, reason = "each lies behind an Arc")]
pub(crate) enum AnyKeyring {
    Memory(MemoryKeyring),
    File(FileKeyring),
    Sqlite(StoreKeyring<ForkedStore>),
    Postgres(StoreKeyring<PostgresStore>),
}

impl AnyKeyring {
    /// Opens the keyring of a recipe. `before` is the same keyring, as it was before a fork.
    pub(super) fn open(recipe: &Recipe, roots: &Roots, before: Option<&Self>) -> Result<Self, Error> {
        Ok(match recipe {
            Recipe::Memory => Self::Memory(MemoryKeyring::new(match before {
                Some(Self::Memory(before)) => Keyset::clone(&before.keys()),
                _ => Keyset::new(),
            })),
            Recipe::File(path) => {
                let opened = FileKeyring::open(path, roots.root()?)?;
                match before {
                    Some(Self::File(before)) if opened.generation() < before.generation() => {
                        return Err(FileFault::RolledBack.into());
                    }
                    _ => Self::File(opened),
                }
            }
            Recipe::Sqlite(path, table, fleet) => {
                let store = ForkedStore::open(path.clone(), table).map_err(failed)?;
                Self::Sqlite(started(store, roots, *fleet)?)
            }
            Recipe::Postgres(options, fleet) => {
                let store = PostgresStore::new(Options::clone(options)).map_err(failed)?;
                Self::Postgres(started(store, roots, *fleet)?)
            }
        })
    }

    /// Changes one key.
    pub(super) fn update<T>(
        &self,
        key_id: &KeyId,
        mut f: impl FnMut(&mut Keyset) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match self {
            Self::Memory(keyring) => {
                let _gate = fork::gate();
                keyring.update(f)
            }
            Self::File(keyring) => {
                let _gate = fork::gate();
                keyring.update(f)
            }
            // Their stores hold the gate, or need none.
            Self::Sqlite(keyring) => keyring.update(key_id, &mut f),
            Self::Postgres(keyring) => keyring.update(key_id, &mut f),
        }
    }

    pub(super) fn info(&self, key_id: &KeyId) -> Result<KeyInfo, Error> {
        match self {
            Self::Memory(keyring) => keyring.keys().info(key_id),
            Self::File(keyring) => keyring.keys().info(key_id),
            Self::Sqlite(keyring) => keyring.info(key_id),
            Self::Postgres(keyring) => keyring.info(key_id),
        }
    }

    pub(super) fn versions(&self, key_id: &KeyId) -> Result<Vec<VersionInfo>, Error> {
        match self {
            Self::Memory(keyring) => keyring.keys().versions(key_id),
            Self::File(keyring) => keyring.keys().versions(key_id),
            Self::Sqlite(keyring) => keyring.versions(key_id),
            Self::Postgres(keyring) => keyring.versions(key_id),
        }
    }

    pub(super) fn key_ids(&self) -> Result<Vec<KeyId>, Error> {
        match self {
            Self::Memory(keyring) => Ok(keyring.keys().list().iter().map(|info| info.key_id).collect()),
            Self::File(keyring) => Ok(keyring.keys().list().iter().map(|info| info.key_id).collect()),
            Self::Sqlite(keyring) => all(keyring),
            Self::Postgres(keyring) => all(keyring),
        }
    }

    /// Looks for changes of other processes now.
    pub(super) fn refresh(&self) -> Result<(), Error> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::File(keyring) => {
                let _gate = fork::gate();
                keyring.refresh().map(drop)
            }
            Self::Sqlite(keyring) => keyring.refresh().map(drop),
            Self::Postgres(keyring) => keyring.refresh().map(drop),
        }
    }

    /// Whether a call may ask a store, so that other Python threads must run meanwhile.
    ///
    /// No look into memory rules that out: the key may be there but not the version of a blob, and what is there may
    /// get too old before the call. A thread that kept the GIL while it waits for the gate would stop the fork that
    /// holds the gate, because a fork needs the GIL to go on.
    pub(crate) fn may_wait(&self) -> bool {
        match self {
            Self::Memory(_) | Self::File(_) => false,
            Self::Sqlite(_) | Self::Postgres(_) => true,
        }
    }
}

fn started<S: KeyStore + 'static>(store: S, roots: &Roots, fleet: Fleet) -> Result<StoreKeyring<S>, Error> {
    let keyring = StoreKeyring::with_settings(store, roots.root()?, roots.reading()?, fleet.settings)?;
    if fleet.refresher {
        keyring.start_refresher()?;
    }
    Ok(keyring)
}

fn all<S: KeyStore>(keyring: &StoreKeyring<S>) -> Result<Vec<KeyId>, Error> {
    let mut all = Vec::new();
    loop {
        let page = keyring.list(all.last(), PAGE)?;
        let last = page.len() < PAGE;
        all.extend(page);
        if last {
            return Ok(all);
        }
    }
}

/// An error of a store before there is a keyring that could turn it into one of its own.
fn failed(error: StoreError) -> Error {
    Error::keyring(error)
}

/// Makes the table of a PostgreSQL store.
pub(super) fn create_schema(options: &Options) -> Result<(), Error> {
    let store = PostgresStore::new(options.clone()).map_err(failed)?;
    store
        .create_schema(&Call::within(Duration::from_secs(5)))
        .map_err(failed)
}

impl Keyring for AnyKeyring {
    fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        match self {
            Self::Memory(keyring) => keyring.with_current(key_id, f),
            Self::File(keyring) => keyring.with_current(key_id, f),
            Self::Sqlite(keyring) => keyring.with_current(key_id, f),
            Self::Postgres(keyring) => keyring.with_current(key_id, f),
        }
    }

    fn with_version<T>(&self, key_id: &KeyId, key_version: u32, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        match self {
            Self::Memory(keyring) => keyring.with_version(key_id, key_version, f),
            Self::File(keyring) => keyring.with_version(key_id, key_version, f),
            Self::Sqlite(keyring) => keyring.with_version(key_id, key_version, f),
            Self::Postgres(keyring) => keyring.with_version(key_id, key_version, f),
        }
    }
}
