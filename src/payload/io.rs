//! Code that the readers and the writer share.

use alloc::boxed::Box;
use core::ops::Range;
use std::io::{self, Read, Seek, SeekFrom};

use zeroize::optimization_barrier;

use super::{PayloadHeader, SEALED_SEGMENT_LEN};
use crate::error::{Error, ErrorKind, PayloadRule};

/// A buffer for one sealed segment and one more byte, which shows that the segment is not the last. It holds plaintext
/// at times, so it is wiped on drop.
pub(super) struct Buffer(Box<[u8; Self::LEN]>);

impl Buffer {
    pub(super) const LEN: usize = SEALED_SEGMENT_LEN + 1;

    pub(super) fn new() -> Self {
        Self(Box::new([0; Self::LEN]))
    }

    pub(super) fn all(&mut self) -> &mut [u8; Self::LEN] {
        &mut self.0
    }

    pub(super) fn segment(&mut self) -> &mut [u8; SEALED_SEGMENT_LEN] {
        let [segment @ .., _] = &mut *self.0;
        segment
    }

    /// The bytes of `range`.
    pub(super) fn get(&self, range: Range<usize>) -> io::Result<&[u8]> {
        self.0.get(range).ok_or_else(outside)
    }

    /// The bytes of `range`, to be changed.
    pub(super) fn get_mut(&mut self, range: Range<usize>) -> io::Result<&mut [u8]> {
        self.0.get_mut(range).ok_or_else(outside)
    }
}

/// The error for a range outside the buffer. No caller asks for one. If one did, an empty slice would look like the end
/// of the payload.
fn outside() -> io::Error {
    Error::from(ErrorKind::BufferLength).into()
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // `zeroize` would write one byte at a time, which takes as long as decrypting a quarter of the segment.
        self.0.fill(0);
        optimization_barrier(&*self.0);
    }
}

/// Repeats the call while it is interrupted.
pub(super) fn retrying<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Reads until `buffer` is full or the input ends. Returns the number of bytes.
pub(super) fn read_full<R: Read + ?Sized>(inner: &mut R, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled: usize = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match retrying(|| inner.read(room))? {
            0 => break,
            // A faulty reader may return more than the length of the buffer.
            count => filled = filled.saturating_add(count.min(room.len())),
        }
    }
    Ok(filled)
}

/// Reads and parses a header.
pub(super) fn read_header<R: Read + ?Sized>(inner: &mut R) -> io::Result<PayloadHeader> {
    let mut bytes = [0; PayloadHeader::LEN];
    if read_full(inner, &mut bytes)? < bytes.len() {
        return Err(not_whole());
    }
    Ok(PayloadHeader::from_bytes(&bytes)?)
}

/// The error for an input that ends inside a payload.
pub(super) fn not_whole() -> io::Error {
    Error::from(ErrorKind::NotAPayload(PayloadRule::Length)).into()
}

/// B3.6: a reader that has seen an error returns it ever after.
#[derive(Default)]
pub(super) struct Failure(Option<(io::ErrorKind, Option<ErrorKind>)>);

impl Failure {
    /// Returns the remembered error, if there is one.
    pub(super) fn check(&self) -> io::Result<()> {
        match self.0 {
            None => Ok(()),
            Some((_, Some(ours))) => Err(Error::from(ours).into()),
            Some((kind, None)) => Err(kind.into()),
        }
    }

    /// Remembers an error. An `io::Error` cannot be cloned, so the first call returns all of it, and later calls only
    /// its kind.
    pub(super) fn remember<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            let ours = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
            self.0 = Some((error.kind(), ours.map(Error::kind)));
        }
        result
    }
}

/// Seeks to a position from the beginning.
pub(super) fn seek_to<S: Seek + ?Sized>(inner: &mut S, position: u64) -> io::Result<()> {
    retrying(|| inner.seek(SeekFrom::Start(position))).map(|_| ())
}
