//! What the catalogue of the database says about a table.

use dekseal_postgres::tokio_postgres::types::Type;

use super::{
    super::table::{Request, no_column, quote},
    column,
    session::Session,
};
use crate::failure::Failure;

/// A table with the columns that the sweep needs.
pub(super) struct Found {
    pub(super) database: String,
    pub(super) oid: i64,
    /// The name for people.
    pub(super) table: String,
    /// The table in a `FROM`.
    pub(super) from: String,
    pub(super) key: Vec<KeyColumn>,
    pub(super) column: String,
    pub(super) cells: Vec<String>,
    pub(super) is_text: bool,
}

pub(super) struct KeyColumn {
    pub(super) name: String,
    /// The type to which a text is cast.
    pub(super) cast: String,
}

/// A column of the table. The type of a domain is the one below it.
struct Column {
    name: String,
    namespace: String,
    kind: String,
    is_enum: bool,
}

/// The types whose text is read back exactly, and whose values have an order without exceptions.
const KEY_TYPES: [&str; 12] = [
    "int2",
    "int4",
    "int8",
    "numeric",
    "text",
    "varchar",
    "bpchar",
    "uuid",
    "bytea",
    "date",
    "timestamp",
    "timestamptz",
];

/// The types that have one text in every program.
const CONTEXT_TYPES: [&str; 8] = ["int2", "int4", "int8", "numeric", "text", "varchar", "uuid", "bool"];

const TABLE: &str = "SELECT c.oid::pg_catalog.int8, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, \
     c.relkind::pg_catalog.text, pg_catalog.current_database()::pg_catalog.text, \
     c.relkind <> 'p' AND EXISTS (SELECT 1 FROM pg_catalog.pg_inherits WHERE inhparent = c.oid) \
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.oid = pg_catalog.to_regclass($1)";

const COLUMNS: &str = "WITH RECURSIVE base(name, number, type) AS ( \
         SELECT attname, attnum, atttypid FROM pg_catalog.pg_attribute \
         WHERE attrelid = $1::pg_catalog.oid AND attnum > 0 AND NOT attisdropped \
         UNION ALL SELECT b.name, b.number, t.typbasetype FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.type \
         WHERE t.typtype = 'd') \
     SELECT b.name::pg_catalog.text, n.nspname::pg_catalog.text, t.typname::pg_catalog.text, t.typtype = 'e' \
     FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.type \
     JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype <> 'd' ORDER BY b.number";

/// The unique indexes over whole columns that are not null and that the index compares as the column does.
const INDEXES: &str = "SELECT i.indisprimary, pg_catalog.array_agg(a.attname::pg_catalog.text ORDER BY k.at) \
     FROM pg_catalog.pg_index i \
     CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(i.indkey::pg_catalog.int2[]), \
         pg_catalog.unnest(i.indcollation::pg_catalog.oid[])) WITH ORDINALITY AS k(number, collation_id, at) \
     LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number \
     WHERE i.indrelid = $1::pg_catalog.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL \
         AND i.indexprs IS NULL AND k.at <= i.indnkeyatts \
     GROUP BY i.indexrelid, i.indisprimary \
     HAVING pg_catalog.bool_and(a.attnotnull AND a.attcollation = k.collation_id) ORDER BY i.indisprimary DESC";

