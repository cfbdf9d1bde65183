//! The subcommands, one module each.

pub(crate) mod data;
pub(crate) mod dek;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod key;
pub(crate) mod keyring;
pub(crate) mod root;
