//! `dekseal serve`.

use crate::{failure::Failure, globals::Globals};

#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::usage("serve is not built yet"))
}
