//! Inspects sealed DEKs without any key: the key and the version of each, and whether it is damaged. `--help` describes
//! the options.
//!
//! ```text
//! psql -c '\copy (SELECT sealed_dek FROM files) TO STDOUT' | cargo run --release --example inspect
//! key ID                                   version       blobs
//! 0d0466b0-e727-4d9c-b35d-f84bb474a37f           0      999998
//! 0d0466b0-e727-4d9c-b35d-f84bb474a37f           1           2
//! damaged                                                    0
//! total                                                1000000
//! ```

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    ffi::OsString,
    fmt,
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, Write},
    path::Path,
    process::ExitCode,
};

use base64ct::{Base64, Base64Unpadded, Base64Url, Base64UrlUnpadded, Encoding};
use dekseal::{BlobRule, ErrorKind, KeyId, SealedDek};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use serde::Serialize;

const USAGE: &str = "usage: inspect [--format auto|hex|base64|binary] [--json] [--each] [FILE …]";

const HELP: &str = r#"
Counts sealed DEKs by key and version, and finds damaged ones. It needs no key. It checks the frame, the key ID and the
checksum of each blob; anyone can make a blob that passes. Only the key can show whether a blob opens. Reads standard
input if no FILE is given, and for the FILE -.

--format  hex or base64: one blob on each line. Hex digits of either case, also after \x or 0x. Base64 with + and / or
          with - and _, padded or not. White space around a blob and empty lines are ignored.
          binary: consecutive records of 188 bytes.
          auto, the default: recognizes binary by the beginning of each file, and hex and base64 by each line.
--each    Print a line for every blob. Without it, the first 10 damaged blobs follow the table.
--json    Print JSON instead of the table, one object on each line:
          {"type":"blob","file":F,"line":N,"key_id":K,"key_version":V}   every undamaged blob, only with --each
          {"type":"damaged","file":F,"line":N,"rule":R}                  every damaged blob
          {"type":"key","key_id":K,"key_version":V,"blobs":N}            every key and version
          {"type":"total","whole":N,"damaged":N}                         the last line; if it is missing, the run failed
          For a binary file "record" replaces "line". Both count from 1. R is the first rule of docs/FORMAT.md A5 that
          the blob breaks: length, version, body_length, key_id or checksum; or encoding, if the line is neither hex nor
          base64.

Exit code 0: no blob is damaged. 1: some are. 2: the arguments are wrong, or a file could not be read, or the output
could not be written; then the counts are missing or incomplete."#;

/// Every text form of a blob is much shorter, including white space. Longer lines are not kept in memory.
const LONGEST_LINE: usize = 1024;

/// The number of damaged blobs shown after the table.
const SHOWN: usize = 10;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    match run() {
        Ok(damaged) => ExitCode::from(u8::from(damaged)),
        Err(error) => {
            // The reader closed the pipe. This is not an error, but there is no result either.
            let closed = error.downcast_ref().map(io::Error::kind) == Some(io::ErrorKind::BrokenPipe);
            if !closed {
                eprintln!("inspect: {error}");
            }
            ExitCode::from(2)
        }
    }
}

/// Returns whether any blob is damaged.
fn run() -> Result<bool> {
    let (mut format, mut json, mut each, mut files) = (None, false, false, Vec::new());
    let mut arguments = env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--format") => {
                format = match arguments.next().as_ref().and_then(|format| format.to_str()) {
                    Some("auto") => None,
                    Some("hex") => Some(Format::Hex),
                    Some("base64") => Some(Format::Base64),
                    Some("binary") => Some(Format::Binary),
                    _ => return Err(USAGE.into()),
                }
            }
            Some("--json") => json = true,
            Some("--each") => each = true,
            Some("--help") => {
                writeln!(io::stdout(), "{USAGE}\n{HELP}")?;
                return Ok(false);
            }
            Some("--") => files.extend(arguments.by_ref()),
            Some(option) if option.starts_with('-') && option != "-" => return Err(USAGE.into()),
            _ => files.push(argument),
        }
    }
    if files.is_empty() {
        files.push("-".into());
    }

    let bar = progress(&files, json || each)?;
    let mut report = Report::new(BufWriter::new(io::stdout().lock()), json, each);
    for file in &files {
        let name = Path::new(file).display().to_string();
        if file == "-" {
            inspect(bar.wrap_read(io::stdin().lock()), &name, format, &mut report)?;
        } else {
            let input = File::open(file).map_err(|error| format!("{name}: {error}"))?;
            inspect(bar.wrap_read(input), &name, format, &mut report)?;
        }
    }
    bar.finish_and_clear();
    report.finish()
}

