//! A store in memory whose failures a test can script.

use alloc::{boxed::Box, collections::BTreeMap, sync::Arc, vec::Vec};
use core::{
    fmt, mem,
    ops::Bound::{Excluded, Unbounded},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Call, Change, KeyStore, Revision, StoreError, StoreErrorKind, StoredDocument, Watcher};
use crate::key_id::KeyId;

/// A [`KeyStore`] in memory, for tests. It does not persist anything.
///
/// A script decides the outcome of each request: see [`Action`]. It runs on the calling thread before the request is
/// executed. It may count requests, wait for a signal of the test, or sleep. If the deadline of the call passes
/// meanwhile, the call fails.
///
/// # Examples
///
/// The answer to the first `put` is lost; a later read shows that the document was stored:
///
/// ```
/// use std::{sync::atomic::{AtomicU32, Ordering}, time::Duration};
///
/// use dekseal::{KeyId, store::{Action, Call, KeyStore, MemoryStore, Request, Revision, StoredDocument}};
///
/// let store = MemoryStore::new();
/// let puts = AtomicU32::new(0);
/// store.set_script(move |request, _call| match request {
///     Request::Put { .. } if puts.fetch_add(1, Ordering::Relaxed) == 0 => Action::LoseAnswer,
///     _ => Action::Serve,
/// });
///
/// let call = Call::within(Duration::from_secs(5));
/// let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// let document = StoredDocument { revision: Revision::new(&[1; 32]).unwrap(), document: b"first".to_vec() };
/// let error = store.put(&key_id, None, &document, &call).unwrap_err();
/// assert!(error.is_outcome_unknown());
/// assert_eq!(store.get(&key_id, &call)?, Some(document.clone()));
///
/// // A database that is put back to an older state.
/// let backup = store.copy();
/// store.overwrite(&key_id, None);
/// assert_eq!(store.get(&key_id, &call)?, None);
/// store.restore(&backup);
/// assert_eq!(store.get(&key_id, &call)?, Some(document));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct MemoryStore {
    documents: Mutex<Documents>,
    /// The requests that [`Action::HoldRequest`] holds back, in order.
    held: Mutex<Vec<Write>>,
    script: Mutex<Option<Arc<Script>>>,
    notifies: bool,
    watchers: Mutex<Vec<Arc<Watcher>>>,
}

type Documents = BTreeMap<KeyId, StoredDocument>;
type Script = dyn Fn(&Request<'_>, &Call) -> Action + Send + Sync;

/// A request to a [`MemoryStore`], as the script sees it.
///
/// # Examples
///
/// A script that serves reads and fails writes:
///
/// ```
/// use dekseal::store::{Action, MemoryStore, Request};
///
/// MemoryStore::new().set_script(|request, _call| match request {
///     Request::Put { .. } | Request::Remove { .. } => Action::Fail,
///     _ => Action::Serve,
/// });
/// ```
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the arguments of the methods of the same names")]
pub enum Request<'a> {
    Get {
        key_id: &'a KeyId,
    },
    Put {
        key_id: &'a KeyId,
        expected: Option<&'a Revision>,
        new: &'a StoredDocument,
    },
    Remove {
        key_id: &'a KeyId,
        expected: &'a Revision,
    },
    Changed {
        known: &'a [(KeyId, Option<Revision>)],
    },
    List {
        after: Option<&'a KeyId>,
        limit: usize,
    },
}

