//! The `dekseal` command.

#![warn(
    clippy::arithmetic_side_effects,
    clippy::dbg_macro,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

mod cli;
mod commands;
mod confirm;
mod context;
mod duration;
mod failure;
mod globals;
mod keyring;
mod output;
mod output_file;
mod process;
mod progress;
mod root;
mod secret_output;
mod serve;
mod sweep;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    process::forbid_core_dumps();
    let cli = cli::Cli::parse();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
