//! The files beside a keyring: the lock file and temporary files.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::error::Error;

/// The file of a keyring, with links resolved, and the files beside it.
pub(super) struct Place {
    pub(super) keyring: PathBuf,
    pub(super) directory: PathBuf,
    pub(super) lock: PathBuf,
    /// The name of a temporary file without the digits at its end.
    temporary: OsString,
}

/// A temporary file that no other writer uses. Dropping it removes the file, unless it was renamed.
pub(super) struct Temporary {
    path: PathBuf,
    file: File,
}

impl Place {
    pub(super) fn of(keyring: PathBuf) -> io::Result<Self> {
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

    /// Waits for the lock. Returns `None` if the lock file was removed or replaced meanwhile.
    pub(super) fn take_lock(&self) -> Result<Option<File>, Error> {
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

    /// Opens the lock file, and creates it if it is missing. Returns `None` if it was removed or replaced meanwhile.
    fn open_lock(&self) -> Result<Option<File>, Error> {
        let lock = if_there(fs::symlink_metadata(&self.lock)).map_err(|error| failed(&self.lock, error))?;
        let keyring = if_there(fs::symlink_metadata(&self.keyring)).map_err(|error| failed(&self.keyring, error))?;
        let mut options = OpenOptions::new();
        options.write(true);
        // Only its owner may open it: a program that may only read the keyring must not be able to block writers.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        // FILE_SHARE_READ and FILE_SHARE_WRITE: while the file is open, it cannot be removed or renamed.
        #[cfg(windows)]
        std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, 1 | 2);
        if lock.as_ref().is_some_and(|lock| !lock.is_file()) {
            return Err(failed(&self.lock, not_a_file()));
        }
        let foreign = lock.as_ref().zip(keyring.as_ref());
        let foreign = foreign.is_some_and(|(lock, keyring)| !have_one_owner(lock, keyring));
        if foreign || lock.is_none() {
            // A temporary file shows whether this process may create or replace the keyring. If it may not, it must not
            // leave a lock file, which the owner of the keyring might not be able to open.
            self.make_temporary(keyring.as_ref())?;
        }
        if foreign {
            // Only the owner of the keyring may replace it, so no writer holds this lock.
            let removed = if_there(fs::remove_file(&self.lock));
            return removed.map(|_| None).map_err(|error| failed(&self.lock, error));
        }
        options.create_new(lock.is_none());
        match options.open(&self.lock) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => Ok(None),
            opened => opened.map(Some).map_err(|error| failed(&self.lock, error)),
        }
    }

    /// Removes the temporary files of other writers.
    ///
    /// This process holds the lock. So those writers were killed, or their lock file was removed while they held it; a
    /// writer of the second kind can no longer replace the keyring. This comes before the keyring is read.
    pub(super) fn remove_temporaries(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let digits = name.as_encoded_bytes().strip_prefix(self.temporary.as_encoded_bytes());
            if digits.is_some_and(|digits| digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit)) {
                // A temporary file that cannot be removed does no harm.
                let _ = fs::remove_file(self.directory.join(name));
            }
        }
        Ok(())
    }

    /// Writes a file beside the keyring, and syncs it.
    pub(super) fn write_temporary(&self, bytes: &[u8], keyring: Option<&Metadata>) -> Result<Temporary, Error> {
        let mut temporary = self.make_temporary(keyring)?;
        let file = &mut temporary.file;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(|error| failed(&self.keyring, error))?;
        Ok(temporary)
    }

    /// Creates an empty file that no other writer uses, with the owner, group and permissions of the keyring.
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

    /// Opens the directory of the keyring, if directories can be synced.
    pub(super) fn open_directory(&self) -> Result<Option<File>, Error> {
        let directory = cfg!(unix).then(|| File::open(&self.directory));
        directory.transpose().map_err(|error| failed(&self.directory, error))
    }
}

impl Temporary {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_there(&self) -> io::Result<bool> {
        names(&self.path, &self.file)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // If this fails, the next writer removes the file.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the path names this open file.
pub(super) fn names(path: &Path, file: &File) -> io::Result<bool> {
    let found = if_there(fs::symlink_metadata(path))?;
    let file = file.metadata()?;
    Ok(found.is_some_and(|found| is_same_file(&found, &file)))
}

/// Whether a file is the same one and was not written since.
pub(super) fn is_unchanged(before: &Metadata, now: &Metadata) -> bool {
    is_same_file(before, now) && before.len() == now.len() && before.modified().ok() == now.modified().ok()
}

/// On other systems the standard library cannot tell. On Windows an open lock file cannot be removed.
#[cfg(not(unix))]
fn is_same_file(_: &Metadata, _: &Metadata) -> bool {
    true
}

#[cfg(not(unix))]
fn have_one_owner(_: &Metadata, _: &Metadata) -> bool {
    true
}

#[cfg(not(unix))]
fn take_after(_: &File, _: &Metadata) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn is_same_file(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(unix)]
fn have_one_owner(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    one.uid() == other.uid()
}

/// Gives a new file the group and the permissions of the keyring. Fails if its owner differs: the new file would lock
/// the present owner out.
#[cfg(unix)]
fn take_after(file: &File, keyring: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let made = file.metadata()?;
    if !have_one_owner(&made, keyring) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the keyring file belongs to another user",
        ));
    }
    let mut mode = keyring.mode() & 0o777;
    if made.gid() != keyring.gid() && fchown(file, None, Some(keyring.gid())).is_err() {
        // The rights of the keyring's group must not go to another group.
        mode &= 0o707;
    }
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// Returns `None` if the file does not exist.
pub(super) fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

pub(super) fn failed(path: &Path, error: io::Error) -> Error {
    Error::io(error).with_path(path)
}

pub(super) fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}
