//! kms-aead 0.31: envelope encryption of the key under its own local provider.

use std::num::NonZeroU32;

use kms_aead_031::{
    Encrypted, KmsAeadEnvelope,
    backends::{AeadBackend, Ring},
    formats::{Envelope as EnvelopeFormat, SymmetricKeyFormat},
    providers::{LocalKek, LocalKekId, LocalKekVersion, LocalKmsProvider},
};
use secret_vault_value::SecretValue;

use crate::peer::{Binding, Bytes, Facts, MASTER_KEY, Map, Pairs, Peer, joined, map, ready};

pub struct Envelope(KmsAeadEnvelope<LocalKmsProvider<Ring>, Ring>);

impl Envelope {
    pub fn new() -> Self {
        let material = SecretValue::new(MASTER_KEY.to_vec());
        let kek = LocalKek::from_secret(
            LocalKekVersion::from(NonZeroU32::MIN),
            material,
            SymmetricKeyFormat::Raw,
        );
        let id = LocalKekId::try_from("peers".to_owned()).expect("the name is well-formed");
        let provider = LocalKmsProvider::new(id, vec![kek.expect("the key is 32 bytes")]);
        let envelope = KmsAeadEnvelope::new(provider.expect("there is one version"));
        Self(envelope.expect("AES-256-GCM is supported"))
    }
}

impl Bytes for Encrypted<SecretValue, EnvelopeFormat> {
    fn bytes(&self) -> &[u8] {
        self.value()
    }
}

impl Peer for Envelope {
    const FACTS: Facts = Facts {
        name: "kms-aead, ring, LocalKmsProvider",
        package: ("kms-aead", "0.31"),
        randomness: "OS call: key, inner key, each nonce",
        nonce: "random 96-bit, twice",
        commitment: "none",
        binding: Binding::Bytes,
    };
    type Context = Map;
    type Made = (SecretValue, Encrypted<SecretValue, EnvelopeFormat>);
    type Unwrapped = SecretValue;

    fn context(pairs: Pairs) -> Map {
        map(pairs)
    }

    fn wrap(&self, context: &Map) -> Self::Made {
        let key = Ring::generate_random_bytes(64).expect("there is randomness");
        let wrapped = ready(self.0.encrypt(&joined(context), &key));
        (key, wrapped.expect("the lengths are within the limits"))
    }

    fn unwrap(&self, context: &Map, (_, wrapped): &Self::Made) -> Option<SecretValue> {
        ready(self.0.decrypt(&joined(context), wrapped)).ok()
    }
}
