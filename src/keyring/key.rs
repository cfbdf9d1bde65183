//! One key: its versions and its state.

#[cfg(feature = "file-keyring")]
use alloc::boxed::Box;
use alloc::{collections::BTreeMap, sync::Arc};

#[cfg(feature = "file-keyring")]
use super::file::Stored;
use crate::{
    cmk::CmkVersion,
    error::{Error, ErrorKind},
    key_id::KeyId,
};

/// One key. Clones share the versions.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) state: KeyState,
    pub(super) min_version: u32,
    /// The highest version, which seals.
    pub(super) current: Arc<Version>,
    /// The others, where there are any.
    older: Option<Arc<BTreeMap<u32, Arc<Version>>>>,
}

/// One version of one key.
pub(super) struct Version {
    pub(super) cmk: CmkVersion,
    /// Its material as a file holds it. In a box, since the bytes that an empty place would not use could be what the stack
    /// held before: derived keys.
    #[cfg(feature = "file-keyring")]
    pub(super) stored: Option<Box<Stored>>,
}

/// Whether a key may be used.
///
/// # Examples
///
/// ```
/// # use dekseal::{KeyState, Keyset};
/// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// # let mut keys = Keyset::new();
/// # keys.import_key(key_id, &[7; 32])?;
/// match keys.info(&key_id)?.state {
///     KeyState::Enabled => println!("in use"),
///     KeyState::Disabled => println!("disabled"),
///     KeyState::PendingDeletion { at } => println!("may be deleted in {} seconds", at.saturating_sub(1_800_000_000)),
///     _ => println!("a state of a later version of this crate"),
/// }
/// # Ok::<(), dekseal::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyState {
    /// It seals and opens.
    Enabled,
    /// It does neither, until it is enabled again.
    Disabled,
    /// It does neither, and may be deleted from the time `at` on, in seconds since 1970-01-01 00:00 UTC.
    PendingDeletion {
        /// When.
        at: u64,
    },
}

/// What a keyring says of a key.
///
/// # Examples
///
/// ```
/// # use dekseal::Keyset;
/// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// # let mut keys = Keyset::new();
/// # keys.import_key(key_id, &[7; 32])?;
/// keys.import_version(&key_id, &[8; 32])?;
/// for info in keys.list() {
///     println!("{}: {:?}, seals under version {}", info.key_id, info.state, info.current_version);
/// }
/// # let info = keys.info(&key_id)?;
/// # assert_eq!((info.current_version, info.min_version), (1, 0));
/// # Ok::<(), dekseal::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct KeyInfo {
    /// Its ID.
    pub key_id: KeyId,
    /// Whether it may be used.
    pub state: KeyState,
    /// The version that seals: the highest.
    pub current_version: u32,
    /// The lowest version that still opens.
    pub min_version: u32,
}

impl Key {
    pub(super) fn new(version: Arc<Version>) -> Self {
        Self {
            state: KeyState::Enabled,
            min_version: 0,
            current: version,
            older: None,
        }
    }

    #[cfg(feature = "file-keyring")]
    pub(super) fn of(
        state: KeyState,
        min_version: u32,
        current: Arc<Version>,
        older: BTreeMap<u32, Arc<Version>>,
    ) -> Self {
        Self {
            state,
            min_version,
            current,
            older: (!older.is_empty()).then(|| Arc::new(older)),
        }
    }

    /// In ascending order.
    #[cfg(feature = "file-keyring")]
    pub(super) fn versions(&self) -> impl Iterator<Item = &Arc<Version>> {
        self.older
            .iter()
            .flat_map(|older| older.values())
            .chain([&self.current])
    }

    pub(super) fn usable(&self) -> Result<(), Error> {
        match self.state {
            KeyState::Enabled => Ok(()),
            KeyState::Disabled => Err(ErrorKind::KeyDisabled.into()),
            KeyState::PendingDeletion { .. } => Err(ErrorKind::KeyPendingDeletion.into()),
        }
    }

    pub(super) fn get(&self, key_version: u32) -> Option<&Arc<Version>> {
        if key_version == self.current.cmk.key_version() {
            return Some(&self.current);
        }
        self.older.as_ref()?.get(&key_version)
    }

    /// Adds a version that is not there yet. The highest is the current one.
    pub(super) fn add(&mut self, mut version: Arc<Version>) {
        if version.cmk.key_version() > self.current.cmk.key_version() {
            core::mem::swap(&mut self.current, &mut version);
        }
        let older = Arc::make_mut(self.older.get_or_insert_default());
        older.insert(version.cmk.key_version(), version);
    }

    pub(super) fn info(&self, key_id: KeyId) -> KeyInfo {
        KeyInfo {
            key_id,
            state: self.state,
            current_version: self.current.cmk.key_version(),
            min_version: self.min_version,
        }
    }
}
