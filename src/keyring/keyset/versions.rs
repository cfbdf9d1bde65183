//! Which versions of a key open, and their destruction.

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
    /// The versions of a key that the keyset holds, in ascending order. Destroyed ones are not among them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`]; no other.
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

    /// Sets the oldest version that still opens. Versions before it are retired: nothing opens with them, but their material stays,
    /// and lowering the minimum brings them back.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], and [`ErrorKind::MinVersion`] for a version after the current one, and for a destroyed one; no
    /// others.
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

    /// Destroys the material of every version before `first_kept`, which must be retired: [`set_min_version`](Self::set_min_version)
    /// first. Returns how many versions were destroyed. Whatever is still sealed under them is lost; this cannot be undone.
    ///
    /// A process that has not heard of a rotation yet goes on sealing under the old version. So a version is destroyed only if its
    /// successor was created at least `grace` ago: give the longest time that any process uses a keyring without refreshing it.
    /// [`force_destroy_versions`](Self::force_destroy_versions) does not ask for one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`]; [`ErrorKind::VersionInUse`] if `first_kept` is above the minimum version, so that the current version is
    /// never destroyed; [`ErrorKind::GracePeriod`] if a successor is younger than `grace`, or nobody knows how old it is; and
    /// [`ErrorKind::ImplausibleTime`]. No others.
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

    /// `destroy_versions` with the caller's time.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], [`ErrorKind::VersionInUse`] and [`ErrorKind::GracePeriod`], as for `destroy_versions`; no others.
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

    /// `destroy_versions` without a grace period: for a version that became known to an attacker, or where nothing else uses the
    /// keyring.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], and [`ErrorKind::VersionInUse`] if `first_kept` is above the minimum version; no others.
    ///
    /// # Security
    ///
    /// A process that has not heard of the rotation yet can seal under a destroyed version. What it sealed opens nowhere.
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

/// Whether the successor of each version before `first_kept` was created at least `grace` before `now`.
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
