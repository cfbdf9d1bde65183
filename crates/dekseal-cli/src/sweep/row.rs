//! Rows of a table, without the database that they are in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The value of one column of a key. PostgreSQL has the text of every type, SQLite the value itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KeyPart {
    Integer(i64),
    Text(String),
    /// In hex.
    Blob(String),
}

/// The key of a row: the values of the key columns.
pub(crate) type Key = Vec<KeyPart>;

/// The beginning of the value that is swept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bytes(Vec<u8>),
    Text(String),
    /// A value of this type.
    Unfit(&'static str),
}

impl Value {
    /// The number of bytes or characters that are read of each value. A sealed DEK and the header of a payload are
    /// shorter in every encoding. What follows is never read or written.
    pub(crate) const HEAD: usize = 1024;
}

/// The value of a column of the context.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Null,
    Text(String),
    /// A value of this type, which has no text that everyone agrees on.
    Unfit(&'static str),
}

/// A row as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) key: Key,
    pub(crate) value: Value,
    pub(crate) cells: Vec<Cell>,
}

/// A row whose value is to be replaced, if it is still `old`.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    pub(crate) key: &'a Key,
    pub(crate) old: &'a Value,
    pub(crate) new: Value,
}

/// Why one row could not be done. It holds no secret and no value of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem(String);

impl Problem {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn of(error: &dekseal::Error) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key as text: `id=17`, or `tenant=4, id=17`.
pub(crate) fn display_key(columns: &[String], key: &Key) -> String {
    let parts = columns.iter().zip(key).map(|(column, part)| match part {
        KeyPart::Integer(number) => format!("{column}={number}"),
        KeyPart::Text(text) => format!("{column}={}", text.escape_debug()),
        KeyPart::Blob(hex) => format!("{column}=x'{hex}'"),
    });
    parts.collect::<Vec<_>>().join(", ")
}
