//! envelopers: its envelope cipher, which takes the job's key as a message; and its key provider alone, which makes a
//! key itself. Its master key has 128 bits, whatever the data cipher is.

use envelopers::{Aes256Gcm, DataKey, EncryptedRecord, EnvelopeCipher, Key, KeyProvider, SimpleKeyProvider};
use rand_core::RngCore;

use crate::peer::{Binding, Bytes, Facts, MASTER_KEY, Made, Map, Pairs, Peer, joined_text, map, ready};

const CHACHA20: &str = "user-space ChaCha20 behind a mutex, seeded once";

fn provider() -> SimpleKeyProvider<Aes256Gcm> {
    let [master_key, _] = *MASTER_KEY.as_chunks::<16>().0 else {
        unreachable!("32 bytes are twice 16")
    };
    SimpleKeyProvider::init(master_key)
}

pub struct Envelope(EnvelopeCipher<SimpleKeyProvider<Aes256Gcm>>);

impl Envelope {
    pub fn new() -> Self {
        Self(EnvelopeCipher::init(provider()))
    }
}

impl Peer for Envelope {
    const FACTS: Facts = Facts {
        name: "envelopers, EnvelopeCipher",
        package: ("envelopers", "0.8"),
        randomness: CHACHA20,
        nonce: "random 128-bit and random 96-bit",
        commitment: "none",
        binding: Binding::Bytes,
    };
    type Context = Map;
    type Made = ([u8; 64], Vec<u8>);
    type Unwrapped = Vec<u8>;

    fn context(pairs: Pairs) -> Map {
        map(pairs)
    }

    fn wrap(&self, context: &Map) -> Self::Made {
        let mut key = [0; 64];
        ready(self.0.rng.lock()).fill_bytes(&mut key);
        let record = ready(self.0.encrypt_with(&key).aad(&joined_text(context)).encrypt())
            .expect("the lengths are within the limits");
        (key, record.to_vec().expect("a record of bytes and text encodes"))
    }

    fn unwrap(&self, context: &Map, (_, wrapped): &Self::Made) -> Option<Vec<u8>> {
        let record = EncryptedRecord::try_from(wrapped.as_slice()).ok()?;
        ready(self.0.decrypt_with(&record).aad(&joined_text(context)).decrypt()).ok()
    }
}

pub struct Provider(SimpleKeyProvider<Aes256Gcm>);

impl Provider {
    pub fn new() -> Self {
        Self(provider())
    }
}

impl Made for DataKey<Aes256Gcm> {
    fn key(&self) -> &[u8] {
        &self.key
    }

    fn wrapped(&self) -> &[u8] {
        &self.encrypted_key
    }
}

impl Bytes for Key<Aes256Gcm> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl Peer for Provider {
    const FACTS: Facts = Facts {
        name: "envelopers, SimpleKeyProvider alone",
        nonce: "random 128-bit",
        ..Envelope::FACTS
    };
    type Context = Map;
    type Made = DataKey<Aes256Gcm>;
    type Unwrapped = Key<Aes256Gcm>;

    fn context(pairs: Pairs) -> Map {
        map(pairs)
    }

    fn wrap(&self, context: &Map) -> Self::Made {
        // The length of the key, which this provider ignores.
        ready(self.0.generate_data_key(64, Some(&joined_text(context)))).expect("the lengths are within the limits")
    }

    fn unwrap(&self, context: &Map, made: &Self::Made) -> Option<Self::Unwrapped> {
        ready(
            self.0
                .decrypt_data_key(&made.encrypted_key, Some(&joined_text(context))),
        )
        .ok()
    }
}
