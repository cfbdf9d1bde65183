//! What a `fork` must not interrupt, and how a child notices that it is one.
//!
//! A child has a copy of the memory of its parent and only the thread that called `fork`. A lock that another thread
//! held is never released there, a thread pool has no threads, and SQLite would believe that it holds locks that the
//! operating system gave only to the parent. So:
//!
//! - Changes of keys and calls of SQLite hold [`gate`]. A fork waits for them.
//! - Before a fork, all SQLite connections are closed.
//! - In the child, a keyring is opened again at its first use: see `keyring::Handle`.

use std::{
    cell::RefCell,
    sync::{
        Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use pyo3::prelude::*;

static GENERATION: AtomicU64 = AtomicU64::new(0);
static GATE: RwLock<()> = RwLock::new(());
static CLOSED_BEFORE_FORK: Mutex<Vec<Weak<dyn CloseBeforeFork>>> = Mutex::new(Vec::new());

thread_local! {
    /// The gate, between the two calls around a fork. Both run on the thread that forks.
    static HELD: RefCell<Option<RwLockWriteGuard<'static, ()>>> = const { RefCell::new(None) };
}

pub(crate) trait CloseBeforeFork: Send + Sync {
    fn close(&self);
}

/// A number that differs in a process and in the children that it forks.
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// While this is held, no fork begins. Must not be taken twice by one thread.
pub(crate) fn gate() -> RwLockReadGuard<'static, ()> {
    GATE.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn close_before_fork(what: Weak<dyn CloseBeforeFork>) {
    let _gate = gate();
    let mut list = CLOSED_BEFORE_FORK.lock().unwrap_or_else(PoisonError::into_inner);
    list.retain(|other| other.strong_count() > 0);
    list.push(what);
}

/// Called by Python before `fork`.
#[pyfunction]
pub(crate) fn before_fork(py: Python<'_>) {
    // A thread that holds the gate does not need the GIL to release it. It is released here all the same, because
    // others may need it meanwhile.
    py.detach(|| {
        let guard = GATE.write().unwrap_or_else(PoisonError::into_inner);
        let list = CLOSED_BEFORE_FORK.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter().filter_map(Weak::upgrade).for_each(|what| what.close());
        drop(list);
        HELD.set(Some(guard));
    });
}

/// Called by Python after `fork`, in the parent.
#[pyfunction]
pub(crate) fn after_fork_in_parent() {
    drop(HELD.take());
}

/// Called by Python after `fork`, in the child.
#[pyfunction]
pub(crate) fn after_fork_in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    drop(HELD.take());
}
