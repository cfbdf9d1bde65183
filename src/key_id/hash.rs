//! The hash of a key ID in the map of a keyring.

use core::{
    array,
    hash::{BuildHasher, Hasher},
};

use super::KeyId;

/// How many times 8 bytes a key ID has. The last of them are filled up with zeros.
const PAIRS: usize = KeyId::LEN.div_ceil(8);

/// The random keys of a hash. Each map has its own.
///
/// This is pair-multiply-shift (M. Thorup, High Speed Hashing for Integers and Strings, arXiv 1504.06804). It is strongly
/// universal: the 32-bit hashes of two IDs are independent and uniform over the choice of the keys. So an
/// attacker who chooses IDs, and sees neither keys nor hashes, cannot make them collide more often than chance does.
///
/// SipHash, which `std` uses, also stands against an attacker who sees hashes, which no caller does, and takes four
/// times as long. The hash functions made for speed take as long as this one, and promise less.
#[derive(Clone)]
pub(crate) struct KeyIdHash {
    pairs: [[u64; 2]; PAIRS],
    offset: u64,
}

impl Default for KeyIdHash {
    /// Keys from the randomness that the standard library's maps have. Without it, hashbrown gathers some from the
    /// addresses of the program.
    fn default() -> Self {
        #[cfg(feature = "std")]
        let random = std::hash::RandomState::new();
        #[cfg(not(feature = "std"))]
        let random = hashbrown::DefaultHashBuilder::default();
        Self {
            pairs: array::from_fn(|at| [random.hash_one((at, 0)), random.hash_one((at, 1))]),
            offset: random.hash_one(PAIRS),
        }
    }
}

impl BuildHasher for KeyIdHash {
    type Hasher = KeyIdHasher;

    #[inline]
    fn build_hasher(&self) -> KeyIdHasher {
        KeyIdHasher {
            keys: self.clone(),
            sum: 0,
        }
    }
}

/// Hashes one key ID.
pub(crate) struct KeyIdHasher {
    keys: KeyIdHash,
    sum: u64,
}

impl Hasher for KeyIdHasher {
    /// The bytes of a key ID are its words x of 32 bits: `sum = offset + Σ (a + x[2i + 1]) · (b + x[2i])`, where `a` and
    /// `b` are the keys of the pair.
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        debug_assert_eq!(bytes.len(), KeyId::LEN, "only key IDs are hashed");
        let (pairs, last) = bytes.as_chunks();
        let last = last.first_chunk().map_or(0, |word| u32::from_le_bytes(*word).into());
        let words = pairs.iter().map(|pair| u64::from_le_bytes(*pair)).chain([last]);
        self.sum = words
            .zip(&self.keys.pairs)
            .fold(self.keys.offset, |sum, (word, [a, b])| {
                let (second, first) = (word >> 32, word & 0xffff_ffff);
                let product = a.wrapping_add(second).wrapping_mul(b.wrapping_add(first));
                sum.wrapping_add(product)
            });
    }

    /// The upper 32 bits of the sum are the hash. A map takes bits from both ends, so they stand in both halves.
    #[inline]
    fn finish(&self) -> u64 {
        const UPPER: u64 = 0xffff_ffff_0000_0000;
        (self.sum & UPPER) | (self.sum >> 32)
    }
}

#[cfg(test)]
mod tests;
