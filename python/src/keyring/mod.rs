//! Keyrings, and the management of their keys.

mod handle;
mod kind;
mod sqlite;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use dekseal::{CmkVersion, Error, FileKeyring, KeyId, KeyState, Keyset, MemoryKeyring, StoreSettings, UnixTime};
use dekseal_postgres::Options;
use pyo3::{PyClass, exceptions::PyTypeError, prelude::*, pybacked::PyBackedStr};

use self::kind::{Fleet, Recipe, Roots};
pub(crate) use self::{handle::Handle, kind::AnyKeyring};
use crate::{buffers::Input, errors::OrRaise, root::PyRoot, sealed::parse_id};

/// The base class of the keyrings.
#[pyclass(module = "dekseal", name = "Keyring", frozen, subclass, weakref)]
pub(crate) struct PyKeyring(pub(crate) Arc<Handle>);

/// The description of a key.
#[pyclass(module = "dekseal", name = "KeyInfo", frozen, get_all, eq)]
#[derive(PartialEq)]
pub(crate) struct PyKeyInfo {
    key_id: String,
    /// `"enabled"`, `"disabled"` or `"pending_deletion"`.
    state: &'static str,
    /// The time from which the key can be purged, if it is pending deletion.
    deletion_date: Option<SystemTime>,
    current_version: u32,
    current_created: Option<SystemTime>,
    min_version: u32,
}

#[pymethods]
impl PyKeyInfo {
    fn __repr__(&self) -> String {
        format!(
            "KeyInfo(key_id='{}', state='{}', current_version={}, min_version={})",
            self.key_id, self.state, self.current_version, self.min_version
        )
    }
}

impl From<dekseal::KeyInfo> for PyKeyInfo {
    fn from(info: dekseal::KeyInfo) -> Self {
        let (state, deletion_date) = match info.state {
            KeyState::Enabled => ("enabled", None),
            KeyState::Disabled => ("disabled", None),
            KeyState::PendingDeletion { at } => ("pending_deletion", Some(at.into())),
            _ => ("unknown", None),
        };
        Self {
            key_id: info.key_id.to_string(),
            state,
            deletion_date,
            current_version: info.current_version,
            current_created: info.current_created.map(SystemTime::from),
            min_version: info.min_version,
        }
    }
}

/// The description of one version of a key.
#[pyclass(module = "dekseal", name = "VersionInfo", frozen, get_all, eq)]
#[derive(PartialEq)]
pub(crate) struct PyVersionInfo {
    key_version: u32,
    created: Option<SystemTime>,
}

#[pymethods]
impl PyVersionInfo {
    fn __repr__(&self) -> String {
        format!("VersionInfo(key_version={})", self.key_version)
    }
}

/// Calls a function with the keyring while other Python threads run.
fn detached<T: Send>(
    py: Python<'_>,
    handle: &Handle,
    f: impl Send + FnOnce(&AnyKeyring) -> Result<T, Error>,
) -> PyResult<T> {
    py.detach(|| f(handle.opened()?.engine.keyring())).or_raise()
}

impl PyKeyring {
    fn update<T: Send>(
        &self,
        py: Python<'_>,
        key_id: &str,
        f: impl Send + Sync + Fn(&mut Keyset, &KeyId) -> Result<T, Error>,
    ) -> PyResult<T> {
        let key_id: KeyId = parse_id(key_id)?;
        detached(py, &self.0, |keyring| keyring.update(&key_id, |keys| f(keys, &key_id)))
    }
}

fn time(time: Option<SystemTime>) -> PyResult<UnixTime> {
    match time {
        Some(time) => time.try_into(),
        None => UnixTime::now(),
    }
    .or_raise()
}

#[pymethods]
impl PyKeyring {
    /// Makes a key with random material, and returns its ID. Without `key_id` the ID is random.
    #[pyo3(signature = (key_id = None))]
    fn create_key(&self, py: Python<'_>, key_id: Option<&str>) -> PyResult<String> {
        let key_id = match key_id {
            Some(key_id) => parse_id(key_id)?,
            None => KeyId::generate().or_raise()?,
        };
        self.update(py, key_id.as_str(), |keys, key_id| keys.create_key(*key_id))?;
        Ok(key_id.to_string())
    }

    /// Makes a key whose first version has this material: 32 to 64 random bytes.
    fn import_key(&self, py: Python<'_>, key_id: &str, material: &Bound<'_, PyAny>) -> PyResult<()> {
        let material = Input::of(material, "material")?;
        self.update(py, key_id, |keys, key_id| keys.import_key(*key_id, &material))
    }

