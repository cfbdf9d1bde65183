//! Parses the body of a request as JSON. Text stays bytes, because an escape may hold a lone surrogate, which is not
//! UTF-8: the rule for the field decides which error that is.

use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// The deepest allowed level of a value. The body is at level 1, and its fields are at level 2.
const MAX_LEVEL: usize = 128;
const FIELD_LEVEL: usize = 2;
const CONTEXT_LEVEL: usize = FIELD_LEVEL + 1;

/// Up to this many names are compared pair by pair. More names are sorted.
const FEW: usize = 8;

/// The one field whose value may be an object.
pub(super) const CONTEXT_FIELD: &str = "encryption_context";

/// The value of a field, as far as the API has rules for it.
pub(super) enum Value<'a> {
    Text(Text<'a>),
    /// A number as it was written.
    Number(&'a str),
    /// The object in `encryption_context`. A value that is not a string is `None`.
    Context(Pairs<'a, Option<Text<'a>>>),
    /// A value of a type that the field cannot have.
    Other,
}

/// The names and values of an object, in their order in the text. No name occurs twice.
pub(super) type Pairs<'a, V> = Vec<(Text<'a>, V)>;

/// A string after unescaping.
pub(super) enum Text<'a> {
    Borrowed(&'a [u8]),
    /// The string had escapes. It may be the hex of a DEK, so this copy is wiped. serde_json's own buffer is not.
    Unescaped(Zeroizing<Vec<u8>>),
}

impl<'a> Text<'a> {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Unescaped(bytes) => bytes,
        }
    }

    /// `None` if it holds a lone surrogate.
    pub(super) fn as_str(&self) -> Option<&str> {
        core::str::from_utf8(self.as_bytes()).ok()
    }
}

/// Parses the fields of the body. Returns `None` unless the body is one JSON object of UTF-8 text and no name occurs
/// twice in any of its objects.
///
/// Takes time linear in the length of the body, however deeply its values are nested. The stack does not grow with the
/// depth.
pub(super) fn read(body: &[u8]) -> Option<Pairs<'_, Value<'_>>> {
    let text = core::str::from_utf8(body).ok()?;
    let mut reader = Reader {
        // The loop has no early exit, so it compiles to a few wide comparisons.
        has_escapes: body.iter().fold(false, |found, byte| found | (*byte == b'\\')),
        names: Vec::new(),
        open: Vec::new(),
    };
    read_pairs(text, |name, value| {
        let name = reader.text(name.as_bytes())?;
        let value = match value.as_bytes() {
            quoted @ [b'"', ..] => Value::Text(reader.text(quoted)?),
            [b'-' | b'0'..=b'9', ..] => Value::Number(value),
            [b'{', ..] if name.as_bytes() == CONTEXT_FIELD.as_bytes() => Value::Context(reader.context(value)?),
            other => {
                reader.check(other, FIELD_LEVEL)?;
                Value::Other
            }
        };
        Some((name, value))
    })
}

/// Parses an object. `read_pair` converts each name and value, which are valid JSON texts.
fn read_pairs<'a, V>(
    object: &'a str,
    read_pair: impl FnMut(&'a str, &'a str) -> Option<(Text<'a>, V)>,
) -> Option<Pairs<'a, V>> {
    let mut deserializer = serde_json::Deserializer::from_str(object);
    let pairs = deserializer.deserialize_map(PairsVisitor(read_pair)).ok()?;
    deserializer.end().ok()?;
    Some(pairs)
}

struct PairsVisitor<F>(F);

