//! Reads any part of a payload from any `io::Read + io::Seek`.

use core::fmt;
use std::io::{self, BufRead, Read, Seek, SeekFrom};

use super::{
    PayloadCipher, SEGMENT_LEN, TAG_LEN,
    io::{Buffer, Failure, not_whole, read_full, read_header, retrying, seek_to},
    keys::{PayloadKey, Place},
    length::Cut,
};
use crate::{context::EncryptionContext, engine::Engine, key_id::KeyId, keyring::Keyring, trace::Event};

/// Decrypts any part of a payload. The inner reader must be able to seek.
///
/// A reader reads and decrypts only the segments that it needs, and keeps the most recent one in 64 KiB of memory. The
/// payload is the whole inner reader, from position 0 to its end.
///
/// [`Engine::decrypt_seek_reader`] and [`PayloadCipher::decrypt_seek_reader`] make one.
///
/// # Errors
///
/// The errors of a [`PayloadReader`](super::PayloadReader). Also [`InvalidInput`](io::ErrorKind::InvalidInput) for a
/// seek to a position below 0 or above 2⁶⁴ − 1; the reader is then unchanged.
///
/// # Security
///
/// All data that a reader returns is authentic and belongs at its position. Before the reader reports a length, serves
/// a seek from the end or returns an end of file, it verifies the last segment as the last. A caller that reads only
/// the front of a payload does not learn whether it is complete; [`plaintext_len`](Self::plaintext_len) verifies that.
/// If the payload changes while it is read, each segment is authentic by itself.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Seek, SeekFrom};
///
/// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
/// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
/// # let context = EncryptionContext::none();
/// # let file = std::io::Cursor::new(engine.encrypt(&key_id, &context, b"attack at dawn")?);
/// let mut reader = engine.decrypt_seek_reader(&key_id, &context, file)?;
/// reader.seek(SeekFrom::End(-4))?;
/// let mut tail = String::new();
/// reader.read_to_string(&mut tail)?;
/// assert_eq!(tail, "dawn");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PayloadSeekReader<R> {
    inner: R,
    key: PayloadKey,
    /// The segments, computed from the length of the inner reader. They are not verified until `whole` is set.
    cut: Cut,
    /// Whether the last segment was verified as the last.
    whole: bool,
    position: u64,
    buffer: Buffer,
    /// The index of the segment whose verified plaintext is in the buffer.
    loaded: Option<u32>,
    failure: Failure,
}

impl<R: Read + Seek> PayloadSeekReader<R> {
    /// `inner` may be at any position.
    pub(super) fn new(key: PayloadKey, mut inner: R) -> io::Result<Self> {
        let length = retrying(|| inner.seek(SeekFrom::End(0)))?;
        Ok(Self {
            inner,
            key,
            cut: Cut::of(length).ok_or_else(not_whole)?,
            whole: false,
            position: 0,
            buffer: Buffer::new(),
            loaded: None,
            failure: Failure::default(),
        })
    }

    /// The length of the plaintext in bytes. Verifies the last segment first, unless it was verified before.
    ///
    /// # Errors
    ///
    /// The errors of the type.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// # let payload = std::io::Cursor::new(engine.encrypt(&key_id, &context, b"attack at dawn")?);
    /// let mut reader = engine.decrypt_seek_reader(&key_id, &context, payload)?;
    /// assert_eq!(reader.plaintext_len()?, 14);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn plaintext_len(&mut self) -> io::Result<u64> {
        self.failure.check()?;
        // B3.8: the last segment is verified, as last, before a length is reported, a seek from the end is served, or
        // an end of file is returned.
        if !self.whole {
            self.load(self.cut.last())?;
        }
        Ok(self.cut.plaintext_len())
    }

    /// Reads and opens segment `index`, unless it is in the buffer.
    fn load(&mut self, index: u32) -> io::Result<()> {
        if self.loaded != Some(index) {
            let loaded = self.load_anew(index);
            self.failure.remember(loaded)?;
        }
        Ok(())
    }

    fn load_anew(&mut self, index: u32) -> io::Result<()> {
        self.loaded = None;
        let place = Place {
            index,
            last: index == self.cut.last(),
        };
        seek_to(&mut self.inner, Cut::offset(index))?;
        let length = self.cut.segment_len(index).saturating_add(TAG_LEN);
        let segment = self.buffer.get_mut(0..length)?;
        if read_full(&mut self.inner, segment)? < length {
            return Err(not_whole());
        }
        self.key.open_in_place(place, segment)?;
        self.loaded = Some(index);
        self.whole |= place.last;
        Ok(())
    }
}

