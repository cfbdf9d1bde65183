//! The purpose and the deadline of a call to a store.

use core::time::Duration;
use std::time::Instant;

/// The deadline of one call to a [`KeyStore`](super::KeyStore), and whether the refresher makes the call.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use dekseal::store::Call;
///
/// let call = Call::within(Duration::from_secs(5));
/// assert!(call.remaining() <= Duration::from_secs(5) && call.deadline() > Instant::now());
/// assert!(!call.is_refresh() && call.for_refresh().is_refresh());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Call {
    deadline: Instant,
    refresh: bool,
}

impl Call {
    /// The longest timeout: long enough to mean forever, and short enough for every clock.
    pub(in crate::keyring) const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

    /// Makes a call that ends in `timeout` from now, and in a day at the latest.
    #[must_use]
    pub fn within(timeout: Duration) -> Self {
        let now = Instant::now();
        Self {
            deadline: now.checked_add(timeout.min(Self::FOREVER)).unwrap_or(now),
            refresh: false,
        }
    }

    /// The same call, made to check documents in the background. The store serves it through a separate connection, so
    /// that other calls cannot delay it.
    #[must_use]
    pub fn for_refresh(self) -> Self {
        Self { refresh: true, ..self }
    }

    /// The time at which the call ends, with or without an answer.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The remaining time: zero if the deadline has passed.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether [`for_refresh`](Self::for_refresh) made this call.
    #[must_use]
    pub fn is_refresh(&self) -> bool {
        self.refresh
    }
}