/// A progress bar for all files together. It is shown only on a terminal, and only if nothing else is printed there.
fn progress(files: &[OsString], streams: bool) -> Result<ProgressBar> {
    // Only a regular file has a meaningful length.
    let mut total = Some(0);
    for file in files {
        total = match fs::metadata(file) {
            _ if file == "-" => None,
            Ok(file) if !file.is_file() => None,
            Ok(file) => total.map(|total| total + file.len()),
            Err(error) => return Err(format!("{}: {error}", Path::new(file).display()).into()),
        }
    }
    let (bar, style) = match total {
        _ if streams && io::stdout().is_terminal() => return Ok(ProgressBar::hidden()),
        Some(total) => (
            ProgressBar::new(total),
            "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        ),
        None => (ProgressBar::no_length(), "{spinner} {bytes}, {bytes_per_sec}"),
    };
    Ok(bar
        .with_style(ProgressStyle::with_template(style)?)
        .with_finish(ProgressFinish::AndClear))
}

#[derive(Clone, Copy)]
enum Format {
    Hex,
    Base64,
    Binary,
}

/// The position of a blob.
#[derive(Clone, Copy, Serialize)]
struct Place<'a> {
    file: &'a str,
    #[serde(flatten)]
    at: At,
}

/// Counts from 1.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum At {
    Line(u64),
    Record(u64),
}

/// What is wrong with a blob.
enum Fault {
    /// The line is not in this format, or in no known format if none was given.
    Encoding(Option<Format>),
    Blob(ErrorKind),
}

/// Reports every blob of a file.
fn inspect(input: impl Read, name: &str, format: Option<Format>, report: &mut Report<impl Write>) -> Result<()> {
    let unreadable = |error| format!("{name}: {error}");
    let mut input = BufReader::with_capacity(1 << 18, input);
    let mut head = Vec::new();
    let read = input.by_ref().take(SealedDek::LEN as u64).read_to_end(&mut head);
    read.map_err(unreadable)?;
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
            parse(&buffer)
        } else if buffer.len() == LONGEST_LINE && !buffer.ends_with(b"\n") {
            input.skip_until(b'\n').map_err(unreadable)?;
            Err(Fault::Blob(ErrorKind::NotABlob(BlobRule::Length)))
        } else {
            match buffer.trim_ascii() {
                [] => continue,
                line => decode(line, format, &mut [0; LONGEST_LINE]),
            }
        };
        let at = if binary { At::Record(number) } else { At::Line(number) };
        report.take(Place { file: name, at }, blob)?;
    }
    Ok(())
}

/// Text is UTF-8 without NUL. The second byte of a blob is NUL. If that byte is damaged, the rest is still not UTF-8.
fn is_binary(head: &[u8]) -> bool {
    // The last character may be incomplete.
    let text = std::str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true);
    !text || head.contains(&0)
}

fn decode(line: &[u8], format: Option<Format>, room: &mut [u8; LONGEST_LINE]) -> Result<SealedDek, Fault> {
    // Prefixes of hex: psql prints the first, COPY of PostgreSQL prints the second, MySQL and others print the third.
    let prefixes: [&[u8]; 3] = [br"\x", br"\\x", b"0x"];
    let behind = prefixes.iter().find_map(|prefix| line.strip_prefix(*prefix));
    let hex = match format {
        // The base64 of an undamaged blob begins with "AgCY".
        None => behind.is_some() || line.iter().all(u8::is_ascii_hexdigit),
        Some(format) => matches!(format, Format::Hex),
    };
    let bytes = if hex {
        let digits = behind.unwrap_or(line);
        let room = &mut room[..digits.len() / 2];
        base16ct::mixed::decode(digits, room).ok()
    } else {
        let url = line.iter().any(|byte| matches!(byte, b'-' | b'_'));
        let decoded = match (url, line.ends_with(b"=")) {
            (false, false) => Base64Unpadded::decode(line, room),
            (false, true) => Base64::decode(line, room),
            (true, false) => Base64UrlUnpadded::decode(line, room),
            (true, true) => Base64Url::decode(line, room),
        };
        decoded.ok()
    };
    parse(bytes.ok_or(Fault::Encoding(format))?)
}

fn parse(bytes: &[u8]) -> Result<SealedDek, Fault> {
    SealedDek::from_bytes(bytes).map_err(|error| Fault::Blob(error.kind()))
}

