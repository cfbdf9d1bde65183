//! The result of sealing a DEK again.

use crate::blob::SealedDek;

/// The result of rewrapping a blob.
///
/// # Examples
///
/// ```
/// # use dekseal::{CmkVersion, Dek, EncryptionContext, Engine, KeyId, MemoryKeyring, Rewrapped};
/// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
/// # let context = EncryptionContext::from_pairs([("tenant", "42")])?;
/// # let dek = Dek::from_bytes(&core::array::from_fn(|at| at as u8));
/// let sealed = engine.encrypt_dek(&key_id, &context, &dek)?;
/// // The key was not rotated.
/// let result = engine.rewrap_dek(&key_id, &context, &sealed)?;
/// assert_eq!(result, Rewrapped::AlreadyCurrent(sealed));
/// assert_eq!(*result.sealed(), sealed);
/// # Ok::<(), dekseal::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrapped {
    /// The blob is sealed under the current version already. It holds the same bytes.
    AlreadyCurrent(SealedDek),
    /// The same DEK, sealed under the current version.
    Renewed(SealedDek),
}

impl Rewrapped {
    /// Compares `old` with `new`. Sealing is deterministic, so sealing under the same version gives the same bytes.
    pub(super) fn of(old: &SealedDek, new: SealedDek) -> Self {
        if new == *old {
            Self::AlreadyCurrent(new)
        } else {
            Self::Renewed(new)
        }
    }

    /// The blob to keep.
    #[must_use]
    pub fn sealed(&self) -> &SealedDek {
        match self {
            Self::AlreadyCurrent(sealed) | Self::Renewed(sealed) => sealed,
        }
    }
}
