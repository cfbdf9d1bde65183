//! Changes the header of a payload file in place, so that the payload opens after a crash at any moment.
//!
//! This module keeps three rules:
//!
//! - A header that opens is overwritten only by a header that was tried and opens.
//! - Before the first write, a copy of the old header is on disk beside the file.
//! - The copy is removed only after the new header was written, synced, read back and opened.

use std::{
    ffi::OsString,
    format,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    vec::Vec,
};

use super::{
    PayloadHeader,
    header::{COMMITMENT, SEALED_DEK},
    io::{not_whole, read_full, retrying, seek_to},
    keys::Prk,
};
use crate::{
    context::EncryptionContext,
    dek::Dek,
    engine::Engine,
    error::{Error, ErrorKind},
    key_id::KeyId,
    keyring::Keyring,
    trace::Event,
};

type HeaderBytes = [u8; PayloadHeader::LEN];

impl<K: Keyring> Engine<K> {
    /// Rewraps a payload in a file as [`rewrap_header`](Self::rewrap_header) does, in place and crash-safe: if the
    /// process or the machine stops at any moment, the payload still opens, and the next call completes the work.
    /// Returns the header that the file has now.
    ///
    /// The cost does not depend on the length of the file: it writes 188 bytes. A file that is already sealed under the
    /// current version of `new_key_id` is left as it is, so a job over many files can simply be run again.
    ///
    /// During the call, a copy of the old header is beside the file `NAME`, as `.NAME.dekseal-header`. After a crash
    /// the copy stays. The next call for the same file restores the header from it if necessary, and removes it. Do not
    /// move the file without its copy.
    ///
    /// The call locks the file against other calls, and waits for them. It follows a symbolic link, and puts the copy
    /// beside the target of the link. For a file with several hard links, always use the same one.
    ///
    /// The caller needs permission to write the file and its directory.
    ///
    /// # Errors
    ///
    /// The errors of the operating system, with the path in their text, and
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if `path` is not a file.
    /// [`ResourceBusy`](io::ErrorKind::ResourceBusy) if another program changed or replaced the file during the call.
    /// With the kind [`InvalidData`](io::ErrorKind::InvalidData) an [`Error`]: those of [`rewrap`](Self::rewrap), and
    /// [`ErrorKind::ForeignHeaderCopy`] if the copy beside the file belongs to another payload. No others.
    ///
    /// After an error the payload opens as before. If the system fails to write the header, and fails again to restore
    /// the old one, the text of the error names the copy that has the old header.
    ///
    /// # Security
    ///
    /// See [`rewrap_header`](Self::rewrap_header). The copy contains nothing secret.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("report.sealed");
    /// # std::fs::write(&path, engine.encrypt(&key_id, &context, b"attack at dawn")?)?;
    /// engine.keyring().update(|keys| keys.rotate(&key_id))?;
    /// let header = engine.rewrap_file(&key_id, &context, &key_id, &path)?;
    /// assert_eq!(header.sealed_dek().key_version(), 1);
    /// # assert_eq!(*engine.decrypt(&key_id, &context, &std::fs::read(&path)?)?, b"attack at dawn");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn rewrap_file(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        new_key_id: &KeyId,
        path: impl AsRef<Path>,
    ) -> io::Result<PayloadHeader> {
        Event::new("rewrap_file", Some(key_id), Some(context)).of(|event| {
            event.to(new_key_id, None);
            // An earlier call may have written the header for the new key already.
            let open = |header: &PayloadHeader| {
                let sealed = header.sealed_dek();
                let expected = if sealed.key_id() == *new_key_id {
                    new_key_id
                } else {
                    key_id
                };
                let dek = self.open(expected, context, sealed)?;
                Prk::extract(&dek).check_header(header)?;
                Ok(dek)
            };
            let mut file = PayloadFile::lock(path.as_ref())?;
            file.recover(&open)?;

            let old = file.header()?;
            event.opens(old.sealed_dek().key_version());
            let dek = open(&old)?;
            let new = old.rewrapped(self.seal(new_key_id, context, &dek, event)?);
            if new != old {
                file.exchange(&old, &new, &open)?;
            }
            Ok(new)
        })
    }
}

/// Opens the DEK of a header that is under one of the two keys that the caller named.
type Open<'a> = dyn Fn(&PayloadHeader) -> Result<Dek, Error> + 'a;

/// A payload file, open and locked against other calls.
struct PayloadFile {
    file: File,
    path: PathBuf,
    copy: Copy,
}

