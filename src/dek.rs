//! The 64 secret bytes of a DEK.

use core::fmt;

use rand_core::TryCryptoRng;
use zeroize::ZeroizeOnDrop;

use crate::{
    error::{Error, ErrorKind, RandomnessFault},
    secret::{Secret, ct_eq},
};

/// A data-encryption key: 64 secret bytes, wiped on drop.
///
/// A DEK cannot be cloned, printed or serialized. `==` compares in constant time.
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
/// Rust moves values by copying their bytes, and does not wipe the copy that a move leaves on the stack. Keep a DEK
/// where it was returned, and pass references.
pub struct Dek(Secret<{ Self::LEN }>);

impl Dek {
    /// The length of a DEK in bytes: 512 bits.
    pub const LEN: usize = 64;

    /// Makes a DEK with the random generator of the operating system.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Randomness`] if the generator fails or repeats itself; no others.
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

    /// Makes a DEK with a random generator of the caller's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Randomness`] if the generator fails or repeats itself; no others.
    ///
    /// # Examples
    ///
    /// A microcontroller passes its hardware generator. Every method whose name ends in `_with_rng` takes a generator
    /// in this way.
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

    /// Takes a DEK that was made elsewhere.
    ///
    /// # Security
    ///
    /// Sealing is deterministic, so a DEK must be random (FORMAT.md A6): anyone who may seal can test guesses of a weak
    /// DEK. The caller's array is not wiped.
    ///
    /// # Examples
    ///
    /// A DEK that another KMS returned. The buffer that it was read into is wiped too:
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
    /// The caller must wipe any copy of these bytes.
    ///
    /// # Examples
    ///
    /// Used as the key of another cipher, by reference and not copied:
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

    /// A buffer for a DEK, to be filled in place.
    pub(crate) fn zeroed() -> Self {
        Self(Secret::zeroed())
    }

    /// The 64 bytes, for filling in place.
    pub(crate) fn expose_mut(&mut self) -> &mut Secret<{ Self::LEN }> {
        &mut self.0
    }

    /// Fills the DEK with 64 bytes of the generator.
    pub(crate) fn fill<R: TryCryptoRng + ?Sized>(&mut self, rng: &mut R) -> Result<(), Error> {
        draw(rng, &mut *self.0)?;
        self.check()
    }

    /// Refuses a stuck generator, which returns the same 32 bytes twice. A generator that repeats one byte is included.
    /// A sound generator does this once in 2²⁵⁶ DEKs.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.0.as_chunks() {
            ([first, second], []) if !ct_eq::<{ Self::LEN / 2 }>(first, second) => Ok(()),
            _ => Err(ErrorKind::Randomness(RandomnessFault::Stuck).into()),
        }
    }
}

/// Fills `bytes` with the output of the generator.
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

// The only field is `ZeroizeOnDrop`.
impl ZeroizeOnDrop for Dek {}
