//! Readers and writers for ours to stand on: that give little at a time, are interrupted, and fail.

use std::io::{self, BufRead, ErrorKind as Kind, Read, Seek, SeekFrom, Write};

use dekseal::{Error, ErrorKind};

/// A reader that gives at most so many bytes at a time.
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

/// What a step of an inner reader or writer does.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Interrupt,
    Fail,
    /// Fills the room with something, and panics.
    Panic,
    Pass,
}

/// An inner reader or writer that does as it is told, step by step, and passes when it has been told no more.
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

    /// `room` is what is read into, if anything.
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
        // Never all of a segment.
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

/// The kind of our error inside of an I/O error, which must have the kind `InvalidData` then.
pub(super) fn kind_of(error: &io::Error) -> Option<ErrorKind> {
    let ours = error.get_ref()?.downcast_ref::<Error>()?;
    assert_eq!(error.kind(), Kind::InvalidData);
    Some(ours.kind())
}

/// Reads until there is an error: gives what came before. The reader must go on failing, whatever is asked of it.
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
