//! Bytes that Python lends to a call.

use std::ops::Deref;

use pyo3::{buffer::PyBuffer, exceptions::PyTypeError, prelude::*, types::PyBytes};
use zeroize::Zeroizing;

/// The bytes of an argument.
pub(crate) enum Input<'a> {
    /// Those of a `bytes` object, which never change. They can be read while the GIL is released.
    Bytes(&'a [u8]),
    /// A copy of those of another object: another thread could change the original while it is read.
    Copy(Zeroizing<Vec<u8>>),
}

impl<'a> Input<'a> {
    /// The bytes of an object with the buffer protocol. `name` is the name of the argument.
    pub(crate) fn of(object: &'a Bound<'_, PyAny>, name: &str) -> PyResult<Self> {
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Self::Bytes(bytes.as_bytes()));
        }
        let buffer = PyBuffer::<u8>::get(object);
        let buffer = buffer.map_err(|error| match error.is_instance_of::<PyTypeError>(object.py()) {
            true => PyTypeError::new_err(format!("{name} must be bytes-like, not {}", type_name(object))),
            false => error,
        })?;
        let mut copy = Zeroizing::new(vec![0; buffer.len_bytes()]);
        buffer.copy_to_slice(object.py(), &mut copy)?;
        Ok(Self::Copy(copy))
    }
}

impl Deref for Input<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Copy(copy) => copy,
        }
    }
}

/// The name of an object's type, for the text of an error. The object itself could be a secret.
pub(crate) fn type_name(object: &Bound<'_, PyAny>) -> String {
    let name = object.get_type().name();
    name.map_or_else(|_| "another type".into(), |name| name.to_string())
}
