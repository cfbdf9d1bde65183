//! A request's body as JSON. Text is kept as bytes, since a lone surrogate in an escape makes it no UTF-8: which field that
//! breaks decides how it is refused.

use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// How deep values may stand in one another: as deep as serde_json goes by itself, and no stack gives out.
const MAX_DEPTH: usize = 128;

/// What is left of that inside an encryption context, the deepest object that any rule looks into.
const CONTEXT_DEPTH: usize = MAX_DEPTH - 2;

/// As much of a JSON value as the rules of the API look at.
pub(super) enum Value<'a> {
    Text(Text<'a>),
    /// A number as it was written.
    Number(&'a str),
    Object(Object<'a>),
    /// An array, `true`, `false` or `null`, none of which any field may be; and an object that stands deeper than a context.
    Other,
}

/// Pairs in the order of the text. No name occurs twice.
pub(super) type Object<'a> = Vec<(Text<'a>, Value<'a>)>;

/// A string after unescaping.
pub(super) enum Text<'a> {
    Borrowed(&'a [u8]),
    /// It had escapes. It may be the hex of a DEK, so it is wiped here; serde_json's own buffer, which it came through, is not.
    Unescaped(Zeroizing<Vec<u8>>),
}

impl Text<'_> {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Unescaped(bytes) => bytes,
        }
    }

    /// `None` where it holds a lone surrogate.
    pub(super) fn as_str(&self) -> Option<&str> {
        core::str::from_utf8(self.as_bytes()).ok()
    }
}

/// The body, where it is one JSON object of UTF-8 text and no name occurs twice in any of its objects.
pub(super) fn read(body: &[u8]) -> Option<Object<'_>> {
    let text = core::str::from_utf8(body).ok()?;
    read_object(text, MAX_DEPTH - 1)
}

fn read_object(text: &str, depth: usize) -> Option<Object<'_>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let object = deserializer.deserialize_map(ObjectVisitor { depth }).ok()?;
    deserializer.end().ok()?;
    Some(object)
}

/// Reads a value whose grammar is known to be right.
fn read_value(text: &str, depth: usize) -> Option<Value<'_>> {
    let inner = depth.checked_sub(1)?;
    Some(match text.as_bytes().first()? {
        b'"' => Value::Text(read_text(text)?),
        b'{' => match read_object(text, inner)? {
            object if inner >= CONTEXT_DEPTH => Value::Object(object),
            // Many small ones, kept until the last is read, would take much more memory than the body has bytes.
            _ => Value::Other,
        },
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            for item in items {
                read_value(item.get(), inner)?;
            }
            Value::Other
        }
        b'-' | b'0'..=b'9' => Value::Number(text),
        _ => Value::Other,
    })
}

/// Reads a string whose grammar is known to be right.
fn read_text(text: &str) -> Option<Text<'_>> {
    let within = text.get(1..text.len().saturating_sub(1));
    match within.filter(|within| !within.contains('\\')) {
        Some(plain) => Some(Text::Borrowed(plain.as_bytes())),
        None => serde_json::from_str(text).ok(),
    }
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
        // serde_json gives a lone surrogate to whoever asks for bytes, as three bytes that are no UTF-8.
        deserializer.deserialize_bytes(TextVisitor)
    }
}

struct ObjectVisitor {
    depth: usize,
}

impl<'a> Visitor<'a> for ObjectVisitor {
    type Value = Object<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object in which no name occurs twice")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Object<'a>, A::Error> {
        let refused = || A::Error::invalid_value(Unexpected::Map, &self);
        let mut object = Object::new();
        // As it stands first, since that takes the grammar of the JSON text to the letter; to ask for bytes does not.
        while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            let name = read_text(name.get()).ok_or_else(refused)?;
            let value = read_value(value.get(), self.depth).ok_or_else(refused)?;
            object.push((name, value));
        }
        let mut names: Vec<&[u8]> = object.iter().map(|(name, _)| name.as_bytes()).collect();
        names.sort_unstable();
        if names.is_sorted_by(|a, b| a < b) {
            Ok(object)
        } else {
            Err(refused())
        }
    }
}
