//! A document and its revision, as a store keeps them.

use alloc::vec::Vec;
use core::{
    fmt,
    hash::{Hash, Hasher},
};

/// Distinguishes the documents of one key: up to 64 opaque bytes.
///
/// Two different documents of one key never have the same revision. The keyring uses the MAC of a document as its
/// revision. A generation number would not work: after a failover, two documents can have the same one.
///
/// # Examples
///
/// ```
/// use dekseal::store::Revision;
///
/// let revision = Revision::new(&[7; 32]).unwrap();
/// assert_eq!(revision.as_bytes(), [7; 32]);
/// assert!(Revision::new(&[7; 65]).is_none());
/// ```
#[derive(Clone, Copy)]
pub struct Revision {
    /// The bytes after the first `len` are zeros.
    bytes: [u8; Self::MAX_LEN],
    len: u8,
}

impl Revision {
    /// The length of the longest revision.
    pub const MAX_LEN: usize = 64;

    /// Makes a revision of these bytes, or returns `None` if there are more than 64.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut padded = [0; Self::MAX_LEN];
        padded.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self {
            bytes: padded,
            len: u8::try_from(bytes.len()).ok()?,
        })
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        // `len` is at most 64, so the default is never used.
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl PartialEq for Revision {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Revision {}

impl Hash for Revision {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Revision(")?;
        for byte in self.as_bytes() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

/// A key document and its revision.
///
/// # Examples
///
/// ```
/// use dekseal::store::{Revision, StoredDocument};
///
/// let stored = StoredDocument { revision: Revision::new(&[0xa5; 4]).unwrap(), document: b"{}".to_vec() };
/// assert_eq!(format!("{stored:?}"), "StoredDocument { revision: Revision(a5a5a5a5), length: 2 }");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct StoredDocument {
    /// The revision, which differs between any two documents of a key.
    pub revision: Revision,
    /// The bytes of the document, which a store does not interpret.
    pub document: Vec<u8>,
}

impl fmt::Debug for StoredDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("StoredDocument");
        shown.field("revision", &self.revision);
        shown.field("length", &self.document.len()).finish()
    }
}
