//! Payloads as streams, over files and over Python's file objects.

use std::{
    fs::File,
    io::{self, BufRead as _, Read, Seek, SeekFrom, Write},
    path::PathBuf,
    sync::{Mutex, MutexGuard, TryLockError},
};

use dekseal::{
    payload::{PayloadReader, PayloadSeekReader, PayloadWriter},
    zeroize::Zeroizing,
};
use pyo3::{
    buffer::PyBuffer,
    exceptions::{PyOSError, PyRuntimeError, PyValueError},
    prelude::*,
    types::{PyBytes, PySlice},
};

use crate::{
    buffers::Input,
    engine::PyEngine,
    errors::OrRaise,
    sealed::{context, parse_id},
};

/// What lies below a stream. All its methods run while the GIL is released.
enum Inner {
    File(File),
    Object(Py<PyAny>),
}

impl Inner {
    /// A path, or a binary file object. Other Python threads run while a file is opened, because a FIFO waits for its
    /// other end.
    fn of(file: &Bound<'_, PyAny>, open: impl Send + FnOnce(PathBuf) -> io::Result<File>) -> PyResult<Self> {
        match file.extract::<PathBuf>() {
            Ok(path) => Ok(Self::File(file.py().detach(|| open(path))?)),
            Err(_) => Ok(Self::Object(file.clone().unbind())),
        }
    }

    fn is_seekable(&self, py: Python<'_>) -> PyResult<bool> {
        match self {
            // A pipe has no length.
            Self::File(file) => Ok(file.metadata()?.is_file()),
            Self::Object(object) => match object.bind(py).getattr_opt("seekable")? {
                Some(seekable) => seekable.call0()?.is_truthy(),
                None => Ok(false),
            },
        }
    }
}

/// An object that does not block and has nothing now. There is no way to wait for it.
fn would_block() -> io::Error {
    io::Error::other(PyOSError::new_err("the file is in non-blocking mode"))
}

impl Read for Inner {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Object(object) => Python::attach(|py| {
                let read = object.bind(py).call_method1("read", (buffer.len(),))?;
                if read.is_none() {
                    return Err(would_block());
                }
                let read = Input::of(&read, "the result of read")?;
                let target = buffer.get_mut(..read.len());
                let target = target.ok_or_else(|| PyOSError::new_err("read returned more than was asked for"))?;
                target.copy_from_slice(&read);
                Ok(read.len())
            }),
        }
    }
}

impl Write for Inner {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(buffer),
            Self::Object(object) => Python::attach(|py| {
                let written = object.bind(py).call_method1("write", (PyBytes::new(py, buffer),))?;
                if written.is_none() {
                    return Err(would_block());
                }
                let written: usize = written.extract()?;
                match written <= buffer.len() {
                    true => Ok(written),
                    false => Err(PyOSError::new_err("write returned more than was written").into()),
                }
            }),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Object(object) => Python::attach(|py| match object.bind(py).getattr_opt("flush")? {
                Some(flush) => Ok(flush.call0().map(drop)?),
                None => Ok(()),
            }),
        }
    }
}

impl Seek for Inner {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::File(file) => file.seek(to),
            Self::Object(object) => Python::attach(|py| {
                let position = match to {
                    SeekFrom::Start(offset) => object.bind(py).call_method1("seek", (offset, 0))?,
                    SeekFrom::Current(offset) => object.bind(py).call_method1("seek", (offset, 1))?,
                    SeekFrom::End(offset) => object.bind(py).call_method1("seek", (offset, 2))?,
                };
                Ok(position.extract()?)
            }),
        }
    }
}

/// Takes the lock of a stream. A second thread, or a file object that calls the stream that reads it, is refused:
/// waiting could never end.
fn locked<T>(mutex: &Mutex<T>) -> PyResult<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Ok(guard),
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => Err(PyRuntimeError::new_err("another thread uses this stream")),
    }
}

fn closed() -> PyErr {
    PyValueError::new_err("I/O operation on closed file.")
}

enum Source {
    /// Boxed, because a reader has much state.
    Seek(Box<PayloadSeekReader<Inner>>),
    Stream(Box<PayloadReader<Inner>>),
}

