//! What commands print on standard output.

use std::io::{self, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Prints a value as one line of JSON if `json` is set, and as the text that `text` writes otherwise.
pub(crate) fn print<T: Serialize>(
    json: bool,
    value: &T,
    text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = if json {
        line(&mut stdout, value)
    } else {
        text(&mut stdout)
    };
    written
        .and_then(|()| stdout.flush())
        .map_err(|error| stdout_failed(&error))
}

/// Writes a value as one line of JSON.
pub(crate) fn line<T: Serialize + ?Sized>(output: &mut dyn Write, value: &T) -> io::Result<()> {
    serde_json::to_writer(&mut *output, value)?;
    output.write_all(b"\n")
}

pub(crate) fn stdout_failed(error: &io::Error) -> Failure {
    Failure::of_io("standard output", error)
}
