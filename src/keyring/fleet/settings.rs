//! The settings of a fleet's keyring.

use core::time::Duration;

use crate::error::{Error, StoreFault};

/// The limits of a [`StoreKeyring`](crate::StoreKeyring): the age of its documents, the duration of its calls, and its
/// memory.
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
    /// Changes of other processes are seen within this time while the store answers. The default is 60 seconds.
    pub max_age: Duration,
    /// While the store does not answer, a key stays in use for this time after the store last confirmed it. So a
    /// disabled or retired key is out of use everywhere after this time at the latest. The default is an hour;
    /// [`Duration::MAX`] means forever.
    pub max_stale: Duration,
    /// The maximum time that a call waits for the store. The default is 5 seconds.
    pub deadline: Duration,
    /// The maximum number of keys in memory. The least recently used keys are evicted first. The default is 10,000
    /// keys. Each key takes about 2 KB, and 1 KB more for each older version.
    pub capacity: usize,
    /// The maximum number of evicted keys whose newest document the keyring remembers, to detect a rollback. The
    /// default is 100,000 keys. Each takes about 200 bytes.
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
