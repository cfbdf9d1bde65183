//! The integration tests: one binary, with a module for each subject.

mod exchange;
mod files;
#[cfg(target_os = "linux")]
mod kills;
mod kms;
mod material;
mod pyarrow;
mod readme;
#[cfg(target_os = "linux")]
#[path = "../../../../tests/it/strace.rs"]
#[allow(dead_code, reason = "the tests of dekseal use more of it")]
mod strace;
mod support;
