//! kms-aead: envelope encryption of the key with a key provider in this process.
//!
//! Up to version 0.29 the crate has no such provider, so this module has one in place of a KMS. Version 0.30 has its
//! own.

use async_trait::async_trait;
use kms_aead::{
    CipherTextWithEncryptedKey, DataEncryptionKey, EncryptedDataEncryptionKey, KmsAeadEnvelopeEncryption,
    KmsAeadResult, KmsAeadRingEncryptionProvider, KmsAeadRingEnvelopeEncryption, errors::KmsAeadEncryptionError,
    ring_encryption::RingAeadEncryption,
};
use ring::rand::{SecureRandom, SystemRandom};
use secret_vault_value::SecretValue;

use crate::{
    by_hand::Ring,
    peer::{Binding, Bytes, Facts, Map, Pairs, Peer, joined, map, ready},
};

/// The key-encryption key of the process: AES-256-GCM, called as for the cloud providers, without associated data.
struct InProcess(Ring);

#[async_trait]
impl KmsAeadRingEncryptionProvider for InProcess {
    async fn encrypt_data_encryption_key(&self, key: &DataEncryptionKey) -> KmsAeadResult<EncryptedDataEncryptionKey> {
        Ok(EncryptedDataEncryptionKey::new(
            self.0.seal(key.0.as_sensitive_bytes(), &[]),
            None,
        ))
    }

    async fn decrypt_data_encryption_key(&self, key: &EncryptedDataEncryptionKey) -> KmsAeadResult<DataEncryptionKey> {
        let key = self.0.open(key.wrapped(), &[]);
        let key = key.ok_or_else(|| KmsAeadEncryptionError::create("DECRYPT", "not a key of this provider"))?;
        Ok(DataEncryptionKey(key.into()))
    }

    async fn generate_encryption_key(&self, aead: &RingAeadEncryption) -> KmsAeadResult<DataEncryptionKey> {
        aead.generate_data_encryption_key()
    }
}

pub struct Envelope {
    envelope: KmsAeadRingEnvelopeEncryption<InProcess>,
    random: SystemRandom,
}

impl Envelope {
    pub fn new() -> Self {
        let provider = InProcess(Ring::new());
        // ChaCha20-Poly1305 is the default of this version. Later versions and the other rows use AES-256-GCM.
        let envelope = KmsAeadRingEnvelopeEncryption::with_algorithm(provider, &ring::aead::AES_256_GCM);
        Self {
            envelope: ready(envelope).expect("the algorithm is supported"),
            random: SystemRandom::new(),
        }
    }
}

impl Bytes for CipherTextWithEncryptedKey {
    fn bytes(&self) -> &[u8] {
        self.value()
    }
}

impl Peer for Envelope {
    const FACTS: Facts = Facts {
        name: "kms-aead, ring, provider of the process",
        package: ("kms-aead", "0.29"),
        randomness: "OS call: key, inner key, each nonce",
        nonce: "random 96-bit, twice",
        commitment: "none",
        binding: Binding::Bytes,
    };
    type Context = Map;
    type Made = (SecretValue, CipherTextWithEncryptedKey);
    type Unwrapped = SecretValue;

    fn context(pairs: Pairs) -> Map {
        map(pairs)
    }

    fn wrap(&self, context: &Map) -> Self::Made {
        let mut key = SecretValue::new(vec![0; 64]);
        self.random
            .fill(key.ref_sensitive_value_mut())
            .expect("there is randomness");
        let wrapped = ready(self.envelope.encrypt_value(&joined(context), &key));
        (key, wrapped.expect("the lengths are within the limits"))
    }

    fn unwrap(&self, context: &Map, (_, wrapped): &Self::Made) -> Option<SecretValue> {
        ready(self.envelope.decrypt_value(&joined(context), wrapped)).ok()
    }
}
