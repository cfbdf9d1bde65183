//! A keyring in a file (FORMAT.md part C).

mod storage;

use std::{
    fmt, io,
    path::Path,
    slice,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant, SystemTime},
};

use self::storage::{Locked, Seen, Snapshot, Storage};
use super::{
    Keyring, Keyset, MemoryKeyring,
    document::{self, Document, Edition},
};
use crate::{
    cmk::CmkVersion,
    error::{Error, ErrorKind, FileFault},
    key_id::KeyId,
    sha256::sha256,
    trace::Event,
};

/// CMKs in a file, sealed under a root CMK that the caller supplies and the file does not hold (FORMAT.md part C).
///
/// Lookups are made in memory, as in a [`MemoryKeyring`]. A change is written before it is used: to a new file, which is synced and
/// then renamed over the old one, so that after a crash there is the old state or the new one. Any number of processes may share the
/// file. Each change starts from what the file holds, and [`refresh`](Self::refresh) takes up the changes of others.
///
/// # New keys and versions
///
/// What one process seals opens in every other, also before that calls [`refresh`](Self::refresh): a call that names a key or a
/// version that is not in memory reads the file, takes up what is new there, and then decides. It reads nothing if device, inode,
/// length and time of modification of the file are those of the last read, and the file was at least two seconds old then. So an
/// attacker who makes up key IDs causes no reads of a file that nobody changes. Nor does a version below the newest one in memory:
/// if it is not there, it was destroyed.
///
/// If that read fails, the call fails with the error of the file, since nobody can tell whether there is such a key. Calls that find
/// their key in memory go on. A change to a key that is in memory, such as `disable`, is seen with the next `refresh` or read.
///
/// On NFS the attributes of a file are cached, by default for up to 60 seconds: mount it with `noac`, or call `refresh`.
///
/// # Security
///
/// The file's MAC reveals any change to it, but an older copy of the file has a right MAC too. A keyring that has read a newer state
/// refuses the older one: see *Rollback*. A process that opens the file anew cannot tell: compare
/// [`generation`](Self::generation) with a number kept elsewhere if that matters. Whoever has the root has every key in the file, and
/// every version that ever was in it.
///
/// # Rollback
///
/// If the file goes back to an older state, or becomes another keyring, [`refresh`](Self::refresh) and
/// [`update`](Self::update) fail with [`FileFault::RolledBack`] or [`FileFault::OtherKeyring`]. Versions may then be in memory that
/// are in no file. The keyring goes on opening with them, so that nothing is lost while somebody decides, but it refuses to seal and
/// to change with [`ErrorKind::RollbackUnresolved`], until one of these happens:
///
/// - The newer file is put back, and [`refresh`](Self::refresh) finds it.
/// - [`write_back`](Self::write_back) writes what this process holds over the file. What others have changed since the rollback is
///   lost. Call it in the process with the highest [`generation`](Self::generation).
/// - [`adopt`](Self::adopt) takes what the file holds. Versions that only this process had are lost: rewrap what is sealed under
///   them first, to a key of another keyring.
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
    /// Locked while the file is read or written, so that what was read is always judged by the newest state.
    state: Mutex<State>,
    /// The generation of the keys in memory, to be read without waiting.
    generation: AtomicU64,
    /// Whether the file went back, and nobody has decided yet.
    rolled_back: AtomicBool,
    /// When the keys in memory were last seen to be those of the file.
    refreshed: Mutex<Moment>,
    /// The file that was judged last. A file that still looks like it need not be read again.
    seen: Mutex<Option<Seen>>,
    /// The thread that runs the closure of `update`.
    updating: Mutex<Option<ThreadId>>,
}

/// Dropped when the closure of `update` has ended, also by a panic.
struct Updating<'a>(&'a Mutex<Option<ThreadId>>);

/// Which state of the file the keys in memory are.
struct State {
    root: Arc<CmkVersion>,
    edition: Edition,
    /// The SHA-256 of the text that was read or written last. The same text need not be parsed again.
    text: [u8; 32],
}

#[derive(Clone, Copy)]
struct Moment {
    time: SystemTime,
    monotonic: Instant,
}