impl<'a, V, F: FnMut(&'a str, &'a str) -> Option<(Text<'a>, V)>> Visitor<'a> for PairsVisitor<F> {
    type Value = Pairs<'a, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object in which no name occurs twice")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        // The API answers every fault of the body with the same message, so this text is never shown.
        let refused = || A::Error::invalid_value(Unexpected::Map, &"another object");
        let mut pairs = Vec::new();
        // `RawValue` first: it validates the grammar strictly. Reading a string as bytes does not.
        while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            pairs.push((self.0)(name.get(), value.get()).ok_or_else(refused)?);
        }
        let distinct = match pairs.as_slice() {
            few if few.len() <= FEW => few.iter().enumerate().all(|(at, (name, _))| {
                few.iter()
                    .take(at)
                    .all(|(other, _)| other.as_bytes() != name.as_bytes())
            }),
            many => {
                let mut names: Vec<&[u8]> = many.iter().map(|(name, _)| name.as_bytes()).collect();
                names.sort_unstable();
                names.is_sorted_by(|a, b| a < b)
            }
        };
        distinct.then_some(pairs).ok_or_else(refused)
    }
}

/// Parses the parts of one body.
struct Reader<'a> {
    /// Whether any string of the body has an escape.
    has_escapes: bool,
    /// The names of all open objects inside values that no rule reads, from the outermost object to the innermost.
    names: Vec<Text<'a>>,
    /// For each open object or array inside those values: the number of names before it.
    open: Vec<usize>,
}

impl<'a> Reader<'a> {
    /// Parses a string. `quoted` includes the quotes.
    fn text(&self, quoted: &'a [u8]) -> Option<Text<'a>> {
        match quoted {
            [b'"', within @ .., b'"'] if !self.has_escapes || !within.contains(&b'\\') => Some(Text::Borrowed(within)),
            _ => serde_json::from_slice(quoted).ok(),
        }
    }

    /// Parses the object in `encryption_context`.
    fn context(&mut self, object: &'a str) -> Option<Pairs<'a, Option<Text<'a>>>> {
        read_pairs(object, |name, value| {
            let value = match value.as_bytes() {
                quoted @ [b'"', ..] => Some(self.text(quoted)?),
                other => {
                    self.check(other, CONTEXT_LEVEL)?;
                    None
                }
            };
            Some((self.text(name.as_bytes())?, value))
        })
    }

    /// Checks a value at `level` that no rule reads: its depth, and that no name occurs twice in an object.
    ///
    /// Makes one pass without recursion. The grammar was validated before.
    fn check(&mut self, value: &'a [u8], level: usize) -> Option<()> {
        let mut rest = value;
        while let Some((first, after)) = rest.split_first() {
            let start = core::mem::replace(&mut rest, after);
            match first {
                b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' => {}
                b'}' | b']' => self.close()?,
                // Any other byte is part of a value, or of a name at the same level as its value.
                _ if level.saturating_add(self.open.len()) > MAX_LEVEL => return None,
                b'{' | b'[' => self.open.push(self.names.len()),
                b'"' => {
                    let quoted;
                    (quoted, rest) = split_string(start)?;
                    // A colon follows a name, and nothing else.
                    if rest.trim_ascii_start().starts_with(b":") {
                        self.names.push(self.text(quoted)?);
                    }
                }
                _ => {}
            }
        }
        Some(())
    }

    /// Closes the innermost object or array. An array has no names.
    fn close(&mut self) -> Option<()> {
        let before = self.open.pop()?;
        let names = self.names.get_mut(before..)?;
        names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        let distinct = names.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes());
        self.names.truncate(before);
        distinct.then_some(())
    }
}

/// Splits `text` into the string that it begins with, quotes included, and the rest.
fn split_string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut escaped = false;
    let last = text.iter().skip(1).position(|byte| {
        let ends = !escaped && *byte == b'"';
        escaped = !escaped && *byte == b'\\';
        ends
    })?;
    text.split_at_checked(last.checked_add(2)?)
}

impl<'a> Deserialize<'a> for Text<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'a> Visitor<'a> for TextVisitor {
            type Value = Text<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'a [u8]) -> Result<Text<'a>, E> {
                Ok(Text::Borrowed(bytes))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Text<'a>, E> {
                Ok(Text::Unescaped(Zeroizing::new(bytes.to_vec())))
            }
        }
        // `deserialize_bytes` passes a lone surrogate on as three bytes that are not UTF-8. `deserialize_str` refuses
        // it.
        deserializer.deserialize_bytes(TextVisitor)
    }
}
