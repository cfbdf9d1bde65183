//! Envelope encryption as a library, without network access.
//!
//! dekseal makes 512-bit data-encryption keys (DEKs) and seals each under a customer master key (CMK) into 188 bytes,
//! bound to an encryption context. It also encrypts data of any length under a DEK, and implements the KMS
//! `create-datakey` API as JSON text.
//!
//! # Choosing a type
//!
//! | task | type |
//! |---|---|
//! | make, seal and open DEKs with the CMKs of a keyring | [`Engine`] |
//! | seal and open with one CMK version | [`CmkVersion`] |
//! | say what a DEK is for | [`EncryptionContext`] |
//! | inspect a sealed DEK without any key | [`SealedDek`] |
//! | encrypt data in memory, as a stream, or with random access | [`payload`] |
//! | keep CMKs in memory, in a file, in a shared database, or in a store of your own | [`MemoryKeyring`], `FileKeyring`, `StoreKeyring`, [`Keyring`] |
//! | make, rotate, disable and delete CMKs | [`Keyset`], through `update` of a keyring |
//! | serve the KMS API | module `api` |
//! | read about one task | the guides in module `guide` |
//!
//! # Example
//!
//! ```
//! # #[cfg(feature = "std")]
//! # fn main() -> Result<(), dekseal::Error> {
//! use dekseal::{EncryptionContext, Engine, Keyset, MemoryKeyring};
//!
//! // A CMK in a keyring, and an engine over the keyring.
//! let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
//! let mut keys = Keyset::new();
//! keys.create_key(key_id)?;
//! let engine = Engine::new(MemoryKeyring::new(keys));
//!
//! // Make a DEK for one purpose. Encrypt with `dek`, store `sealed` beside the data, and drop `dek`.
//! let context = EncryptionContext::from_pairs([("tenant", "42"), ("purpose", "backup")])?;
//! let (dek, sealed) = engine.create_dek(&key_id, &context)?;
//! assert_eq!(engine.decrypt_dek(&key_id, &context, &sealed)?, dek);
//!
//! // Or let the crate encrypt the data: a payload holds its own sealed DEK.
//! let mut payload = engine.encrypt(&key_id, &context, b"attack at dawn")?;
//! assert_eq!(*engine.decrypt(&key_id, &context, &payload)?, b"attack at dawn");
//!
//! // Rotate the CMK. Blobs under the old version still open.
//! let version = engine.keyring().update(|keys| keys.rotate(&key_id))?;
//! assert_eq!((sealed.key_version(), version), (0, 1));
//! assert_eq!(engine.decrypt_dek(&key_id, &context, &sealed)?, dek);
//!
//! // Rewrap the DEKs: seal them again under the new version. The data does not change.
//! let sealed = *engine.rewrap_dek(&key_id, &context, &sealed)?.sealed();
//! engine.rewrap(&key_id, &context, &key_id, &mut payload)?;
//!
//! // Retire the old version.
//! engine.keyring().update(|keys| keys.set_min_version(&key_id, version))?;
//! assert_eq!(engine.decrypt_dek(&key_id, &context, &sealed)?, dek);
//! assert_eq!(*engine.decrypt(&key_id, &context, &payload)?, b"attack at dawn");
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "std"))]
//! # fn main() {}
//! ```
//!
//! # Guarantees
//!
//! | | guarantee | limitation |
//! |---|---|---|
//! | nonces | Key and nonce are derived from DEK, context and CMK. No generator can repeat a nonce of a sealed DEK. | Equal input gives an equal blob, so DEKs must be random. A generator that repeats itself can give two payloads one key. |
//! | binding | A blob opens under one CMK version and in one context, and commits to both. | There is no freshness: an old blob that is put back opens. |
//! | payloads | Plaintext is returned only after it was verified. A payload that was changed, truncated or extended is refused. | A stream is known to be complete only at its end. |
//! | errors | A wrong CMK, a wrong context and a changed blob give [`ErrorKind::AuthenticationFailed`], with the same text. | |
//! | secrets | They are wiped on drop, appear in no `Debug`, error or log, and are compared in constant time. | Copies that moves leave on the stack, and ring's keys (feature `ring`), are not wiped. |
//! | panics | No input causes a panic. The crate has no `unsafe` code. | |
//! | memory | Sealing and opening a DEK allocate nothing. | A context above 980 bytes takes one allocation, and so may an error. |
//! | formats | Every byte is specified. Every later version opens what an earlier version sealed. | Blobs of the cloud service whose API this crate implements do not open here. |
//! | certification | The algorithms are NIST-approved. | There is no FIPS claim. |
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `std` | yes | randomness from the operating system; payloads as streams; changing a [`MemoryKeyring`] while it is in use |
//! | `api` | yes | the KMS API: module `api` |
//! | `file-keyring` | yes | CMKs in a file: `FileKeyring`; needs `std` |
//! | `store-keyring` | no | CMKs that a fleet shares through a database: `StoreKeyring`, and module `store` for the database |
//! | `ring` | no | faster payloads with ring's AES-256-GCM; ring is C and assembly, and does not wipe its keys |
//! | `rayon` | no | payloads of 1 MiB and more on all cores, if encrypted or decrypted in one call |
//! | `serde` | no | [`SealedDek`] and [`KeyId`] with serde: text in formats that people read, bytes in others |
//! | `tracing` | no | an event without secrets for each operation; the logging guide lists them |
//!
//! Without default features the crate is `no_std` and needs `alloc`. Randomness then comes from a generator that
//! implements the traits of [`rand_core`].
//!
//! # Errors
//!
//! There is one type, [`Error`]. Decide by its [`kind`](Error::kind); its text is for people and contains no secret.
//! Module `guide::errors` (`docs/errors.md` in the repository) says for each kind what it means, what to do, and
//! whether to retry.

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
#[cfg(test)]
#[path = "cavp/tests.rs"]
mod cavp;
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
mod sha256;
mod text;
mod trace;
mod unix_time;

pub use rand_core;
pub use zeroize;

#[cfg(feature = "store-keyring")]
pub use crate::{
    error::StoreFault,
    keyring::{Resealed, StoreCounters, StoreKeyring, StoreSettings, store},
};

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
    keyring::{KeyInfo, KeyState, Keyring, Keyset, MemoryKeyring, VersionInfo},
    secret::wipe_stack,
    unix_time::UnixTime,
};

/// The README's code, as doctests.
#[cfg(all(doctest, feature = "api", feature = "file-keyring"))]
#[doc = include_str!("../README.md")]
struct Readme;
