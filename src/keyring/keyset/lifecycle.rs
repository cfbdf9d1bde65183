//! The states of a key, and its deletion.

use super::Keyset;
use crate::{
    error::{Error, ErrorKind},
    key_id::KeyId,
    keyring::KeyState,
    trace::Event,
    unix_time::UnixTime,
};

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

impl Keyset {
    /// Disables a key, so that it neither seals nor opens.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], and [`ErrorKind::KeyNotEnabled`] if the key is not enabled; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{ErrorKind, KeyState, Keyset, UnixTime};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # keys.import_key_at(key_id, &[7; 32], UnixTime::from_secs(1_800_000_000)?)?;
    /// keys.disable(&key_id)?;
    /// assert_eq!(keys.info(&key_id)?.state, KeyState::Disabled);
    /// assert_eq!(keys.disable(&key_id).unwrap_err().kind(), ErrorKind::KeyNotEnabled);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn disable(&mut self, key_id: &KeyId) -> Result<(), Error> {
        Event::new("disable", Some(key_id), None).of(|_| {
            let key = self.key_mut(key_id)?;
            match key.state() {
                KeyState::Enabled => key.set_state(KeyState::Disabled),
                _ => return Err(Error::from(ErrorKind::KeyNotEnabled).with_key_id(key_id)),
            }
            Ok(())
        })
    }

    /// Enables a disabled key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], and [`ErrorKind::KeyNotDisabled`] if the key is not disabled; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{KeyState, Keyset, UnixTime};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # keys.import_key_at(key_id, &[7; 32], UnixTime::from_secs(1_800_000_000)?)?;
    /// keys.disable(&key_id)?;
    /// keys.enable(&key_id)?;
    /// assert_eq!(keys.info(&key_id)?.state, KeyState::Enabled);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn enable(&mut self, key_id: &KeyId) -> Result<(), Error> {
        Event::new("enable", Some(key_id), None).of(|_| {
            let key = self.key_mut(key_id)?;
            match key.state() {
                KeyState::Disabled => key.set_state(KeyState::Enabled),
                _ => return Err(Error::from(ErrorKind::KeyNotDisabled).with_key_id(key_id)),
            }
            Ok(())
        })
    }

    /// Schedules the deletion of a key 7 to 1096 days ahead. Returns the time from which the key can be purged. Until
    /// then the key neither seals nor opens. The deletion can be cancelled until the key is purged.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`]; [`ErrorKind::DeletionScheduled`] if the deletion is already scheduled;
    /// [`ErrorKind::DeletionDays`] for any other number of days, and for a date after the year 9999; and
    /// [`ErrorKind::ImplausibleTime`]. No others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{KeyState, Keyset};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # keys.import_key(key_id, &[7; 32])?;
    /// let at = keys.schedule_deletion(&key_id, 7)?;
    /// assert_eq!(keys.info(&key_id)?.state, KeyState::PendingDeletion { at });
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn schedule_deletion(&mut self, key_id: &KeyId, days: u32) -> Result<UnixTime, Error> {
        self.schedule(key_id, days, UnixTime::now())
    }

    /// [`schedule_deletion`](Self::schedule_deletion) with a time of the caller's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`]; [`ErrorKind::DeletionScheduled`] if the deletion is already scheduled; and
    /// [`ErrorKind::DeletionDays`] for any other number of days, and for a date after the year 9999. No others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{Keyset, UnixTime};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// let now = UnixTime::from_secs(1_800_000_000)?;
    /// # keys.import_key_at(key_id, &[7; 32], now)?;
    /// let at = keys.schedule_deletion_at(&key_id, 7, now)?;
    /// assert_eq!(at.as_secs(), now.as_secs() + 7 * 24 * 60 * 60);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn schedule_deletion_at(&mut self, key_id: &KeyId, days: u32, now: UnixTime) -> Result<UnixTime, Error> {
        self.schedule(key_id, days, Ok(now))
    }

    fn schedule(&mut self, key_id: &KeyId, days: u32, now: Result<UnixTime, Error>) -> Result<UnixTime, Error> {
        Event::new("schedule_deletion", Some(key_id), None).of(|_| {
            let key = self.key_mut(key_id)?;
            if matches!(key.state(), KeyState::PendingDeletion { .. }) {
                return Err(Error::from(ErrorKind::DeletionScheduled).with_key_id(key_id));
            }
            if !(7..=1096).contains(&days) {
                return Err(Error::from(ErrorKind::DeletionDays).with_key_id(key_id));
            }
            let ahead = SECONDS_PER_DAY.saturating_mul(days.into());
            let at = UnixTime::from_secs(now?.as_secs().saturating_add(ahead));
            let at = at.map_err(|_| Error::from(ErrorKind::DeletionDays).with_key_id(key_id))?;
            key.set_state(KeyState::PendingDeletion { at });
            Ok(at)
        })
    }

    /// Cancels the deletion of a key. The key is disabled after this.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], and [`ErrorKind::DeletionNotScheduled`]; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{KeyState, Keyset, UnixTime};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # let now = UnixTime::from_secs(1_800_000_000)?;
    /// # keys.import_key_at(key_id, &[7; 32], now)?;
    /// # keys.schedule_deletion_at(&key_id, 7, now)?;
    /// keys.cancel_deletion(&key_id)?;
    /// assert_eq!(keys.info(&key_id)?.state, KeyState::Disabled);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn cancel_deletion(&mut self, key_id: &KeyId) -> Result<(), Error> {
        Event::new("cancel_deletion", Some(key_id), None).of(|_| {
            let key = self.key_mut(key_id)?;
            match key.state() {
                KeyState::PendingDeletion { .. } => key.set_state(KeyState::Disabled),
                _ => return Err(Error::from(ErrorKind::DeletionNotScheduled).with_key_id(key_id)),
            }
            Ok(())
        })
    }

    /// Deletes a key whose deletion is due. All DEKs that are sealed under it are lost. Its key material is wiped when
    /// the last user of it is done.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], [`ErrorKind::DeletionNotScheduled`], [`ErrorKind::DeletionNotDue`] if the time is
    /// still in the future, and [`ErrorKind::ImplausibleTime`]; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{ErrorKind, Keyset};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # keys.import_key(key_id, &[7; 32])?;
    /// keys.schedule_deletion(&key_id, 7)?;
    /// assert_eq!(keys.purge(&key_id).unwrap_err().kind(), ErrorKind::DeletionNotDue);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn purge(&mut self, key_id: &KeyId) -> Result<(), Error> {
        self.purge_due(key_id, UnixTime::now())
    }

    /// [`purge`](Self::purge) with a time of the caller's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownKey`], [`ErrorKind::DeletionNotScheduled`], and [`ErrorKind::DeletionNotDue`] if `now` is
    /// before the time of the deletion; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{ErrorKind, Keyset, UnixTime};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let mut keys = Keyset::new();
    /// # let now = UnixTime::from_secs(1_800_000_000)?;
    /// # keys.import_key_at(key_id, &[7; 32], now)?;
    /// let at = keys.schedule_deletion_at(&key_id, 7, now)?;
    /// assert_eq!(keys.purge_at(&key_id, now).unwrap_err().kind(), ErrorKind::DeletionNotDue);
    /// keys.purge_at(&key_id, at)?;
    /// assert_eq!(keys.info(&key_id).unwrap_err().kind(), ErrorKind::UnknownKey);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn purge_at(&mut self, key_id: &KeyId, now: UnixTime) -> Result<(), Error> {
        self.purge_due(key_id, Ok(now))
    }

    fn purge_due(&mut self, key_id: &KeyId, now: Result<UnixTime, Error>) -> Result<(), Error> {
        Event::new("purge", Some(key_id), None).of(|_| match self.key(key_id)?.state() {
            KeyState::PendingDeletion { at } if at <= now? => {
                self.keys.remove(key_id);
                Ok(())
            }
            KeyState::PendingDeletion { .. } => Err(Error::from(ErrorKind::DeletionNotDue).with_key_id(key_id)),
            _ => Err(Error::from(ErrorKind::DeletionNotScheduled).with_key_id(key_id)),
        })
    }
}
