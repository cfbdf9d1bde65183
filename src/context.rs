//! The canonical encryption context (FORMAT.md A3).

use alloc::vec::Vec;
use core::fmt;

use crate::{
    error::{ContextRule, Error, ErrorKind},
    sha256::sha256,
};

/// The maximum number of characters in all keys and values together.
const MAX_CHARACTERS: usize = 8192;

/// The bytes that `len(key)` and `len(value)` of one pair take.
const LENGTHS: usize = 4;

/// The length of the longest canonical form in bytes: each character is a key of its own and takes four bytes, and all
/// values are empty.
const MAX_CANONICAL: usize = 2 + MAX_CHARACTERS * (LENGTHS + 4);
const _: () = assert!(MAX_CANONICAL == 65_538);

/// SHA-256 of the empty string, which is the canonical form of "no context".
const SHA256_OF_NOTHING: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// An encryption context: a map from string to string that a DEK is bound to.
///
/// A context is neither secret nor stored in the blob. A DEK that was sealed in a context opens only in the same
/// context: the same pairs, in any order, compared byte for byte. There is no normalization, trimming or case folding.
///
/// This type keeps the canonical bytes and their SHA-256, which are computed once for any number of DEKs. Its `Debug`
/// output shows neither keys nor values.
///
/// # Examples
///
/// ```
/// use dekseal::EncryptionContext;
///
/// let context = EncryptionContext::from_pairs([("tenant", "42"), ("purpose", "backup")])?;
/// let same = EncryptionContext::from_pairs([("purpose", "backup"), ("tenant", "42")])?;
/// assert_eq!(context, same);
/// assert_ne!(context, EncryptionContext::none());
/// # Ok::<(), dekseal::Error>(())
/// ```
#[derive(Clone)]
pub struct EncryptionContext {
    canonical: Vec<u8>,
    sha256: [u8; 32],
}

impl EncryptionContext {
    /// No encryption context. A context without pairs is the same.
    ///
    /// # Examples
    ///
    /// ```
    /// use dekseal::EncryptionContext;
    ///
    /// let empty = EncryptionContext::from_pairs([] as [(&str, &str); 0])?;
    /// assert_eq!(EncryptionContext::none(), empty);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[must_use]
    pub const fn none() -> Self {
        Self {
            canonical: Vec::new(),
            sha256: SHA256_OF_NOTHING,
        }
    }

    /// Makes the encryption context of these pairs, which may come in any order.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Context`] with the broken rule; no others.
    ///
    /// # Examples
    ///
    /// ```
    /// use dekseal::{ContextRule, EncryptionContext, ErrorKind};
    ///
    /// let row = 17.to_string();
    /// let context = EncryptionContext::from_pairs([("table", "patient"), ("row", &row)])?;
    ///
    /// let error = EncryptionContext::from_pairs([("row", "17"), ("row", "18")]).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Context(ContextRule::DuplicateKey));
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn from_pairs<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self, Error>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let pairs = collect(pairs)?;
        // `as_ref` is called once for each text, so the text that is checked is the text that is written.
        Self::of(
            pairs
                .iter()
                .map(|(key, value)| (key.as_ref(), value.as_ref()))
                .collect(),
        )
    }

    /// Makes the encryption context of these texts.
    pub(crate) fn of(pairs: Vec<(&str, &str)>) -> Result<Self, Error> {
        let pairs = Self::checked(pairs)?;
        if pairs.is_empty() {
            return Ok(Self::none());
        }
        // A3: count ‖ pair ‖ pair ‖ …
        let mut canonical = Vec::with_capacity(canonical_length(&pairs));
        put_length(&mut canonical, pairs.len())?;
        for (key, value) in &pairs {
            // A3: len(key) ‖ key ‖ len(value) ‖ value
            for text in [key, value] {
                put_length(&mut canonical, text.len())?;
                canonical.extend_from_slice(text.as_bytes());
            }
        }
        let sha256 = sha256(&canonical);
        Ok(Self { canonical, sha256 })
    }

    /// Checks the rules of A3 and returns the pairs in canonical order.
    fn checked<'a>(mut pairs: Vec<(&'a str, &'a str)>) -> Result<Vec<(&'a str, &'a str)>, Error> {
        let mut room = MAX_CHARACTERS;
        for (key, value) in &pairs {
            if key.is_empty() {
                return Err(ErrorKind::Context(ContextRule::EmptyKey).into());
            }
            for text in [key, value] {
                room = room
                    .checked_sub(text.chars().count())
                    .ok_or(ErrorKind::Context(ContextRule::TooManyCharacters))?;
            }
        }
        // A3: ascending order of the unsigned bytes of the UTF-8 key, a prefix first. `str` compares in this order.
        pairs.sort_unstable_by_key(|(key, _)| *key);
        if !pairs.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(ErrorKind::Context(ContextRule::DuplicateKey).into());
        }
        Ok(pairs)
    }

    /// The canonical bytes of FORMAT.md A3: 0 to 65,538 bytes. They are empty if there is no context.
    ///
    /// # Examples
    ///
    /// ```
    /// use dekseal::EncryptionContext;
    ///
    /// let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// assert_eq!(context.canonical(), b"\x00\x01\x00\x06tenant\x00\x0242");
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[must_use]
    pub fn canonical(&self) -> &[u8] {
        &self.canonical
    }

    /// SHA-256 of the canonical bytes.
    ///
    /// # Security
    ///
    /// The hash does not hide a context that can be guessed: anyone who has the hash can check a guess.
    ///
    /// # Examples
    ///
    /// The hash makes a short name for a context in a log:
    ///
    /// ```
    /// use dekseal::EncryptionContext;
    ///
    /// let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// assert_eq!(context.sha256()[..4], [0x10, 0x42, 0xd6, 0x7d]);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[must_use]
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}

/// Collects the pairs. Every valid pair has at least one character, so collecting stops above the limit.
fn collect<P>(pairs: impl IntoIterator<Item = P>) -> Result<Vec<P>, Error> {
    let mut collected = Vec::new();
    for pair in pairs {
        if collected.len() >= MAX_CHARACTERS {
            return Err(ErrorKind::Context(ContextRule::TooManyCharacters).into());
        }
        collected.push(pair);
    }
    Ok(collected)
}

/// The length of the canonical form, to allocate once. A value that is too low would cost one more allocation.
fn canonical_length(pairs: &[(&str, &str)]) -> usize {
    pairs.iter().fold(2, |sum: usize, (key, value)| {
        sum.saturating_add(LENGTHS)
            .saturating_add(key.len())
            .saturating_add(value.len())
    })
}

/// A3: `count` and each length are unsigned 16-bit big-endian. 8192 characters of at most four bytes stay below 2¹⁶.
fn put_length(canonical: &mut Vec<u8>, length: usize) -> Result<(), Error> {
    let length = u16::try_from(length).map_err(|_| ErrorKind::Context(ContextRule::TooManyCharacters))?;
    canonical.extend_from_slice(&length.to_be_bytes());
    Ok(())
}

impl PartialEq for EncryptionContext {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for EncryptionContext {}

impl fmt::Debug for EncryptionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionContext({} bytes)", self.canonical.len())
    }
}
