//! Errors of the core as Python exceptions.

use std::{error::Error as _, io};

use pyo3::{
    exceptions::PyOSError,
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyType},
};

/// Turns an error of the core, or an I/O error, into an exception.
pub(crate) trait OrRaise<T> {
    fn or_raise(self) -> PyResult<T>;
}

impl<T> OrRaise<T> for Result<T, dekseal::Error> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(|error| exception(&error))
    }
}

/// An error of the core inside an I/O error is raised as itself, and so is an exception of a Python file object.
impl<T> OrRaise<T> for io::Result<T> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(
            |error| match error.get_ref().and_then(|inner| inner.downcast_ref::<dekseal::Error>()) {
                Some(ours) => exception(ours),
                None => error.into(),
            },
        )
    }
}

/// The name of the kind, and of the fault if the kind has several. `Debug` of a kind is `Name` or `Name(Fault)`.
pub(crate) fn names(kind: dekseal::ErrorKind) -> (String, Option<String>) {
    let name = format!("{kind:?}");
    match name.split_once('(') {
        Some((name, fault)) => (name.to_owned(), Some(fault.trim_end_matches(')').to_owned())),
        None => (name, None),
    }
}

/// An error that this crate finds itself.
pub(crate) fn raised(kind: dekseal::ErrorKind) -> PyErr {
    exception(&kind.into())
}

pub(crate) fn exception(error: &dekseal::Error) -> PyErr {
    Python::attach(|py| build(py, error).unwrap_or_else(|failed| failed))
}

fn build(py: Python<'_>, error: &dekseal::Error) -> PyResult<PyErr> {
    static BY_KIND: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    static BASE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let by_kind = BY_KIND.import(py, "dekseal.errors", "BY_KIND")?;
    let (kind, fault) = names(error.kind());
    let class = match by_kind.get_item(&kind)? {
        Some(class) => class.cast_into::<PyType>()?,
        None => BASE.import(py, "dekseal.errors", "Error")?.clone(),
    };
    let details = PyDict::new(py);
    details.set_item("kind", kind)?;
    details.set_item("fault", fault)?;
    details.set_item("key_id", error.key_id().map(|id| id.to_string()))?;
    details.set_item("key_version", error.key_version())?;
    details.set_item("newest_key_version", error.newest_key_version())?;
    details.set_item("found_key_id", error.found_key_id().map(|id| id.to_string()))?;
    details.set_item("found_key_version", error.found_key_version())?;
    details.set_item("path", error.path().map(|path| path.display().to_string()))?;
    let raised = PyErr::from_value(class.call((error.to_string(),), Some(&details))?);
    // The cause: the operating system's error, or the text of the database's.
    if let Some(source) = error.source() {
        match source.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            Some(code) => raised.set_cause(py, Some(PyOSError::new_err((code, os_text(source))))),
            None => raised.add_note(py, format!("caused by: {}", chain(source)))?,
        }
    }
    Ok(raised)
}

/// The text of an error of the operating system without its number, which Python adds.
fn os_text(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
