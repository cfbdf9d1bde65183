//! Inner readers and writers that transfer few bytes at a time, are interrupted, or fail.

use std::io::{self, BufRead, ErrorKind as Kind, Read, Seek, SeekFrom, Write};

use dekseal::{Error, ErrorKind};

/// A reader that returns at most this many bytes at a time.
pub(super) struct Slow<R> {
    inner: R,
    most: usize,
}

impl<R> Slow<R> {
    pub(super) fn new(inner: R, most: usize) -> Self {
        Self { inner, most }
    }
}

impl<R: Read> Read for Slow<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len().min(self.most);
        self.inner.read(&mut buffer[..room])
    }
}

impl<R: Seek> Seek for Slow<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

/// The behaviour of an inner reader or writer in one step.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Interrupt,
    Fail,
    /// Fills the buffer with arbitrary bytes, and panics.
    Panic,
    Pass,
}

/// An inner reader or writer that follows a list of steps, and then passes all calls on.
pub(super) struct Told<T> {
    pub(super) inner: T,
    steps: Vec<Step>,
}

impl<T> Told<T> {
    pub(super) fn new(inner: T, steps: impl IntoIterator<Item = Step>) -> Self {
        let mut steps: Vec<_> = steps.into_iter().collect();
        steps.reverse();
        Self { inner, steps }
    }

    /// `room` is the buffer of a read, if the step is one.
    fn step(&mut self, room: &mut [u8]) -> io::Result<()> {
        match self.steps.pop().unwrap_or(Step::Pass) {
            Step::Interrupt => Err(Kind::Interrupted.into()),
            Step::Fail => Err(io::Error::new(Kind::ConnectionReset, "the cable was cut")),
            Step::Panic => {
                room.fill(0xa5);
                panic!("the inner one has a bug");
            }
            Step::Pass => Ok(()),
        }
    }
}

impl<R: Read> Read for Told<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.step(buffer)?;
        self.inner.read(buffer)
    }
}

impl<S: Seek> Seek for Told<S> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.step(&mut [])?;
        self.inner.seek(to)
    }
}

impl<W: Write> Write for Told<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.step(&mut [])?;
        // Never a complete segment.
        self.inner.write(&buffer[..buffer.len().min(50_000)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.step(&mut [])?;
        self.inner.flush()
    }
}

pub(super) fn assert_is_the_cable(error: &io::Error) {
    assert_eq!(error.kind(), Kind::ConnectionReset);
    assert_eq!(error.get_ref().unwrap().to_string(), "the cable was cut");
}

/// The kind of the `Error` inside an I/O error, which must then have the kind `InvalidData`.
pub(super) fn kind_of(error: &io::Error) -> Option<ErrorKind> {
    let ours = error.get_ref()?.downcast_ref::<Error>()?;
    assert_eq!(error.kind(), Kind::InvalidData);
    Some(ours.kind())
}

/// Reads until an error. Returns the bytes before it. Every later call of the reader must fail too.
pub(super) fn read_until_error<R: BufRead>(reader: &mut R, room: usize) -> (Vec<u8>, io::Error) {
    let mut opened = Vec::new();
    let mut buffer = vec![0; room];
    let error = loop {
        match reader.read(&mut buffer) {
            Ok(0) => panic!("a clean end after {} bytes", opened.len()),
            Ok(count) => opened.extend_from_slice(&buffer[..count]),
            Err(error) => break error,
        }
    };
    buffer.fill(0xa5);
    for _ in 0..3 {
        assert_eq!(reader.read(&mut buffer).unwrap_err().kind(), error.kind());
        assert_eq!(reader.read(&mut []).unwrap_err().kind(), error.kind());
        assert_eq!(reader.fill_buf().unwrap_err().kind(), error.kind());
        assert_eq!(kind_of(&reader.read(&mut buffer).unwrap_err()), kind_of(&error));
    }
    assert!(
        buffer.iter().all(|byte| *byte == 0xa5),
        "something came after the error"
    );
    (opened, error)
}
