//! Tables in SQLite.

mod schema;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{
    Connection as Database, ErrorCode, OpenFlags, TransactionBehavior,
    functions::{Context, FunctionFlags},
    params_from_iter,
    types::{Value as SqlValue, ValueRef},
};

use super::{
    encoding::Content,
    row::{Cell, Change, Key, KeyPart, Row, Value},
    table::{Description, Replaced, Request, SAMPLE, Table, absolute, detect, quote},
};
use crate::failure::Failure;

/// A table that was found.
pub(crate) struct Plan {
    pub(crate) description: Description,
    access: Access,
    shape: Arc<Shape>,
}

/// How to open the database.
#[derive(Clone)]
struct Access {
    path: PathBuf,
    patience: Duration,
    read_only: bool,
}

/// The statements, and what is needed to read the rows.
struct Shape {
    keys: usize,
    first: String,
    next: String,
    one: String,
    sample: String,
    replace: String,
    /// Finds a row by its key if it has this value.
    holds: String,
    count: String,
}

impl Plan {
    pub(super) fn find(path: &Path, request: Request) -> Result<Self, Failure> {
        let access = Access {
            path: absolute(path)?,
            patience: request.patience,
            read_only: request.read_only,
        };
        let mut database = access.open()?;
        let found = access.run(&mut database, |database| schema::find(database, &request))??;
        let shape = Arc::new(Shape::new(&found, &request));
        let encoding = match request.encoding {
            Some(encoding) => Some(encoding),
            None => {
                let sample = access.run(&mut database, |database| {
                    let mut statement = database.prepare(&shape.sample)?;
                    let texts = statement.query_map([i64::from(SAMPLE)], |row| {
                        Ok(row
                            .get_ref(0)?
                            .as_bytes()
                            .map(|text| String::from_utf8_lossy(text).into_owned())?)
                    })?;
                    texts.collect::<Result<Vec<_>, _>>()
                })?;
                detect(&request.column, sample.iter().map(String::as_str))?
            }
        };
        Ok(Self {
            description: Description {
                identity: format!("sqlite {} {}", access.path.display(), found.table),
                table: found.table,
                key: found.key.into_iter().map(|key| key.name).collect(),
                column: request.column.clone(),
                encoding,
            },
            access,
            shape,
        })
    }

    pub(super) fn connect(&self) -> Result<Connection, Failure> {
        Ok(Connection {
            database: self.access.open()?,
            access: self.access.clone(),
            shape: self.shape.clone(),
        })
    }
}

impl Access {
    fn open(&self) -> Result<Database, Failure> {
        // Without `SQLITE_OPEN_CREATE`: a database that is gone must not come back empty.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut database = Database::open_with_flags(&self.path, flags).map_err(|error| self.failed(&error))?;
        // A transaction is on the disk before it is reported: once the sweep is done, the old version may be destroyed.
        // The schema is part of the file, so it may not call functions with side effects.
        let settings = format!(
            "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON; \
             PRAGMA trusted_schema = OFF; PRAGMA query_only = {};",
            if self.read_only { "ON" } else { "OFF" }
        );
        self.run(&mut database, |database| {
            database.execute_batch(&settings)?;
            let flags =
                FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
            database.create_scalar_function(SPLICE, 2, flags, |context| splice(context))
        })?;
        Ok(database)
    }

    /// Runs `f`, and repeats it while another connection holds a lock that it needs, for as long as the patience lasts.
    fn run<T>(
        &self,
        database: &mut Database,
        mut f: impl FnMut(&mut Database) -> Result<T, rusqlite::Error>,
    ) -> Result<T, Failure> {
        self.attempt(database, &mut f)?.map_err(|error| self.failed(&error))
    }

