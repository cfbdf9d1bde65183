//! A keyring in the state of a snapshot, over the keyring as it is now.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use dekseal::{Error, ErrorKind, FileFault, FileKeyring, KeyId, StoreFault, StoreSettings};
use tempfile::TempDir;

use crate::{
    failure::Failure,
    keyring::{Address, AnyKeyring, for_store, open_file},
    output_file,
    root::Root,
};

/// The documents of a snapshot in memory, as a process holds them that has seen the newer state.
pub(super) struct Held {
    keyring: AnyKeyring,
    /// The keys of the snapshot of a store.
    key_ids: Vec<KeyId>,
    /// What a keyring file needs as well.
    link: Option<Link>,
}

/// The link through which the snapshot of a keyring file was opened. It leads to the file itself now.
struct Link {
    _directory: TempDir,
    target: PathBuf,
    snapshot: PathBuf,
}

impl Held {
    pub(super) fn open(address: &Address, roots: &[Root], snapshot: &Path) -> Result<Self, Failure> {
        if let Address::File(path) = address {
            let (keyring, link) = over_file(path, roots, snapshot)?;
            return Ok(Self {
                keyring: AnyKeyring::File(Box::new(keyring)),
                key_ids: Vec::new(),
                link: Some(link),
            });
        }
        let failed = |failure: Failure| failure.about(snapshot.display());
        let bytes = fs::read(snapshot).map_err(|error| Failure::of_io(snapshot.display(), &error))?;
        let mut settings = StoreSettings::default();
        // A snapshot may be older than what a service would rely on.
        settings.max_stale = std::time::Duration::MAX;
        settings.capacity = usize::MAX;
        let keyring = AnyKeyring::open_with(address, roots, settings)?;
        for_store!(&keyring, _file => 0, keyring => keyring.restore(&bytes).map_err(|error| failed(error.into()))?);
        Ok(Self {
            key_ids: key_ids(&bytes)
                .ok_or_else(|| failed(Error::from(ErrorKind::Store(StoreFault::NotASnapshot)).into()))?,
            keyring,
            link: None,
        })
    }

    /// Finds what went back to an older state: keys of a store, or a file as a whole.
    pub(super) fn rolled_back(&self) -> Result<Vec<Option<KeyId>>, Failure> {
        match &self.keyring {
            AnyKeyring::File(file) => match file.refresh() {
                Ok(_) => Ok(Vec::new()),
                Err(error) if error.kind() == ErrorKind::File(FileFault::RolledBack) => Ok(vec![None]),
                Err(error) if is_missing(&error) => Ok(vec![None]),
                Err(error) => Err(error.into()),
            },
            _ => {
                let mut behind = Vec::new();
                for key_id in &self.key_ids {
                    if self.is_rolled_back(key_id)? {
                        behind.push(Some(*key_id));
                    }
                }
                Ok(behind)
            }
        }
    }

    fn is_rolled_back(&self, key_id: &KeyId) -> Result<bool, Failure> {
        let loaded = for_store!(&self.keyring, _file => Ok(()), keyring => keyring.load(key_id));
        match loaded {
            Ok(()) => Ok(false),
            // A key that was pending deletion in the snapshot may be gone.
            Err(error) if error.kind() == ErrorKind::UnknownKey => Ok(false),
            Err(error) if error.kind() == ErrorKind::Store(StoreFault::RolledBack) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes back one key of a store, or a file as a whole.
    pub(super) fn write_back(&self, key_id: Option<&KeyId>) -> Result<(), Failure> {
        match (&self.keyring, &self.link, key_id) {
            // A keyring cannot make a file where a link leads to none.
            (AnyKeyring::File(_), Some(link), _) if !link.target.exists() => link.copy_back(),
            (AnyKeyring::File(file), ..) => Ok(file.write_back()?),
            (_, _, None) => Ok(()),
            (keyring, _, Some(key_id)) => {
                Ok(for_store!(keyring, _file => Ok(()), keyring => keyring.write_back(key_id))?)
            }
        }
    }
}

impl Link {
    fn copy_back(&self) -> Result<(), Failure> {
        let bytes = fs::read(&self.snapshot).map_err(|error| Failure::of_io(self.snapshot.display(), &error))?;
        output_file::create(&self.target, false, |output| {
            output
                .write_all(&bytes)
                .map_err(|error| Failure::of_io(self.target.display(), &error))
        })
    }
}

fn is_missing(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|source| source.kind() == std::io::ErrorKind::NotFound)
}

/// Opens the snapshot of a keyring file, and turns it to the file itself. A keyring resolves its path for each read and
/// each write, so a link that is changed in between does this.
#[cfg(unix)]
fn over_file(path: &Path, roots: &[Root], snapshot: &Path) -> Result<(FileKeyring, Link), Failure> {
    use std::os::unix::fs::symlink;

    let failed = |error: &std::io::Error| Failure::of_io(snapshot.display(), error);
    let directory = tempfile::tempdir().map_err(|error| failed(&error))?;
    let link = directory.path().join("keyring");
    let copied = fs::copy(snapshot, &link);
    copied.map_err(|error| failed(&error))?;
    let held = open_file(&link, roots).map_err(|failure| failure.about(snapshot.display()))?;
    let target = std::path::absolute(path).map_err(|error| Failure::of_io(path.display(), &error))?;
    fs::remove_file(&link)
        .and_then(|()| symlink(&target, &link))
        .map_err(|error| failed(&error))?;
    let link = Link {
        _directory: directory,
        target,
        snapshot: snapshot.to_owned(),
    };
    Ok((held, link))
}

#[cfg(not(unix))]
fn over_file(_: &Path, _: &[Root], _: &Path) -> Result<(FileKeyring, Link), Failure> {
    Err(Failure::usage(
        "a keyring file has snapshots on Unix only; copy the file instead",
    ))
}

/// The key IDs of a snapshot of a store whose MAC was verified (FORMAT.md D6).
fn key_ids(snapshot: &[u8]) -> Option<Vec<KeyId>> {
    let mut rest = snapshot.get(8 + 36 + 4..)?;
    let mut take = |length: usize| {
        let (field, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(field)
    };
    let count = u32::from_be_bytes(take(4)?.try_into().ok()?);
    (0..count)
        .map(|_| {
            let key_id = KeyId::from_bytes(take(36)?.try_into().ok()?).ok()?;
            let _confirmed = take(8)?;
            let [revision] = take(1)?.try_into().ok()?;
            let _revision = take(u8::into(revision))?;
            let document = u32::from_be_bytes(take(4)?.try_into().ok()?);
            let _document = take(document.try_into().ok()?)?;
            Some(key_id)
        })
        .collect()
}
