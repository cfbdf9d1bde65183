//! Generators that fail, repeat themselves, or return known bytes.

use dekseal::{
    Dek, EncryptionContext, Engine, Error, ErrorKind, KeyId, Keyset, MemoryKeyring, RandomnessFault,
    payload::{PayloadCipher, encrypted_len},
    rand_core::{TryCryptoRng, TryRng},
};

use crate::support::{
    Exhausted, Failing, Fixed, KEY_ID, NOW, OTHER_KEY_ID, Repeating, encrypt, key_id, one_key, time, words_from_bytes,
};

#[test]
fn a_failing_source_gives_an_error_and_no_blob() {
    let (engine, id, none) = (Engine::new(one_key()), key_id(KEY_ID), EncryptionContext::none());
    let failed = ErrorKind::Randomness(RandomnessFault::Failed);
    assert_eq!(Dek::generate_with_rng(&mut Failing).unwrap_err().kind(), failed);
    assert_eq!(
        engine.create_dek_with_rng(&id, &none, &mut Failing).unwrap_err().kind(),
        failed
    );
    let sealed = engine.create_dek_without_plaintext_with_rng(&id, &none, &mut Failing);
    assert_eq!(sealed.unwrap_err().kind(), failed);
    // 63 bytes do not suffice for a DEK.
    assert_eq!(Dek::generate_with_rng(&mut Fixed(&[1; 63])).unwrap_err().kind(), failed);
}

#[test]
fn a_stuck_source_gives_an_error() {
    let stuck = ErrorKind::Randomness(RandomnessFault::Stuck);
    let counting: Vec<u8> = (0..32).collect();
    // A repeated byte, a repeated word, and 32 repeated bytes: each has two equal halves.
    for period in [&[0; 1][..], &[0xff; 1], &[1, 2, 3, 4], &counting] {
        assert_eq!(
            Dek::generate_with_rng(&mut Repeating(period)).unwrap_err().kind(),
            stuck,
            "{period:?}"
        );
    }
    let engine = Engine::new(one_key());
    let created = engine.create_dek_with_rng(&key_id(KEY_ID), &EncryptionContext::none(), &mut Repeating(&[0]));
    assert_eq!(created.unwrap_err().kind(), stuck);
}

#[test]
fn halves_that_differ_in_one_bit_pass() {
    for bit in [0, 100, 255] {
        let mut bytes = [0x5a; 64];
        bytes[32 + bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            Dek::generate_with_rng(&mut Fixed(&bytes)).unwrap().expose_secret(),
            &bytes
        );
    }
}

/// The fault of one draw.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The generator writes half of the bytes and then reports an error.
    Fails,
    Zeros,
    /// Both halves of the last DEK or salt are equal.
    Halves,
}

/// A generator that never returns the same eight bytes twice, except in draw number `at`, counted from 0.
struct FaultAt {
    fault: Fault,
    at: usize,
    drawn: usize,
}

impl TryRng for FaultAt {
    type Error = Exhausted;

    words_from_bytes!();

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Exhausted> {
        let draw = self.drawn;
        self.drawn += 1;
        for (number, word) in (1_u64..).zip(bytes.chunks_mut(8)) {
            word.copy_from_slice(&(number + ((draw as u64) << 32)).to_le_bytes());
        }
        match self.fault {
            _ if draw != self.at => return Ok(()),
            Fault::Fails => return Failing.try_fill_bytes(bytes),
            Fault::Zeros => bytes.fill(0),
            Fault::Halves => {
                let half = bytes.len().min(Dek::LEN) / 2;
                let second = bytes.len() - half;
                bytes.copy_within(second - half..second, second);
            }
        }
        Ok(())
    }
}

impl TryCryptoRng for FaultAt {}

