//! How a value is stored: as bytes, or as hex or base64 in a text.

use base64ct::{Base64Unpadded, Base64UrlUnpadded, Encoding as _};
use dekseal::{SealedDek, payload::PayloadHeader};

use super::row::{Problem, Value};

/// The encoding of values that are texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Encoding {
    /// Hex digits, also after \x or 0x
    Hex,
    /// Base64 with + and /
    Base64,
    /// Base64 with - and _
    Base64url,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    SealedDek,
    /// A payload, of which only the header is read and written.
    Payload,
}

impl Content {
    /// The number of bytes that are read and written.
    fn len(self) -> usize {
        match self {
            Self::SealedDek => SealedDek::LEN,
            Self::Payload => PayloadHeader::LEN,
        }
    }
}

impl Encoding {
    /// The encoding of a text, if it can only be one.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let (_, body) = split_prefix(text);
        let body = body.trim();
        let mut symbols = body.bytes().filter(|byte| !byte.is_ascii_whitespace());
        if body.is_empty() {
            None
        } else if body
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte.is_ascii_whitespace())
        {
            Some(Self::Hex)
        } else if symbols.clone().any(|byte| matches!(byte, b'-' | b'_')) {
            Some(Self::Base64url)
        } else if symbols.any(|byte| matches!(byte, b'+' | b'/')) {
            Some(Self::Base64)
        } else {
            None
        }
    }

    fn decode(self, text: &str, content: Content) -> Option<Vec<u8>> {
        let mut symbols: Vec<u8> = self
            .body(text)
            .bytes()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        if content == Content::Payload {
            symbols.truncate(self.symbols(content));
        } else if self != Self::Hex {
            while symbols.last() == Some(&b'=') {
                symbols.pop();
            }
        }
        let text = str::from_utf8(&symbols).ok()?;
        match self {
            Self::Hex => base16ct::mixed::decode_vec(&symbols).ok(),
            Self::Base64 => Base64Unpadded::decode_vec(text).ok(),
            Self::Base64url => Base64UrlUnpadded::decode_vec(text).ok(),
        }
    }

    /// Puts `bytes` into the places of the old ones. Everything else stays: prefix, white space, letter case, padding,
    /// and what follows the header of a payload.
    fn replace(self, text: &str, bytes: &[u8]) -> String {
        let body = self.body(text);
        let (prefix, _) = text.split_at(text.len().saturating_sub(body.len()));
        let symbols = match self {
            Self::Hex if body.bytes().any(|byte| byte.is_ascii_uppercase()) => base16ct::upper::encode_string(bytes),
            Self::Hex => base16ct::lower::encode_string(bytes),
            Self::Base64 => Base64Unpadded::encode_string(bytes),
            Self::Base64url => Base64UrlUnpadded::encode_string(bytes),
        };
        let mut symbols = symbols.chars();
        let replaced = body.chars().map(|old| match old.is_ascii_whitespace() {
            true => old,
            false => symbols.next().unwrap_or(old),
        });
        prefix.chars().chain(replaced).collect()
    }

    /// The text after a prefix of hex.
    fn body(self, text: &str) -> &str {
        match self {
            Self::Hex => split_prefix(text).1,
            Self::Base64 | Self::Base64url => text,
        }
    }

    /// The number of symbols of the header of a payload. 264 bytes end at a whole symbol in every encoding.
    fn symbols(self, content: Content) -> usize {
        const { assert!(PayloadHeader::LEN.is_multiple_of(3)) };
        match self {
            Self::Hex => content.len().saturating_mul(2),
            Self::Base64 | Self::Base64url => content.len().saturating_mul(4) / 3,
        }
    }
}

fn split_prefix(text: &str) -> (&str, &str) {
    let trimmed = text.trim_start();
    let body = ["\\x", "0x"]
        .iter()
        .find_map(|prefix| trimmed.strip_prefix(prefix))
        .unwrap_or(trimmed);
    text.split_at(text.len().saturating_sub(body.len()))
}

/// The bytes of a value: those of a sealed DEK, or the header of a payload.
pub(crate) fn decode(value: &Value, content: Content, encoding: Option<Encoding>) -> Result<Vec<u8>, Problem> {
    let mut bytes = match (value, encoding) {
        (Value::Bytes(bytes), _) => bytes.clone(),
        (Value::Text(text), Some(encoding)) => encoding
            .decode(text, content)
            .ok_or_else(|| Problem::new(format!("the text is not {}", encoding.name())))?,
        (Value::Text(_), None) => return Err(Problem::new("the value is a text, not bytes")),
        (Value::Unfit(kind), _) => return Err(Problem::new(format!("the value is {kind}"))),
        (Value::Null, _) => return Err(Problem::new("the value is NULL")),
    };
    if content == Content::Payload {
        bytes.truncate(content.len());
    }
    Ok(bytes)
}

