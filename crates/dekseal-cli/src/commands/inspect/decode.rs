//! Sealed DEKs as text.

use std::fmt;

use base64ct::{Base64, Base64Unpadded, Base64Url, Base64UrlUnpadded, Encoding};
use clap::ValueEnum;
use dekseal::{BlobRule, ErrorKind, SealedDek};

/// Every text form of a blob is much shorter, including white space. Longer lines are not kept in memory.
pub(super) const LONGEST_LINE: usize = 1024;

/// How blobs are written.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    Hex,
    Base64,
    Binary,
}

/// What is wrong with a blob.
pub(crate) enum Fault {
    /// The line is not in this format, or in no known format if none was given.
    Encoding(Option<Format>),
    Blob(ErrorKind),
}

/// Decodes one blob in hex or base64, without white space around it.
pub(crate) fn any(line: &[u8]) -> Result<SealedDek, Fault> {
    if line.len() > LONGEST_LINE {
        return Err(Fault::Blob(ErrorKind::NotABlob(BlobRule::Length)));
    }
    blob(line, None, &mut [0; LONGEST_LINE])
}

/// Text is UTF-8 without NUL. The second byte of a blob is NUL. If that byte is damaged, the rest is still not UTF-8.
pub(super) fn is_binary(head: &[u8]) -> bool {
    // The last character may be incomplete.
    let text = std::str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true);
    !text || head.contains(&0)
}

pub(super) fn blob(line: &[u8], format: Option<Format>, room: &mut [u8; LONGEST_LINE]) -> Result<SealedDek, Fault> {
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
        let room = room.get_mut(..digits.len() / 2);
        room.and_then(|room| base16ct::mixed::decode(digits, room).ok())
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

pub(super) fn parse(bytes: &[u8]) -> Result<SealedDek, Fault> {
    SealedDek::from_bytes(bytes).map_err(|error| Fault::Blob(error.kind()))
}

impl Fault {
    pub(super) fn rule(&self) -> &'static str {
        match self {
            Self::Encoding(_) => "encoding",
            Self::Blob(ErrorKind::NotABlob(BlobRule::Length)) => "length",
            Self::Blob(ErrorKind::NotABlob(BlobRule::Version)) => "version",
            Self::Blob(ErrorKind::NotABlob(BlobRule::BodyLength)) => "body_length",
            Self::Blob(ErrorKind::MalformedKeyId) => "key_id",
            Self::Blob(ErrorKind::DamagedBlob) => "checksum",
            Self::Blob(ErrorKind::NotAPayload(_)) => "payload",
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
