//! `dekseal sweep`.

use crate::{failure::Failure, globals::Globals};

#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::usage("sweep is not built yet"))
}
