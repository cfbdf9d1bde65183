//! `dekseal dek`.

use std::io::{self, BufRead, Read};

use base64ct::{Base64, Encoding};
use dekseal::{Dek, Engine, KeyId, SealedDek};
use serde_json::json;

use crate::{
    commands::inspect::decode::{self, Format},
    context::ContextArgs,
    failure::Failure,
    globals::Globals,
    output,
    root::{Kind, material},
    secret_output::Sink,
};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  dekseal dek create 0d0466b0-e727-4d9c-b35d-f84bb474a37f")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Where a plaintext DEK goes.
#[derive(clap::Args)]
struct Plaintext {
    /// Write the plaintext DEK as a line of hex, and not as 64 bytes
    #[arg(long)]
    hex: bool,
    /// Allow a terminal as the place for the plaintext DEK
    #[arg(long)]
    show_secret: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a DEK, and print it sealed
    ///
    /// Without --plaintext, nobody sees the plaintext DEK before it is opened.
    #[command(after_help = "\
Examples:
  dekseal dek create -c tenant=42 $KEY_ID > dek.sealed
  dekseal dek create --plaintext file:dek.bin $KEY_ID > dek.sealed")]
    Create {
        /// The ID of the key to seal under
        key_id: KeyId,
        #[command(flatten)]
        context: ContextArgs,
        /// Where the plaintext DEK goes as well: file:PATH or fd:N
        #[arg(long, value_name = "PLACE")]
        plaintext: Option<String>,
        #[command(flatten)]
        how: Plaintext,
        /// How the sealed DEK is printed
        #[arg(long, value_enum, default_value_t = Format::Hex)]
        format: Format,
    },

    /// Open a sealed DEK, and write the plaintext DEK to a pipe or a file
    #[command(after_help = "\
Examples:
  dekseal dek open -c tenant=42 --plaintext file:dek.bin < dek.sealed
  dekseal dek open -c tenant=42 02009800…70C9 | my-program --key-from-stdin")]
    Open {
        /// The sealed DEK in hex or base64; by default it is read from standard input
        sealed: Option<String>,
        /// Refuse a DEK that is sealed under another key
        #[arg(long = "key", value_name = "KEY_ID")]
        key_id: Option<KeyId>,
        #[command(flatten)]
        context: ContextArgs,
        /// Where the plaintext DEK goes: file:PATH or fd:N; by default to standard output
        #[arg(long, value_name = "PLACE")]
        plaintext: Option<String>,
        #[command(flatten)]
        how: Plaintext,
    },

    /// Seal an existing DEK of 64 bytes, and print it sealed
    #[command(after_help = "\
Examples:
  dekseal dek encrypt -c tenant=42 $KEY_ID < dek.bin
  dekseal dek encrypt --plaintext file:dek.bin $KEY_ID")]
    Encrypt {
        /// The ID of the key to seal under
        key_id: KeyId,
        #[command(flatten)]
        context: ContextArgs,
        /// Where the plaintext DEK is: file:PATH, env:NAME, fd:N, command:COMMAND or credential:NAME
        #[arg(long, value_name = "SOURCE", default_value = "fd:0", hide_default_value = true)]
        plaintext: String,
        /// How the sealed DEK is printed
        #[arg(long, value_enum, default_value_t = Format::Hex)]
        format: Format,
    },

    /// Seal DEKs again under the current version of their key, or under another key
    ///
    /// Reads one sealed DEK from the command line, or one from each line of standard input, and prints one line for
    /// each. The data that a DEK has encrypted does not change.
    #[command(after_help = "\
Examples:
  dekseal dek rewrap -c tenant=42 < dek.sealed > dek.renewed
  dekseal dek rewrap --to 25abe69f-ae10-44cd-bc87-1bda1de3b7d7 02009800…70C9")]
    Rewrap {
        /// The sealed DEK in hex or base64; by default DEKs are read from standard input
        sealed: Option<String>,
        /// Refuse a DEK that is sealed under another key
        #[arg(long = "key", value_name = "KEY_ID")]
        key_id: Option<KeyId>,
        /// The key to seal under, by default the same one
        #[arg(long, value_name = "KEY_ID")]
        to: Option<KeyId>,
        #[command(flatten)]
        context: ContextArgs,
        /// How the sealed DEKs are printed
        #[arg(long, value_enum, default_value_t = Format::Hex)]
        format: Format,
    },
}

