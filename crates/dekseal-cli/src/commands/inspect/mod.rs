//! `dekseal inspect`.

pub(crate) mod decode;
mod report;

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, Write},
    path::{Path, PathBuf},
};

use dekseal::{
    BlobRule, ErrorKind, PayloadRule, SealedDek,
    payload::{self, PayloadHeader},
};
use indicatif::ProgressBar;

use self::{
    decode::{Fault, Format, LONGEST_LINE, is_binary},
    report::{At, Place, Report},
};
use crate::{failure::Failure, globals::Globals, output, progress};

/// The first bytes of a payload.
const MAGIC: &[u8] = b"dekseal";

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  psql -c '\\copy (SELECT sealed_dek FROM files) TO STDOUT' | dekseal inspect
  dekseal inspect --each report.sealed")]
#[command(after_long_help = "\
Examples:
  psql -c '\\copy (SELECT sealed_dek FROM files) TO STDOUT' | dekseal inspect
  dekseal inspect --each report.sealed

Output:
  A table, and the first 10 damaged blobs. With --json, one object on each line:
    {\"type\":\"blob\",\"file\":F,\"line\":N,\"key_id\":K,\"key_version\":V}
      every undamaged blob, with --each
    {\"type\":\"damaged\",\"file\":F,\"line\":N,\"rule\":R}
      every damaged blob
    {\"type\":\"key\",\"key_id\":K,\"key_version\":V,\"blobs\":N}
      every key and version
    {\"type\":\"total\",\"whole\":N,\"damaged\":N}
      the last line; without it, the run failed
  For a binary file \"record\" replaces \"line\", and for a payload
  \"payload_len\", the length of its plaintext. R is the first rule of
  docs/FORMAT.md A5 that a blob breaks: length, version, body_length, key_id or
  checksum; or encoding, if a line is neither hex nor base64; or payload, if the
  header of a payload is damaged.

Exit codes:
  0  no blob is damaged
  1  some blobs are damaged
  2  the command line is wrong
  4  a file could not be read, or the output not written; the counts are
     incomplete")]
pub(crate) struct Args {
    /// How the blobs are written; by default it is recognized
    ///
    /// hex and base64: one blob on each line. Hex digits of either case, also after \x or 0x. Base64 with + and / or
    /// with - and _, padded or not. White space around a blob and empty lines are ignored. binary: records of 188
    /// bytes. By default, payloads and binary are recognized by the beginning of each file, and hex and base64 by each
    /// line.
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Print a line for every blob
    #[arg(long)]
    each: bool,

    /// The files with sealed DEKs or payloads; standard input if there are none, and for -
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(crate) fn run(mut args: Args, globals: &Globals) -> Result<(), Failure> {
    if args.files.is_empty() {
        args.files.push("-".into());
    }
    let bar = bar(&args, globals)?;
    let mut report = Report::new(BufWriter::new(io::stdout().lock()), globals.json, args.each);
    for path in &args.files {
        let name = path.display().to_string();
        if is_stdin(path) {
            inspect(bar.wrap_read(io::stdin().lock()), None, &name, args.format, &mut report)?;
        } else {
            let failed = |error: &io::Error| Failure::of_io(&name, error);
            let input = File::open(path).map_err(|error| failed(&error))?;
            let metadata = input.metadata().map_err(|error| failed(&error))?;
            let length = metadata.is_file().then_some(metadata.len());
            inspect(bar.wrap_read(input), length, &name, args.format, &mut report)?;
        }
    }
    bar.finish_and_clear();
    let damaged = report.finish().map_err(|error| output::failed(&error))?;
    if damaged > 0 {
        let blobs = if damaged == 1 {
            "sealed DEK is"
        } else {
            "sealed DEKs are"
        };
        return Err(Failure::data(format!(
            "{damaged} {blobs} damaged; restore them from a backup"
        )));
    }
    Ok(())
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// A progress bar for all files together. It is shown only if nothing else is printed on the terminal.
fn bar(args: &Args, globals: &Globals) -> Result<ProgressBar, Failure> {
    // Only a regular file has a meaningful length.
    let mut total = Some(0_u64);
    for path in &args.files {
        total = match fs::metadata(path) {
            _ if is_stdin(path) => None,
            Ok(file) if !file.is_file() => None,
            Ok(file) => total.map(|total| total.saturating_add(file.len())),
            Err(error) => return Err(Failure::of_io(path.display(), &error)),
        }
    }
    if (globals.json || args.each) && io::stdout().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    Ok(progress::bytes(total))
}

/// Reports every blob of a file.
fn inspect(
    input: impl Read,
    length: Option<u64>,
    name: &str,
    format: Option<Format>,
    report: &mut Report<impl Write>,
) -> Result<(), Failure> {
    let unreadable = |error: io::Error| Failure::of_io(name, &error);
    let mut input = BufReader::with_capacity(1 << 18, input);
    let mut head = Vec::new();
    let read = input.by_ref().take(PayloadHeader::LEN as u64).read_to_end(&mut head);
    read.map_err(unreadable)?;
    if format.is_none() && head.starts_with(MAGIC) {
        let rest = match length {
            Some(length) => Ok(length.saturating_sub(head.len() as u64)),
            None => io::copy(&mut input, &mut io::sink()),
        };
        let length = rest.map_err(unreadable)?.saturating_add(head.len() as u64);
        let (length, blob) = payload(&head, length);
        let at = At::PayloadLen(length);
        return report
            .take(Place { file: name, at }, blob)
            .map_err(|error| output::failed(&error));
    }
    let binary = match format {
        None => is_binary(&head),
        Some(format) => matches!(format, Format::Binary),
    };
    let (mut input, mut buffer) = (head.chain(input), Vec::new());
    for number in 1.. {
        buffer.clear();
        let longest = if binary { SealedDek::LEN } else { LONGEST_LINE };
        let mut limited = input.by_ref().take(longest as u64);
        let read = match binary {
            true => limited.read_to_end(&mut buffer),
            false => limited.read_until(b'\n', &mut buffer),
        };
        if read.map_err(unreadable)? == 0 {
            break;
        }
        let blob = if binary {
            decode::parse(&buffer)
        } else if buffer.len() == LONGEST_LINE && !buffer.ends_with(b"\n") {
            input.skip_until(b'\n').map_err(unreadable)?;
            Err(Fault::Blob(ErrorKind::NotABlob(BlobRule::Length)))
        } else {
            match buffer.trim_ascii() {
                [] => continue,
                line => decode::blob(line, format, &mut [0; LONGEST_LINE]),
            }
        };
        let at = if binary { At::Record(number) } else { At::Line(number) };
        report
            .take(Place { file: name, at }, blob)
            .map_err(|error| output::failed(&error))?;
    }
    Ok(())
}

/// The length of the plaintext of a payload, and its sealed DEK. Nothing is verified: that would need the key.
fn payload(head: &[u8], length: u64) -> (u64, Result<SealedDek, Fault>) {
    let too_short = ErrorKind::NotAPayload(PayloadRule::Length);
    let header = head.first_chunk().ok_or(too_short);
    let header = header.and_then(|bytes| PayloadHeader::from_bytes(bytes).map_err(|error| error.kind()));
    let plaintext = payload::plaintext_len(length);
    let blob = header.and_then(|header| plaintext.map(|_| *header.sealed_dek()).ok_or(too_short));
    (plaintext.unwrap_or(0), blob.map_err(Fault::Blob))
}
