//! Many rows at once, as Arrow columns: inspect, open, rewrap, encrypt and decrypt.

mod batch;
mod contexts;
mod ffi;
mod run;
mod values;

use arrow_array::{Array as _, ArrayRef};
use dekseal::{
    EncryptionContext, Engine, Error, ErrorKind, KeyId, PayloadRule, SealedDek,
    payload::{PayloadHeader, encrypted_len, plaintext_len},
};
use pyo3::{
    exceptions::{PyMemoryError, PyTypeError, PyValueError},
    prelude::*,
};

pub(crate) use self::batch::PyBatch;
use self::{
    batch::{Builder, Extra, Kind},
    contexts::Contexts,
    ffi::Column,
    run::{Outcome, run},
    values::Bytes,
};
use crate::{
    engine::{PyEngine, decrypt_into, encrypt_into},
    keyring::AnyKeyring,
    sealed::parse_id,
};

type RustEngine = Engine<AnyKeyring>;

/// Reads the key and the version of each sealed DEK or payload, without any key. The result has a row for each value,
/// with the columns `key_id`, `key_version`, `error_kind` and `error`.
#[pyfunction]
#[pyo3(signature = (values, *, threads = None))]
pub(crate) fn inspect_column(py: Python<'_>, values: &Bound<'_, PyAny>, threads: Option<usize>) -> PyResult<PyBatch> {
    let values = Column::import(values, "values")?;
    Bytes::is_large(&values.data_type, "values")?;
    py.detach(|| {
        let mut builder = Builder::new(Kind::Inspected);
        for chunk in &values.chunks {
            let values = Bytes::of(chunk).ok_or_else(changed_type)?;
            // The length must be known before the bytes are looked at. A row that fails has 36 bytes that nobody sees.
            let length = |row| if chunk.is_valid(row) { KeyId::LEN } else { 0 };
            let (output, outcomes) = run(chunk.len(), threads, length, |row, room| {
                let Some(value) = values.get(row) else {
                    return Outcome::Null;
                };
                // A row that fails keeps text in its room.
                room.fill(b' ');
                match sealed_in(value) {
                    Ok(sealed) => {
                        room.copy_from_slice(sealed.key_id().as_bytes());
                        Outcome::Done(sealed.key_version())
                    }
                    Err(error) => Outcome::Failed(Box::new(contexts::Refused::from(error).into())),
                }
            })
            .map_err(|_| PyMemoryError::new_err(()))?;
            builder.push(output, outcomes)?;
        }
        Ok(builder.finish())
    })
}

/// The sealed DEK that a value is, or that the payload has whose beginning it is.
fn sealed_in(value: &[u8]) -> Result<SealedDek, Error> {
    match header_of(value)? {
        Some(header) => Ok(*header.sealed_dek()),
        None => SealedDek::from_bytes(value),
    }
}

/// The header of a payload, or nothing for a value that is not a payload.
fn header_of(value: &[u8]) -> Result<Option<PayloadHeader>, Error> {
    if !value.starts_with(b"dekseal") {
        return Ok(None);
    }
    let header = value.first_chunk().ok_or(ErrorKind::NotAPayload(PayloadRule::Length))?;
    PayloadHeader::from_bytes(header).map(Some)
}

/// The data type of a chunk is not that of its column.
fn changed_type() -> PyErr {
    PyTypeError::new_err("the chunks of a column have different types")
}

/// Works on a value in its context, and writes the result into the room for it.
type Work<'a> = dyn 'a + Sync + Fn(&RustEngine, &EncryptionContext, &[u8], &mut [u8]) -> Result<Extra, Error>;

/// Runs an operation over the rows of `values` and their contexts.
struct Operation<'a> {
    kind: fn(bool) -> Kind,
    /// The length of the result of a value.
    length: fn(&[u8]) -> usize,
    work: &'a Work<'a>,
}

