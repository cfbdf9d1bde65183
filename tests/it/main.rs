//! The integration tests: one binary, with a module for each subject.

mod allocations;
mod blob;
#[cfg(feature = "store-keyring")]
#[path = "../store/conformance.rs"]
mod conformance;
mod conformance_kit;
mod context;
mod docs;
mod docs_claims;
mod engine;
#[cfg(all(feature = "api", feature = "file-keyring"))]
mod examples;
#[cfg(all(feature = "api", feature = "file-keyring"))]
mod faults;
#[cfg(all(feature = "api", feature = "file-keyring"))]
mod guide;
mod imports;
#[cfg(feature = "file-keyring")]
mod keyring_document;
#[cfg(feature = "file-keyring")]
mod keyring_file;
#[cfg(all(feature = "file-keyring", target_os = "linux"))]
mod keyring_kills;
#[cfg(feature = "file-keyring")]
mod keyring_lookup;
#[cfg(all(feature = "file-keyring", target_os = "linux"))]
mod keyring_power;
#[cfg(feature = "file-keyring")]
mod keyring_rollback;
#[cfg(feature = "file-keyring")]
mod keyring_storage;
mod keyset;
mod keyset_model;
mod payload;
mod primitives;
mod proofs;
mod properties;
mod randomness;
mod reference;
mod secrets;
#[cfg(feature = "store-keyring")]
mod store;
#[cfg(feature = "store-keyring")]
mod store_forged;
#[cfg(feature = "store-keyring")]
mod store_keyring;
#[cfg(feature = "store-keyring")]
mod store_memory;
#[cfg(feature = "store-keyring")]
mod store_rollback;
#[cfg(feature = "file-keyring")]
mod strace;
mod support;
#[cfg(all(feature = "tracing", feature = "api", feature = "file-keyring"))]
mod tracing;
#[cfg(feature = "api")]
mod wire;
#[cfg(feature = "api")]
mod wire_errors;
#[cfg(all(feature = "api", feature = "file-keyring"))]
mod wire_stdio;
