//! Reads a key document: the document of one key, under one of several roots (FORMAT.md D2 and D3).

use std::{sync::Arc, vec::Vec};

use super::super::{
    document::{self, Document, Edition},
    key::Key,
    keyset::Keyset,
};
use crate::{
    cmk::CmkVersion,
    error::{Error, ErrorKind, FileFault, StoreFault},
    key_id::KeyId,
};

/// The roots of a keyring.
pub(super) struct Roots {
    /// The root that new documents are written under.
    pub(super) writing: Arc<CmkVersion>,
    /// All roots that documents are read under. The writing root is the first.
    pub(super) all: Vec<Arc<CmkVersion>>,
}

impl Roots {
    pub(super) fn new(writing: Arc<CmkVersion>, reading: impl IntoIterator<Item = CmkVersion>) -> Self {
        let reading = reading.into_iter().map(Arc::new);
        let all = [Arc::clone(&writing)].into_iter().chain(reading).collect();
        Self { writing, all }
    }
}

/// A document that was read.
pub(super) struct Read {
    pub(super) key: Key,
    pub(super) edition: Edition,
    /// The root that the document is under.
    pub(super) root: Arc<CmkVersion>,
}

/// A keyset of one key, or of none.
pub(super) fn keyset_of(key_id: &KeyId, key: Option<&Key>) -> Keyset {
    key.map(|key| (*key_id, key.clone())).into_iter().collect()
}

/// Reads the key of a document. It must be `key_id`, and the only key (D2). Versions of the `held` key are not opened
/// again.
pub(super) fn read(text: &[u8], key_id: &KeyId, roots: &Roots, held: Option<&Key>) -> Result<Read, Error> {
    let document = document::read(text, &roots.all, |found| held.filter(|_| found == key_id));
    let Document { keys, edition, root }: Document<Vec<_>> = document.map_err(|error| refused(key_id, error))?;
    let mut keys = keys.into_iter();
    match (keys.next(), keys.next()) {
        (Some((found, key)), None) if found == *key_id => Ok(Read { key, edition, root }),
        (Some((found, _)), None) => {
            let error = Error::from(StoreFault::OtherKey).with_key_id(key_id);
            Err(error.with_found(&found, None))
        }
        _ => Err(Error::from(StoreFault::KeyCount).with_key_id(key_id)),
    }
}

/// Converts an error about a file into one about a store.
pub(super) fn refused(key_id: &KeyId, error: Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::File(fault) => ErrorKind::Store(match fault {
            FileFault::TooLarge => StoreFault::TooLarge,
            FileFault::UnknownFormat => StoreFault::UnknownFormat,
            FileFault::WrongRoot => StoreFault::WrongRoot,
            FileFault::Changed => StoreFault::Changed,
            FileFault::RolledBack | FileFault::OtherKeyring => StoreFault::RolledBack,
            _ => StoreFault::NotADocument,
        }),
        kind => kind,
    };
    let names_key = error.key_id().is_some();
    let error = error.with_kind(kind);
    // An error about a root names the root instead.
    if names_key { error } else { error.with_key_id(key_id) }
}
