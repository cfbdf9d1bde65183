//! Writes a payload to any `io::Write`.

use core::{fmt, ops::Range};
use std::io::{self, Read, Write};

use rand_core::TryCryptoRng;

use super::{
    PayloadCipher, PayloadHeader, SEALED_SEGMENT_LEN, SEGMENT_LEN, SegmentSealer, TAG_LEN,
    io::{Buffer, retrying},
};
use crate::{context::EncryptionContext, engine::Engine, error::Error, key_id::KeyId, keyring::Keyring, trace::Event};

/// Encrypts all data that is written to it, and writes the payload to an inner writer. Call [`finish`](Self::finish) at
/// the end: without it, the payload does not decrypt.
///
/// A writer needs 64 KiB of memory for any length of data. It writes pieces of that size, so the inner writer needs no
/// buffer.
///
/// [`Engine::encrypt_writer`] and [`PayloadCipher::encrypt_writer`] make one.
///
/// # Errors
///
/// The errors of the inner writer, unchanged; and, with the kind [`InvalidData`](io::ErrorKind::InvalidData),
/// [`ErrorKind::PayloadTooLong`](crate::ErrorKind::PayloadTooLong). Interrupted calls are repeated. After any other
/// error of the inner writer nothing is lost: the next call continues at the same byte.
///
/// # Security
///
/// A writer that is dropped without `finish` writes no last segment. Readers refuse such a payload: they say that it
/// may be truncated or was never finished.
///
/// # Examples
///
/// ```
/// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
/// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
/// # let context = EncryptionContext::none();
/// # let (mut input, output) = (&b"attack at dawn"[..], Vec::new());
/// let mut writer = engine.encrypt_writer(&key_id, &context, output)?;
/// std::io::copy(&mut input, &mut writer)?;
/// let output = writer.finish()?;
/// # assert_eq!(*engine.decrypt(&key_id, &context, &output)?, b"attack at dawn");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a payload without a call of `finish` does not decrypt"]
pub struct PayloadWriter<W> {
    inner: W,
    sealer: SegmentSealer,
    buffer: Buffer,
    state: State,
}

/// The contents of the buffer.
enum State {
    /// This many bytes of plaintext. They are not sealed yet, because they may be the last segment.
    Filling(usize),
    /// The header or a sealed segment, of which this range is not written yet.
    Writing(Range<usize>),
}

impl<W: Write> PayloadWriter<W> {
    /// Makes a writer with the header in its buffer. Writes nothing yet.
    fn new((header, sealer): (PayloadHeader, SegmentSealer), inner: W) -> Self {
        let mut buffer = Buffer::new();
        buffer.all()[..PayloadHeader::LEN].copy_from_slice(&header.to_bytes());
        Self {
            inner,
            sealer,
            buffer,
            state: State::Writing(0..PayloadHeader::LEN),
        }
    }

    /// Writes the last segment, flushes the inner writer and returns it.
    ///
    /// # Errors
    ///
    /// The errors of the type. After an error the payload is incomplete and cannot be continued.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// use std::io::Write;
    ///
    /// let mut writer = engine.encrypt_writer(&key_id, &context, Vec::new())?;
    /// writer.write_all(b"attack at dawn")?;
    /// let payload = writer.finish()?;
    /// assert_eq!(payload.len(), 264 + 14 + 16);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn finish(mut self) -> io::Result<W> {
        let filled = self.write_out()?;
        let Self {
            mut inner,
            sealer,
            mut buffer,
            ..
        } = self;
        let segment = buffer.get_mut(0..filled.saturating_add(TAG_LEN))?;
        sealer.seal_last_in_place(segment)?;
        inner.write_all(segment)?;
        retrying(|| inner.flush())?;
        Ok(inner)
    }

    /// Writes the sealed bytes of the buffer. Returns the number of bytes of plaintext in it.
    fn write_out(&mut self) -> io::Result<usize> {
        loop {
            match &mut self.state {
                State::Filling(filled) => return Ok(*filled),
                State::Writing(rest) if Range::is_empty(rest) => self.state = State::Filling(0),
                State::Writing(rest) => match retrying(|| self.inner.write(self.buffer.get(rest.clone())?))? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    count => rest.start = rest.start.saturating_add(count),
                },
            }
        }
    }
}

