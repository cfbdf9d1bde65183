//! Rewraps many blobs with few look-ups in the keyring.

use alloc::{collections::VecDeque, vec::Vec};
use core::iter::Fuse;

use super::{Engine, expect_key, named, rewrapped::Rewrapped};
use crate::{
    blob::SealedDek,
    cmk::CmkVersion,
    context::EncryptionContext,
    dek::Dek,
    error::Error,
    key_id::KeyId,
    keyring::Keyring,
    trace::{Batch, Event},
};

/// The number of blobs that are taken at a time. This many DEKs are in memory at once.
const CHUNK: usize = 64;

/// The iterator of [`Engine::rewrap_deks`].
pub(super) struct Sweep<'a, K, I: Iterator> {
    engine: &'a Engine<K>,
    key_id: &'a KeyId,
    blobs: Fuse<I>,
    done: VecDeque<Result<Rewrapped, Error>>,
    batch: Batch<'a>,
}

impl<'a, K: Keyring, B: AsRef<[u8]>, I: Iterator<Item = (&'a EncryptionContext, B)>> Sweep<'a, K, I> {
    pub(super) fn new(engine: &'a Engine<K>, key_id: &'a KeyId, blobs: I) -> Self {
        Self {
            engine,
            key_id,
            blobs: blobs.fuse(),
            done: VecDeque::new(),
            batch: Event::new("rewrap_deks", Some(key_id), None).batch(),
        }
    }

    /// Rewraps the next blobs: opens each run of blobs of one version together, then seals all of them together.
    ///
    /// Opening and sealing are separate calls of the keyring, because a keyring with a lock may not lend two CMKs at a
    /// time.
    fn rewrap_chunk(&mut self) {
        let Self { engine, key_id, .. } = *self;
        let blobs = self.blobs.by_ref().take(CHUNK);
        let mut items: Vec<_> = blobs
            .map(|(context, blob)| Item::new(key_id, context, blob.as_ref()))
            .collect();
        for run in items.chunk_by_mut(|a, b| a.version() == b.version()) {
            if let Some(version) = run.first().and_then(Item::version) {
                lend_once(run, |run| {
                    engine.with_version(key_id, version, |cmk| run.iter_mut().for_each(|item| item.open(cmk)))
                });
            }
        }
        lend_once(&mut items, |items| {
            if items.iter().all(|item| item.dek.is_none()) {
                return Ok(());
            }
            engine.with_current(key_id, |cmk| items.iter_mut().for_each(|item| item.seal(cmk)))
        });
        self.done.extend(items.into_iter().map(|item| item.state));
    }
}

impl<'a, K: Keyring, B: AsRef<[u8]>, I: Iterator<Item = (&'a EncryptionContext, B)>> Iterator for Sweep<'a, K, I> {
    type Item = Result<Rewrapped, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done.is_empty() {
            self.rewrap_chunk();
        }
        let result = self.done.pop_front()?;
        self.batch.note(&result);
        Some(result)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (least, most) = self.blobs.size_hint();
        let done = self.done.len();
        (least.saturating_add(done), most.and_then(|most| most.checked_add(done)))
    }
}

/// A blob that is being rewrapped.
struct Item<'a> {
    context: &'a EncryptionContext,
    /// The old blob, until it is sealed again.
    state: Result<Rewrapped, Error>,
    /// The DEK between opening and sealing. It is filled and wiped in place.
    dek: Option<Dek>,
}

impl<'a> Item<'a> {
    fn new(key_id: &KeyId, context: &'a EncryptionContext, blob: &[u8]) -> Self {
        let sealed = SealedDek::from_bytes(blob).and_then(|sealed| {
            expect_key(key_id, &sealed)?;
            Ok(Rewrapped::AlreadyCurrent(sealed))
        });
        Self {
            context,
            state: sealed,
            dek: None,
        }
    }

    fn version(&self) -> Option<u32> {
        let state = self.state.as_ref().ok()?;
        Some(state.sealed().key_version())
    }

    fn open(&mut self, cmk: &CmkVersion) {
        if let Ok(state) = &self.state {
            let dek = self.dek.insert(Dek::zeroed());
            if let Err(error) = cmk.open_into(self.context, state.sealed(), dek) {
                self.refuse(named(error, &cmk.key_id(), Some(cmk.key_version())));
            }
        }
    }

    fn seal(&mut self, cmk: &CmkVersion) {
        if let (Ok(state), Some(dek)) = (&self.state, &self.dek) {
            self.state = Ok(Rewrapped::of(state.sealed(), cmk.seal(self.context, dek)));
            self.dek = None;
        }
    }

    fn refuse(&mut self, error: Error) {
        if self.state.is_ok() {
            self.state = Err(error);
            self.dek = None;
        }
    }
}

/// Asks the keyring once for all `items`. On an error, the first item takes the error, and the call is repeated for the
/// others, so that each item gets its own error.
fn lend_once<'a>(mut items: &mut [Item<'a>], lend: impl Fn(&mut [Item<'a>]) -> Result<(), Error>) {
    while !items.is_empty() {
        match (lend(items), items.split_first_mut()) {
            (Err(error), Some((first, others))) => {
                first.refuse(error);
                items = others;
            }
            _ => return,
        }
    }
}
