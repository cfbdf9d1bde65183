//! A model of how processes share a CMK through a store, to be explored exhaustively within bounds.
//!
//! It models the rules of docs/FORMAT.md, D4 and D5, and not the code. One key suffices: a key has a document of its
//! own, and no rule for one document looks at another. Each module is one concern:
//!
//! - [`document`]: a key document, and the changes that a host can make to it.
//! - [`store`]: the store, which serves one request at a time, and what a bystander who sees all of it would know.
//! - [`process`]: a process: its cache, what it accepts from the store, and the calls that rely on it.
//! - [`write`]: how a process changes a document.
//! - [`model`]: all that can happen, for stateright, and the properties.
//! - [`configuration`]: rules that can be broken, bounds, and the configurations that are checked.

pub mod configuration;
pub mod document;
pub mod model;
pub mod process;
pub mod store;
pub mod write;