impl FileKeyring {
    /// Creates a file without keys, readable for its owner alone.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::File`] with [`FileFault::Exists`], also for a link that leads nowhere, [`FileFault::Conflict`],
    /// [`FileFault::Io`] or [`FileFault::NotSynced`], and
    /// [`ErrorKind::Randomness`]; no others.
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
            let document = document::read(&text, slice::from_ref(&root), &Keyset::new())?;
            storage.create(&text)?;
            Ok(Self::new(storage, document, &text, now))
        })
    }

    /// Opens a file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::File`] with any fault but [`FileFault::Exists`], [`FileFault::RolledBack`], [`FileFault::OtherKeyring`],
    /// [`FileFault::Conflict`] and [`FileFault::NotSynced`]; no others.
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
            let document = document::read(&present.text, slice::from_ref(&Arc::new(root)), &Keyset::new());
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

    /// Changes the keys and writes them to the file. All changes of `f` are there once this returns, or none of them.
    ///
    /// It starts from what the file holds, and so takes up the changes of others. Writers wait for one another, in this process and
    /// in others. `f` must not call a method of the same keyring that reads or writes the file, nor wait for another thread that
    /// uses the keyring; it may look keys up. Each call writes the whole file: make many changes in one call.
    ///
    /// # Errors
    ///
    /// The errors of `f`; [`ErrorKind::ForeignKeys`] if `f` put keys of another keyring in place;
    /// [`ErrorKind::RollbackUnresolved`]; and [`ErrorKind::File`] with any fault but [`FileFault::Exists`]. No others. The file is as
    /// it was before, unless the fault is [`FileFault::NotSynced`].
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

    /// Takes up the changes that others have made to the file. Returns whether there were any.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::File`] with any fault but [`FileFault::Exists`], [`FileFault::Conflict`] and [`FileFault::NotSynced`]; no others.
    /// The keys stay as they are.
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

    /// Seals every key under another root. From then on the file opens with that root alone.
    ///
    /// Other processes that have it open get [`FileFault::WrongRoot`] until they open it again. Copies of the file from before still
    /// open with the former root.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyExists`] if the root's ID is that of a key; [`ErrorKind::RollbackUnresolved`]; and [`ErrorKind::File`] with
    /// any fault but [`FileFault::Exists`]. No others. Nothing has changed, unless the fault is [`FileFault::NotSynced`].
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

    /// Takes what the file holds, after a rollback: see *Rollback* above. Without one, it is [`refresh`](Self::refresh).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::File`] with any fault but [`FileFault::Exists`], [`FileFault::RolledBack`], [`FileFault::OtherKeyring`],
    /// [`FileFault::Conflict`] and [`FileFault::NotSynced`]; no others. Then nothing has changed.
    ///
    /// # Security
    ///
    /// Versions that are not in the file are lost, and with them all that is sealed under them. An attacker who can write the file
    /// could have put back a state in which a key is not disabled yet: look at the keys after this.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, ErrorKind, FileFault, FileKeyring, KeyId};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("keyring.json");
    /// # let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32]);
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let keyring = FileKeyring::create(&path, root()?)?;
    /// let backup = std::fs::read(&path).unwrap();
    /// keyring.update(|keys| keys.create_key(key_id))?;
    /// std::fs::write(&path, backup).unwrap(); // somebody restores it
    ///
    /// let error = keyring.refresh().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::File(FileFault::RolledBack));
    /// keyring.adopt()?;
    /// assert!(keyring.keys().list().is_empty());
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn adopt(&self) -> Result<(), Error> {
        Event::new("adopt_keyring", None, None).of(|_| {
            let mut state = self.state();
            let now = Moment::now();
            let present = self.storage.read()?;
            let document = self.parse(&present.text, &state)?;
            self.replace(&mut state, document, &present.text, now);
            self.note(present.seen, now);
            Ok(())
        })
    }

    /// Writes what this process holds over the file, after a rollback: see *Rollback* above. The new generation is above that of the
    /// file and that of this process. A missing file is created anew.
    ///
    /// If there was no rollback it takes up what the file holds, as [`refresh`](Self::refresh) does, and writes nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::File`] with any fault but [`FileFault::Exists`] and [`FileFault::RolledBack`]; no others. The file is as it was
    /// before, unless the fault is [`FileFault::NotSynced`]. In particular it does not overwrite another keyring
    /// ([`FileFault::OtherKeyring`]), a keyring under another root, or a file that it cannot read: move that file away first.
    ///
    /// # Security
    ///
    /// Whatever others have changed since the rollback is lost, with all that is sealed under versions that they made.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, ErrorKind, FileFault, FileKeyring, KeyId};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("keyring.json");
    /// # let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32]);
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let keyring = FileKeyring::create(&path, root()?)?;
    /// let backup = std::fs::read(&path).unwrap();
    /// keyring.update(|keys| keys.create_key(key_id))?;
    /// std::fs::write(&path, backup).unwrap(); // somebody restores it
    ///
    /// let error = keyring.update(|keys| keys.rotate(&key_id)).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::File(FileFault::RolledBack));
    /// keyring.write_back()?;
    /// assert!(FileKeyring::open(&path, root()?)?.keys().info(&key_id).is_ok());
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn write_back(&self) -> Result<(), Error> {
        Event::new("write_back_keyring", None, None).of(|_| {
            let locked = self.storage.lock();
            let mut state = self.state();
            let now = Moment::now();
            let (id, root) = (state.edition.id, Arc::clone(&state.root));
            let text = |found: u64, state: &State| {
                let generation = next(found.max(state.edition.generation))?;
                document::write(&self.memory.keys(), id, generation, &root)
            };
            match locked.and_then(Locked::read) {
                Ok((writer, present)) => {
                    let document = self.parse(&present.text, &state)?;
                    let generation = document.edition.generation;
                    match self.accept(&mut state, document, &present.text, now) {
                        Err(error) if error.kind() == ErrorKind::File(FileFault::RolledBack) => {
                            let text = text(generation, &state)?;
                            self.write(&mut state, &text, &root, |text| writer.write(text))
                        }
                        result => result.map(drop),
                    }
                }
                Err(error) if is_not_found(&error) => {
                    let text = text(0, &state)?;
                    self.write(&mut state, &text, &root, |text| self.storage.create(text))
                }
                Err(error) => Err(error),
            }
        })
    }

    /// When the keys in memory were last known to be those of the file: the start of the last call that read or wrote the file
    /// without error.
    ///
    /// A host that refreshes in the background can raise an alarm if that was too long ago; [`age`](Self::age) is for that.
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

    /// How long ago [`last_refreshed`](Self::last_refreshed) was, by a clock that nobody sets.
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

    /// A writer that panicked has left nothing half done: the state is set last.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moment(&self) -> Moment {
        *self.refreshed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_resolved(&self) -> Result<(), Error> {
        if self.rolled_back.load(Ordering::Acquire) {
            return Err(Error::from(ErrorKind::RollbackUnresolved).with_path(self.storage.path()));
        }
        Ok(())
    }

    fn parse(&self, text: &[u8], state: &State) -> Result<Document, Error> {
        let document = document::read(text, slice::from_ref(&state.root), &self.memory.keys());
        document.map_err(|error| error.with_path(self.storage.path()))
    }

    /// Reads the file and takes it up if it is a later state. Returns whether it is.
    fn read(&self, state: &mut State) -> Result<bool, Error> {
        let now = Moment::now();
        self.compare(state, self.storage.read()?, now)
    }

    /// Takes up what was read from the file if it is a later state. Returns whether it is.
    fn compare(&self, state: &mut State, present: Snapshot, read: Moment) -> Result<bool, Error> {
        let judged = if sha256(&present.text) == state.text {
            self.confirm(read);
            Ok(false)
        } else {
            let document = self.parse(&present.text, state)?;
            self.accept(state, document, &present.text, read)
        };
        // Last: who finds it here finds the keys in memory.
        self.note(present.seen, read);
        judged
    }

    /// The file was judged.
    fn note(&self, seen: Seen, read: Moment) {
        let seen = seen.shows_changes(read.time).then_some(seen);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    /// Whether the file looks as it did when it was judged last.
    fn is_as_seen(&self) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.is_some_and(|seen| self.storage.is_as(&seen))
    }

    /// Brings memory up to date for a call that did not find its key or version there.
    fn look(&self) -> Result<(), Error> {
        if self.is_as_seen() {
            return self.check_resolved();
        }
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            // In the closure of `update`. This thread holds the lock, so waiting for it would never end; and it need not: the file
            // was read under its own lock, and nobody else has changed it since.
            Err(TryLockError::WouldBlock) if self.is_updating() => return Ok(()),
            Err(TryLockError::WouldBlock) => self.state(),
        };
        // Another thread may have read it while this one waited.
        if self.is_as_seen() {
            return self.check_resolved();
        }
        if let Err(error) = self.read(&mut state) {
            self.check_resolved()?;
            return Err(error);
        }
        Ok(())
    }

    /// Whether this thread runs the closure of `update`.
    fn is_updating(&self) -> bool {
        let updating = self.updating.lock().unwrap_or_else(PoisonError::into_inner);
        *updating == Some(thread::current().id())
    }

    /// Takes a document up if it is a later state than the one in memory, and refuses it if it is an older one or a branch.
    fn accept(&self, state: &mut State, document: Document, text: &[u8], now: Moment) -> Result<bool, Error> {
        let later = self.is_later(state, &document).map_err(|error| {
            self.rolled_back.store(true, Ordering::Release);
            error.with_path(self.storage.path())
        })?;
        if later {
            self.replace(state, document, text, now);
        } else {
            state.text = sha256(text);
            self.confirm(now);
        }
        Ok(later)
    }

    /// C6: whether a document may follow the state in memory, or is that state.
    fn is_later(&self, state: &State, document: &Document) -> Result<bool, Error> {
        let later = state.edition.precedes(&document.edition)?;
        if later {
            // After a rollback, only the host can say which branch goes on.
            if self.rolled_back.load(Ordering::Acquire) {
                return Err(FileFault::RolledBack.into());
            }
            document::check_successor(&self.memory.keys(), &document.keys)?;
        }
        Ok(later)
    }

    /// Stores `text`, which was just made, as the file, if it opens.
    fn write(
        &self,
        state: &mut State,
        text: &[u8],
        root: &Arc<CmkVersion>,
        store: impl FnOnce(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let document = document::read(text, slice::from_ref(root), &self.memory.keys());
        let document = document.map_err(|_| ErrorKind::ForeignKeys)?;
        let now = Moment::now();
        let written = store(text);
        let in_place = match &written {
            Ok(()) => true,
            Err(error) => error.kind() == ErrorKind::File(FileFault::NotSynced),
        };
        if in_place {
            self.replace(state, document, text, now);
        }
        written
    }

    /// Takes a document up.
    fn replace(&self, state: &mut State, document: Document, text: &[u8], now: Moment) {
        self.memory.replace(document.keys);
        self.generation.store(document.edition.generation, Ordering::Release);
        *state = State {
            root: document.root,
            edition: document.edition,
            text: sha256(text),
        };
        self.confirm(now);
    }

    /// The keys in memory are those of the file.
    fn confirm(&self, now: Moment) {
        self.rolled_back.store(false, Ordering::Release);
        *self.refreshed.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

impl<'a> Updating<'a> {
    fn on_this_thread(thread: &'a Mutex<Option<ThreadId>>) -> Self {
        *thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current().id());
        Self(thread)
    }
}

impl Drop for Updating<'_> {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Moment {
    fn now() -> Self {
        Self {
            time: SystemTime::now(),
            monotonic: Instant::now(),
        }
    }
}

fn next(generation: u64) -> Result<u64, Error> {
    Ok(generation.checked_add(1).ok_or(FileFault::TooLarge)?)
}

fn is_not_found(error: &Error) -> bool {
    let source = core::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::NotFound)
}

/// Whether the file may hold a key or a version that memory has not got. A version that is missing below the newest one was
/// destroyed.
fn may_be_new(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::UnknownKey | ErrorKind::UnknownKeyVersion)
}

impl Keyring for FileKeyring {
    fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        self.check_resolved()?;
        match self.memory.load().current(key_id) {
            Err(error) if may_be_new(&error) => {}
            found => return Ok(f(found?)),
        }
        self.look()?;
        self.memory.with_current(key_id, f)
    }

    fn with_version<T>(&self, key_id: &KeyId, key_version: u32, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        match self.memory.load().opening(key_id, key_version) {
            Err(error) if may_be_new(&error) => {}
            found => return Ok(f(found?)),
        }
        self.look()?;
        self.memory.with_version(key_id, key_version, f)
    }
}

impl fmt::Debug for FileKeyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileKeyring({}, ..)", self.storage.path().display())
    }
}
