//! What a pass has done so far, in memory and in a file that outlives the process.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    rewrap::Sealed,
    row::{Key, Problem},
};
use crate::{failure::Failure, output_file::private};

/// The state of a pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    format: String,
    /// The table, the columns, the context and the keyring. A pass is resumed only with the same.
    sweep: String,
    pub(crate) pass: u64,
    /// When the pass began, in seconds since 1970. It counts for the grace period, also after the pass was resumed.
    pub(crate) began: u64,
    /// All rows up to this key are done.
    pub(crate) after: Option<Key>,
    pub(crate) tally: Tally,
}

/// Counts of rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tally {
    /// All rows that were read, the others are parts of it.
    pub(crate) rows: u64,
    pub(crate) rewrapped: u64,
    pub(crate) current: u64,
    pub(crate) null: u64,
    pub(crate) other_keys: u64,
    /// The rows that were deleted meanwhile.
    pub(crate) gone: u64,
    pub(crate) failed: u64,
    /// The first of the rows that failed.
    pub(crate) failures: Vec<Failed>,
    /// By key ID and version, the rows that are under it after the pass. In a dry run, those that are under it now.
    pub(crate) keys: BTreeMap<String, BTreeMap<u32, u64>>,
}

/// A row that could not be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failed {
    pub(crate) key: Key,
    pub(crate) problem: String,
}

/// The number of failed rows that are kept by name. All are counted.
pub(crate) const SHOWN: usize = 1000;

const FORMAT: &str = "dekseal sweep 1";

impl State {
    pub(crate) fn new(sweep: &str, pass: u64, began: u64) -> Self {
        Self {
            format: FORMAT.into(),
            sweep: sweep.into(),
            pass,
            began,
            after: None,
            tally: Tally::default(),
        }
    }
}

impl Tally {
    pub(crate) fn fail(&mut self, key: &Key, problem: &Problem) {
        self.failed = self.failed.saturating_add(1);
        if self.failures.len() < SHOWN {
            self.failures.push(Failed {
                key: key.clone(),
                problem: problem.to_string(),
            });
        }
    }

    pub(crate) fn count(&mut self, sealed: Sealed) {
        let versions = self.keys.entry(sealed.key_id.to_string()).or_default();
        let count = versions.entry(sealed.version).or_default();
        *count = count.saturating_add(1);
    }

    pub(crate) fn add(&mut self, other: Self) {
        let counts = [
            (&mut self.rows, other.rows),
            (&mut self.rewrapped, other.rewrapped),
            (&mut self.current, other.current),
            (&mut self.null, other.null),
            (&mut self.other_keys, other.other_keys),
            (&mut self.gone, other.gone),
            (&mut self.failed, other.failed),
        ];
        for (count, more) in counts {
            *count = count.saturating_add(more);
        }
        let room = SHOWN.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.into_iter().take(room));
        for (key, versions) in other.keys {
            let counts = self.keys.entry(key).or_default();
            for (version, more) in versions {
                let count = counts.entry(version).or_default();
                *count = count.saturating_add(more);
            }
        }
    }
}

/// The file of a state. It is locked for as long as this lives.
pub(crate) struct StateFile {
    path: PathBuf,
    lock_path: PathBuf,
    lock: File,
}

impl StateFile {
    /// Locks the file, and reads the state in it, if there is one.
    pub(crate) fn open(path: &Path, sweep: &str) -> Result<(Self, Option<State>), Failure> {
        let lock_path = beside(path, ".lock");
        let lock = lock(&lock_path, path)?;
        let file = Self {
            path: path.to_owned(),
            lock_path,
            lock,
        };
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((file, None)),
            Err(error) => return Err(Failure::of_io(path.display(), &error)),
        };
        let state: State = serde_json::from_slice(&text).map_err(|error| {
            Failure::data(format!(
                "{}: not the state of a sweep: {error}; remove it to begin from the first row",
                path.display()
            ))
        })?;
        if state.format != FORMAT || state.sweep != sweep {
            return Err(Failure::usage(format!(
                "{}: the state of another sweep, {}; pass another file with --state, or remove this one to begin from \
                 the first row",
                path.display(),
                state.sweep
            )));
        }
        Ok((file, Some(state)))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file as a whole, and returns when the disk has it.
    pub(crate) fn save(&self, state: &State) -> Result<(), Failure> {
        self.replace(state)
            .map_err(|error| Failure::of_io(self.path.display(), &error))
    }

    fn replace(&self, state: &State) -> io::Result<()> {
        // Only the holder of the lock writes this file, so a rest of a killed process is overwritten.
        let temporary = beside(&self.path, ".new");
        // The keys of rows can be private.
        let mut file = private().create(true).truncate(true).open(&temporary)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        sync_directory(&self.path)
    }

    /// Removes the state of a pass that is complete.
    pub(crate) fn remove(&self) -> Result<(), Failure> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::of_io(self.path.display(), &error)),
            _ => Ok(()),
        }
    }
}

impl Drop for StateFile {
    /// Removes the lock file. Whoever opened it before, and locks it now, sees that it is gone.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.lock_path);
        let _ = self.lock.unlock();
    }
}

fn lock(lock_path: &Path, path: &Path) -> Result<File, Failure> {
    let failed = |error: &io::Error| Failure::of_io(lock_path.display(), error);
    loop {
        let file = private()
            .create(true)
            .truncate(false)
            .open(lock_path)
            .map_err(|error| failed(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::io(format!(
                    "{}: another sweep is at work with this state; wait for it, or stop it",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
        if is_at(&file, lock_path) {
            return Ok(file);
        }
    }
}

/// Whether the file at the path is this one.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// On other systems an open file cannot be removed.
#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> bool {
    true
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::row::KeyPart;

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let (file, none) = StateFile::open(&path, "one").unwrap();
        assert_eq!(none, None);
        let mut state = State::new("one", 3, 1_800_000_000);
        state.after = Some(vec![
            KeyPart::Integer(7),
            KeyPart::Text("x".into()),
            KeyPart::Blob("00ff".into()),
        ]);
        state.tally.count(Sealed {
            key_id: "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse().unwrap(),
            version: 2,
        });
        state.tally.fail(&vec![KeyPart::Integer(1)], &Problem::new("broken"));
        file.save(&state).unwrap();
        // A second sweep is locked out, and the lock goes with the file.
        assert!(StateFile::open(&path, "one").is_err());
        drop(file);
        assert_eq!(StateFile::open(&path, "one").unwrap().1, Some(state));
        let other = StateFile::open(&path, "two").map(|_| ()).unwrap_err();
        assert!(
            other.to_string().contains("the state of another sweep, one;"),
            "{other}"
        );
        fs::write(&path, "{").unwrap();
        assert!(StateFile::open(&path, "one").is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn failures_are_all_counted_and_the_first_are_kept() {
        let mut all = Tally::default();
        for _ in 0..3 {
            let mut tally = Tally::default();
            for at in 0..400 {
                tally.fail(&vec![KeyPart::Integer(at)], &Problem::new("broken"));
            }
            all.add(tally);
        }
        assert_eq!((all.failed, all.failures.len()), (1200, SHOWN));
    }
}
