//! The inputs of the operations that both benches measure, and the floor of each operation: the primitives that it
//! consists of, called one after another with the same sizes.

// Each bench uses only some of these items.
#![allow(dead_code)]

pub(crate) mod least;
pub(crate) mod processor;
/// The second implementation of docs/FORMAT.md, for the keys that the floors start from.
#[path = "../../tests/it/reference.rs"]
pub(crate) mod reference;
pub(crate) mod wire;

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use aes_gcm::{AeadInOut, AesGcm, KeyInit, aead::consts::U12, aes::Aes256Enc};
use dekseal::{CmkVersion, Dek, EncryptionContext, Engine, KeyId, MemoryKeyring};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

pub(crate) const KEY_ID: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";

pub(crate) fn key_id() -> KeyId {
    KEY_ID.parse().expect("a key ID")
}

pub(crate) fn cmk() -> CmkVersion {
    CmkVersion::new(key_id(), 0, &[7; 64]).expect("64 bytes")
}

pub(crate) fn engine() -> Engine<MemoryKeyring> {
    Engine::new(MemoryKeyring::from_versions([cmk()]).expect("one key"))
}

/// A typical context: two short pairs.
pub(crate) fn context() -> EncryptionContext {
    EncryptionContext::from_pairs([("tenant", "42"), ("purpose", "backup")]).expect("within the rules")
}

pub(crate) fn pairs(count: usize) -> Vec<(String, String)> {
    (0..count).map(|n| (format!("key {n}"), format!("value {n}"))).collect()
}

/// 8192 characters, the maximum, in 16 pairs of 512.
pub(crate) fn long_pairs() -> Vec<(String, String)> {
    (0..16).map(|n| (format!("k{n:02}"), "v".repeat(509))).collect()
}

pub(crate) fn long_context() -> EncryptionContext {
    EncryptionContext::from_pairs(long_pairs()).expect("within the rules")
}

pub(crate) fn dek() -> Dek {
    Dek::from_bytes(&core::array::from_fn(|at| at as u8))
}

/// Bytes from the operating system's generator.
pub(crate) fn os_randomness<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}

/// The primitives of seal, open and parse. They are keyed once, as in a CMK, and have the same features, so that their
/// states are wiped too.
pub(crate) struct Floor {
    pub(crate) keyed: Keyed,
    /// HKDF-Extract of a payload, keyed with its constant salt.
    extract: Hmac<Sha256>,
    dek: [u8; 64],
    /// A sealed DEK. Each primitive writes its result to its place in it.
    blob: [u8; 188],
}

pub(crate) struct Keyed {
    salt_mac: Hmac<Sha256>,
    wrap: Hkdf<Sha256>,
    context_sha256: [u8; 32],
    aad: Vec<u8>,
}

impl Floor {
    pub(crate) fn new(context: &EncryptionContext) -> Self {
        let blob = *cmk().seal(context, &dek()).as_bytes();
        let key = reference::Key::new(KEY_ID, 0, &[7; 64]).expect("64 bytes");
        let keyed = Keyed {
            salt_mac: <Hmac<Sha256> as KeyInit>::new_from_slice(&key.salt_key).expect("any length"),
            wrap: Hkdf::from_prk(&key.wrap_key).expect("32 bytes"),
            context_sha256: *context.sha256(),
            aad: [&blob[..4], &blob[116..156], context.canonical()].concat(),
        };
        let dek = *dek().expose_secret();
        let extract = <Hmac<Sha256> as KeyInit>::new_from_slice(b"dekseal/v2 payload").expect("any length");
        let mut floor = Self {
            keyed,
            extract,
            dek,
            blob,
        };
        floor.seal();
        assert_eq!(floor.blob, blob, "the primitives make another blob");
        floor
    }

    /// HMAC, HKDF-Expand, the GCM set-up, GCM of 64 bytes, SHA-256 of 156 bytes. Each needs the result of the one
    /// before.
    pub(crate) fn seal(&mut self) {
        let Self { keyed, dek, blob, .. } = self;
        let salt = keyed.hmac(black_box(dek));
        let gcm = Keyed::set_up(keyed.expand(&salt));
        blob[4..36].copy_from_slice(&salt);
        blob[36..100].copy_from_slice(dek);
        let tag = keyed.encrypt(&gcm, &array(&salt[..12]), &mut blob[36..100]);
        blob[100..116].copy_from_slice(&tag);
        let checksum = self.sha256_of_156_bytes();
        self.blob[156..].copy_from_slice(&checksum);
    }

