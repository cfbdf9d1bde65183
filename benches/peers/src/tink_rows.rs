//! Tink: envelope encryption of the key, with an AEAD in this process in place of the remote KMS; and that AEAD alone.

use tink_core::{Aead, keyset, subtle::random::get_random_bytes};

use crate::peer::{Binding, Facts, Map, Pairs, Peer, joined, map};

const THREAD_RNG: &str = "user-space ChaCha12 of the thread, reseeded each 64 KiB";

/// The primitive of a new AES-256-GCM keyset.
fn keyset_aead() -> Box<dyn Aead> {
    tink_aead::init();
    let handle = keyset::Handle::new(&tink_aead::aes256_gcm_key_template()).expect("the template is Tink's own");
    tink_aead::new(&handle).expect("the keyset is of AEAD keys")
}

/// Makes a key and wraps it. Both rows call Tink in the same way.
fn wrap(aead: &dyn Aead, context: &Map) -> (Vec<u8>, Vec<u8>) {
    let key = get_random_bytes(64);
    let wrapped = aead
        .encrypt(&key, &joined(context))
        .expect("the lengths are within the limits");
    (key, wrapped)
}

pub struct Envelope(tink_aead::KmsEnvelopeAead);

impl Envelope {
    pub fn new() -> Self {
        let remote = keyset_aead();
        Self(tink_aead::KmsEnvelopeAead::new(
            tink_aead::aes256_gcm_key_template(),
            remote,
        ))
    }
}

impl Peer for Envelope {
    const FACTS: Facts = Facts {
        name: "tink-aead, KmsEnvelopeAead",
        package: ("tink-aead", "0.3"),
        randomness: THREAD_RNG,
        nonce: "random 96-bit, twice",
        commitment: "none",
        binding: Binding::Bytes,
    };
    type Context = Map;
    type Made = (Vec<u8>, Vec<u8>);
    type Unwrapped = Vec<u8>;

    fn context(pairs: Pairs) -> Map {
        map(pairs)
    }

    fn wrap(&self, context: &Map) -> Self::Made {
        wrap(&self.0, context)
    }

    fn unwrap(&self, context: &Map, (_, wrapped): &Self::Made) -> Option<Vec<u8>> {
        self.0.decrypt(wrapped, &joined(context)).ok()
    }
}

pub struct Direct(Box<dyn Aead>);

impl Direct {
    pub fn new() -> Self {
        Self(keyset_aead())
    }
}

impl Peer for Direct {
    const FACTS: Facts = Facts {
        name: "tink-aead, AES256_GCM keyset alone",
        package: ("tink-aead", "0.3"),
        randomness: THREAD_RNG,
        nonce: "random 96-bit",
        commitment: "none",
        binding: Binding::Bytes,
    };
    type Context = Map;
    type Made = (Vec<u8>, Vec<u8>);
    type Unwrapped = Vec<u8>;

    fn context(pairs: Pairs) -> Map {
        map(pairs)
    }

    fn wrap(&self, context: &Map) -> Self::Made {
        wrap(&*self.0, context)
    }

    fn unwrap(&self, context: &Map, (_, wrapped): &Self::Made) -> Option<Vec<u8>> {
        self.0.decrypt(wrapped, &joined(context)).ok()
    }
}