/// The reader below `dekseal.PayloadReader`.
#[pyclass(module = "dekseal", frozen)]
pub(crate) struct RawReader {
    source: Mutex<Option<Source>>,
    seekable: bool,
}

impl RawReader {
    fn run<T: Send>(&self, py: Python<'_>, f: impl Send + FnOnce(&mut Source) -> io::Result<T>) -> PyResult<T> {
        // Detached before the lock is taken: a file object below attaches again.
        py.detach(|| f(locked(&self.source)?.as_mut().ok_or_else(closed)?).or_raise())
    }
}

impl Source {
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled: usize = 0;
        while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
            let count = match self {
                Self::Seek(reader) => reader.read(room),
                Self::Stream(reader) => reader.read(room),
            };
            match count {
                Ok(0) => break,
                Ok(count) => filled = filled.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// The verified bytes at the position, none at the end.
    fn buffered(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Seek(reader) => reader.fill_buf(),
            Self::Stream(reader) => reader.fill_buf(),
        }
    }

    fn consume(&mut self, count: usize) {
        match self {
            Self::Seek(reader) => reader.consume(count),
            Self::Stream(reader) => reader.consume(count),
        }
    }

    /// The bytes that follow, if that is known.
    fn rest(&mut self) -> io::Result<Option<u64>> {
        match self {
            Self::Seek(reader) => {
                let end = reader.plaintext_len()?;
                Ok(Some(end.saturating_sub(reader.stream_position()?)))
            }
            Self::Stream(_) => Ok(None),
        }
    }
}

#[pymethods]
impl RawReader {
    #[getter]
    fn seekable(&self) -> bool {
        self.seekable
    }

    /// Up to `size` bytes. Fewer only at the end.
    fn read<'py>(&self, py: Python<'py>, size: usize) -> PyResult<Bound<'py, PyBytes>> {
        let rest = self.run(py, Source::rest)?;
        let size = rest.map_or(size, |rest| usize::try_from(rest).map_or(size, |rest| rest.min(size)));
        let mut filled = 0;
        let bytes = PyBytes::new_with(py, size, |buffer| {
            filled = self.run(py, |source| source.fill(buffer))?;
            Ok(())
        })?;
        match bytes.as_bytes().get(..filled) {
            Some(read) if filled < size => Ok(PyBytes::new(py, read)),
            _ => Ok(bytes),
        }
    }

    /// Fills a memoryview of bytes. Fewer only at the end. Other Python threads can change its memory, so bytes are
    /// copied there while none runs.
    fn readinto(&self, view: &Bound<'_, PyAny>) -> PyResult<usize> {
        let (py, length) = (view.py(), view.len()?);
        let mut filled = 0;
        while filled < length {
            self.run(py, |source| {
                loop {
                    match source.buffered() {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        result => return result.map(drop),
                    }
                }
            })?;
            let mut source = locked(&self.source)?;
            let source = source.as_mut().ok_or_else(closed)?;
            // They are there now, so this reads nothing.
            let ready = source.buffered().or_raise()?;
            let Some(ready) = ready
                .get(..ready.len().min(length.saturating_sub(filled)))
                .filter(|ready| !ready.is_empty())
            else {
                break;
            };
            let (count, end) = (ready.len(), filled.saturating_add(ready.len()));
            let part = view.get_item(PySlice::new(py, filled.cast_signed(), end.cast_signed(), 1))?;
            PyBuffer::<u8>::get(&part)?.copy_from_slice(py, ready)?;
            source.consume(count);
            filled = end;
        }
        Ok(filled)
    }

    /// All bytes that follow.
    fn readall<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        if let Some(rest) = self.run(py, Source::rest)? {
            let rest = usize::try_from(rest).map_err(|_| pyo3::exceptions::PyMemoryError::new_err(()))?;
            let read = self.read(py, rest)?;
            return Ok(read);
        }
        let all = self.run(py, |source| {
            let mut all = Zeroizing::new(Vec::new());
            let mut chunk = Zeroizing::new(vec![0; dekseal::payload::SEGMENT_LEN]);
            loop {
                match source.fill(&mut chunk)? {
                    0 => return Ok(all),
                    count => all.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                }
            }
        })?;
        Ok(PyBytes::new(py, &all))
    }

    fn seek(&self, py: Python<'_>, offset: i64, whence: u8) -> PyResult<u64> {
        let to = match (whence, u64::try_from(offset)) {
            (0, Ok(offset)) => SeekFrom::Start(offset),
            (0, Err(_)) => return Err(PyValueError::new_err(format!("negative seek position {offset}"))),
            (1, _) => SeekFrom::Current(offset),
            (2, _) => SeekFrom::End(offset),
            _ => {
                return Err(PyValueError::new_err(format!(
                    "invalid whence ({whence}, should be 0, 1 or 2)"
                )));
            }
        };
        self.run(py, |source| match source {
            Source::Seek(reader) => reader.seek(to),
            Source::Stream(_) => Err(io::ErrorKind::NotSeekable.into()),
        })
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let source = py.detach(|| PyResult::Ok(locked(&self.source)?.take()))?;
        drop(source);
        Ok(())
    }
}

