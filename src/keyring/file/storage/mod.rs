//! Reads, locks and replaces a keyring file (FORMAT.md C4).

mod place;

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
    vec::Vec,
};

use self::place::{Place, Temporary, failed, if_there, is_unchanged, names, not_a_file};
use crate::error::{Error, ErrorKind, FileFault};

/// The maximum length of a file. About 128,000 versions fit.
const MAX_LEN: u64 = 64 * 1024 * 1024;

/// The number of attempts to lock a file that another program keeps removing or replacing.
const ATTEMPTS: u32 = 100;

/// The age from which the time of modification distinguishes a file from a later one.
const SETTLED: Duration = Duration::from_secs(2);

/// The location of a keyring.
///
/// The path is resolved for each read and each write, so a link means the file that it leads to at that time.
pub(super) struct Storage {
    /// An absolute path, because the working directory may change.
    path: PathBuf,
}

/// A keyring file that was read.
pub(super) struct Snapshot {
    pub(super) text: Vec<u8>,
    pub(super) seen: Seen,
}

/// The metadata of a file from before it was read, so that a change during the read is detected later.
#[derive(Clone)]
pub(super) struct Seen(Metadata);

/// The lock of the keyring. Dropping it releases the lock.
pub(super) struct Locked<'a> {
    storage: &'a Storage,
    place: Place,
    lock: File,
}

/// The right to replace the keyring. Dropping it releases the lock.
pub(super) struct Writer<'a> {
    storage: &'a Storage,
    place: Place,
    lock: File,
    /// The keyring file that was read. While it is open, no other file gets its inode.
    _keyring: File,
    /// The metadata from before the file was read.
    metadata: Metadata,
}

impl Storage {
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        match std::path::absolute(path) {
            Ok(path) => Ok(Self { path }),
            Err(error) => Err(Error::io(error).with_path(path)),
        }
    }

    /// The path that the caller gave, made absolute.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the keyring. This needs no lock: a reader finds the old file or the new one.
    pub(super) fn read(&self) -> Result<Snapshot, Error> {
        let file = self.open(&self.path)?;
        self.read_from(&file)
    }

    /// Whether the keyring is the same file and was not written since. Does not read it.
    pub(super) fn is_as(&self, seen: &Seen) -> bool {
        fs::metadata(&self.path).is_ok_and(|now| is_unchanged(&seen.0, &now))
    }

    /// Locks the keyring. Waits for the writer that holds the lock.
    pub(super) fn lock(&self) -> Result<Locked<'_>, Error> {
        let present = || fs::canonicalize(&self.path).map_err(|error| self.failed(error));
        let (place, lock) = self.lock_place(present)?;
        Ok(Locked {
            storage: self,
            place,
            lock,
        })
    }

    /// Creates the keyring. Of all errors, only `NotSynced` means that the file was created.
    pub(super) fn create(&self, bytes: &[u8]) -> Result<(), Error> {
        self.within_limit(bytes.len())?;
        let (place, lock) = self.lock_place(|| self.absent())?;
        let directory = place.open_directory()?;
        let temporary = place.write_temporary(bytes, None)?;
        let in_place = names(&place.lock, &lock).and_then(|locked| Ok(locked && temporary.is_there()?));
        if !in_place.map_err(|error| self.failed(error))? {
            return Err(self.fault(FileFault::Conflict));
        }
        // A hard link, unlike a rename, never replaces a file.
        match fs::hard_link(temporary.path(), &place.keyring) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(self.fault(FileFault::Exists)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.fault(FileFault::Conflict)),
            // Some file systems have no links. There only the lock keeps others from creating the same file.
            Err(_) => {
                self.absent()?;
                fs::rename(temporary.path(), &place.keyring).map_err(|error| self.failed(error))?;
            }
        }
        drop(temporary);
        self.sync(directory)
    }

    /// Locks the place that `resolve` returns, and removes stale files of other writers.
    fn lock_place(&self, resolve: impl Fn() -> Result<PathBuf, Error>) -> Result<(Place, File), Error> {
        for _ in 0..ATTEMPTS {
            let place = Place::of(resolve()?).map_err(|error| self.failed(error))?;
            let Some(lock) = place.take_lock()? else {
                continue;
            };
            // While this writer waited, a link may have changed, or the file may have been created.
            if resolve()? == place.keyring {
                place
                    .remove_temporaries()
                    .map_err(|error| failed(&place.directory, error))?;
                return Ok((place, lock));
            }
        }
        Err(self.fault(FileFault::Conflict))
    }

    /// The path of a file that does not exist, in a directory that does. A dangling link exists.
    fn absent(&self) -> Result<PathBuf, Error> {
        let invalid = || self.failed(io::ErrorKind::InvalidInput.into());
        let (directory, name) = self.path.parent().zip(self.path.file_name()).ok_or_else(invalid)?;
        let directory = fs::canonicalize(directory).map_err(|error| self.failed(error))?;
        let path = directory.join(name);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path),
            Err(error) => Err(self.failed(error)),
            Ok(_) => Err(self.fault(FileFault::Exists)),
        }
    }

    fn open(&self, path: &Path) -> Result<File, Error> {
        // The file type is checked first, because opening a pipe would wait for its other end.
        let file = match fs::metadata(path) {
            Ok(found) if found.is_file() => File::open(path),
            Ok(_) => Err(not_a_file()),
            Err(error) => Err(error),
        };
        file.map_err(|error| self.failed(error))
    }

    fn read_from(&self, file: &File) -> Result<Snapshot, Error> {
        let metadata = file.metadata().map_err(|error| self.failed(error))?;
        let length = self.within_limit(usize::try_from(metadata.len()).unwrap_or(usize::MAX))?;
        let mut text = Vec::new();
        text.try_reserve_exact(length)
            .map_err(|_| self.failed(io::ErrorKind::OutOfMemory.into()))?;
        // The file may grow meanwhile. One more byte shows that a file is too large.
        file.take(MAX_LEN.saturating_add(1))
            .read_to_end(&mut text)
            .map_err(|error| self.failed(error))?;
        self.within_limit(text.len())?;
        Ok(Snapshot {
            text,
            seen: Seen(metadata),
        })
    }

    fn within_limit(&self, length: usize) -> Result<usize, Error> {
        match u64::try_from(length) {
            Ok(bytes) if bytes <= MAX_LEN => Ok(length),
            _ => Err(self.fault(FileFault::TooLarge)),
        }
    }

    /// Syncs the directory, so that a new name survives a crash of the machine.
    fn sync(&self, directory: Option<File>) -> Result<(), Error> {
        match directory.map(|directory| directory.sync_all()) {
            Some(Err(error)) => Err(Error::file(FileFault::NotSynced, error).with_path(&self.path)),
            _ => Ok(()),
        }
    }

    fn failed(&self, error: io::Error) -> Error {
        failed(&self.path, error)
    }

    fn fault(&self, fault: FileFault) -> Error {
        Error::from(ErrorKind::File(fault)).with_path(&self.path)
    }
}

