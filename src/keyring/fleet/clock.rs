//! Time since boot, which continues while the machine is suspended.

use core::time::Duration;
#[cfg(test)]
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(target_os = "linux"))]
use std::{sync::OnceLock, time::Instant};

/// A point in time in milliseconds. It compares only with points of the same process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

#[derive(Debug, Default)]
pub(super) struct Clock {
    /// The time that a test adds.
    #[cfg(test)]
    ahead: AtomicU64,
}

impl Clock {
    /// The clock starts at this value, so that a point before boot is still positive.
    const START: u64 = 1 << 42;

    #[inline]
    pub(super) fn now(&self) -> Moment {
        let now = Self::START.saturating_add(since_boot());
        #[cfg(test)]
        let now = now.saturating_add(self.ahead.load(Ordering::Relaxed));
        Moment(now)
    }

    #[cfg(test)]
    pub(super) fn advance(&self, by: Duration) {
        self.ahead.fetch_add(millis(by), Ordering::Relaxed);
    }
}

#[cfg(target_os = "linux")]
#[inline]
fn since_boot() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // Neither number is ever negative.
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or_default();
    seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000)
}

/// On these systems the clock of `Instant` may stop during suspend.
#[cfg(not(target_os = "linux"))]
fn since_boot() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    millis(FIRST.get_or_init(Instant::now).elapsed())
}

/// Converts to milliseconds, rounded down. A duration that is too long becomes the longest one.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Moment {
    pub(super) const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub(super) fn as_millis(self) -> u64 {
        self.0
    }

    /// The milliseconds from `earlier` to this point, or 0.
    #[inline]
    pub(super) fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    pub(super) fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}
