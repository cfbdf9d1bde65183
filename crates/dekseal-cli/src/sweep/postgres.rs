//! Tables in PostgreSQL.

mod catalogue;
mod session;
mod sql;

use std::{collections::HashMap, sync::Arc};

use dekseal_postgres::{
    Connector, Options,
    tokio_postgres::{
        self,
        types::{ToSql, Type},
    },
};

use self::{
    session::{Outcome, Session},
    sql::Sql,
};
use super::{
    row::{Cell, Change, Key, KeyPart, Row, Value},
    table::{Description, Replaced, Request, SAMPLE, Table, detect},
};
use crate::failure::Failure;

/// A table that was found.
pub(crate) struct Plan {
    connector: Connector,
    pub(crate) description: Description,
    shape: Arc<Shape>,
    settings: Arc<session::Settings>,
}

/// What is needed to read the rows.
struct Shape {
    sql: Sql,
    keys: usize,
    is_text: bool,
}

impl Plan {
    pub(super) fn find(options: Options, request: Request) -> Result<Self, Failure> {
        let settings = Arc::new(session::Settings {
            statement_timeout: request.statement_timeout,
            patience: request.patience,
            read_only: request.read_only,
        });
        let connector = options
            .connector()
            .map_err(|error| Failure::usage(format!("--database: {error}")))?;
        let mut session = Session::new(connector.clone(), settings.clone())?;
        let found = catalogue::find(&mut session, &request)?;
        let shape = Arc::new(Shape {
            sql: Sql::new(&found, request.content),
            keys: found.key.len(),
            is_text: found.is_text,
        });
        let mut description = Description {
            identity: format!("postgres {} {} {}", found.database, found.oid, found.table),
            table: found.table.clone(),
            key: found.key.iter().map(|key| key.name.clone()).collect(),
            column: request.column.clone(),
            encoding: None,
        };
        if found.is_text {
            description.encoding = match request.encoding {
                Some(encoding) => Some(encoding),
                None => {
                    let rows = shape.read(session.must(&shape.sql.sample, &[(&i64::from(SAMPLE), Type::INT8)])?)?;
                    let texts = rows.iter().filter_map(|row| match &row.value {
                        Value::Text(text) => Some(text.as_str()),
                        _ => None,
                    });
                    detect(&request.column, texts)?
                }
            };
        }
        Ok(Self {
            connector,
            description,
            shape,
            settings,
        })
    }

    pub(super) fn connect(&self) -> Result<Connection, Failure> {
        Ok(Connection {
            session: Session::new(self.connector.clone(), self.settings.clone())?,
            shape: self.shape.clone(),
        })
    }
}

/// A connection for one thread.
pub(super) struct Connection {
    session: Session,
    shape: Arc<Shape>,
}

impl Table for Connection {
    fn total(&mut self) -> Result<u64, Failure> {
        let rows = self.session.must(&self.shape.sql.estimate, &[])?;
        let estimate: f64 = column(rows.first(), 0)?;
        if estimate > 100_000.0 {
            return Ok(estimate as u64);
        }
        let rows = self.session.must(&self.shape.sql.count, &[])?;
        let count: i64 = column(rows.first(), 0)?;
        Ok(count.try_into().unwrap_or_default())
    }

    fn page(&mut self, after: Option<&Key>, limit: u32) -> Result<Vec<Row>, Failure> {
        let limit = i64::from(limit);
        let rows = match after {
            None => self.session.must(&self.shape.sql.first, &[(&limit, Type::INT8)])?,
            Some(after) => {
                let parts: Vec<&str> = after.iter().map(text).collect();
                let parts = parts.iter().map(|part| (part as &(dyn ToSql + Sync), Type::TEXT));
                let parameters: Vec<_> = parts.chain([(&limit as &(dyn ToSql + Sync), Type::INT8)]).collect();
                self.session.must(&self.shape.sql.next, &parameters)?
            }
        };
        self.shape.read(rows)
    }

    fn again(&mut self, keys: &[Key]) -> Result<Vec<Row>, Failure> {
        let columns = self.shape.transposed(keys.iter());
        let parameters: Vec<_> = columns.iter().map(|column| (column as _, Type::TEXT_ARRAY)).collect();
        let rows = self.session.must(&self.shape.sql.again, &parameters)?;
        self.shape.read(rows)
    }