    /// Adds a version with this material, which seals from now on. Returns its number.
    fn import_version(&self, py: Python<'_>, key_id: &str, material: &Bound<'_, PyAny>) -> PyResult<u32> {
        let material = Input::of(material, "material")?;
        self.update(py, key_id, |keys, key_id| keys.import_version(key_id, &material))
    }

    /// Adds a version with random material, which seals from now on. Returns its number.
    fn rotate(&self, py: Python<'_>, key_id: &str) -> PyResult<u32> {
        self.update(py, key_id, Keyset::rotate)
    }

    /// Disables a key: it neither seals nor opens.
    fn disable(&self, py: Python<'_>, key_id: &str) -> PyResult<()> {
        self.update(py, key_id, Keyset::disable)
    }

    /// Enables a disabled key.
    fn enable(&self, py: Python<'_>, key_id: &str) -> PyResult<()> {
        self.update(py, key_id, Keyset::enable)
    }

    /// Schedules the deletion of a key, 7 to 1096 days ahead. Until then it neither seals nor opens. Returns the date.
    #[pyo3(signature = (key_id, days, *, now = None))]
    fn schedule_deletion(
        &self,
        py: Python<'_>,
        key_id: &str,
        days: u32,
        now: Option<SystemTime>,
    ) -> PyResult<SystemTime> {
        let now = time(now)?;
        let at = self.update(py, key_id, |keys, key_id| keys.schedule_deletion_at(key_id, days, now))?;
        Ok(at.into())
    }

    /// Cancels the deletion of a key, which is disabled then.
    fn cancel_deletion(&self, py: Python<'_>, key_id: &str) -> PyResult<()> {
        self.update(py, key_id, Keyset::cancel_deletion)
    }

    /// Removes a key whose deletion is due. Whatever was sealed under it is lost.
    #[pyo3(signature = (key_id, *, now = None))]
    fn purge(&self, py: Python<'_>, key_id: &str, now: Option<SystemTime>) -> PyResult<()> {
        let now = time(now)?;
        self.update(py, key_id, |keys, key_id| keys.purge_at(key_id, now))
    }

    /// Retires the versions below `min_version`: they no longer open. This can be undone.
    fn set_min_version(&self, py: Python<'_>, key_id: &str, min_version: u32) -> PyResult<()> {
        self.update(py, key_id, |keys, key_id| keys.set_min_version(key_id, min_version))
    }

    /// Destroys the material of the versions below `first_kept`, and returns how many. Refused while the successor of
    /// such a version is younger than `grace`.
    #[pyo3(signature = (key_id, first_kept, *, grace, now = None))]
    fn destroy_versions(
        &self,
        py: Python<'_>,
        key_id: &str,
        first_kept: u32,
        grace: Duration,
        now: Option<SystemTime>,
    ) -> PyResult<usize> {
        let now = time(now)?;
        self.update(py, key_id, |keys, key_id| {
            keys.destroy_versions_at(key_id, first_kept, grace, now)
        })
    }

    /// `destroy_versions` without a grace period.
    fn force_destroy_versions(&self, py: Python<'_>, key_id: &str, first_kept: u32) -> PyResult<usize> {
        self.update(py, key_id, |keys, key_id| {
            keys.force_destroy_versions(key_id, first_kept)
        })
    }

    /// The description of a key.
    fn info(&self, py: Python<'_>, key_id: &str) -> PyResult<PyKeyInfo> {
        let key_id = parse_id(key_id)?;
        Ok(detached(py, &self.0, |keyring| keyring.info(&key_id))?.into())
    }

    /// The versions of a key that have material.
    fn versions(&self, py: Python<'_>, key_id: &str) -> PyResult<Vec<PyVersionInfo>> {
        let key_id = parse_id(key_id)?;
        let versions = detached(py, &self.0, |keyring| keyring.versions(&key_id))?;
        let info = |version: dekseal::VersionInfo| PyVersionInfo {
            key_version: version.key_version,
            created: version.created.map(SystemTime::from),
        };
        Ok(versions.into_iter().map(info).collect())
    }

    /// The IDs of all keys, in ascending order.
    fn list(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let key_ids = detached(py, &self.0, AnyKeyring::key_ids)?;
        Ok(key_ids.iter().map(KeyId::to_string).collect())
    }

