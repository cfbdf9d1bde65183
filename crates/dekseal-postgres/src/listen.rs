//! A connection that listens for notifications. It connects again when the connection breaks.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dekseal::store::{Change, Watcher};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_postgres::{AsyncMessage, error::SqlState};

use crate::{error::Failure, options::Checked};

/// The time without notifications after which the connection is tested with a query, and the time allowed for the
/// answer.
const SILENCE: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(3);
/// The pause before connecting again: the listener finds a restarted server within a second.
const PAUSE: Duration = Duration::from_millis(500);

/// The watchers to call on a change.
#[derive(Default)]
pub(crate) struct Watchers(Mutex<Vec<Arc<Watcher>>>);

impl Watchers {
    pub(crate) fn add(&self, watcher: Watcher) {
        let mut watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.push(Arc::new(watcher));
    }

    /// Calls the watchers without holding the lock. A watcher that panics is not called again.
    fn tell(&self, change: Change) {
        let watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for watcher in watchers {
            let stays = catch_unwind(AssertUnwindSafe(|| watcher(change))).unwrap_or(false);
            if !stays {
                let mut watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                watchers.retain(|other| !Arc::ptr_eq(other, &watcher));
            }
        }
    }
}

/// Listens as long as the worker runs. Returns early if the server has no notifications.
pub(crate) async fn listen(checked: Arc<Checked>, watchers: Arc<Watchers>) {
    loop {
        match listen_once(&checked, &watchers).await {
            Err(failure) if is_unsupported(&failure) => return,
            _ => sleep(PAUSE).await,
        }
    }
}

/// Listens until the connection breaks.
async fn listen_once(checked: &Checked, watchers: &Arc<Watchers>) -> Result<(), Failure> {
    let Ok(connected) = timeout(ANSWER, checked.config.connect(checked.tls.clone())).await else {
        return Ok(());
    };
    let (client, mut connection) = connected.map_err(Failure::Connect)?;
    let told = watchers.clone();
    // It ends with this function.
    let mut running = JoinSet::new();
    running.spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(notification) = message {
                // Every client can notify. A payload that is not a key ID stands for an unknown change.
                let change = notification.payload().parse().map_or(Change::Unknown, Change::Key);
                told.tell(change);
            }
        }
    });
    let listening = timeout(ANSWER, client.batch_execute(&checked.sql.listen));
    match listening.await {
        Ok(listening) => listening.map_err(Failure::Connect)?,
        Err(_late) => return Ok(()),
    }
    // Changes before this moment may have been missed.
    watchers.tell(Change::Unknown);
    while timeout(SILENCE, running.join_next()).await.is_err() {
        match timeout(ANSWER, client.check_connection()).await {
            Ok(Ok(())) => {}
            _ => break,
        }
    }
    Ok(())
}

fn is_unsupported(failure: &Failure) -> bool {
    let state = failure.state();
    state.is_some_and(|state| [SqlState::FEATURE_NOT_SUPPORTED, SqlState::SYNTAX_ERROR].contains(state))
}