/// A function that draws, the number of its draws, and a call that checks that a failure leaves nothing half done.
type Entry = (&'static str, usize, fn(&mut FaultAt) -> Result<(), Error>);

fn engine() -> Engine<MemoryKeyring> {
    Engine::new(one_key())
}

fn payload_cipher() -> PayloadCipher {
    let (dek, none) = (Dek::from_bytes(&[0x5a; 64]), EncryptionContext::none());
    PayloadCipher::new(&dek, engine().encrypt_dek(&key_id(KEY_ID), &none, &dek).unwrap())
}

/// Changes keys. A failure must leave them unchanged.
fn change<T>(change: impl FnOnce(&mut Keyset) -> Result<T, Error>) -> Result<(), Error> {
    let mut keys = Keyset::clone(&one_key().keys());
    let before = keys.list();
    let changed = change(&mut keys);
    assert_eq!(changed.is_err(), keys.list() == before);
    changed.map(drop)
}

/// Encrypts into a buffer. A failure must leave it unchanged.
fn into_buffer(encrypt: impl FnOnce(&[u8], &mut [u8]) -> Result<(), Error>) -> Result<(), Error> {
    let plaintext = b"attack at dawn";
    let mut room = vec![0xa5; usize::try_from(encrypted_len(14).unwrap()).unwrap()];
    let made = encrypt(plaintext, &mut room);
    assert_eq!(made.is_err(), room.iter().all(|byte| *byte == 0xa5));
    made
}

const ENTRIES: &[Entry] = &[
    ("generate_with_rng", 1, |rng| Dek::generate_with_rng(rng).map(drop)),
    ("generate_with_rng", 1, |rng| KeyId::generate_with_rng(rng).map(drop)),
    ("create_key_with_rng", 1, |rng| {
        change(|keys| keys.create_key_with_rng(key_id(OTHER_KEY_ID), time(NOW), rng))
    }),
    ("rotate_with_rng", 1, |rng| {
        change(|keys| keys.rotate_with_rng(&key_id(KEY_ID), time(NOW), rng))
    }),
    ("create_dek_with_rng", 1, |rng| {
        let made = engine().create_dek_with_rng(&key_id(KEY_ID), &EncryptionContext::none(), rng);
        made.map(drop)
    }),
    ("create_dek_without_plaintext_with_rng", 1, |rng| {
        let made = engine().create_dek_without_plaintext_with_rng(&key_id(KEY_ID), &EncryptionContext::none(), rng);
        made.map(drop)
    }),
    // Three draws: 64 DEKs, 64 DEKs and 2 DEKs.
    ("create_deks_with_rng", 3, |rng| {
        let mut slots: Vec<_> = (0..130).map(|_| None).collect();
        let made = engine().create_deks_with_rng(&key_id(KEY_ID), &EncryptionContext::none(), &mut slots, rng);
        let filled = slots.iter().flatten().count();
        assert_eq!(filled, if made.is_ok() { 130 } else { 0 });
        made
    }),
    ("create_payload_cipher_with_rng", 1, |rng| {
        let made = engine().create_payload_cipher_with_rng(&key_id(KEY_ID), &EncryptionContext::none(), rng);
        made.map(drop)
    }),
    ("encrypt_with_rng", 1, |rng| {
        payload_cipher().encrypt_with_rng(b"x", rng).map(drop)
    }),
    ("encrypt_into_with_rng", 1, |rng| {
        into_buffer(|plaintext, room| payload_cipher().encrypt_into_with_rng(plaintext, room, rng))
    }),
    ("sealer_with_rng", 1, |rng| {
        payload_cipher().sealer_with_rng(rng).map(drop)
    }),
    #[cfg(feature = "std")]
    ("encrypt_writer_with_rng", 1, |rng| {
        let mut written = Vec::new();
        let made = payload_cipher().encrypt_writer_with_rng(&mut written, rng).map(drop);
        assert!(written.is_empty());
        made
    }),
];

#[test]
fn a_fault_in_any_draw_is_an_error_and_leaves_nothing_half_done() {
    for (name, draws, call) in ENTRIES {
        for (fault, expected) in [
            (Fault::Fails, RandomnessFault::Failed),
            (Fault::Zeros, RandomnessFault::Stuck),
            (Fault::Halves, RandomnessFault::Stuck),
        ] {
            for at in 0..*draws {
                let mut rng = FaultAt { fault, at, drawn: 0 };
                let kind = call(&mut rng).unwrap_err().kind();
                assert_eq!(kind, ErrorKind::Randomness(expected), "{name}: {fault:?} at {at}");
                assert_eq!(rng.drawn, at + 1, "{name} drew again");
            }
            // A fault in the next draw has no effect: there are no more draws.
            let mut rng = FaultAt {
                fault,
                at: *draws,
                drawn: 0,
            };
            call(&mut rng).unwrap();
            assert_eq!(rng.drawn, *draws, "{name}");
        }
    }
}

#[cfg(feature = "api")]
#[test]
fn a_fault_in_the_draw_of_a_request_is_an_internal_error() {
    use dekseal::api::{Request, handle_with_rng};
    let body = format!(r#"{{"key_id":"{KEY_ID}","datakey_length":"512"}}"#);
    for operation in ["create-datakey", "create-datakey-without-plaintext"] {
        let path = format!("/v1.0/p/kms/{operation}");
        for fault in [Fault::Fails, Fault::Zeros, Fault::Halves] {
            for (at, expected) in [(0, 500), (1, 200)] {
                let mut rng = FaultAt { fault, at, drawn: 0 };
                let handled = handle_with_rng(&engine(), "POST", &path, body.as_bytes(), &mut rng);
                let mut rng = FaultAt { fault, at, drawn: 0 };
                let parsed = Request::parse("POST", &path, body.as_bytes()).unwrap();
                let executed = parsed.execute_with_rng(&engine(), &mut rng);
                for response in [handled, executed] {
                    let code = (expected == 500).then_some("KMS.0101");
                    assert_eq!(
                        (response.status(), response.error_code()),
                        (expected, code),
                        "{fault:?}"
                    );
                }
            }
        }
    }
}

/// Three draws in one change. If any of them fails, none of the three keys exists.
#[cfg(feature = "file-keyring")]
#[test]
fn a_change_that_lacks_randomness_leaves_the_file_as_it_was() {
    let (_directory, path) = crate::keyring_file::directory();
    let keyring = dekseal::FileKeyring::create(&path, crate::keyring_file::root()).unwrap();
    keyring
        .update(|keys| keys.import_key(key_id(KEY_ID), &[7; 32]))
        .unwrap();
    let (written, list) = (std::fs::read(&path).unwrap(), keyring.keys().list());
    let change = |rng: &mut FaultAt| {
        keyring.update(|keys| {
            keys.rotate_with_rng(&key_id(KEY_ID), time(NOW), rng)?;
            keys.create_key_with_rng(key_id(OTHER_KEY_ID), time(NOW), rng)?;
            keys.rotate_with_rng(&key_id(OTHER_KEY_ID), time(NOW), rng)
        })
    };
    for fault in [Fault::Fails, Fault::Zeros, Fault::Halves] {
        for at in 0..3 {
            let refused = change(&mut FaultAt { fault, at, drawn: 0 }).unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::Randomness(_)), "{fault:?} at {at}");
            assert_eq!(std::fs::read(&path).unwrap(), written);
            assert_eq!((keyring.generation(), keyring.keys().list()), (2, list.clone()));
        }
    }
    let mut sound = FaultAt {
        fault: Fault::Fails,
        at: 3,
        drawn: 0,
    };
    assert_eq!(change(&mut sound).unwrap(), 1);
    assert_eq!(keyring.generation(), 3);
}