/// The writer below `dekseal.PayloadWriter`.
#[pyclass(module = "dekseal", frozen)]
pub(crate) struct RawWriter(Mutex<Option<PayloadWriter<Inner>>>);

#[pymethods]
impl RawWriter {
    /// Encrypts and writes all of `data`.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let data = Input::of(data, "data")?;
        py.detach(|| {
            let mut writer = locked(&self.0)?;
            writer.as_mut().ok_or_else(closed)?.write_all(&data).or_raise()
        })?;
        Ok(data.len())
    }

    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| locked(&self.0)?.as_mut().ok_or_else(closed)?.flush().or_raise())
    }

    /// Writes the last segment. Without it, what was written does not decrypt.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| {
            let writer = locked(&self.0)?.take().ok_or_else(closed)?;
            writer.finish().map(drop).or_raise()
        })
    }

    /// Ends the payload without its last segment.
    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        let writer = py.detach(|| PyResult::Ok(locked(&self.0)?.take()))?;
        drop(writer);
        Ok(())
    }
}

#[pymethods]
impl PyEngine {
    fn _reader(
        &self,
        py: Python<'_>,
        file: &Bound<'_, PyAny>,
        key_id: &str,
        context: &Bound<'_, PyAny>,
    ) -> PyResult<RawReader> {
        let (key_id, context) = (parse_id(key_id)?, self::context(context)?);
        let context = context.as_ref();
        let inner = Inner::of(file, File::open)?;
        let seekable = inner.is_seekable(py)?;
        let opened = self.handle.attached(py)?;
        let source = py.detach(|| match seekable {
            true => {
                let reader = opened.engine.decrypt_seek_reader(&key_id, context, inner)?;
                io::Result::Ok(Source::Seek(Box::new(reader)))
            }
            false => {
                let reader = opened.engine.decrypt_reader(&key_id, context, inner)?;
                Ok(Source::Stream(Box::new(reader)))
            }
        });
        Ok(RawReader {
            source: Mutex::new(Some(source.or_raise()?)),
            seekable,
        })
    }

    fn _writer(
        &self,
        py: Python<'_>,
        file: &Bound<'_, PyAny>,
        key_id: &str,
        context: &Bound<'_, PyAny>,
        exclusive: bool,
    ) -> PyResult<RawWriter> {
        let (key_id, context) = (parse_id(key_id)?, self::context(context)?);
        let context = context.as_ref();
        let opened = self.handle.attached(py)?;
        // The DEK first: an unknown key must not empty the file.
        let cipher = py
            .detach(|| opened.engine.create_payload_cipher(&key_id, context))
            .or_raise()?;
        let inner = Inner::of(file, |path| match exclusive {
            true => File::create_new(path),
            false => File::create(path),
        })?;
        let writer = py.detach(|| cipher.encrypt_writer(inner)).or_raise()?;
        Ok(RawWriter(Mutex::new(Some(writer))))
    }
}
