//! The 64 secret bytes.

use core::fmt;

use rand_core::TryCryptoRng;
use zeroize::ZeroizeOnDrop;

use crate::{
    error::{Error, ErrorKind, RandomnessFault},
    secret::{Secret, ct_eq},
};

/// A data-encryption key: 64 secret bytes, wiped on drop.
///
/// It cannot be cloned, printed or serialized, and `==` takes the same time wherever two DEKs differ.
///
/// ```compile_fail,E0599
/// # fn f(dek: dekseal::Dek) {
/// let copy = dek.clone();
/// # }
/// ```
/// ```compile_fail,E0382
/// # fn f(dek: dekseal::Dek) {
/// let moved = dek;
/// drop((dek, moved)); // not Copy
/// # }
/// ```
/// ```compile_fail,E0277
/// # fn f(dek: dekseal::Dek) {
/// println!("{dek}");
/// # }
/// ```
/// ```compile_fail,E0277
/// # fn f(dek: dekseal::Dek) {
/// serde_json::to_string(&dek).ok();
/// # }
/// ```
/// ```
/// let dek = dekseal::Dek::from_bytes(&[7; 64]);
/// assert_eq!(format!("{dek:?}"), "Dek(..)");
/// ```
///
/// # Security
///
/// Rust moves values by copying their bytes, and what a move leaves behind on the stack is not wiped. Keep a DEK where it was
/// returned, and pass references.
pub struct Dek(Secret<{ Self::LEN }>);

impl Dek {
    /// The length of a DEK in bytes: 512 bits.
    pub const LEN: usize = 64;

    /// A fresh DEK from the operating system's random generator.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Randomness`] where the generator failed or repeats itself; no other.
    #[cfg(feature = "std")]
    pub fn generate() -> Result<Self, Error> {
        Self::generate_with_rng(&mut getrandom::SysRng)
    }

    /// A fresh DEK from a caller's random generator.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Randomness`] where the generator failed or repeats itself; no other.
    pub fn generate_with_rng<R: TryCryptoRng + ?Sized>(rng: &mut R) -> Result<Self, Error> {
        let mut dek = Self::zeroed();
        dek.fill(rng)?;
        Ok(dek)
    }

    /// A DEK that was made elsewhere.
    ///
    /// # Security
    ///
    /// Wrapping is deterministic, so a DEK must be random (FORMAT.md A6): whoever may seal can test a guess of a weak one. The
    /// caller's array is not wiped.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        Self(Secret::copy_of(bytes))
    }

    /// The 64 bytes.
    ///
    /// # Security
    ///
    /// What is copied out of here is the caller's to wipe.
    #[must_use]
    pub fn expose_secret(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Room for a DEK, to be filled in place.
    pub(crate) fn zeroed() -> Self {
        Self(Secret::zeroed())
    }

    /// The 64 bytes, to be filled in place.
    pub(crate) fn expose_mut(&mut self) -> &mut Secret<{ Self::LEN }> {
        &mut self.0
    }

    /// Draws the 64 bytes.
    pub(crate) fn fill<R: TryCryptoRng + ?Sized>(&mut self, rng: &mut R) -> Result<(), Error> {
        draw(rng, &mut *self.0)?;
        self.check()
    }

    /// A generator that gives the same 32 bytes twice is stuck; that it gives one byte 64 times is a case of that. Chance does it
    /// once in 2²⁵⁶ DEKs.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.0.as_chunks() {
            ([first, second], []) if !ct_eq::<{ Self::LEN / 2 }>(first, second) => Ok(()),
            _ => Err(ErrorKind::Randomness(RandomnessFault::Stuck).into()),
        }
    }
}

/// Fills `bytes` from the generator.
pub(crate) fn draw<R: TryCryptoRng + ?Sized>(rng: &mut R, bytes: &mut [u8]) -> Result<(), Error> {
    let drawn = rng.try_fill_bytes(bytes);
    drawn.map_err(|_| ErrorKind::Randomness(RandomnessFault::Failed).into())
}

impl PartialEq for Dek {
    fn eq(&self, other: &Self) -> bool {
        ct_eq(&self.0, &other.0)
    }
}

impl Eq for Dek {}

impl fmt::Debug for Dek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dek(..)")
    }
}

// Its one field is.
impl ZeroizeOnDrop for Dek {}