/// The tests above cover every function that draws.
#[cfg(feature = "file-keyring")]
#[test]
fn every_function_that_takes_a_source_is_tried() {
    let mut tried: Vec<&str> = ENTRIES.iter().map(|(name, ..)| *name).collect();
    tried.extend(["handle_with_rng", "execute_with_rng"]);
    tried.sort_unstable();
    let sources = crate::imports::sources();
    let mut there: Vec<&str> = Vec::new();
    for (_, text) in &sources {
        for after in text.split("pub fn ").skip(1) {
            let name = after.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
            there.extend(name.filter(|name| name.ends_with("_with_rng")));
        }
    }
    there.sort_unstable();
    assert_eq!(there, tried);
}

/// This fault cannot be detected. Equal DEKs have equal blobs in one context, and different nonces in others.
#[test]
fn a_repeated_dek_repeats_no_nonce() {
    let bytes: Vec<u8> = (0..64).collect();
    let (engine, id) = (engine(), key_id(KEY_ID));
    let create = |tenant: &str| {
        let context = EncryptionContext::from_pairs([("tenant", tenant)]).unwrap();
        let made = engine.create_dek_with_rng(&id, &context, &mut Repeating(&bytes));
        made.unwrap()
    };
    let ((dek, sealed), (again, sealed_again), (_, elsewhere)) = (create("42"), create("42"), create("43"));
    assert!(dek == again && sealed == sealed_again);
    // The salt. Its first 12 bytes are the nonce.
    assert_ne!(sealed.as_bytes()[4..16], elsewhere.as_bytes()[4..16]);

    let mut slots: Vec<_> = (0..70).map(|_| None).collect();
    let context = EncryptionContext::from_pairs([("tenant", "42")]).unwrap();
    engine
        .create_deks_with_rng(&id, &context, &mut slots, &mut Repeating(&bytes))
        .unwrap();
    assert!(slots.iter().flatten().all(|made| made.0 == dek && made.1 == sealed));
}

/// `PayloadCipher::encrypt_with_rng` warns of this. If this test fails, the warning can be removed.
#[test]
fn a_repeated_payload_salt_reveals_both_plaintexts() {
    let bytes: Vec<u8> = (0..96).collect();
    let segment = |plaintext| {
        let (id, none) = (key_id(KEY_ID), EncryptionContext::none());
        let made = encrypt(&engine(), &id, &none, plaintext, &mut Fixed(&bytes));
        made.unwrap().split_off(264)
    };
    let (first, second) = (segment(b"attack at dawn"), segment(b"retreat at ten"));
    for (at, (a, b)) in b"attack at dawn".iter().zip(b"retreat at ten").enumerate() {
        assert_eq!(first[at] ^ second[at], a ^ b);
    }
}
