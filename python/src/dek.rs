//! DEKs: 64 secret bytes that Python can lend to a cipher, and that are wiped.
#![allow(unsafe_code, reason = "the buffer protocol passes pointers")]

use std::{
    ffi::c_int,
    sync::{Mutex, MutexGuard, PoisonError},
};

use dekseal::zeroize::Zeroizing;
use pyo3::{
    exceptions::{PyBufferError, PyTypeError, PyValueError},
    ffi,
    prelude::*,
};

use crate::{buffers::Input, errors::raised};

/// A data-encryption key: 64 secret bytes.
///
/// `memoryview(dek)` lends the bytes to a cipher without a copy. As a context manager, a DEK is wiped at the end of the
/// block; otherwise it is wiped when it is garbage collected. A DEK cannot be copied, pickled or printed.
#[pyclass(module = "dekseal", name = "Dek", frozen, weakref)]
pub(crate) struct PyDek(Mutex<State>);

struct State {
    /// The bytes lie in a box of their own, so they stay where they are while a view of them exists.
    secret: Option<Box<Zeroizing<[u8; dekseal::Dek::LEN]>>>,
    /// The number of views that exist.
    views: usize,
    /// Whether the DEK is to be wiped when the last view is released.
    closed: bool,
}

impl PyDek {
    /// Copies the bytes into a box. The caller's DEK is wiped where it is.
    pub(crate) fn of(dek: &dekseal::Dek) -> Self {
        let mut secret = Box::new(Zeroizing::new([0; dekseal::Dek::LEN]));
        secret.copy_from_slice(dek.expose_secret());
        Self(Mutex::new(State {
            secret: Some(secret),
            views: 0,
            closed: false,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `f` with the DEK.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&dekseal::Dek) -> T) -> PyResult<T> {
        let dek = dekseal::Dek::from_bytes(self.state().open()?);
        Ok(f(&dek))
    }
}

impl State {
    fn open(&self) -> PyResult<&[u8; dekseal::Dek::LEN]> {
        match &self.secret {
            Some(secret) if !self.closed => Ok(secret),
            _ => Err(PyValueError::new_err("the DEK was wiped")),
        }
    }

    fn wipe_if_unused(&mut self) {
        if self.closed && self.views == 0 {
            self.secret = None;
        }
    }
}

#[pymethods]
impl PyDek {
    /// The length of a DEK in bytes.
    #[classattr]
    const LEN: usize = dekseal::Dek::LEN;

    /// Makes a DEK with the random generator of the operating system.
    #[staticmethod]
    fn generate() -> PyResult<Self> {
        match &dekseal::Dek::generate() {
            Ok(dek) => Ok(Self::of(dek)),
            Err(error) => Err(crate::errors::exception(error)),
        }
    }

    /// Takes a DEK that was made elsewhere. It must be random. The caller's bytes are not wiped.
    #[staticmethod]
    fn from_bytes(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let data = Input::of(data, "data")?;
        match <&[u8; dekseal::Dek::LEN]>::try_from(&*data) {
            Ok(bytes) => Ok(Self::of(&dekseal::Dek::from_bytes(bytes))),
            Err(_) => Err(raised(dekseal::ErrorKind::BufferLength)),
        }
    }

    /// A read-only view of the 64 bytes. The DEK is wiped only after the view is released.
    fn expose_secret<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Ok(pyo3::types::PyMemoryView::from(slf.as_any())?.into_any())
    }

    /// Wipes the DEK. From now on it cannot be used. While views of it exist, they keep their bytes: these are wiped
    /// when the last view is released, so that no cipher works with a key that is half wiped.
    fn wipe(&self) {
        let mut state = self.state();
        state.closed = true;
        state.wipe_if_unused();
    }

    /// Whether the DEK can no longer be used.
    #[getter]
    fn wiped(&self) -> bool {
        self.state().closed
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        slf.get().state().open()?;
        Ok(slf.clone())
    }

    fn __exit__(&self, _kind: &Bound<'_, PyAny>, _error: &Bound<'_, PyAny>, _traceback: &Bound<'_, PyAny>) {
        self.wipe();
    }

    fn __len__(&self) -> usize {
        dekseal::Dek::LEN
    }

    /// Compares in constant time.
    fn __eq__(&self, other: &Self) -> PyResult<bool> {
        // Each is locked on its own: `dek == dek` must not wait for itself.
        let other = other.with(|dek| dekseal::Dek::from_bytes(dek.expose_secret()))?;
        self.with(|dek| *dek == other)
    }

    fn __repr__(&self) -> &'static str {
        "Dek(..)"
    }

    fn __reduce_ex__(&self, _protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(PyTypeError::new_err("a DEK cannot be pickled or copied"))
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("a DEK cannot be copied"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        self.__copy__()
    }

    /// # Safety
    ///
    /// Python calls this with a view that it owns.
    unsafe fn __getbuffer__(slf: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view"));
        }
        let mut state = slf.get().state();
        let bytes = state.open()?.as_ptr().cast_mut().cast();
        let length = dekseal::Dek::LEN as ffi::Py_ssize_t;
        // SAFETY: `bytes` points to 64 initialized bytes in a box. `views` keeps the box where it is until Python has
        // released the view, and the view keeps this object alive. The view is read-only, so nothing writes through
        // the pointer, and this type writes to the bytes only when there is no view.
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), bytes, length, 1, flags) };
        if filled != 0 {
            return Err(PyErr::fetch(slf.py()));
        }
        state.views = state.views.saturating_add(1);
        Ok(())
    }

    /// # Safety
    ///
    /// Python calls this once for each view that was filled.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        let mut state = self.state();
        state.views = state.views.saturating_sub(1);
        state.wipe_if_unused();
    }
}
