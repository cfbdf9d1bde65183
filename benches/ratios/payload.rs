//! Compares payloads with AES-256-GCM of their segments, which reads and writes the same memory under the same key.
//!
//! Two buffers of 4 MiB differ in speed by a few per cent: the system may give one of them large pages, and not the
//! other.

use std::{
    cell::RefCell,
    hint::black_box,
    io::{Read, Write},
};

#[cfg(not(feature = "ring"))]
use aes_gcm::{AeadInOut, AesGcm, KeyInit, aead::consts::U12, aead::inout::InOutBuf, aes::Aes256Enc};
use dekseal::payload::{PayloadCipher, SEALED_SEGMENT_LEN, SEGMENT_LEN, encrypted_len};

use crate::{
    common::{context, engine, key_id, reference},
    measure::{Bound, Lines},
};

/// 64 segments.
const LEN: usize = 64 * SEGMENT_LEN;
/// The length of the plaintext for two cores: long, so that starting the threads of a pool takes a negligible share.
#[cfg(feature = "rayon")]
const LONG: usize = 1024 * SEGMENT_LEN;
/// The share of the speed of AES-256-GCM alone that a payload must reach.
const BOUND: Bound = Bound::TimesAsFast(0.97);

pub(crate) fn payload(lines: &mut Lines) {
    let engine = engine();
    let (dek, sealed_dek) = engine.create_dek(&key_id(), &context()).expect("the key is there");
    let payload_cipher = PayloadCipher::new(&dek, sealed_dek);
    let plaintext: Vec<u8> = (0..LEN).map(|at| at as u8).collect();
    let sealed_len = usize::try_from(encrypted_len(LEN as u64).expect("short enough")).expect("it fits");
    let (sealed, opened) = (RefCell::new(vec![0; sealed_len]), RefCell::new(vec![0; LEN]));
    let any = Raw::new(&[7; 32]);
    lines.compare(
        BOUND,
        "encrypt 4 MiB as a stream",
        || {
            let mut sealed = sealed.borrow_mut();
            let writer = payload_cipher.encrypt_writer(sealed.as_mut_slice());
            let mut writer = writer.expect("randomness");
            writer.write_all(black_box(&plaintext)).expect("there is room");
            writer.finish().expect("there is room").len()
        },
        "AES-256-GCM of its 64 KiB segments",
        || any.encrypt_stream(black_box(&plaintext), &mut sealed.borrow_mut()[264..]),
    );
    // With rayon, one call would use all cores.
    #[cfg(not(feature = "rayon"))]
    lines.compare(
        BOUND,
        "encrypt 4 MiB in one call",
        || payload_cipher.encrypt_into(black_box(&plaintext), &mut sealed.borrow_mut()),
        "AES-256-GCM of its 64 KiB segments",
        || any.encrypt(black_box(&plaintext), &mut sealed.borrow_mut()[264..]),
    );

    let encrypted = payload_cipher.encrypt_into(&plaintext, &mut sealed.borrow_mut());
    encrypted.expect("randomness");
    let (key, _) = reference::payload_keys(dek.expose_secret(), &sealed.borrow()[..44]);
    let (raw, sealed) = (Raw::new(&key), sealed.into_inner());
    lines.compare(
        BOUND,
        "decrypt 4 MiB as a stream",
        || {
            let reader = payload_cipher.decrypt_reader(black_box(sealed.as_slice()));
            let mut reader = reader.expect("a header");
            reader.read_exact(&mut opened.borrow_mut()).expect("it is whole");
            reader.read(&mut [0]).expect("it is whole")
        },
        "AES-256-GCM of its 64 KiB segments",
        || raw.decrypt_stream(black_box(&sealed[264..]), &mut opened.borrow_mut()),
    );
    #[cfg(not(feature = "rayon"))]
    lines.compare(
        BOUND,
        "decrypt 4 MiB in one call",
        || payload_cipher.decrypt_into(black_box(&sealed), &mut opened.borrow_mut()),
        "AES-256-GCM of its 64 KiB segments",
        || raw.decrypt(black_box(&sealed[264..]), &mut opened.borrow_mut()),
    );
    #[cfg(feature = "rayon")]
    on_two_cores(lines, &payload_cipher);
}

/// Compares the same call in a pool of two threads and in a pool of one.
#[cfg(feature = "rayon")]
fn on_two_cores(lines: &mut Lines, payload_cipher: &PayloadCipher) {
    let pool = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().expect("the system has threads")
    };
    let (one, two) = (pool(1), pool(2));
    let plaintext = vec![7; LONG];
    let (mut sealed, mut opened) = (payload_cipher.encrypt(&plaintext).expect("randomness"), vec![0; LONG]);
    let (mut other_sealed, mut other_opened) = (sealed.clone(), opened.clone());
    lines.compare(
        Bound::TimesAsFast(1.8),
        "encrypt 64 MiB in one call on 2 cores",
        || two.install(|| payload_cipher.encrypt_into(black_box(&plaintext), &mut sealed)),
        "on 1",
        || one.install(|| payload_cipher.encrypt_into(black_box(&plaintext), &mut other_sealed)),
    );
    lines.compare(
        Bound::TimesAsFast(1.8),
        "decrypt 64 MiB in one call on 2 cores",
        || two.install(|| payload_cipher.decrypt_into(black_box(&sealed), &mut opened)),
        "on 1",
        || one.install(|| payload_cipher.decrypt_into(black_box(&sealed), &mut other_opened)),
    );
}