pub(crate) fn run(args: Args, globals: &Globals) -> Result<(), Failure> {
    match args.command {
        Command::Create {
            key_id,
            context,
            plaintext,
            how,
            format,
        } => {
            let sink = plaintext.map(|text| Sink::parse("--plaintext", &text)).transpose()?;
            if sink.as_ref().is_some_and(Sink::is_stdout) {
                return Err(Failure::usage(
                    "--plaintext fd:1: the sealed DEK goes to standard output; name another place",
                ));
            }
            if let Some(sink) = &sink {
                sink.check(how.show_secret)?;
            }
            let (context, engine) = (context.context()?, Engine::new(globals.open()?));
            let Some(sink) = sink else {
                return print(
                    &engine.create_dek_without_plaintext(&key_id, &context)?,
                    format,
                    globals,
                );
            };
            // A sealed DEK without its plaintext does no harm, so it comes first.
            let (dek, sealed) = engine.create_dek(&key_id, &context)?;
            print(&sealed, format, globals)?;
            sink.write(dek.expose_secret(), how.hex)
        }
        Command::Open {
            sealed,
            key_id,
            context,
            plaintext,
            how,
        } => {
            let sink = plaintext.map_or(Ok(Sink::STDOUT), |text| Sink::parse("--plaintext", &text))?;
            if sink.is_stdout() && globals.json {
                return Err(Failure::usage(
                    "JSON never holds a plaintext DEK; pass --plaintext file:PATH with --json",
                ));
            }
            sink.check(how.show_secret)?;
            let context = context.context()?;
            let sealed = one(sealed.as_deref())?;
            let engine = Engine::new(globals.open()?);
            let dek = engine.decrypt_dek(&key_id.unwrap_or(sealed.key_id()), &context, &sealed)?;
            sink.write(dek.expose_secret(), how.hex)?;
            if globals.json {
                output::write(|out| {
                    output::line(
                        out,
                        &json!({
                            "key_id": sealed.key_id().as_str(),
                            "key_version": sealed.key_version(),
                        }),
                    )
                })?;
            }
            Ok(())
        }
        Command::Encrypt {
            key_id,
            context,
            plaintext,
            format,
        } => {
            let context = context.context()?;
            let bytes = Kind::parse("--plaintext", &plaintext)?.read(material::DEK)?;
            let Some(bytes) = bytes.first_chunk() else {
                return Err(Failure::key("--plaintext is not a DEK of 64 bytes; name one"));
            };
            let engine = Engine::new(globals.open()?);
            print(
                &engine.encrypt_dek(&key_id, &context, &Dek::from_bytes(bytes))?,
                format,
                globals,
            )
        }
        Command::Rewrap {
            sealed,
            key_id,
            to,
            context,
            format,
        } => {
            let (context, engine) = (context.context()?, Engine::new(globals.open()?));
            let rewrap = |sealed: SealedDek| {
                let from = key_id.unwrap_or(sealed.key_id());
                let renewed = match to {
                    Some(to) => engine.rewrap_dek_to((&from, &context), &sealed, (&to, &context))?,
                    None => *engine.rewrap_dek(&from, &context, &sealed)?.sealed(),
                };
                print(&renewed, format, globals)
            };
            match sealed {
                Some(sealed) => rewrap(parse("the argument", sealed.as_bytes())?),
                None => each_line(rewrap),
            }
        }
    }
}

/// The sealed DEK of the command line or of standard input.
fn one(argument: Option<&str>) -> Result<SealedDek, Failure> {
    if let Some(text) = argument {
        return parse("the argument", text.as_bytes());
    }
    let mut bytes = Vec::new();
    let read = io::stdin().lock().take(LONGEST).read_to_end(&mut bytes);
    read.map_err(|error| Failure::of_io("standard input", &error))?;
    parse("standard input", &bytes)
}

/// No text form of a sealed DEK is longer.
const LONGEST: u64 = 1024;

fn each_line(mut take: impl FnMut(SealedDek) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut input = io::stdin().lock();
    for number in 1_u64.. {
        let mut line = Vec::new();
        let read = input.by_ref().take(LONGEST).read_until(b'\n', &mut line);
        if read.map_err(|error| Failure::of_io("standard input", &error))? == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let place = format!("line {number}");
        take(parse(&place, &line)?).map_err(|failure| failure.about(&place))?;
    }
    Ok(())
}

fn parse(place: &str, bytes: &[u8]) -> Result<SealedDek, Failure> {
    if let Ok(sealed) = SealedDek::from_bytes(bytes) {
        return Ok(sealed);
    }
    decode::any(bytes.trim_ascii()).map_err(|reason| {
        Failure::data(format!(
            "{place}: {reason}; a sealed DEK has 188 bytes, raw, in hex or in base64"
        ))
    })
}

fn print(sealed: &SealedDek, format: Format, globals: &Globals) -> Result<(), Failure> {
    let text = match format {
        Format::Hex => sealed.to_string(),
        Format::Base64 => Base64::encode_string(sealed.as_bytes()),
        Format::Binary if globals.json => {
            return Err(Failure::usage("JSON is text; leave out --format binary or --json"));
        }
        Format::Binary => return output::write(|out| out.write_all(sealed.as_bytes())),
    };
    let value = json!({
        "sealed_dek": text,
        "key_id": sealed.key_id().as_str(),
        "key_version": sealed.key_version(),
    });
    output::print(globals.json, &value, |out| writeln!(out, "{text}"))
}
