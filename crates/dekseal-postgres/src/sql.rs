//! The statements over one table.

use std::sync::Arc;

/// The schema file for administrators. It names the table `dekseal_key` throughout.
pub(crate) const SCHEMA: &str = include_str!("../schema.sql");

/// The default name of the table.
pub(crate) const DEFAULT_TABLE: &str = "dekseal_key";

pub(crate) struct Sql {
    /// The table's schema, if the host names one.
    pub(crate) schema: Option<String>,
    /// The name of the table and of the channel of notifications.
    pub(crate) table: String,
    pub(crate) get: Arc<str>,
    pub(crate) changed: Arc<str>,
    pub(crate) list: Arc<str>,
    pub(crate) quiet: Writes,
    pub(crate) notifying: Writes,
    pub(crate) listen: String,
}

/// Each of these is one statement, and so one transaction. It returns a row if it made the change.
///
/// The last parameter is the deadline, in seconds since 1970. A statement can reach the table long after its caller has
/// given up: it waits for a lock, or the server was stopped. After the deadline it must not make the change any more
/// (FORMAT.md D5). So it checks the time when it has changed the row, and fails with a division by zero.
pub(crate) struct Writes {
    pub(crate) insert: Arc<str>,
    pub(crate) update: Arc<str>,
    pub(crate) delete: Arc<str>,
}

impl Sql {
    /// Makes the statements for names that [`is_name`] accepts.
    pub(crate) fn new(schema: Option<&str>, table: &str) -> Self {
        let name = qualified(schema, table);
        let returning = |deadline: &str| {
            let in_time = format!("pg_catalog.clock_timestamp() < pg_catalog.to_timestamp({deadline})");
            format!("RETURNING key_id, 1 / ({in_time})::int AS in_time")
        };
        let insert = format!(
            "INSERT INTO {name} (key_id, revision, document) VALUES ($1, $2, $3) \
             ON CONFLICT (key_id) DO NOTHING {}",
            returning("$4")
        );
        let update = format!(
            "UPDATE {name} SET revision = $3, document = $4 WHERE key_id = $1 AND revision = $2 {}",
            returning("$5")
        );
        let delete = format!(
            "DELETE FROM {name} WHERE key_id = $1 AND revision = $2 {}",
            returning("$3")
        );
        let notifying = |statement: &str| {
            let select = format!("SELECT pg_catalog.pg_notify('{table}', key_id) FROM done WHERE in_time > 0");
            format!("WITH done AS ({statement}) {select}").into()
        };
        Self {
            schema: schema.map(str::to_owned),
            table: table.to_owned(),
            get: format!("SELECT revision, document FROM {name} WHERE key_id = $1").into(),
            changed: format!(
                "SELECT known.key_id, present.revision, present.document \
                 FROM unnest($1::text[], $2::bytea[]) AS known (key_id, revision) \
                 LEFT JOIN {name} AS present ON present.key_id = known.key_id \
                 WHERE present.revision IS DISTINCT FROM known.revision"
            )
            .into(),
            list: format!("SELECT key_id FROM {name} WHERE key_id > $1 ORDER BY key_id LIMIT $2").into(),
            notifying: Writes {
                insert: notifying(&insert),
                update: notifying(&update),
                delete: notifying(&delete),
            },
            quiet: Writes {
                insert: insert.into(),
                update: update.into(),
                delete: delete.into(),
            },
            listen: format!("LISTEN \"{table}\""),
        }
    }

    /// The contents of schema.sql, for this table.
    pub(crate) fn create_table(&self) -> String {
        SCHEMA.replace(DEFAULT_TABLE, &qualified(self.schema.as_deref(), &self.table))
    }
}

fn qualified(schema: Option<&str>, table: &str) -> String {
    match schema {
        Some(schema) => format!("\"{schema}\".\"{table}\""),
        None => format!("\"{table}\""),
    }
}

/// Whether a name can be put between single or double quotes as it is, and is not truncated: names of PostgreSQL have
/// up to 63 bytes.
pub(crate) fn is_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (1..=63).contains(&name.len()) && name.chars().all(word) && !name.starts_with(|c: char| c.is_ascii_digit())
}
