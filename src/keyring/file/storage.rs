//! Reading and replacing a file, and locking out who else would.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    vec::Vec,
};

use crate::error::{Error, ErrorKind, FileFault};

/// Some 140,000 versions.
const MAX_LEN: u64 = 64 * 1024 * 1024;

/// Where a keyring is, and the two files beside it: `.NAME.tmp`, which a write starts with, and `.NAME.lock`, which a writer locks.
/// The lock goes with the process that holds it; the file stays.
pub(super) struct Storage {
    path: PathBuf,
    temporary: PathBuf,
    lock: PathBuf,
}

/// Held while the file is changed.
pub(super) struct Lock(#[expect(dead_code, reason = "dropping it unlocks")] File);

impl Storage {
    /// The directory must exist. A path that is a link stands for what it leads to.
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::in_directory(path)?,
            Err(error) => return Err(Error::io(error)),
        };
        let beside = |ending: &str| {
            let mut name = OsString::from(".");
            name.push(path.file_name().unwrap_or_default());
            name.push(ending);
            path.with_file_name(name)
        };
        Ok(Self {
            temporary: beside(".tmp"),
            lock: beside(".lock"),
            path,
        })
    }

    fn in_directory(path: &Path) -> Result<PathBuf, Error> {
        let name = path
            .file_name()
            .ok_or_else(|| Error::io(io::ErrorKind::InvalidInput.into()))?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Ok(fs::canonicalize(directory).map_err(Error::io)?.join(name))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn exists(&self) -> Result<bool, Error> {
        fs::exists(&self.path).map_err(Error::io)
    }

    /// Waits for whoever holds the lock.
    pub(super) fn lock(&self) -> Result<Lock, Error> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = owner_only(&mut options).open(&self.lock).map_err(Error::io)?;
        loop {
            match file.lock() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                locked => return locked.map(|()| Lock(file)).map_err(Error::io),
            }
        }
    }

    pub(super) fn read(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let failed = |error| Error::io(error).with_path(&self.path);
        let file = File::open(&self.path).map_err(failed)?;
        // One byte more tells a file that is too large from one that just fits.
        file.take(MAX_LEN.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        within_limit(&bytes)?;
        Ok(bytes)
    }

    /// Puts `bytes` in the place of the file. Whoever calls it holds the lock. The fault `NotSynced` alone means that they are in place.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), Error> {
        within_limit(bytes)?;
        // Before anything is changed: what cannot be opened cannot be synced later.
        let directory = self.directory().map_err(Error::io)?;
        let written = self
            .write_temporary(bytes)
            .and_then(|()| fs::rename(&self.temporary, &self.path));
        if let Err(error) = written {
            // The error that matters is the one before.
            let _ = fs::remove_file(&self.temporary);
            return Err(Error::io(error));
        }
        // So that the new name outlives a crash of the machine.
        match directory.map(|directory| directory.sync_all()) {
            Some(Err(error)) => Err(Error::file(FileFault::NotSynced, error)),
            _ => Ok(()),
        }
    }

    fn write_temporary(&self, bytes: &[u8]) -> io::Result<()> {
        // One that a crash has left. To make it anew means that it is nobody else's, and no link.
        match fs::remove_file(&self.temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let mut file = owner_only(&mut options).open(&self.temporary)?;
        self.same_owner(&file)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// A file of another owner would lock out who has used it until now.
    #[cfg(unix)]
    fn same_owner(&self, file: &File) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        match fs::metadata(&self.path) {
            Ok(present) if present.uid() != file.metadata()?.uid() => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the keyring file belongs to another user",
            )),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    #[cfg(not(unix))]
    fn same_owner(&self, _: &File) -> io::Result<()> {
        Ok(())
    }

    /// Where directories can be synced, that of the file.
    fn directory(&self) -> io::Result<Option<File>> {
        let directory = self.path.parent().filter(|_| cfg!(unix));
        directory.map(File::open).transpose()
    }
}

fn within_limit(bytes: &[u8]) -> Result<(), Error> {
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= MAX_LEN => Ok(()),
        _ => Err(ErrorKind::File(FileFault::TooLarge).into()),
    }
}

/// The permissions of what is made: for its owner alone.
fn owner_only(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}
