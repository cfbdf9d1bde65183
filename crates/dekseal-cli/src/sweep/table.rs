//! A table of a database, and the requests that a sweep makes to it.

use std::{path::PathBuf, time::Duration};

use super::{
    encoding::{Content, Encoding},
    postgres,
    row::{Change, Key, Row},
    sqlite,
};
use crate::{failure::Failure, keyring::Address};

/// What the command line says about a table.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) table: TableName,
    /// Empty for the primary key.
    pub(crate) key: Vec<String>,
    pub(crate) column: String,
    pub(crate) content: Content,
    pub(crate) encoding: Option<Encoding>,
    /// The columns of the context.
    pub(crate) cells: Vec<String>,
    pub(crate) statement_timeout: Duration,
    /// How long a database that does not answer is waited for.
    pub(crate) patience: Duration,
    pub(crate) read_only: bool,
}

/// The name of a table, perhaps with its schema.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TableName {
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
}

impl TableName {
    /// Parses `table`, `schema.table`, or parts in double quotes. Letters keep their case.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let mut parts = Vec::new();
        let mut part = String::new();
        let mut quoted = false;
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '"' if quoted && characters.next_if_eq(&'"').is_some() => part.push('"'),
                '"' => quoted = !quoted,
                '.' if !quoted => parts.push(std::mem::take(&mut part)),
                character => part.push(character),
            }
        }
        parts.push(part);
        let named = !quoted && parts.iter().all(|part| !part.is_empty() && !part.contains('\0'));
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(name), None, None) if named => Ok(Self { schema: None, name }),
            (Some(schema), Some(name), None) if named => Ok(Self {
                schema: Some(schema),
                name,
            }),
            _ => Err(Failure::usage(format!(
                "--table {text}: write TABLE or SCHEMA.TABLE, and names with dots in double quotes"
            ))),
        }
    }
}

/// Quotes an identifier. Both databases do it alike.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What the database says about the table.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    /// The database and the table, as a text that names no other table. It holds no password.
    pub(crate) identity: String,
    /// The name of the table for people.
    pub(crate) table: String,
    pub(crate) key: Vec<String>,
    pub(crate) column: String,
    /// `None` if the values are bytes.
    pub(crate) encoding: Option<Encoding>,
}

/// The outcome of replacing values.
#[derive(Debug)]
pub(crate) enum Replaced {
    /// For each change whether the row still had the old value, and now has the new one.
    Done(Vec<bool>),
    /// The database refused at least one of the changes, with this message, and made none of them.
    Refused(String),
}

/// A connection to the database.
pub(crate) trait Table: Send {
    /// The number of rows, about.
    fn total(&mut self) -> Result<u64, Failure>;

    /// The next rows in the order of the key.
    fn page(&mut self, after: Option<&Key>, limit: u32) -> Result<Vec<Row>, Failure>;

    /// These rows, as far as they are still there, in any order.
    fn again(&mut self, keys: &[Key]) -> Result<Vec<Row>, Failure>;

    /// Replaces values in one transaction. It does not wait for rows that another transaction has locked.
    fn replace(&mut self, changes: &[Change<'_>]) -> Result<Replaced, Failure>;
}

/// A table that was found, and how to connect to it.
pub(crate) enum Source {
    Postgres(Box<postgres::Plan>),
    Sqlite(sqlite::Plan),
}

impl Source {
    /// Looks at the table.
    pub(crate) fn find(address: Address, request: Request) -> Result<Self, Failure> {
        match address {
            Address::Postgres(options) => {
                postgres::Plan::find(*options, request).map(|plan| Self::Postgres(Box::new(plan)))
            }
            Address::Sqlite { path, table: None } => sqlite::Plan::find(&path, request).map(Self::Sqlite),
            Address::Sqlite { .. } | Address::File(_) => Err(Failure::usage(
                "--database is neither sqlite:PATH nor postgres://HOST/DATABASE; name the table with --table",
            )),
        }
    }

    pub(crate) fn description(&self) -> &Description {
        match self {
            Self::Postgres(plan) => &plan.description,
            Self::Sqlite(plan) => &plan.description,
        }
    }

    pub(crate) fn connect(&self) -> Result<Box<dyn Table>, Failure> {
        Ok(match self {
            Self::Postgres(plan) => Box::new(plan.connect()?),
            Self::Sqlite(plan) => Box::new(plan.connect()?),
        })
    }

    /// SQLite has one writer at a time.
    pub(crate) fn takes_jobs(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}

/// Decides on the encoding of a column of texts by some of its values.
pub(crate) fn detect<'a>(column: &str, texts: impl Iterator<Item = &'a str>) -> Result<Option<Encoding>, Failure> {
    let mut found: Option<Encoding> = None;
    let mut seen = false;
    for text in texts {
        seen = true;
        match (Encoding::of(text), found) {
            (Some(one), Some(other)) if one != other => {
                return Err(Failure::usage(format!(
                    "the column {column} has texts in several encodings: pass --encoding, and the others are reported"
                )));
            }
            (encoding, _) => found = found.or(encoding),
        }
    }
    if seen && found.is_none() {
        return Err(Failure::usage(format!(
            "the encoding of the column {column} cannot be told from its texts: pass --encoding"
        )));
    }
    Ok(found)
}

/// The number of values that the encoding is told by.
pub(crate) const SAMPLE: u32 = 1000;

/// The error for a column that the table does not have.
pub(crate) fn no_column(table: &str, column: &str) -> Failure {
    Failure::usage(format!(
        "the table {table} has no column {column}; names are taken as they are written, without changing case"
    ))
}

/// A path for an error and for the identity.
pub(crate) fn absolute(path: &std::path::Path) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(path).map_err(|error| Failure::of_io(path.display(), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        let name = |text| TableName::parse(text).map(|name| (name.schema, name.name)).ok();
        assert_eq!(name("document"), Some((None, "document".into())));
        assert_eq!(name("App.Document"), Some((Some("App".into()), "Document".into())));
        assert_eq!(name(r#""a.b"."c""d""#), Some((Some("a.b".into()), "c\"d".into())));
        for refused in ["", ".", "a.", ".a", "a.b.c", r#""a"#, "a\0"] {
            assert_eq!(name(refused), None, "{refused:?}");
        }
        assert_eq!(quote("a\"b"), "\"a\"\"b\"");
    }

    #[test]
    fn an_encoding_is_never_guessed() {
        assert_eq!(detect("c", ["ab", "CD"].into_iter()).unwrap(), Some(Encoding::Hex));
        assert_eq!(
            detect("c", ["xyz_", "xyz"].into_iter()).unwrap(),
            Some(Encoding::Base64url)
        );
        assert_eq!(detect("c", [].into_iter()).unwrap(), None);
        assert!(detect("c", ["xyz"].into_iter()).is_err());
        assert!(detect("c", ["xyz+", "xyz-"].into_iter()).is_err());
    }
}
