//! The counts of blobs, as a table or as JSON.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write},
};

use dekseal::{KeyId, SealedDek};
use serde::Serialize;

use super::decode::Fault;
use crate::output;

/// The number of damaged blobs shown after the table.
const SHOWN: usize = 10;

/// The position of a blob.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Place<'a> {
    pub(super) file: &'a str,
    #[serde(flatten)]
    pub(super) at: At,
}

/// Lines and records count from 1.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum At {
    Line(u64),
    Record(u64),
    /// The header of a payload of this many bytes of plaintext.
    PayloadLen(u64),
}

/// The counts so far, and the output.
pub(super) struct Report<W> {
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
    pub(super) fn new(output: W, json: bool, each: bool) -> Self {
        Self {
            output,
            json,
            each,
            whole: BTreeMap::new(),
            damaged: 0,
            shown: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, place: Place<'_>, blob: Result<SealedDek, Fault>) -> io::Result<()> {
        match blob {
            Ok(sealed) => {
                let (key_id, key_version) = (sealed.key_id(), sealed.key_version());
                let count = self.whole.entry((key_id, key_version)).or_default();
                *count = count.saturating_add(1);
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
                self.damaged = self.damaged.saturating_add(1);
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

    /// Prints the counts. Returns the number of damaged blobs.
    pub(super) fn finish(mut self) -> io::Result<u64> {
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
            row("total", "", &whole.saturating_add(damaged).to_string())?;
            for damaged in &self.shown {
                writeln!(self.output, "{damaged}")?;
            }
            let rest = damaged.saturating_sub(self.shown.len() as u64);
            if !self.each && rest > 0 {
                writeln!(self.output, "and {rest} more")?;
            }
        }
        self.output.flush()?;
        Ok(damaged)
    }

    fn line(&mut self, line: &Line<'_>) -> io::Result<()> {
        output::line(&mut self.output, line)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file;
        match self.at {
            At::Line(number) => write!(f, "{file}: line {number}"),
            At::Record(number) => write!(f, "{file}: record {number}"),
            At::PayloadLen(length) => write!(f, "{file}: payload of {length} bytes"),
        }
    }
}
