//! A key: its versions and its state.

#[cfg(feature = "file-keyring")]
use alloc::boxed::Box;
use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};

#[cfg(feature = "file-keyring")]
use super::material::SealedMaterial;
use crate::{
    cmk::CmkVersion,
    error::{Error, ErrorKind},
    key_id::KeyId,
    unix_time::UnixTime,
};

/// A key. Clones share the versions.
#[derive(Clone)]
pub(super) struct Key {
    /// The state in two fields; see `state`. Keys are in a map on the heap. The bytes that `KeyState::Enabled` does not
    /// use could keep derived keys that the stack held before.
    disabled: bool,
    deletion: Option<UnixTime>,
    pub(super) min_version: u32,
    /// The newest version, which seals.
    pub(super) current: Arc<Version>,
    /// The older versions, if there are any.
    older: Option<Arc<BTreeMap<u32, Arc<Version>>>>,
}

/// One version of one key.
pub(super) struct Version {
    pub(super) cmk: CmkVersion,
    /// `None` for a CMK that the host supplied without a time.
    pub(super) created: Option<UnixTime>,
    /// The material as a keyring document holds it. It is boxed, because the unused bytes of an empty `Option` could
    /// keep derived keys that the stack held before.
    #[cfg(feature = "file-keyring")]
    pub(super) sealed: Option<Box<SealedMaterial>>,
}

/// Whether a key may be used.
///
/// # Examples
///
/// ```
/// # use dekseal::{KeyState, Keyset, MemoryKeyring, CmkVersion};
/// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// # let keys = MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?.keys();
/// match keys.info(&key_id)?.state {
///     KeyState::Enabled => println!("in use"),
///     KeyState::Disabled => println!("disabled"),
///     KeyState::PendingDeletion { at } => println!("can be deleted from {at:?} on"),
///     _ => println!("a state that a later version of this crate added"),
/// }
/// # Ok::<(), dekseal::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyState {
    /// The key seals and opens.
    Enabled,
    /// The key neither seals nor opens until it is enabled again.
    Disabled,
    /// The key neither seals nor opens, and can be deleted from the time `at` on.
    PendingDeletion {
        /// The time from which the key can be deleted.
        at: UnixTime,
    },
}

/// The description of a key in a keyring.
///
/// # Examples
///
/// ```
/// # use dekseal::{CmkVersion, MemoryKeyring};
/// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// # let (old, new) = (CmkVersion::new(key_id, 0, &[7; 32])?, CmkVersion::new(key_id, 1, &[8; 32])?);
/// # let keys = MemoryKeyring::from_versions([old, new])?.keys();
/// for info in keys.list() {
///     println!("{}: {:?}, seals under version {}", info.key_id, info.state, info.current_version);
/// }
/// # let info = keys.info(&key_id)?;
/// # assert_eq!((info.current_version, info.min_version, info.current_created), (1, 0, None));
/// # Ok::<(), dekseal::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct KeyInfo {
    /// The ID of the key.
    pub key_id: KeyId,
    /// Whether the key may be used.
    pub state: KeyState,
    /// The newest version, which seals.
    pub current_version: u32,
    /// The time at which the current version was created: the last rotation. `None` if it came from
    /// [`MemoryKeyring::from_versions`](crate::MemoryKeyring::from_versions).
    pub current_created: Option<UnixTime>,
    /// The oldest version that may still open.
    pub min_version: u32,
}

/// The description of one version of a key: see [`Keyset::versions`](crate::Keyset::versions).
///
/// # Examples
///
/// The age of a key:
///
#[cfg_attr(feature = "std", doc = "```")]
#[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
/// # use dekseal::{Keyset, UnixTime, VersionInfo};
/// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// # let mut keys = Keyset::new();
/// # keys.create_key(key_id)?;
/// if let [VersionInfo { key_version: 0, created: Some(created), .. }, ..] = keys.versions(&key_id)?[..] {
///     println!("created {} seconds ago", UnixTime::now()?.as_secs() - created.as_secs());
/// }
/// # Ok::<(), dekseal::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct VersionInfo {
    /// The number of the version.
    pub key_version: u32,
    /// The time at which the version was created. `None` if it came from
    /// [`MemoryKeyring::from_versions`](crate::MemoryKeyring::from_versions).
    pub created: Option<UnixTime>,
}

