//! Moves the documents of a store to the writing root (FORMAT.md D3).

use core::ops::ControlFlow;
use std::{sync::Arc, vec::Vec};

use hashbrown::HashMap;

use super::{
    super::{
        document::{self, Edition},
        store::{KeyStore, StoredDocument},
    },
    StoreKeyring,
    cache::{Answer, Begun},
    misses::BATCH,
    reading::keyset_of,
    shared::Shared,
    write::{Change, next, parse},
};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::{error::Error, key_id::KeyId, trace::Event};

/// The result of a pass over all documents of a store: see [`StoreKeyring::reseal`](crate::StoreKeyring::reseal).
///
/// # Examples
///
/// ```
/// # use std::ops::ControlFlow;
/// # use dekseal::{CmkVersion, StoreKeyring, store::MemoryStore};
/// # let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
/// # let keyring = StoreKeyring::new(MemoryStore::new(), root);
/// let pass = keyring.reseal(None, |_key_id, _result| ControlFlow::Continue(()))?;
/// let old_root_is_unused = pass.is_complete && pass.resealed == 0 && pass.failed == 0;
/// # assert!(old_root_is_unused);
/// # Ok::<(), dekseal::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resealed {
    /// The number of documents that were under the writing root already.
    pub present: u64,
    /// The number of documents that were sealed again under the writing root.
    pub resealed: u64,
    /// The number of documents that could not be read or written. Each was passed to the callback.
    pub failed: u64,
    /// Whether the pass reached the end.
    pub is_complete: bool,
}

impl<S: KeyStore> StoreKeyring<S> {
    /// Seals every document in the store again under the writing root, one at a time. Documents that are under the
    /// writing root already stay as they are, so a pass can be repeated. Calls `progress` for each key, and says
    /// whether its document was sealed again. `progress` can end the pass; a later call continues `after` the last key.
    ///
    /// A fleet changes its root in four steps:
    ///
    /// 1. Give every process the new root as a reading root.
    /// 2. Make the new root the writing root of every process, and the old one a reading root.
    /// 3. Call this method in one process.
    /// 4. If a complete pass that began after step 2 found no document under the old root, remove the old root.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] with a fault of the store; no others. A document that cannot be read or written is counted,
    /// passed to `progress`, and skipped.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::ops::ControlFlow;
    /// # use dekseal::{CmkVersion, KeyId, StoreKeyring, store::MemoryStore};
    /// # let root_id: dekseal::KeyId = "00000000-0000-0000-0000-00000000root".parse()?;
    /// # let root = |version, byte| CmkVersion::new(root_id, version, &[byte; 32]);
    /// let keyring = StoreKeyring::new(MemoryStore::new(), root(0, 7)?);
    /// let key_id = KeyId::generate()?;
    /// keyring.update(&key_id, |keys| keys.create_key(key_id))?;
    ///
    /// keyring.set_roots(root(1, 8)?, [root(0, 7)?]);
    /// let pass = keyring.reseal(None, |key_id, result| {
    ///     if let Err(error) = result {
    ///         println!("{key_id}: {error}");
    ///     }
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!((pass.resealed, pass.failed), (1, 0));
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn reseal(
        &self,
        after: Option<&KeyId>,
        progress: impl FnMut(&KeyId, Result<bool, Error>) -> ControlFlow<()>,
    ) -> Result<Resealed, Error> {
        Event::new("reseal_keys", None, None).of(|_| self.shared.reseal_all(after.copied(), progress))
    }
}

impl<S: KeyStore> Shared<S> {
    /// Seals one document again under the writing root, if it is under another root. Returns whether it was.
    fn reseal(&self, key_id: &KeyId, begun: Begun, stored: StoredDocument) -> Result<bool, Error> {
        let mut first = Some((begun, stored));
        self.attempts(key_id, |call| {
            let before = match first.take() {
                Some((begun, stored)) => self.judge(key_id, begun, Answer::Document(stored), false)?,
                None => self.read(key_id, call)?,
            };
            // The key was purged meanwhile.
            let Some(before) = before else {
                return Ok(Some(false));
            };
            let begun = self.clock.now();
            let root = Arc::clone(&self.roots.load().writing);
            if Arc::ptr_eq(&root, &before.root) {
                return Ok(Some(false));
            }
            let keys = keyset_of(key_id, Some(&before.key));
            let Edition { id, generation, .. } = before.edition;
            let text = document::write_resealed(&keys, id, next(generation)?, &before.root, &root);
            let document = parse(key_id, text?, &root, None)?;
            let change = Change {
                key_id,
                begun,
                expected: Some(before.revision),
                before: Some(before),
                after: Some(document),
                keep: false,
                written_back: None,
            };
            Ok(self.make(change, call)?.done().map(|()| true))
        })
    }

    /// Seals all documents after `after` again, one at a time.
    pub(super) fn reseal_all(
        &self,
        mut after: Option<KeyId>,
        mut progress: impl FnMut(&KeyId, Result<bool, Error>) -> ControlFlow<()>,
    ) -> Result<Resealed, Error> {
        let mut pass = Resealed::default();
        loop {
            let call = self.call();
            let page = self.store.list(after.as_ref(), BATCH, &call);
            let page = page.map_err(|error| self.failed(error))?;
            let Some(last) = page.last() else {
                pass.is_complete = true;
                return Ok(pass);
            };
            after = Some(*last);
            let begun = self.cache.begin(self.clock.now());
            let known: Vec<_> = page.iter().map(|key_id| (*key_id, None)).collect();
            let documents = self.store.changed(&known, &call).map_err(|error| self.failed(error))?;
            let mut documents: HashMap<_, _> = documents.into_iter().collect();
            for key_id in page {
                // A missing document means that the key was purged meanwhile.
                let Some(stored) = documents.remove(&key_id).flatten() else {
                    continue;
                };
                let result = self.reseal(&key_id, begun, stored);
                let counter = match result {
                    Ok(true) => &mut pass.resealed,
                    Ok(false) => &mut pass.present,
                    Err(_) => &mut pass.failed,
                };
                *counter = counter.saturating_add(1);
                if progress(&key_id, result).is_break() {
                    return Ok(pass);
                }
            }
        }
    }
}
