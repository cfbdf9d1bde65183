//! dekseal for Python.

#![deny(unsafe_code)]
#![warn(
    clippy::arithmetic_side_effects,
    clippy::dbg_macro,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

mod buffers;
mod columns;
mod dek;
mod engine;
mod errors;
mod fork;
mod keyring;
mod root;
mod sealed;
mod streams;

use pyo3::prelude::*;

/// A random key ID: a UUID of version 4.
#[pyfunction]
fn generate_key_id() -> PyResult<String> {
    errors::OrRaise::or_raise(dekseal::KeyId::generate()).map(|id| id.to_string())
}

#[pymodule(name = "_dekseal", gil_used = false)]
mod module {
    #[pymodule_export]
    use super::{
        columns::{PyBatch, inspect_column},
        dek::PyDek,
        engine::PyEngine,
        fork::{after_fork_in_child, after_fork_in_parent, before_fork},
        generate_key_id,
        keyring::{
            PyFileKeyring, PyKeyInfo, PyKeyring, PyMemoryKeyring, PyPostgresKeyring, PySqliteKeyring, PyStoreKeyring,
            PyVersionInfo,
        },
        root::PyRoot,
        sealed::{PyContext, PySealedDek},
        streams::{RawReader, RawWriter},
    };
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
