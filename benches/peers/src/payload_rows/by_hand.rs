//! The code of a service author without a library for the job. It uses a random key for each message, wrapped under the
//! master key with the context as associated data. The data is in segments of 64 KiB, each copied and then encrypted in
//! place. The nonce of a segment consists of its number and whether it is the last, as in the STREAM construction.

use aes_gcm::{
    AeadInOut, KeyInit,
    aead::consts::{U12, U16},
};

use crate::{
    payload::{PIECE_LEN, PayloadFacts, PayloadPeer, Truncation},
    peer::{Binding, MASTER_KEY, Map, Pairs, joined, map},
};

const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
const WRAPPED_LEN: usize = NONCE_LEN + KEY_LEN + TAG_LEN;

type Key = [u8; KEY_LEN];
type Nonce = [u8; NONCE_LEN];
type Tag = [u8; TAG_LEN];

/// An AEAD of any library.
pub trait Cipher {
    const FACTS: PayloadFacts;

    fn new(key: &Key) -> Self;
    fn seal(&self, nonce: Nonce, aad: &[u8], text: &mut [u8]) -> Tag;
    /// Opens a segment with its tag at the end.
    fn open(&self, nonce: Nonce, aad: &[u8], sealed: &mut [u8]) -> Option<()>;
}

/// The master key.
pub struct ByHand<C>(C);

impl<C: Cipher> ByHand<C> {
    pub fn new() -> Self {
        Self(C::new(&MASTER_KEY))
    }
}

impl<C: Cipher> PayloadPeer for ByHand<C> {
    const FACTS: PayloadFacts = C::FACTS;
    const LAST_SEGMENT_LEN: usize = PIECE_LEN + TAG_LEN;
    type Context = Map;
    type Sealed<'a> = &'a [u8];
    type Stored = Vec<u8>;
    type Opened<'a> = &'a [u8];

    fn context(pairs: Pairs) -> Map {
        map(pairs)
    }

    fn encrypt<'a>(&self, context: &Map, plaintext: &[u8], room: &'a mut Vec<u8>) -> &'a [u8] {
        room.clear();
        let key: Key = random();
        let nonce: Nonce = random();
        room.extend_from_slice(&nonce);
        append(room, &key, |key| self.0.seal(nonce, &joined(context), key));

        let cipher = C::new(&key);
        let mut pieces = plaintext.chunks(PIECE_LEN).enumerate().peekable();
        while let Some((index, piece)) = pieces.next() {
            let nonce = place(index, pieces.peek().is_none());
            append(room, piece, |piece| cipher.seal(nonce, &[], piece));
        }
        room
    }

    fn decrypt<'a>(&self, context: &Map, stored: &Vec<u8>, room: &'a mut [u8]) -> Option<&'a [u8]> {
        let (wrapped, sealed) = stored.split_first_chunk::<WRAPPED_LEN>()?;
        let (nonce, mut key) = (*wrapped.first_chunk()?, *wrapped.last_chunk::<{ KEY_LEN + TAG_LEN }>()?);
        self.0.open(nonce, &joined(context), &mut key)?;

        let cipher = C::new(key.first_chunk()?);
        let mut filled = 0;
        let mut segments = sealed.chunks(PIECE_LEN + TAG_LEN).enumerate().peekable();
        while let Some((index, segment)) = segments.next() {
            let nonce = place(index, segments.peek().is_none());
            let text = room.get_mut(filled..filled + segment.len())?;
            text.copy_from_slice(segment);
            cipher.open(nonce, &[], text)?;
            filled += segment.len() - TAG_LEN;
        }
        Some(&room[..filled])
    }
}

/// Called once or twice for each message, so the choice of the generator does not matter.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("there is randomness");
    bytes
}

/// Copies `text` into the room, encrypts it there, and appends the tag.
fn append(room: &mut Vec<u8>, text: &[u8], seal: impl FnOnce(&mut [u8]) -> Tag) {
    let start = room.len();
    room.extend_from_slice(text);
    let tag = seal(&mut room[start..]);
    room.extend_from_slice(&tag);
}

/// The nonce of a segment. It is unique in the message, and no other message has the same key.
fn place(index: usize, last: bool) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&(index as u64).to_be_bytes());
    nonce[NONCE_LEN - 1] = last.into();
    nonce
}

const fn facts(name: &'static str, package: (&'static str, &'static str), aead: &'static str) -> PayloadFacts {
    PayloadFacts {
        name,
        package,
        aead,
        segment: "64 KiB",
        truncation: Truncation::Detected,
        random_access: "not written",
        commitment: "none",
        binding: Binding::Bytes,
    }
}

