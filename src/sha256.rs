//! SHA-256, HMAC-SHA-256 and HKDF-SHA-256 for the messages of the formats.
//!
//! The compression function comes from the crate `sha2`, which uses the SHA instructions of the processor if it has
//! them. This module adds the padding of SHA-256, HMAC (RFC 2104) and HKDF (RFC 5869). The crates `hmac` and `hkdf` do
//! the same for messages that arrive in pieces, and the tests of this module compare with them. They are not used here
//! for two reasons:
//!
//! - **Build flags.** If a build enables `sha` and `avx2`, the compiler may inline the compression function into code
//!   that uses 256-bit registers. The SHA instructions have no VEX form, so each of them then waits for the upper
//!   halves of the registers. On some processors a seal takes 18 times as long. [`compress`] is never inlined, and the
//!   compiler clears the upper halves before a call.
//! - **Time.** Nearly every message has a length that is known at compile time, so it is laid out in whole blocks
//!   together with its padding. There is no buffer to fill and no position to track, and an HMAC takes little more time
//!   than its three compressions.

use sha2::block_api::compress256;
use zeroize::{ZeroizeOnDrop, optimization_barrier};

pub(crate) const DIGEST_LEN: usize = 32;
const BLOCK_LEN: usize = 64;
/// The byte 0x80 and the length of the message in bits. Zeros are between them.
const PADDING_LEN: usize = 1 + 8;

type Block = [u8; BLOCK_LEN];

