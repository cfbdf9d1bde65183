//! The results of a column operation, as Arrow columns.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, LargeBinaryArray, RecordBatch, RecordBatchOptions, StringArray, UInt32Array,
};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use pyo3::{
    exceptions::{PyMemoryError, PyOverflowError, PyValueError},
    prelude::*,
    types::{PyCapsule, PyTuple},
};

use super::{
    ffi::{export_array, export_stream, refused},
    run::{Failure, Outcome, Output},
};

/// The results of a column operation: a table with the Arrow PyCapsule interface, which `pyarrow.table`,
/// `polars.DataFrame`, DuckDB and pandas accept.
///
/// A row that failed has nulls in place of a result, and its error in the columns `error_kind` and `error`. In all
/// other rows these columns are null.
#[pyclass(module = "dekseal", name = "Batch", frozen, weakref)]
pub(crate) struct PyBatch {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    failed: usize,
}

#[pymethods]
impl PyBatch {
    /// The number of rows that failed.
    #[getter]
    fn failed(&self) -> usize {
        self.failed
    }

    /// The names of the columns.
    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    fn __len__(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        // A producer may ignore the wish for other types.
        let _ = requested_schema;
        match &self.batches[..] {
            [batch] => export_array(py, batch),
            [] => export_array(py, &RecordBatch::new_empty(Arc::clone(&self.schema))),
            _ => Err(PyValueError::new_err(
                "the columns had several chunks, so the result is a stream: use __arrow_c_stream__",
            )),
        }
    }

    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema;
        export_stream(py, Arc::clone(&self.schema), self.batches.clone())
    }

    fn __repr__(&self) -> String {
        format!("Batch({} rows, {} failed)", self.__len__(), self.failed)
    }
}

/// The results of an operation, but for the errors.
pub(super) enum Kind {
    /// Bytes under this name; in large columns or not.
    Bytes(&'static str, bool),
    /// Bytes under this name, and whether they are new.
    Rewrapped(&'static str, bool),
    /// A key ID and a version.
    Inspected,
}

impl Kind {
    fn schema(&self) -> SchemaRef {
        let bytes = |large| if large { DataType::LargeBinary } else { DataType::Binary };
        let mut fields = match *self {
            Self::Bytes(name, large) => vec![Field::new(name, bytes(large), true)],
            Self::Rewrapped(name, large) => vec![
                Field::new(name, bytes(large), true),
                Field::new("renewed", DataType::Boolean, true),
            ],
            Self::Inspected => vec![
                Field::new("key_id", DataType::Utf8, true),
                Field::new("key_version", DataType::UInt32, true),
            ],
        };
        fields.push(Field::new("error_kind", DataType::Utf8, true));
        fields.push(Field::new("error", DataType::Utf8, true));
        Arc::new(Schema::new(fields))
    }
}

/// Collects the results of the chunks of a column.
pub(super) struct Builder {
    kind: Kind,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    failed: usize,
}

/// What a row of any operation has besides its bytes: whether it was renewed, or its version.
pub(super) type Extra = u32;

impl Builder {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            schema: kind.schema(),
            kind,
            batches: Vec::new(),
            failed: 0,
        }
    }

    pub(super) fn push(&mut self, output: Output, outcomes: Vec<Outcome<Extra>>) -> PyResult<()> {
        let rows = outcomes.len();
        let valid: Vec<bool> = outcomes.iter().map(|row| matches!(row, Outcome::Done(_))).collect();
        let nulls = NullBuffer::from(valid);
        let extra = || {
            outcomes.iter().map(|row| match row {
                Outcome::Done(extra) => Some(*extra),
                _ => None,
            })
        };
        let mut columns: Vec<ArrayRef> = match self.kind {
            Kind::Bytes(_, large) => vec![binary(output, nulls, large)?],
            Kind::Rewrapped(_, large) => vec![
                binary(output, nulls, large)?,
                Arc::new(
                    extra()
                        .map(|extra| extra.map(|renewed| renewed != 0))
                        .collect::<BooleanArray>(),
                ),
            ],
            Kind::Inspected => {
                let offsets = small_offsets(&output.offsets)?;
                let ids = StringArray::try_new(offsets, Buffer::from(output.bytes), Some(nulls)).map_err(refused)?;
                vec![Arc::new(ids), Arc::new(extra().collect::<UInt32Array>())]
            }
        };
        fn failure(row: &Outcome<Extra>) -> Option<&Failure> {
            match row {
                Outcome::Failed(failure) => Some(failure),
                _ => None,
            }
        }
        let failed = outcomes.iter().filter_map(failure).count();
        self.failed = self.failed.saturating_add(failed);
        let texts: [fn(&Failure) -> &str; 2] = [|failure| &failure.kind, |failure| &failure.text];
        for text in texts {
            columns.push(Arc::new(match failed {
                0 => StringArray::new_null(rows),
                _ => outcomes.iter().map(|row| failure(row).map(text)).collect(),
            }));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options);
        self.batches.push(batch.map_err(refused)?);
        Ok(())
    }

    pub(super) fn finish(self) -> PyBatch {
        PyBatch {
            schema: self.schema,
            batches: self.batches,
            failed: self.failed,
        }
    }
}

fn small_offsets(offsets: &[usize]) -> PyResult<OffsetBuffer<i32>> {
    let offsets = offsets.iter().map(|offset| i32::try_from(*offset));
    let offsets = offsets.collect::<Result<Vec<_>, _>>().map_err(|_| {
        PyOverflowError::new_err("the result is larger than 2 GiB: use a large_binary column, or smaller chunks")
    })?;
    Ok(OffsetBuffer::new(ScalarBuffer::from(offsets)))
}

fn binary(output: Output, nulls: NullBuffer, large: bool) -> PyResult<ArrayRef> {
    if !large {
        let offsets = small_offsets(&output.offsets)?;
        let array = BinaryArray::try_new(offsets, Buffer::from(output.bytes), Some(nulls));
        return Ok(Arc::new(array.map_err(refused)?));
    }
    let offsets = output.offsets.iter().map(|offset| i64::try_from(*offset));
    let offsets = offsets
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| PyMemoryError::new_err(()))?;
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    let array = LargeBinaryArray::try_new(offsets, Buffer::from(output.bytes), Some(nulls));
    Ok(Arc::new(array.map_err(refused)?))
}
