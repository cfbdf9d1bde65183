#![doc = include_str!("../docs/crate.md")]
#![no_std]
// Shows on docs.rs which feature each item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
// With a default feature left out, a link to what it adds leads nowhere.
#![cfg_attr(
    not(all(feature = "api", feature = "file-keyring")),
    allow(rustdoc::broken_intra_doc_links)
)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![warn(
    clippy::arithmetic_side_effects,
    clippy::dbg_macro,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

#[cfg(feature = "api")]
pub mod api;
mod blob;
mod cmk;
mod context;
mod dek;
mod engine;
mod error;
#[cfg(all(any(doc, doctest), feature = "api", feature = "file-keyring"))]
pub mod guide;
mod key_id;
mod keyring;
mod labels;
pub mod payload;
mod secret;
mod trace;

pub use rand_core;
pub use zeroize;

#[cfg(feature = "store-keyring")]
pub use crate::keyring::store;

#[cfg(feature = "file-keyring")]
pub use crate::{error::FileFault, keyring::FileKeyring};

pub use crate::{
    blob::SealedDek,
    cmk::CmkVersion,
    context::EncryptionContext,
    dek::Dek,
    engine::{Engine, Rewrapped},
    error::{BlobRule, ContextRule, Error, ErrorKind, PayloadRule, RandomnessFault},
    key_id::KeyId,
    keyring::{KeyInfo, KeyState, Keyring, Keyset, MemoryKeyring},
};

/// The README's code, as doctests.
#[cfg(all(doctest, feature = "api", feature = "file-keyring"))]
#[doc = include_str!("../README.md")]
struct Readme;
