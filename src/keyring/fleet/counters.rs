//! The counters of a fleet's keyring.

use core::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};
use std::thread_local;

/// Counters of a [`StoreKeyring`](crate::StoreKeyring) since it was made. A host can export them as metrics.
///
/// # Examples
///
/// ```
/// # use dekseal::{CmkVersion, StoreKeyring, store::MemoryStore};
/// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
/// # let keyring = StoreKeyring::new(MemoryStore::new(), root);
/// let counters = keyring.counters();
/// println!("{} hits, {} misses, {} keys held", counters.hits, counters.misses, counters.held);
/// # assert_eq!((counters.hits, counters.held, counters.oldest), (0, 0, None));
/// # Ok::<(), dekseal::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreCounters {
    /// Calls that were served from memory.
    pub hits: u64,
    /// Calls that had to ask the store.
    pub misses: u64,
    /// Queries sent for misses. One query can serve many calls.
    pub fetches: u64,
    /// Queries sent by the refresher.
    pub refreshes: u64,
    /// Queries that failed.
    pub failures: u64,
    /// Keys that were evicted to make room.
    pub evictions: u64,
    /// Changes that started over because another writer came first.
    pub conflicts: u64,
    /// Documents that were refused because they cannot follow the documents seen before.
    pub rollbacks: u64,
    /// The number of keys in memory.
    pub held: usize,
    /// The longest time since the store last confirmed a key that is in memory. Raise an alarm if it is far above
    /// `max_age`.
    pub oldest: Option<Duration>,
}

/// Hits have several counters, so that threads on different cores rarely share a cache line.
#[derive(Default)]
pub(super) struct Counters {
    hits: [Padded; STRIPES],
    pub(super) misses: AtomicU64,
    pub(super) fetches: AtomicU64,
    pub(super) refreshes: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) rollbacks: AtomicU64,
}

const STRIPES: usize = 16;

#[derive(Default)]
#[repr(align(128))]
struct Padded(AtomicU64);

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static STRIPE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % STRIPES;
}

impl Counters {
    #[inline]
    pub(super) fn hit(&self) {
        // A thread that is ending may have no stripe any more. Any stripe counts correctly.
        let stripe = STRIPE.try_with(|stripe| *stripe).unwrap_or(0);
        if let Some(hits) = self.hits.get(stripe) {
            hits.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> StoreCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreCounters {
            hits: self.hits.iter().map(|hits| read(&hits.0)).fold(0, u64::wrapping_add),
            misses: read(&self.misses),
            fetches: read(&self.fetches),
            refreshes: read(&self.refreshes),
            failures: read(&self.failures),
            conflicts: read(&self.conflicts),
            rollbacks: read(&self.rollbacks),
            // The cache counts the rest.
            ..StoreCounters::default()
        }
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
