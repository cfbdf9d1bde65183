//! Decides what happens after the store lost changes of a key (FORMAT.md D5).

use super::{
    super::{document, store::KeyStore},
    StoreKeyring,
    cache::Answer,
    reading::{self, keyset_of},
    shared::Shared,
    write::{Change, next, parse},
};
use crate::{
    error::{Error, ErrorKind, StoreFault},
    key_id::KeyId,
    trace::Event,
};

impl<S: KeyStore> StoreKeyring<S> {
    /// Accepts the document of a key in the store after a rollback: see *Rollback* above. If the store has no such key,
    /// the key is removed from memory.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] with a fault of the store or of the document; no others. On an error nothing has changed.
    ///
    /// # Security
    ///
    /// Versions that are not in the store are lost, and with them all DEKs that are sealed under them. An attacker who
    /// can write to the store may have restored a state in which a disabled key is still enabled: check the key after
    /// this.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, ErrorKind, KeyId, StoreFault, StoreKeyring, store::MemoryStore};
    /// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
    /// # let keyring = StoreKeyring::new(MemoryStore::new(), root);
    /// # let key_id = KeyId::generate()?;
    /// keyring.update(&key_id, |keys| keys.create_key(key_id))?;
    /// let backup = keyring.store().copy();
    /// keyring.update(&key_id, |keys| keys.rotate(&key_id))?;
    /// keyring.store().restore(&backup); // somebody restores the database
    ///
    /// let error = keyring.load(&key_id).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Store(StoreFault::RolledBack));
    /// keyring.adopt(&key_id)?;
    /// assert_eq!(keyring.info(&key_id)?.current_version, 0);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn adopt(&self, key_id: &KeyId) -> Result<(), Error> {
        Event::new("adopt_key", Some(key_id), None).of(|_| self.shared.adopt(key_id))
    }

    /// Overwrites the document of a key in the store with the one that this process holds, after a rollback: see
    /// *Rollback* above. The new generation is above both. Without a rollback, this accepts the document of the store
    /// and writes nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`] if the key is not in memory, and [`ErrorKind::Store`] with any fault except `Stale`,
    /// `NotASnapshot` and `Settings`; no others. This does not overwrite a document that cannot be read: remove it from
    /// the store first.
    ///
    /// # Security
    ///
    /// Changes that others made since the rollback are lost, and with them all DEKs that are sealed under versions that
    /// they made. Call this in the process that holds the newest version.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, ErrorKind, KeyId, StoreKeyring, store::MemoryStore};
    /// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
    /// # let keyring = StoreKeyring::new(MemoryStore::new(), root);
    /// # let key_id = KeyId::generate()?;
    /// keyring.update(&key_id, |keys| keys.create_key(key_id))?;
    /// let backup = keyring.store().copy();
    /// keyring.update(&key_id, |keys| keys.rotate(&key_id))?;
    /// keyring.store().restore(&backup); // somebody restores the database
    ///
    /// assert!(keyring.load(&key_id).is_err());
    /// keyring.write_back(&key_id)?;
    /// assert_eq!(keyring.info(&key_id)?.current_version, 1);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn write_back(&self, key_id: &KeyId) -> Result<(), Error> {
        Event::new("write_back_key", Some(key_id), None).of(|_| self.shared.write_back(key_id))
    }
}

impl<S: KeyStore> Shared<S> {
    /// Accepts the document of the store, whatever document is held.
    fn adopt(&self, key_id: &KeyId) -> Result<(), Error> {
        let call = self.call();
        loop {
            let begun = self.cache.begin(self.clock.now());
            let present = self.get(key_id, &call)?;
            if self.cache.adopt(key_id, begun, present, &self.roots.load())? {
                return Ok(());
            }
            if call.remaining().is_zero() {
                return Err(Error::from(StoreFault::Deadline).with_key_id(key_id));
            }
        }
    }

    /// Overwrites the document of the store with the held one after a rollback.
    fn write_back(&self, key_id: &KeyId) -> Result<(), Error> {
        self.attempts(key_id, |call| {
            let begun = self.cache.begin(self.clock.now());
            let present = self.get(key_id, call)?;
            let revision = present.as_ref().map(|present| present.revision);
            let roots = self.roots.load_full();
            let held = self.cache.get(key_id);
            let held = held.ok_or_else(|| Error::from(ErrorKind::UnknownKey).with_key_id(key_id))?;
            let found = match &present {
                Some(present) => {
                    reading::read(&present.document, key_id, &roots, Some(&held.key))?
                        .edition
                        .generation
                }
                None => 0,
            };
            let answer = present.map_or(Answer::Absent, Answer::Document);
            match self.judge(key_id, begun, answer, true) {
                Err(error) if error.kind() == ErrorKind::Store(StoreFault::RolledBack) => {}
                result => return result.map(|_| Some(())),
            }
            let keys = keyset_of(key_id, Some(&held.key));
            let generation = next(found.max(held.edition.generation))?;
            let text = document::write(&keys, held.edition.id, generation, &held.root)?;
            let document = parse(key_id, text, &held.root, Some(&held.key))?;
            let change = Change {
                key_id,
                begun: begun.at,
                before: None,
                expected: revision,
                after: Some(document),
                keep: true,
                written_back: Some(held.edition),
            };
            Ok(self.make(change, call)?.done())
        })
    }
}
