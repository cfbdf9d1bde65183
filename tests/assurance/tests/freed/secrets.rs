//! The secrets of the tests, which are registered when they are made.

use std::{convert::Infallible, sync::OnceLock};

use dekseal::{
    CmkVersion, KeyId,
    rand_core::{TryCryptoRng, TryRng},
};
use dekseal_assurance::{CANONICAL, derived, hmac_states, key_id, payload_key, random, random_bytes};
use dekseal_reference::{Key, payload_prk};

use crate::allocator::{apart, register};

/// The versions of `KEY_ID` and the DEKs that were made so far.
#[derive(Default)]
pub struct Secrets {
    versions: Vec<Key>,
    deks: Vec<&'static [u8; 64]>,
    drawn: u64,
}

/// The material with this number. It is secret, and so are all keys that a version derives from it.
pub fn material(number: u64) -> &'static [u8; 64] {
    apart(|| Box::leak(Box::new(random(100 + number))))
}

/// Plaintext in which every eight bytes are secret.
pub fn plaintext(length: usize) -> &'static [u8] {
    static PLAINTEXT: OnceLock<&[u8]> = OnceLock::new();
    let all = PLAINTEXT.get_or_init(|| {
        let pattern = random::<64>(99);
        let all = pattern.repeat(4096).leak();
        register("plaintext", &all[..64 + crate::allocator::WINDOW]);
        all
    });
    &all[..length]
}

fn register_key(name: &str, key: &[u8; 32]) {
    register(name, key);
    // A key of HMAC or HKDF is kept as the two states that it leads to.
    for state in hmac_states(key) {
        register(&format!("{name}, as a state of HMAC"), &state);
    }
}

impl Secrets {
    /// Registers a version of `KEY_ID`.
    pub fn version(&mut self, version: u32, material: &[u8]) {
        apart(|| {
            let derived = self.other_version(key_id(), version, material);
            if self.versions.iter().all(|known| known.salt_key != derived.salt_key) {
                for dek in &self.deks {
                    register("key of a blob", &derived.blob_key(&derived.salt(CANONICAL, dek)));
                }
                self.versions.push(derived);
            }
        });
    }

    /// Registers a version of another key.
    pub fn other_version(&self, key_id: KeyId, version: u32, material: &[u8]) -> Key {
        apart(|| {
            register(&format!("material {version} of {key_id}"), material);
            let derived = derived(&key_id, version, material);
            register_key("PRK", &derived.prk);
            register_key("salt_key", &derived.salt_key);
            register_key("wrap_key", &derived.wrap_key);
            register_key("mac_key", &derived.keyring_mac_key());
            derived
        })
    }

    /// Registers a version, and returns it as a CMK.
    pub fn cmk(&mut self, version: u32, material: &[u8]) -> CmkVersion {
        self.version(version, material);
        CmkVersion::new(key_id(), version, material).expect("a length that is allowed")
    }

    /// The DEK with this number.
    pub fn dek(&mut self, number: u64) -> &'static [u8; 64] {
        self.add(apart(|| Box::leak(Box::new(random(number)))))
    }

    pub fn last_dek(&self) -> &'static [u8; 64] {
        self.deks.last().expect("a DEK")
    }

    fn add(&mut self, dek: &'static [u8; 64]) -> &'static [u8; 64] {
        apart(|| {
            self.deks.push(dek);
            register("a DEK", dek);
            register_key("payload PRK", &payload_prk(dek));
            for version in &self.versions {
                register("key of a blob", &version.blob_key(&version.salt(CANONICAL, dek)));
            }
            dek
        })
    }

    /// A generator for DEKs, which take 64 bytes, and for payload salts, which take 32.
    pub fn rng(&mut self) -> impl TryCryptoRng {
        self.drawing(|secrets, bytes| {
            let (deks, rest) = bytes.as_chunks::<64>();
            for dek in deks {
                secrets.add(dek);
            }
            // Every payload here is under the DEK that was made last.
            if let Some(salt) = rest.first_chunk() {
                register("key of a payload", &payload_key(secrets.last_dek(), salt));
            }
        })
    }

    /// A generator for the material of a version.
    pub fn rng_for(&mut self, key_id: KeyId, version: u32) -> impl TryCryptoRng {
        self.drawing(move |secrets, material| {
            secrets.other_version(key_id, version, material);
        })
    }

    fn drawing<F: FnMut(&mut Self, &'static [u8]) + Send>(&mut self, drawn: F) -> Drawing<'_, F> {
        Drawing { secrets: self, drawn }
    }
}

/// A generator that runs on the same separate thread. The bytes that it returns are never freed.
struct Drawing<'a, F> {
    secrets: &'a mut Secrets,
    drawn: F,
}

impl<F: FnMut(&mut Secrets, &'static [u8]) + Send> TryRng for Drawing<'_, F> {
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
        let length = bytes.len();
        let drawn: &[u8] = apart(|| {
            self.secrets.drawn += 1;
            let drawn: &[u8] = random_bytes(1000 + self.secrets.drawn, length).leak();
            (self.drawn)(self.secrets, drawn);
            drawn
        });
        bytes.copy_from_slice(drawn);
        Ok(())
    }
}

impl<F: FnMut(&mut Secrets, &'static [u8]) + Send> TryCryptoRng for Drawing<'_, F> {}
