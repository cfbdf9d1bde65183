//! Snapshots, from which a process starts while the store is away (FORMAT.md D6).

use core::time::Duration;
use std::{time::SystemTime, vec::Vec};

#[cfg(doc)]
use super::StoreSettings;
use super::{
    super::store::{KeyStore, Revision, StoredDocument},
    StoreKeyring,
    cache::{Answer, Taken},
    shared::Shared,
};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::{
    error::{Error, StoreFault},
    key_id::KeyId,
    labels,
    secret::ct_eq,
    trace::Event,
};

const MAGIC: [u8; 8] = *b"dekseals";
const MAC_LEN: usize = 32;

impl<S: KeyStore> StoreKeyring<S> {
    /// Makes a snapshot of the documents in memory, for a process that starts while the store is away. The documents
    /// are sealed as in the store, and the snapshot is authenticated under the writing root.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] with `TooLarge`; no others.
    ///
    /// # Security
    ///
    /// An older snapshot also has a correct MAC. A key that was disabled since stays in use until the store answers, at
    /// most for [`max_stale`](StoreSettings::max_stale).
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, KeyId, StoreKeyring, store::{Action, MemoryStore}};
    /// # let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32]);
    /// # let keyring = StoreKeyring::new(MemoryStore::new(), root()?);
    /// # let key_id = KeyId::generate()?;
    /// # keyring.update(&key_id, |keys| keys.create_key(key_id))?;
    /// let snapshot = keyring.snapshot()?; // write it to a file from time to time
    ///
    /// let away = MemoryStore::new();
    /// away.set_script(|_request, _call| Action::Fail);
    /// let restarted = StoreKeyring::new(away, root()?);
    /// assert_eq!(restarted.restore(&snapshot)?, 1);
    /// assert!(restarted.is_ready(&key_id));
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn snapshot(&self) -> Result<Vec<u8>, Error> {
        self.shared.snapshot()
    }

    /// Loads the documents of a snapshot that are not in memory. Returns their number. The time limits of each document
    /// count from the time at which the store last confirmed it. A document that was confirmed in the future is left
    /// out, if the difference is more than the [`clock_skew`](StoreSettings::clock_skew).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] with `NotASnapshot`, `WrongRoot` or `Changed`; no others.
    pub fn restore(&self, snapshot: &[u8]) -> Result<usize, Error> {
        Event::new("restore_keys", None, None).of(|_| self.shared.restore(snapshot))
    }
}

impl<S: KeyStore> Shared<S> {
    /// `magic ‖ root ID ‖ u32(root version) ‖ u32(count) ‖ documents ‖ MAC`, where a document is
    /// `key ID ‖ u64(confirmed) ‖ u8(length) ‖ revision ‖ u32(length) ‖ document`.
    pub(super) fn snapshot(&self) -> Result<Vec<u8>, Error> {
        let roots = self.roots.load();
        let root = &roots.writing;
        let (now, time) = (self.clock.now(), seconds());
        let mut snapshot = Vec::new();
        snapshot.extend(MAGIC);
        snapshot.extend(root.key_id().as_bytes());
        snapshot.extend(root.key_version().to_be_bytes());
        let pinned = self.cache.entries.pin();
        let mut entries: Vec<_> = pinned.iter().collect();
        entries.sort_unstable_by_key(|(key_id, _)| **key_id);
        snapshot.extend(length(entries.len())?.to_be_bytes());
        for (key_id, entry) in entries {
            let age = now.since(entry.confirmed()) / 1000;
            let revision = entry.revision.as_bytes();
            snapshot.extend(key_id.as_bytes());
            snapshot.extend(time.saturating_sub(age).to_be_bytes());
            // A revision has at most 64 bytes.
            snapshot.push(u8::try_from(revision.len()).map_err(|_| StoreFault::NotASnapshot)?);
            snapshot.extend(revision);
            snapshot.extend(length(entry.document.len())?.to_be_bytes());
            snapshot.extend(&entry.document);
        }
        snapshot.extend(root.mac(labels::SNAPSHOT_MAC, &snapshot));
        Ok(snapshot)
    }

    /// Loads the documents of a snapshot. Returns their number.
    pub(super) fn restore(&self, snapshot: &[u8]) -> Result<usize, Error> {
        let message = snapshot.len().checked_sub(MAC_LEN).ok_or(StoreFault::NotASnapshot)?;
        let (message, found) = snapshot.split_at_checked(message).ok_or(StoreFault::NotASnapshot)?;
        let mut reader = Reader(message);
        if reader.array()? != MAGIC {
            return Err(StoreFault::NotASnapshot.into());
        }
        let root_id = reader.key_id()?;
        let root_version = u32::from_be_bytes(reader.array()?);
        let roots = self.roots.load();
        let root = roots
            .all
            .iter()
            .find(|root| root.key_id() == root_id && root.key_version() == root_version);
        let root = root.ok_or_else(|| Error::from(StoreFault::WrongRoot).with_found(&root_id, Some(root_version)))?;
        let found: &[u8; MAC_LEN] = found.try_into().map_err(|_| StoreFault::NotASnapshot)?;
        if !ct_eq(found, &root.mac(labels::SNAPSHOT_MAC, message)) {
            return Err(StoreFault::Changed.into());
        }
        let count = u32::from_be_bytes(reader.array()?);
        let (now, time) = (self.clock.now(), seconds());
        let mut taken: usize = 0;
        for _ in 0..count {
            let key_id = reader.key_id()?;
            let confirmed = u64::from_be_bytes(reader.array()?);
            let [revision_len] = reader.array()?;
            let revision = Revision::new(reader.take(revision_len.into())?).ok_or(StoreFault::NotASnapshot)?;
            let document_len = u32::from_be_bytes(reader.array()?);
            let document = reader.take(usize::try_from(document_len).map_err(|_| StoreFault::NotASnapshot)?)?;
            let stored = StoredDocument {
                revision,
                document: document.to_vec(),
            };
            // Begins before the look at memory. So if a document is accepted after that look, this one is dropped and
            // not compared with it.
            let age = Duration::from_secs(time.saturating_sub(confirmed));
            let begun = self.cache.begin(now.minus(age));
            // A document in memory is newer than the snapshot.
            if self.cache.get(&key_id).is_some() {
                continue;
            }
            // The clock of this machine, or of the other one, is wrong. The limits of the document cannot be known.
            if confirmed > time.saturating_add(self.settings.clock_skew.as_secs()) {
                continue;
            }
            // A document may be under a root that this process does not have any more.
            let answer = self
                .cache
                .take_up(&key_id, begun, Answer::Document(stored), &roots, true);
            if let Ok(Taken::Held(_)) = answer {
                taken = taken.saturating_add(1);
            }
        }
        if reader.0.is_empty() {
            Ok(taken)
        } else {
            Err(StoreFault::NotASnapshot.into())
        }
    }
}

/// The Unix time in seconds.
fn seconds() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

fn length(length: usize) -> Result<u32, Error> {
    Ok(u32::try_from(length).map_err(|_| StoreFault::TooLarge)?)
}

/// Reads fields in order.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (field, rest) = self.0.split_at_checked(length).ok_or(StoreFault::NotASnapshot)?;
        self.0 = rest;
        Ok(field)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        Ok(self.take(N)?.try_into().map_err(|_| StoreFault::NotASnapshot)?)
    }

    fn key_id(&mut self) -> Result<KeyId, Error> {
        let bytes: [u8; 36] = self.array()?;
        KeyId::from_bytes(bytes).map_err(|_| StoreFault::NotASnapshot.into())
    }
}
