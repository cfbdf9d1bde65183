//! The statements. Keys go in and out as texts, which each type reads back exactly.

use super::{
    super::{encoding::Content, row::Value, table::quote},
    catalogue::Found,
};

pub(super) struct Sql {
    pub(super) first: String,
    pub(super) next: String,
    pub(super) again: String,
    pub(super) sample: String,
    pub(super) replace: String,
    pub(super) estimate: String,
    pub(super) count: String,
}

impl Sql {
    pub(super) fn new(found: &Found, content: Content) -> Self {
        let Found { from, key, .. } = found;
        let head = Value::HEAD;
        let column = format!("t.{}", quote(&found.column));
        let value = if found.is_text {
            format!("{column}::pg_catalog.text COLLATE \"C\"")
        } else {
            column.clone()
        };
        let begin = format!("pg_catalog.substring({value}, 1, {head})");

        let list = |item: &dyn Fn(usize, &str, &str) -> String, separator: &str| {
            let items = key
                .iter()
                .enumerate()
                .map(|(at, key)| item(at.saturating_add(1), &quote(&key.name), &key.cast));
            items.collect::<Vec<_>>().join(separator)
        };
        let keys = list(&|_, name, _| format!("t.{name}"), ", ");
        let shown = list(&|_, name, _| format!("t.{name}::pg_catalog.text"), ", ");
        let after = list(&|at, _, cast| format!("${at}::{cast}"), ", ");
        let arrays = list(&|at, _, _| format!("pg_catalog.unnest(${at}::pg_catalog.text[])"), ", ");
        let names = list(&|at, _, _| format!("k{at}"), ", ");
        let join = list(&|at, name, cast| format!("t.{name} = v.k{at}::{cast}"), " AND ");
        let locked = list(&|at, name, _| format!("t.{name} AS k{at}"), ", ");
        let same = list(&|at, name, _| format!("t.{name} = l.k{at}"), " AND ");
        let cells: String = found
            .cells
            .iter()
            .map(|cell| format!(", t.{}::pg_catalog.text", quote(cell)))
            .collect();

        let read = format!("SELECT {shown}, {begin}{cells} FROM {from} t");
        let (old, new, limit) = (
            key.len().saturating_add(1),
            key.len().saturating_add(2),
            key.len().saturating_add(1),
        );
        let array = if found.is_text { "text[]" } else { "bytea[]" };
        // Of a payload only the head is compared. Its salt is random, so no other payload has the same head.
        let (compared, replaced) = match content {
            Content::SealedDek => (value, "l.new".to_owned()),
            Content::Payload => (
                begin,
                format!("pg_catalog.overlay({}, l.new, 1, {head})", untyped(found, &column)),
            ),
        };
        Self {
            first: format!("{read} ORDER BY {keys} LIMIT $1"),
            next: format!("{read} WHERE ({keys}) > ({after}) ORDER BY {keys} LIMIT ${limit}"),
            again: format!("{read} JOIN ROWS FROM ({arrays}) AS v({names}) ON {join}"),
            sample: format!("{read} WHERE {column} IS NOT NULL LIMIT $1"),
            // Rows that another transaction has locked are left alone, so the statement waits for nobody and takes part
            // in no deadlock. A row is locked before its value is compared, so the value cannot change in between.
            // A trigger can store another value than the new one. Such a row returns 0, the number of no row. What a
            // trigger or a rule does after the update is not seen here: the second column says whether there are any.
            replace: format!(
                "WITH v AS (SELECT * FROM ROWS FROM ({arrays}, pg_catalog.unnest(${old}::pg_catalog.{array}), \
                     pg_catalog.unnest(${new}::pg_catalog.{array})) WITH ORDINALITY AS v({names}, old, new, n)), \
                 l AS (SELECT {locked}, v.new, v.n FROM {from} t JOIN v ON {join} WHERE {compared} = v.old \
                     FOR NO KEY UPDATE OF t SKIP LOCKED) \
                 UPDATE {from} t SET {} = {replaced} FROM l WHERE {same} \
                 RETURNING CASE WHEN {compared} = l.new THEN l.n ELSE 0 END, {}",
                quote(&found.column),
                followed(found.oid)
            ),
            estimate: format!(
                "SELECT COALESCE(pg_catalog.sum(GREATEST(c.reltuples, 0)), 0)::pg_catalog.float8 \
                 FROM pg_catalog.pg_class c WHERE c.oid = {oid}::pg_catalog.oid OR c.oid IN \
                 (SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = {oid}::pg_catalog.oid)",
                oid = found.oid
            ),
            count: format!("SELECT pg_catalog.count(*) FROM {from} t"),
        }
    }
}

/// `overlay` has no variant for character varying, but for text.
fn untyped(found: &Found, column: &str) -> String {
    match found.is_text {
        true => format!("{column}::pg_catalog.text"),
        false => column.to_owned(),
    }
}

/// Whether the table or a partition of it has rules, or triggers that run after an update. 2, 16 and 64 are the bits of
/// `tgtype` for BEFORE, UPDATE and INSTEAD OF.
fn followed(oid: i64) -> String {
    format!(
        "EXISTS (SELECT 1 FROM pg_catalog.pg_class c WHERE (c.oid = {oid}::pg_catalog.oid OR c.oid IN \
             (SELECT relid FROM pg_catalog.pg_partition_tree({oid}::pg_catalog.oid::pg_catalog.regclass))) \
             AND (c.relhasrules OR EXISTS (SELECT 1 FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid \
                 AND NOT g.tgisinternal AND g.tgenabled <> 'D' AND g.tgtype & (2 | 16 | 64) = 16)))"
    )
}
