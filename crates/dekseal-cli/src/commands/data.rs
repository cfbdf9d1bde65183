//! `dekseal encrypt`, `decrypt` and `rewrap`.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, IsTerminal, Read, Write},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use dekseal::{Engine, Error, ErrorKind, KeyId, PayloadRule, payload::PayloadHeader};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    context::ContextArgs, failure::Failure, globals::Globals, keyring::AnyKeyring, output, output_file, progress,
};

/// The lengths of files that are encrypted and decrypted on all cores. The memory that this takes is twice the length.
const PARALLEL: RangeInclusive<u64> = 1 << 20..=256 << 20;

/// Where the data comes from, and where it goes.
#[derive(clap::Args)]
struct Files {
    /// The file to read; standard input if it is missing, or -
    #[arg(value_name = "INPUT")]
    input: Option<PathBuf>,
    /// The file to write; standard output if it is missing, or -
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the output if it exists, in one step
    #[arg(short, long, requires = "output")]
    force: bool,
}

/// Encrypt a file or a pipe under a key
///
/// Any length takes constant memory. A file appears under its name when it is complete and on disk, readable only by
/// its owner; after an error or a kill no part of it remains. Only with --force, a kill can leave a complete copy
/// beside it, as .NAME.*.tmp.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dekseal encrypt --key $KEY_ID -c tenant=42 -o report.sealed report.pdf
  tar c photos | dekseal encrypt --key $KEY_ID > photos.sealed")]
pub(crate) struct Encrypt {
    /// The key to encrypt under
    #[arg(short, long = "key", value_name = "KEY_ID")]
    key_id: KeyId,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    files: Files,
}

/// Decrypt a file or a pipe
///
/// What is written was verified before. If the end of the input is missing or changed, the exit code is 1, and a file
/// is not made; a program that reads the pipe must wait for the exit code.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dekseal decrypt -c tenant=42 -o report.pdf report.sealed
  dekseal decrypt < photos.sealed | tar x")]
pub(crate) struct Decrypt {
    /// Refuse data that is encrypted under another key
    #[arg(short, long = "key", value_name = "KEY_ID")]
    key_id: Option<KeyId>,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    files: Files,
}

/// Seal the DEKs of encrypted files again under the current version of their key, or under another key
///
/// The data does not change, so the length of a file does not matter. A file stays readable if this is killed at any
/// moment; run it again to complete the work. Meanwhile a copy of its header is beside it, as .NAME.dekseal-header.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dekseal rewrap -c tenant=42 report.sealed
  dekseal rewrap --to 25abe69f-ae10-44cd-bc87-1bda1de3b7d7 *.sealed
  dekseal rewrap - < photos.sealed > photos.renewed")]
