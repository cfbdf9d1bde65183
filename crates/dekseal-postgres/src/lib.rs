#![doc = include_str!("../README.md")]
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

mod connector;
mod error;
mod listen;
mod load;
mod options;
mod session;
mod sql;
mod store;
mod threads;
mod tls;

pub use tokio_postgres;
pub use tokio_rustls::rustls;

pub use crate::{connector::Connector, load::load, options::Options, store::PostgresStore};
