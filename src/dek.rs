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
/// Rust moves values by copying their bytes, and what a move leaves behind on the stack is not wiped. Keep a DEK where
/// it was returned, and pass references.
pub struct Dek(Secret<{ Self::LEN }>);

impl Dek {
    /// The length of a DEK in bytes: 512 bits.
    pub const LEN: usize = 64;

    /// A fresh DEK from the operating system's random generator.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Randomness`] where the generator failed or repeats itself; no other.
    ///
    /// # Examples
    ///
    /// ```
    /// use dekseal::Dek;
    ///
    /// let dek = Dek::generate()?;
    /// assert_ne!(dek, Dek::generate()?);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn generate() -> Result<Self, Error> {
        Self::generate_with_rng(&mut getrandom::SysRng)
    }

    /// A fresh DEK from a caller's random generator.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Randomness`] where the generator failed or repeats itself; no other.
    ///
    /// # Examples
    ///
    /// With the generator of a board, for instance; every method whose name ends in `_with_rng` takes one likewise.
    ///
    /// ```
    /// use dekseal::{
    ///     Dek,
    ///     rand_core::{TryCryptoRng, TryRng},
    /// };
    ///
    /// /// What the hardware calls a random generator.
    /// struct Trng;
    ///
    /// impl TryRng for Trng {
    ///     type Error = Fault;
    ///
    ///     fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
    ///         for word in bytes.chunks_mut(4) {
    ///             word.copy_from_slice(&read_register()?.to_ne_bytes()[..word.len()]);
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     fn try_next_u32(&mut self) -> Result<u32, Fault> {
    ///         read_register()
    ///     }
    ///
    ///     fn try_next_u64(&mut self) -> Result<u64, Fault> {
    ///         Ok(u64::from(read_register()?) << 32 | u64::from(read_register()?))
    ///     }
    /// }
    ///
    /// impl TryCryptoRng for Trng {}
    ///
    /// # #[derive(Debug)]
    /// # struct Fault;
    /// # impl core::fmt::Display for Fault {
    /// #     fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
    /// #         f.write_str("the generator failed")
    /// #     }
    /// # }
    /// # impl core::error::Error for Fault {}
    /// # fn read_register() -> Result<u32, Fault> {
    /// #     use core::sync::atomic::{AtomicU32, Ordering};
    /// #     static REGISTER: AtomicU32 = AtomicU32::new(0);
    /// #     Ok(REGISTER.fetch_add(1, Ordering::Relaxed))
    /// # }
    /// let dek = Dek::generate_with_rng(&mut Trng)?;
    /// # assert_ne!(dek, Dek::generate_with_rng(&mut Trng)?);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn generate_with_rng<R: TryCryptoRng + ?Sized>(rng: &mut R) -> Result<Self, Error> {
        let mut dek = Self::zeroed();
        dek.fill(rng)?;
        Ok(dek)
    }

    /// A DEK that was made elsewhere.
    ///
    /// # Security
    ///
    /// Wrapping is deterministic, so a DEK must be random (FORMAT.md A6): whoever may seal can test a guess of a weak
    /// one. The caller's array is not wiped.
    ///
    /// # Examples
    ///
    /// A DEK out of a KMS that is being left; what it was read into is wiped too:
    ///
    /// ```
    /// use dekseal::{Dek, zeroize::Zeroizing};
    ///
    /// # let unwrapped_elsewhere = [7; 64];
    /// let bytes = Zeroizing::new(unwrapped_elsewhere);
    /// let dek = Dek::from_bytes(&bytes);
    /// assert_eq!(*dek.expose_secret(), *bytes);
    /// ```
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        Self(Secret::copy_of(bytes))
    }

    /// The 64 bytes.
    ///
    /// # Security
    ///
    /// What is copied out of here is the caller's to wipe.
    ///
    /// # Examples
    ///
    /// The key of another cipher, borrowed and not copied:
    ///
    /// ```
    /// # let dek = dekseal::Dek::from_bytes(&core::array::from_fn(|at| at as u8));
    /// let key: &[u8; 32] = dek.expose_secret().first_chunk().unwrap();
    /// # assert_eq!((key[0], key[31]), (0, 31));
    /// ```
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

    /// A generator that gives the same 32 bytes twice is stuck; that it gives one byte 64 times is a case of that.
    /// Chance does it once in 2²⁵⁶ DEKs.
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