/// The value with other bytes at its beginning.
pub(crate) fn replace(value: &Value, encoding: Option<Encoding>, new: &[u8]) -> Value {
    match (value, encoding) {
        (Value::Text(text), Some(encoding)) => Value::Text(encoding.replace(text, new)),
        (Value::Bytes(bytes), _) => {
            let rest = bytes.get(new.len()..).unwrap_or_default();
            Value::Bytes([new, rest].concat())
        }
        (value, _) => value.clone(),
    }
}

impl Encoding {
    fn name(self) -> &'static str {
        match self {
            Self::Hex => "hex",
            Self::Base64 => "base64 with + and /",
            Self::Base64url => "base64 with - and _",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: [u8; 188] = [0xfb; 188];
    const NEW: [u8; 188] = [0x1e; 188];

    fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn the_form_of_a_text_stays() {
        let wrapped = |text: String| {
            text.as_bytes()
                .chunks(76)
                .map(|line| str::from_utf8(line).unwrap())
                .collect::<Vec<_>>()
                .join("\n")
        };
        type Form = fn(&[u8]) -> String;
        let forms: [(Encoding, Form); 7] = [
            (Encoding::Hex, |bytes| base16ct::lower::encode_string(bytes)),
            (Encoding::Hex, |bytes| {
                format!("\\x{}", base16ct::lower::encode_string(bytes))
            }),
            (Encoding::Hex, |bytes| {
                format!(" 0x{}\n", base16ct::upper::encode_string(bytes))
            }),
            (Encoding::Base64, Base64Unpadded::encode_string),
            (Encoding::Base64, base64ct::Base64::encode_string),
            (Encoding::Base64url, Base64UrlUnpadded::encode_string),
            (Encoding::Base64url, base64ct::Base64Url::encode_string),
        ];
        for (encoding, form) in forms {
            for wrap in [false, true] {
                let form = |bytes| if wrap { wrapped(form(bytes)) } else { form(bytes) };
                let old = text(form(&OLD));
                assert_eq!(decode(&old, Content::SealedDek, Some(encoding)).unwrap(), OLD);
                assert_eq!(replace(&old, Some(encoding), &NEW), text(form(&NEW)));
                let Value::Text(old) = old else { unreachable!() };
                assert_eq!(Encoding::of(&old), Some(encoding), "{old}");
            }
        }
    }

    #[test]
    fn of_a_payload_only_the_header_changes() {
        let payload: Vec<u8> = (0..400).map(|at| at as u8).collect();
        let header = [9; PayloadHeader::LEN];
        let changed = [&header[..], &payload[PayloadHeader::LEN..]].concat();
        let old = Value::Bytes(payload.clone());
        assert_eq!(decode(&old, Content::Payload, None).unwrap(), payload[..264]);
        assert_eq!(replace(&old, None, &header), Value::Bytes(changed.clone()));
        for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64url] {
            let form = |bytes: &[u8]| match encoding {
                Encoding::Hex => base16ct::upper::encode_string(bytes),
                Encoding::Base64 => base64ct::Base64::encode_string(bytes),
                Encoding::Base64url => base64ct::Base64Url::encode_string(bytes),
            };
            // As it is read: the end is missing.
            let old = text(&form(&payload)[..530]);
            assert_eq!(decode(&old, Content::Payload, Some(encoding)).unwrap(), payload[..264]);
            assert_eq!(replace(&old, Some(encoding), &header), text(&form(&changed)[..530]));
        }
    }

    #[test]
    fn a_text_of_both_alphabets_is_no_evidence() {
        assert_eq!(Encoding::of(&Base64Unpadded::encode_string(&[0x69; 188])), None);
        assert_eq!(Encoding::of(""), None);
    }

    #[test]
    fn other_texts_are_problems() {
        for (value, problem) in [
            (text("zz"), "the text is not hex"),
            (Value::Unfit("a real number"), "the value is a real number"),
        ] {
            let error = decode(&value, Content::SealedDek, Some(Encoding::Hex)).unwrap_err();
            assert_eq!(error.to_string(), problem);
        }
        assert!(decode(&text("ab"), Content::SealedDek, None).is_err());
    }
}
