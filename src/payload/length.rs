//! The length of a payload (FORMAT.md B3, rules 2, 4 and 5).

use super::{PayloadHeader, SEALED_SEGMENT_LEN, SEGMENT_LEN, TAG_LEN};
use crate::error::{Error, ErrorKind, PayloadRule};

/// B3.4: at most 2³² − 1 segments.
const MAX_SEGMENTS: u64 = u32::MAX as u64;

const HEADER: u64 = PayloadHeader::LEN as u64;
const SEGMENT: u64 = SEGMENT_LEN as u64;
const SEALED_SEGMENT: u64 = SEALED_SEGMENT_LEN as u64;
const TAG: u64 = TAG_LEN as u64;

/// The length of a payload with `plaintext_len` bytes of plaintext; `None` if it would need more than 2³² − 1 segments.
///
/// # Examples
///
/// ```
/// use dekseal::payload::{encrypted_len, plaintext_len};
///
/// assert_eq!(encrypted_len(0), Some(264 + 16));
/// assert_eq!(encrypted_len(65536), Some(264 + 65536 + 16));
/// assert_eq!(encrypted_len(65537), Some(264 + 65537 + 2 * 16));
/// assert_eq!(encrypted_len(u64::MAX), None);
/// assert_eq!(plaintext_len(264 + 65537 + 2 * 16), Some(65537));
/// ```
#[must_use]
pub const fn encrypted_len(plaintext_len: u64) -> Option<u64> {
    // B3.5: 264 + P + 16 · max(1, ⌈P / 65536⌉)
    let segments = match plaintext_len.div_ceil(SEGMENT) {
        0 => 1,
        segments => segments,
    };
    if segments > MAX_SEGMENTS {
        return None;
    }
    // All lengths are below 2⁴⁹, so nothing saturates.
    Some(
        HEADER
            .saturating_add(plaintext_len)
            .saturating_add(TAG.saturating_mul(segments)),
    )
}

/// The length of the plaintext in a payload of `encrypted_len` bytes; `None` if no payload has this length. The inverse
/// of [`encrypted_len`].
///
/// # Security
///
/// The length of a payload is not authenticated. Only its verified last segment shows that it is complete.
///
/// # Examples
///
/// ```
/// use dekseal::payload::plaintext_len;
///
/// assert_eq!(plaintext_len(264 + 16), Some(0));
/// assert_eq!(plaintext_len(264 + 15), None);
/// ```
#[must_use]
pub const fn plaintext_len(encrypted_len: u64) -> Option<u64> {
    match Cut::of(encrypted_len) {
        Some(cut) => Some(cut.plaintext_len()),
        None => None,
    }
}

/// The segments of a payload, as its length alone determines them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// The index of the last segment.
    last: u32,
    /// The length of its plaintext.
    last_len: u32,
}

impl Cut {
    /// Returns `None` if no payload has this length.
    pub(super) const fn of(encrypted_len: u64) -> Option<Self> {
        let Some(sealed) = encrypted_len.checked_sub(HEADER) else {
            return None;
        };
        // The last segment is what follows the full ones, or the last full one if nothing follows.
        let segments = sealed.div_ceil(SEALED_SEGMENT);
        if segments > MAX_SEGMENTS {
            return None;
        }
        let Some(last) = segments.checked_sub(1) else {
            return None;
        };
        let last_sealed = sealed.saturating_sub(last.saturating_mul(SEALED_SEGMENT));
        match last_sealed.checked_sub(TAG) {
            // B3.2: the last segment is empty only if it is the only segment.
            Some(0) if last > 0 => None,
            Some(last_len) => Some(Self {
                last: last as u32,
                last_len: last_len as u32,
            }),
            None => None,
        }
    }

    pub(super) const fn plaintext_len(self) -> u64 {
        (self.last as u64)
            .saturating_mul(SEGMENT)
            .saturating_add(self.last_len as u64)
    }
}

/// For random access.
#[cfg(feature = "std")]
impl Cut {
    /// The index of the last segment.
    pub(super) const fn last(self) -> u32 {
        self.last
    }

    /// The length of the plaintext in segment `index`.
    pub(super) const fn segment_len(self, index: u32) -> usize {
        if index == self.last {
            self.last_len as usize
        } else {
            SEGMENT_LEN
        }
    }

    /// The offset of segment `index` in the payload.
    pub(super) const fn offset(index: u32) -> u64 {
        // All lengths are below 2⁴⁹, so nothing saturates.
        HEADER.saturating_add((index as u64).saturating_mul(SEALED_SEGMENT))
    }
}

/// [`encrypted_len`] for data in memory.
pub(super) fn encrypted_len_in_memory(plaintext: &[u8]) -> Result<usize, Error> {
    let length = u64::try_from(plaintext.len()).ok().and_then(encrypted_len);
    let length = length.and_then(|length| usize::try_from(length).ok());
    Ok(length.ok_or(ErrorKind::PayloadTooLong)?)
}

/// [`plaintext_len`] for a payload in memory.
pub(super) fn plaintext_len_in_memory(payload: &[u8]) -> Result<usize, Error> {
    let length = u64::try_from(payload.len()).ok().and_then(plaintext_len);
    let length = length.and_then(|length| usize::try_from(length).ok());
    Ok(length.ok_or(ErrorKind::NotAPayload(PayloadRule::Length))?)
}
