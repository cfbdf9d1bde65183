//! A keyring in a file (FORMAT.md part C).

mod lookup;
mod rollback;
mod state;
mod storage;

use std::{
    fmt, io,
    path::Path,
    slice,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::ThreadId,
    time::{Duration, SystemTime},
};

use self::{
    lookup::Updating,
    state::{Moment, State},
    storage::{Seen, Storage},
};
use super::{
    Keyset, MemoryKeyring,
    document::{self, Document, Edition},
};
use crate::{
    cmk::CmkVersion,
    error::{Error, ErrorKind, FileFault},
    sha256::sha256,
    trace::Event,
};

/// CMKs in a file. They are sealed under a root CMK that the caller supplies, and that is not in the file (FORMAT.md
/// part C).
///
/// Lookups are made in memory, as in a [`MemoryKeyring`]. A change is written to disk before it is used: the keyring
/// writes a new file, syncs it and renames it over the old one. After a crash, the file has the old state or the new
/// one.
///
/// Any number of processes may share the file. Each change starts from the current contents of the file.
/// [`refresh`](Self::refresh) reads the changes of other processes.
///
/// # New keys and versions
///
/// A DEK that one process has sealed opens in all others, even before they call [`refresh`](Self::refresh). A call that
/// names a key or a version that is not in memory reads the file first, and accepts what is new there.
///
/// Such a call does not read the file in these cases:
///
/// - The device, inode, length and time of modification of the file are those of the last read, and the file was at
///   least two seconds old then. So an attacker who makes up key IDs causes no reads of an unchanged file.
/// - The version is below the newest one in memory. If it is missing there, it was destroyed.
///
/// If that read fails, the call fails with the error of the file, because the key may be in the file. Calls whose key
/// is in memory still work. A change to a key in memory, such as `disable`, is seen at the next `refresh` or read.
///
/// On NFS the attributes of a file are cached, by default for up to 60 seconds: mount it with `noac`, or call
/// `refresh`.
///
/// # Security
///
/// The MAC of the file reveals any change to it. But an older copy of the file also has a correct MAC. A keyring that
/// has read a newer state refuses the older one: see *Rollback*. A process that opens the file for the first time
/// cannot detect an older copy. If that matters, compare [`generation`](Self::generation) with a number that is kept
/// elsewhere.
///
/// An attacker who has the root has every key in the file, and every version that was ever in it.
///
/// # Rollback
///
/// If the file goes back to an older state, or becomes another keyring, [`refresh`](Self::refresh) and
/// [`update`](Self::update) fail with [`FileFault::RolledBack`] or [`FileFault::OtherKeyring`]. Some versions may then
/// exist only in memory. The keyring continues to open with them, so nothing is lost until somebody decides. It refuses
/// to seal and to change keys with [`ErrorKind::RollbackUnresolved`] until one of these happens:
///
/// - The newer file is restored, and [`refresh`](Self::refresh) reads it.
/// - [`write_back`](Self::write_back) overwrites the file with the keys of this process. Changes that others made since
///   the rollback are lost. Call it in the process with the highest [`generation`](Self::generation).
/// - [`adopt`](Self::adopt) accepts the contents of the file. Versions that only this process has are lost: before
///   that, rewrap all DEKs that are sealed under them, to a key of another keyring.
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
    /// Locked while the file is read or written, so that each document is compared with the newest state.
    state: Mutex<State>,
    /// The generation of the keys in memory. It can be read without waiting for the lock.
    generation: AtomicU64,
    /// Whether the file was rolled back, and the host has not decided yet.
    rolled_back: AtomicBool,
    /// The last time at which the keys in memory were known to be those of the file.
    refreshed: Mutex<Moment>,
    /// The file that was judged last. A file that still looks like it need not be read again.
    seen: Mutex<Option<Seen>>,
    /// The thread that runs the closure of `update`.
    updating: Mutex<Option<ThreadId>>,
}

