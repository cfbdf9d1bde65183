//! Code that the programs here share: the formats from `dekseal_reference`, and a generator that returns known bytes.

pub mod disassembly;
pub mod memcheck;

use std::convert::Infallible;

use dekseal::{
    KeyId, SealedDek,
    rand_core::{TryCryptoRng, TryRng},
};
use dekseal_reference::{self as reference, Key};
use sha2::{Digest, Sha256};

pub const KEY_ID: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
pub const ROOT_ID: &str = "00000000-0000-0000-0000-00000000root";
/// The encryption context in all programs, and its canonical form (A3).
pub const CONTEXT: [(&str, &str); 1] = [("tenant", "42")];
pub const CANONICAL: &[u8] = b"\x00\x01\x00\x06tenant\x00\x0242";

pub fn key_id() -> KeyId {
    KEY_ID.parse().expect("a key ID")
}

/// The keys that one version of a CMK derives from its material.
pub fn derived(key_id: &KeyId, version: u32, material: &[u8]) -> Key {
    Key::new(key_id.as_str(), version, material).expect("material of 32 to 64 bytes")
}

/// A blob of `dek` in `CONTEXT` with a chosen salt. Its tag is valid. Unless the salt is that of A4, only step 7 of A5
/// refuses it.
pub fn forge(key: &Key, dek: &[u8; 64], salt: &[u8; 32]) -> SealedDek {
    SealedDek::from_bytes(&key.seal_under_salt(CANONICAL, dek, salt)).expect("well-formed")
}

/// B2: the key of the payload of `dek` with this salt.
pub fn payload_key(dek: &[u8; 64], salt: &[u8; 32]) -> [u8; 32] {
    reference::payload_keys(dek, &[b"dekseal\x01\0\0\x01\0", salt.as_slice()].concat()).0
}

/// The two states of SHA-256 that an HMAC under this key starts from, as they are in memory. They are equivalent to the
/// key.
pub fn hmac_states(key: &[u8; 32]) -> [[u8; 32]; 2] {
    const INITIAL: [u32; 8] = [
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    ];
    [0x36, 0x5c].map(|pad| {
        let mut block = [pad; 64];
        for (byte, key) in block.iter_mut().zip(key) {
            *byte ^= key;
        }
        let mut state = INITIAL;
        sha2::block_api::compress256(&mut state, &[block]);
        let mut bytes = [0; 32];
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(state) {
            *bytes = word.to_ne_bytes();
        }
        bytes
    })
}

/// Returns pseudorandom bytes that depend only on the seed, and passes them to `drawn`.
pub struct Drawing<F> {
    pub counter: u64,
    pub drawn: F,
}

/// Pseudorandom bytes that depend only on the seed.
pub fn random<const N: usize>(seed: u64) -> [u8; N] {
    let mut bytes = [0; N];
    fill(seed, &mut bytes);
    bytes
}

/// `length` pseudorandom bytes.
pub fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fill(seed, &mut bytes);
    bytes
}

fn fill(seed: u64, bytes: &mut [u8]) {
    let mut drawing = Drawing {
        counter: seed << 32,
        drawn: |_: &mut [u8]| {},
    };
    let Ok(()) = drawing.try_fill_bytes(bytes);
}

impl<F: FnMut(&mut [u8])> TryRng for Drawing<F> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(32) {
            let digest = Sha256::digest(self.counter.to_le_bytes());
            self.counter += 1;
            chunk.copy_from_slice(&digest[..chunk.len()]);
        }
        (self.drawn)(bytes);
        Ok(())
    }
}

impl<F: FnMut(&mut [u8])> TryCryptoRng for Drawing<F> {}

/// Upper-case hex, for the bodies of requests.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