impl<W: Write> Write for PayloadWriter<W> {
    /// Accepts at most the room in the current segment. After an error, no byte of `plaintext` was accepted.
    fn write(&mut self, plaintext: &[u8]) -> io::Result<usize> {
        if plaintext.is_empty() {
            return Ok(0);
        }
        // B3.2: a full segment could have been the last one, but more data follows.
        if matches!(self.state, State::Filling(SEGMENT_LEN)) {
            self.sealer.seal_in_place(self.buffer.segment())?;
            self.state = State::Writing(0..SEALED_SEGMENT_LEN);
        }
        let filled = self.write_out()?;

        // A full segment that is not the last is sealed without a copy.
        if let (0, Some((segment, [_, ..]))) = (filled, plaintext.split_first_chunk()) {
            self.sealer.seal(segment, self.buffer.segment())?;
            self.state = State::Writing(0..SEALED_SEGMENT_LEN);
            return Ok(SEGMENT_LEN);
        }
        let room = self.buffer.get_mut(filled..SEGMENT_LEN)?;
        let count = (&*plaintext).read(room)?;
        self.state = State::Filling(filled.saturating_add(count));
        Ok(count)
    }

    /// Writes the sealed bytes and flushes the inner writer. The plaintext of the current segment stays in the buffer,
    /// because only the last segment may be short.
    fn flush(&mut self) -> io::Result<()> {
        self.write_out()?;
        retrying(|| self.inner.flush())
    }
}

impl<W> fmt::Debug for PayloadWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PayloadWriter(..)")
    }
}

impl PayloadCipher {
    /// Makes a writer that encrypts to `inner`. Writes nothing before its first call.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Randomness`](crate::ErrorKind::Randomness); no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let payload_cipher = engine.create_payload_cipher(&key_id, &EncryptionContext::none())?;
    /// use std::io::Write;
    ///
    /// let mut writer = payload_cipher.encrypt_writer(Vec::new())?;
    /// writer.write_all(b"attack at dawn")?;
    /// assert_eq!(*payload_cipher.decrypt(&writer.finish()?)?, b"attack at dawn");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn encrypt_writer<W: Write>(&self, inner: W) -> Result<PayloadWriter<W>, Error> {
        self.encrypt_writer_with_rng(inner, &mut getrandom::SysRng)
    }

    /// [`encrypt_writer`](Self::encrypt_writer) with a random generator of the caller's. It draws the 32 bytes of the
    /// payload salt.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Randomness`](crate::ErrorKind::Randomness); no others.
    ///
    /// # Security
    ///
    /// See [`encrypt_with_rng`](Self::encrypt_with_rng).
    pub fn encrypt_writer_with_rng<W: Write, R: TryCryptoRng + ?Sized>(
        &self,
        inner: W,
        rng: &mut R,
    ) -> Result<PayloadWriter<W>, Error> {
        Ok(PayloadWriter::new(self.sealer_with_rng(rng)?, inner))
    }
}

impl<K: Keyring> Engine<K> {
    /// Makes a writer that encrypts to `inner` under a new DEK, as [`encrypt`](Self::encrypt) does. Writes nothing
    /// before its first call.
    ///
    /// # Errors
    ///
    /// The errors of the [`Keyring`] and [`ErrorKind::Randomness`](crate::ErrorKind::Randomness); no others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("report.sealed");
    /// # let mut report = &b"attack at dawn"[..];
    /// let file = std::fs::File::create_new(&path)?;
    /// let mut writer = engine.encrypt_writer(&key_id, &context, file)?;
    /// std::io::copy(&mut report, &mut writer)?;
    /// writer.finish()?.sync_all()?;
    /// # assert_eq!(*engine.decrypt(&key_id, &context, &std::fs::read(&path)?)?, b"attack at dawn");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn encrypt_writer<W: Write>(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        inner: W,
    ) -> Result<PayloadWriter<W>, Error> {
        Event::new("encrypt_writer", Some(key_id), Some(context)).of(|event| {
            self.create_for_one(key_id, context, &mut getrandom::SysRng, event, |new, sealed| {
                Ok(PayloadWriter::new(SegmentSealer::start(new, sealed), inner))
            })
        })
    }
}