/// aws-lc-rs has the same API as ring, so one macro serves both.
macro_rules! ring_like {
    ($cipher:ident, $library:ident, $facts:expr) => {
        pub struct $cipher($library::aead::LessSafeKey);

        impl Cipher for $cipher {
            const FACTS: PayloadFacts = $facts;

            fn new(key: &Key) -> Self {
                let key = $library::aead::UnboundKey::new(&$library::aead::AES_256_GCM, key);
                Self($library::aead::LessSafeKey::new(
                    key.expect("the key is 32 bytes"),
                ))
            }

            fn seal(&self, nonce: Nonce, aad: &[u8], text: &mut [u8]) -> Tag {
                let nonce = $library::aead::Nonce::assume_unique_for_key(nonce);
                let aad = $library::aead::Aad::from(aad);
                let tag = self.0.seal_in_place_separate_tag(nonce, aad, text);
                let tag = tag.expect("the lengths are within the limits");
                tag.as_ref().try_into().expect("the tag is 16 bytes")
            }

            fn open(&self, nonce: Nonce, aad: &[u8], sealed: &mut [u8]) -> Option<()> {
                let nonce = $library::aead::Nonce::assume_unique_for_key(nonce);
                let aad = $library::aead::Aad::from(aad);
                self.0.open_in_place(nonce, aad, sealed).ok()?;
                Some(())
            }
        }
    };
}

ring_like!(
    Ring,
    ring,
    facts("ring, by hand", ("ring", "0.17"), "AES-256-GCM, ring")
);
ring_like!(
    AwsLc,
    aws_lc_rs,
    facts("aws-lc-rs, by hand", ("aws-lc-rs", "1."), "AES-256-GCM, aws-lc-rs")
);

/// A cipher of RustCrypto.
pub struct RustCrypto<A>(A);

/// The name of the cipher in the table.
pub trait Named {
    const FACTS: PayloadFacts;
}

impl Named for aes_gcm::Aes256Gcm {
    const FACTS: PayloadFacts = facts("aes-gcm, by hand", ("aes-gcm", "0.11"), "AES-256-GCM, RustCrypto");
}

impl Named for chacha20poly1305::ChaCha20Poly1305 {
    const FACTS: PayloadFacts = facts(
        "chacha20poly1305, by hand",
        ("chacha20poly1305", "0.11"),
        "ChaCha20-Poly1305, RustCrypto",
    );
}

// Never inlined: when they are, the loops of aes-gcm compile to code up to two times slower. dekseal does the same.
impl<A: Named + KeyInit + AeadInOut<NonceSize = U12, TagSize = U16>> Cipher for RustCrypto<A> {
    const FACTS: PayloadFacts = A::FACTS;

    fn new(key: &Key) -> Self {
        Self(A::new_from_slice(key).expect("the key is 32 bytes"))
    }

    #[inline(never)]
    fn seal(&self, nonce: Nonce, aad: &[u8], text: &mut [u8]) -> Tag {
        let tag = self.0.encrypt_inout_detached(&nonce.into(), aad, text.into());
        tag.expect("the lengths are within the limits").into()
    }

    #[inline(never)]
    fn open(&self, nonce: Nonce, aad: &[u8], sealed: &mut [u8]) -> Option<()> {
        let (text, tag) = sealed.split_last_chunk_mut::<TAG_LEN>()?;
        self.0
            .decrypt_inout_detached(&nonce.into(), aad, text.into(), (&*tag).into())
            .ok()
    }
}

/// The older version of aes-gcm.
pub struct AesGcm010(aes_gcm_010::Aes256Gcm);

impl Cipher for AesGcm010 {
    const FACTS: PayloadFacts = facts("aes-gcm, by hand", ("aes-gcm", "0.10"), "AES-256-GCM, RustCrypto");

    fn new(key: &Key) -> Self {
        Self(aes_gcm_010::KeyInit::new(key.into()))
    }

    #[inline(never)]
    fn seal(&self, nonce: Nonce, aad: &[u8], text: &mut [u8]) -> Tag {
        let tag = aes_gcm_010::AeadInPlace::encrypt_in_place_detached(&self.0, &nonce.into(), aad, text);
        tag.expect("the lengths are within the limits").into()
    }

    #[inline(never)]
    fn open(&self, nonce: Nonce, aad: &[u8], sealed: &mut [u8]) -> Option<()> {
        let (text, tag) = sealed.split_last_chunk_mut::<TAG_LEN>()?;
        aes_gcm_010::AeadInPlace::decrypt_in_place_detached(&self.0, &nonce.into(), aad, text, (&*tag).into()).ok()
    }
}
