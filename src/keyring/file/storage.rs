//! How a keyring file is read, locked and replaced (FORMAT.md C4).

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::SystemTime,
    vec::Vec,
};

use crate::error::{Error, ErrorKind, FileFault};

/// Some 140,000 versions.
const MAX_LEN: u64 = 64 * 1024 * 1024;

/// How often a lock is tried that is removed or replaced each time before it is held.
const ATTEMPTS: u32 = 100;

/// Where a keyring is.
///
/// The path is resolved for each read and each write: if it is a link, the file that the link leads to at that time is meant.
pub(super) struct Storage {
    /// Absolute: the working directory may change.
    path: PathBuf,
}

/// The right to replace the keyring. Dropping it unlocks.
pub(super) struct Writer<'a> {
    storage: &'a Storage,
    place: Place,
    lock: File,
    /// The keyring that was read. While it is open, no other file gets its inode.
    _keyring: File,
    /// As it was before it was read.
    metadata: Metadata,
}

impl Storage {
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        match std::path::absolute(path) {
            Ok(path) => Ok(Self { path }),
            Err(error) => Err(Error::io(error).with_path(path)),
        }
    }

    /// The path as it was given, made absolute.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Needs no lock: a reader finds the old file or the new one.
    pub(super) fn read(&self) -> Result<Vec<u8>, Error> {
        let file = self.open(&self.path)?;
        self.read_from(&file)
    }

    /// Locks the keyring and reads it. Waits for the writer that holds the lock.
    pub(super) fn lock(&self) -> Result<(Writer<'_>, Vec<u8>), Error> {
        let present = || fs::canonicalize(&self.path).map_err(|error| self.failed(error));
        let (place, lock) = self.lock_place(present)?;
        let keyring = self.open(&place.keyring)?;
        // Before it is read, so that a change that is made meanwhile shows later.
        let metadata = keyring.metadata().map_err(|error| self.failed(error))?;
        let bytes = self.read_from(&keyring)?;
        let writer = Writer {
            storage: self,
            place,
            lock,
            _keyring: keyring,
            metadata,
        };
        Ok((writer, bytes))
    }

    /// Makes the keyring. The fault `NotSynced` alone means that it is there.
    pub(super) fn create(&self, bytes: &[u8]) -> Result<(), Error> {
        self.within_limit(bytes.len())?;
        let (place, lock) = self.lock_place(|| self.absent())?;
        let directory = place.open_directory()?;
        let temporary = place.write_temporary(bytes, None)?;
        let in_place =
            names(&place.lock, &lock).and_then(|locked| Ok(locked && names(&temporary.path, &temporary.file)?));
        if !in_place.map_err(|error| self.failed(error))? {
            return Err(self.fault(FileFault::Conflict));
        }
        // A link, unlike a rename, never replaces anything.
        match fs::hard_link(&temporary.path, &place.keyring) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(self.fault(FileFault::Exists)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.fault(FileFault::Conflict)),
            // Some file systems have no links. There the lock alone keeps others from making the same file.
            Err(_) => {
                self.absent()?;
                fs::rename(&temporary.path, &place.keyring).map_err(|error| self.failed(error))?;
            }
        }
        drop(temporary);
        self.sync(directory)
    }

    /// The place that `resolve` names, its lock held, and nothing there that other writers have left behind.
    fn lock_place(&self, resolve: impl Fn() -> Result<PathBuf, Error>) -> Result<(Place, File), Error> {
        for _ in 0..ATTEMPTS {
            let place = Place::of(resolve()?).map_err(|error| self.failed(error))?;
            let Some(lock) = place.take_lock()? else {
                continue;
            };
            // While this writer waited, a link may have changed, or the file may have been made.
            if resolve()? == place.keyring {
                place
                    .remove_temporaries()
                    .map_err(|error| failed(&place.directory, error))?;
                return Ok((place, lock));
            }
        }
        Err(self.fault(FileFault::Conflict))
    }

    /// The path of a file that does not exist, in a directory that does. A link that leads nowhere exists.
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
        // Asked first: to open a pipe would wait for its other end.
        let file = match fs::metadata(path) {
            Ok(found) if found.is_file() => File::open(path),
            Ok(_) => Err(not_a_file()),
            Err(error) => Err(error),
        };
        file.map_err(|error| self.failed(error))
    }

    fn read_from(&self, file: &File) -> Result<Vec<u8>, Error> {
        let length = file.metadata().map_err(|error| self.failed(error))?.len();
        let length = self.within_limit(usize::try_from(length).unwrap_or(usize::MAX))?;
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(length)
            .map_err(|_| self.failed(io::ErrorKind::OutOfMemory.into()))?;
        // The file may grow meanwhile. One byte more tells one that is too large from one that just fits.
        file.take(MAX_LEN.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| self.failed(error))?;
        self.within_limit(bytes.len())?;
        Ok(bytes)
    }

    fn within_limit(&self, length: usize) -> Result<usize, Error> {
        match u64::try_from(length) {
            Ok(bytes) if bytes <= MAX_LEN => Ok(length),
            _ => Err(self.fault(FileFault::TooLarge)),
        }
    }

    /// Makes a new name outlive a crash of the machine.
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

