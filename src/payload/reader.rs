//! A payload from any `io::Read`.

use core::{fmt, ops::Range};
use std::io::{self, BufRead, Read};

use super::{
    PayloadCipher, SEALED_SEGMENT_LEN, SEGMENT_LEN, SegmentOpener,
    io::{Buffer, Failure, read_full, read_header},
};
use crate::{context::EncryptionContext, engine::Engine, key_id::KeyId, keyring::Keyring, trace::Event};

/// Decrypts what it reads from an inner reader.
///
/// Takes 64 KiB of memory, whatever the length. The inner reader is read in pieces of that size and needs no buffer; it
/// is read to its end, since nothing may follow a payload.
///
/// [`Engine::decrypt_reader`] and [`PayloadCipher::decrypt_reader`] make one.
///
/// # Errors
///
/// A reader's errors are those of the inner one, as they are, and with the kind
/// [`InvalidData`](io::ErrorKind::InvalidData) an [`Error`](crate::Error):
/// [`ErrorKind::AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed) where the payload was changed, cut short
/// or continued, [`ErrorKind::NotAPayload`](crate::ErrorKind::NotAPayload) where no payload ends there, and
/// [`ErrorKind::PayloadTooLong`](crate::ErrorKind::PayloadTooLong). A call that the inner reader interrupts goes on.
/// After any other error a reader gives errors ever after, of the same kind.
///
/// # Security
///
/// What it gives is authentic, and the rest may yet be missing: that the payload is whole is known when a call has
/// given `Ok(0)`. Whoever acts on the data before that must be able to take it back.
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
    /// None behind the last segment.
    opener: Option<SegmentOpener>,
    buffer: Buffer,
    /// The plaintext in the buffer that was not given out yet. It was verified.
    unread: Range<usize>,
    /// How many bytes of the next segment stand behind the one in the buffer: 0 or 1.
    ahead: usize,
    failure: Failure,
}

impl<R: Read> PayloadReader<R> {
    fn new(opener: SegmentOpener, inner: R) -> Self {
        Self {
            inner,
            opener: Some(opener),
            buffer: Buffer::new(),
            unread: 0..0,
            ahead: 0,
            failure: Failure::default(),
        }
    }

    /// Reads and opens the next segment: into `room` where there is some and the segment is not the last, else where it
    /// stands. Gives how many bytes went into `room`.
    fn next_segment(&mut self, room: Option<&mut [u8; SEGMENT_LEN]>) -> io::Result<usize> {
        if self.opener.is_none() {
            return Ok(0);
        }
        let length = self.fill()?;
        // B3.3: the reader takes a segment for the last when nothing follows it.
        if length < Buffer::LEN {
            if let Some(opener) = self.opener.take() {
                let segment = self.buffer.all().get_mut(..length);
                let plaintext = opener.open_last_in_place(segment.unwrap_or_default())?;
                self.unread = 0..plaintext.len();
            }
        } else if let Some(opener) = &mut self.opener {
            self.ahead = 1;
            if let Some(room) = room {
                opener.open(self.buffer.segment(), room)?;
                return Ok(SEGMENT_LEN);
            }
            opener.open_in_place(self.buffer.segment())?;
            self.unread = 0..SEGMENT_LEN;
        }
        Ok(0)
    }

    /// Reads the next segment and the byte behind it: gives how many bytes that are.
    fn fill(&mut self) -> io::Result<usize> {
        let buffer = self.buffer.all();
        buffer[0] = buffer[SEALED_SEGMENT_LEN];
        let room = buffer.get_mut(self.ahead..).unwrap_or_default();
        let count = read_full(&mut self.inner, room)?;
        Ok(self.ahead.saturating_add(count))
    }
}

impl<R: Read> Read for PayloadReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.failure.check()?;
        if self.unread.is_empty() && !buffer.is_empty() {
            let opened = self.next_segment(buffer.first_chunk_mut());
            let count = self.failure.remember(opened)?;
            if count > 0 {
                return Ok(count);
            }
        }
        let count = self.buffer.get(self.unread.clone()).read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for PayloadReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.failure.check()?;
        if self.unread.is_empty() {
            let opened = self.next_segment(None);
            self.failure.remember(opened)?;
        }
        Ok(self.buffer.get(self.unread.clone()))
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
    /// A reader that decrypts a payload of this DEK from `inner`, of which it reads the header now.
    ///
    /// # Errors
    ///
    /// Those of `inner`, as they are; and with the kind [`InvalidData`](io::ErrorKind::InvalidData) an
    /// [`Error`](crate::Error): [`ErrorKind::NotAPayload`](crate::ErrorKind::NotAPayload) where there is no whole
    /// header, what [`PayloadHeader::from_bytes`](super::PayloadHeader::from_bytes) says of it, and what
    /// [`opener`](Self::opener) does. No others.
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
    /// A reader that decrypts a payload, which the caller expects to be sealed under `key_id`, from `inner`, of which
    /// it reads the header now.
    ///
    /// # Errors
    ///
    /// Those of `inner`, as they are; and with the kind [`InvalidData`](io::ErrorKind::InvalidData) an
    /// [`Error`](crate::Error): [`ErrorKind::NotAPayload`](crate::ErrorKind::NotAPayload) where there is no whole
    /// header, what [`PayloadHeader::from_bytes`](crate::payload::PayloadHeader::from_bytes) says of it, what
    /// [`decrypt_dek`](Self::decrypt_dek) says of the sealed DEK, and
    /// [`ErrorKind::AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed) where the header's commitment is not
    /// that of the DEK. No others.
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
            let payload_cipher = self.payload_cipher(key_id, context, header.sealed_dek(), event)?;
            Ok(PayloadReader::new(payload_cipher.opener(&header)?, inner))
        })
    }
}
