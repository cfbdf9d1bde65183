//! The threads of a store, and whether a call may block the thread that it is on.

use std::{
    cell::Cell,
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

use crate::error::Failure;

thread_local! {
    /// Whether this is a thread of [`Worker::runtime`] for blocking calls.
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
}

/// The thread that listens for notifications, and those that [`load`](crate::load()) starts. Dropping this stops them
/// without waiting.
pub(crate) struct Worker {
    runtime: Handle,
    _stop: oneshot::Sender<()>,
}

impl Worker {
    pub(crate) fn start() -> io::Result<Self> {
        let mut runtime = Builder::new_current_thread();
        // Called by the threads for blocking calls, not by the one below.
        runtime.on_thread_start(|| MAY_BLOCK.set(true));
        let runtime = runtime.enable_io().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("dekseal-postgres".into());
        thread.spawn(move || {
            // The error means that the sender was dropped, which stops the thread.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self {
            runtime: handle,
            _stop: stop,
        })
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }
}

/// Runs `request`, which blocks, on a thread where it can. On this one, if it can: to wake another thread and to be
/// woken takes as long as the query. On a thread of an async runtime tokio would panic, so another thread runs it.
///
/// A panic becomes a failure. tokio panics if the system has no thread for it to look up the name of a host.
pub(crate) fn run_blocking<T: Send>(request: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
    let here = match Handle::try_current() {
        Ok(_) => MAY_BLOCK.get(),
        // Otherwise the thread is ending, and tokio can no longer work on it.
        Err(error) => error.is_missing_context(),
    };
    let outcome = if here {
        // What the request itself calls is within its runtime.
        let may_block = MAY_BLOCK.take();
        let outcome = catch_unwind(AssertUnwindSafe(request));
        MAY_BLOCK.set(may_block);
        outcome
    } else {
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("dekseal-postgres".into());
            let running = thread.spawn_scoped(scope, request).map_err(Failure::System);
            running.map(|running| running.join())
        })?
    };
    outcome.unwrap_or(Err(Failure::Panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure_after_which_the_outcome_is_unknown() {
        let panics = || run_blocking(|| -> Result<(), _> { std::panic::resume_unwind(Box::new("a panic")) });
        let runtime = Builder::new_current_thread().build().unwrap();
        for failed in [panics(), runtime.block_on(async { panics() })] {
            assert!(failed.unwrap_err().of_write().is_outcome_unknown());
        }
    }

    /// A logger or a verifier that runs within a request may call a store.
    #[test]
    fn a_request_can_make_another() {
        let worker = Worker::start().unwrap();
        let runtime = || Builder::new_current_thread().build().unwrap();
        let inner = move || Ok(runtime().block_on(async { 1 }));
        let twice = move || run_blocking(move || runtime().block_on(async { run_blocking(inner) })).unwrap();
        assert_eq!(twice(), 1);
        let (sender, outcome) = std::sync::mpsc::channel();
        worker.runtime().spawn_blocking(move || sender.send(twice()));
        assert_eq!(outcome.recv(), Ok(1));
    }
}
