//! The subcommands, one module each.

pub(crate) mod key;
pub(crate) mod keyring;
