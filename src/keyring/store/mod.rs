//! Stores for the CMK documents of a fleet: the interface, its rules and its errors.

mod call;
mod error;
mod memory;
mod revision;

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use crate::key_id::KeyId;

pub use self::{
    call::Call,
    error::{StoreError, StoreErrorKind},
    memory::{Action, MemoryStore, Request},
    revision::{Revision, StoredDocument},
};

/// A store of key documents that many processes share, such as a table in a database.
///
/// A key document holds one CMK, sealed and authenticated under a root that the store does not have. The store does not
/// interpret documents. It keeps each document under its key ID, together with a [`Revision`]. It replaces or removes a
/// document only if the caller names the present revision.
///
/// # Errors
///
/// Each method returns a [`StoreError`] of one of these kinds:
///
/// - [`Conflict`](StoreErrorKind::Conflict), only from `put` and `remove`: the present revision is not the expected
///   one.
/// - [`Deadline`](StoreErrorKind::Deadline): the deadline of the call passed.
/// - [`Unavailable`](StoreErrorKind::Unavailable): the store cannot be reached, or cannot serve now.
/// - [`Refused`](StoreErrorKind::Refused): the store does not allow this. Do not retry.
///
/// If a failed `put` or `remove` may have been executed, [`is_outcome_unknown`](StoreError::is_outcome_unknown) of the
/// error is `true`.
///
/// # Security
///
/// A store is trusted with neither secrets nor integrity. It can lose a document, delay it or return an older one; the
/// keyring detects an older one. It cannot forge or change a document.
///
/// # Implementing a store
///
/// - Methods block the calling thread, at most until [`Call::deadline`]. They may be called on a worker thread of an
///   async runtime, so they must not panic there.
/// - A read must see each change that was reported as done before the read began. Read from the primary of a replicated
///   database.
/// - A change that is reported as done must survive a crash of the store.
/// - Calls with [`Call::is_refresh`] must not wait for other calls: serve them through a separate connection.
/// - If it is uncertain whether a change was executed, report that the outcome is unknown. A client that repeats a
///   request by itself makes a conflict uncertain too: the first copy may have made the change.
/// - A change must not be executed after [`Call::deadline`], even if the request was under way for longer. The grace
///   period of a fleet relies on it: see [`StoreSettings::grace`](crate::StoreSettings::grace).
///
/// The file `tests/store/conformance.rs` of this crate's repository tests an implementation.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use dekseal::{KeyId, store::{Call, KeyStore, MemoryStore, Revision, StoreErrorKind, StoredDocument}};
///
/// let store = MemoryStore::new();
/// let call = Call::within(Duration::from_secs(5));
/// let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
///
/// // Create a document, then replace it.
/// let first = StoredDocument { revision: Revision::new(&[1; 32]).unwrap(), document: b"first".to_vec() };
/// let second = StoredDocument { revision: Revision::new(&[2; 32]).unwrap(), document: b"second".to_vec() };
/// let created = store.put(&key_id, None, &first, &call)?;
/// let replaced = store.put(&key_id, Some(&created), &second, &call)?;
/// assert_eq!(store.get(&key_id, &call)?, Some(second.clone()));
///
/// // A writer that has not seen the second document does not overwrite it.
/// let error = store.put(&key_id, Some(&created), &first, &call).unwrap_err();
/// assert_eq!(error.kind(), StoreErrorKind::Conflict);
///
/// // What differs from what the caller knows.
/// assert_eq!(store.changed(&[(key_id, Some(created))], &call)?, [(key_id, Some(second))]);
/// assert_eq!(store.changed(&[(key_id, Some(replaced))], &call)?, []);
///
/// assert_eq!(store.list(None, 100, &call)?, [key_id]);
/// store.remove(&key_id, &replaced, &call)?;
/// assert_eq!(store.get(&key_id, &call)?, None);
///
/// // A store that can notify calls this after each change. This one cannot.
/// assert!(!store.watch(Box::new(|change| { println!("{change:?}"); true })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait KeyStore: Send + Sync {
    /// Returns the document of `key_id`, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// Those of the trait, except `Conflict`.
    fn get(&self, key_id: &KeyId, call: &Call) -> Result<Option<StoredDocument>, StoreError>;

    /// Stores `new` if the present revision of `key_id` is `expected`. `None` means that there is no document.
    ///
    /// Returns the revision under which the store now has the document: `new.revision`, unless the store makes its own
    /// revisions, such as ETags.
    ///
    /// # Errors
    ///
    /// Those of the trait.
    fn put(
        &self,
        key_id: &KeyId,
        expected: Option<&Revision>,
        new: &StoredDocument,
        call: &Call,
    ) -> Result<Revision, StoreError>;

    /// Removes the document of `key_id` if its present revision is `expected`.
    ///
    /// # Errors
    ///
    /// Those of the trait; `Conflict` also if there is no document.
    fn remove(&self, key_id: &KeyId, expected: &Revision, call: &Call) -> Result<(), StoreError>;

    /// Returns the entries of `known` whose present revision differs. Each comes with its document, or with `None` if
    /// there is none any more.
    ///
    /// `known` names each key at most once, with the revision that the caller has seen, or with `None` if the caller
    /// has seen that there is no document. The order of the result is not specified. The default implementation calls
    /// [`get`](Self::get) for each key; a database should answer with one query.
    ///
    /// # Errors
    ///
    /// Those of the trait, except `Conflict`.
    fn changed(
        &self,
        known: &[(KeyId, Option<Revision>)],
        call: &Call,
    ) -> Result<Vec<(KeyId, Option<StoredDocument>)>, StoreError> {
        let mut changed = Vec::new();
        for (key_id, revision) in known {
            let present = self.get(key_id, call)?;
            if present.as_ref().map(|present| &present.revision) != revision.as_ref() {
                changed.push((*key_id, present));
            }
        }
        Ok(changed)
    }

    /// Returns up to `limit` key IDs that come after `after`, in ascending order of their bytes.
    ///
    /// An empty page is the end of the list, if `limit` is not 0.
    ///
    /// # Errors
    ///
    /// Those of the trait, except `Conflict`.
    fn list(&self, after: Option<&KeyId>, limit: usize, call: &Call) -> Result<Vec<KeyId>, StoreError>;

    /// Asks the store to call `watcher` soon after each change of any process. Returns whether the store can do that.
    /// The default implementation cannot.
    ///
    /// Notifications only make readers see changes sooner. A store may repeat them, and may lose them while it is
    /// disconnected. After that it sends [`Change::Unknown`].
    ///
    /// The store calls `watcher` on its own thread or on that of a writer, and drops it after it returns `false`. A
    /// watcher must not block.
    fn watch(&self, watcher: Watcher) -> bool {
        drop(watcher);
        false
    }
}

