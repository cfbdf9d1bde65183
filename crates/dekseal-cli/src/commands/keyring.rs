//! `dekseal keyring`.

use crate::{failure::Failure, globals::Globals, keyring::AnyKeyring};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a keyring: a file, or a table in a database
    Create,
}

pub(crate) fn run(args: Args, globals: &Globals) -> Result<(), Failure> {
    let Command::Create = args.command;
    AnyKeyring::create(&globals.address()?, &globals.roots()?)?;
    Ok(())
}