    /// HKDF-Extract of the DEK, HKDF-Expand to 64 bytes, the GCM set-up, GCM of 64 bytes.
    pub(crate) fn payload(&self) -> Vec<u8> {
        let Self { extract, dek, blob, .. } = black_box(self);
        let mut prk = extract.clone();
        prk.update(dek);
        let (prk, mut okm) = (Hkdf::<Sha256>::from_prk(&prk.finalize().into_bytes()), [0; 64]);
        let expanded = prk.expect("32 bytes").expand(&blob[..44], &mut okm);
        expanded.expect("64 bytes");
        let gcm = Keyed::set_up(array(&okm[..32]));
        let mut payload = vec![0; 264 + 64 + 16];
        let made = gcm.encrypt_inout_detached(&[0; 12].into(), &[], (&mut payload[264..328]).into());
        payload[328..].copy_from_slice(&made.expect("short"));
        payload
    }

    /// HKDF-Expand, the GCM set-up, GCM of 64 bytes, HMAC.
    pub(crate) fn open(&self) {
        let Self { keyed, blob, .. } = black_box(self);
        let (salt, mut body) = (array(&blob[4..36]), array(&blob[36..100]));
        let gcm = Keyed::set_up(keyed.expand(&salt));
        let nonce = salt[..12].try_into().expect("12 bytes");
        let tag = blob[100..116].try_into().expect("16 bytes");
        let opened = gcm.decrypt_inout_detached(nonce, black_box(&keyed.aad), body.as_mut_slice().into(), tag);
        opened.expect("it was sealed here");
        black_box((body, keyed.hmac(&body)));
    }

    /// HKDF-Extract, HKDF-Expand twice, and setting up HMAC and HKDF with the results.
    pub(crate) fn cmk(material: &[u8]) {
        let (prk, _) = Hkdf::<Sha256>::extract(Some(b"dekseal/v2"), material);
        let derive = |label: &[u8]| {
            let mut key = [0; 32];
            let hkdf = Hkdf::<Sha256>::from_prk(&prk).expect("32 bytes");
            hkdf.expand_multi_info(&[label, &[1; 40]], &mut key).expect("32 bytes");
            key
        };
        let salt_mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&derive(b"dekseal/v2 salt"));
        let wrap = Hkdf::<Sha256>::from_prk(&derive(b"dekseal/v2 wrap"));
        black_box((salt_mac.expect("any length"), wrap.expect("32 bytes")));
    }

    pub(crate) fn sha256_of_156_bytes(&self) -> [u8; 32] {
        Sha256::digest(&black_box(&self.blob)[..156]).into()
    }
}

impl Keyed {
    pub(crate) fn hmac(&self, dek: &[u8; 64]) -> [u8; 32] {
        let mut mac = self.salt_mac.clone();
        mac.update(&self.context_sha256);
        mac.update(dek);
        mac.finalize().into_bytes().into()
    }

    pub(crate) fn expand(&self, salt: &[u8; 32]) -> [u8; 32] {
        let mut key = [0; 32];
        let expanded = self.wrap.expand_multi_info(&[b"dekseal/v2 key", salt], &mut key);
        expanded.expect("32 bytes");
        key
    }

    pub(crate) fn set_up(key: [u8; 32]) -> Gcm {
        AesGcm::new(&key.into())
    }

    pub(crate) fn encrypt(&self, gcm: &Gcm, nonce: &[u8; 12], body: &mut [u8]) -> [u8; 16] {
        let tag = gcm.encrypt_inout_detached(nonce.into(), black_box(&self.aad), body.into());
        tag.expect("short").into()
    }
}

type Gcm = AesGcm<Aes256Enc, U12>;

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("so many bytes")
}

/// A keyring of `count` keys, and their IDs in an order that a cache cannot predict: not the order in which the keys
/// were made and lie in memory.
pub(crate) fn keyring_of(count: u32) -> (MemoryKeyring, Vec<KeyId>) {
    // Odd and not a multiple of 5, so that it reaches every number below a power of ten once.
    const STEP: u32 = 61_803;
    let id = |n: u64| format!("{n:08}-e727-4d9c-b35d-{n:012}").parse().expect("a key ID");
    let cmks = (0..count).map(|n| CmkVersion::new(id(n.into()), 0, &[7; 32]).expect("32 bytes"));
    let keyring = MemoryKeyring::from_versions(cmks).expect("all differ");
    let numbers = (0..count).map(|n| u64::from(n) * u64::from(STEP) % u64::from(count));
    (keyring, numbers.map(id).collect())
}

/// A thread that repeats a function until this is dropped.
pub(crate) struct Busy {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Busy {
    pub(crate) fn new(mut work: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                work();
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the thread ends by itself");
        }
    }
}