impl Seen {
    /// Whether the metadata will show each later change, if the file was read at this time. The time of modification
    /// has a resolution of some milliseconds on many systems. So a file that was changed just before it was read may be
    /// changed again without a difference.
    pub(super) fn shows_changes(&self, read: SystemTime) -> bool {
        let modified = self.0.modified().ok();
        let age = modified.and_then(|modified| read.duration_since(modified).ok());
        age.is_some_and(|age| age >= SETTLED)
    }
}

impl<'a> Locked<'a> {
    pub(super) fn read(self) -> Result<(Writer<'a>, Snapshot), Error> {
        let Self { storage, place, lock } = self;
        let keyring = storage.open(&place.keyring)?;
        let snapshot = storage.read_from(&keyring)?;
        let writer = Writer {
            storage,
            place,
            lock,
            _keyring: keyring,
            metadata: snapshot.seen.0.clone(),
        };
        Ok((writer, snapshot))
    }
}

impl Writer<'_> {
    /// Replaces the keyring. Of all errors, only `NotSynced` means that the file was replaced.
    pub(super) fn write(self, bytes: &[u8]) -> Result<(), Error> {
        let Self { storage, place, .. } = &self;
        storage.within_limit(bytes.len())?;
        // Before anything is changed: a directory that cannot be opened could not be synced later.
        let directory = place.open_directory()?;
        let temporary = place.write_temporary(bytes, Some(&self.metadata))?;
        if !self.may_replace(&temporary).map_err(|error| storage.failed(error))? {
            return Err(storage.fault(FileFault::Conflict));
        }
        match fs::rename(temporary.path(), &place.keyring) {
            Ok(()) => storage.sync(directory),
            // Another writer locked a lock file of its own meanwhile, and removed the temporary file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(storage.fault(FileFault::Conflict)),
            Err(error) => Err(storage.failed(error)),
        }
    }

    /// Whether all files and links are still those that this writer locked, read and wrote.
    fn may_replace(&self, temporary: &Temporary) -> io::Result<bool> {
        let resolved = if_there(fs::canonicalize(&self.storage.path))?;
        let keyring = if_there(fs::symlink_metadata(&self.place.keyring))?;
        Ok(resolved.is_some_and(|path| path == self.place.keyring)
            && keyring.is_some_and(|found| is_unchanged(&self.metadata, &found))
            && names(&self.place.lock, &self.lock)?
            && temporary.is_there()?)
    }
}

#[cfg(test)]
mod tests;
