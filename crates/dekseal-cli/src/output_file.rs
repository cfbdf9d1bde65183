//! Writes a file that gets its name when all of it is on disk. After an error, or a signal that ends the process, no
//! part of it remains.
//!
//! On Linux the file has no name until it is complete, so the system frees it however the process ends, also by
//! SIGKILL. Elsewhere, and on file systems without unnamed files, it has a temporary name. The temporary file is
//! removed after SIGINT, SIGTERM and SIGHUP, and on Windows after Ctrl-C.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::exit,
    sync::{Mutex, MutexGuard, Once, PoisonError},
};

use tempfile::{Builder, NamedTempFile};

use crate::failure::Failure;

/// Creates the file, readable only by its owner. With `replace`, an existing file is replaced in one step; without, it
/// is refused and stays as it is.
pub(crate) fn create(
    path: &Path,
    replace: bool,
    write: impl FnOnce(&mut File) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::of_io(path.display(), &error);
    // Fails early. The last step also fails if the file exists by then.
    check(path, replace)?;
    let directory = match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    };
    if replace {
        // Before the output has a temporary name.
        handle_signals().map_err(failed)?;
    }
    match unnamed(directory).map_err(failed)? {
        Some(mut file) => {
            write(&mut file)?;
            file.sync_all().map_err(failed)?;
            if replace {
                link_over(&file, path).map_err(failed)?;
            } else {
                link(&file, path).map_err(failed)?;
            }
        }
        None => {
            handle_signals().map_err(failed)?;
            let mut file = named(directory).map_err(failed)?;
            write(file.as_file_mut())?;
            file.as_file().sync_all().map_err(failed)?;
            let mut temporary = temporary();
            let named = if replace {
                file.persist(path)
            } else {
                file.persist_noclobber(path)
            };
            named.map_err(|error| failed(error.error))?;
            *temporary = None;
        }
    }
    // Syncing the directory puts the new name on disk. Windows cannot sync directories.
    #[cfg(unix)]
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed)?;
    Ok(())
}

/// Refuses a path that must not be replaced.
fn check(path: &Path, replace: bool) -> Result<(), Failure> {
    let refused = |reason| Err(Failure::io(format!("{}: {reason}", path.display())));
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => refused("it is a directory; name a file"),
        // Such as /dev/null, or a named pipe.
        Ok(found) if !found.is_file() => refused("it is not a regular file; redirect standard output to it instead"),
        _ if !replace && path.symlink_metadata().is_ok() => {
            refused("it exists already; pass --force to replace it, or name another file")
        }
        _ => Ok(()),
    }
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
    let mut options = private();
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

/// Replaces `path` by an unnamed file. No system call does that at once, so the complete file has a temporary name for
/// a moment. Signals wait for the end of that moment.
fn link_over(file: &File, path: &Path) -> io::Result<()> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{:016x}.tmp", getrandom::u64()?));
    let unfinished = path.with_file_name(name);
    let _signals_wait = temporary();
    link(file, &unfinished)?;
    fs::rename(&unfinished, path).inspect_err(|_| {
        let _ = fs::remove_file(&unfinished);
    })
}

/// The temporary file that a signal removes. A signal ends the process only while this is not locked.
static TEMPORARY: Mutex<Option<PathBuf>> = Mutex::new(None);

fn temporary() -> MutexGuard<'static, Option<PathBuf>> {
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the temporary file when a signal ends the process.
fn handle_signals() -> io::Result<()> {
    static HANDLER: Once = Once::new();
    let mut handler = Ok(());
    HANDLER.call_once(|| {
        handler = ctrlc::set_handler(|| {
            // Holding the lock keeps other files from being made meanwhile.
            let temporary = temporary();
            if let Some(path) = &*temporary {
                let _ = fs::remove_file(path);
            }
            exit(130);
        });
    });
    handler.map_err(io::Error::other)
}

/// Makes a file with a temporary name, which is removed on an error and after a signal.
fn named(directory: &Path) -> io::Result<NamedTempFile> {
    Builder::new().prefix(".").suffix(".tmp").make_in(directory, |path| {
        let mut temporary = temporary();
        let file = private().create_new(true).open(path)?;
        *temporary = Some(path.to_owned());
        Ok(file)
    })
}

/// Opens or makes a file to write to, which only its owner can read.
pub(crate) fn private() -> OpenOptions {
    let mut options = File::options();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