impl Writer<'_> {
    /// Replaces the keyring. The fault `NotSynced` alone means that it was replaced.
    pub(super) fn write(self, bytes: &[u8]) -> Result<(), Error> {
        let Self { storage, place, .. } = &self;
        storage.within_limit(bytes.len())?;
        // Before anything is changed: a directory that cannot be opened cannot be synced later.
        let directory = place.open_directory()?;
        let temporary = place.write_temporary(bytes, Some(&self.metadata))?;
        if !self.may_replace(&temporary).map_err(|error| storage.failed(error))? {
            return Err(storage.fault(FileFault::Conflict));
        }
        match fs::rename(&temporary.path, &place.keyring) {
            Ok(()) => storage.sync(directory),
            // Another writer took a lock of its own meanwhile, and removed the temporary file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(storage.fault(FileFault::Conflict)),
            Err(error) => Err(storage.failed(error)),
        }
    }

    /// Whether all files and links are what this writer has locked, read and written.
    fn may_replace(&self, temporary: &Temporary) -> io::Result<bool> {
        let resolved = if_there(fs::canonicalize(&self.storage.path))?;
        let keyring = if_there(fs::symlink_metadata(&self.place.keyring))?;
        Ok(resolved.is_some_and(|path| path == self.place.keyring)
            && keyring.is_some_and(|found| Identity::of(&found) == Identity::of(&self.metadata))
            && names(&self.place.lock, &self.lock)?
            && names(&temporary.path, &temporary.file)?)
    }
}

/// The file of a keyring, with links resolved, and the files beside it.
struct Place {
    keyring: PathBuf,
    directory: PathBuf,
    lock: PathBuf,
    /// The name of a temporary file without the digits at its end.
    temporary: OsString,
}

