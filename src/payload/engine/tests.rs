//! The single draw of `encrypt` and `encrypt_writer`, which use the operating system's generator.

use alloc::vec::Vec;
use core::convert::Infallible;

use super::*;
use crate::{cmk::CmkVersion, keyring::MemoryKeyring};

/// Returns these bytes, and counts the draws.
struct Fixed {
    bytes: Vec<u8>,
    draws: usize,
}

impl rand_core::TryRng for Fixed {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("bytes are drawn")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("bytes are drawn")
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.copy_from_slice(&self.bytes);
        self.draws = self.draws.saturating_add(1);
        Ok(())
    }
}

impl TryCryptoRng for Fixed {}

fn key_id() -> KeyId {
    "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse().unwrap()
}

/// Encrypts with these 96 random bytes.
fn encrypt(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let versions = [CmkVersion::new(key_id(), 0, &[7; 32]).unwrap()];
    let engine = Engine::new(MemoryKeyring::from_versions(versions).unwrap());
    let mut rng = Fixed {
        bytes: bytes.to_vec(),
        draws: 0,
    };
    let none = EncryptionContext::none();
    let payload = Event::new("test", Some(&key_id()), Some(&none)).of(|event| {
        engine.create_for_one(&key_id(), &none, &mut rng, event, |new, sealed| {
            crate::payload::oneshot::encrypt(new, sealed, b"attack at dawn")
        })
    });
    assert_eq!(rng.draws, 1);
    payload
}

#[test]
fn one_draw_gives_the_dek_and_then_the_salt() {
    let bytes: Vec<u8> = (0..96).collect();
    let payload = encrypt(&bytes).unwrap();
    assert_eq!(payload[12..44], bytes[64..]);
    let dek = Dek::from_bytes(bytes.first_chunk().unwrap());
    let sealed = Payload::parse(&payload).unwrap().header.sealed_dek();
    assert_eq!(
        *PayloadCipher::new(&dek, sealed).decrypt(&payload).unwrap(),
        b"attack at dawn"
    );
}

#[test]
fn a_draw_that_repeats_itself_is_refused() {
    let sound: Vec<u8> = (0..96).collect();
    let repeating = |from: core::ops::Range<usize>, to: usize| {
        let mut bytes = sound.clone();
        bytes.copy_within(from, to);
        bytes
    };
    // Repeats within the DEK, within the salt, and either half of the DEK in the salt.
    for bytes in [
        repeating(0..32, 32),
        repeating(64..80, 80),
        repeating(0..32, 64),
        repeating(32..64, 64),
    ] {
        let error = encrypt(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Randomness(RandomnessFault::Stuck));
    }
}