impl PayloadFile {
    fn lock(path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path).map_err(at(path))?;
        if !fs::metadata(&path).map_err(at(&path))?.is_file() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
            return Err(at(&path)(error));
        }
        loop {
            let file = File::options().read(true).write(true).open(&path).map_err(at(&path))?;
            retrying(|| file.lock()).map_err(at(&path))?;
            // Otherwise the file was replaced while this call waited for the lock.
            if is_at(&file, &path)? {
                let copy = Copy::beside(&path)?;
                return Ok(Self { file, path, copy });
            }
        }
    }

    fn header(&mut self) -> io::Result<PayloadHeader> {
        let bytes = read_bytes(&mut self.file).map_err(at(&self.path))?;
        let header = PayloadHeader::from_bytes(&bytes);
        Ok(header.map_err(|error| error.with_path(&self.path))?)
    }

    /// Completes the work of a crashed call. Afterwards the header opens and is on disk, and there is no copy.
    fn recover(&mut self, open: &Open<'_>) -> io::Result<()> {
        if !self.copy.exists()? {
            return Ok(());
        }
        let saved = self.copy.read()?;
        let present = read_bytes(&mut self.file).map_err(at(&self.path))?;
        if saved.is_some_and(|saved| frame(&saved.to_bytes()) != frame(&present)) {
            return Err(self.copy.foreign());
        }
        match (PayloadHeader::from_bytes(&present), saved) {
            // A complete header is never overwritten here. If it does not open, its key may be disabled, or the keyring
            // may be older than the header. The copy stays.
            (Ok(header), _) => drop(open(&header)?),
            // The crash came before the copy was complete, and so before the first write to the file.
            (Err(error), None) => return Err(error.with_path(&self.path).into()),
            // The checksum shows that the header was written in part.
            (Err(_), Some(saved)) => {
                open(&saved)?;
                put(&mut self.file, &saved.to_bytes()).map_err(at(&self.path))?;
            }
        }
        // A header that was written just before the crash may not be on disk yet.
        self.file.sync_all().map_err(at(&self.path))?;
        self.copy.remove()
    }

    /// Replaces `old` with `new`.
    fn exchange(&mut self, old: &PayloadHeader, new: &PayloadHeader, open: &Open<'_>) -> io::Result<()> {
        open(new)?;
        self.copy.write(&old.to_bytes(), &self.file)?;
        let exchanged = exchange(&mut self.file, &old.to_bytes(), &new.to_bytes());
        if let Err(NotExchanged { error, restored }) = exchanged {
            if restored {
                // A copy that stays does no harm, and the first error matters more.
                let _ = self.copy.remove();
                return Err(at(&self.path)(error));
            }
            let (path, copy) = (self.path.display(), self.copy.path.display());
            let text = format!("{path}: {error}; the old header could not be written back, and is in {copy}");
            return Err(io::Error::new(error.kind(), text));
        }
        let header = self.header()?;
        open(&header)?;
        self.copy.remove()?;
        if is_at(&self.file, &self.path)? {
            Ok(())
        } else {
            Err(at(&self.path)(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another program replaced the file",
            )))
        }
    }
}

/// The copy of a header beside its file.
struct Copy {
    path: PathBuf,
    /// The directory of both, if directories can be synced. It is opened before anything is changed.
    directory: Option<File>,
}

impl Copy {
    fn beside(path: &Path) -> io::Result<Self> {
        let mut name = OsString::from(".");
        name.push(
            path.file_name()
                .ok_or(io::ErrorKind::InvalidInput)
                .map_err(|kind| at(path)(kind.into()))?,
        );
        name.push(".dekseal-header");
        let directory = path.parent().filter(|_| cfg!(unix));
        Ok(Self {
            path: path.with_file_name(name),
            directory: directory.map(File::open).transpose().map_err(at(path))?,
        })
    }