/// A file that nobody else writes to. Dropping it removes the file from its path, unless it was renamed.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Place {
    fn of(keyring: PathBuf) -> io::Result<Self> {
        let (directory, name) = keyring.parent().zip(keyring.file_name()).ok_or_else(not_a_file)?;
        let beside = |ending: &str| {
            let mut beside = OsString::from(".");
            beside.push(name);
            beside.push(ending);
            beside
        };
        Ok(Self {
            lock: directory.join(beside(".lock")),
            temporary: beside(".tmp-"),
            directory: directory.to_path_buf(),
            keyring,
        })
    }

    /// Waits for the lock. `None` if the lock file was removed or replaced meanwhile.
    fn take_lock(&self) -> Result<Option<File>, Error> {
        let Some(file) = self.open_lock()? else {
            return Ok(None);
        };
        loop {
            match file.lock() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(&self.lock, error)),
                Ok(()) => break,
            }
        }
        let held = names(&self.lock, &file).map_err(|error| failed(&self.lock, error))?;
        Ok(held.then_some(file))
    }

    /// The lock file, made if it is missing. Only its owner may open it: a program that may only read the keyring must not be
    /// able to keep writers waiting.
    fn open_lock(&self) -> Result<Option<File>, Error> {
        let mut options = OpenOptions::new();
        options.write(true);
        match if_there(fs::symlink_metadata(&self.lock)) {
            Ok(Some(found)) if found.is_file() => {}
            Ok(Some(_)) => return Err(failed(&self.lock, not_a_file())),
            Ok(None) => {
                self.check_owner()?;
                options.create_new(true);
            }
            Err(error) => return Err(failed(&self.lock, error)),
        }
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        // FILE_SHARE_READ and FILE_SHARE_WRITE: while it is open, nobody can remove or rename it.
        #[cfg(windows)]
        std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, 1 | 2);
        match options.open(&self.lock) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => Ok(None),
            opened => opened.map(Some).map_err(|error| failed(&self.lock, error)),
        }
    }

    /// Makes a file to see whose it is, before a lock file of another owner would lock out the owner of the keyring.
    fn check_owner(&self) -> Result<(), Error> {
        match if_there(fs::symlink_metadata(&self.keyring)) {
            Ok(Some(keyring)) => self.make_temporary(Some(&keyring)).map(drop),
            Ok(None) => Ok(()),
            Err(error) => Err(failed(&self.keyring, error)),
        }
    }

    /// Removes the temporary files of other writers.
    ///
    /// The lock is held, so these writers were killed, or the lock file was removed while they held it. The latter then cannot
    /// replace the keyring any more. So this comes before the keyring is read.
    fn remove_temporaries(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let digits = name.as_encoded_bytes().strip_prefix(self.temporary.as_encoded_bytes());
            if digits.is_some_and(|digits| digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit)) {
                // One that cannot be removed is in nobody's way.
                let _ = fs::remove_file(self.directory.join(name));
            }
        }
        Ok(())
    }

    /// Writes a file beside the keyring, and syncs it.
    fn write_temporary(&self, bytes: &[u8], keyring: Option<&Metadata>) -> Result<Temporary, Error> {
        let mut temporary = self.make_temporary(keyring)?;
        let file = &mut temporary.file;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(|error| failed(&self.keyring, error))?;
        Ok(temporary)
    }

    /// An empty file that no other writer uses, with the owner, the group and the permissions of the keyring.
    fn make_temporary(&self, keyring: Option<&Metadata>) -> Result<Temporary, Error> {
        let digits = getrandom::u64().map_err(|error| failed(&self.keyring, io::Error::other(error)))?;
        let mut name = self.temporary.clone();
        name.push(std::format!("{digits:016x}"));
        let path = self.directory.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(|error| failed(&path, error))?;
        let temporary = Temporary { path, file };
        if let Some(keyring) = keyring {
            take_after(&temporary.file, keyring).map_err(|error| failed(&self.keyring, error))?;
        }
        Ok(temporary)
    }

    /// The directory of the keyring, where directories can be synced.
    fn open_directory(&self) -> Result<Option<File>, Error> {
        let directory = cfg!(unix).then(|| File::open(&self.directory));
        directory.transpose().map_err(|error| failed(&self.directory, error))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // The next writer removes one that stays.
        let _ = fs::remove_file(&self.path);
    }
}

/// Tells a file from another one in its place, and the keyring from one that was written to.
#[derive(PartialEq)]
struct Identity {
    #[cfg(unix)]
    inode: (u64, u64),
    length: u64,
    modified: Option<SystemTime>,
}

impl Identity {
    fn of(file: &Metadata) -> Self {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt;
        Self {
            #[cfg(unix)]
            inode: (file.dev(), file.ino()),
            length: file.len(),
            modified: file.modified().ok(),
        }
    }
}

/// Whether the path is that of this open file.
fn names(path: &Path, file: &File) -> io::Result<bool> {
    let file = Identity::of(&file.metadata()?);
    Ok(if_there(fs::symlink_metadata(path))?.is_some_and(|found| Identity::of(&found) == file))
}

/// Gives a new file the group and the permissions of the keyring. A file of another owner would lock the present one out.
#[cfg(unix)]
fn take_after(file: &File, keyring: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let made = file.metadata()?;
    if made.uid() != keyring.uid() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the keyring file belongs to another user",
        ));
    }
    let mut mode = keyring.mode() & 0o777;
    if made.gid() != keyring.gid() && fchown(file, None, Some(keyring.gid())).is_err() {
        // What the keyring's group may do is not for another group.
        mode &= 0o707;
    }
    file.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn take_after(_: &File, _: &Metadata) -> io::Result<()> {
    Ok(())
}

/// `None` for a file that does not exist.
fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::io(error).with_path(path)
}

fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}
