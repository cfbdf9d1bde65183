//! SHA-256, and HMAC and HKDF over it, for the short messages of the formats.
//!
//! The compression function is that of the `sha2` crate. What is here is the composition of FIPS 180-4, RFC 2104 and
//! RFC 5869 around it, for two reasons:
//!
//! - A message of known length is laid out with its padding once, so that one call compresses all of it. A buffer that
//!   takes bytes piece by piece costs up to a quarter more.
//! - The compression function stays out of line. Where the compiler knows that the processor has SHA instructions, it
//!   would inline them into code that uses 256-bit registers. `sha256rnds2` has no VEX form, and some processors then
//!   take twenty times as long for it. `scripts/sha-beside-avx` finds such code.
//!
//! `tests.rs` compares all of it with the `sha2`, `hmac` and `hkdf` crates and with Wycheproof's vectors.

use sha2::block_api::compress256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::secret::Secret;

pub(crate) const DIGEST_LEN: usize = 32;
const BLOCK_LEN: usize = 64;

type State = [u32; 8];

/// FIPS 180-4, 5.3.3: the initial hash value.
const INITIAL: State = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// SHA-256 of `message`.
pub(crate) fn sha256(message: &[u8]) -> [u8; DIGEST_LEN] {
    let mut state = INITIAL;
    absorb(&mut state, 0, message);
    let mut digest = [0; DIGEST_LEN];
    write(&state, &mut digest);
    digest
}

/// A key of HMAC-SHA-256, as the two states that it leads to. The PRK of HKDF is one too.
pub(crate) struct HmacKey {
    inner: State,
    outer: State,
}

impl HmacKey {
    /// RFC 2104: "append zeros to the end of K to create a B byte string", and the XOR with `ipad` and with `opad`.
    pub(crate) fn new<const N: usize>(key: &[u8; N]) -> Self {
        const { assert!(N <= BLOCK_LEN) };
        let keyed = |pad: u8| {
            let mut block = Secret::<BLOCK_LEN>::zeroed();
            block.fill(pad);
            for (byte, key) in block.iter_mut().zip(key) {
                *byte ^= key;
            }
            let mut state = INITIAL;
            compress(&mut state, core::slice::from_ref(&*block));
            state
        };
        Self {
            inner: keyed(0x36),
            outer: keyed(0x5c),
        }
    }

    /// A public key whose states are known at compile time.
    pub(crate) const fn of_states(inner: State, outer: State) -> Self {
        Self { inner, outer }
    }

    /// HMAC of `parts`, joined, which fit into `ROOM` bytes with their padding of at least 9 bytes.
    ///
    /// HKDF-Extract (RFC 5869, 2.2) is `PRK = HMAC-Hash(salt, IKM)`. HKDF-Expand (2.3) to one block is
    /// `T(1) = HMAC-Hash(PRK, info | 0x01)`, and `T(2) = HMAC-Hash(PRK, T(1) | info | 0x02)` follows it.
    #[inline(always)] // The lengths are known to the caller, and so nothing of the layout is left for run time.
    pub(crate) fn mac<const ROOM: usize>(&self, parts: &[&[u8]], output: &mut [u8; DIGEST_LEN]) {
        let mut message = Padded::<ROOM>::new();
        for part in parts {
            message.push(part);
        }
        let mut state = self.inner;
        message.compress(&mut state, BLOCK_LEN);
        self.finish(&mut state, output);
    }

    /// HMAC of a message of any length.
    #[cfg(any(test, feature = "file-keyring"))]
    pub(crate) fn mac_of(&self, message: &[u8], output: &mut [u8; DIGEST_LEN]) {
        let mut state = self.inner;
        absorb(&mut state, BLOCK_LEN, message);
        self.finish(&mut state, output);
    }

    /// The outer hash of RFC 2104 over the inner one in `state`, which is wiped.
    #[inline(always)]
    fn finish(&self, state: &mut State, output: &mut [u8; DIGEST_LEN]) {
        write(state, output);
        let mut outer = Padded::<BLOCK_LEN>::new();
        outer.push(output);
        *state = self.outer;
        outer.compress(state, BLOCK_LEN);
        write(state, output);
        state.zeroize();
    }
}

impl Drop for HmacKey {
    fn drop(&mut self) {
        self.inner.zeroize();
        self.outer.zeroize();
    }
}

impl ZeroizeOnDrop for HmacKey {}

/// A message of at most `ROOM - 9` bytes, with room for its padding. Wiped on drop.
struct Padded<const ROOM: usize> {
    bytes: Secret<ROOM>,
    length: usize,
}

impl<const ROOM: usize> Padded<ROOM> {
    #[inline(always)]
    fn new() -> Self {
        const { assert!(ROOM.is_multiple_of(BLOCK_LEN)) };
        Self {
            bytes: Secret::zeroed(),
            length: 0,
        }
    }

    #[inline(always)]
    #[expect(
        clippy::expect_used,
        reason = "each caller's parts have constant or checked lengths, and fit"
    )]
    fn push(&mut self, part: &[u8]) {
        let end = self.length.saturating_add(part.len());
        let room = self.bytes.get_mut(self.length..end).expect("room for the message");
        room.copy_from_slice(part);
        self.length = end;
    }

    /// FIPS 180-4, 5.1.1: a one bit, zeros, and the length in bits as 64 bits, `before` bytes in front of the message
    /// counted. Then compresses all of it.
    #[inline(always)]
    fn compress(&mut self, state: &mut State, before: usize) {
        let bits = (before.saturating_add(self.length) as u64).saturating_mul(8);
        let end = self.length.saturating_add(9).next_multiple_of(BLOCK_LEN);
        self.push(&[0x80]);
        self.length = end.saturating_sub(8);
        self.push(&bits.to_be_bytes());
        let (blocks, _) = self.bytes.as_chunks();
        let (used, _) = blocks.split_at(end.checked_div(BLOCK_LEN).unwrap_or_default().min(blocks.len()));
        compress(state, used);
    }
}

/// Compresses a message of any length, which stands behind `before` bytes of whole blocks, with its padding.
fn absorb(state: &mut State, before: usize, message: &[u8]) {
    let (blocks, rest) = message.as_chunks();
    compress(state, blocks);
    let mut last = Padded::<{ 2 * BLOCK_LEN }>::new();
    last.push(rest);
    last.compress(state, before.saturating_add(blocks.as_flattened().len()));
}

/// Never inlined: see the module's documentation.
#[inline(never)]
fn compress(state: &mut State, blocks: &[[u8; BLOCK_LEN]]) {
    compress256(state, blocks);
}

/// FIPS 180-4, 6.2.2: the hash value is the words of the state, big-endian.
#[inline(always)]
fn write(state: &State, output: &mut [u8; DIGEST_LEN]) {
    let (words, _) = output.as_chunks_mut();
    for (bytes, word) in words.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
}

#[cfg(test)]
mod tests;
