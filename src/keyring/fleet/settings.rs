//! The settings of a fleet's keyring.

use core::time::Duration;

use super::super::store::Call;
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
    /// The maximum time that a call waits for the store, and in which a change is sent. The default is 5 seconds. More
    /// than a day counts as a day.
    pub deadline: Duration,
    /// The greatest difference between the system clocks of any two machines of the fleet. The default is a minute. See
    /// [`grace`](Self::grace).
    pub clock_skew: Duration,
    /// The maximum number of keys in memory. The least recently used keys are evicted first. The default is 10,000
    /// keys. Each key takes about 2 KB, and 1 KB more for each older version.
    pub capacity: usize,
    /// The maximum number of evicted keys whose newest document the keyring remembers, to detect a rollback. The
    /// default is 100,000 keys. Each takes about 250 bytes.
    pub remembered: usize,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(60),
            max_stale: Duration::from_secs(60 * 60),
            deadline: Duration::from_secs(5),
            clock_skew: Duration::from_secs(60),
            capacity: 10_000,
            remembered: 100_000,
        }
    }
}

impl StoreSettings {
    /// The time after a rotation from which no process seals under an older version any more, counted from the
    /// `created` of the new version. Two steps must wait for it:
    ///
    /// - Destroying the material of older versions: pass it to
    ///   [`Keyset::destroy_versions`](crate::Keyset::destroy_versions).
    /// - A sweep that rewraps all stored blobs: it is complete only if it began at least this long after the rotation.
    ///
    /// It is the sum of:
    ///
    /// - [`max_stale`](Self::max_stale), for which a process may seal under the older version after it last saw it in
    ///   the store.
    /// - [`deadline`](Self::deadline). `created` is set before the change is sent, and the change may reach the store
    ///   this much later.
    /// - Twice [`clock_skew`](Self::clock_skew): once for `created`, and once for a process that started from a
    ///   snapshot of another machine.
    /// - One second, because times in documents are whole seconds.
    ///
    /// Add the longest time that a service needs from sealing a DEK to storing the blob where the sweep finds it. If
    /// the processes of a fleet have different settings, take the longest `max_stale`, `deadline` and `clock_skew`.
    /// With an infinite `max_stale` this is [`Duration::MAX`]: only
    /// [`force_destroy_versions`](crate::Keyset::force_destroy_versions) destroys.
    ///
    /// After a rollback was resolved by [`write_back`](crate::StoreKeyring::write_back), count from that moment
    /// instead: until then, processes that did not know the newer versions may have sealed under older ones.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, ErrorKind, KeyId, StoreKeyring, store::MemoryStore};
    /// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
    /// # let keyring = StoreKeyring::new(MemoryStore::new(), root);
    /// # let key_id = KeyId::generate()?;
    /// # keyring.update(&key_id, |keys| keys.create_key(key_id))?;
    /// let grace = keyring.settings().grace();
    /// assert_eq!(grace.as_secs(), 60 * 60 + 5 + 2 * 60 + 1);
    ///
    /// let destroyed = keyring.update(&key_id, |keys| {
    ///     keys.rotate(&key_id)?;
    ///     keys.set_min_version(&key_id, 1)?;
    ///     keys.destroy_versions(&key_id, 1, grace)
    /// });
    /// assert_eq!(destroyed.unwrap_err().kind(), ErrorKind::GracePeriod);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[must_use]
    pub fn grace(&self) -> Duration {
        let parts = [
            self.deadline.min(Call::FOREVER),
            self.clock_skew,
            self.clock_skew,
            Duration::from_secs(1),
        ];
        parts.into_iter().fold(self.max_stale, Duration::saturating_add)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.max_age < self.max_stale && self.capacity > 0 {
            Ok(())
        } else {
            Err(StoreFault::Settings.into())
        }
    }
}
