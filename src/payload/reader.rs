//! Reads a payload from any `io::Read`.

use core::{fmt, ops::Range};
use std::io::{self, BufRead, Read};

use super::{
    PayloadCipher, SEALED_SEGMENT_LEN, SEGMENT_LEN, SegmentOpener, TAG_LEN,
    io::{Buffer, Failure, read_full, read_header},
};
use crate::{context::EncryptionContext, engine::Engine, key_id::KeyId, keyring::Keyring, trace::Event};

/// Decrypts a payload that it reads from an inner reader.
///
/// A reader needs 64 KiB of memory for any length of data. It reads pieces of that size, so the inner reader needs no
/// buffer. It reads the inner reader to its end, because nothing may follow a payload. Reads of 64 KiB and more are the
/// fastest: they decrypt in the caller's buffer.
///
/// [`Engine::decrypt_reader`] and [`PayloadCipher::decrypt_reader`] make one.
///
/// # Errors
///
/// The errors of the inner reader, unchanged; and, with the kind [`InvalidData`](io::ErrorKind::InvalidData), an
/// [`Error`](crate::Error): [`ErrorKind::AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed) if the payload
/// was changed, truncated or extended, [`ErrorKind::NotAPayload`](crate::ErrorKind::NotAPayload) if no payload has this
/// length, and [`ErrorKind::PayloadTooLong`](crate::ErrorKind::PayloadTooLong). Interrupted calls are repeated. After
/// any other error, every later read fails with an error of the same kind. The contents of the caller's buffer are then
/// unspecified, but contain no plaintext that was not verified.
///
/// # Security
///
/// All data that a reader returns is authentic, but the end of the payload may still be missing. The payload is
/// complete once a call has returned `Ok(0)`. A caller that acts on the data earlier must be able to undo it.
///
/// # Examples
///
/// ```
/// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
/// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
/// # let context = EncryptionContext::none();
/// # let payload = engine.encrypt(&key_id, &context, b"attack at dawn")?;
/// # let (input, mut output) = (&payload[..], Vec::new());
/// let mut reader = engine.decrypt_reader(&key_id, &context, input)?;
/// std::io::copy(&mut reader, &mut output)?;
/// # assert_eq!(output, b"attack at dawn");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PayloadReader<R> {
    inner: R,
    /// `None` after the last segment.
    opener: Option<SegmentOpener>,
    buffer: Buffer,
    /// The verified plaintext in the buffer that was not returned yet.
    unread: Range<usize>,
    /// The first byte of the next segment, if it was read already to find out that another segment follows.
    ahead: Option<u8>,
    failure: Failure,
}

impl<R: Read> PayloadReader<R> {
    fn new(opener: SegmentOpener, inner: R) -> Self {
        Self {
            inner,
            opener: Some(opener),
            buffer: Buffer::new(),
            unread: 0..0,
            ahead: None,
            failure: Failure::default(),
        }
    }

    /// Reads and opens the next segment in the buffer.
    fn next_segment(&mut self) -> io::Result<()> {
        let (ahead, rest) = put_ahead(&mut self.ahead, self.buffer.all());
        let length = ahead.saturating_add(read_full(&mut self.inner, rest)?);
        // B3.3: the reader takes a segment for the last when nothing follows it.
        if length < Buffer::LEN {
            return self.last_segment(length);
        }
        if let Some(opener) = &mut self.opener {
            opener.open_in_place(self.buffer.segment())?;
            self.ahead = Some(self.buffer.all()[SEALED_SEGMENT_LEN]);
            self.unread = 0..SEGMENT_LEN;
        }
        Ok(())
    }

    /// Opens the last segment, the first `length` bytes of the buffer.
    fn last_segment(&mut self, length: usize) -> io::Result<()> {
        if let Some(opener) = self.opener.take() {
            let segment = self.buffer.get_mut(0..length)?;
            let plaintext = opener.open_last_in_place(segment)?;
            self.unread = 0..plaintext.len();
        }
        Ok(())
    }

    /// Reads the next segment into `room` and opens it there, which saves a copy. A short segment, the last, is opened
    /// in the buffer. Returns how many bytes of plaintext are in `room`.
    fn next_segment_into(&mut self, room: &mut [u8; SEGMENT_LEN]) -> io::Result<usize> {
        let (ahead, rest) = put_ahead(&mut self.ahead, room);
        let mut length = ahead.saturating_add(read_full(&mut self.inner, rest)?);
        // The tag, and one byte of the next segment.
        let mut behind = [0; TAG_LEN + 1];
        if length == SEGMENT_LEN {
            length = length.saturating_add(read_full(&mut self.inner, &mut behind)?);
        }
        let [tag @ .., next] = behind;
        match length {
            Buffer::LEN => {
                if let Some(opener) = &mut self.opener {
                    opener.open_detached(room, &tag)?;
                }
                self.ahead = Some(next);
                Ok(SEGMENT_LEN)
            }
            SEALED_SEGMENT_LEN => match self.opener.take() {
                Some(opener) => opener
                    .open_last_detached(room, &tag)
                    .map(|()| SEGMENT_LEN)
                    .map_err(io::Error::from),
                None => Ok(0),
            },
            _ => {
                let (text, rest) = self.buffer.all().split_at_mut(SEGMENT_LEN);
                text.copy_from_slice(room);
                rest.copy_from_slice(&behind);
                self.last_segment(length)?;
                Ok(0)
            }
        }
    }
}