/// The outcome that a [`MemoryStore`] gives a request.
///
/// # Examples
///
/// A `put` that arrives after the caller has given up:
///
/// ```
/// use std::time::Duration;
///
/// use dekseal::{KeyId, store::{Action, Call, KeyStore, MemoryStore, Revision, StoredDocument}};
///
/// let store = MemoryStore::new();
/// let call = Call::within(Duration::from_secs(5));
/// let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// let document = StoredDocument { revision: Revision::new(&[1; 32]).unwrap(), document: b"first".to_vec() };
///
/// store.set_script(|_request, _call| Action::HoldRequest);
/// assert!(store.put(&key_id, None, &document, &call).unwrap_err().is_outcome_unknown());
/// store.set_script(|_request, _call| Action::Serve);
/// assert_eq!(store.get(&key_id, &call)?, None);
/// store.deliver_held();
/// assert_eq!(store.get(&key_id, &call)?, Some(document));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
pub enum Action {
    /// Executes the request and answers.
    Serve,
    /// Executes the request, calls the function, then answers: a slow answer that shows the state from before the
    /// function ran.
    ServeThen(Box<dyn FnOnce() + Send>),
    /// Answers a read with the document of another store. The script of the other store is not called. Writes are
    /// executed as usual.
    Replay(Arc<MemoryStore>),
    /// Answers [`Unavailable`](StoreErrorKind::Unavailable) and does nothing.
    Fail,
    /// Does nothing. The caller of a write does not learn the outcome.
    LoseRequest,
    /// Executes the request. The caller of a write does not learn the outcome.
    LoseAnswer,
    /// Executes a write at the next [`deliver_held`](MemoryStore::deliver_held). The caller does not learn the outcome.
    HoldRequest,
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serve => "Serve",
            Self::ServeThen(_) => "ServeThen",
            Self::Replay(_) => "Replay",
            Self::Fail => "Fail",
            Self::LoseRequest => "LoseRequest",
            Self::LoseAnswer => "LoseAnswer",
            Self::HoldRequest => "HoldRequest",
        })
    }
}

/// A `put`, or a `remove` if `new` is `None`.
struct Write {
    key_id: KeyId,
    expected: Option<Revision>,
    new: Option<StoredDocument>,
}

impl MemoryStore {
    /// Makes an empty store that serves every request and sends no notifications.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same store, with notifications: it calls watchers after each change.
    ///
    /// # Examples
    ///
    /// ```
    /// use dekseal::store::{KeyStore, MemoryStore};
    ///
    /// assert!(MemoryStore::new().with_notifications().watch(Box::new(|_change| true)));
    /// ```
    #[must_use]
    pub fn with_notifications(self) -> Self {
        Self { notifies: true, ..self }
    }

    /// Sets the script that decides the outcome of each later request.
    pub fn set_script(&self, script: impl Fn(&Request<'_>, &Call) -> Action + Send + Sync + 'static) {
        *lock(&self.script) = Some(Arc::new(script));
    }

    /// Executes the requests that [`Action::HoldRequest`] held back, in order. A request whose expected revision no
    /// longer matches does nothing.
    pub fn deliver_held(&self) {
        let held = mem::take(&mut *lock(&self.held));
        for write in held {
            // No caller waits for the result.
            let _ = self.write(write);
        }
    }

    /// Makes another store with the same documents and no script, such as a backup, or the other branch after a
    /// failover.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            documents: Mutex::new(lock(&self.documents).clone()),
            notifies: self.notifies,
            ..Self::default()
        }
    }

    /// Replaces the documents by those of `backup`.
    pub fn restore(&self, backup: &Self) {
        let documents = lock(&backup.documents).clone();
        *lock(&self.documents) = documents;
        self.notify(Change::Unknown);
    }

    /// Stores or removes a document whatever the present revision is, as an administrator or an attacker can do.
    pub fn overwrite(&self, key_id: &KeyId, document: Option<StoredDocument>) {
        match document {
            Some(document) => lock(&self.documents).insert(*key_id, document),
            None => lock(&self.documents).remove(key_id),
        };
        self.notify(Change::Key(*key_id));
    }

    /// Calls the script, without holding a lock.
    fn action(&self, request: &Request<'_>, call: &Call) -> Result<Action, StoreError> {
        let script = lock(&self.script).clone();
        let action = script.map_or(Action::Serve, |script| script(request, call));
        in_time(call)?;
        Ok(action)
    }

    fn read<T>(
        &self,
        request: &Request<'_>,
        call: &Call,
        answer: impl FnOnce(&Documents) -> T,
    ) -> Result<T, StoreError> {
        match self.action(request, call)? {
            Action::Serve => Ok(answer(&lock(&self.documents))),
            Action::ServeThen(then) => {
                let answer = answer(&lock(&self.documents));
                then();
                in_time(call)?;
                Ok(answer)
            }
            Action::Replay(other) => Ok(answer(&lock(&other.documents))),
            Action::Fail | Action::LoseRequest | Action::LoseAnswer | Action::HoldRequest => {
                Err(StoreErrorKind::Unavailable.into())
            }
        }
    }

    fn change(&self, request: &Request<'_>, call: &Call, write: Write) -> Result<(), StoreError> {
        let unknown = || Err(StoreError::from(StoreErrorKind::Unavailable).with_outcome_unknown());
        match self.action(request, call)? {
            Action::Serve | Action::Replay(_) => self.write(write),
            Action::ServeThen(then) => {
                let outcome = self.write(write);
                then();
                in_time(call).map_err(StoreError::with_outcome_unknown)?;
                outcome
            }
            Action::Fail => Err(StoreErrorKind::Unavailable.into()),
            Action::LoseRequest => unknown(),
            Action::LoseAnswer => {
                let _ = self.write(write);
                unknown()
            }
            Action::HoldRequest => {
                lock(&self.held).push(write);
                unknown()
            }
        }
    }

    fn write(&self, write: Write) -> Result<(), StoreError> {
        let mut documents = lock(&self.documents);
        if documents.get(&write.key_id).map(|present| present.revision) != write.expected {
            return Err(StoreErrorKind::Conflict.into());
        }
        match write.new {
            Some(new) => documents.insert(write.key_id, new),
            None => documents.remove(&write.key_id),
        };
        drop(documents);
        self.notify(Change::Key(write.key_id));
        Ok(())
    }

    /// Calls the watchers, without holding a lock.
    fn notify(&self, change: Change) {
        let watchers = lock(&self.watchers).clone();
        for watcher in watchers {
            if !watcher(change) {
                lock(&self.watchers).retain(|other| !Arc::ptr_eq(other, &watcher));
            }
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryStore").field(&lock(&self.documents)).finish()
    }
}