impl Operation<'_> {
    fn run(
        self,
        py: Python<'_>,
        engine: &PyEngine,
        contexts: &Bound<'_, PyAny>,
        values: &Bound<'_, PyAny>,
        threads: Option<usize>,
    ) -> PyResult<PyBatch> {
        let values = Column::import(values, "values")?;
        let large = Bytes::is_large(&values.data_type, "values")?;
        let contexts = Contexts::of(contexts)?;
        let mut columns = vec![&values];
        columns.extend(contexts.columns());
        let chunks = aligned(&columns)?;
        let opened = engine.handle.attached(py)?;
        py.detach(|| {
            let mut builder = Builder::new((self.kind)(large));
            for chunk in &chunks {
                let Some((values, columns)) = chunk.split_first() else {
                    continue;
                };
                let bytes = Bytes::of(values).ok_or_else(changed_type)?;
                let contexts = contexts.reader(columns).ok_or_else(changed_type)?;
                let length = |row| bytes.get(row).map_or(0, self.length);
                let (output, outcomes) = run(values.len(), threads, length, |row, room| {
                    let Some(value) = bytes.get(row) else {
                        return Outcome::Null;
                    };
                    match contexts.with(row, |context| (self.work)(&opened.engine, context, value, room)) {
                        Ok(extra) => Outcome::Done(extra),
                        Err(refused) => Outcome::Failed(Box::new(refused.into())),
                    }
                })
                .map_err(|_| PyMemoryError::new_err(()))?;
                builder.push(output, outcomes)?;
            }
            Ok(builder.finish())
        })
    }
}

/// Cuts the chunks of columns at the same rows.
fn aligned(columns: &[&Column]) -> PyResult<Vec<Vec<ArrayRef>>> {
    let rows = columns.first().map_or(0, |column| column.len());
    if columns.iter().any(|column| column.len() != rows) {
        return Err(PyValueError::new_err(
            "values and contexts have different numbers of rows",
        ));
    }
    let mut rest: Vec<_> = columns.iter().map(|column| column.chunks.iter()).collect();
    let mut current: Vec<Option<ArrayRef>> = vec![None; columns.len()];
    let mut pieces = Vec::new();
    loop {
        for (current, rest) in current.iter_mut().zip(&mut rest) {
            while current.as_ref().is_none_or(|chunk| chunk.is_empty()) {
                match rest.next() {
                    Some(chunk) => *current = Some(chunk.clone()),
                    None => return Ok(pieces),
                }
            }
        }
        let chunks: Vec<ArrayRef> = current.iter().flatten().cloned().collect();
        let count = chunks.iter().map(|chunk| chunk.len()).min().unwrap_or_default();
        for (current, chunk) in current.iter_mut().zip(&chunks) {
            *current = Some(chunk.slice(count, chunk.len().saturating_sub(count)));
        }
        pieces.push(chunks.iter().map(|chunk| chunk.slice(0, count)).collect());
    }
}

#[pymethods]
impl PyEngine {
    /// Opens a column of sealed DEKs. The result has the columns `dek`, `error_kind` and `error`. Its DEKs lie in
    /// memory that is not wiped: prefer `encrypt_column` and `decrypt_column`.
    ///
    /// `contexts` is one context for all rows, an Arrow column of maps or structs of text, or a dict whose values are
    /// texts or Arrow columns of text. All cores work, or `threads` of them.
    #[pyo3(signature = (key_id, contexts, values, *, threads = None))]
    fn open_column(
        &self,
        py: Python<'_>,
        key_id: &str,
        contexts: &Bound<'_, PyAny>,
        values: &Bound<'_, PyAny>,
        threads: Option<usize>,
    ) -> PyResult<PyBatch> {
        let key_id = parse_id(key_id)?;
        Operation {
            kind: |large| Kind::Bytes("dek", large),
            length: |_| dekseal::Dek::LEN,
            work: &|engine, context, value, room| {
                // By reference, so that the DEK is wiped where it was opened.
                match engine.decrypt_dek(&key_id, context, &SealedDek::from_bytes(value)?) {
                    Ok(ref dek) => room.copy_from_slice(dek.expose_secret()),
                    Err(error) => return Err(error),
                }
                Ok(0)
            },
        }
        .run(py, self, contexts, values, threads)
    }