impl Key {
    /// Makes an enabled key with one version.
    pub(super) fn new(version: Arc<Version>) -> Self {
        Self {
            disabled: false,
            deletion: None,
            min_version: 0,
            current: version,
            older: None,
        }
    }

    #[cfg(feature = "file-keyring")]
    pub(super) fn from_parts(
        state: KeyState,
        min_version: u32,
        current: Arc<Version>,
        older: BTreeMap<u32, Arc<Version>>,
    ) -> Self {
        let mut key = Self::new(current);
        key.set_state(state);
        key.min_version = min_version;
        key.older = (!older.is_empty()).then(|| Arc::new(older));
        key
    }

    /// The versions in ascending order.
    pub(super) fn versions(&self) -> impl Iterator<Item = &Arc<Version>> {
        self.older
            .iter()
            .flat_map(|older| older.values())
            .chain([&self.current])
    }

    pub(super) fn state(&self) -> KeyState {
        match self.deletion {
            Some(at) => KeyState::PendingDeletion { at },
            None if self.disabled => KeyState::Disabled,
            None => KeyState::Enabled,
        }
    }

    pub(super) fn set_state(&mut self, state: KeyState) {
        self.disabled = state == KeyState::Disabled;
        self.deletion = match state {
            KeyState::PendingDeletion { at } => Some(at),
            KeyState::Enabled | KeyState::Disabled => None,
        };
    }

    /// Returns an error unless the key is enabled.
    pub(super) fn check_enabled(&self) -> Result<(), Error> {
        match self.state() {
            KeyState::Enabled => Ok(()),
            KeyState::Disabled => Err(ErrorKind::KeyDisabled),
            KeyState::PendingDeletion { .. } => Err(ErrorKind::KeyPendingDeletion),
        }
        .map_err(|kind| Error::from(kind).with_key_id(&self.current.cmk.key_id()))
    }

    pub(super) fn get(&self, key_version: u32) -> Option<&Arc<Version>> {
        if key_version == self.current_version() {
            return Some(&self.current);
        }
        self.older.as_ref()?.get(&key_version)
    }

    /// Returns the version for opening what was sealed under it, if the key has it and it is not retired.
    pub(super) fn opening(&self, key_version: u32) -> Result<&Arc<Version>, Error> {
        let version = self.get(key_version);
        let kind = match version {
            Some(version) if key_version >= self.min_version => return Ok(version),
            Some(_) => ErrorKind::KeyVersionRetired,
            None if key_version < self.current_version() => ErrorKind::KeyVersionDestroyed,
            None => ErrorKind::UnknownKeyVersion,
        };
        Err(self.error(kind).with_key_version(key_version))
    }

    /// Makes an error that names this key.
    pub(super) fn error(&self, kind: ErrorKind) -> Error {
        let error = Error::from(kind).with_key_id(&self.current.cmk.key_id());
        error.with_newest_key_version(self.current_version())
    }

    pub(super) fn current_version(&self) -> u32 {
        self.current.cmk.key_version()
    }

    /// The number of the oldest version that the key has.
    pub(super) fn oldest_version(&self) -> u32 {
        let oldest = self.older.as_ref().and_then(|older| older.keys().next());
        oldest.copied().unwrap_or_else(|| self.current_version())
    }

    /// Adds a version that the key does not have. The newest one is the current version.
    pub(super) fn add(&mut self, mut version: Arc<Version>) {
        if version.cmk.key_version() > self.current_version() {
            core::mem::swap(&mut self.current, &mut version);
        }
        let older = Arc::make_mut(self.older.get_or_insert_default());
        older.insert(version.cmk.key_version(), version);
    }

    /// Removes the versions before `first`, but never the current one. Returns the number of removed versions.
    pub(super) fn remove_before(&mut self, first: u32) -> usize {
        let Some(older) = &mut self.older else { return 0 };
        let kept = Arc::make_mut(older).split_off(&first);
        let removed = older.len();
        self.older = (!kept.is_empty()).then(|| Arc::new(kept));
        removed
    }

    pub(super) fn version_infos(&self) -> Vec<VersionInfo> {
        let versions = self.versions().map(|version| VersionInfo {
            key_version: version.cmk.key_version(),
            created: version.created,
        });
        versions.collect()
    }

    pub(super) fn info(&self, key_id: KeyId) -> KeyInfo {
        KeyInfo {
            key_id,
            state: self.state(),
            current_version: self.current_version(),
            current_created: self.current.created,
            min_version: self.min_version,
        }
    }
}
