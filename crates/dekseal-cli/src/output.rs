//! What commands print on standard output.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use dekseal::UnixTime;
use serde::Serialize;

use crate::failure::Failure;

/// Prints a value as one line of JSON if `json` is set, and as the text that `text` writes otherwise.
pub(crate) fn print<T: Serialize>(
    json: bool,
    value: &T,
    text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Failure> {
    write(|out| if json { line(out, value) } else { text(out) })
}

/// Writes to standard output, with a buffer.
pub(crate) fn write(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = write(&mut out).and_then(|()| out.flush());
    written.map_err(|error| failed(&error))
}

/// Writes a value as one line of JSON.
pub(crate) fn line<T: Serialize + ?Sized>(output: &mut dyn Write, value: &T) -> io::Result<()> {
    serde_json::to_writer(&mut *output, value)?;
    output.write_all(b"\n")
}

/// A time as `2027-01-15T08:00:00Z`.
pub(crate) fn date(time: UnixTime) -> String {
    humantime::format_rfc3339_seconds(SystemTime::from(time)).to_string()
}

/// A failure to write to standard output.
pub(crate) fn failed(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => {
            Failure::io("standard output: the program that reads it has ended; not everything was written")
        }
        _ => Failure::of_io("standard output", error),
    }
}