    fn replace(&mut self, changes: &[Change<'_>]) -> Result<Replaced, Failure> {
        let keys = self.shape.transposed(changes.iter().map(|change| change.key));
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> =
            keys.iter().map(|column| (column as _, Type::TEXT_ARRAY)).collect();
        let values = [
            changes.iter().map(|change| change.old).collect(),
            changes.iter().map(|change| &change.new).collect(),
        ];
        let (texts, bytes): ([Vec<&str>; 2], [Vec<&[u8]>; 2]) = (values.clone().map(texts), values.map(bytes));
        for at in 0..2 {
            parameters.extend(match self.shape.is_text {
                true => texts
                    .get(at)
                    .map(|texts| (texts as &(dyn ToSql + Sync), Type::TEXT_ARRAY)),
                false => bytes
                    .get(at)
                    .map(|bytes| (bytes as &(dyn ToSql + Sync), Type::BYTEA_ARRAY)),
            });
        }
        let rows = match self.session.query(&self.shape.sql.replace, &parameters)? {
            Outcome::Rows(rows) => rows,
            Outcome::Refused(message) => return Ok(Replaced::Refused(message)),
        };
        let mut done = vec![false; changes.len()];
        let mut followed = false;
        for row in rows {
            followed |= column::<bool>(Some(&row), 1)?;
            // The numbers begin with 1. A row whose new value was not stored has the number 0.
            let number: i64 = column(Some(&row), 0)?;
            let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
            if let Some(done) = at.and_then(|at| done.get_mut(at)) {
                *done = true;
            }
        }
        if followed {
            self.look_again(changes, &mut done)?;
        }
        Ok(Replaced::Done(done))
    }
}

impl Connection {
    /// Takes rows out of `done` that do not have their new value: the database changed them after the update.
    fn look_again(&mut self, changes: &[Change<'_>], done: &mut [bool]) -> Result<(), Failure> {
        let changed = changes.iter().zip(&*done).filter(|(_, done)| **done);
        let keys: Vec<_> = changed.map(|(change, _)| change.key.clone()).collect();
        let rows = self.again(&keys)?;
        let found: HashMap<_, _> = rows.iter().map(|row| (&row.key, &row.value)).collect();
        for (change, done) in changes.iter().zip(done) {
            *done &= found.get(change.key) == Some(&&change.new);
        }
        Ok(())
    }
}

impl Shape {
    /// The columns of some keys, as arrays of texts.
    fn transposed<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Vec<Vec<&'a str>> {
        let mut columns = vec![Vec::new(); self.keys];
        for key in keys {
            for (column, part) in columns.iter_mut().zip(key) {
                column.push(text(part));
            }
        }
        columns
    }

    /// Reads rows of the key, the value and the columns of the context.
    fn read(&self, rows: Vec<tokio_postgres::Row>) -> Result<Vec<Row>, Failure> {
        let read = rows.iter().map(|row| {
            let key = (0..self.keys).map(|at| Ok(KeyPart::Text(column(Some(row), at)?)));
            let value = match self.is_text {
                true => column::<Option<String>>(Some(row), self.keys)?.map(Value::Text),
                false => column::<Option<Vec<u8>>>(Some(row), self.keys)?.map(Value::Bytes),
            };
            let cells = (self.keys.saturating_add(1)..row.len()).map(|at| {
                let text: Option<String> = column(Some(row), at)?;
                Ok(text.map_or(Cell::Null, Cell::Text))
            });
            Ok(Row {
                key: key.collect::<Result<_, Failure>>()?,
                value: value.unwrap_or(Value::Null),
                cells: cells.collect::<Result<_, Failure>>()?,
            })
        });
        read.collect()
    }
}

fn texts(values: Vec<&Value>) -> Vec<&str> {
    let texts = values.into_iter().map(|value| match value {
        Value::Text(text) => text.as_str(),
        _ => "",
    });
    texts.collect()
}

fn bytes(values: Vec<&Value>) -> Vec<&[u8]> {
    let bytes = values.into_iter().map(|value| match value {
        Value::Bytes(bytes) => bytes.as_slice(),
        _ => &[],
    });
    bytes.collect()
}

fn text(part: &KeyPart) -> &str {
    match part {
        KeyPart::Text(text) => text,
        KeyPart::Integer(_) | KeyPart::Blob(_) => "",
    }
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: Option<&'a tokio_postgres::Row>,
    at: usize,
) -> Result<T, Failure> {
    let row = row.ok_or_else(|| Failure::io("the database answered without a row"))?;
    row.try_get(at)
        .map_err(|error| Failure::io(format!("the database: {error}")))
}
