//! The fields of a keyring document, and its MAC (FORMAT.md C1 and C3).

use std::vec::Vec;

use super::super::{key::KeyState, material::SealedMaterial};
use crate::{
    cmk::CmkVersion,
    error::{Error, FileFault},
    key_id::KeyId,
    labels,
    secret::ct_eq,
    unix_time::UnixTime,
};

/// The version of the format.
pub(super) const VERSION: u32 = 1;

/// The values of a document's fields, which keep the rules of C2. They are not authentic before `verify`.
pub(super) struct Contents {
    pub(super) id: [u8; 16],
    pub(super) generation: u64,
    pub(super) root: RootContents,
    pub(super) keys: Vec<KeyContents>,
}

pub(super) struct RootContents {
    pub(super) key_id: KeyId,
    pub(super) key_version: u32,
    pub(super) check: [u8; 32],
}

pub(super) struct KeyContents {
    pub(super) key_id: KeyId,
    pub(super) state: KeyState,
    pub(super) min_version: u32,
    pub(super) versions: Vec<VersionContents>,
}

pub(super) struct VersionContents {
    pub(super) version: u32,
    pub(super) created: UnixTime,
    pub(super) material: SealedMaterial,
}

impl Contents {
    /// Whether the fields keep the rules of C2 that concern several fields.
    pub(super) fn follow_rules(&self) -> bool {
        // Ascending order means that nothing occurs twice, and that one keyring has one message.
        let ordered = self.keys.is_sorted_by(|a, b| a.key_id < b.key_id);
        let keys = self.keys.iter().all(|key| {
            let lengths = key.versions.iter().all(|v| (32..=64).contains(&v.material.length));
            let ordered = key.versions.is_sorted_by(|a, b| a.version < b.version);
            let newest = key.versions.last().map(|last| last.version);
            lengths && ordered && newest >= Some(key.min_version) && key.key_id != self.root.key_id
        });
        self.generation > 0 && ordered && keys
    }

    /// C3: computes the MAC under `root`.
    pub(super) fn mac(&self, root: &CmkVersion) -> Result<[u8; 32], Error> {
        Ok(root.mac(labels::KEYRING_MAC, &self.message()?))
    }

    /// Checks the MAC under `root`.
    pub(super) fn verify(&self, root: &CmkVersion, mac: &[u8; 32]) -> Result<(), Error> {
        if ct_eq(mac, &self.mac(root)?) {
            Ok(())
        } else {
            Err(FileFault::Changed.into())
        }
    }

    /// C3: the message consists of the values of the fields, so white space and the case of hex do not change it.
    fn message(&self) -> Result<Vec<u8>, Error> {
        // 53 bytes for a key, and 201 for each of its versions. Another length would cost time, and nothing else.
        let of_key = |key: &KeyContents| key.versions.len().saturating_mul(201).saturating_add(53);
        let length = self.keys.iter().map(of_key).fold(32, usize::saturating_add);
        let mut message = Vec::with_capacity(length);
        message.extend(VERSION.to_be_bytes());
        message.extend(self.id);
        message.extend(self.generation.to_be_bytes());
        message.extend(count(&self.keys)?.to_be_bytes());
        for key in &self.keys {
            let (state, deletion) = match key.state {
                KeyState::Enabled => (0, 0),
                KeyState::Disabled => (1, 0),
                KeyState::PendingDeletion { at } => (2, at.as_secs()),
            };
            message.extend(key.key_id.as_bytes());
            message.push(state);
            message.extend(deletion.to_be_bytes());
            message.extend(key.min_version.to_be_bytes());
            message.extend(count(&key.versions)?.to_be_bytes());
            for version in &key.versions {
                message.extend(version.version.to_be_bytes());
                message.push(version.material.length);
                message.extend(version.created.as_secs().to_be_bytes());
                message.extend(version.material.blob);
            }
        }
        Ok(message)
    }
}

impl RootContents {
    pub(super) fn new(root: &CmkVersion) -> Self {
        Self {
            key_id: root.key_id(),
            key_version: root.key_version(),
            check: check(root),
        }
    }

    /// Whether this names `root`.
    pub(super) fn is(&self, root: &CmkVersion) -> bool {
        self.key_id == root.key_id() && self.key_version == root.key_version() && ct_eq(&self.check, &check(root))
    }
}

/// Whether two instances of one CMK version have the same material.
pub(super) fn same_material(a: &CmkVersion, b: &CmkVersion) -> bool {
    ct_eq(&check(a), &check(b))
}

/// C1: a value that identifies a root, or other material, without revealing it.
pub(super) fn check(cmk: &CmkVersion) -> [u8; 32] {
    let mut check = [0; 32];
    cmk.derive(labels::KEYRING_CHECK, &mut check);
    check
}

fn count<T>(entries: &[T]) -> Result<u32, Error> {
    Ok(u32::try_from(entries.len()).map_err(|_| FileFault::TooLarge)?)
}
