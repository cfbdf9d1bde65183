//! Seals and opens segments in order, without I/O (FORMAT.md B2, and B3 rules 2 to 4).

use core::fmt;

use super::{
    PayloadHeader, SEALED_SEGMENT_LEN, SEGMENT_LEN, TAG_LEN,
    header::COMMITMENT_LEN,
    keys::{NewPayload, PayloadKey, Place},
};
use crate::{
    blob::SealedDek,
    error::{Error, ErrorKind, PayloadRule},
};

/// Seals the segments of one payload in order.
///
/// A sealer does no I/O: [the module's documentation](super#without-io) shows a loop around it. A full segment has its
/// own type, so only the last segment can be short. Sealing the last segment consumes the sealer, so no segment can
/// follow it.
///
/// [`PayloadCipher::sealer`](super::PayloadCipher::sealer) makes one, with the header that precedes the segments.
///
/// # Security
///
/// A payload without its last segment does not decrypt. A sealer cannot be cloned: two sealers of one payload would use
/// its nonces twice.
///
/// ```compile_fail,E0599
/// # fn f(sealer: dekseal::payload::SegmentSealer) {
/// let copy = sealer.clone();
/// # }
/// ```
/// ```compile_fail,E0382
/// # fn f(mut sealer: dekseal::payload::SegmentSealer) {
/// sealer.seal_last(b"end", &mut [0; 19]).ok();
/// sealer.seal_last(b"another end", &mut [0; 27]).ok();
/// # }
/// ```
///
/// # Examples
///
#[cfg_attr(feature = "std", doc = "```")]
#[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
/// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
/// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
/// # let payload_cipher = engine.create_payload_cipher(&key_id, &EncryptionContext::none())?;
/// use dekseal::payload::{SEALED_SEGMENT_LEN, SEGMENT_LEN};
///
/// let (header, mut sealer) = payload_cipher.sealer()?;
/// let (mut first, mut last) = (vec![0; SEALED_SEGMENT_LEN], [0; 4 + 16]);
/// sealer.seal(&[7; SEGMENT_LEN], first.first_chunk_mut().unwrap())?;
/// sealer.seal_last(b"dawn", &mut last)?;
///
/// let payload = [&header.to_bytes()[..], &first, &last].concat();
/// assert!(payload_cipher.decrypt(&payload)?.ends_with(b"dawn"));
/// # Ok::<(), dekseal::Error>(())
/// ```
pub struct SegmentSealer {
    key: PayloadKey,
    counter: Counter,
}

impl SegmentSealer {
    /// Begins a payload: its header, and the sealer of its segments.
    pub(super) fn start(mut new: NewPayload<'_>, sealed: &SealedDek) -> (PayloadHeader, Self) {
        let mut commitment = [0; COMMITMENT_LEN];
        let sealer = Self::new(new.start(&mut commitment));
        (PayloadHeader::new(*new.salt(), *sealed, commitment), sealer)
    }

    pub(super) fn new(key: PayloadKey) -> Self {
        Self {
            key,
            counter: Counter::default(),
        }
    }

    /// Seals the next segment, if it is not the last.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PayloadTooLong`] after 2³² − 1 segments; no others.
    pub fn seal(&mut self, plaintext: &[u8; SEGMENT_LEN], sealed: &mut [u8; SEALED_SEGMENT_LEN]) -> Result<(), Error> {
        self.key.seal(self.counter.next_place()?, plaintext, sealed)
    }

    /// Seals the next segment in place, if it is not the last. The first 65536 bytes are the plaintext, and the 16
    /// bytes after them become the tag.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PayloadTooLong`] after 2³² − 1 segments; no others.
    ///
    /// # Examples
    ///
    #[cfg_attr(feature = "std", doc = "```")]
    #[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let payload_cipher = engine.create_payload_cipher(&key_id, &EncryptionContext::none())?;
    /// # use dekseal::payload::SEALED_SEGMENT_LEN;
    /// let (header, mut sealer) = payload_cipher.sealer()?;
    /// let mut segment = vec![7; SEALED_SEGMENT_LEN];
    /// sealer.seal_in_place(segment.first_chunk_mut().unwrap())?;
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn seal_in_place(&mut self, segment: &mut [u8; SEALED_SEGMENT_LEN]) -> Result<(), Error> {
        self.key.seal_in_place(self.counter.next_place()?, segment)
    }

    /// Seals the last segment: 1 to 65536 bytes, or 0 bytes if the whole payload is empty.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::BufferLength`] if `plaintext` has another length, or `sealed` is not 16 bytes longer;
    /// [`ErrorKind::PayloadTooLong`] after 2³² − 1 segments. No others.
    pub fn seal_last(self, plaintext: &[u8], sealed: &mut [u8]) -> Result<(), Error> {
        self.key.seal(self.last_place(plaintext.len())?, plaintext, sealed)
    }

