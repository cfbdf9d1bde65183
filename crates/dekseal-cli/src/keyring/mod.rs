//! Keyrings by address.

mod address;

use std::time::Duration;

use dekseal::{
    CmkVersion, Error, ErrorKind, FileFault, FileKeyring, KeyId, KeyInfo, Keyring, Keyset, StoreKeyring, StoreSettings,
    VersionInfo,
    store::{Call, KeyStore},
};
use dekseal_postgres::PostgresStore;
use dekseal_sqlite::SqliteStore;

pub(crate) use self::address::Address;
use crate::{failure::Failure, root::Root};

/// The time that making a table may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The number of keys that one query lists.
const PAGE: usize = 1000;

/// A keyring of any kind.
pub(crate) enum AnyKeyring {
    File(Box<FileKeyring>),
    Sqlite(StoreKeyring<SqliteStore>),
    Postgres(StoreKeyring<PostgresStore>),
}

/// Evaluates an expression for a keyring file, or for the keyring of any store.
macro_rules! for_store {
    ($self:expr, $file:pat => $file_does:expr, $keyring:ident => $does:expr) => {
        match $self {
            $crate::keyring::AnyKeyring::File($file) => $file_does,
            $crate::keyring::AnyKeyring::Sqlite($keyring) => $does,
            $crate::keyring::AnyKeyring::Postgres($keyring) => $does,
        }
    };
}
pub(crate) use for_store;

impl AnyKeyring {
    /// Opens the keyring at `address`. The first root writes, the others only read.
    pub(crate) fn open(address: &Address, roots: &[Root]) -> Result<Self, Failure> {
        Self::open_with(address, roots, StoreSettings::default())
    }

    /// [`open`](Self::open) with other limits for a store.
    pub(crate) fn open_with(address: &Address, roots: &[Root], settings: StoreSettings) -> Result<Self, Failure> {
        match address {
            Address::File(path) => Ok(Self::File(Box::new(open_file(path, roots)?))),
            Address::Sqlite { path, table } => {
                if !path.exists() {
                    return Err(Failure::io(format!(
                        "{}: there is no such file; `dekseal keyring create` makes a keyring",
                        path.display()
                    )));
                }
                let store = address::sqlite(path, table.as_deref())?;
                Ok(Self::Sqlite(over_store(store, roots, settings)?))
            }
            Address::Postgres(options) => {
                let store = PostgresStore::new((**options).clone()).map_err(|error| address::store_failed(&error))?;
                Ok(Self::Postgres(over_store(store, roots, settings)?))
            }
        }
    }

    /// Makes the keyring at `address`: a file, or a table in a database.
    pub(crate) fn create(address: &Address, roots: &[Root]) -> Result<Self, Failure> {
        match address {
            Address::File(path) => {
                let root = first(roots)?.cmk()?;
                Ok(Self::File(Box::new(FileKeyring::create(path, root)?)))
            }
            Address::Sqlite { path, table } => {
                let store = address::sqlite(path, table.as_deref())?;
                Ok(Self::Sqlite(over_store(store, roots, StoreSettings::default())?))
            }
            Address::Postgres(options) => {
                let store = PostgresStore::new((**options).clone()).map_err(|error| address::store_failed(&error))?;
                let created = store.create_schema(&Call::within(DEADLINE));
                created.map_err(|error| address::store_failed(&error))?;
                Ok(Self::Postgres(over_store(store, roots, StoreSettings::default())?))
            }
        }
    }

    /// Changes one key. `change` may run several times, if others change the key at the same time.
    pub(crate) fn update<T>(
        &self,
        key_id: &KeyId,
        change: impl FnMut(&mut Keyset) -> Result<T, Error>,
    ) -> Result<T, Error> {
        for_store!(self, file => file.update(change), keyring => keyring.update(key_id, change))
    }

    pub(crate) fn info(&self, key_id: &KeyId) -> Result<KeyInfo, Error> {
        for_store!(self, file => file.keys().info(key_id), keyring => keyring.info(key_id))
    }

    pub(crate) fn versions(&self, key_id: &KeyId) -> Result<Vec<VersionInfo>, Error> {
        for_store!(self, file => file.keys().versions(key_id), keyring => keyring.versions(key_id))
    }

    /// The IDs of all keys, in ascending order.
    pub(crate) fn key_ids(&self) -> Result<Vec<KeyId>, Error> {
        for_store!(
            self,
            file => {
                let mut ids: Vec<_> = file.keys().list().iter().map(|key| key.key_id).collect();
                ids.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
                Ok(ids)
            },
            keyring => store_ids(keyring)
        )
    }

    /// Looks for changes that other processes made.
    pub(crate) fn refresh(&self) -> Result<(), Error> {
        for_store!(self, file => file.refresh().map(drop), keyring => keyring.refresh().map(drop))
    }

    /// Checks the keys of a store in the background. A process over a file calls [`refresh`](Self::refresh) itself.
    pub(crate) fn start_refresher(&self) -> Result<(), Error> {
        for_store!(self, _ => Ok(()), keyring => keyring.start_refresher())
    }
}

impl Keyring for AnyKeyring {
    fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        for_store!(self, file => file.with_current(key_id, f), keyring => keyring.with_current(key_id, f))
    }

    fn with_version<T>(&self, key_id: &KeyId, key_version: u32, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        for_store!(
            self,
            file => file.with_version(key_id, key_version, f),
            keyring => keyring.with_version(key_id, key_version, f)
        )
    }
}

fn first(roots: &[Root]) -> Result<&Root, Failure> {
    roots.first().ok_or_else(|| Failure::usage("no root is named"))
}

/// Opens a keyring file under the first root that fits.
pub(crate) fn open_file(path: &std::path::Path, roots: &[Root]) -> Result<FileKeyring, Failure> {
    let mut refused = Failure::usage("no root is named");
    for root in roots {
        match FileKeyring::open(path, root.cmk()?) {
            Ok(keyring) => return Ok(keyring),
            Err(error) => {
                let other = error.kind() == ErrorKind::File(FileFault::WrongRoot);
                refused = error.into();
                if !other {
                    break;
                }
            }
        }
    }
    Err(refused)
}

fn over_store<S: KeyStore>(store: S, roots: &[Root], settings: StoreSettings) -> Result<StoreKeyring<S>, Failure> {
    let root = first(roots)?.cmk()?;
    let reading = roots.iter().skip(1).map(Root::cmk).collect::<Result<Vec<_>, _>>()?;
    Ok(StoreKeyring::with_settings(store, root, reading, settings)?)
}

pub(crate) fn store_ids<S: KeyStore>(keyring: &StoreKeyring<S>) -> Result<Vec<KeyId>, Error> {
    let mut ids = Vec::new();
    loop {
        let page = keyring.list(ids.last(), PAGE)?;
        if page.is_empty() {
            return Ok(ids);
        }
        ids.extend(page);
    }
}
