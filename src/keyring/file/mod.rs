//! A keyring in a file (FORMAT.md part C).

mod document;
mod storage;

use std::{
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

pub(super) use self::document::Stored;
use self::{
    document::Stamp,
    storage::{Storage, Writer},
};
use super::{Keyring, Keyset, MemoryKeyring};
use crate::{
    cmk::CmkVersion,
    error::{Error, ErrorKind, FileFault},
    key_id::KeyId,
    trace::Event,
};

/// CMKs in a file, sealed under a root CMK that the caller supplies and the file does not hold (FORMAT.md part C).
///
/// It is looked up in memory, as a [`MemoryKeyring`] is. A change is written before it is used: to a file beside it, synced, and put
/// in its place, so that after a crash there is the old state or the new one. Any number of processes may share the file; each
/// change starts from what the file holds, and [`refresh`](Self::refresh) takes up what others have changed.
///
/// # Security
///
/// The file's MAC shows any change to it. An older file put back as a whole is as good as it was then: compare
/// [`generation`](Self::generation) with a number kept elsewhere, where that matters. A keyring that has the file open refuses to go
/// back. Whoever has the root has every key in the file, and every version that ever was in it.
///
/// # Examples
///
/// ```
/// use dekseal::{CmkVersion, EncryptionContext, Engine, FileKeyring};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("keyring.json");
/// # let material = [7; 32];
/// let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &material);
/// let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// FileKeyring::create(&path, root()?)?.update(|keys| keys.create_key(key_id))?;
///
/// let engine = Engine::new(FileKeyring::open(&path, root()?)?);
/// let (dek, sealed) = engine.create_dek(&key_id, &EncryptionContext::none())?;
/// engine.keyring().update(|keys| keys.rotate(&key_id))?;
/// assert_eq!(engine.decrypt_dek(&key_id, &EncryptionContext::none(), &sealed)?, dek);
/// # Ok::<(), dekseal::Error>(())
/// ```
pub struct FileKeyring {
    memory: MemoryKeyring,
    storage: Storage,
    held: Mutex<Held>,
    /// That of the state held, to be read without waiting.
    generation: AtomicU64,
}

/// What the keys in memory were read with, and from which state of the file.
struct Held {
    root: Arc<CmkVersion>,
    stamp: Stamp,
}

impl FileKeyring {
    /// Makes a file that holds no keys, readable for its owner alone.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::File`] with [`FileFault::Exists`], also for a link that leads nowhere, [`FileFault::Conflict`],
    /// [`FileFault::Io`] or [`FileFault::NotSynced`]; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, FileKeyring};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("keyring.json");
    /// # let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32]);
    /// let keyring = FileKeyring::create(&path, root()?)?;
    /// assert!(keyring.keys().list().is_empty());
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn create(path: impl AsRef<Path>, root: CmkVersion) -> Result<Self, Error> {
        let made: Result<_, Error> = Event::new("create_keyring", None, None).of(|_| {
            let storage = Storage::new(path.as_ref())?;
            let text = document::write(&Keyset::new(), &root, 1)?;
            let (keys, stamp) = document::read(&text, &root, &Keyset::new())?;
            storage.create(&text)?;
            Ok((storage, keys, stamp))
        });
        let (storage, keys, stamp) = made?;
        Ok(Self::of(storage, keys, root, stamp))
    }

    /// Opens a file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::File`] with any fault but [`FileFault::Exists`], [`FileFault::Conflict`] and [`FileFault::RolledBack`]; no
    /// others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, FileKeyring};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("keyring.json");
    /// # let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32]);
    /// # FileKeyring::create(&path, root()?)?;
    /// let keyring = FileKeyring::open(&path, root()?)?;
    /// println!("{} keys, generation {}", keyring.keys().list().len(), keyring.generation());
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn open(path: impl AsRef<Path>, root: CmkVersion) -> Result<Self, Error> {
        let opened: Result<_, Error> = Event::new("open_keyring", None, None).of(|_| {
            let storage = Storage::new(path.as_ref())?;
            let (keys, stamp) = document::read(&storage.read()?, &root, &Keyset::new())?;
            Ok((storage, keys, stamp))
        });
        let (storage, keys, stamp) = opened?;
        Ok(Self::of(storage, keys, root, stamp))
    }

    fn of(storage: Storage, keys: Keyset, root: CmkVersion, stamp: Stamp) -> Self {
        Self {
            memory: MemoryKeyring::new(keys),
            storage,
            generation: AtomicU64::new(stamp.generation),
            held: Mutex::new(Held {
                root: Arc::new(root),
                stamp,
            }),
        }
    }

    /// Changes the keys and writes them to the file: whatever `f` does is there as a whole once this returns, or not at all.
    ///
    /// Starts from what the file holds, and so takes up what others have changed. Writers wait for one another, in this process and
    /// in others; `f` must not call `update`, `refresh` or `change_root` on the same keyring. The whole file is written each time;
    /// many changes are best made in one call.
    ///
    /// # Errors
    ///
    /// What `f` returns; [`ErrorKind::ForeignKeys`] where it has put keys of another keyring in place; and [`ErrorKind::File`] with any
    /// fault but [`FileFault::Exists`]. No others. Then the file is as it was before, unless the fault is
    /// [`FileFault::NotSynced`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, FileKeyring, KeyId};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("keyring.json");
    /// # let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32]);
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let keyring = FileKeyring::create(&path, root()?)?;
    /// // Both or none, in one write.
    /// let version = keyring.update(|keys| {
    ///     keys.create_key(key_id)?;
    ///     keys.rotate(&key_id)
    /// })?;
    /// assert_eq!(version, 1);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn update<T>(&self, f: impl FnOnce(&mut Keyset) -> Result<T, Error>) -> Result<T, Error> {
        Event::new("update_keyring", None, None).of(|_| {
            let mut held = self.held();
            let (writer, present) = self.storage.lock()?;
            self.take_up(&mut held, &present)?;
            let mut keys = Keyset::clone(&self.memory.keys());
            let root = Arc::clone(&held.root);
            keys.seal_under(Arc::clone(&root));
            let value = f(&mut keys)?;
            let text = document::write(&keys, &root, held.next_generation()?)?;
            self.put(&mut held, writer, &text, root)?;
            Ok(value)
        })
    }

    /// Takes up what others have changed in the file, and tells whether there was anything.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::File`] with any fault but [`FileFault::Exists`] and [`FileFault::Conflict`]; no others. Then the keys stay as they
    /// are.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, FileKeyring, KeyId};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("keyring.json");
    /// # let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32]);
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let keyring = FileKeyring::create(&path, root()?)?;
    /// let elsewhere = FileKeyring::open(&path, root()?)?; // in another process
    /// elsewhere.update(|keys| keys.create_key(key_id))?;
    ///
    /// assert!(keyring.keys().info(&key_id).is_err());
    /// assert!(keyring.refresh()?);
    /// assert!(keyring.keys().info(&key_id).is_ok());
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn refresh(&self) -> Result<bool, Error> {
        Event::new("refresh_keyring", None, None).of(|_| {
            let mut held = self.held();
            self.take_up(&mut held, &self.storage.read()?)
        })
    }

    /// Seals every key under another root, which this file is opened with from then on.
    ///
    /// Other processes that have it open get [`FileFault::WrongRoot`] until they open it again. Copies of the file from before open
    /// with the former root.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyExists`] where the root's ID is that of a key, and [`ErrorKind::File`] with any fault but [`FileFault::Exists`];
    /// no others. Then nothing has changed, unless the fault is [`FileFault::NotSynced`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, FileKeyring};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("keyring.json");
    /// # let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32]);
    /// # let new_root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 1, &[8; 32]);
    /// # let keyring = FileKeyring::create(&path, root()?)?;
    /// keyring.change_root(new_root()?)?;
    ///
    /// assert!(FileKeyring::open(&path, root()?).is_err());
    /// FileKeyring::open(&path, new_root()?)?;
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn change_root(&self, root: CmkVersion) -> Result<(), Error> {
        let root = Arc::new(root);
        let key_id = root.key_id();
        let mut event = Event::new("change_root", Some(&key_id), None);
        event.opens(root.key_version());
        event.of(|_| {
            let mut held = self.held();
            let (writer, present) = self.storage.lock()?;
            self.take_up(&mut held, &present)?;
            let text = document::write_resealed(&self.memory.keys(), &held.root, &root, held.next_generation()?)?;
            self.put(&mut held, writer, &text, Arc::clone(&root))
        })
    }

    /// How often the file has been written: 1 when it was made, one more with each change.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, FileKeyring, KeyId};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("keyring.json");
    /// # let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32]);
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// let keyring = FileKeyring::create(&path, root()?)?;
    /// assert_eq!(keyring.generation(), 1);
    /// keyring.update(|keys| keys.create_key(key_id))?;
    /// assert_eq!(keyring.generation(), 2);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The keys as they are now, in memory.
    #[must_use]
    pub fn keys(&self) -> Arc<Keyset> {
        self.memory.keys()
    }

    /// A writer that panicked has left nothing half done: what is held is set last.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up `text`, which was read from the file.
    fn take_up(&self, held: &mut Held, text: &[u8]) -> Result<bool, Error> {
        let (keys, stamp) = document::read(text, &held.root, &self.memory.keys())?;
        if stamp == held.stamp {
            return Ok(false);
        }
        // C4.3: of one generation there is one state.
        if stamp.generation <= held.stamp.generation {
            return Err(FileFault::RolledBack.into());
        }
        self.hold(held, keys, stamp);
        Ok(true)
    }

    /// Puts `text`, which was just made, in the place of the file, once it is known to open.
    fn put(&self, held: &mut Held, writer: Writer<'_>, text: &[u8], root: Arc<CmkVersion>) -> Result<(), Error> {
        let read = document::read(text, &root, &self.memory.keys());
        let (keys, stamp) = read.map_err(|_| ErrorKind::ForeignKeys)?;
        let written = writer.write(text);
        let in_place = match &written {
            Ok(()) => true,
            Err(error) => error.kind() == ErrorKind::File(FileFault::NotSynced),
        };
        if in_place {
            held.root = root;
            self.hold(held, keys, stamp);
        }
        written
    }

    fn hold(&self, held: &mut Held, keys: Keyset, stamp: Stamp) {
        self.memory.replace(keys);
        self.generation.store(stamp.generation, Ordering::Release);
        held.stamp = stamp;
    }
}

impl Held {
    fn next_generation(&self) -> Result<u64, Error> {
        Ok(self.stamp.generation.checked_add(1).ok_or(FileFault::TooLarge)?)
    }
}

impl Keyring for FileKeyring {
    fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        self.memory.with_current(key_id, f)
    }

    fn with_version<T>(&self, key_id: &KeyId, key_version: u32, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        self.memory.with_version(key_id, key_version, f)
    }
}

impl fmt::Debug for FileKeyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileKeyring({}, ..)", self.storage.path().display())
    }
}
