//! What stands beside `misses` in the crate.

pub(crate) mod cache {
    /// The newest change that a query has seen.
    #[derive(Clone, Debug)]
    pub(crate) enum Taken {
        Held(u64),
        Dropped,
    }
}

pub(crate) mod sync {
    pub(crate) use std::sync::PoisonError;

    pub(crate) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};
}

#[path = "../../../src/keyring/fleet/misses.rs"]
pub(crate) mod misses;

#[cfg(test)]
mod tests;