/// Moves the byte that was read ahead, if there is one, to the start of its segment. Returns the number of bytes moved,
/// 0 or 1, and the rest of the segment.
fn put_ahead<'a>(ahead: &mut Option<u8>, segment: &'a mut [u8]) -> (usize, &'a mut [u8]) {
    match (ahead.take(), segment) {
        (Some(byte), [first, rest @ ..]) => {
            *first = byte;
            (1, rest)
        }
        (_, segment) => (0, segment),
    }
}

impl<R: Read> Read for PayloadReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.failure.check()?;
        if self.unread.is_empty() && !buffer.is_empty() && self.opener.is_some() {
            let opened = match buffer.first_chunk_mut() {
                Some(room) => self.next_segment_into(room),
                None => self.next_segment().map(|()| 0),
            };
            let count = self.failure.remember(opened)?;
            if count > 0 {
                return Ok(count);
            }
        }
        let count = self.buffer.get(self.unread.clone())?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for PayloadReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.failure.check()?;
        if self.unread.is_empty() && self.opener.is_some() {
            let opened = self.next_segment();
            self.failure.remember(opened)?;
        }
        self.buffer.get(self.unread.clone())
    }

    fn consume(&mut self, count: usize) {
        self.unread.start = self.unread.start.saturating_add(count).min(self.unread.end);
    }
}

impl<R> fmt::Debug for PayloadReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PayloadReader(..)")
    }
}

impl PayloadCipher {
    /// Makes a reader that decrypts a payload of this DEK from `inner`. Reads the header at once.
    ///
    /// # Errors
    ///
    /// The errors of `inner`, unchanged; and, with the kind [`InvalidData`](io::ErrorKind::InvalidData), an
    /// [`Error`](crate::Error): [`ErrorKind::NotAPayload`](crate::ErrorKind::NotAPayload) if the header is incomplete,
    /// the errors of [`PayloadHeader::from_bytes`](super::PayloadHeader::from_bytes), and those of
    /// [`opener`](Self::opener). No others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let payload_cipher = engine.create_payload_cipher(&key_id, &EncryptionContext::none())?;
    /// # let payload = payload_cipher.encrypt(b"attack at dawn")?;
    /// let plaintext = std::io::read_to_string(payload_cipher.decrypt_reader(&payload[..])?)?;
    /// assert_eq!(plaintext, "attack at dawn");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn decrypt_reader<R: Read>(&self, mut inner: R) -> io::Result<PayloadReader<R>> {
        let header = read_header(&mut inner)?;
        Ok(PayloadReader::new(self.opener(&header)?, inner))
    }
}

impl<K: Keyring> Engine<K> {
    /// Makes a reader that decrypts a payload from `inner`. The caller expects the payload to be sealed under `key_id`.
    /// Reads the header at once.
    ///
    /// # Errors
    ///
    /// The errors of `inner`, unchanged; and, with the kind [`InvalidData`](io::ErrorKind::InvalidData), an
    /// [`Error`](crate::Error): [`ErrorKind::NotAPayload`](crate::ErrorKind::NotAPayload) if the header is incomplete,
    /// the errors of [`PayloadHeader::from_bytes`](crate::payload::PayloadHeader::from_bytes), those of
    /// [`decrypt_dek`](Self::decrypt_dek) for the sealed DEK, and
    /// [`ErrorKind::AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed) if the commitment in the header does
    /// not belong to the DEK. No others.
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
    /// # std::fs::write(&path, engine.encrypt(&key_id, &context, b"attack at dawn")?)?;
    /// let file = std::fs::File::open(&path)?;
    /// let plaintext = std::io::read_to_string(engine.decrypt_reader(&key_id, &context, file)?)?;
    /// assert_eq!(plaintext, "attack at dawn");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn decrypt_reader<R: Read>(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        mut inner: R,
    ) -> io::Result<PayloadReader<R>> {
        Event::new("decrypt_reader", Some(key_id), Some(context)).of(|event| {
            let header = read_header(&mut inner)?;
            let key = self.payload_key(key_id, context, &header, event)?;
            Ok(PayloadReader::new(SegmentOpener::new(key), inner))
        })
    }
}
