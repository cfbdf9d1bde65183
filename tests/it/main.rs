//! One integration binary, a module for each subject.

mod allocations;
mod blob;
mod context;
mod docs;
#[cfg(all(feature = "json", feature = "std"))]
mod encrypt_file;
mod engine;
#[cfg(all(feature = "json", feature = "std"))]
mod faults;
mod imports;
#[cfg(all(feature = "json", feature = "std"))]
mod inspect;
#[cfg(all(feature = "json", feature = "std"))]
mod keyring_file;
mod keys;
mod keys_model;
mod payload;
mod primitives;
mod properties;
mod randomness;
mod secrets;
mod support;
#[cfg(all(feature = "tracing", feature = "json", feature = "std"))]
mod tracing;
#[cfg(feature = "json")]
mod wire;
#[cfg(feature = "json")]
mod wire_errors;
#[cfg(all(feature = "json", feature = "std"))]
mod wire_stdio;