/// FIPS 180-4, 5.3.3: the state before the first block.
const INITIAL: [u32; 8] = [
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
#[inline]
pub(crate) fn sha256(message: &[u8]) -> [u8; DIGEST_LEN] {
    let mut state = State(INITIAL);
    state.finish(0, message);
    let mut digest = [0; DIGEST_LEN];
    state.write(&mut digest);
    digest
}

/// HMAC-SHA-256 under one key. HKDF-Extract is HMAC under its salt, and HKDF-Expand is HMAC under the PRK.
///
/// RFC 2104: `H(K XOR opad, H(K XOR ipad, text))`. `ipad` is the byte 0x36 and `opad` the byte 0x5C, each repeated for
/// a block. A shorter key is padded with zeros. Both hashes start with a block that depends on the key alone. This type
/// keeps only the states after these two blocks, as section 4 of the RFC suggests.
pub(crate) struct HmacKey {
    inner: State,
    outer: State,
}

impl HmacKey {
    /// HMAC under `key`, which is at most one block long.
    pub(crate) fn new<const N: usize>(key: &[u8; N]) -> Self {
        let mut hmac = Self::unkeyed();
        hmac.set(key);
        hmac
    }

    /// A place for the states of a key.
    pub(crate) const fn unkeyed() -> Self {
        Self::of_states(INITIAL, INITIAL)
    }

    /// Sets the key of an [`unkeyed`](Self::unkeyed) one in place.
    pub(crate) fn set<const N: usize>(&mut self, key: &[u8; N]) {
        const { assert!(N <= BLOCK_LEN) };
        const IPAD: u8 = 0x36;
        const OPAD: u8 = 0x5c;
        let mut padded = Blocks([[IPAD; BLOCK_LEN]]);
        for (byte, key) in padded.0.as_flattened_mut().iter_mut().zip(key) {
            *byte ^= key;
        }
        compress(&mut self.inner, &padded.0);
        for byte in padded.0.as_flattened_mut() {
            *byte ^= IPAD ^ OPAD;
        }
        compress(&mut self.outer, &padded.0);
    }

    /// HMAC under the key that gives these states.
    pub(crate) const fn of_states(inner: [u32; 8], outer: [u32; 8]) -> Self {
        Self {
            inner: State(inner),
            outer: State(outer),
        }
    }

    /// The MAC of `a ‖ b ‖ c`. The message with its padding fills `BLOCKS` blocks.
    #[inline]
    pub(crate) fn mac<const BLOCKS: usize, const A: usize, const B: usize, const C: usize>(
        &self,
        (a, b, c): (&[u8; A], &[u8; B], &[u8; C]),
        mac: &mut [u8; DIGEST_LEN],
    ) {
        let mut message = Blocks::<BLOCKS>::zeroed();
        message.fill(BLOCK_LEN, a, b, c);
        self.mac_of_blocks(&message, mac);
    }

    /// The MAC of a message that fills these blocks with its padding.
    #[inline]
    fn mac_of_blocks<const BLOCKS: usize>(&self, message: &Blocks<BLOCKS>, mac: &mut [u8; DIGEST_LEN]) {
        let (mut inner, mut outer) = (State(self.inner.0), Outer::new(self));
        compress(&mut inner, &message.0);
        outer.finish(&inner, mac);
    }

    /// Two independent MACs: of `a ‖ b` under this key, and of `b` under another. Both messages fill `BLOCKS` blocks
    /// with their padding.
    ///
    /// A compression depends on the one before it, and alone it leaves half of the processor idle. Two chains of
    /// compressions, called in turns, therefore take about 1.5 times as long as one.
    #[inline]
    pub(crate) fn mac_beside<const BLOCKS: usize, const A: usize, const B: usize>(
        &self,
        (a, b): (&[u8; A], &[u8; B]),
        mac: &mut [u8; DIGEST_LEN],
        (other, other_mac): (&Self, &mut [u8; DIGEST_LEN]),
    ) {
        let (mut message, mut other_message) = (Blocks::<BLOCKS>::zeroed(), Blocks::<BLOCKS>::zeroed());
        message.fill(BLOCK_LEN, a, b, &[]);
        other_message.fill(BLOCK_LEN, b, &[], &[]);
        let (mut inner, mut other_inner) = (State(self.inner.0), State(other.inner.0));
        let (mut outer, mut other_outer) = (Outer::new(self), Outer::new(other));
        for (block, other_block) in message.0.chunks(1).zip(other_message.0.chunks(1)) {
            compress(&mut inner, block);
            compress(&mut other_inner, other_block);
        }
        outer.finish(&inner, mac);
        other_outer.finish(&other_inner, other_mac);
    }

    /// The MAC of a message of any length.
    pub(crate) fn mac_of(&self, message: &[u8], mac: &mut [u8; DIGEST_LEN]) {
        let (mut inner, mut outer) = (State(self.inner.0), Outer::new(self));
        inner.finish(BLOCK_LEN, message);
        outer.finish(&inner, mac);
    }

    /// The first block of HKDF-Expand. Its info is `a ‖ b`. RFC 5869, 2.3: `T(1) = HMAC-Hash(PRK, info | 0x01)`.
    #[inline]
    pub(crate) fn expand<const BLOCKS: usize, const A: usize, const B: usize>(
        &self,
        a: &[u8; A],
        b: &[u8; B],
        block: &mut [u8; DIGEST_LEN],
    ) {
        self.mac::<BLOCKS, A, B, 1>((a, b, &[1]), block);
    }
}

/// The outer hash of an HMAC. Its message behind the block of the key is the inner digest.
struct Outer {
    state: State,
    message: Blocks<1>,
}

impl Outer {
    /// Lays out the padding before the inner hash, for the reason that [`TwoBlocks`] gives.
    #[inline]
    fn new(key: &HmacKey) -> Self {
        let mut message = Blocks::zeroed();
        message.fill(BLOCK_LEN, &[0; DIGEST_LEN], &[], &[]);
        Self {
            state: State(key.outer.0),
            message,
        }
    }

    #[inline]
    fn finish(&mut self, inner: &State, mac: &mut [u8; DIGEST_LEN]) {
        inner.write(self.message.0.as_flattened_mut());
        compress(&mut self.state, &self.message.0);
        self.state.write(mac);
    }
}

/// The messages of HKDF-Expand to two blocks, which is 64 bytes.
///
/// They are laid out before the PRK is known. A wide load of bytes that were written in pieces has to wait until all
/// instructions before them are done, and these would be the compressions that key the PRK.
pub(crate) struct TwoBlocks {
    first: Blocks<1>,
    second: Blocks<2>,
}

impl TwoBlocks {
    /// RFC 5869, 2.3: `T(1) = HMAC-Hash(PRK, info | 0x01)` and `T(2) = HMAC-Hash(PRK, T(1) | info | 0x02)`.
    #[inline]
    pub(crate) fn of<const N: usize>(info: &[u8; N]) -> Self {
        let mut messages = Self::unset();
        messages.set(info);
        messages
    }

    /// A place for the messages.
    pub(crate) fn unset() -> Self {
        Self {
            first: Blocks::zeroed(),
            second: Blocks::zeroed(),
        }
    }

    /// Lays out the messages in place.
    #[inline]
    pub(crate) fn set<const N: usize>(&mut self, info: &[u8; N]) {
        self.first.fill(BLOCK_LEN, info, &[1], &[]);
        self.second.fill(BLOCK_LEN, &[0; DIGEST_LEN], info, &[2]);
    }

    /// The first block.
    #[inline]
    pub(crate) fn first(&self, prk: &HmacKey, block: &mut [u8; DIGEST_LEN]) {
        prk.mac_of_blocks(&self.first, block);
    }

    /// The second block, from the first.
    #[inline]
    pub(crate) fn second(&mut self, prk: &HmacKey, first: &[u8; DIGEST_LEN], block: &mut [u8; DIGEST_LEN]) {
        if let Some(place) = self.second.0.as_flattened_mut().first_chunk_mut() {
            *place = *first;
        }
        prk.mac_of_blocks(&self.second, block);
    }
}

/// The state of SHA-256 between two blocks. In HMAC it represents a key, so it is wiped on drop.
struct State([u32; 8]);

impl State {
    /// Hashes the rest of a message and its padding. The first `before` bytes of the message were hashed already.
    #[inline]
    fn finish(&mut self, before: usize, rest: &[u8]) {
        let (whole, last) = rest.as_chunks();
        // The last blocks are written before the first ones are hashed. A wide load of bytes that were written in
        // pieces has to wait until the pieces are in the cache.
        let mut tail = Blocks::<2>([[0; BLOCK_LEN]; 2]);
        // Less than a block is left. Its padding takes a second block if the first has no room for it.
        let blocks = if last.len() <= BLOCK_LEN - PADDING_LEN { 1 } else { 2 };
        let (tail, _) = tail.0.split_at_mut(blocks);
        pad(tail, [last], before.wrapping_add(rest.len()));
        compress(self, whole);
        compress(self, tail);
    }

    /// Writes the digest to the first 32 of `bytes`.
    #[inline]
    fn write(&self, bytes: &mut [u8]) {
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(self.0) {
            *bytes = word.to_be_bytes();
        }
    }
}

/// Blocks of a message. They may hold a key, so they are wiped on drop.
struct Blocks<const N: usize>([Block; N]);

impl<const N: usize> Blocks<N> {
    fn zeroed() -> Self {
        Self([[0; BLOCK_LEN]; N])
    }

    /// The end of a message, `a ‖ b ‖ c`, with its padding. The `before` bytes before it fill whole blocks.
    #[inline]
    fn fill<const A: usize, const B: usize, const C: usize>(
        &mut self,
        before: usize,
        a: &[u8; A],
        b: &[u8; B],
        c: &[u8; C],
    ) {
        const { assert!((A + B + C + PADDING_LEN).div_ceil(BLOCK_LEN) == N) };
        pad(&mut self.0, [a, b, c], before.wrapping_add(const { A + B + C }));
    }
}

/// Fills zeroed `blocks` with `parts` and the padding of a message of `length` bytes in all: `parts ‖ 0x80 ‖ 0… ‖
/// length in bits` (FIPS 180-4, 5.1.1).
#[inline(always)] // the lengths are constants, and so are the positions then
fn pad<const PARTS: usize>(blocks: &mut [Block], parts: [&[u8]; PARTS], length: usize) {
    let mut rest = blocks.as_flattened_mut();
    for part in parts {
        let (here, behind) = rest.split_at_mut(part.len());
        here.copy_from_slice(part);
        rest = behind;
    }
    if let Some(byte) = rest.first_mut() {
        *byte = 0x80;
    }
    if let Some(bytes) = rest.last_chunk_mut() {
        *bytes = (length as u64).wrapping_mul(8).to_be_bytes();
    }
}

/// The compression function. It must not be inlined: see the documentation of this module.
#[inline(never)]
fn compress(state: &mut State, blocks: &[Block]) {
    compress256(&mut state.0, blocks);
}

// The loops of `zeroize` write one word at a time. These functions overwrite the array at once, and the barrier
// prevents the compiler from removing the write.

impl Drop for State {
    fn drop(&mut self) {
        self.0 = [0; 8];
        optimization_barrier(&self.0);
    }
}

impl<const N: usize> Drop for Blocks<N> {
    fn drop(&mut self) {
        self.0 = [[0; BLOCK_LEN]; N];
        optimization_barrier(&self.0);
    }
}

impl ZeroizeOnDrop for State {}

// Both fields are `ZeroizeOnDrop`.
impl ZeroizeOnDrop for HmacKey {}

#[cfg(test)]
pub(crate) mod tests;
