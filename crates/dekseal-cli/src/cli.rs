//! The command line.

use clap::{Parser, Subcommand};

use crate::{
    commands::{data, dek, generate, inspect, key, keyring, root},
    failure::Failure,
    globals::Globals,
    serve, sweep,
};

/// Envelope encryption: manages customer master keys (CMKs), and encrypts data under them
#[derive(Parser)]
#[command(name = "dekseal", version, max_term_width = 100)]
#[command(after_help = "\
Examples:
  export DEKSEAL_KEYRING=file:keyring.json DEKSEAL_ROOT=file:root.key
  dekseal root new file:root.key
  dekseal keyring create
  KEY_ID=$(dekseal key create)
  dekseal encrypt --key $KEY_ID -c tenant=42 -o report.sealed report.pdf
  dekseal decrypt -c tenant=42 -o report.pdf report.sealed

Keyrings:
  file:PATH             a file, for the processes of one machine
  sqlite:PATH[#TABLE]   a table in SQLite, for the processes of one machine
  postgres://USER@HOST/DATABASE[#[SCHEMA.]TABLE]
                        a table in PostgreSQL, for a fleet; the password comes
                        from PGPASSWORD or from the URL in DEKSEAL_KEYRING, and
                        the authority's certificate from the file PGSSLROOTCERT

Roots:
  file:PATH             a file that only its owner can read: 32 to 64 bytes, raw
                        or in hex
  env:NAME              an environment variable
  fd:N                  an open file descriptor
  command:COMMAND       the standard output of a shell command
  credential:NAME       a credential of systemd
  pkcs11:URI            a key in an HSM (RFC 7512), if built with the feature
                        pkcs11; the PIN comes from pin-source=file:PATH, from
                        DEKSEAL_PIN, or is asked for
  Add #version=N or #id=KEY_ID,version=N if the root is not version 0 of
  00000000-0000-0000-0000-00000000root.

Exit codes:
  0    success, or a signal stopped `serve`
  1    the data was refused: it was changed, or belongs to another key or
       context
  2    the command line is wrong, or a question was not answered
  3    a key, a keyring or a root cannot be used
  4    the operating system or a database failed, or a signal stopped `sweep`
  130  a signal ended another command")]
pub(crate) struct Cli {
    #[command(flatten)]
    globals: Globals,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a root, under which a keyring is sealed
    Root(root::Args),
    /// Make, check and repair a keyring
    Keyring(keyring::Args),
    /// Make, show, rotate, disable and delete keys
    Key(key::Args),
    /// Make, open, seal and rewrap data-encryption keys (DEKs)
    Dek(dek::Args),
    Encrypt(data::Encrypt),
    Decrypt(data::Decrypt),
    Rewrap(data::Rewrap),
    /// Count sealed DEKs by key and version, and find damaged ones, without any key
    Inspect(inspect::Args),
    /// Re-encrypt a column of a database under the current version of its keys
    Sweep(sweep::Args),
    /// Serve the KMS API on a Unix socket or a loopback address
    Serve(serve::Args),
    /// Print a completion script for a shell
    Completions(generate::Completions),
    /// Write the man pages
    Man(generate::Man),
}

impl Cli {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let globals = &self.globals;
        match self.command {
            Command::Root(args) => root::run(args, globals),
            Command::Keyring(args) => keyring::run(args, globals),
            Command::Key(args) => key::run(args, globals),
            Command::Dek(args) => dek::run(args, globals),
            Command::Encrypt(args) => data::encrypt(&args, globals),
            Command::Decrypt(args) => data::decrypt(&args, globals),
            Command::Rewrap(args) => data::rewrap(&args, globals),
            Command::Inspect(args) => inspect::run(args, globals),
            Command::Sweep(args) => sweep::run(args, globals),
            Command::Serve(args) => serve::run(args, globals),
            Command::Completions(args) => generate::completions(&args),
            Command::Man(args) => generate::man(&args),
        }
    }
}
