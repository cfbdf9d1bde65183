//! The command line.

use clap::{Parser, Subcommand};

use crate::{commands, failure::Failure, globals::Globals, serve, sweep};

/// Envelope encryption: manages customer master keys, and encrypts data under them.
#[derive(Parser)]
#[command(name = "dekseal", version, propagate_version = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    globals: Globals,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make and show keys
    Key(commands::key::Args),
    /// Make and check a keyring
    Keyring(commands::keyring::Args),
    /// Re-encrypt a column of a database under the current version of its keys
    Sweep(sweep::Args),
    /// Serve the KMS API on a Unix socket or a loopback address
    Serve(serve::Args),
}

impl Cli {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let globals = &self.globals;
        match self.command {
            Command::Key(args) => commands::key::run(args, globals),
            Command::Keyring(args) => commands::keyring::run(args, globals),
            Command::Sweep(args) => sweep::run(args, globals),
            Command::Serve(args) => serve::run(args, globals),
        }
    }
}
