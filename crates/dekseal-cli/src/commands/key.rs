//! `dekseal key`.

use dekseal::KeyId;

use crate::{failure::Failure, globals::Globals, output};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a key
    Create {
        /// The ID of the key, by default a random one
        key_id: Option<KeyId>,
    },
    /// Add a version to a key, which seals from now on
    Rotate {
        /// The ID of the key
        key_id: KeyId,
    },
}

pub(crate) fn run(args: Args, globals: &Globals) -> Result<(), Failure> {
    let keyring = globals.open()?;
    match args.command {
        Command::Create { key_id } => {
            let key_id = key_id.map_or_else(KeyId::generate, Ok)?;
            keyring.update(&key_id, |keys| keys.create_key(key_id))?;
            output::print(globals.json, &key_id.as_str(), |out| writeln!(out, "{key_id}"))
        }
        Command::Rotate { key_id } => {
            let version = keyring.update(&key_id, |keys| keys.rotate(&key_id))?;
            output::print(globals.json, &version, |out| writeln!(out, "{version}"))
        }
    }
}
