//! What the schema says about a table.

use rusqlite::{Connection, OptionalExtension};

use super::super::table::{Request, no_column, quote};
use crate::failure::Failure;

/// A table with the columns that order it.
pub(super) struct Found {
    pub(super) table: String,
    pub(super) key: Vec<KeyColumn>,
}

pub(super) struct KeyColumn {
    pub(super) name: String,
    /// The collation of the index, which is the order of the sweep.
    pub(super) collation: String,
}

struct Column {
    name: String,
    kind: String,
    not_null: bool,
    in_primary_key: bool,
}

/// The names of the row number, in a table that has one.
const ROWID: [&str; 3] = ["rowid", "_rowid_", "oid"];

/// The outer error is SQLite's, the inner one says what is wrong with the table.
pub(super) fn find(database: &Connection, request: &Request) -> Result<Result<Found, Failure>, rusqlite::Error> {
    let name = &request.table.name;
    if request.table.schema.as_deref().is_some_and(|schema| schema != "main") {
        return Ok(Err(Failure::usage(
            "--table names another schema than main, which SQLite does not have here",
        )));
    }
    let table = database
        .query_row(
            "SELECT type, wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1",
            [name],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)),
        )
        .optional()?;
    let without_rowid = match table {
        Some((kind, without_rowid)) if kind == "table" => without_rowid,
        Some((kind, _)) => {
            return Ok(Err(Failure::usage(format!(
                "{name} is not a table, but of type {kind}"
            ))));
        }
        None => {
            return Ok(Err(Failure::usage(format!(
                "the database has no table {name}; names are taken as they are written, without changing case"
            ))));
        }
    };
    let columns = columns(database, name)?;
    let has = |wanted: &str| columns.iter().any(|column| column.name == wanted);
    for wanted in request.cells.iter().chain([&request.column]) {
        if !has(wanted) {
            return Ok(Err(no_column(name, wanted)));
        }
    }
    let rowid = |column: &str| !without_rowid && ROWID.contains(&column) && !has(column);
    if let Some(missing) = request.key.iter().find(|column| !has(column) && !rowid(column)) {
        return Ok(Err(no_column(name, missing)));
    }
    let primary: Vec<_> = columns.iter().filter(|column| column.in_primary_key).collect();
    let wanted = |found: &[KeyColumn], is_primary: bool| match request.key.is_empty() {
        true => is_primary,
        false => found.len() == request.key.len() && found.iter().all(|column| request.key.contains(&column.name)),
    };
    let mut candidates = Vec::new();
    // The row number, under its own name or as `INTEGER PRIMARY KEY`.
    if let [column] = request.key.as_slice()
        && rowid(column)
    {
        candidates.push((vec![KeyColumn::number(column)], false));
    }
    if let [column] = primary.as_slice()
        && !without_rowid
        && column.kind.eq_ignore_ascii_case("INTEGER")
    {
        candidates.push((vec![KeyColumn::number(&column.name)], true));
    }
    candidates.extend(indexes(database, name)?);
    let Some((key, _)) = candidates
        .into_iter()
        .find(|(key, is_primary)| wanted(key, *is_primary))
    else {
        return Ok(Err(match request.key.is_empty() {
            true => Failure::usage(format!(
                "the table {name} has no primary key: pass the columns of a unique index with --key-column, or rowid"
            )),
            false => Failure::usage(format!(
                "the table {name} has no unique index of exactly {}: pass the columns of one, or rowid",
                request.key.join(", ")
            )),
        }));
    };
    if key.iter().any(|column| column.name == request.column) {
        return Ok(Err(Failure::usage(format!(
            "the column {} cannot be both the key and the blob column",
            request.column
        ))));
    }
    // In a table with row numbers even the columns of the primary key can be null, and nulls are not unique.
    for column in &key {
        let nullable = columns.iter().any(|other| other.name == column.name && !other.not_null);
        if nullable && !(without_rowid && primary.iter().any(|other| other.name == column.name)) {
            let sql = format!(
                "SELECT 1 FROM {} WHERE {} IS NULL LIMIT 1",
                quote(name),
                quote(&column.name)
            );
            if database.query_row(&sql, [], |_| Ok(())).optional()?.is_some() {
                return Ok(Err(Failure::data(format!(
                    "the key column {} is NULL in some rows: pass --key-column rowid",
                    column.name
                ))));
            }
        }
    }
    Ok(Ok(Found {
        table: name.clone(),
        key,
    }))
}

fn columns(database: &Connection, table: &str) -> Result<Vec<Column>, rusqlite::Error> {
    let mut statement = database.prepare("SELECT name, type, \"notnull\", pk FROM pragma_table_xinfo(?1)")?;
    let columns = statement.query_map([table], |row| {
        Ok(Column {
            name: row.get(0)?,
            kind: row.get(1)?,
            not_null: row.get(2)?,
            in_primary_key: row.get::<_, i64>(3)? > 0,
        })
    })?;
    columns.collect()
}

/// The unique indexes over whole columns, and whether each is that of the primary key.
fn indexes(database: &Connection, table: &str) -> Result<Vec<(Vec<KeyColumn>, bool)>, rusqlite::Error> {
    let sql = "SELECT name, origin = 'pk' FROM pragma_index_list(?1) WHERE \"unique\" AND NOT partial ORDER BY 2 DESC";
    let mut statement = database.prepare(sql)?;
    let names = statement.query_map([table], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)))?;
    let mut indexes = Vec::new();
    for name in names {
        let (name, is_primary) = name?;
        let mut statement =
            database.prepare("SELECT name, coll FROM pragma_index_xinfo(?1) WHERE key ORDER BY seqno")?;
        // The name of an expression is null.
        let columns = statement.query_map([name], |row| Ok((row.get::<_, Option<String>>(0)?, row.get(1)?)))?;
        let columns = columns.map(|column| column.map(|(name, collation)| Some(KeyColumn { name: name?, collation })));
        if let Some(columns) = columns.collect::<Result<Option<Vec<_>>, _>>()? {
            indexes.push((columns, is_primary));
        }
    }
    Ok(indexes)
}

impl KeyColumn {
    fn number(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            collation: "BINARY".into(),
        }
    }
}
