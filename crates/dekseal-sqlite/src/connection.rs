//! The database's file, and a connection to it.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use dekseal::store::{Call, StoreError, StoreErrorKind};
use rusqlite::{Connection, OpenFlags};

use crate::error::Failure;

/// Where the database is.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    path: PathBuf,
}

/// Tells a file from one that has taken its place.
type Identity = (u64, u64);

/// A connection, and the file that it has open.
pub(crate) struct Open {
    connection: Connection,
    identity: Identity,
}

impl Database {
    /// Makes the file if there is none.
    pub(crate) fn create(path: &Path) -> Result<Self, StoreError> {
        // Closing a file takes away the locks that SQLite has on it in another thread, so no thread gets that far before the file is closed.
        static CREATING: Mutex<()> = Mutex::new(());
        let creating = CREATING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        // SQLite gives its other files the mode of this one.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(path) {
            Ok(file) => {
                file.sync_all().map_err(unavailable)?;
                drop(file);
                sync_directory(path).map_err(unavailable)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(unavailable(error)),
        }
        drop(creating);
        // An absolute path is never one of SQLite's special names, such as ":memory:".
        let path = fs::canonicalize(path).map_err(unavailable)?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether `open` has the file open that stands at the path now. A file that was removed or replaced would take writes and lose them.
    pub(crate) fn is_current(&self, open: &Open) -> bool {
        self.identity().is_ok_and(|identity| identity == open.identity)
    }

    #[cfg(unix)]
    fn identity(&self) -> io::Result<Identity> {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(&self.path)?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// Elsewhere a file that is open cannot be removed.
    #[cfg(not(unix))]
    fn identity(&self) -> io::Result<Identity> {
        fs::metadata(&self.path).map(|_| (0, 0))
    }

    pub(crate) fn connect(&self, call: &Call) -> Result<Open, StoreError> {
        let identity = self.identity().map_err(unavailable)?;
        // Without `SQLITE_OPEN_CREATE`: a file that has gone is not made again, empty, behind the host's back.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags);
        let connection = connection.map_err(|error| Failure::from(error).of_read())?;
        let mut open = Open { connection, identity };
        open.run(call, set_up).map_err(Failure::of_read)?;
        match self.is_current(&open) {
            true => Ok(open),
            false => Err(gone()),
        }
    }
}

impl Open {
    /// How long SQLite waits for a lock by itself. It waits longer from time to time, up to 100 ms, and so comes too late again and again
    /// where there are many writers; so it is asked anew.
    const PATIENCE: Duration = Duration::from_millis(20);

    /// Runs `f`, over again while another connection holds a lock that it needs, until the deadline.
    pub(crate) fn run<T>(
        &mut self,
        call: &Call,
        mut f: impl FnMut(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let deadline = call.deadline();
        let late = move || Instant::now() >= deadline;
        self.connection.progress_handler(1000, Some(late))?;
        loop {
            // Zero would mean that SQLite does not wait at all.
            let patience = call.remaining().min(Self::PATIENCE).max(Duration::from_millis(1));
            self.connection.busy_timeout(patience)?;
            match f(&self.connection) {
                Err(error) if error.is_busy() && !late() => {}
                outcome => return outcome,
            }
        }
    }
}

/// Makes a change last, and checks that SQLite does it.
fn set_up(connection: &Connection) -> Result<(), Failure> {
    let text = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, String>(0));
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    // The mode of the file, which stays in it.
    let mut mode = text("PRAGMA journal_mode")?;
    if mode != "wal" {
        mode = text("PRAGMA journal_mode = WAL")?;
    }
    if mode != "wal" {
        return Err(Failure::Setting("journal_mode", mode));
    }
    // FULL: a transaction is on the disk before it is reported as done. On Apple's systems that takes more than fsync.
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;")?;
    let synchronous = number("PRAGMA synchronous")?;
    if synchronous != 2 {
        return Err(Failure::Setting("synchronous", synchronous.to_string()));
    }
    // The schema is in the file, which may be another's: it gets no functions that reach outside.
    connection.execute_batch("PRAGMA trusted_schema = OFF;")?;
    Ok(())
}

/// The file at the path has been removed or replaced.
pub(crate) fn gone() -> StoreError {
    let source = "the database's file was removed or replaced";
    StoreError::new(StoreErrorKind::Unavailable, source)
}

fn unavailable(error: io::Error) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, error)
}

/// A new file lasts once its name does.
#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::File::open(directory)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a connection, not of the file: nothing outside sees it.
    #[test]
    fn a_change_is_on_the_disk_before_it_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::create(&directory.path().join("keys.db")).unwrap();
        let open = database.connect(&Call::within(Duration::from_secs(5))).unwrap();
        let setting = |name: &str| {
            open.connection
                .query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0))
                .unwrap()
        };
        assert_eq!(setting("synchronous"), 2);
        assert_eq!(setting("fullfsync"), 1);
        assert_eq!(setting("checkpoint_fullfsync"), 1);
        assert_eq!(setting("trusted_schema"), 0);
    }
}