impl<R: Read + Seek> Read for PayloadSeekReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.failure.check()?;
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read + Seek> BufRead for PayloadSeekReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.failure.check()?;
        if self.position >= self.cut.plaintext_len() {
            self.plaintext_len()?;
            return Ok(&[]);
        }
        const SEGMENT: u64 = SEGMENT_LEN as u64;
        // Both conversions fit: the position is before the end of 2³² − 1 segments.
        let index = u32::try_from(self.position / SEGMENT).unwrap_or(u32::MAX);
        let within = usize::try_from(self.position % SEGMENT).unwrap_or(usize::MAX);
        self.load(index)?;
        self.buffer.get(within..self.cut.segment_len(index))
    }

    fn consume(&mut self, count: usize) {
        self.position = self.position.saturating_add(count as u64);
    }
}

impl<R: Read + Seek> Seek for PayloadSeekReader<R> {
    /// A seek to a position after the end succeeds. There is nothing to read there.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.failure.check()?;
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.plaintext_len()?.checked_add_signed(offset),
        };
        let outside = || {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "a seek to before the beginning or behind 2^64",
            )
        };
        self.position = position.ok_or_else(outside)?;
        Ok(self.position)
    }
}

impl<R> fmt::Debug for PayloadSeekReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PayloadSeekReader(..)")
    }
}

impl PayloadCipher {
    /// Makes a reader for any part of a payload of this DEK. The payload is all of `inner`. Reads the header at once.
    ///
    /// # Errors
    ///
    /// As for [`decrypt_reader`](Self::decrypt_reader), and [`ErrorKind::NotAPayload`](crate::ErrorKind::NotAPayload)
    /// if no payload has the length of `inner`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let payload_cipher = engine.create_payload_cipher(&key_id, &EncryptionContext::none())?;
    /// # use std::io::{Read, Seek, SeekFrom};
    /// # let payload = std::io::Cursor::new(payload_cipher.encrypt(b"attack at dawn")?);
    /// let mut reader = payload_cipher.decrypt_seek_reader(payload)?;
    /// reader.seek(SeekFrom::Start(7))?;
    /// let mut two = [0; 2];
    /// reader.read_exact(&mut two)?;
    /// assert_eq!(&two, b"at");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn decrypt_seek_reader<R: Read + Seek>(&self, mut inner: R) -> io::Result<PayloadSeekReader<R>> {
        seek_to(&mut inner, 0)?;
        let header = read_header(&mut inner)?;
        PayloadSeekReader::new(self.open_payload(&header)?, inner)
    }
}

impl<K: Keyring> Engine<K> {
    /// Makes a reader for any part of a payload that the caller expects to be sealed under `key_id`. The payload is all
    /// of `inner`. Reads the header at once.
    ///
    /// # Errors
    ///
    /// As for [`decrypt_reader`](Self::decrypt_reader), and [`ErrorKind::NotAPayload`](crate::ErrorKind::NotAPayload)
    /// if no payload has the length of `inner`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// # use std::io::{Read, Seek, SeekFrom};
    /// # let payload = std::io::Cursor::new(engine.encrypt(&key_id, &context, b"attack at dawn")?);
    /// let mut reader = engine.decrypt_seek_reader(&key_id, &context, payload)?;
    /// reader.seek(SeekFrom::Start(7))?;
    /// let mut two = [0; 2];
    /// reader.read_exact(&mut two)?;
    /// assert_eq!(&two, b"at");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn decrypt_seek_reader<R: Read + Seek>(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        mut inner: R,
    ) -> io::Result<PayloadSeekReader<R>> {
        Event::new("decrypt_seek_reader", Some(key_id), Some(context)).of(|event| {
            seek_to(&mut inner, 0)?;
            let header = read_header(&mut inner)?;
            let key = self.payload_key(key_id, context, &header, event)?;
            PayloadSeekReader::new(key, inner)
        })
    }
}