pub(super) fn find(session: &mut Session, request: &Request) -> Result<Found, Failure> {
    let name = request
        .table
        .schema
        .iter()
        .chain([&request.table.name])
        .map(|name| quote(name));
    let name = name.collect::<Vec<_>>().join(".");
    let rows = session.must(TABLE, &[(&name, Type::TEXT)])?;
    let Some(row) = rows.first() else {
        return Err(Failure::usage(format!(
            "the database has no table {name}; names are taken as they are written, without changing case"
        )));
    };
    let row = Some(row);
    let (oid, namespace, table): (i64, String, String) = (column(row, 0)?, column(row, 1)?, column(row, 2)?);
    let (relation, database, inherited): (String, String, bool) = (column(row, 3)?, column(row, 4)?, column(row, 5)?);
    let quoted = format!("{}.{}", quote(&namespace), quote(&table));
    let shown = format!("{namespace}.{table}");
    if !matches!(relation.as_str(), "r" | "p") {
        return Err(Failure::usage(format!(
            "{shown} is not a table; name the table below it"
        )));
    }
    if inherited {
        return Err(Failure::usage(format!(
            "other tables inherit from {shown}, which is not supported"
        )));
    }

    let columns = columns(session, oid)?;
    let get = |name: &str| {
        let found = columns.iter().find(|column| column.name == name);
        found.ok_or_else(|| no_column(&shown, name))
    };
    let value = get(&request.column)?;
    let is_text = match value.built_in() {
        "bytea" => false,
        "text" | "varchar" | "bpchar" => true,
        _ => return Err(value.refused("holds neither bytes nor text")),
    };
    for cell in &request.cells {
        let cell = get(cell)?;
        if !cell.is_enum && !CONTEXT_TYPES.contains(&cell.built_in()) {
            return Err(cell.refused("cannot be part of a context, because programs write it as different texts"));
        }
    }
    for name in &request.key {
        get(name)?;
    }
    let mut key = Vec::new();
    for name in unique(session, oid, request, &shown)? {
        let part = get(&name)?;
        if !part.is_enum && !KEY_TYPES.contains(&part.built_in()) {
            return Err(part.refused("is not supported as a key"));
        }
        if name == request.column {
            return Err(Failure::usage(format!(
                "the column {name} cannot be both the key and the blob column"
            )));
        }
        key.push(KeyColumn {
            cast: format!("{}.{}", quote(&part.namespace), quote(&part.kind)),
            name,
        });
    }
    Ok(Found {
        database,
        oid,
        table: shown,
        // A table without `ONLY` includes tables that inherit from it later.
        from: if relation == "p" {
            quoted
        } else {
            format!("ONLY {quoted}")
        },
        key,
        column: request.column.clone(),
        cells: request.cells.clone(),
        is_text,
    })
}

fn columns(session: &mut Session, oid: i64) -> Result<Vec<Column>, Failure> {
    let rows = session.must(COLUMNS, &[(&oid, Type::INT8)])?;
    let read = rows.iter().map(|row| {
        let row = Some(row);
        Ok(Column {
            name: column(row, 0)?,
            namespace: column(row, 1)?,
            kind: column(row, 2)?,
            is_enum: column(row, 3)?,
        })
    });
    read.collect()
}

/// The columns of the unique index that gives the order of the sweep.
fn unique(session: &mut Session, oid: i64, request: &Request, table: &str) -> Result<Vec<String>, Failure> {
    let rows = session.must(INDEXES, &[(&oid, Type::INT8)])?;
    for row in &rows {
        let (primary, columns): (bool, Vec<String>) = (column(Some(row), 0)?, column(Some(row), 1)?);
        let named = columns.len() == request.key.len() && columns.iter().all(|column| request.key.contains(column));
        if named || (request.key.is_empty() && primary) {
            return Ok(columns);
        }
    }
    Err(match request.key.is_empty() {
        true => Failure::usage(format!(
            "the table {table} has no primary key: pass the columns of a unique index with --key-column"
        )),
        false => Failure::usage(format!(
            "the table {table} has no unique index of exactly {}, without NULL: pass the columns of one",
            request.key.join(", ")
        )),
    })
}

impl Column {
    /// The name of the type, if it comes with PostgreSQL.
    fn built_in(&self) -> &str {
        if self.namespace == "pg_catalog" { &self.kind } else { "" }
    }

    fn refused(&self, why: &str) -> Failure {
        Failure::usage(format!("the column {} of type {} {why}", self.name, self.kind))
    }
}
