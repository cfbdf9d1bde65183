//! The database file and the connections to it.

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

/// The location of the database.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    path: PathBuf,
}

/// Distinguishes a file from another one at the same path.
type Identity = (u64, u64);

/// A connection, and the identity of the file that it has open.
pub(crate) struct Open {
    connection: Connection,
    identity: Identity,
}

impl Database {
    /// Makes the file unless it exists.
    pub(crate) fn create(path: &Path) -> Result<Self, StoreError> {
        // When a process closes a file, it loses the POSIX locks that SQLite holds on the same file in other threads.
        // This lock lets only one thread at a time get from opening to closing the file.
        static CREATING: Mutex<()> = Mutex::new(());
        let creating = CREATING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        // SQLite gives its other files the same mode as this one.
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

    /// Whether the file at the path is the one that `open` has open. Writes to a removed or replaced file would be
    /// lost.
    pub(crate) fn is_current(&self, open: &Open) -> bool {
        self.identity().is_ok_and(|identity| identity == open.identity)
    }

    #[cfg(unix)]
    fn identity(&self) -> io::Result<Identity> {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(&self.path)?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// On other systems an open file cannot be removed.
    #[cfg(not(unix))]
    fn identity(&self) -> io::Result<Identity> {
        fs::metadata(&self.path).map(|_| (0, 0))
    }

    pub(crate) fn connect(&self, call: &Call) -> Result<Open, StoreError> {
        let identity = self.identity().map_err(unavailable)?;
        // Without `SQLITE_OPEN_CREATE`: if the file was removed, SQLite must not silently make an empty one.
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
    /// The time that SQLite waits for a lock by itself. Its own wait grows to 100 ms between attempts, so with many
    /// writers it keeps coming too late. Shorter waits, repeated here, avoid that.
    const PATIENCE: Duration = Duration::from_millis(20);

    /// Runs `f`, and repeats it while another connection holds a lock that it needs, until the deadline.
    pub(crate) fn run<T>(
        &mut self,
        call: &Call,
        mut f: impl FnMut(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let deadline = call.deadline();
        let late = move || Instant::now() >= deadline;
        self.connection.progress_handler(1000, Some(late))?;
        loop {
            // With zero, SQLite would not wait at all.
            let patience = call.remaining().min(Self::PATIENCE).max(Duration::from_millis(1));
            self.connection.busy_timeout(patience)?;
            match f(&self.connection) {
                Err(error) if error.is_busy() && !late() => {}
                outcome => return outcome,
            }
        }
    }
}

/// Sets up durable writes, and checks that SQLite accepted the settings.
fn set_up(connection: &Connection) -> Result<(), Failure> {
    let text = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, String>(0));
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    // The journal mode is a property of the file and stays in it.
    let mut mode = text("PRAGMA journal_mode")?;
    if mode != "wal" {
        mode = text("PRAGMA journal_mode = WAL")?;
    }
    if mode != "wal" {
        return Err(Failure::Setting("journal_mode", mode));
    }
    // FULL: a transaction is on disk before it is reported as done. On Apple systems this needs more than `fsync`.
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;")?;
    let synchronous = number("PRAGMA synchronous")?;
    if synchronous != 2 {
        return Err(Failure::Setting("synchronous", synchronous.to_string()));
    }
    // The schema is part of the file, which another program may have written: it may not call functions with side
    // effects.
    connection.execute_batch("PRAGMA trusted_schema = OFF;")?;
    Ok(())
}

/// The error for a removed or replaced file.
pub(crate) fn gone() -> StoreError {
    let source = "the database's file was removed or replaced";
    StoreError::new(StoreErrorKind::Unavailable, source)
}

fn unavailable(error: io::Error) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, error)
}

/// A new file is durable only when its name is.
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

    /// The settings belong to a connection, not to the file, so they can only be tested here.
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
