//! The hash of a key ID in the map of a keyring.

use core::{
    array,
    hash::{BuildHasher, Hasher},
};

use super::KeyId;

/// The number of 8-byte groups in a key ID. The last group is padded with zeros.
const PAIRS: usize = KeyId::LEN.div_ceil(8);

/// A hash function with random keys. Each map has its own.
///
/// This is pair-multiply-shift (M. Thorup, High Speed Hashing for Integers and Strings, arXiv 1504.06804). It is
/// strongly universal: the 32-bit hashes of two IDs are independent and uniform over the choice of the keys. So an
/// attacker who chooses IDs, and sees neither keys nor hashes, cannot make them collide more often than chance does.
///
/// SipHash, which `std` uses, also resists an attacker who sees hashes. No caller sees hashes here, and SipHash takes
/// four times as long. Hash functions that are made for speed take as long as this one, and guarantee less.
#[derive(Clone)]
pub(crate) struct KeyIdHash {
    pairs: [[u64; 2]; PAIRS],
    offset: u64,
}

impl Default for KeyIdHash {
    /// Draws the keys from the randomness of the standard library's maps. Without `std`, hashbrown derives some from
    /// the addresses of the program.
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
    /// The bytes of a key ID are its 32-bit words x: `sum = offset + Σ (a + x[2i + 1]) · (b + x[2i])`, where `a` and
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
