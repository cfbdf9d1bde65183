//! The threads of a store, and whether a call may block the thread that it is on.

use std::{cell::Cell, future::Future, io, panic, thread};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

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
pub(crate) fn run_blocking<T: Send>(request: impl FnOnce() -> T + Send) -> io::Result<T> {
    let here = match Handle::try_current() {
        Ok(_) => MAY_BLOCK.get(),
        // Otherwise the thread is ending, and tokio can no longer work on it.
        Err(error) => error.is_missing_context(),
    };
    if here {
        return Ok(request());
    }
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("dekseal-postgres".into());
        let running = thread.spawn_scoped(scope, request)?;
        Ok(running.join().unwrap_or_else(|panic| panic::resume_unwind(panic)))
    })
}
