//! Columns of other libraries, through the Arrow PyCapsule interface. With `dek`, the only `unsafe` code.
#![allow(unsafe_code, reason = "capsules hold pointers")]

use std::ffi::CStr;

use arrow_array::{
    Array, ArrayReader as _, ArrayRef, RecordBatch, RecordBatchIterator, StructArray,
    ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi, to_ffi},
    ffi_stream::{ArrayStreamReader, FFI_ArrowArrayStream},
    make_array,
};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::{PyCapsule, PyTuple},
};

use crate::buffers::type_name;

const SCHEMA: &CStr = c"arrow_schema";
const ARRAY: &CStr = c"arrow_array";
const STREAM: &CStr = c"arrow_array_stream";

pub(super) fn refused(error: ArrowError) -> PyErr {
    PyValueError::new_err(format!("Arrow: {error}"))
}

/// A column that may have several chunks.
pub(super) struct Column {
    pub(super) data_type: DataType,
    pub(super) chunks: Vec<ArrayRef>,
}

impl Column {
    /// The column of an object with `__arrow_c_stream__` or `__arrow_c_array__`, without a copy.
    pub(super) fn import(object: &Bound<'_, PyAny>, name: &str) -> PyResult<Self> {
        if let Some(method) = object.getattr_opt("__arrow_c_array__")? {
            let (schema, array) = method.call0()?.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
            let (schema, array) = (capsule(&schema)?, capsule(&array)?);
            let schema = schema.pointer_checked(Some(SCHEMA))?.cast::<FFI_ArrowSchema>();
            let array = array.pointer_checked(Some(ARRAY))?.cast::<FFI_ArrowArray>();
            // SAFETY: the names of the capsules were checked, so by the interface they hold these structs. `from_raw`
            // moves the array out and leaves a released one.
            let array = unsafe { FFI_ArrowArray::from_raw(array.as_ptr()) };
            // SAFETY: as above. The schema is only borrowed, while its capsule lives.
            let schema = unsafe { schema.as_ref() };
            if array.is_released() || schema.release().is_none() {
                return Err(PyValueError::new_err(format!(
                    "{name}: the Arrow array of this capsule was already taken"
                )));
            }
            // SAFETY: neither is released, so by the interface both are whole.
            let data = unsafe { from_ffi(array, schema) };
            let mut data = data.map_err(refused)?;
            // Other libraries do not always align buffers.
            data.align_buffers();
            data.validate_full().map_err(refused)?;
            let chunk = make_array(data);
            return Ok(Self {
                data_type: chunk.data_type().clone(),
                chunks: vec![chunk],
            });
        }
        if let Some(method) = object.getattr_opt("__arrow_c_stream__")? {
            let stream = method.call0()?;
            let stream = capsule(&stream)?;
            let stream = stream.pointer_checked(Some(STREAM))?.cast::<FFI_ArrowArrayStream>();
            // SAFETY: the name of the capsule was checked. `from_raw` moves the stream out and leaves a released one.
            let stream = unsafe { FFI_ArrowArrayStream::from_raw(stream.as_ptr()) };
            let reader = ArrayStreamReader::try_new(stream).map_err(refused)?;
            let data_type = reader.field().data_type().clone();
            // The producer may read files meanwhile. One that runs Python takes the GIL itself.
            let chunks = object.py().detach(|| {
                let chunks = reader.map(|chunk| {
                    let chunk = chunk?;
                    chunk.to_data().validate_full()?;
                    Ok(chunk)
                });
                chunks.collect::<Result<_, _>>()
            });
            let chunks = chunks.map_err(refused)?;
            return Ok(Self { data_type, chunks });
        }
        Err(PyTypeError::new_err(format!(
            "{name} must be an Arrow column (an object with __arrow_c_array__ or __arrow_c_stream__), not {}",
            type_name(object)
        )))
    }

    pub(super) fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len()).sum()
    }
}

fn capsule<'a, 'py>(object: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyCapsule>> {
    object.cast::<PyCapsule>().map_err(Into::into)
}

/// Columns as an array of structs. The schema and the array free themselves, if nobody takes them.
pub(super) fn export_array<'py>(py: Python<'py>, batch: &RecordBatch) -> PyResult<Bound<'py, PyTuple>> {
    let (array, schema) = to_ffi(&StructArray::from(batch.clone()).into_data()).map_err(refused)?;
    let schema = PyCapsule::new_with_value(py, schema, SCHEMA)?;
    let array = PyCapsule::new_with_value(py, array, ARRAY)?;
    PyTuple::new(py, [schema, array])
}

pub(super) fn export_stream<'py>(
    py: Python<'py>,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
) -> PyResult<Bound<'py, PyCapsule>> {
    let batches = RecordBatchIterator::new(batches.into_iter().map(Ok), schema);
    PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(Box::new(batches)), STREAM)
}