    /// [`run`](Self::run), whose inner error is one that waiting does not mend.
    fn attempt<T>(
        &self,
        database: &mut Database,
        f: &mut impl FnMut(&mut Database) -> Result<T, rusqlite::Error>,
    ) -> Result<Result<T, rusqlite::Error>, Failure> {
        let begun = Instant::now();
        // SQLite's own wait grows to 100 ms between attempts, so with many writers it keeps coming too late.
        let patience = Duration::from_millis(20);
        database.busy_timeout(patience).map_err(|error| self.failed(&error))?;
        loop {
            match f(database) {
                Err(error) if is_busy(&error) && begun.elapsed() < self.patience => {
                    thread::sleep(Duration::from_millis(1));
                }
                outcome => return Ok(outcome),
            }
        }
    }

    fn failed(&self, error: &rusqlite::Error) -> Failure {
        let hint = if is_busy(error) {
            "; run the command again later"
        } else {
            ""
        };
        Failure::io(format!("{}: {error}{hint}", self.path.display()))
    }
}

/// The function of SQL that puts a new head before the rest of a payload.
const SPLICE: &str = "dekseal_splice";

fn splice(context: &Context<'_>) -> Result<SqlValue, rusqlite::Error> {
    let mismatch = || rusqlite::Error::UserFunctionError("the value has changed its type".into());
    match (context.get_raw(0), context.get_raw(1)) {
        (ValueRef::Blob(old), ValueRef::Blob(head)) => Ok(SqlValue::Blob(
            [head, old.get(head.len()..).unwrap_or_default()].concat(),
        )),
        (ValueRef::Text(old), ValueRef::Text(head)) => {
            let spliced = [head, old.get(head.len()..).unwrap_or_default()].concat();
            String::from_utf8(spliced).map(SqlValue::Text).map_err(|_| mismatch())
        }
        _ => Err(mismatch()),
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed)
    )
}

impl Shape {
    fn new(found: &schema::Found, request: &Request) -> Self {
        let table = quote(&found.table);
        let column = quote(&request.column);
        let list = |item: &dyn Fn(usize, &str, &str) -> String, separator: &str| {
            let items = found.key.iter().enumerate();
            let items = items.map(|(at, key)| item(at.saturating_add(1), &quote(&key.name), &quote(&key.collation)));
            items.collect::<Vec<_>>().join(separator)
        };
        let keys = list(&|_, name, _| name.to_owned(), ", ");
        let ordered = list(&|_, name, collation| format!("{name} COLLATE {collation}"), ", ");
        // The collation stands on this side, because SQLite seeks in the index only if the other side is bare columns.
        let after = list(&|at, _, collation| format!("?{at} COLLATE {collation}"), ", ");
        let same = list(
            &|at, name, collation| format!("{name} = ?{at} COLLATE {collation}"),
            " AND ",
        );
        let cells: String = request.cells.iter().map(|cell| format!(", {}", quote(cell))).collect();
        let count = found.key.len();
        let (limit, old, new) = (
            count.saturating_add(1),
            count.saturating_add(1),
            count.saturating_add(2),
        );
        let head = Value::HEAD;
        let read = format!("SELECT {keys}, typeof({column}), substr({column}, 1, {head}){cells} FROM {table}");
        // The comparison of texts is that of their bytes.
        let compared = match request.content {
            Content::SealedDek => format!("{column} COLLATE BINARY"),
            Content::Payload => format!("substr({column}, 1, {head}) COLLATE BINARY"),
        };
        Self {
            keys: count,
            first: format!("{read} ORDER BY {ordered} LIMIT ?1"),
            next: format!("{read} WHERE ({keys}) > ({after}) ORDER BY {ordered} LIMIT ?{limit}"),
            one: format!("{read} WHERE {same}"),
            sample: format!("SELECT {column} FROM {table} WHERE typeof({column}) = 'text' LIMIT ?1"),
            replace: match request.content {
                Content::SealedDek => {
                    format!("UPDATE {table} SET {column} = ?{new} WHERE {same} AND {compared} = ?{old}")
                }
                Content::Payload => format!(
                    "UPDATE {table} SET {column} = {SPLICE}({column}, ?{new}) WHERE {same} AND {compared} = ?{old}"
                ),
            },
            holds: format!("SELECT 1 FROM {table} WHERE {same} AND {compared} = ?{old}"),
            count: format!("SELECT count(*) FROM {table}"),
        }
    }

