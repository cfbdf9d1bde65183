//! Encrypts and decrypts files under the keys of a keyring file, which `examples/keyring.rs` makes.
//!
//! ```text
//! encrypt_file --keyring FILE --root-key-file FILE [--context KEY=VALUE …] COMMAND
//!
//! encrypt KEY_ID INPUT OUTPUT
//! decrypt KEY_ID INPUT OUTPUT
//! rewrap KEY_ID FILE [NEW_KEY_ID]   seal the DEK of FILE again, under the current version or another key
//! inspect FILE …                    show the key, the version and the length; needs no keys
//! ```
//!
//! If `rewrap` is stopped, it leaves a copy of the header beside FILE. The next `rewrap` of FILE removes the copy: see
//! `Engine::rewrap_file`.
//!
//! Files of any length need constant memory. OUTPUT appears when it is complete and on disk; after an error or a signal
//! no part of it remains. An existing file is never replaced. Errors go to standard error, with exit code 1.

#[path = "support/output.rs"]
mod output;
#[path = "support/root.rs"]
mod root;

use std::{
    env,
    error::Error,
    fs::File,
    io::{self, ErrorKind, Read, Seek},
    path::Path,
    process::ExitCode,
};

use dekseal::{
    EncryptionContext, Engine, FileKeyring,
    payload::{self, PayloadHeader},
};
use indicatif::{ProgressBar, ProgressStyle};

const USAGE: &str = "usage: encrypt_file --keyring FILE --root-key-file FILE [--context KEY=VALUE …] \
    encrypt KEY_ID INPUT OUTPUT | decrypt KEY_ID INPUT OUTPUT | rewrap KEY_ID FILE [NEW_KEY_ID] | inspect FILE …";

/// The length from which a file gets a progress bar, which is shown only on a terminal.
const LARGE: u64 = 64 << 20;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("encrypt_file: {error}");
            ExitCode::from(1)
        }
    }
}

fn run() -> Result<()> {
    let (mut keyring, mut root_file, mut pairs, mut words) = (None, None, Vec::new(), Vec::new());
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--keyring" => keyring = arguments.next(),
            "--root-key-file" => root_file = arguments.next(),
            "--context" => pairs.push(arguments.next().ok_or(USAGE)?),
            _ => words.push(argument),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["inspect", files @ ..] = words.as_slice()
        && !files.is_empty()
    {
        return files.iter().try_for_each(|file| {
            let says = inspect(file).map_err(|error| format!("{file}: {error}"))?;
            println!("{file}: {says}");
            Ok(())
        });
    }
    let (Some(keyring), Some(root_file)) = (keyring, root_file) else {
        return Err(USAGE.into());
    };
    let engine = Engine::new(FileKeyring::open(keyring, root::root(root_file)?)?);
    let pairs = pairs.iter().map(|pair| pair.split_once('=').ok_or(USAGE));
    let context = EncryptionContext::from_pairs(pairs.collect::<std::result::Result<Vec<_>, _>>()?)?;
    match words.as_slice() {
        ["encrypt", key_id, input, output] => {
            let key_id = key_id.parse()?;
            convert(input, output, |input, output| {
                let mut writer = engine.encrypt_writer(&key_id, &context, output)?;
                io::copy(input, &mut writer)?;
                writer.finish()?;
                Ok(())
            })
        }
        ["decrypt", key_id, input, output] => {
            let key_id = key_id.parse()?;
            convert(input, output, |input, output| {
                io::copy(&mut engine.decrypt_reader(&key_id, &context, input)?, output)?;
                Ok(())
            })
        }
        ["rewrap", key_id, file, new @ ..] if new.len() < 2 => {
            let new = new.first().unwrap_or(key_id).parse()?;
            let header = engine.rewrap_file(&key_id.parse()?, &context, &new, file)?;
            println!("{file}: under {new} version {}", header.sealed_dek().key_version());
            Ok(())
        }
        _ => Err(USAGE.into()),
    }
}

/// Writes `output` from the contents of `input`.
fn convert(input: &str, output: &str, convert: impl FnOnce(&mut dyn Read, &mut File) -> Result<()>) -> Result<()> {
    let mut file = open(input)?;
    output::create(Path::new(output), |output| convert(&mut file, output))
        .map_err(|error| format!("{input} to {output}: {error}").into())
}

/// Opens a file, with a progress bar for reading it.
fn open(path: &str) -> Result<impl Read> {
    let file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
    let length = file.metadata()?.len();
    let bar = if length < LARGE {
        ProgressBar::hidden()
    } else {
        ProgressBar::new(length)
    };
    let style = "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    Ok(bar.with_style(ProgressStyle::with_template(style)?).wrap_read(file))
}

fn read_header(file: &mut File) -> Result<[u8; PayloadHeader::LEN]> {
    let mut header = [0; PayloadHeader::LEN];
    file.rewind()?;
    file.read_exact(&mut header).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => "it is too short for a payload".into(),
        _ => Box::<dyn Error>::from(error),
    })?;
    Ok(header)
}

/// Describes a file by its header, which is not verified: that would need the key.
fn inspect(path: &str) -> Result<String> {
    let mut file = File::open(path)?;
    let header = PayloadHeader::from_bytes(&read_header(&mut file)?)?;
    let sealed = header.sealed_dek();
    let length = payload::plaintext_len(file.metadata()?.len()).ok_or("no payload has its length")?;
    let (key_id, version) = (sealed.key_id(), sealed.key_version());
    Ok(format!("{key_id} version {version}, {length} bytes of plaintext"))
}
