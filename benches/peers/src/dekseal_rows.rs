//! dekseal with either source of randomness, and with the context made in advance or for each call.
//!
//! Unwrapping starts with the stored bytes, so it includes parsing them.

use std::cell::RefCell;

use chacha20::ChaCha20Rng;
use dekseal::{CmkVersion, Dek, EncryptionContext, Engine, KeyId, MemoryKeyring, SealedDek, rand_core::SeedableRng};
use getrandom::SysRng;

use crate::peer::{Binding, Bytes, Facts, MASTER_KEY, Pairs, Peer};

const KEY_ID: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";

pub struct Service {
    pub engine: Engine<MemoryKeyring>,
    pub key_id: KeyId,
}

impl Service {
    pub fn new() -> Self {
        let key_id = KEY_ID.parse().expect("the key ID is well-formed");
        let cmk = CmkVersion::new(key_id, 0, &MASTER_KEY).expect("the material is 32 bytes");
        let keyring = MemoryKeyring::from_versions([cmk]).expect("one key is not there twice");
        Self {
            engine: Engine::new(keyring),
            key_id,
        }
    }

    fn wrap(&self, context: &EncryptionContext) -> (Dek, SealedDek) {
        self.engine
            .create_dek(&self.key_id, context)
            .expect("the key is in the keyring")
    }

    fn unwrap(&self, context: &EncryptionContext, sealed: &SealedDek) -> Option<Dek> {
        let sealed = SealedDek::from_bytes(sealed.as_bytes()).ok()?;
        self.engine.decrypt_dek(&self.key_id, context, &sealed).ok()
    }
}

impl Bytes for Dek {
    fn bytes(&self) -> &[u8] {
        self.expose_secret()
    }
}

impl Bytes for SealedDek {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

pub fn context(pairs: Pairs) -> EncryptionContext {
    EncryptionContext::from_pairs(pairs).expect("the context is valid")
}

/// Randomness from the operating system; the context is made in advance, as for a tenant that calls repeatedly.
pub struct Os(Service);

impl Os {
    pub fn new() -> Self {
        Self(Service::new())
    }
}

impl Peer for Os {
    const FACTS: Facts = Facts {
        name: "dekseal",
        package: ("dekseal", "0."),
        randomness: "OS call: key",
        nonce: "derived with the key",
        commitment: "key and context",
        binding: Binding::Map,
    };
    type Context = EncryptionContext;
    type Made = (Dek, SealedDek);
    type Unwrapped = Dek;

    fn context(pairs: Pairs) -> EncryptionContext {
        context(pairs)
    }

    fn wrap(&self, context: &EncryptionContext) -> Self::Made {
        self.0.wrap(context)
    }

    fn unwrap(&self, context: &EncryptionContext, (_, sealed): &Self::Made) -> Option<Dek> {
        self.0.unwrap(context, sealed)
    }
}

/// [`Os`], with the context made for each call.
pub struct ContextEachCall(Service);

impl ContextEachCall {
    pub fn new() -> Self {
        Self(Service::new())
    }
}

impl Peer for ContextEachCall {
    const FACTS: Facts = Facts {
        name: "dekseal, context made for each call",
        ..Os::FACTS
    };
    type Context = Pairs;
    type Made = (Dek, SealedDek);
    type Unwrapped = Dek;

    fn context(pairs: Pairs) -> Pairs {
        pairs
    }

    fn wrap(&self, pairs: &Pairs) -> Self::Made {
        self.0.wrap(&context(*pairs))
    }

    fn unwrap(&self, pairs: &Pairs, (_, sealed): &Self::Made) -> Option<Dek> {
        self.0.unwrap(&context(*pairs), sealed)
    }
}

/// [`Os`], with a generator of the service's own.
pub struct UserSpace {
    service: Service,
    rng: RefCell<ChaCha20Rng>,
}

impl UserSpace {
    pub fn new() -> Self {
        let rng = ChaCha20Rng::try_from_rng(&mut SysRng).expect("there is randomness");
        Self {
            service: Service::new(),
            rng: RefCell::new(rng),
        }
    }
}

impl Peer for UserSpace {
    const FACTS: Facts = Facts {
        name: "dekseal, generator of the caller",
        randomness: "user-space ChaCha20, seeded once",
        ..Os::FACTS
    };
    type Context = EncryptionContext;
    type Made = (Dek, SealedDek);
    type Unwrapped = Dek;

    fn context(pairs: Pairs) -> EncryptionContext {
        context(pairs)
    }

    fn wrap(&self, context: &EncryptionContext) -> Self::Made {
        let Service { engine, key_id } = &self.service;
        let made = engine.create_dek_with_rng(key_id, context, &mut *self.rng.borrow_mut());
        made.expect("the key is in the keyring")
    }

    fn unwrap(&self, context: &EncryptionContext, (_, sealed): &Self::Made) -> Option<Dek> {
        self.service.unwrap(context, sealed)
    }
}