    fn read(&self, row: &rusqlite::Row<'_>) -> Result<Row, rusqlite::Error> {
        let key = (0..self.keys).map(|at| match row.get_ref(at)? {
            ValueRef::Integer(number) => Ok(KeyPart::Integer(number)),
            ValueRef::Text(text) => match str::from_utf8(text) {
                Ok(text) => Ok(KeyPart::Text(text.to_owned())),
                Err(error) => Err(rusqlite::Error::Utf8Error(at, error)),
            },
            ValueRef::Blob(bytes) => Ok(KeyPart::Blob(base16ct::lower::encode_string(bytes))),
            ValueRef::Real(_) | ValueRef::Null => {
                let name = row.as_ref().column_name(at).unwrap_or_default().to_owned();
                Err(rusqlite::Error::InvalidColumnType(
                    at,
                    name,
                    row.get_ref(at)?.data_type(),
                ))
            }
        });
        let at = self.keys;
        let kind: String = row.get(at)?;
        let value = match (kind.as_str(), row.get_ref(at.saturating_add(1))?) {
            ("null", _) => Value::Null,
            ("blob", ValueRef::Blob(bytes)) => Value::Bytes(bytes.to_vec()),
            ("text", ValueRef::Text(text)) => match str::from_utf8(text) {
                Ok(text) => Value::Text(text.to_owned()),
                Err(_) => Value::Unfit("a text that is not UTF-8"),
            },
            ("integer", _) => Value::Unfit("an integer"),
            ("real", _) => Value::Unfit("a real number"),
            _ => Value::Unfit("neither bytes nor text"),
        };
        let cells = (at.saturating_add(2)..row.as_ref().column_count()).map(|at| {
            Ok(match row.get_ref(at)? {
                ValueRef::Null => Cell::Null,
                ValueRef::Integer(number) => Cell::Text(number.to_string()),
                ValueRef::Text(text) => match str::from_utf8(text) {
                    Ok(text) => Cell::Text(text.to_owned()),
                    Err(_) => Cell::Unfit("a text that is not UTF-8"),
                },
                ValueRef::Real(_) => Cell::Unfit("a real number"),
                ValueRef::Blob(_) => Cell::Unfit("a blob"),
            })
        });
        Ok(Row {
            key: key.collect::<Result<_, rusqlite::Error>>()?,
            value,
            cells: cells.collect::<Result<_, rusqlite::Error>>()?,
        })
    }
}

/// A connection for one thread.
pub(super) struct Connection {
    database: Database,
    access: Access,
    shape: Arc<Shape>,
}

impl Table for Connection {
    fn total(&mut self) -> Result<u64, Failure> {
        let shape = &self.shape;
        let count = self.access.run(&mut self.database, |database| {
            database.query_row(&shape.count, [], |row| row.get::<_, i64>(0))
        })?;
        Ok(count.try_into().unwrap_or_default())
    }

    fn page(&mut self, after: Option<&Key>, limit: u32) -> Result<Vec<Row>, Failure> {
        let shape = &self.shape;
        let sql = if after.is_some() { &shape.next } else { &shape.first };
        let parameters: Vec<SqlValue> = after.into_iter().flatten().map(bound).collect();
        self.access.run(&mut self.database, |database| {
            let parameters = parameters.iter().cloned().chain([SqlValue::Integer(limit.into())]);
            let mut statement = database.prepare_cached(sql)?;
            let rows = statement.query_map(params_from_iter(parameters), |row| shape.read(row))?;
            rows.collect()
        })
    }

    fn again(&mut self, keys: &[Key]) -> Result<Vec<Row>, Failure> {
        let shape = &self.shape;
        self.access.run(&mut self.database, |database| {
            let mut rows = Vec::with_capacity(keys.len());
            let mut statement = database.prepare_cached(&shape.one)?;
            for key in keys {
                let found = statement.query_map(params_from_iter(key.iter().map(bound)), |row| shape.read(row))?;
                for row in found {
                    rows.push(row?);
                }
            }
            Ok(rows)
        })
    }

