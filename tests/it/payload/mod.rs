//! Sealed payloads.

mod buffers;
mod file;
#[cfg(feature = "std")]
mod inner;
mod known;
#[cfg(target_os = "linux")]
#[cfg(feature = "std")]
mod memory;
#[cfg(feature = "std")]
mod properties;
mod refused;
mod rewrap;
#[cfg(feature = "std")]
mod rewrap_file;
#[cfg(feature = "std")]
mod seek;
mod segments;
#[cfg(feature = "std")]
mod streams;
