//! `dekseal root`.

use dekseal::Dek;
use serde_json::json;

use crate::{
    failure::Failure,
    globals::Globals,
    output,
    root::{Kind, Source},
    secret_output::Sink,
};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  dekseal root new file:root.key")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a root: 64 random bytes in a new file or on a file descriptor, or a key in a PKCS#11 token
    ///
    /// A file and a file descriptor get the bytes as a line of hex. Keep a copy of a file apart from the keyring:
    /// without its root, a keyring is lost, and with it everything sealed under its keys. A key in a token never leaves
    /// it; back up the token.
    #[command(after_help = "\
Examples:
  dekseal root new file:root.key
  dekseal root new fd:1 | systemd-creds encrypt --name=root - root.cred
  dekseal root new \\
    'pkcs11:token=prod;object=dekseal?module-path=/usr/lib/libsofthsm2.so'")]
    New {
        /// Where the root goes: file:PATH, fd:N or pkcs11:URI
        #[arg(value_name = "SOURCE")]
        place: String,
        /// Allow a file descriptor that is a terminal
        #[arg(long)]
        show_secret: bool,
    },
}

pub(crate) fn run(args: Args, globals: &Globals) -> Result<(), Failure> {
    let Command::New { place, show_secret } = args.command;
    let source = Source::parse("SOURCE", &place)?;
    let sink = match &source.kind {
        Kind::File(path) => Sink::File(path.clone()),
        Kind::Fd(number) => Sink::Fd(*number),
        Kind::Pkcs11(uri) => {
            Source::generate_in_token(uri)?;
            return made(&source, "a key in the token", globals);
        }
        Kind::Env(_) | Kind::Command(_) | Kind::Credential(_) => {
            return Err(Failure::usage(
                "dekseal cannot store a root there; pipe the output of `dekseal root new fd:1` to the program that can",
            ));
        }
    };
    sink.check(show_secret)?;
    // 64 bytes from the generator of the operating system, which was seen not to repeat itself.
    sink.write(Dek::generate()?.expose_secret(), true)?;
    match &sink {
        Sink::File(path) => made(&source, &path.display().to_string(), globals),
        Sink::Fd(_) => Ok(()),
    }
}

fn made(source: &Source, place: &str, globals: &Globals) -> Result<(), Failure> {
    let Source {
        key_id, key_version, ..
    } = source;
    let value = json!({ "key_id": key_id.as_str(), "key_version": key_version });
    output::print(globals.json, &value, |out| {
        writeln!(out, "made {place}: root {key_id} version {key_version}")
    })
}
