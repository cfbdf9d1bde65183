//! Bytes that are wiped on drop, and compared in constant time.

use core::ops::{Deref, DerefMut};

use subtle::ConstantTimeEq;
use zeroize::{ZeroizeOnDrop, optimization_barrier};

/// `N` secret bytes, filled in place and wiped on drop.
///
/// `Zeroizing<[u8; N]>` does the same with a volatile write for each byte, which costs a few per cent of a seal. This
/// type overwrites the array at once.
pub(crate) struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    pub(crate) const fn zeroed() -> Self {
        Self([0; N])
    }

    pub(crate) fn copy_of(bytes: &[u8; N]) -> Self {
        Self(*bytes)
    }

    pub(crate) fn wipe(&mut self) {
        self.0 = [0; N];
        // Without the barrier, the compiler could remove a write that no code reads.
        optimization_barrier(&self.0);
    }
}

impl<const N: usize> Deref for Secret<N> {
    type Target = [u8; N];

    fn deref(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> DerefMut for Secret<N> {
    fn deref_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl<const N: usize> ZeroizeOnDrop for Secret<N> {}

/// Overwrites the 32 KiB of the stack below the function that calls this one.
///
/// Rust moves values by copying, and the compiler keeps parts of keys in places of its own choice. This crate wipes
/// each value where it ends, but cannot reach those copies: they stay on the stack until later calls overwrite them.
/// Some bytes of a DEK or of a derived key can stay there after each operation.
///
/// Call this function after a call that used keys, from the function that made that call, if a dump of the process must
/// not show them. No operation that `scripts/assure freed` measures reaches deeper in an optimized build.
///
/// # Security
///
/// Only the function that calls this one and its callers keep what is in their own frames, for example a DEK that it
/// still holds. Other threads have stacks of their own. The stack must have 32 KiB left.
///
/// # Examples
///
/// ```
/// # use dekseal::{CmkVersion, Dek, EncryptionContext, Error, SealedDek};
/// #[inline(never)]
/// fn use_keys(cmk: &CmkVersion, sealed: &SealedDek) -> Result<(), Error> {
///     let dek = cmk.open(&EncryptionContext::none(), sealed)?;
///     // Encrypt with `dek`.
/// #   let _ = dek;
///     Ok(())
/// }
///
/// # let cmk = CmkVersion::new("0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?, 3, &[7; 32])?;
/// # let sealed = cmk.seal(&EncryptionContext::none(), &Dek::from_bytes(&core::array::from_fn(|at| at as u8)));
/// use_keys(&cmk, &sealed)?;
/// dekseal::wipe_stack();
/// # Ok::<(), dekseal::Error>(())
/// ```
#[inline(never)]
pub fn wipe_stack() {
    let room = [0_u8; 32 * 1024];
    // With the barrier, the compiler must write the zeros.
    optimization_barrier(&room);
}

/// Whether two arrays are equal, in constant time.
///
/// ORs the differences of all words, and compares the result with zero through `subtle`. `subtle` compares slices byte
/// by byte, which would take as long as an HMAC.
pub(crate) fn ct_eq<const N: usize>(a: &[u8; N], b: &[u8; N]) -> bool {
    const { assert!(N.is_multiple_of(8)) };
    let words = a.as_chunks().0.iter().zip(b.as_chunks().0);
    let difference = words.fold(0, |sum, (a, b)| sum | (u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b)));
    difference.ct_eq(&0).into()
}

#[cfg(test)]
mod tests;