    /// Seals the last segment in place: its last 16 bytes become the tag, the bytes before them are the plaintext.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::BufferLength`] if `segment` is not 17 to 65552 bytes long, or 16 bytes for an empty payload;
    /// [`ErrorKind::PayloadTooLong`] after 2³² − 1 segments. No others.
    ///
    /// # Examples
    ///
    #[cfg_attr(feature = "std", doc = "```")]
    #[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let payload_cipher = engine.create_payload_cipher(&key_id, &EncryptionContext::none())?;
    /// let (header, sealer) = payload_cipher.sealer()?;
    /// let mut segment = *b"attack at dawn................";
    /// sealer.seal_last_in_place(&mut segment)?;
    /// assert_eq!(*payload_cipher.decrypt(&[&header.to_bytes()[..], &segment].concat())?, b"attack at dawn");
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn seal_last_in_place(self, segment: &mut [u8]) -> Result<(), Error> {
        let length = segment.len().checked_sub(TAG_LEN).ok_or(ErrorKind::BufferLength)?;
        self.key.seal_in_place(self.last_place(length)?, segment)
    }

    fn last_place(&self, length: usize) -> Result<Place, Error> {
        if !self.counter.may_end_with(length) {
            return Err(ErrorKind::BufferLength.into());
        }
        self.counter.last_place()
    }
}

/// Opens the segments of one payload in order.
///
/// An opener does no I/O: [the module's documentation](super#without-io) shows a loop around it. The caller must know
/// which segment is the last one: no segment follows it. A truncated payload then fails to authenticate.
///
/// [`PayloadCipher::opener`](super::PayloadCipher::opener) makes one from a header.
///
/// # Security
///
/// The plaintext from [`open`](Self::open) is authentic, but the end of the payload may still be missing. The payload
/// is complete once [`open_last`](Self::open_last) has succeeded.
///
/// # Examples
///
#[cfg_attr(feature = "std", doc = "```")]
#[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
/// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
/// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
/// # let payload_cipher = engine.create_payload_cipher(&key_id, &EncryptionContext::none())?;
/// use dekseal::payload::{PayloadHeader, SEGMENT_LEN};
///
/// let payload = payload_cipher.encrypt(&[7; SEGMENT_LEN + 4])?;
/// let (header, segments) = payload.split_first_chunk().unwrap();
/// let (first, last) = segments.split_first_chunk().unwrap();
/// let mut opener = payload_cipher.opener(&PayloadHeader::from_bytes(header)?)?;
///
/// let (mut plaintext, mut end) = ([0; SEGMENT_LEN], [0; 4]);
/// opener.open(first, &mut plaintext)?;
/// opener.open_last(last, &mut end)?;
/// assert_eq!((plaintext, end), ([7; SEGMENT_LEN], [7; 4]));
/// # Ok::<(), dekseal::Error>(())
/// ```
pub struct SegmentOpener {
    key: PayloadKey,
    counter: Counter,
    failed: bool,
}

impl SegmentOpener {
    pub(super) fn new(key: PayloadKey) -> Self {
        Self {
            key,
            counter: Counter::default(),
            failed: false,
        }
    }

    /// Opens the next segment, if another one follows it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AuthenticationFailed`] if the segment is not the next one of this payload, and in every later call;
    /// [`ErrorKind::PayloadTooLong`] after 2³² − 1 segments. No others. After an error `plaintext` is unchanged or all
    /// zeros.
    pub fn open(&mut self, sealed: &[u8; SEALED_SEGMENT_LEN], plaintext: &mut [u8; SEGMENT_LEN]) -> Result<(), Error> {
        let place = self.next_place()?;
        let opened = self.key.open_segment(place, sealed, plaintext);
        self.failed = opened.is_err();
        opened
    }