    /// Looks now for changes that other processes made.
    fn refresh(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, &self.0, AnyKeyring::refresh)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        Ok(format!("{}(..)", slf.get_type().name()?))
    }

    fn __reduce_ex__(&self, _protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(PyTypeError::new_err(
            "a keyring cannot be pickled or copied: open it in each process",
        ))
    }
}

/// Keys that live in the memory of this process only. A forked child has a copy of its own.
#[pyclass(module = "dekseal", name = "MemoryKeyring", frozen, extends = PyKeyring)]
pub(crate) struct PyMemoryKeyring;

impl PyMemoryKeyring {
    fn of(keyring: MemoryKeyring) -> PyClassInitializer<Self> {
        let roots = Roots {
            writing: None,
            reading: Vec::new(),
        };
        let handle = Handle::of(Recipe::Memory, roots, AnyKeyring::Memory(keyring));
        PyClassInitializer::from(PyKeyring(Arc::new(handle))).add_subclass(Self)
    }
}

#[pymethods]
impl PyMemoryKeyring {
    #[new]
    fn new() -> PyClassInitializer<Self> {
        Self::of(MemoryKeyring::new(Keyset::new()))
    }

    /// A keyring of these versions, each a key ID, a number and 32 to 64 bytes of material. The newest version of each
    /// key seals.
    #[staticmethod]
    fn from_versions(py: Python<'_>, versions: Vec<(PyBackedStr, u32, Bound<'_, PyAny>)>) -> PyResult<Py<Self>> {
        let versions = versions.iter().map(|(key_id, key_version, material)| {
            CmkVersion::new(parse_id(key_id)?, *key_version, &Input::of(material, "material")?).or_raise()
        });
        let keyring = MemoryKeyring::from_versions(versions.collect::<PyResult<Vec<_>>>()?).or_raise()?;
        Py::new(py, Self::of(keyring))
    }
}

/// Keys in a file, which the processes of one machine share.
#[pyclass(module = "dekseal", name = "FileKeyring", frozen, extends = PyKeyring)]
pub(crate) struct PyFileKeyring;

impl PyFileKeyring {
    fn wrap(py: Python<'_>, handle: Handle) -> PyResult<Py<Self>> {
        Py::new(
            py,
            PyClassInitializer::from(PyKeyring(Arc::new(handle))).add_subclass(Self),
        )
    }
}

fn only(root: &PyRoot) -> Roots {
    Roots {
        writing: Some(Arc::clone(&root.0)),
        reading: Vec::new(),
    }
}

/// The file keyring behind a handle, for what only such a keyring can do.
fn of_file<T: Send>(
    py: Python<'_>,
    handle: &Handle,
    f: impl Send + FnOnce(&FileKeyring) -> Result<T, Error>,
) -> PyResult<T> {
    detached(py, handle, |keyring| match keyring {
        AnyKeyring::File(keyring) => {
            let _gate = crate::fork::gate();
            f(keyring)
        }
        _ => Err(dekseal::ErrorKind::Keyring.into()),
    })
}

#[pymethods]
impl PyFileKeyring {
    /// Makes a keyring file. The file must not exist.
    #[staticmethod]
    fn create(py: Python<'_>, path: PathBuf, root: &PyRoot) -> PyResult<Py<Self>> {
        let created = py.detach(|| {
            let _gate = crate::fork::gate();
            FileKeyring::create(&path, root.0.cmk()?)
        });
        let keyring = AnyKeyring::File(created.or_raise()?);
        // The path of the recipe must mean the same after a change of the working directory.
        let path = std::path::absolute(&path)?;
        Self::wrap(py, Handle::of(Recipe::File(path), only(root), keyring))
    }

    /// Opens a keyring file.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf, root: &PyRoot) -> PyResult<Py<Self>> {
        let path = std::path::absolute(&path)?;
        let handle = py.detach(|| Handle::open(Recipe::File(path), only(root))).or_raise()?;
        Self::wrap(py, handle)
    }

    /// Seals the keyring under another root.
    fn change_root(slf: &Bound<'_, Self>, root: &PyRoot) -> PyResult<()> {
        let handle = &slf.as_super().get().0;
        of_file(slf.py(), handle, |keyring| keyring.change_root(root.0.cmk()?))?;
        handle.set_roots(only(root));
        Ok(())
    }

    /// After a rollback: takes the older file for the true one.
    fn adopt(slf: &Bound<'_, Self>) -> PyResult<()> {
        of_file(slf.py(), &slf.as_super().get().0, FileKeyring::adopt)
    }

    /// After a rollback: writes the newer keys, which this process holds, over the older file.
    fn write_back(slf: &Bound<'_, Self>) -> PyResult<()> {
        of_file(slf.py(), &slf.as_super().get().0, FileKeyring::write_back)
    }

    /// The number of changes of the file.
    #[getter]
    fn generation(slf: &Bound<'_, Self>) -> PyResult<u64> {
        of_file(slf.py(), &slf.as_super().get().0, |keyring| Ok(keyring.generation()))
    }

    /// The path of the file.
    #[getter]
    fn path(slf: &Bound<'_, Self>) -> Option<PathBuf> {
        match slf.as_super().get().0.recipe() {
            Recipe::File(path) => Some(path.clone()),
            _ => None,
        }
    }
}

