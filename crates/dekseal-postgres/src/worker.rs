//! The thread that runs the connections, and the calls that wait for it.
//!
//! The store has its own runtime. A call does not block a task of it, and can come from a thread of any other runtime:
//! for that runtime the call is an ordinary function that blocks.

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
        mpsc,
    },
    thread,
};

use dekseal::store::{Call, StoreError, StoreErrorKind};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

use crate::error::Failure;

/// The worker thread. Dropping this stops the thread without waiting for it.
pub(crate) struct Worker {
    runtime: Handle,
    _stop: oneshot::Sender<()>,
}

/// Records which comes first: the request is sent, or its caller gives up. Both may happen at the same time.
#[derive(Clone, Default)]
pub(crate) struct Sending(Arc<AtomicU8>);

const WAITING: u8 = 0;
const SENT: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Sending {
    /// Must be called before the request is sent.
    pub(crate) fn begin(&self) -> Result<(), Failure> {
        match self
            .0
            .compare_exchange(WAITING, SENT, Ordering::AcqRel, Ordering::Acquire)
        {
            Err(GIVEN_UP) => Err(Failure::Late),
            // A read may be sent twice.
            _ => Ok(()),
        }
    }

    /// Gives up. Returns whether the request may have been sent.
    fn give_up(&self) -> bool {
        let before = self
            .0
            .compare_exchange(WAITING, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire);
        before == Err(SENT)
    }
}

impl Worker {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
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

    /// Runs `request` on the worker's thread, and waits for it until the deadline. After the deadline it drops the
    /// request with its connection. The error says whether `sending` had begun.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        call: &Call,
        sending: &Sending,
        request: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<Result<T, Failure>, StoreError> {
        let remaining = call.remaining();
        if remaining.is_zero() {
            return Err(StoreErrorKind::Deadline.into());
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let task = self.runtime.spawn(async move {
            // Sending fails if the caller gave up.
            let _ = sender.send(request.await);
        });
        receiver.recv_timeout(remaining).or_else(|_| {
            let sent = sending.give_up();
            task.abort();
            // The answer may have arrived in the meantime.
            match receiver.try_recv() {
                Ok(outcome) => Ok(outcome),
                Err(_) if sent => Err(StoreError::from(StoreErrorKind::Deadline).with_outcome_unknown()),
                Err(_) => Err(StoreErrorKind::Deadline.into()),
            }
        })
    }
}
