//! Guides: one task each, with code that runs.
//!
//! | guide | for whom |
//! |---|---|
//! | [`storing_cmks`] | who decides where CMKs are kept: environment, file, a database, an HSM or cloud KMS as the root |
//! | [`columns_and_files`] | who encrypts database columns or files |
//! | [`rotation`] | who rotates a CMK, and has a million blobs under the old version |
//! | [`kms_api`] | who offers the KMS API from an HTTP server |
//! | [`migrating`] | who has blobs of a cloud KMS |
//! | [`tenants`] | who serves several tenants |
//! | [`logging`] | who watches over it |
//!
//! They are text alone; there is nothing in here to call.

// What the guides link to.
use super::*;

#[doc = include_str!("../docs/guide/storing-cmks.md")]
pub mod storing_cmks {}

#[doc = include_str!("../docs/guide/columns-and-files.md")]
pub mod columns_and_files {}

#[doc = include_str!("../docs/guide/rotation.md")]
pub mod rotation {}

#[doc = include_str!("../docs/guide/kms-api.md")]
pub mod kms_api {}

#[doc = include_str!("../docs/guide/migrating.md")]
pub mod migrating {}

#[doc = include_str!("../docs/guide/tenants.md")]
pub mod tenants {}

#[doc = include_str!("../docs/guide/logging.md")]
pub mod logging {}
