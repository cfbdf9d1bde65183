//! Decides what happens after the file went back to an older state (FORMAT.md part C).

use std::sync::Arc;

use super::{
    FileKeyring, document, is_not_found, next,
    state::{Moment, State},
    storage::Locked,
};
use crate::{
    error::{Error, ErrorKind, FileFault},
    trace::Event,
};

impl FileKeyring {
    /// Accepts the contents of the file after a rollback: see *Rollback* above. Without a rollback, this is
    /// [`refresh`](Self::refresh).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::File`] with any fault except [`FileFault::Exists`], [`FileFault::RolledBack`],
    /// [`FileFault::OtherKeyring`], [`FileFault::Conflict`] and [`FileFault::NotSynced`]; no others. On an error
    /// nothing has changed.
    ///
    /// # Security
    ///
    /// Versions that are not in the file are lost, and with them all DEKs that are sealed under them. An attacker who
    /// can write the file may have restored a state in which a disabled key is still enabled: check the keys after
    /// this.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, ErrorKind, FileFault, FileKeyring, KeyId};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("keyring.json");
    /// # let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32]);
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let keyring = FileKeyring::create(&path, root()?)?;
    /// let backup = std::fs::read(&path).unwrap();
    /// keyring.update(|keys| keys.create_key(key_id))?;
    /// std::fs::write(&path, backup).unwrap(); // somebody restores it
    ///
    /// let error = keyring.refresh().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::File(FileFault::RolledBack));
    /// keyring.adopt()?;
    /// assert!(keyring.keys().list().is_empty());
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn adopt(&self) -> Result<(), Error> {
        Event::new("adopt_keyring", None, None).of(|_| {
            let mut state = self.state();
            let now = Moment::now();
            let present = self.storage.read()?;
            let document = self.parse(&present.text, &state)?;
            self.replace(&mut state, document, &present.text, now);
            self.note(present.seen, now);
            Ok(())
        })
    }

    /// Overwrites the file with the keys of this process after a rollback: see *Rollback* above. The new generation is
    /// above that of the file and that of this process. If the file is missing, it is created.
    ///
    /// Without a rollback, this reads the file as [`refresh`](Self::refresh) does, and writes nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::File`] with any fault except [`FileFault::Exists`] and [`FileFault::RolledBack`]; no others. The
    /// file is unchanged, unless the fault is [`FileFault::NotSynced`]. In particular, this does not overwrite another
    /// keyring ([`FileFault::OtherKeyring`]), a keyring under another root, or a file that cannot be read: move that
    /// file away first.
    ///
    /// # Security
    ///
    /// Changes that others made since the rollback are lost, and with them all DEKs that are sealed under versions that
    /// they made.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, ErrorKind, FileFault, FileKeyring, KeyId};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("keyring.json");
    /// # let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32]);
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let keyring = FileKeyring::create(&path, root()?)?;
    /// let backup = std::fs::read(&path).unwrap();
    /// keyring.update(|keys| keys.create_key(key_id))?;
    /// std::fs::write(&path, backup).unwrap(); // somebody restores it
    ///
    /// let error = keyring.update(|keys| keys.rotate(&key_id)).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::File(FileFault::RolledBack));
    /// keyring.write_back()?;
    /// assert!(FileKeyring::open(&path, root()?)?.keys().info(&key_id).is_ok());
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn write_back(&self) -> Result<(), Error> {
        Event::new("write_back_keyring", None, None).of(|_| {
            let locked = self.storage.lock();
            let mut state = self.state();
            let now = Moment::now();
            let (id, root) = (state.edition.id, Arc::clone(&state.root));
            let text = |found: u64, state: &State| {
                let generation = next(found.max(state.edition.generation))?;
                document::write(&self.memory.keys(), id, generation, &root)
            };
            match locked.and_then(Locked::read) {
                Ok((writer, present)) => {
                    let document = self.parse(&present.text, &state)?;
                    let generation = document.edition.generation;
                    match self.accept(&mut state, document, &present.text, now) {
                        Err(error) if error.kind() == ErrorKind::File(FileFault::RolledBack) => {
                            let text = text(generation, &state)?;
                            self.write(&mut state, &text, &root, |text| writer.write(text))
                        }
                        result => result.map(drop),
                    }
                }
                Err(error) if is_not_found(&error) => {
                    let text = text(0, &state)?;
                    self.write(&mut state, &text, &root, |text| self.storage.create(text))
                }
                Err(error) => Err(error),
            }
        })
    }
}