    /// Rewraps a column of sealed DEKs or payloads under the current version of `new_key_id`, or of their own key. The
    /// result has the columns `value`, `renewed`, `error_kind` and `error`. `contexts` as in `open_column`.
    #[pyo3(signature = (key_id, contexts, values, *, new_key_id = None, threads = None))]
    fn rewrap_column(
        &self,
        py: Python<'_>,
        key_id: &str,
        contexts: &Bound<'_, PyAny>,
        values: &Bound<'_, PyAny>,
        new_key_id: Option<&str>,
        threads: Option<usize>,
    ) -> PyResult<PyBatch> {
        let new_key_id = parse_id(new_key_id.unwrap_or(key_id))?;
        let key_id = parse_id(key_id)?;
        Operation {
            kind: |large| Kind::Rewrapped("value", large),
            length: |value| value.len(),
            work: &|engine, context, value, room| {
                let renewed = match header_of(value)? {
                    Some(old) => {
                        let new = engine.rewrap_header(&key_id, context, &new_key_id, &old)?;
                        room.copy_from_slice(value);
                        let (head, _) = room.split_at_mut(PayloadHeader::LEN);
                        head.copy_from_slice(&new.to_bytes());
                        new.sealed_dek() != old.sealed_dek()
                    }
                    None => {
                        let old = SealedDek::from_bytes(value)?;
                        let new = engine.rewrap_dek_to((&key_id, context), &old, (&new_key_id, context))?;
                        room.copy_from_slice(new.as_bytes());
                        new != old
                    }
                };
                Ok(Extra::from(renewed))
            },
        }
        .run(py, self, contexts, values, threads)
    }

    /// Encrypts a column of binary values or texts, each under a DEK of its own. The result has the columns `payload`,
    /// `error_kind` and `error`. `contexts` as in `open_column`.
    #[pyo3(signature = (key_id, contexts, values, *, threads = None))]
    fn encrypt_column(
        &self,
        py: Python<'_>,
        key_id: &str,
        contexts: &Bound<'_, PyAny>,
        values: &Bound<'_, PyAny>,
        threads: Option<usize>,
    ) -> PyResult<PyBatch> {
        let key_id = parse_id(key_id)?;
        Operation {
            kind: |large| Kind::Bytes("payload", large),
            length: |value| whole(encrypted_len(value.len() as u64)),
            work: &|engine, context, value, room| {
                encrypt_into(engine, &key_id, context, value, room)?;
                Ok(0)
            },
        }
        .run(py, self, contexts, values, threads)
    }

    /// Decrypts a column of payloads. The result has the columns `data`, `error_kind` and `error`. `contexts` as in
    /// `open_column`.
    #[pyo3(signature = (key_id, contexts, values, *, threads = None))]
    fn decrypt_column(
        &self,
        py: Python<'_>,
        key_id: &str,
        contexts: &Bound<'_, PyAny>,
        values: &Bound<'_, PyAny>,
        threads: Option<usize>,
    ) -> PyResult<PyBatch> {
        let key_id = parse_id(key_id)?;
        Operation {
            kind: |large| Kind::Bytes("data", large),
            length: |value| whole(plaintext_len(value.len() as u64)),
            work: &|engine, context, value, room| {
                decrypt_into(engine, &key_id, context, value, room)?;
                Ok(0)
            },
        }
        .run(py, self, contexts, values, threads)
    }
}

/// A length in memory. One that does not exist is 0: the row fails later, with its error.
fn whole(length: Option<u64>) -> usize {
    length
        .and_then(|length| usize::try_from(length).ok())
        .unwrap_or_default()
}
