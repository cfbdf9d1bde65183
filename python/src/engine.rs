//! The engine: makes, seals, opens and rewraps DEKs, and encrypts data in one call.

use std::{path::PathBuf, sync::Arc};

use dekseal::{
    EncryptionContext, Error, ErrorKind, KeyId, PayloadRule, Rewrapped,
    payload::{PayloadHeader, encrypted_len, plaintext_len},
};
use pyo3::{exceptions::PyTypeError, prelude::*, types::PyBytes};

use crate::{
    buffers::Input,
    dek::PyDek,
    errors::{OrRaise, raised},
    keyring::{AnyKeyring, Handle, PyKeyring},
    sealed::{PySealedDek, context, header, parse_id, sealed},
};

/// Data of this length and more is worked on while other Python threads run, and in place.
const LARGE: usize = 16 * 1024;

/// Makes DEKs, seals them under the keys of a keyring, opens them, and encrypts data. Threads can share an engine.
#[pyclass(module = "dekseal", name = "Engine", frozen, subclass, weakref)]
pub(crate) struct PyEngine {
    pub(crate) handle: Arc<Handle>,
    keyring: Py<PyKeyring>,
}

type RustEngine = dekseal::Engine<AnyKeyring>;

impl PyEngine {
    /// Calls `f` with the engine. Other Python threads run meanwhile if it takes long: if there is much data, or if the
    /// keyring may ask a store.
    pub(crate) fn run<T: Send>(
        &self,
        py: Python<'_>,
        data_len: usize,
        f: impl Send + FnOnce(&RustEngine) -> PyResult<T>,
    ) -> PyResult<T> {
        let opened = self.handle.attached(py)?;
        if data_len >= LARGE || opened.engine.keyring().may_wait() {
            py.detach(|| f(&opened.engine))
        } else {
            f(&opened.engine)
        }
    }
}

fn in_memory(length: Option<u64>) -> Option<usize> {
    length.and_then(|length| usize::try_from(length).ok())
}

/// Encrypts into `payload`, which has the length of B3.5.
pub(crate) fn encrypt_into(
    engine: &RustEngine,
    key_id: &KeyId,
    context: &EncryptionContext,
    data: &[u8],
    payload: &mut [u8],
) -> Result<(), Error> {
    if data.len() >= LARGE {
        return engine
            .create_payload_cipher(key_id, context)?
            .encrypt_into(data, payload);
    }
    // Faster for little data, in spite of the copy.
    let made = engine.encrypt(key_id, context, data)?;
    fill(payload, &made)
}

/// Decrypts into `data`, which has the length of the plaintext.
pub(crate) fn decrypt_into(
    engine: &RustEngine,
    key_id: &KeyId,
    context: &EncryptionContext,
    payload: &[u8],
    data: &mut [u8],
) -> Result<(), Error> {
    if let (LARGE.., Some(header)) = (payload.len(), payload.first_chunk()) {
        let header = PayloadHeader::from_bytes(header)?;
        let cipher = engine.open_payload_cipher(key_id, context, header.sealed_dek())?;
        return cipher.decrypt_into(payload, data);
    }
    fill(data, &engine.decrypt(key_id, context, payload)?)
}

fn fill(target: &mut [u8], source: &[u8]) -> Result<(), Error> {
    if target.len() != source.len() {
        return Err(ErrorKind::BufferLength.into());
    }
    target.copy_from_slice(source);
    Ok(())
}

#[pymethods]
impl PyEngine {
    #[new]
    fn new(keyring: &Bound<'_, PyKeyring>) -> Self {
        Self {
            handle: Arc::clone(&keyring.get().0),
            keyring: keyring.clone().unbind(),
        }
    }