impl KeyStore for MemoryStore {
    fn get(&self, key_id: &KeyId, call: &Call) -> Result<Option<StoredDocument>, StoreError> {
        self.read(&Request::Get { key_id }, call, |documents| {
            documents.get(key_id).cloned()
        })
    }

    fn put(
        &self,
        key_id: &KeyId,
        expected: Option<&Revision>,
        new: &StoredDocument,
        call: &Call,
    ) -> Result<Revision, StoreError> {
        let write = Write {
            key_id: *key_id,
            expected: expected.copied(),
            new: Some(new.clone()),
        };
        self.change(&Request::Put { key_id, expected, new }, call, write)?;
        Ok(new.revision)
    }

    fn remove(&self, key_id: &KeyId, expected: &Revision, call: &Call) -> Result<(), StoreError> {
        let write = Write {
            key_id: *key_id,
            expected: Some(*expected),
            new: None,
        };
        self.change(&Request::Remove { key_id, expected }, call, write)
    }

    fn changed(
        &self,
        known: &[(KeyId, Option<Revision>)],
        call: &Call,
    ) -> Result<Vec<(KeyId, Option<StoredDocument>)>, StoreError> {
        self.read(&Request::Changed { known }, call, |documents| {
            known
                .iter()
                .map(|(key_id, revision)| (key_id, revision, documents.get(key_id)))
                .filter(|(_, revision, present)| present.map(|present| &present.revision) != revision.as_ref())
                .map(|(key_id, _, present)| (*key_id, present.cloned()))
                .collect()
        })
    }

    fn list(&self, after: Option<&KeyId>, limit: usize, call: &Call) -> Result<Vec<KeyId>, StoreError> {
        self.read(&Request::List { after, limit }, call, |documents| {
            let from = after.map_or(Unbounded, Excluded);
            let page = documents.range((from, Unbounded)).take(limit);
            page.map(|(key_id, _)| *key_id).collect()
        })
    }

    fn watch(&self, watcher: Watcher) -> bool {
        if self.notifies {
            lock(&self.watchers).push(Arc::new(watcher));
        }
        self.notifies
    }
}

fn in_time(call: &Call) -> Result<(), StoreError> {
    match call.remaining().is_zero() {
        true => Err(StoreErrorKind::Deadline.into()),
        false => Ok(()),
    }
}

/// A panic cannot leave the state inconsistent: each change is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