/// A function that a store calls after a change. It returns whether to call it again.
pub type Watcher = Box<dyn Fn(Change) -> bool + Send + Sync>;

/// The change that a store reports to a [`Watcher`].
///
/// # Examples
///
/// ```
/// use std::{sync::mpsc, time::Duration};
///
/// use dekseal::{KeyId, store::{Call, Change, KeyStore, MemoryStore, Revision, StoredDocument}};
///
/// let store = MemoryStore::new().with_notifications();
/// let (changes, heard) = mpsc::channel();
/// // The watcher goes once the receiver is gone.
/// assert!(store.watch(Box::new(move |change| changes.send(change).is_ok())));
///
/// let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// let document = StoredDocument { revision: Revision::new(&[1; 32]).unwrap(), document: b"first".to_vec() };
/// store.put(&key_id, None, &document, &Call::within(Duration::from_secs(5)))?;
/// assert_eq!(heard.recv()?, Change::Key(key_id));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The document of this key was stored or removed.
    Key(KeyId),
    /// The store may have missed changes of any keys: check all of them.
    Unknown,
}

impl<S: KeyStore + ?Sized> KeyStore for Arc<S> {
    fn get(&self, key_id: &KeyId, call: &Call) -> Result<Option<StoredDocument>, StoreError> {
        (**self).get(key_id, call)
    }

    fn put(
        &self,
        key_id: &KeyId,
        expected: Option<&Revision>,
        new: &StoredDocument,
        call: &Call,
    ) -> Result<Revision, StoreError> {
        (**self).put(key_id, expected, new, call)
    }

    fn remove(&self, key_id: &KeyId, expected: &Revision, call: &Call) -> Result<(), StoreError> {
        (**self).remove(key_id, expected, call)
    }

    fn changed(
        &self,
        known: &[(KeyId, Option<Revision>)],
        call: &Call,
    ) -> Result<Vec<(KeyId, Option<StoredDocument>)>, StoreError> {
        (**self).changed(known, call)
    }

    fn list(&self, after: Option<&KeyId>, limit: usize, call: &Call) -> Result<Vec<KeyId>, StoreError> {
        (**self).list(after, limit, call)
    }

    fn watch(&self, watcher: Watcher) -> bool {
        (**self).watch(watcher)
    }
}
