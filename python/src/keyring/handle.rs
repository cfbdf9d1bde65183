//! A keyring that opens itself again in a forked child.

use std::sync::Arc;

use arc_swap::ArcSwap;
use dekseal::{Engine, Error};
use pyo3::prelude::*;

use super::kind::{AnyKeyring, Recipe, Roots};
use crate::{errors::OrRaise, fork};

pub(crate) struct Handle {
    recipe: Recipe,
    roots: ArcSwap<Roots>,
    /// Replaced without a lock: in a child, another thread of the parent could have held one.
    opened: ArcSwap<Opened>,
}

pub(crate) struct Opened {
    generation: u64,
    pub(crate) engine: Engine<AnyKeyring>,
}

impl Opened {
    fn new(keyring: AnyKeyring) -> Arc<Self> {
        Arc::new(Self {
            generation: fork::generation(),
            engine: Engine::new(keyring),
        })
    }

    fn is_of_parent(&self) -> bool {
        self.generation != fork::generation()
    }
}

impl Handle {
    pub(super) fn open(recipe: Recipe, roots: Roots) -> Result<Self, Error> {
        let keyring = AnyKeyring::open(&recipe, &roots, None)?;
        Ok(Self::of(recipe, roots, keyring))
    }

    pub(super) fn of(recipe: Recipe, roots: Roots, keyring: AnyKeyring) -> Self {
        Self {
            recipe,
            roots: ArcSwap::from_pointee(roots),
            opened: ArcSwap::new(Opened::new(keyring)),
        }
    }

    /// The keyring and its engine in this process, for a caller with the GIL. It is released while a child opens the
    /// keyring again: that can wait for a store, or for the gate, which a fork holds until it gets the GIL.
    pub(crate) fn attached(&self, py: Python<'_>) -> PyResult<Arc<Opened>> {
        let opened = self.opened.load();
        if !opened.is_of_parent() {
            return Ok(Arc::clone(&opened));
        }
        py.detach(|| self.opened()).or_raise()
    }

    /// The keyring and its engine in this process, for a caller without the GIL.
    pub(super) fn opened(&self) -> Result<Arc<Opened>, Error> {
        let opened = self.opened.load();
        if !opened.is_of_parent() {
            return Ok(Arc::clone(&opened));
        }
        let new = AnyKeyring::open(&self.recipe, &self.roots.load(), Some(opened.engine.keyring()))?;
        let replaced = self.opened.compare_and_swap(&opened, Opened::new(new));
        // What the parent opened is never dropped here. Its locks may be held by threads that do not exist.
        if replaced.is_of_parent() {
            std::mem::forget(Arc::clone(&replaced));
        }
        Ok(self.opened.load_full())
    }

    /// The roots from now on, also for a child that opens the keyring again.
    pub(super) fn set_roots(&self, roots: Roots) {
        self.roots.store(Arc::new(roots));
    }

    pub(super) fn recipe(&self) -> &Recipe {
        &self.recipe
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let opened = self.opened.load();
        if opened.is_of_parent() {
            std::mem::forget(Arc::clone(&opened));
        }
    }
}