impl FileKeyring {
    /// Creates a file without keys that only its owner can read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::File`] with [`FileFault::Exists`], which includes a dangling link, [`FileFault::Conflict`],
    /// [`FileFault::Io`] or [`FileFault::NotSynced`], and [`ErrorKind::Randomness`]; no others.
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
        let path = path.as_ref();
        Event::new("create_keyring", None, None).of(|_| {
            let storage = Storage::new(path)?;
            let root = Arc::new(root);
            let now = Moment::now();
            let text = document::write(&Keyset::new(), document::new_id()?, 1, &root)?;
            let document = document::read(&text, slice::from_ref(&root), |_| None)?;
            storage.create(&text)?;
            Ok(Self::new(storage, document, &text, now))
        })
    }

    /// Opens a file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::File`] with any fault except [`FileFault::Exists`], [`FileFault::RolledBack`],
    /// [`FileFault::OtherKeyring`], [`FileFault::Conflict`] and [`FileFault::NotSynced`]; no others.
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
        let path = path.as_ref();
        Event::new("open_keyring", None, None).of(|_| {
            let storage = Storage::new(path)?;
            let now = Moment::now();
            let present = storage.read()?;
            let document = document::read(&present.text, slice::from_ref(&Arc::new(root)), |_| None);
            let document = document.map_err(|error| error.with_path(storage.path()))?;
            let keyring = Self::new(storage, document, &present.text, now);
            keyring.note(present.seen, now);
            Ok(keyring)
        })
    }

    fn new(storage: Storage, document: Document, text: &[u8], now: Moment) -> Self {
        Self {
            memory: MemoryKeyring::new(document.keys),
            storage,
            generation: AtomicU64::new(document.edition.generation),
            rolled_back: AtomicBool::new(false),
            refreshed: Mutex::new(now),
            seen: Mutex::new(None),
            updating: Mutex::new(None),
            state: Mutex::new(State {
                root: document.root,
                edition: document.edition,
                text: sha256(text),
            }),
        }
    }

    /// Changes the keys and writes them to the file. When this returns, all changes of `f` are made, or none of them.
    ///
    /// The change starts from the current contents of the file, and so includes the changes of others. Writers wait for
    /// one another, in this process and in others. `f` must not call a method of the same keyring that reads or writes
    /// the file, and must not wait for another thread that uses the keyring. It may look up keys. Each call writes the
    /// whole file: make many changes in one call.
    ///
    /// # Errors
    ///
    /// The errors of `f`; [`ErrorKind::ForeignKeys`] if `f` put in keys of another keyring;
    /// [`ErrorKind::RollbackUnresolved`]; and [`ErrorKind::File`] with any fault except [`FileFault::Exists`]. No
    /// others. The file is unchanged, unless the fault is [`FileFault::NotSynced`].
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
            self.check_resolved()?;
            let locked = self.storage.lock()?;
            let mut state = self.state();
            self.check_resolved()?;
            let now = Moment::now();
            let (writer, present) = locked.read()?;
            self.compare(&mut state, present, now)?;
            let mut keys = Keyset::clone(&self.memory.keys());
            let root = Arc::clone(&state.root);
            keys.seal_under(Arc::clone(&root));
            let updating = Updating::on_this_thread(&self.updating);
            let value = f(&mut keys)?;
            drop(updating);
            let text = document::write(&keys, state.edition.id, next(state.edition.generation)?, &root)?;
            self.write(&mut state, &text, &root, |text| writer.write(text))?;
            Ok(value)
        })
    }

    /// Reads the changes that others have made to the file. Returns whether there were any.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::File`] with any fault except [`FileFault::Exists`], [`FileFault::Conflict`] and
    /// [`FileFault::NotSynced`]; no others. On an error the keys stay as they are.
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
            let mut state = self.state();
            self.read(&mut state)
        })
    }

    /// Seals every key under another root. After this the file opens only under the new root.
    ///
    /// Other processes that have the file open get [`FileFault::WrongRoot`] until they open it again. Earlier copies of
    /// the file still open under the old root.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyExists`] if the ID of the new root is that of a key; [`ErrorKind::RollbackUnresolved`]; and
    /// [`ErrorKind::File`] with any fault except [`FileFault::Exists`]. No others. Nothing has changed, unless the
    /// fault is [`FileFault::NotSynced`].
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
            self.check_resolved()?;
            let locked = self.storage.lock()?;
            let mut state = self.state();
            self.check_resolved()?;
            let now = Moment::now();
            let (writer, present) = locked.read()?;
            self.compare(&mut state, present, now)?;
            let Edition { id, generation, .. } = state.edition;
            let text = document::write_resealed(&self.memory.keys(), id, next(generation)?, &state.root, &root)?;
            self.write(&mut state, &text, &root, |text| writer.write(text))
        })
    }

    /// The last time at which the keys in memory were known to be those of the file: the start of the last call that
    /// read or wrote the file without error.
    ///
    /// A host that refreshes in the background can raise an alarm if this time is long ago; [`age`](Self::age) tells
    /// how long.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, FileKeyring};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("keyring.json");
    /// # let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32]);
    /// # let keyring = FileKeyring::create(&path, root()?)?;
    /// let opened = keyring.last_refreshed();
    /// keyring.refresh()?;
    /// assert!(keyring.last_refreshed() >= opened);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[must_use]
    pub fn last_refreshed(&self) -> SystemTime {
        self.moment().time
    }

    /// The time since [`last_refreshed`](Self::last_refreshed), by a clock that cannot be set.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use dekseal::{CmkVersion, FileKeyring};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("keyring.json");
    /// # let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32]);
    /// # let keyring = FileKeyring::create(&path, root()?)?;
    /// let healthy = keyring.age() < Duration::from_secs(300);
    /// # assert!(healthy);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[must_use]
    pub fn age(&self) -> Duration {
        self.moment().monotonic.elapsed()
    }

    /// The number of times that the file was written: 1 after it was created, and one more after each change.
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

    /// The keys as they are now in memory.
    #[must_use]
    pub fn keys(&self) -> Arc<Keyset> {
        self.memory.keys()
    }

    fn check_resolved(&self) -> Result<(), Error> {
        if self.rolled_back.load(Ordering::Acquire) {
            return Err(Error::from(ErrorKind::RollbackUnresolved).with_path(self.storage.path()));
        }
        Ok(())
    }
}

fn next(generation: u64) -> Result<u64, Error> {
    Ok(generation.checked_add(1).ok_or(FileFault::TooLarge)?)
}

fn is_not_found(error: &Error) -> bool {
    let source = core::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::NotFound)
}

impl fmt::Debug for FileKeyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileKeyring({}, ..)", self.storage.path().display())
    }
}