/// AES-256-GCM of segments, with the same crate as for payloads.
struct Raw(Cipher);

impl Raw {
    fn encrypt_stream(&self, plaintext: &[u8], mut output: &mut [u8]) {
        let mut sealed = [0; SEALED_SEGMENT_LEN];
        for (index, plaintext) in plaintext.chunks(SEGMENT_LEN).enumerate() {
            self.seal(index, plaintext, &mut sealed);
            output.write_all(&sealed).expect("there is room");
        }
    }

    /// Reads each segment into the place of its plaintext, and its tag beside it.
    fn decrypt_stream(&self, mut input: &[u8], plaintext: &mut [u8]) {
        let mut tag = [0; SEALED_SEGMENT_LEN - SEGMENT_LEN];
        for (index, plaintext) in plaintext.chunks_mut(SEGMENT_LEN).enumerate() {
            input.read_exact(plaintext).expect("it is whole");
            input.read_exact(&mut tag).expect("it is whole");
            self.open_in_place(index, plaintext, &tag);
        }
    }
}

#[cfg(not(feature = "rayon"))]
impl Raw {
    fn encrypt(&self, plaintext: &[u8], sealed: &mut [u8]) {
        let sealed = sealed.chunks_mut(SEALED_SEGMENT_LEN);
        for (index, (plaintext, sealed)) in plaintext.chunks(SEGMENT_LEN).zip(sealed).enumerate() {
            self.seal(index, plaintext, sealed);
        }
    }

    fn decrypt(&self, sealed: &[u8], plaintext: &mut [u8]) {
        let sealed = sealed.chunks(SEALED_SEGMENT_LEN);
        for (index, (plaintext, sealed)) in plaintext.chunks_mut(SEGMENT_LEN).zip(sealed).enumerate() {
            self.open(index, sealed, plaintext);
        }
    }
}

/// The nonce of a segment. All payloads here have the same number of segments.
fn nonce(index: usize) -> [u8; 12] {
    reference::segment_nonce(index, index + 1 == LEN / SEGMENT_LEN)
}

#[cfg(not(feature = "ring"))]
type Cipher = AesGcm<Aes256Enc, U12>;

/// Never inlined, as in the crate: when they are, the loops of aes-gcm compile to code up to two times slower.
#[cfg(not(feature = "ring"))]
impl Raw {
    fn new(key: &[u8; 32]) -> Self {
        Self(AesGcm::new(key.into()))
    }

    #[inline(never)]
    fn seal(&self, index: usize, plaintext: &[u8], sealed: &mut [u8]) {
        let (ciphertext, tag) = sealed.split_at_mut(plaintext.len());
        let text = InOutBuf::new(plaintext, ciphertext).expect("as long");
        let made = self.0.encrypt_inout_detached(&nonce(index).into(), &[], text);
        tag.copy_from_slice(&made.expect("short enough"));
    }

    #[inline(never)]
    fn open_in_place(&self, index: usize, text: &mut [u8], tag: &[u8; 16]) {
        let opened = self
            .0
            .decrypt_inout_detached(&nonce(index).into(), &[], text.into(), tag.into());
        opened.expect("it was sealed here");
    }

    #[inline(never)]
    #[cfg(not(feature = "rayon"))]
    fn open(&self, index: usize, sealed: &[u8], plaintext: &mut [u8]) {
        let (ciphertext, tag) = sealed.split_at(plaintext.len());
        let text = InOutBuf::new(ciphertext, plaintext).expect("as long");
        let tag = tag.try_into().expect("16 bytes");
        let opened = self.0.decrypt_inout_detached(&nonce(index).into(), &[], text, tag);
        opened.expect("it was sealed here");
    }
}

#[cfg(feature = "ring")]
type Cipher = ring::aead::LessSafeKey;

/// ring works in place.
#[cfg(feature = "ring")]
impl Raw {
    fn new(key: &[u8; 32]) -> Self {
        let key = ring::aead::UnboundKey::new(&ring::aead::AES_256_GCM, key).expect("32 bytes");
        Self(ring::aead::LessSafeKey::new(key))
    }

    fn seal(&self, index: usize, plaintext: &[u8], sealed: &mut [u8]) {
        let (ciphertext, tag) = sealed.split_at_mut(plaintext.len());
        ciphertext.copy_from_slice(plaintext);
        let nonce = ring::aead::Nonce::assume_unique_for_key(nonce(index));
        let made = self
            .0
            .seal_in_place_separate_tag(nonce, ring::aead::Aad::empty(), ciphertext);
        tag.copy_from_slice(made.expect("short enough").as_ref());
    }

    fn open_in_place(&self, index: usize, text: &mut [u8], tag: &[u8; 16]) {
        let nonce = ring::aead::Nonce::assume_unique_for_key(nonce(index));
        let aad = ring::aead::Aad::empty();
        let opened = self.0.open_in_place_separate_tag(nonce, aad, (*tag).into(), text, 0..);
        opened.expect("it was sealed here");
    }

    #[cfg(not(feature = "rayon"))]
    fn open(&self, index: usize, sealed: &[u8], plaintext: &mut [u8]) {
        let (ciphertext, tag) = sealed.split_at(plaintext.len());
        plaintext.copy_from_slice(ciphertext);
        self.open_in_place(index, plaintext, tag.try_into().expect("16 bytes"));
    }
}
