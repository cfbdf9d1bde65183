//! The limits of a fleet's keyring.

use core::time::Duration;

use crate::error::{Error, StoreFault};

/// How old a [`StoreKeyring`](crate::StoreKeyring)'s knowledge may be, how long its calls wait, and how much memory it
/// takes.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use dekseal::StoreSettings;
///
/// let mut settings = StoreSettings::default();
/// settings.max_age = Duration::from_secs(10);
/// settings.capacity = 1_000;
/// assert_eq!(settings.max_stale, Duration::from_secs(60 * 60));
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct StoreSettings {
    /// Changes that other processes make are seen within this time, while the store answers. The default is 60 seconds.
    pub max_age: Duration,
    /// While the store does not answer, a key stays in use for this time after the store last confirmed it. A disabled
    /// or retired key is out of use everywhere after this time at the latest. The default is an hour;
    /// [`Duration::MAX`] means forever.
    pub max_stale: Duration,
    /// How long a call waits for the store. The default is 5 seconds.
    pub deadline: Duration,
    /// How many keys are held. The least recently used ones go first. The default is 10,000 keys. Each takes about
    /// 2 KB, and 1 KB more for each older version.
    pub capacity: usize,
    /// For how many keys that are no longer held the keyring remembers the newest document, so that it notices a
    /// rollback. The default is 100,000 keys. Each takes about 200 bytes.
    pub remembered: usize,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(60),
            max_stale: Duration::from_secs(60 * 60),
            deadline: Duration::from_secs(5),
            capacity: 10_000,
            remembered: 100_000,
        }
    }
}

impl StoreSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.max_age < self.max_stale && self.capacity > 0 {
            Ok(())
        } else {
            Err(StoreFault::Settings.into())
        }
    }
}