    /// The keyring.
    #[getter]
    fn keyring<'py>(&self, py: Python<'py>) -> &Bound<'py, PyKeyring> {
        self.keyring.bind(py)
    }

    /// Makes a DEK and seals it under the current version of `key_id`.
    fn create_dek(&self, py: Python<'_>, key_id: &str, context: &Bound<'_, PyAny>) -> PyResult<(PyDek, PySealedDek)> {
        let (key_id, context) = (parse_id(key_id)?, self::context(context)?);
        let context = context.as_ref();
        self.run(py, 0, |engine| match &engine.create_dek(&key_id, context) {
            // By reference, so that the DEK is wiped where it was made.
            Ok((dek, sealed)) => Ok((PyDek::of(dek), PySealedDek(*sealed))),
            Err(error) => Err(crate::errors::exception(error)),
        })
    }

    /// Makes `count` DEKs in one context and seals them. Makes all of them or none.
    fn create_deks(
        &self,
        py: Python<'_>,
        key_id: &str,
        context: &Bound<'_, PyAny>,
        count: usize,
    ) -> PyResult<Vec<(PyDek, PySealedDek)>> {
        let (key_id, context) = (parse_id(key_id)?, self::context(context)?);
        let context = context.as_ref();
        self.run(py, count.saturating_mul(dekseal::Dek::LEN), |engine| {
            let mut slots = Vec::new();
            let reserved = slots.try_reserve_exact(count);
            reserved.map_err(|_| pyo3::exceptions::PyMemoryError::new_err(()))?;
            slots.resize_with(count, || None);
            engine.create_deks(&key_id, context, &mut slots).or_raise()?;
            let made = slots.iter().flatten();
            Ok(made
                .map(|(dek, sealed)| (PyDek::of(dek), PySealedDek(*sealed)))
                .collect())
        })
    }

    /// Seals the caller's DEK under the current version of `key_id`.
    fn encrypt_dek(
        &self,
        py: Python<'_>,
        key_id: &str,
        context: &Bound<'_, PyAny>,
        dek: &PyDek,
    ) -> PyResult<PySealedDek> {
        let (key_id, context) = (parse_id(key_id)?, self::context(context)?);
        let context = context.as_ref();
        self.run(py, 0, |engine| {
            let sealed = dek.with(|dek| engine.encrypt_dek(&key_id, context, dek))?;
            sealed.or_raise().map(PySealedDek)
        })
    }

    /// Opens a sealed DEK that the caller expects to be sealed under `key_id`.
    fn decrypt_dek(
        &self,
        py: Python<'_>,
        key_id: &str,
        context: &Bound<'_, PyAny>,
        sealed: &Bound<'_, PyAny>,
    ) -> PyResult<PyDek> {
        let (key_id, context, sealed) = (parse_id(key_id)?, self::context(context)?, self::sealed(sealed)?);
        let context = context.as_ref();
        self.run(py, 0, |engine| match &engine.decrypt_dek(&key_id, context, &sealed) {
            Ok(dek) => Ok(PyDek::of(dek)),
            Err(error) => Err(crate::errors::exception(error)),
        })
    }

    /// Opens a sealed DEK with the key that it names. The writer of the blob chooses the key.
    fn decrypt_dek_under_any_key(
        &self,
        py: Python<'_>,
        context: &Bound<'_, PyAny>,
        sealed: &Bound<'_, PyAny>,
    ) -> PyResult<PyDek> {
        let (context, sealed) = (self::context(context)?, self::sealed(sealed)?);
        let context = context.as_ref();
        self.run(py, 0, |engine| {
            match &engine.decrypt_dek_under_any_key(context, &sealed) {
                Ok(dek) => Ok(PyDek::of(dek)),
                Err(error) => Err(crate::errors::exception(error)),
            }
        })
    }

    /// Seals the DEK of `sealed` again, under the current version of its key. Returns the same blob if it is current.
    fn rewrap_dek(
        &self,
        py: Python<'_>,
        key_id: &str,
        context: &Bound<'_, PyAny>,
        sealed: &Bound<'_, PyAny>,
    ) -> PyResult<PySealedDek> {
        let (key_id, context, sealed) = (parse_id(key_id)?, self::context(context)?, self::sealed(sealed)?);
        let context = context.as_ref();
        self.run(py, 0, |engine| {
            let rewrapped = engine.rewrap_dek(&key_id, context, &sealed).or_raise()?;
            Ok(PySealedDek(*Rewrapped::sealed(&rewrapped)))
        })
    }

    /// Seals the DEK of `sealed` under another key, in another context, or both.
    fn rewrap_dek_to(
        &self,
        py: Python<'_>,
        key_id: &str,
        context: &Bound<'_, PyAny>,
        sealed: &Bound<'_, PyAny>,
        new_key_id: &str,
        new_context: &Bound<'_, PyAny>,
    ) -> PyResult<PySealedDek> {
        let (key_id, context, sealed) = (parse_id(key_id)?, self::context(context)?, self::sealed(sealed)?);
        let (new_key_id, new_context) = (parse_id(new_key_id)?, self::context(new_context)?);
        let (context, new_context) = (context.as_ref(), new_context.as_ref());
        self.run(py, LARGE, |engine| {
            let rewrapped = engine.rewrap_dek_to((&key_id, context), &sealed, (&new_key_id, new_context));
            rewrapped.or_raise().map(PySealedDek)
        })
    }

    /// Encrypts data under a new DEK. The sealed DEK is part of the payload.
    fn encrypt<'py>(
        &self,
        py: Python<'py>,
        key_id: &str,
        context: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let (key_id, context) = (parse_id(key_id)?, self::context(context)?);
        let (context, data) = (context.as_ref(), Input::of(data, "data")?);
        let length = in_memory(encrypted_len(data.len() as u64));
        let length = length.ok_or_else(|| raised(ErrorKind::PayloadTooLong))?;
        PyBytes::new_with(py, length, |payload| {
            self.run(py, data.len(), |engine| {
                encrypt_into(engine, &key_id, context, &data, payload).or_raise()
            })
        })
    }

    /// Decrypts a payload.
    fn decrypt<'py>(
        &self,
        py: Python<'py>,
        key_id: &str,
        context: &Bound<'_, PyAny>,
        payload: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let (key_id, context) = (parse_id(key_id)?, self::context(context)?);
        let (context, payload) = (context.as_ref(), Input::of(payload, "payload")?);
        header(&payload)?;
        let length = in_memory(plaintext_len(payload.len() as u64));
        let length = length.ok_or_else(|| raised(ErrorKind::NotAPayload(PayloadRule::Length)))?;
        PyBytes::new_with(py, length, |data| {
            self.run(py, payload.len(), |engine| {
                decrypt_into(engine, &key_id, context, &payload, data).or_raise()
            })
        })
    }

    /// Seals the DEK of a payload again, under the current version of `new_key_id` or of its own key. The data does not
    /// change.
    #[pyo3(signature = (key_id, context, payload, new_key_id = None))]
    fn rewrap<'py>(
        &self,
        py: Python<'py>,
        key_id: &str,
        context: &Bound<'_, PyAny>,
        payload: &Bound<'_, PyAny>,
        new_key_id: Option<&str>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let payload = Input::of(payload, "payload")?;
        let header = header(&payload)?;
        let new = self.rewrapped_header(py, key_id, context, new_key_id, &header)?;
        PyBytes::new_with(py, payload.len(), |target| {
            let (head, rest) = target.split_at_mut(PayloadHeader::LEN);
            head.copy_from_slice(&new.to_bytes());
            rest.copy_from_slice(payload.get(PayloadHeader::LEN..).unwrap_or_default());
            Ok(())
        })
    }

    /// Rewraps a file in place: only its first 264 bytes change. After a crash, call it again.
    #[pyo3(signature = (key_id, context, path, new_key_id = None))]
    fn rewrap_file(
        &self,
        py: Python<'_>,
        key_id: &str,
        context: &Bound<'_, PyAny>,
        path: PathBuf,
        new_key_id: Option<&str>,
    ) -> PyResult<PySealedDek> {
        let (new_key_id, context) = (parse_id(new_key_id.unwrap_or(key_id))?, self::context(context)?);
        let (key_id, context) = (parse_id(key_id)?, context.as_ref());
        self.run(py, LARGE, |engine| {
            let header = engine.rewrap_file(&key_id, context, &new_key_id, &path).or_raise()?;
            Ok(PySealedDek(*header.sealed_dek()))
        })
    }

    fn __repr__(&self) -> &'static str {
        "Engine(..)"
    }

    fn __reduce_ex__(&self, _protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(PyTypeError::new_err(
            "an engine cannot be pickled or copied: make it in each process",
        ))
    }
}

impl PyEngine {
    fn rewrapped_header(
        &self,
        py: Python<'_>,
        key_id: &str,
        context: &Bound<'_, PyAny>,
        new_key_id: Option<&str>,
        header: &PayloadHeader,
    ) -> PyResult<PayloadHeader> {
        let (new_key_id, context) = (parse_id(new_key_id.unwrap_or(key_id))?, self::context(context)?);
        let (key_id, context) = (parse_id(key_id)?, context.as_ref());
        self.run(py, LARGE, |engine| {
            engine.rewrap_header(&key_id, context, &new_key_id, header).or_raise()
        })
    }
}
