//! Sealed DEKs and encryption contexts.

use dekseal::payload::PayloadHeader;
use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::{PyBytes, PyDict, PyMapping, PyString},
};

use crate::{
    buffers::{Input, type_name},
    errors::{OrRaise, raised},
};

/// A sealed DEK: 188 bytes that are no secret. Store `bytes(sealed)` beside the data.
///
/// A value of this type has a well-formed frame and a matching checksum. Only opening it shows that it is authentic.
#[pyclass(module = "dekseal", name = "SealedDek", frozen, eq, hash, weakref)]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct PySealedDek(pub(crate) dekseal::SealedDek);

#[pymethods]
impl PySealedDek {
    /// The length of a sealed DEK in bytes.
    #[classattr]
    const LEN: usize = dekseal::SealedDek::LEN;

    #[new]
    fn new(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        sealed(data).map(Self)
    }

    /// Parses 376 hex digits.
    #[staticmethod]
    fn from_hex(text: &str) -> PyResult<Self> {
        text.parse::<dekseal::SealedDek>().or_raise().map(Self)
    }

    /// The sealed DEK of a payload.
    #[staticmethod]
    fn of_payload(payload: &Bound<'_, PyAny>) -> PyResult<Self> {
        let payload = Input::of(payload, "payload")?;
        Ok(Self(*header(&payload)?.sealed_dek()))
    }

    /// The ID of the key that it is sealed under.
    #[getter]
    fn key_id(&self) -> String {
        self.0.key_id().to_string()
    }

    /// The version of the key that it is sealed under.
    #[getter]
    fn key_version(&self) -> u32 {
        self.0.key_version()
    }

    /// 376 hex digits.
    fn hex(&self) -> String {
        self.0.to_string()
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.as_bytes())
    }

    fn __len__(&self) -> usize {
        dekseal::SealedDek::LEN
    }

    fn __repr__(&self) -> String {
        format!(
            "SealedDek(key_id='{}', key_version={})",
            self.0.key_id(),
            self.0.key_version()
        )
    }

    fn __getnewargs__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyBytes>,) {
        (self.__bytes__(py),)
    }
}

/// A key ID that was passed as text.
pub(crate) fn parse_id(text: &str) -> PyResult<dekseal::KeyId> {
    text.parse::<dekseal::KeyId>().or_raise()
}

/// A sealed DEK that was passed as itself or as bytes.
pub(crate) fn sealed(object: &Bound<'_, PyAny>) -> PyResult<dekseal::SealedDek> {
    if let Ok(sealed) = object.cast::<PySealedDek>() {
        return Ok(sealed.get().0);
    }
    dekseal::SealedDek::from_bytes(&Input::of(object, "sealed")?).or_raise()
}

pub(crate) fn header(payload: &[u8]) -> PyResult<PayloadHeader> {
    match payload.first_chunk() {
        Some(header) => PayloadHeader::from_bytes(header).or_raise(),
        None => Err(raised(dekseal::ErrorKind::NotAPayload(dekseal::PayloadRule::Length))),
    }
}

/// An encryption context, prepared once for any number of calls. Every call also takes a `dict` in its place.
#[pyclass(module = "dekseal", name = "EncryptionContext", frozen, eq, weakref)]
#[derive(PartialEq, Eq)]
pub(crate) struct PyContext(dekseal::EncryptionContext);

#[pymethods]
impl PyContext {
    #[new]
    fn new(pairs: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(match context(pairs)? {
            Context::Made(context) => Self(context),
            Context::Lent(context) => Self(context.get().0.clone()),
        })
    }

    /// The canonical bytes.
    fn canonical<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.canonical())
    }

    fn __hash__(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = *self.0.sha256();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// The context of a call.
pub(crate) enum Context<'a, 'py> {
    Made(dekseal::EncryptionContext),
    Lent(&'a Bound<'py, PyContext>),
}

impl AsRef<dekseal::EncryptionContext> for Context<'_, '_> {
    fn as_ref(&self) -> &dekseal::EncryptionContext {
        match self {
            Self::Made(context) => context,
            Self::Lent(context) => &context.get().0,
        }
    }
}

/// The context that a dict, another mapping or an `EncryptionContext` stands for. `None` is refused: a variable that
/// was never set would silently bind nothing.
pub(crate) fn context<'a, 'py>(object: &'a Bound<'py, PyAny>) -> PyResult<Context<'a, 'py>> {
    if let Ok(context) = object.cast::<PyContext>() {
        return Ok(Context::Lent(context));
    }
    let pairs: Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)> = if let Ok(dict) = object.cast::<PyDict>() {
        dict.iter().collect()
    } else if let Ok(mapping) = object.cast::<PyMapping>() {
        mapping.items()?.extract()?
    } else {
        return Err(PyTypeError::new_err(format!(
            "an encryption context must be a mapping of str to str, not {}; an empty one is {{}}",
            type_name(object)
        )));
    };
    let pairs = pairs.iter().map(|(key, value)| Ok((text(key)?, text(value)?)));
    let pairs = pairs.collect::<PyResult<Vec<_>>>()?;
    dekseal::EncryptionContext::from_pairs(pairs)
        .or_raise()
        .map(Context::Made)
}

/// A key or a value of a context. No error contains it.
fn text<'a>(object: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    let text = object.cast::<PyString>().map_err(|_| {
        PyTypeError::new_err(format!(
            "keys and values of an encryption context must be str, not {}",
            type_name(object)
        ))
    })?;
    text.to_str()
        .map_err(|_| PyValueError::new_err("encryption context: a text contains a lone surrogate"))
}
