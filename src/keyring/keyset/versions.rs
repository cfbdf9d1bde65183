//! The versions of a key: which of them open, and their destruction.

use alloc::vec::Vec;
use core::time::Duration;

use super::Keyset;
use crate::{
    error::{Error, ErrorKind},
    key_id::KeyId,
    keyring::{VersionInfo, key::Key},
    trace::Event,
    unix_time::UnixTime,
};

impl Keyset {
    /// The versions of a key that the keyset holds, in ascending order. Destroyed versions are not included.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`]; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{Keyset, UnixTime};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # let now = UnixTime::from_secs(1_800_000_000)?;
    /// keys.import_key_at(key_id, &[7; 32], now)?;
    /// keys.import_version_at(&key_id, &[8; 32], now)?;
    /// for version in keys.versions(&key_id)? {
    ///     println!("version {}, created {:?}", version.key_version, version.created);
    /// }
    /// # let versions: Vec<_> = keys.versions(&key_id)?.iter().map(|info| info.key_version).collect();
    /// # assert_eq!(versions, [0, 1]);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn versions(&self, key_id: &KeyId) -> Result<Vec<VersionInfo>, Error> {
        Ok(self.key(key_id)?.version_infos())
    }

    /// Sets the oldest version that may still open. Older versions are retired: they open nothing, but their material
    /// stays. Lowering the minimum version restores them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], and [`ErrorKind::MinVersion`] for a version after the current one or a destroyed
    /// version; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{ErrorKind, Keyset, UnixTime};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # let now = UnixTime::from_secs(1_800_000_000)?;
    /// # keys.import_key_at(key_id, &[7; 32], now)?;
    /// keys.import_version_at(&key_id, &[8; 32], now)?;
    /// keys.set_min_version(&key_id, 1)?; // blobs of version 0 do not open
    /// keys.set_min_version(&key_id, 0)?; // they open again
    /// assert_eq!(keys.set_min_version(&key_id, 2).unwrap_err().kind(), ErrorKind::MinVersion);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn set_min_version(&mut self, key_id: &KeyId, min_version: u32) -> Result<(), Error> {
        Event::new("set_min_version", Some(key_id), None).of(|event| {
            event.opens(min_version);
            let key = self.key_mut(key_id)?;
            let lowest = key.min_version.min(key.oldest_version());
            if !(lowest..=key.current_version()).contains(&min_version) {
                return Err(key.error(ErrorKind::MinVersion).with_key_version(min_version));
            }
            key.min_version = min_version;
            Ok(())
        })
    }

    /// Destroys the material of every version before `first_kept`. Returns the number of destroyed versions. The
    /// versions must be retired: call [`set_min_version`](Self::set_min_version) first. All DEKs that are still sealed
    /// under them are lost. This cannot be undone.
    ///
    /// A process that has not seen a rotation yet continues to seal under the old version. So a version is destroyed
    /// only if its successor was created at least `grace` ago: pass the longest time that any process uses a keyring
    /// without refreshing it, or for a `StoreKeyring` its `settings().grace()`.
    /// [`force_destroy_versions`](Self::force_destroy_versions) has no grace period.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`]; [`ErrorKind::VersionInUse`] if `first_kept` is above the minimum version, which also
    /// protects the current version; [`ErrorKind::GracePeriod`] if a successor is younger than `grace`, or its age is
    /// unknown; and [`ErrorKind::ImplausibleTime`]. No others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use dekseal::{ErrorKind, Keyset};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// keys.create_key(key_id)?;
    /// keys.rotate(&key_id)?;
    /// keys.set_min_version(&key_id, 1)?;
    ///
    /// let an_hour = Duration::from_secs(60 * 60);
    /// let error = keys.destroy_versions(&key_id, 1, an_hour).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::GracePeriod);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn destroy_versions(&mut self, key_id: &KeyId, first_kept: u32, grace: Duration) -> Result<usize, Error> {
        self.destroy("destroy_versions", key_id, first_kept, |key| {
            check_grace(key, first_kept, grace, UnixTime::now()?)
        })
    }

    /// [`destroy_versions`](Self::destroy_versions) with a time of the caller's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], [`ErrorKind::VersionInUse`] and [`ErrorKind::GracePeriod`], as for
    /// [`destroy_versions`](Self::destroy_versions); no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use dekseal::{ErrorKind, Keyset, UnixTime};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// let rotated = UnixTime::from_secs(1_800_000_000)?;
    /// # keys.import_key_at(key_id, &[7; 32], rotated)?;
    /// keys.import_version_at(&key_id, &[8; 32], rotated)?;
    /// keys.set_min_version(&key_id, 1)?;
    ///
    /// let an_hour_later = UnixTime::from_secs(1_800_003_600)?;
    /// assert_eq!(keys.destroy_versions_at(&key_id, 1, Duration::from_secs(3600), an_hour_later)?, 1);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn destroy_versions_at(
        &mut self,
        key_id: &KeyId,
        first_kept: u32,
        grace: Duration,
        now: UnixTime,
    ) -> Result<usize, Error> {
        self.destroy("destroy_versions", key_id, first_kept, |key| {
            check_grace(key, first_kept, grace, now)
        })
    }

    /// [`destroy_versions`](Self::destroy_versions) without a grace period. Use it if an attacker knows a version, or
    /// if nothing else uses the keyring.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], and [`ErrorKind::VersionInUse`] if `first_kept` is above the minimum version; no
    /// others.
    ///
    /// # Security
    ///
    /// A process that has not seen the rotation yet may still seal under a destroyed version. Such DEKs do not open
    /// anywhere.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{ErrorKind, Keyset, UnixTime};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # let now = UnixTime::from_secs(1_800_000_000)?;
    /// # keys.import_key_at(key_id, &[7; 32], now)?;
    /// # keys.import_version_at(&key_id, &[8; 32], now)?;
    /// let in_use = keys.force_destroy_versions(&key_id, 1).unwrap_err();
    /// assert_eq!(in_use.kind(), ErrorKind::VersionInUse);
    ///
    /// keys.set_min_version(&key_id, 1)?;
    /// assert_eq!(keys.force_destroy_versions(&key_id, 1)?, 1);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn force_destroy_versions(&mut self, key_id: &KeyId, first_kept: u32) -> Result<usize, Error> {
        self.destroy("force_destroy_versions", key_id, first_kept, |_| Ok(()))
    }

    fn destroy(
        &mut self,
        operation: &'static str,
        key_id: &KeyId,
        first_kept: u32,
        check: impl FnOnce(&Key) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        Event::new(operation, Some(key_id), None).of(|event| {
            event.opens(first_kept);
            let key = self.key_mut(key_id)?;
            if first_kept > key.min_version {
                return Err(key.error(ErrorKind::VersionInUse).with_key_version(key.min_version));
            }
            check(key)?;
            Ok(key.remove_before(first_kept))
        })
    }
}

/// Checks that the successor of each version before `first_kept` was created at least `grace` before `now`.
fn check_grace(key: &Key, first_kept: u32, grace: Duration, now: UnixTime) -> Result<(), Error> {
    let successors = key.versions().skip(1);
    for (version, successor) in key.versions().zip(successors) {
        let key_version = version.cmk.key_version();
        let age = successor
            .created
            .and_then(|created| now.as_secs().checked_sub(created.as_secs()));
        let old_enough = age.is_some_and(|age| Duration::from_secs(age) >= grace);
        if key_version < first_kept && !old_enough {
            return Err(key.error(ErrorKind::GracePeriod).with_key_version(key_version));
        }
    }
    Ok(())
}
