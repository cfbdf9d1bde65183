//! What the programs here share: the key schedules of FORMAT.md once more, from the primitives, and a generator whose
//! bytes are known.

pub mod memcheck;

use std::convert::Infallible;

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use dekseal::{
    KeyId, SealedDek,
    rand_core::{TryCryptoRng, TryRng},
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

pub const KEY_ID: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
pub const ROOT_ID: &str = "00000000-0000-0000-0000-00000000root";
/// The encryption context of everything here, and its form by A3.
pub const CONTEXT: [(&str, &str); 1] = [("tenant", "42")];
const CANONICAL: &[u8] = b"\x00\x01\x00\x06tenant\x00\x0242";

pub type Key = [u8; 32];

pub fn key_id() -> KeyId {
    KEY_ID.parse().expect("a key ID")
}

/// A4: what one version of a CMK derives from its material.
pub struct Derived {
    trailer: [u8; 40],
    pub prk: Key,
    pub salt_key: Key,
    pub wrap_key: Key,
}

impl Derived {
    pub fn new(key_id: &KeyId, key_version: u32, material: &[u8]) -> Self {
        let mut trailer = [0; 40];
        trailer[..36].copy_from_slice(key_id.as_bytes());
        trailer[36..].copy_from_slice(&key_version.to_le_bytes());
        let (prk, hkdf) = Hkdf::<Sha256>::extract(Some(b"dekseal/v2"), material);
        Self {
            trailer,
            prk: prk.into(),
            salt_key: expand(&hkdf, &[b"dekseal/v2 salt", &trailer]),
            wrap_key: expand(&hkdf, &[b"dekseal/v2 wrap", &trailer]),
        }
    }

    /// The salt of `dek` in `CONTEXT`.
    pub fn salt(&self, dek: &[u8; 64]) -> Key {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.salt_key).expect("any length");
        mac.update(&Sha256::digest(CANONICAL));
        mac.update(dek);
        mac.finalize().into_bytes().into()
    }

    /// The key of the blob that has this salt.
    pub fn blob_key(&self, salt: &Key) -> Key {
        expand(&from_prk(&self.wrap_key), &[b"dekseal/v2 key", salt])
    }

    /// C1: the key of a keyring file's MAC under this root.
    pub fn keyring_mac_key(&self) -> Key {
        expand(&from_prk(&self.wrap_key), &[b"dekseal/v2 keyring"])
    }

    /// A blob of `dek` in `CONTEXT` with a salt that the sealer chose. Its tag holds; where the salt is not the one
    /// of A4, step 7 of A5 alone refuses it.
    pub fn forge(&self, dek: &[u8; 64], salt: &Key) -> SealedDek {
        let aad = [&[2, 0, 152, 0], &self.trailer[..], CANONICAL].concat();
        let gcm = Aes256Gcm::new((&self.blob_key(salt)).into());
        let nonce: &[u8; 12] = salt.first_chunk().expect("32 bytes");
        let mut body = *dek;
        let tag = gcm
            .encrypt_inout_detached(nonce.into(), &aad, body.as_mut_slice().into())
            .expect("64 bytes");
        let mut blob = [&[2, 0, 152, 0], &salt[..], &body, &tag, &self.trailer].concat();
        blob.extend(Sha256::digest(&blob));
        SealedDek::from_bytes(&blob).expect("well-formed")
    }
}

/// B2: the key of all payloads of a DEK.
pub fn payload_prk(dek: &[u8; 64]) -> Key {
    Hkdf::<Sha256>::extract(Some(b"dekseal/v2 payload"), dek).0.into()
}

/// B2: the key of the payload that has this salt.
pub fn payload_key(prk: &Key, salt: &Key) -> Key {
    expand(&from_prk(prk), &[b"dekseal\x01\0\0\x01\0", salt])
}

fn from_prk(key: &Key) -> Hkdf<Sha256> {
    Hkdf::from_prk(key).expect("32 bytes")
}

/// The first 32 bytes of the output do not depend on its length.
fn expand(hkdf: &Hkdf<Sha256>, info: &[&[u8]]) -> Key {
    let mut key = [0; 32];
    hkdf.expand_multi_info(info, &mut key).expect("32 bytes");
    key
}

/// The two states of SHA-256 that an HMAC under this key starts from, as they lie in memory: who has them needs no key.
pub fn hmac_states(key: &Key) -> [Key; 2] {
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

/// Bytes that look random, the same for the same seed, and calls `drawn` with all that it gives.
pub struct Drawing<F> {
    pub counter: u64,
    pub drawn: F,
}

/// Bytes that look random, the same for the same seed.
pub fn random<const N: usize>(seed: u64) -> [u8; N] {
    let mut bytes = [0; N];
    fill(seed, &mut bytes);
    bytes
}

/// The same, as many as `length`.
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

/// Upper-case hex, for bodies of requests.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
