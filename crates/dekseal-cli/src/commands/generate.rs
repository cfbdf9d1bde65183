//! `dekseal completions` and `dekseal man`: what packages install beside the command.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{cli::Cli, failure::Failure, output};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dekseal completions bash > /usr/share/bash-completion/completions/dekseal
  dekseal completions zsh > ~/.zfunc/_dekseal")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  dekseal man /usr/share/man/man1")]
pub(crate) struct Man {
    /// The directory for the pages, one for each subcommand
    directory: PathBuf,
}

pub(crate) fn completions(args: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "dekseal", &mut script);
    output::write(|out| out.write_all(&script))
}

pub(crate) fn man(args: &Man) -> Result<(), Failure> {
    let failed = |path: &Path, error| Failure::of_io(path.display(), &error);
    std::fs::create_dir_all(&args.directory).map_err(|error| failed(&args.directory, error))?;
    clap_mangen::generate_to(Cli::command(), &args.directory).map_err(|error| failed(&args.directory, error))
}