/// Keys that processes share through a database: the base class of `SqliteKeyring` and `PostgresKeyring`.
#[pyclass(module = "dekseal", name = "StoreKeyring", frozen, subclass, extends = PyKeyring)]
pub(crate) struct PyStoreKeyring;

/// Calls a method of the store keyring behind a handle.
macro_rules! of_store {
    ($slf:expr, |$keyring:ident| $call:expr) => {
        detached($slf.py(), &$slf.as_super().get().0, |keyring| match keyring {
            AnyKeyring::Sqlite($keyring) => $call,
            AnyKeyring::Postgres($keyring) => $call,
            _ => Err(dekseal::ErrorKind::Keyring.into()),
        })
    };
}

#[pymethods]
impl PyStoreKeyring {
    /// Fetches a key, so that the next calls for it need no I/O.
    fn load(slf: &Bound<'_, Self>, key_id: &str) -> PyResult<()> {
        let key_id = parse_id(key_id)?;
        of_store!(slf, |keyring| keyring.load(&key_id))
    }

    /// Whether a call for this key needs no I/O.
    fn is_ready(slf: &Bound<'_, Self>, key_id: &str) -> PyResult<bool> {
        let key_id = parse_id(key_id)?;
        of_store!(slf, |keyring| Ok(keyring.is_ready(&key_id)))
    }

    /// Replaces the roots: from now on, changes are written under `root`, and documents under the others are read.
    #[pyo3(signature = (root, reading_roots = Vec::new()))]
    fn set_roots(slf: &Bound<'_, Self>, root: &PyRoot, reading_roots: Vec<PyRef<'_, PyRoot>>) -> PyResult<()> {
        let roots = roots(root, &reading_roots);
        let (writing, reading) = (roots.root().or_raise()?, roots.reading().or_raise()?);
        of_store!(slf, |keyring| {
            keyring.set_roots(writing, reading);
            Ok(())
        })?;
        slf.as_super().get().0.set_roots(roots);
        Ok(())
    }

    /// Writes every key that is under another root again, under the root that writes. Returns the number of keys that
    /// were moved, and the IDs of those that could not be.
    fn reseal(slf: &Bound<'_, Self>) -> PyResult<(usize, Vec<String>)> {
        let (mut moved, mut failed) = (0_usize, Vec::new());
        of_store!(slf, |keyring| {
            keyring.reseal(None, |key_id, outcome| {
                match outcome {
                    Ok(true) => moved = moved.saturating_add(1),
                    Ok(false) => {}
                    Err(_) => failed.push(key_id.to_string()),
                }
                std::ops::ControlFlow::Continue(())
            })
        })?;
        Ok((moved, failed))
    }

    /// After a rollback of a key: takes what the store has for the true one.
    fn adopt(slf: &Bound<'_, Self>, key_id: &str) -> PyResult<()> {
        let key_id = parse_id(key_id)?;
        of_store!(slf, |keyring| keyring.adopt(&key_id))
    }

    /// After a rollback of a key: writes what this process holds over what the store has.
    fn write_back(slf: &Bound<'_, Self>, key_id: &str) -> PyResult<()> {
        let key_id = parse_id(key_id)?;
        of_store!(slf, |keyring| keyring.write_back(&key_id))
    }

    /// The keys in memory, so that a process can start while the store is away.
    fn snapshot(slf: &Bound<'_, Self>) -> PyResult<Vec<u8>> {
        of_store!(slf, |keyring| keyring.snapshot())
    }

    /// Takes up a snapshot. Returns the number of keys.
    fn restore(slf: &Bound<'_, Self>, snapshot: &Bound<'_, PyAny>) -> PyResult<usize> {
        let snapshot = Input::of(snapshot, "snapshot")?;
        of_store!(slf, |keyring| keyring.restore(&snapshot))
    }
}

