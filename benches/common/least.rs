//! The least that the formats allow: the system call, the compressions of SHA-256 and the calls of AES-256-GCM, with
//! nothing between them. A goal for a ratio is out of reach of a processor if the ratio of the least work exceeds it.

use std::hint::black_box;

use aes_gcm::{AeadInOut, KeyInit};
use dekseal::{Engine, Keyring, MemoryKeyring};
use sha2::block_api::compress256;

use super::{Gcm, KEY_ID, engine};

/// Each step takes the result of the one before, as the formats ask for.
pub(crate) struct Least {
    engine: Engine<MemoryKeyring>,
    /// Two chains of compressions. They are called in turns where the format has two independent MACs.
    states: [[u32; 8]; 2],
    blocks: [[u8; 64]; 5],
    aad: Vec<u8>,
}

impl Least {
    pub(crate) fn new(aad: &[u8]) -> Self {
        Self {
            engine: engine(),
            states: [[1; 8], [2; 8]],
            blocks: [[3; 64]; 5],
            aad: aad.to_vec(),
        }
    }

    /// `create_dek`: 64 random bytes, a look-up, the MAC and the key (5 compressions), AES-256-GCM, the checksum (3).
    pub(crate) fn create_dek(&mut self) {
        self.draw::<64>();
        self.look_up();
        self.compress(5);
        self.gcm(true);
        self.compress(3);
    }

    /// `engine.encrypt`: 96 random bytes, a look-up, the MAC beside HKDF-Extract (6), the key and that of the payload
    /// (2 + 4), AES-256-GCM, the checksum (3), the commitment (3), AES-256-GCM, and the memory of the result.
    pub(crate) fn encrypt(&mut self) -> Vec<u8> {
        self.draw::<96>();
        self.look_up();
        self.compress_both(3);
        self.compress_both(2);
        self.compress(2);
        self.gcm(true);
        self.compress(3 + 3);
        self.gcm(false);
        vec![0; 264 + 64 + 16]
    }

    /// `engine.decrypt`: the checksum (3), a look-up, the key (2), AES-256-GCM, the MAC beside HKDF-Extract (6), the
    /// key and the commitment of the payload (4 + 3), AES-256-GCM, and the memory of the result, which is wiped.
    pub(crate) fn decrypt(&mut self) -> dekseal::zeroize::Zeroizing<Vec<u8>> {
        self.compress(3);
        self.look_up();
        self.compress(2);
        self.gcm(true);
        self.compress_both(3);
        self.compress_both(1);
        self.compress(2 + 3);
        self.gcm(false);
        vec![0; 64].into()
    }

    /// `decrypt_dek`: a look-up, the key (2), AES-256-GCM, and the MAC (3).
    pub(crate) fn decrypt_dek(&mut self) {
        self.look_up();
        self.compress(2);
        self.gcm(true);
        self.compress(3);
    }

    fn draw<const N: usize>(&mut self) {
        let mut bytes = [0; N];
        getrandom::fill(&mut bytes).expect("the system has randomness");
        self.blocks[0].copy_from_slice(&bytes[..64]);
    }

    fn look_up(&mut self) {
        let key_id = KEY_ID.parse().expect("a key ID");
        let found = self
            .engine
            .keyring()
            .with_current(black_box(&key_id), |cmk| cmk.key_version());
        black_box(found.is_ok());
    }

    fn compress(&mut self, count: usize) {
        for at in 0..count {
            let blocks = self.blocks[at % 5..].first_chunk::<1>();
            compress256(&mut self.states[0], blocks.expect("there are five"));
        }
    }

    fn compress_both(&mut self, count: usize) {
        for block in self.blocks[..count].chunks(1) {
            let [first, second] = &mut self.states;
            compress256(first, block);
            compress256(second, block);
        }
    }

    /// AES-256-GCM of 64 bytes under a new key, with the AAD of a sealed DEK or without any.
    fn gcm(&mut self, with_aad: bool) {
        let mut key = [0; 32];
        for (bytes, word) in key.as_chunks_mut().0.iter_mut().zip(self.states[0]) {
            *bytes = word.to_be_bytes();
        }
        let aad = if with_aad { self.aad.as_slice() } else { &[] };
        let body = self.blocks[0].as_mut_slice();
        let tag = Gcm::new(&key.into()).encrypt_inout_detached(&[0; 12].into(), aad, body.into());
        self.blocks[1][..16].copy_from_slice(&tag.expect("short"));
    }
}