    fn replace(&mut self, changes: &[Change<'_>]) -> Result<Replaced, Failure> {
        let shape = &self.shape;
        let outcome = self
            .access
            .attempt(&mut self.database, &mut |database: &mut Database| {
                let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let mut done = Vec::with_capacity(changes.len());
                {
                    let mut replace = transaction.prepare_cached(&shape.replace)?;
                    let mut holds = transaction.prepare_cached(&shape.holds)?;
                    for change in changes {
                        let [old, new] = [change.old, &change.new].map(stored);
                        let key = || change.key.iter().map(bound);
                        let parameters = key().chain([old, new.clone()]);
                        let replaced = replace.execute(params_from_iter(parameters))? == 1;
                        // A trigger can undo the change.
                        done.push(replaced && holds.exists(params_from_iter(key().chain([new])))?);
                    }
                }
                transaction.commit()?;
                Ok(done)
            })?;
        match outcome {
            Ok(done) => Ok(Replaced::Done(done)),
            // A constraint or a trigger. The transaction was rolled back.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                Ok(Replaced::Refused(error.to_string()))
            }
            Err(error) => Err(self.access.failed(&error)),
        }
    }
}

fn bound(part: &KeyPart) -> SqlValue {
    match part {
        KeyPart::Integer(number) => SqlValue::Integer(*number),
        KeyPart::Text(text) => SqlValue::Text(text.clone()),
        // A state file with other digits finds no row.
        KeyPart::Blob(hex) => SqlValue::Blob(base16ct::lower::decode_vec(hex).unwrap_or_default()),
    }
}

fn stored(value: &Value) -> SqlValue {
    match value {
        Value::Bytes(bytes) => SqlValue::Blob(bytes.clone()),
        Value::Text(text) => SqlValue::Text(text.clone()),
        Value::Null | Value::Unfit(_) => SqlValue::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::table::TableName;

    /// Otherwise each page would read the table from its beginning.
    #[test]
    fn every_page_begins_with_a_search_in_the_index() {
        for (definition, key) in [
            ("(id INTEGER PRIMARY KEY, sealed)", &["id"][..]),
            ("(id bigint PRIMARY KEY, sealed)", &["id"]),
            (
                "(a TEXT COLLATE NOCASE, b, sealed, PRIMARY KEY (b, a)) WITHOUT ROWID",
                &["a", "b"],
            ),
            ("(a TEXT COLLATE NOCASE, b, sealed, UNIQUE (a, b))", &["a", "b"]),
            ("(a, sealed)", &["rowid"]),
        ] {
            let database = Database::open_in_memory().unwrap();
            database.execute_batch(&format!("CREATE TABLE t {definition}")).unwrap();
            let request = Request {
                table: TableName::parse("t").unwrap(),
                key: key.iter().map(|key| (*key).to_owned()).collect(),
                column: "sealed".into(),
                content: Content::SealedDek,
                encoding: None,
                cells: Vec::new(),
                statement_timeout: Duration::ZERO,
                patience: Duration::ZERO,
                read_only: true,
            };
            let found = schema::find(&database, &request).unwrap().unwrap();
            let shape = Shape::new(&found, &request);
            for (sql, parameters) in [
                (&shape.next, key.len() + 1),
                (&shape.one, key.len()),
                (&shape.replace, key.len() + 2),
                (&shape.holds, key.len() + 1),
            ] {
                let mut statement = database.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
                let parameters = vec![1; parameters];
                let steps = statement
                    .query_map(params_from_iter(parameters), |row| row.get::<_, String>(3))
                    .unwrap();
                let steps: Vec<_> = steps.map(Result::unwrap).collect();
                assert!(
                    steps.len() == 1 && steps[0].starts_with("SEARCH t USING"),
                    "{sql}: {steps:?}"
                );
            }
        }
    }
}