fn roots(root: &PyRoot, reading: &[PyRef<'_, PyRoot>]) -> Roots {
    Roots {
        reading: reading.iter().map(|root| Arc::clone(&root.0)).collect(),
        ..only(root)
    }
}

fn fleet(
    max_age: Option<Duration>,
    max_stale: Option<Duration>,
    deadline: Option<Duration>,
    capacity: Option<usize>,
    refresher: bool,
) -> Fleet {
    let mut settings = StoreSettings::default();
    settings.max_age = max_age.unwrap_or(settings.max_age);
    settings.max_stale = max_stale.unwrap_or(settings.max_stale);
    settings.deadline = deadline.unwrap_or(settings.deadline);
    settings.capacity = capacity.unwrap_or(settings.capacity);
    Fleet { settings, refresher }
}

fn store_keyring<T: PyClass<BaseType = PyStoreKeyring>>(
    py: Python<'_>,
    recipe: Recipe,
    roots: Roots,
    class: T,
) -> PyResult<PyClassInitializer<T>> {
    let handle = py.detach(|| Handle::open(recipe, roots)).or_raise()?;
    Ok(PyClassInitializer::from(PyKeyring(Arc::new(handle)))
        .add_subclass(PyStoreKeyring)
        .add_subclass(class))
}

/// Keys in a SQLite database, which the processes of one machine share.
#[pyclass(module = "dekseal", name = "SqliteKeyring", frozen, extends = PyStoreKeyring)]
pub(crate) struct PySqliteKeyring;

#[pymethods]
impl PySqliteKeyring {
    /// Opens the database. Makes the file and the table if they are missing.
    #[new]
    #[pyo3(signature = (
        path, root, *, reading_roots = Vec::new(), table = dekseal_sqlite::DEFAULT_TABLE, max_age = None,
        max_stale = None, deadline = None, capacity = None, refresher = true
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments")]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        root: &PyRoot,
        reading_roots: Vec<PyRef<'_, PyRoot>>,
        table: &str,
        max_age: Option<Duration>,
        max_stale: Option<Duration>,
        deadline: Option<Duration>,
        capacity: Option<usize>,
        refresher: bool,
    ) -> PyResult<PyClassInitializer<Self>> {
        let fleet = fleet(max_age, max_stale, deadline, capacity, refresher);
        let recipe = Recipe::Sqlite(std::path::absolute(path)?, table.to_owned(), fleet);
        store_keyring(py, recipe, roots(root, &reading_roots), Self)
    }
}

/// Keys in a PostgreSQL database, which a fleet of machines shares.
#[pyclass(module = "dekseal", name = "PostgresKeyring", frozen, extends = PyStoreKeyring)]
pub(crate) struct PyPostgresKeyring;

#[pymethods]
impl PyPostgresKeyring {
    /// Takes a connection string or a `postgresql://` URL. Connections are made when they are needed.
    #[new]
    #[pyo3(signature = (
        connection, root, *, reading_roots = Vec::new(), schema = None, table = None, root_certificates = None,
        connections = None, create_schema = false, max_age = None, max_stale = None, deadline = None, capacity = None,
        refresher = true
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments")]
    fn new(
        py: Python<'_>,
        connection: &str,
        root: &PyRoot,
        reading_roots: Vec<PyRef<'_, PyRoot>>,
        schema: Option<&str>,
        table: Option<&str>,
        root_certificates: Option<&[u8]>,
        connections: Option<usize>,
        create_schema: bool,
        max_age: Option<Duration>,
        max_stale: Option<Duration>,
        deadline: Option<Duration>,
        capacity: Option<usize>,
        refresher: bool,
    ) -> PyResult<PyClassInitializer<Self>> {
        let mut options = Options::new(connection).map_err(Error::keyring).or_raise()?;
        if let Some(pem) = root_certificates {
            options = options.root_certificates(pem).map_err(Error::keyring).or_raise()?;
        }
        if let Some(schema) = schema {
            options = options.schema(schema);
        }
        if let Some(table) = table {
            options = options.table(table);
        }
        if let Some(connections) = connections {
            options = options.connections(connections);
        }
        if create_schema {
            py.detach(|| kind::create_schema(&options)).or_raise()?;
        }
        let fleet = fleet(max_age, max_stale, deadline, capacity, refresher);
        store_keyring(
            py,
            Recipe::Postgres(Box::new(options), fleet),
            roots(root, &reading_roots),
            Self,
        )
    }
}