/// The counts so far, and the output.
struct Report<W> {
    output: W,
    json: bool,
    each: bool,
    whole: BTreeMap<(KeyId, u32), u64>,
    damaged: u64,
    /// The first damaged blobs, which are printed at the end.
    shown: Vec<String>,
}

/// A line of JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Blob {
        #[serde(flatten)]
        place: Place<'a>,
        key_id: &'a str,
        key_version: u32,
    },
    Damaged {
        #[serde(flatten)]
        place: Place<'a>,
        rule: &'a str,
    },
    Key {
        key_id: &'a str,
        key_version: u32,
        blobs: u64,
    },
    Total {
        whole: u64,
        damaged: u64,
    },
}

impl<W: Write> Report<W> {
    fn new(output: W, json: bool, each: bool) -> Self {
        Self {
            output,
            json,
            each,
            whole: BTreeMap::new(),
            damaged: 0,
            shown: Vec::new(),
        }
    }

    fn take(&mut self, place: Place<'_>, blob: Result<SealedDek, Fault>) -> Result<()> {
        match blob {
            Ok(sealed) => {
                let (key_id, key_version) = (sealed.key_id(), sealed.key_version());
                *self.whole.entry((key_id, key_version)).or_default() += 1;
                if self.each && self.json {
                    let key_id = key_id.as_str();
                    self.line(&Line::Blob {
                        place,
                        key_id,
                        key_version,
                    })?;
                } else if self.each {
                    writeln!(self.output, "{place}: {key_id} version {key_version}")?;
                }
            }
            Err(fault) => {
                self.damaged += 1;
                if self.json {
                    let rule = fault.rule();
                    self.line(&Line::Damaged { place, rule })?;
                } else if self.each {
                    writeln!(self.output, "{place}: {fault}")?;
                } else if self.shown.len() < SHOWN {
                    self.shown.push(format!("{place}: {fault}"));
                }
            }
        }
        Ok(())
    }

    /// Prints the counts. Returns whether any blob is damaged.
    fn finish(mut self) -> Result<bool> {
        let counts = std::mem::take(&mut self.whole);
        let (whole, damaged) = (counts.values().sum::<u64>(), self.damaged);
        if self.json {
            for ((key_id, key_version), blobs) in counts {
                let key_id = key_id.as_str();
                self.line(&Line::Key {
                    key_id,
                    key_version,
                    blobs,
                })?;
            }
            self.line(&Line::Total { whole, damaged })?;
        } else {
            let mut row =
                |name: &str, version: &str, blobs: &str| writeln!(self.output, "{name:36}  {version:>10}  {blobs:>10}");
            row("key ID", "version", "blobs")?;
            for ((key_id, key_version), blobs) in counts {
                row(key_id.as_str(), &key_version.to_string(), &blobs.to_string())?;
            }
            row("damaged", "", &damaged.to_string())?;
            row("total", "", &(whole + damaged).to_string())?;
            for damaged in &self.shown {
                writeln!(self.output, "{damaged}")?;
            }
            let rest = damaged - self.shown.len() as u64;
            if !self.each && rest > 0 {
                writeln!(self.output, "and {rest} more")?;
            }
        }
        self.output.flush()?;
        Ok(damaged > 0)
    }

    fn line(&mut self, line: &Line<'_>) -> Result<()> {
        serde_json::to_writer(&mut self.output, line).map_err(io::Error::from)?;
        Ok(self.output.write_all(b"\n")?)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file;
        match self.at {
            At::Line(number) => write!(f, "{file}: line {number}"),
            At::Record(number) => write!(f, "{file}: record {number}"),
        }
    }
}

impl Fault {
    fn rule(&self) -> &'static str {
        match self {
            Self::Encoding(_) => "encoding",
            Self::Blob(ErrorKind::NotABlob(BlobRule::Length)) => "length",
            Self::Blob(ErrorKind::NotABlob(BlobRule::Version)) => "version",
            Self::Blob(ErrorKind::NotABlob(BlobRule::BodyLength)) => "body_length",
            Self::Blob(ErrorKind::MalformedKeyId) => "key_id",
            Self::Blob(ErrorKind::DamagedBlob) => "checksum",
            Self::Blob(_) => "other",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding(Some(Format::Hex)) => f.write_str("not hex"),
            Self::Encoding(Some(Format::Base64)) => f.write_str("not base64"),
            Self::Encoding(_) => f.write_str("neither hex nor base64"),
            Self::Blob(kind) => kind.fmt(f),
        }
    }
}
