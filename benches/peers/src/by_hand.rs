//! The code of a service author without a library for the job: a random nonce, a context joined to bytes, and one AEAD
//! call. The result is nonce, ciphertext and tag.

use aes_gcm::{
    AeadInOut, KeyInit,
    aead::{
        Generate,
        consts::{U12, U16},
    },
};

use crate::peer::{Binding, Facts, MASTER_KEY, Map, Pairs, Peer, joined, map};

const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;

const fn facts(name: &'static str, version: &'static str, randomness: &'static str) -> Facts {
    Facts {
        name,
        package: (name, version),
        randomness,
        nonce: "random 96-bit",
        commitment: "none",
        binding: Binding::Bytes,
    }
}

/// aws-lc-rs has the same API as ring, so one macro serves both.
macro_rules! ring_like {
    ($peer:ident, $library:ident, $facts:expr) => {
        pub struct $peer {
            key: $library::aead::LessSafeKey,
            random: $library::rand::SystemRandom,
        }

        impl $peer {
            pub fn new() -> Self {
                let key = $library::aead::UnboundKey::new(&$library::aead::AES_256_GCM, &MASTER_KEY);
                Self {
                    key: $library::aead::LessSafeKey::new(key.expect("the key is 32 bytes")),
                    random: $library::rand::SystemRandom::new(),
                }
            }

            fn random<const N: usize>(&self) -> [u8; N] {
                use $library::rand::SecureRandom;

                let mut bytes = [0; N];
                self.random.fill(&mut bytes).expect("there is randomness");
                bytes
            }

            pub fn seal(&self, plain: &[u8], aad: &[u8]) -> Vec<u8> {
                use $library::aead::{Aad, Nonce};

                let nonce: [u8; NONCE_LEN] = self.random();
                let mut sealed = Vec::with_capacity(NONCE_LEN + plain.len() + TAG_LEN);
                sealed.extend_from_slice(&nonce);
                sealed.extend_from_slice(plain);
                let tag = self
                    .key
                    .seal_in_place_separate_tag(
                        Nonce::assume_unique_for_key(nonce),
                        Aad::from(aad),
                        &mut sealed[NONCE_LEN..],
                    )
                    .expect("the lengths are within the limits");
                sealed.extend_from_slice(tag.as_ref());
                sealed
            }

            pub fn open(&self, sealed: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
                use $library::aead::{Aad, Nonce};

                let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>()?;
                let mut body = body.to_vec();
                let len = self
                    .key
                    .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut body)
                    .ok()?
                    .len();
                body.truncate(len);
                Some(body)
            }
        }

        impl Peer for $peer {
            const FACTS: Facts = $facts;
            type Context = Map;
            type Made = ([u8; 64], Vec<u8>);
            type Unwrapped = Vec<u8>;

            fn context(pairs: Pairs) -> Map {
                map(pairs)
            }

            fn wrap(&self, context: &Map) -> Self::Made {
                let key = self.random();
                (key, self.seal(&key, &joined(context)))
            }

            fn unwrap(&self, context: &Map, (_, sealed): &Self::Made) -> Option<Vec<u8>> {
                self.open(sealed, &joined(context))
            }
        }
    };
}

ring_like!(Ring, ring, facts("ring", "0.17", "OS call: key, nonce"));
ring_like!(
    AwsLc,
    aws_lc_rs,
    facts(
        "aws-lc-rs",
        "1.",
        "user-space AES-CTR-DRBG of the thread, RDRAND mixed in per draw"
    )
);

/// A cipher of RustCrypto with the master key.
pub struct RustCrypto<A>(A);

impl<A: KeyInit> RustCrypto<A> {
    pub fn new() -> Self {
        Self(A::new_from_slice(&MASTER_KEY).expect("the key is 32 bytes"))
    }
}

/// The name of the cipher in the table.
pub trait Named {
    const FACTS: Facts;
}

impl Named for aes_gcm::Aes256Gcm {
    const FACTS: Facts = facts("aes-gcm", "0.11", "OS call: key, nonce");
}

impl Named for aes_gcm_siv::Aes256GcmSiv {
    const FACTS: Facts = Facts {
        nonce: "random 96-bit; a repeat is survived",
        ..facts("aes-gcm-siv", "0.12", "OS call: key, nonce")
    };
}

impl<A: Named + AeadInOut<NonceSize = U12, TagSize = U16>> Peer for RustCrypto<A> {
    const FACTS: Facts = A::FACTS;
    type Context = Map;
    type Made = ([u8; 64], Vec<u8>);
    type Unwrapped = Vec<u8>;

    fn context(pairs: Pairs) -> Map {
        map(pairs)
    }

    fn wrap(&self, context: &Map) -> Self::Made {
        let key = <[u8; 64]>::generate();
        let nonce = <[u8; NONCE_LEN]>::generate();
        let mut sealed = Vec::with_capacity(NONCE_LEN + key.len() + TAG_LEN);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&key);
        let tag = self
            .0
            .encrypt_inout_detached(&nonce.into(), &joined(context), (&mut sealed[NONCE_LEN..]).into())
            .expect("the lengths are within the limits");
        sealed.extend_from_slice(&tag);
        (key, sealed)
    }

    fn unwrap(&self, context: &Map, (_, sealed): &Self::Made) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let (body, tag) = rest.split_last_chunk::<TAG_LEN>()?;
        let mut key = body.to_vec();
        self.0
            .decrypt_inout_detached(nonce.into(), &joined(context), key.as_mut_slice().into(), tag.into())
            .ok()?;
        Some(key)
    }
}