pub(crate) struct Rewrap {
    /// Refuse data that is encrypted under another key
    #[arg(short, long = "key", value_name = "KEY_ID")]
    key_id: Option<KeyId>,
    /// The key to seal under, by default the same one
    #[arg(long, value_name = "KEY_ID")]
    to: Option<KeyId>,
    #[command(flatten)]
    context: ContextArgs,
    /// The files to change in place; - reads standard input and writes standard output
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

pub(crate) fn encrypt(args: &Encrypt, globals: &Globals) -> Result<(), Failure> {
    let context = args.context.context()?;
    let to_terminal = args.files.output.is_none() && io::stdout().is_terminal();
    if to_terminal {
        return Err(Failure::usage(
            "encrypted data is not for a terminal; pass -o FILE, redirect standard output, or pass -o - to see it",
        ));
    }
    let engine = Engine::new(globals.open()?);
    args.files.convert(|input, output| {
        if let Some(plaintext) = args.files.whole(input)? {
            return output.write_all(&engine.encrypt(&args.key_id, &context, &plaintext)?);
        }
        let mut writer = engine
            .encrypt_writer(&args.key_id, &context, output)
            .map_err(io::Error::from)?;
        copy(input, &mut writer)?;
        writer.finish()?;
        Ok(())
    })
}

pub(crate) fn decrypt(args: &Decrypt, globals: &Globals) -> Result<(), Failure> {
    let context = args.context.context()?;
    let engine = Engine::new(globals.open()?);
    args.files.convert(|input, output| {
        if let Some(payload) = args.files.whole(input)? {
            let header = read_header(&mut payload.as_slice())?;
            let key_id = args.key_id.unwrap_or(header.sealed_dek().key_id());
            return output.write_all(&engine.decrypt(&key_id, &context, &payload)?);
        }
        let header = read_header(input)?;
        let key_id = args.key_id.unwrap_or(header.sealed_dek().key_id());
        let header = header.to_bytes();
        let input = header.chain(input);
        copy(&mut engine.decrypt_reader(&key_id, &context, input)?, output)
    })
}

pub(crate) fn rewrap(args: &Rewrap, globals: &Globals) -> Result<(), Failure> {
    let engine = Engine::new(globals.open()?);
    let mut failures = Vec::new();
    for path in &args.files {
        if let Err(failure) = args.rewrap(&engine, path, globals) {
            failure.report();
            failures.push(failure);
        }
    }
    match (failures.len(), failures.first()) {
        (_, None) => Ok(()),
        // It was reported already.
        (1, Some(failure)) if args.files.len() == 1 => Err(Failure::reported(failure.exit)),
        (count, Some(failure)) => {
            let all = args.files.len();
            Err(Failure::new(
                failure.exit,
                format!("{count} of {all} files were not rewrapped; run the command again"),
            ))
        }
    }
}

impl Rewrap {
    fn rewrap(&self, engine: &Engine<AnyKeyring>, path: &Path, globals: &Globals) -> Result<(), Failure> {
        let context = self.context.context()?;
        let target = |key_id: &KeyId| self.to.unwrap_or(*key_id);
        if is_pipe(Some(path)) {
            return convert_to_stdout(path, |input, output| {
                let header = read_header(input)?;
                let key_id = self.key_id.unwrap_or(header.sealed_dek().key_id());
                let new = engine.rewrap_header(&key_id, &context, &target(&key_id), &header);
                output.write_all(&new.map_err(io::Error::from)?.to_bytes())?;
                copy(input, output)
            });
        }
        // The library names the file in most errors.
        let failed = |error: io::Error| {
            let failure = Failure::of_named_io(&error);
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if failure.to_string().contains(&*name) {
                failure
            } else {
                failure.about(path.display())
            }
        };
        let key_id = match self.key_id {
            Some(key_id) => key_id,
            None => key_of_file(path).map_err(failed)?,
        };
        let header = engine
            .rewrap_file(&key_id, &context, &target(&key_id), path)
            .map_err(failed)?;
        let (name, sealed) = (path.display(), header.sealed_dek());
        let (key_id, version) = (sealed.key_id(), sealed.key_version());
        let value = json!({ "file": name.to_string(), "key_id": key_id.as_str(), "key_version": version });
        output::print(globals.json, &value, |out| {
            writeln!(out, "{name}: under {key_id} version {version}")
        })
    }
}

/// The key that a file is encrypted under. If a kill left the header half written, the copy beside it names the key.
fn key_of_file(path: &Path) -> io::Result<KeyId> {
    let header_of = |path: &Path| read_header(&mut File::open(path)?);
    let header = header_of(path).or_else(|error| {
        let path = path.canonicalize()?;
        let mut copy = OsString::from(".");
        copy.push(path.file_name().unwrap_or_default());
        copy.push(".dekseal-header");
        header_of(&path.with_file_name(copy)).map_err(|_| error)
    })?;
    Ok(header.sealed_dek().key_id())
}

impl Files {
    /// Reads a file that is worth all cores, which only a call for the whole of it uses.
    fn whole(&self, input: &mut dyn Read) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let path = self
            .input
            .as_deref()
            .filter(|path| cfg!(feature = "parallel") && !is_pipe(Some(path)));
        let Some(metadata) = path.map(fs::metadata).transpose()?.filter(fs::Metadata::is_file) else {
            return Ok(None);
        };
        if !PARALLEL.contains(&metadata.len()) {
            return Ok(None);
        }
        let length = usize::try_from(metadata.len()).map_err(io::Error::other)?;
        // The buffer never moves, so no copy of the data is left behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(length.saturating_add(1)));
        input.take(metadata.len().saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() != length {
            return Err(io::Error::other(
                "the file changed while it was read; run the command again",
            ));
        }
        Ok(Some(bytes))
    }

    fn convert(&self, convert: impl FnOnce(&mut dyn Read, &mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
        let input = self.input.as_deref().unwrap_or(Path::new("-"));
        match self.output.as_deref() {
            Some(output) if !is_pipe(Some(output)) => {
                let (mut reader, name) = open(input)?;
                output_file::create(output, self.force, |file| {
                    convert(&mut reader, file)
                        .map_err(|error| Failure::of_io(format!("{name} to {}", output.display()), &error))
                })
            }
            _ => convert_to_stdout(input, convert),
        }
    }
}

fn convert_to_stdout(
    input: &Path,
    convert: impl FnOnce(&mut dyn Read, &mut dyn Write) -> io::Result<()>,
) -> Result<(), Failure> {
    let (mut reader, name) = open(input)?;
    let mut stdout = io::stdout().lock();
    let converted = convert(&mut reader, &mut stdout).and_then(|()| stdout.flush());
    converted.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => output::failed(&error),
        _ => Failure::of_io(format!("{name} to standard output"), &error),
    })
}

fn is_pipe(path: Option<&Path>) -> bool {
    path.is_none_or(|path| path == Path::new("-"))
}

/// Opens the input, with a progress bar for reading it. Returns it with its name.
fn open(path: &Path) -> Result<(Box<dyn Read>, String), Failure> {
    if is_pipe(Some(path)) {
        let bar = progress::bytes(None);
        return Ok((Box::new(bar.wrap_read(io::stdin())), "standard input".into()));
    }
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| Failure::of_io(&name, &error))?;
    let metadata = file.metadata().map_err(|error| Failure::of_io(&name, &error))?;
    if metadata.is_dir() {
        return Err(Failure::io(format!(
            "{name}: it is a directory; pack it first, as with `tar c {name}`"
        )));
    }
    let bar = progress::bytes(metadata.is_file().then_some(metadata.len()));
    Ok((Box::new(bar.wrap_read(file)), name))
}

/// Copies with a buffer of several segments.
fn copy(input: &mut (impl Read + ?Sized), output: &mut (impl Write + ?Sized)) -> io::Result<()> {
    let mut buffer = Zeroizing::new(vec![0; 1 << 18]);
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => output.write_all(buffer.get(..read).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn read_header(input: &mut (impl Read + ?Sized)) -> io::Result<PayloadHeader> {
    let mut header = [0; PayloadHeader::LEN];
    input.read_exact(&mut header).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::from(ErrorKind::NotAPayload(PayloadRule::Length)).into(),
        _ => error,
    })?;
    Ok(PayloadHeader::from_bytes(&header)?)
}
