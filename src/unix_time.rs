//! A moment, in whole seconds since 1970-01-01 00:00 UTC.

use core::{fmt, num::NonZeroU64};
#[cfg(feature = "std")]
use std::time::{Duration, SystemTime};

use crate::error::{Error, ErrorKind};

/// A moment between the years 2020 and 9999, in whole seconds since 1970-01-01 00:00 UTC, without leap seconds.
///
/// The range excludes clocks that are not set, and times in milliseconds, which would make a deletion due at once.
///
/// # Examples
///
/// ```
/// use dekseal::{ErrorKind, UnixTime};
///
/// let time = UnixTime::from_secs(1_800_000_000)?;
/// assert_eq!(time.as_secs(), 1_800_000_000);
///
/// let in_milliseconds = UnixTime::from_secs(1_800_000_000_000);
/// assert_eq!(in_milliseconds.unwrap_err().kind(), ErrorKind::ImplausibleTime);
/// # Ok::<(), dekseal::Error>(())
/// ```
///
/// With the feature `std` this type converts from and to [`SystemTime`].
#[cfg_attr(feature = "std", doc = "```")]
#[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
/// use std::time::{Duration, SystemTime};
///
/// use dekseal::UnixTime;
///
/// let in_a_week = UnixTime::try_from(SystemTime::now() + Duration::from_secs(7 * 86_400))?;
/// assert!(UnixTime::now()? < in_a_week && SystemTime::now() < SystemTime::from(in_a_week));
/// # Ok::<(), dekseal::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(
    /// Zero is never a time, so an `Option<UnixTime>` has no unused bytes. Unused bytes could keep secret bytes that
    /// the stack held before.
    NonZeroU64,
);

impl UnixTime {
    /// 2020-01-01 00:00:00 UTC.
    const EARLIEST: u64 = 1_577_836_800;
    /// 9999-12-31 23:59:59 UTC, the last second whose year has four digits.
    const LATEST: u64 = 253_402_300_799;

    /// The time this many seconds after 1970-01-01 00:00 UTC.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ImplausibleTime`] before the year 2020 and after 9999; no others.
    pub fn from_secs(secs: u64) -> Result<Self, Error> {
        let plausible = (Self::EARLIEST..=Self::LATEST).contains(&secs);
        let secs = NonZeroU64::new(secs).filter(|_| plausible);
        Ok(Self(secs.ok_or(ErrorKind::ImplausibleTime)?))
    }

    /// The current time of the system clock, rounded down to a second.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ImplausibleTime`] if the clock is not set; no others.
    #[cfg(feature = "std")]
    pub fn now() -> Result<Self, Error> {
        SystemTime::now().try_into()
    }

    /// The seconds since 1970-01-01 00:00 UTC.
    #[must_use]
    pub fn as_secs(self) -> u64 {
        self.0.get()
    }
}

#[cfg(feature = "std")]
impl TryFrom<SystemTime> for UnixTime {
    type Error = Error;

    fn try_from(time: SystemTime) -> Result<Self, Error> {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        Self::from_secs(since.map_err(|_| ErrorKind::ImplausibleTime)?.as_secs())
    }
}

#[cfg(feature = "std")]
impl From<UnixTime> for SystemTime {
    fn from(time: UnixTime) -> Self {
        let time = Self::UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
        #[expect(clippy::expect_used, reason = "every platform's SystemTime holds the year 9999")]
        time.expect("a time before the year 10000")
    }
}

impl fmt::Debug for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnixTime({})", self.as_secs())
    }
}
