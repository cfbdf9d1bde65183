//! A connection that listens for notifications, and connects again when it breaks.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dekseal::store::{Change, Watcher};
use tokio::time::{sleep, timeout};
use tokio_postgres::{AsyncMessage, error::SqlState};

use crate::{error::Failure, options::Checked, session::Session};

/// How long a connection may be silent before it is asked for an answer, and how long that may take.
const SILENCE: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(3);
/// A server that has been restarted is found again within a second.
const PAUSE: Duration = Duration::from_millis(500);

/// Who wants to hear of changes.
#[derive(Default)]
pub(crate) struct Watchers(Mutex<Vec<Arc<Watcher>>>);

impl Watchers {
    pub(crate) fn add(&self, watcher: Watcher) {
        let mut watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.push(Arc::new(watcher));
    }

    /// Calls them without holding the lock. One that panics is not called again.
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

/// Listens for as long as the worker runs; ends early where the server has no notifications.
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
    let mut session = Session::new(client, async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(notification) = message {
                // Anybody who may connect may notify. A text that is no key ID stands for any change.
                let change = notification.payload().parse().map_or(Change::Unknown, Change::Key);
                told.tell(change);
            }
        }
    });
    let listening = timeout(ANSWER, session.client.batch_execute(&checked.sql.listen));
    match listening.await {
        Ok(listening) => listening.map_err(Failure::Connect)?,
        Err(_late) => return Ok(()),
    }
    // Nobody told of the changes before this moment.
    watchers.tell(Change::Unknown);
    while timeout(SILENCE, session.ended()).await.is_err() {
        match timeout(ANSWER, session.client.check_connection()).await {
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
