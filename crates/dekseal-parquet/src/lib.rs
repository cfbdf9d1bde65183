#![cfg_attr(feature = "parquet", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "parquet"),
    doc = "The key management of encrypted Parquet files with dekseal."
)]
#![cfg_attr(docsrs, feature(doc_cfg))]
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

#[cfg(feature = "datafusion")]
mod datafusion;
mod error;
#[cfg(feature = "parquet")]
mod files;
mod kms;
mod material;
#[cfg(feature = "parquet")]
mod reference;

#[cfg(feature = "datafusion")]
pub use datafusion::DataFusionKeys;
pub use error::{Error, ErrorKind};
#[cfg(feature = "parquet")]
pub use files::{external_key_material, file_decryption_properties};
pub use kms::{Kms, sealed_dek};
pub use material::{KeyMaterial, rotate_master_keys};