    /// Opens the next segment in place, if another one follows it. Returns its plaintext, the first 65536 bytes.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open). After an error `segment` is unchanged or all zeros.
    ///
    /// # Examples
    ///
    #[cfg_attr(feature = "std", doc = "```")]
    #[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let payload_cipher = engine.create_payload_cipher(&key_id, &EncryptionContext::none())?;
    /// # use dekseal::payload::{PayloadHeader, SEGMENT_LEN};
    /// # let mut payload = payload_cipher.encrypt(&[7; SEGMENT_LEN + 4])?;
    /// # let (header, segments) = payload.split_first_chunk_mut().unwrap();
    /// # let (first, last) = segments.split_first_chunk_mut().unwrap();
    /// # let mut opener = payload_cipher.opener(&PayloadHeader::from_bytes(header)?)?;
    /// let plaintext = opener.open_in_place(first)?;
    /// assert_eq!(plaintext, [7; SEGMENT_LEN]);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn open_in_place<'a>(&mut self, segment: &'a mut [u8; SEALED_SEGMENT_LEN]) -> Result<&'a mut [u8], Error> {
        let place = self.next_place()?;
        let opened = self.key.open_in_place(place, segment);
        self.failed = opened.is_err();
        opened
    }

    /// [`open_in_place`](Self::open_in_place) with a tag from another buffer.
    #[cfg(feature = "std")]
    pub(super) fn open_detached(&mut self, text: &mut [u8; SEGMENT_LEN], tag: &[u8; TAG_LEN]) -> Result<(), Error> {
        let place = self.next_place()?;
        let opened = self.key.open_detached(place, text, tag);
        self.failed = opened.is_err();
        opened
    }

    /// Opens the last segment.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotAPayload`] if no last segment has the length of `sealed`; [`ErrorKind::BufferLength`] if
    /// `plaintext` is not 16 bytes shorter; [`ErrorKind::AuthenticationFailed`] if the segment is not the last one of
    /// this payload, or an earlier one was refused; [`ErrorKind::PayloadTooLong`] after 2³² − 1 segments. No others.
    /// After an error `plaintext` is unchanged or all zeros.
    pub fn open_last(self, sealed: &[u8], plaintext: &mut [u8]) -> Result<(), Error> {
        self.key.open_segment(self.last_place(sealed)?, sealed, plaintext)
    }

    /// Opens the last segment in place. Returns its plaintext, which is all but the last 16 bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotAPayload`] if no last segment has the length of `segment`; [`ErrorKind::AuthenticationFailed`]
    /// if it is not the last one of this payload, or an earlier one was refused; [`ErrorKind::PayloadTooLong`] after
    /// 2³² − 1 segments. No others. After an error `segment` is unchanged or all zeros.
    ///
    /// # Examples
    ///
    #[cfg_attr(feature = "std", doc = "```")]
    #[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let payload_cipher = engine.create_payload_cipher(&key_id, &EncryptionContext::none())?;
    /// # let mut payload = payload_cipher.encrypt(b"attack at dawn")?;
    /// # let (header, last) = payload.split_first_chunk_mut().unwrap();
    /// # let opener = payload_cipher.opener(&dekseal::payload::PayloadHeader::from_bytes(header)?)?;
    /// let plaintext = opener.open_last_in_place(last)?;
    /// assert_eq!(plaintext, b"attack at dawn");
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn open_last_in_place(self, segment: &mut [u8]) -> Result<&mut [u8], Error> {
        self.key.open_in_place(self.last_place(segment)?, segment)
    }

    /// [`open_last_in_place`](Self::open_last_in_place) for a full segment whose tag is elsewhere.
    #[cfg(feature = "std")]
    pub(super) fn open_last_detached(self, text: &mut [u8; SEGMENT_LEN], tag: &[u8; TAG_LEN]) -> Result<(), Error> {
        self.check()?;
        self.key.open_detached(self.counter.last_place()?, text, tag)
    }

    fn next_place(&mut self) -> Result<Place, Error> {
        self.check()?;
        self.counter.next_place()
    }

    fn last_place(&self, sealed: &[u8]) -> Result<Place, Error> {
        self.check()?;
        let length = sealed.len().checked_sub(TAG_LEN);
        if !length.is_some_and(|length| self.counter.may_end_with(length)) {
            return Err(ErrorKind::NotAPayload(PayloadRule::Length).into());
        }
        self.counter.last_place()
    }

    /// B3.6: after an error, every later call fails. Otherwise a caller could skip a segment unnoticed.
    fn check(&self) -> Result<(), Error> {
        if self.failed {
            Err(ErrorKind::AuthenticationFailed.into())
        } else {
            Ok(())
        }
    }
}

/// The index of the next segment.
///
/// B3.4: there are at most 2³² − 1 segments, so the highest index is 2³² − 2, and the counter cannot wrap.
#[derive(Default)]
struct Counter(u32);

impl Counter {
    fn next_place(&mut self) -> Result<Place, Error> {
        let index = self.0;
        self.0 = index.checked_add(1).ok_or(ErrorKind::PayloadTooLong)?;
        Ok(Place { index, last: false })
    }

    fn last_place(&self) -> Result<Place, Error> {
        match self.0 {
            u32::MAX => Err(ErrorKind::PayloadTooLong.into()),
            index => Ok(Place { index, last: true }),
        }
    }

    /// B3.2: the last segment has 1 to 65536 bytes, or 0 bytes if the whole payload is empty.
    fn may_end_with(&self, length: usize) -> bool {
        match length {
            0 => self.0 == 0,
            length => length <= SEGMENT_LEN,
        }
    }
}

impl fmt::Debug for SegmentSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentSealer(next {}, ..)", self.counter.0)
    }
}

impl fmt::Debug for SegmentOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentOpener(next {}, ..)", self.counter.0)
    }
}

#[cfg(not(feature = "ring"))]
mod wiped {
    impl zeroize::ZeroizeOnDrop for super::SegmentSealer {}
    impl zeroize::ZeroizeOnDrop for super::SegmentOpener {}
}

#[cfg(test)]
mod tests;
