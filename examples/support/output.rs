//! Writes a file that gets its name when all of it is on disk. After an error, or a signal that ends the process, no
//! part of it remains.
//!
//! On Linux the file has no name until it is complete, so the system frees it however the process ends, also by
//! SIGKILL. Elsewhere, and on file systems without unnamed files, it has a temporary name. The temporary file is
//! removed after SIGINT, SIGTERM and SIGHUP, and on Windows after Ctrl-C.

use std::{
    error::Error,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, Once, PoisonError},
};

use tempfile::{Builder, NamedTempFile};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Creates the file, readable only by its owner. Fails if the file exists, and does not change it.
pub(crate) fn create(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    // Fails early. The last step also fails if the file exists by then.
    if path.symlink_metadata().is_ok() {
        return Err("it exists already".into());
    }
    let directory = match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    };
    match unnamed(directory)? {
        Some(mut file) => {
            write(&mut file)?;
            file.sync_all()?;
            link(&file, path)?;
        }
        None => {
            let mut file = named(directory)?;
            write(file.as_file_mut())?;
            file.as_file().sync_all()?;
            let mut temporary = temporary();
            file.persist_noclobber(path)?;
            *temporary = None;
        }
    }
    // Syncing the directory puts the new name on disk. Windows cannot sync directories.
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    Ok(())
}

/// Makes a file without a name, if the system and the file system support it.
#[cfg(target_os = "linux")]
fn unnamed(directory: &Path) -> io::Result<Option<File>> {
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::{fs::OFlags, io::Errno};

    // `link` needs /proc.
    if !Path::new("/proc/self/fd").exists() {
        return Ok(None);
    }
    let mut options = File::options();
    options.write(true).mode(0o600);
    options.custom_flags(OFlags::TMPFILE.bits().cast_signed());
    match options.open(directory) {
        Ok(file) => Ok(Some(file)),
        Err(error) => match Errno::from_io_error(&error) {
            // The file system or the kernel does not know the flag.
            Some(Errno::OPNOTSUPP | Errno::ISDIR) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Gives an unnamed file its name. `std::fs::hard_link` does not follow the link in /proc, so it cannot do this.
#[cfg(target_os = "linux")]
fn link(file: &File, path: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    use rustix::fs::{AtFlags, CWD, linkat};

    let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, descriptor, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn unnamed(_: &Path) -> io::Result<Option<File>> {
    Ok(None)
}

#[cfg(not(target_os = "linux"))]
fn link(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The temporary file that a signal removes.
static TEMPORARY: Mutex<Option<PathBuf>> = Mutex::new(None);

fn temporary() -> MutexGuard<'static, Option<PathBuf>> {
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a file with a temporary name, which is removed on an error and after a signal.
fn named(directory: &Path) -> Result<NamedTempFile> {
    static HANDLER: Once = Once::new();
    let mut handler = Ok(());
    HANDLER.call_once(|| {
        handler = ctrlc::set_handler(|| {
            // Holding the lock keeps other files from being made meanwhile.
            let temporary = temporary();
            if let Some(path) = &*temporary {
                let _ = std::fs::remove_file(path);
            }
            std::process::exit(130);
        });
    });
    handler?;
    let made = Builder::new().prefix(".").suffix(".tmp").make_in(directory, |path| {
        let mut temporary = temporary();
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        *temporary = Some(path.to_owned());
        Ok(file)
    })?;
    Ok(made)
}
