//! The code of the guides in docs/guide, compiled and run.
//!
//! A guide shows the lines between `// ANCHOR: name` and `// ANCHOR_END: name`. `docs::each_guide_shows_code_that_runs`
//! compares each guide's code blocks with them.

mod columns_and_files;
#[cfg(feature = "store-keyring")]
mod fleet;
mod kms_api;
mod logging;
mod migrating;
mod restore;
mod rotation;
mod storing_cmks;
mod tenants;
