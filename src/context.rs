//! The canonical encryption context (FORMAT.md A3).

use alloc::vec::Vec;
use core::fmt;

use crate::{
    error::{ContextRule, Error, ErrorKind},
    sha256::sha256,
};

/// The most characters that all keys and values together may have.
const MAX_CHARACTERS: usize = 8192;

/// `len(key)` and `len(value)` of one pair, in bytes.
const LENGTHS: usize = 4;

/// The longest canonical form, in bytes: every character is a key of its own and takes four bytes, every value is
/// empty.
const MAX_CANONICAL: usize = 2 + MAX_CHARACTERS * (LENGTHS + 4);
const _: () = assert!(MAX_CANONICAL == 65_538);

/// SHA-256 of nothing, which is what the canonical form of no context is.
const SHA256_OF_NOTHING: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// An encryption context: a map from string to string that a DEK is bound to.
///
/// It is not secret and not stored in the blob. What was sealed with one opens with the same one only: the same pairs,
/// in whatever order they are given, byte for byte (no normalization, trimming or case folding).
///
/// Keeps the canonical bytes and their SHA-256, so sealing any number of DEKs under one context computes them once.
/// `Debug` shows no key and no value.
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
    /// No encryption context. The same as one of no pairs.
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

    /// The encryption context of these pairs, in any order.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Context`] with the rule that is broken; no other.
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
        // Each text is asked for once: what is checked is what is written.
        Self::of(
            pairs
                .iter()
                .map(|(key, value)| (key.as_ref(), value.as_ref()))
                .collect(),
        )
    }

    /// The encryption context of these texts.
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

    /// The pairs, in canonical order, where they keep the rules of A3.
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
        // A3: ascending order of the unsigned bytes of the UTF-8 key, a prefix first. That is how `str` compares.
        pairs.sort_unstable_by_key(|(key, _)| *key);
        if !pairs.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(ErrorKind::Context(ContextRule::DuplicateKey).into());
        }
        Ok(pairs)
    }

    /// The canonical bytes of FORMAT.md A3, empty where there is no context: 0 to 65,538 bytes.
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
    /// It hides nothing that can be guessed: whoever has it can tell whether a guess of the context is right.
    ///
    /// # Examples
    ///
    /// A short name for a context in a log:
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

/// The pairs, of which each has one character at the least: of more than that, none need be taken.
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

/// How many bytes the canonical form takes. An estimate that is too low costs an allocation, no more.
fn canonical_length(pairs: &[(&str, &str)]) -> usize {
    pairs.iter().fold(2, |sum: usize, (key, value)| {
        sum.saturating_add(LENGTHS)
            .saturating_add(key.len())
            .saturating_add(value.len())
    })
}

/// A3: `count` and each length are unsigned 16-bit big-endian. 8192 characters of at most four bytes are within that.
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
