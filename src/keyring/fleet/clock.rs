//! Time since boot, which continues while the machine is suspended.

use core::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
#[cfg(not(target_os = "linux"))]
use std::{sync::OnceLock, time::Instant};

/// A point in time in milliseconds. It compares only with points of the same process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

#[derive(Debug, Default)]
pub(super) struct Clock {
    /// The last value of `tick`, and the time at that tick or after it.
    tick: AtomicU64,
    at_tick: AtomicU64,
    /// The time that a test adds.
    #[cfg(test)]
    ahead: AtomicU64,
}

impl Clock {
    /// The clock starts at this value, so that a point before boot is still positive.
    const START: u64 = 1 << 42;

    #[inline]
    pub(super) fn now(&self) -> Moment {
        self.moment(since_boot())
    }

    /// The time at the last tick of the kernel's clock, which is a few milliseconds ago. It takes a third of the time
    /// of `now`, which would be most of the cost of a hit.
    #[inline]
    pub(super) fn coarse(&self) -> Moment {
        let tick = tick();
        // The tick first: a time that was read before it could be that of an old tick.
        if self.tick.load(Ordering::Acquire) == tick {
            return self.moment(self.at_tick.load(Ordering::Relaxed));
        }
        let now = since_boot();
        // A thread that was interrupted here does not set the time back.
        self.at_tick.fetch_max(now, Ordering::Relaxed);
        self.tick.store(tick, Ordering::Release);
        self.moment(now)
    }

    #[inline]
    fn moment(&self, since_boot: u64) -> Moment {
        let now = Self::START.saturating_add(since_boot);
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
    millis_of(rustix::time::ClockId::Boottime)
}

/// Changes with each tick. It stops during suspend, so only its changes count.
#[cfg(target_os = "linux")]
#[inline]
fn tick() -> u64 {
    // Never 0, which is the initial value.
    millis_of(rustix::time::ClockId::MonotonicCoarse).saturating_add(1)
}

#[cfg(target_os = "linux")]
#[inline]
fn millis_of(clock: rustix::time::ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    // Neither number is negative. The type of the second one differs between targets.
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    time.tv_sec
        .unsigned_abs()
        .saturating_mul(1000)
        .saturating_add(nanoseconds / 1_000_000)
}

/// On these systems the clock of `Instant` may stop during suspend.
#[cfg(not(target_os = "linux"))]
fn since_boot() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    millis(FIRST.get_or_init(Instant::now).elapsed())
}

#[cfg(not(target_os = "linux"))]
#[inline]
fn tick() -> u64 {
    since_boot().saturating_add(1)
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