    fn exists(&self) -> io::Result<bool> {
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) if metadata.is_file() => Ok(true),
            Ok(_) => Err(self.foreign()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(at(&self.path)(error)),
        }
    }

    /// The copied header, or `None` if the copy is not complete.
    fn read(&self) -> io::Result<Option<PayloadHeader>> {
        let mut bytes = Vec::new();
        let file = File::open(&self.path).map_err(at(&self.path))?;
        let limit = PayloadHeader::LEN.saturating_add(1) as u64;
        file.take(limit).read_to_end(&mut bytes).map_err(at(&self.path))?;
        match bytes.as_slice().try_into() {
            // After a crash, a file system may keep the length of a file and lose its bytes.
            Ok(bytes) => Ok(PayloadHeader::from_bytes(bytes).ok()),
            Err(_) if bytes.len() < PayloadHeader::LEN => Ok(None),
            Err(_) => Err(self.foreign()),
        }
    }

    /// The error for a file in the place of the copy that is not the copy of this file's header.
    fn foreign(&self) -> io::Error {
        Error::from(ErrorKind::ForeignHeaderCopy).with_path(&self.path).into()
    }

    /// Makes the copy and syncs it. `file` is the payload file.
    fn write(&self, header: &HeaderBytes, file: &File) -> io::Result<()> {
        let mut options = OpenOptions::new();
        // `create_new` never follows a link and never overwrites a file.
        let mut copy = options
            .write(true)
            .create_new(true)
            .open(&self.path)
            .map_err(at(&self.path))?;
        let permissions = file.metadata().map(|metadata| metadata.permissions());
        let written = permissions
            .and_then(|permissions| copy.set_permissions(permissions))
            .and_then(|()| copy.write_all(header))
            .and_then(|()| copy.sync_all())
            .and_then(|()| self.sync());
        written.map_err(|error| {
            // The payload file was not changed, so the copy is not needed.
            let _ = self.remove();
            at(&self.path)(error)
        })
    }

    fn remove(&self) -> io::Result<()> {
        let removed = fs::remove_file(&self.path).and_then(|()| self.sync());
        removed.map_err(at(&self.path))
    }

    /// Syncs the directory, so that creating or removing the copy is on disk.
    fn sync(&self) -> io::Result<()> {
        self.directory.as_ref().map_or(Ok(()), File::sync_all)
    }
}

/// The target of a header: a file, or in tests an object that fails.
trait Disk: Read + Write + Seek {
    /// Syncs all writes to disk.
    fn sync(&mut self) -> io::Result<()>;
}

impl Disk for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

#[derive(Debug)]
struct NotExchanged {
    error: io::Error,
    /// Whether the old header is back in place.
    restored: bool,
}

/// Writes `new` over `old`. On a failure it writes `old` back.
fn exchange<D: Disk>(disk: &mut D, old: &HeaderBytes, new: &HeaderBytes) -> Result<(), NotExchanged> {
    let changed = || io::Error::new(io::ErrorKind::ResourceBusy, "another program changed the header");
    let present = read_bytes(disk).and_then(|present| if present == *old { Ok(()) } else { Err(changed()) });
    if let Err(error) = present {
        return Err(NotExchanged { error, restored: true });
    }
    put(disk, new).map_err(|error| NotExchanged {
        error,
        restored: put(disk, old).is_ok(),
    })
}

/// Writes the sealed DEK of `header` to its place, syncs it, and reads the header back.
fn put<D: Disk>(disk: &mut D, header: &HeaderBytes) -> io::Result<()> {
    seek_to(disk, SEALED_DEK as u64)?;
    disk.write_all(&header[SEALED_DEK..COMMITMENT])?;
    disk.sync()?;
    if read_bytes(disk)? == *header {
        Ok(())
    } else {
        Err(io::Error::other(
            "the header reads back as other bytes than were written",
        ))
    }
}

fn read_bytes<D: Read + Seek>(disk: &mut D) -> io::Result<HeaderBytes> {
    let mut bytes = [0; PayloadHeader::LEN];
    seek_to(disk, 0)?;
    match read_full(disk, &mut bytes)? {
        PayloadHeader::LEN => Ok(bytes),
        _ => Err(not_whole()),
    }
}

/// The parts of a header that a rewrap does not change. They are equal only for two headers of the same payload.
fn frame(bytes: &HeaderBytes) -> (&[u8], &[u8]) {
    (&bytes[..SEALED_DEK], &bytes[COMMITMENT..])
}

/// Whether `path` still names this file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let (here, there) = (file.metadata(), fs::metadata(path));
        let (here, there) = (here.map_err(at(path))?, there.map_err(at(path))?);
        Ok((here.dev(), here.ino()) == (there.dev(), there.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = (file, path);
        Ok(true)
    }
}

/// Adds the path to the text of an error.
fn at(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| match error.downcast::<Error>() {
        Ok(ours) => ours.with_path(path).into(),
        Err(error) => io::Error::new(error.kind(), format!("{}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests;
