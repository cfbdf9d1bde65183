//! Tests that no freed memory contains a secret.
//!
//! An allocator searches each block that is freed or grows for any eight bytes of any secret, raw or as hex digits:
//! DEKs, material, all keys that are derived from them, the states of HMAC that represent a key, and plaintext. It does
//! not see the stack, or memory that is never freed.
//!
//! The host must wipe its own copies. Here they are leaked, so that they are never freed.

mod allocator;
mod secrets;

use std::{
    io::{self, BufRead, Cursor, Read, Seek, SeekFrom, Write},
    mem::ManuallyDrop,
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use dekseal::{
    CmkVersion, Dek, EncryptionContext, Engine, Error, ErrorKind, FileFault, FileKeyring, Keyring, Keyset,
    MemoryKeyring, SealedDek, UnixTime, api,
    payload::{PayloadCipher, PayloadHeader, PayloadWriter, SEALED_SEGMENT_LEN, SEGMENT_LEN},
    rand_core::{TryCryptoRng, TryRng},
};
use dekseal_assurance::{CONTEXT, KEY_ID, ROOT_ID, derived, forge, hex, key_id, random};
use dekseal_reference::{KeyringFile, canonical};
use serde_json::Value;

use self::{
    allocator::{Examined, Found, apart, examined, left_on_stack, registered},
    secrets::{Secrets, material, plaintext},
};

#[global_allocator]
static ALLOCATOR: allocator::Examining = allocator::Examining;

/// The expected result of a row.
enum Expected {
    /// No secret is found.
    Nothing,
    /// A secret is found, and each block was freed by one of these functions. Such rows show that the search works.
    Found(&'static [&'static str]),
}

#[derive(Default)]
struct Outcome {
    failed: bool,
}

impl Outcome {
    fn row(&mut self, name: &str, expected: Expected, f: impl FnOnce()) {
        let Examined { blocks, bytes, found } = examined(f);
        let by = |who: &[&str]| {
            found
                .iter()
                .all(|found| who.iter().any(|who| found.trace.contains(who)))
        };
        let (as_expected, note) = match expected {
            _ if found.is_empty() => (!matches!(expected, Expected::Found(_)), ""),
            Expected::Nothing => (false, " (LEAK)"),
            Expected::Found(who) => (by(who), " (as it must be)"),
        };
        self.failed |= !as_expected;
        println!(
            "{name:<44} {blocks:>6} blocks {bytes:>8} bytes {:>2} found{note}",
            found.len()
        );
        for found in &found {
            let form = if found.as_hex { "hex of " } else { "" };
            let Found {
                secret, windows, block, ..
            } = found;
            if !as_expected {
                println!("    {windows} windows of {form}{secret} in a block of {block} bytes");
                println!("{}", found.trace);
            }
        }
    }

    /// Runs `f` and counts the windows that it leaves on the stack. For secrets whose names begin with a name in
    /// `wiped`, the count may not exceed the given number.
    fn left(&mut self, name: &str, wiped: &[(&str, usize)], f: impl FnOnce() + Send) {
        let [left, after_wipe] = left_on_stack(f);
        if !after_wipe.is_empty() {
            self.failed = true;
            println!("    {name}: wipe_stack leaves {after_wipe:?}");
        }
        let as_expected = wiped.iter().all(|(wiped, most)| {
            // A state of HMAC counts only under its full name: those of the derived keys are moved with their key.
            let found = left.iter().filter(|(secret, _)| {
                secret == wiped || (secret.starts_with(wiped) && !secret.contains("state of HMAC"))
            });
            found.map(|(_, windows)| windows).sum::<usize>() <= *most
        });
        self.failed |= !as_expected;
        let found: Vec<_> = left
            .iter()
            .map(|(secret, windows)| format!("{secret} {windows}"))
            .collect();
        println!(
            "    {name:<36} {}{}",
            if found.is_empty() {
                "nothing".to_owned()
            } else {
                found.join(", ")
            },
            if as_expected { "" } else { " (NOT WIPED)" }
        );
    }

    fn nothing(&mut self, name: &str, f: impl FnOnce()) {
        self.row(name, Expected::Nothing, f);
    }
}

fn context() -> EncryptionContext {
    EncryptionContext::from_pairs(CONTEXT).expect("allowed")
}

fn kind<T>(result: &Result<T, Error>) -> Option<ErrorKind> {
    result.as_ref().err().map(Error::kind)
}

fn assert_refused<T>(result: &Result<T, Error>) {
    assert_eq!(kind(result), Some(ErrorKind::AuthenticationFailed));
}

fn main() -> ExitCode {
    let mut outcome = Outcome::default();
    let mut secrets = Secrets::default();
    finds(&mut outcome, &mut secrets);
    values(&mut outcome, &mut secrets);
    deks(&mut outcome, &mut secrets);
    memory_keyring(&mut outcome, &mut secrets);
    file_keyring(&mut outcome, &mut secrets);
    wire(&mut outcome, &mut secrets);
    payloads(&mut outcome, &mut secrets);
    streams(&mut outcome, &mut secrets);
    let (count, windows) = registered();
    println!("searched for {count} secrets, {windows} windows of 8 bytes");
    stack(&mut outcome, &mut secrets);
    if outcome.failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Leaks are found.
fn finds(outcome: &mut Outcome, secrets: &mut Secrets) {
    let me = || Expected::Found(&["freed::finds"]);
    let dek = secrets.dek(1);
    outcome.row("a leak: a DEK in a Vec", me(), || {
        drop(std::hint::black_box(dek.to_vec()))
    });
    outcome.row("a leak: hex of a DEK in a String", me(), || {
        drop(std::hint::black_box(hex(dek).to_lowercase()));
    });
    outcome.row("a leak: a DEK in a Vec that grows", me(), || {
        let mut bytes = std::hint::black_box(dek.to_vec());
        bytes.reserve_exact(1000);
        bytes.fill(0);
        drop(std::hint::black_box(bytes));
    });
    outcome.row("a leak: a Dek that is not dropped", me(), || {
        drop(std::hint::black_box(Box::new(ManuallyDrop::new(Dek::from_bytes(dek)))));
    });
    let mut cmk = || secrets.cmk(0, material(1));
    outcome.row("a leak: a CmkVersion that is not dropped", me(), || {
        drop(std::hint::black_box(Box::new(ManuallyDrop::new(cmk()))));
    });
    // Moving values out of a `Vec` leaves copies in its block.
    outcome.row("a leak: a host's Vec of a CmkVersion, given away", me(), || {
        let cmks = std::hint::black_box(vec![cmk()]);
        drop(MemoryKeyring::from_versions(cmks).expect("one"));
    });
    // With AES instructions, the first two round keys are the key itself.
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("aes") {
        let engine = Engine::new(MemoryKeyring::from_versions([cmk()]).expect("one"));
        let made = engine.create_payload_cipher_with_rng(&key_id(), &context(), &mut secrets.rng());
        let payload_cipher = made.expect("a key of the keyring");
        outcome.row("a leak: a PayloadCipher that is not dropped", me(), || {
            let copy = PayloadCipher::new(&Dek::from_bytes(secrets.last_dek()), *payload_cipher.sealed_dek());
            drop(std::hint::black_box(Box::new(ManuallyDrop::new(copy))));
        });
        outcome.row("a leak: a SegmentSealer that is not dropped", me(), || {
            let (_, sealer) = payload_cipher.sealer_with_rng(&mut secrets.rng()).expect("a salt");
            drop(std::hint::black_box(Box::new(ManuallyDrop::new(sealer))));
        });
    }
}

/// Values in separate blocks.
fn values(outcome: &mut Outcome, secrets: &mut Secrets) {
    let dek = secrets.dek(2);
    outcome.nothing("Dek in a Box", || {
        drop(std::hint::black_box(Box::new(Dek::from_bytes(dek))));
    });
    outcome.nothing("CmkVersion in a Box, in an Arc", || {
        drop(std::hint::black_box(Box::new(secrets.cmk(0, material(1)))));
        drop(std::hint::black_box(Arc::new(secrets.cmk(1, &material(2)[..32]))));
    });
    outcome.nothing("CmkVersion of wrong material", || {
        assert_eq!(
            kind(&CmkVersion::new(key_id(), 0, &material(1)[..31])),
            Some(ErrorKind::InvalidMaterial)
        );
    });
    let sealed = secrets.cmk(0, material(1)).seal(&context(), &Dek::from_bytes(dek));
    outcome.nothing("PayloadCipher, sealer, opener in a Box", || {
        let payload_cipher = Box::new(PayloadCipher::new(&Dek::from_bytes(dek), sealed));
        let (header, sealer) = payload_cipher.sealer_with_rng(&mut secrets.rng()).expect("a salt");
        drop(std::hint::black_box(Box::new(sealer)));
        drop(std::hint::black_box(Box::new(
            payload_cipher.opener(&header).expect("its own"),
        )));
        drop(std::hint::black_box(payload_cipher));
    });
}

/// Behaves as `R` until it has returned this many bytes.
struct FailsAfter<R>(R, usize);

impl<R: TryCryptoRng> TryRng for FailsAfter<R> {
    type Error = io::Error;

    fn try_next_u32(&mut self) -> io::Result<u32> {
        Err(io::ErrorKind::Other.into())
    }

    fn try_next_u64(&mut self) -> io::Result<u64> {
        Err(io::ErrorKind::Other.into())
    }

    /// Writes all bytes even if it fails.
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.0.try_fill_bytes(bytes).map_err(|_| io::ErrorKind::Other)?;
        self.1 = self.1.checked_sub(bytes.len()).ok_or(io::ErrorKind::Other)?;
        Ok(())
    }
}

impl<R: TryCryptoRng> TryCryptoRng for FailsAfter<R> {}

fn deks(outcome: &mut Outcome, secrets: &mut Secrets) {
    let (key_id, context) = (key_id(), context());
    let engine = Engine::new(MemoryKeyring::from_versions([secrets.cmk(0, material(1))]).expect("one"));
    let mut sealed = Vec::new();
    outcome.nothing("create_dek, and without plaintext", || {
        let made = Box::new(engine.create_dek_with_rng(&key_id, &context, &mut secrets.rng()));
        sealed.push(made.as_ref().as_ref().expect("made").1);
        drop(made);
        let made = engine.create_dek_without_plaintext_with_rng(&key_id, &context, &mut secrets.rng());
        sealed.push(made.expect("made"));
    });
    outcome.nothing("create_dek, the generator fails", || {
        let mut rng = FailsAfter(secrets.rng(), 0);
        drop(Box::new(engine.create_dek_with_rng(&key_id, &context, &mut rng)));
        drop(Box::new(Dek::generate_with_rng(&mut rng)));
    });
    outcome.nothing("create_deks of 100", || {
        let mut slots = Vec::from_iter((0..100).map(|_| None));
        let made = engine.create_deks_with_rng(&key_id, &context, &mut slots, &mut secrets.rng());
        made.expect("made");
        sealed.extend(slots.iter().flatten().map(|(_, sealed)| *sealed));
    });
    outcome.nothing("create_deks of 100, the generator fails", || {
        let mut slots = Vec::from_iter((0..100).map(|_| None));
        let mut rng = FailsAfter(secrets.rng(), 64 * 64);
        let made = engine.create_deks_with_rng(&key_id, &context, &mut slots, &mut rng);
        assert!(matches!(kind(&made), Some(ErrorKind::Randomness(_))));
    });
    let dek = secrets.dek(3);
    outcome.nothing("encrypt_dek and decrypt_dek", || {
        let made = engine
            .encrypt_dek(&key_id, &context, &Dek::from_bytes(dek))
            .expect("sealed");
        let opened = Box::new(engine.decrypt_dek(&key_id, &context, &made));
        assert_eq!(opened.as_ref().as_ref().expect("opened").expose_secret(), dek);
    });
    outcome.nothing("decrypt_dek of 102", || {
        for sealed in &sealed {
            drop(Box::new(engine.decrypt_dek(&key_id, &context, sealed).expect("opened")));
        }
    });
    outcome.nothing("decrypt_dek in another context", || {
        for sealed in &sealed {
            let opened = Box::new(engine.decrypt_dek(&key_id, &EncryptionContext::none(), sealed));
            assert_refused(&opened);
        }
    });
    let forged = apart(|| forge(&derived(&key_id, 0, material(1)), dek, &random(4)));
    outcome.nothing("decrypt_dek of a forged salt", || {
        // `dek` is already decrypted in its place when the salt is compared.
        let opened = Box::new(engine.decrypt_dek(&key_id, &context, &forged));
        assert_refused(&opened);
        assert_refused(&Box::new(secrets.cmk(0, material(1)).open(&context, &forged)));
    });
    secrets.version(1, material(2));
    outcome.nothing("rewrap_deks and rewrap_dek_to", || {
        let rotated = engine
            .keyring()
            .update(|keys| keys.import_version(&key_id, material(2)));
        assert_eq!(rotated.expect("rotated"), 1);
        let blobs = sealed.iter().map(|sealed| (&context, sealed));
        let renewed: Vec<SealedDek> = engine
            .rewrap_deks(&key_id, blobs)
            .map(|renewed| *renewed.expect("renewed").sealed())
            .collect();
        let none = EncryptionContext::none();
        let moved = engine.rewrap_dek_to((&key_id, &context), &renewed[0], (&key_id, &none));
        moved.expect("moved");
    });
    outcome.nothing("drop of an Engine", || drop(engine));
}

fn now() -> UnixTime {
    UnixTime::from_secs(1_800_000_000).expect("a time")
}

/// All operations that change keys.
fn change(keys: &mut Keyset, secrets: &mut Secrets) -> Result<(), Error> {
    let key_id = key_id();
    let others = [
        "11111111-1111-1111-1111-111111111111",
        "22222222-2222-2222-2222-222222222222",
    ];
    let [created, imported] = others.map(|id| id.parse().expect("a key ID"));
    secrets.other_version(imported, 0, material(3));
    secrets.other_version(imported, 0, material(4));
    keys.import_key(key_id, material(1))?;
    keys.import_version(&key_id, &material(2)[..48])?;
    keys.create_key_with_rng(created, now(), &mut secrets.rng_for(created, 0))?;
    for version in 1..4 {
        assert_eq!(
            keys.rotate_with_rng(&created, now(), &mut secrets.rng_for(created, version))?,
            version
        );
    }
    keys.import_key(imported, material(3))?;
    assert_eq!(
        kind(&keys.import_key(imported, material(4))),
        Some(ErrorKind::KeyExists)
    );
    keys.set_min_version(&created, 2)?;
    keys.force_destroy_versions(&created, 1)?;
    keys.disable(&imported)?;
    keys.enable(&imported)?;
    keys.schedule_deletion_at(&imported, 7, now())?;
    keys.cancel_deletion(&imported)?;
    let at = keys.schedule_deletion_at(&imported, 7, now())?;
    keys.purge_at(&imported, at)
}

fn memory_keyring(outcome: &mut Outcome, secrets: &mut Secrets) {
    secrets.version(1, &material(2)[..48]);
    secrets.version(2, material(4));
    let keyring = MemoryKeyring::new(Keyset::new());
    outcome.nothing("MemoryKeyring: every change of keys", || {
        keyring.update(|keys| change(keys, secrets)).expect("changed");
    });
    outcome.nothing("MemoryKeyring: a change that is given up", || {
        let given_up = keyring.update(|keys| {
            keys.import_version(&key_id(), material(4))?;
            keys.rotate_with_rng(&key_id(), now(), &mut secrets.rng_for(key_id(), 3))?;
            Err::<(), _>(ErrorKind::Keyring.into())
        });
        assert!(given_up.is_err());
    });
    let keys = keyring.keys();
    outcome.nothing("MemoryKeyring: a state that is still held", || {
        let changed = keyring.update(|keys| keys.import_version(&key_id(), material(4)));
        changed.expect("changed");
        drop(keys);
    });
    outcome.nothing("MemoryKeyring: drop", || drop(keyring));
    outcome.nothing("MemoryKeyring: a version twice", || {
        let cmks = [(); 2].map(|()| secrets.cmk(0, material(1)));
        assert_eq!(
            kind(&MemoryKeyring::from_versions(cmks)),
            Some(ErrorKind::DuplicateKeyVersion)
        );
    });
}

fn file_keyring(outcome: &mut Outcome, secrets: &mut Secrets) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("keyring.json");
    let root_id = ROOT_ID.parse().expect("a key ID");
    secrets.other_version(root_id, 0, material(5));
    secrets.other_version(root_id, 1, material(6));
    let root = |version, material| CmkVersion::new(root_id, version, material).expect("32 bytes");
    outcome.nothing("FileKeyring: create, and every change", || {
        let keyring = FileKeyring::create(&path, root(0, material(5))).expect("made");
        keyring.update(|keys| change(keys, secrets)).expect("changed");
    });
    outcome.nothing("FileKeyring: open, use, refresh, rotate", || {
        let engine = Engine::new(FileKeyring::open(&path, root(0, material(5))).expect("opened"));
        let other = FileKeyring::open(&path, root(0, material(5))).expect("opened");
        let (key_id, context) = (key_id(), context());
        let made = engine.create_dek_with_rng(&key_id, &context, &mut secrets.rng());
        let (dek, sealed) = made.expect("made");
        let rotated = other.update(|keys| keys.rotate_with_rng(&key_id, now(), &mut secrets.rng_for(key_id, 2)));
        assert_eq!(rotated.expect("rotated"), 2);
        assert!(engine.keyring().refresh().expect("read"));
        assert!(engine.decrypt_dek(&key_id, &context, &sealed).expect("opened") == dek);
        let given_up = other.update(|keys| {
            keys.import_version(&key_id, material(4))?;
            Err::<(), _>(ErrorKind::Keyring.into())
        });
        assert!(given_up.is_err());
    });
    outcome.nothing("FileKeyring: another root", || {
        assert!(matches!(
            kind(&FileKeyring::open(&path, root(1, material(6)))),
            Some(ErrorKind::File(_))
        ));
        let keyring = FileKeyring::open(&path, root(0, material(5))).expect("opened");
        keyring.change_root(root(1, material(6))).expect("sealed anew");
        keyring.with_current(&key_id(), |_| ()).expect("a key");
    });
    outcome.nothing("FileKeyring: a file that was changed", || {
        let text = std::fs::read_to_string(&path).expect("a file");
        std::fs::write(&path, text.replacen("\"enabled\"", "\"disabled\"", 1)).expect("written");
        assert!(FileKeyring::open(&path, root(1, material(6))).is_err());
    });
}

/// Copies a keyring file, with these 64 bytes as the padded material of the first version. Only the rule about padding
/// is broken, because the length that is said is 32.
fn with_wrong_padding(from: &Path, to: &Path, padded: &[u8; 64]) {
    let root = derived(&ROOT_ID.parse().expect("a key ID"), 0, material(5));
    let mut document: Value = serde_json::from_slice(&std::fs::read(from).expect("a file")).expect("JSON");
    let key = &mut document["keys"][0];
    let context = canonical([
        ("purpose", "dekseal keyring"),
        ("key_id", key["key_id"].as_str().expect("text")),
        ("key_version", &key["versions"][0]["version"].to_string()),
        ("material_length", "32"),
    ]);
    let sealed = root.seal(&context.expect("allowed"), padded);
    key["versions"][0]["material_length"] = 32.into();
    key["versions"][0]["sealed"] = hex(&sealed).into();
    let message = KeyringFile::parse(&document).expect("a keyring").message();
    document["mac"] = hex(&root.keyring_mac(&message)).into();
    std::fs::write(to, document.to_string()).expect("written");
}

/// The text of a request's body, and everything that it is made from, belongs to the host.
fn body(text: impl FnOnce() -> String + Send) -> &'static [u8] {
    apart(|| text().into_bytes().leak())
}

/// Handles a request and returns the status.
fn handle(engine: &Engine<MemoryKeyring>, secrets: &mut Secrets, operation: &str, body: &[u8]) -> u16 {
    let path = format!("/v1.0/project/kms/{operation}");
    let response = Box::new(api::handle_with_rng(engine, "POST", &path, body, &mut secrets.rng()));
    std::hint::black_box(&response).status()
}

fn wire(outcome: &mut Outcome, secrets: &mut Secrets) {
    use sha2::{Digest, Sha256};
    let engine = Engine::new(MemoryKeyring::from_versions([secrets.cmk(0, material(1))]).expect("one"));
    let tenant = r#""encryption_context":{"tenant":"42"}"#;
    let dek = secrets.dek(6);
    let sealed = secrets.cmk(0, material(1)).seal(&context(), &Dek::from_bytes(dek));
    let forged = apart(|| forge(&derived(&key_id(), 0, material(1)), dek, &random(4)));
    let plain: &str = apart(|| (hex(dek) + &hex(&Sha256::digest(dek))).leak());
    let create = body(|| format!(r#"{{"key_id":"{KEY_ID}",{tenant},"datakey_length":"512"}}"#));
    let encrypt = |plain: &str| {
        body(|| format!(r#"{{"key_id":"{KEY_ID}",{tenant},"plain_text":"{plain}","datakey_plain_length":"64"}}"#))
    };
    let decrypt = |sealed: &SealedDek| {
        let cipher = hex(sealed.as_bytes());
        body(|| format!(r#"{{"key_id":"{KEY_ID}",{tenant},"cipher_text":"{cipher}","datakey_cipher_length":"64"}}"#))
    };
    outcome.nothing("wire: the four operations", || {
        let bodies = [
            ("create-datakey", create),
            ("create-datakey-without-plaintext", create),
            ("encrypt-datakey", encrypt(plain)),
            ("encrypt-datakey", encrypt(apart(|| plain.to_lowercase().leak()))),
            ("decrypt-datakey", decrypt(&sealed)),
        ];
        for (operation, body) in bodies {
            assert_eq!(handle(&engine, secrets, operation, body), 200);
        }
    });
    outcome.nothing("wire: a parsed request", || {
        let path = "/v1.0/project/kms/encrypt-datakey";
        let request = Box::new(api::Request::parse("POST", path, encrypt(plain)));
        drop(std::hint::black_box(request));
    });
    outcome.nothing("wire: refusals", || {
        let digest = plain.len() - 1;
        let bodies = [
            // Another context; a forged salt; a DEK that does not match its digest; a missing digit; the DEK in another
            // field, in an array, twice, and before invalid JSON.
            ("decrypt-datakey", decrypt(&sealed), "42", "43"),
            ("decrypt-datakey", decrypt(&forged), "", ""),
            ("encrypt-datakey", encrypt(plain), &plain[digest..], "g"),
            ("encrypt-datakey", encrypt(&plain[..digest]), "", ""),
            ("encrypt-datakey", encrypt(plain), "plain_text", "sequence"),
            ("encrypt-datakey", encrypt(plain), "plain_text", "encryption_context"),
            (
                "encrypt-datakey",
                encrypt(plain),
                "\"plain_text\":",
                "\"plain_text\":[],\"plain_text\":",
            ),
            ("encrypt-datakey", encrypt(plain), "}", ""),
        ];
        for (operation, text, from, to) in bodies {
            let text = str::from_utf8(text).expect("text");
            let changed = body(|| match from {
                "" => text.to_owned(),
                from => replace_last(text, from, to),
            });
            assert_ne!(handle(&engine, secrets, operation, changed), 200, "{text}");
        }
    });
    // A known leak: serde_json unescapes strings in a buffer of its own, which nothing wipes.
    let escaped = encrypt(apart(|| plain.replace('A', "\\u0041").leak()));
    outcome.row(
        "wire: escapes in plain_text",
        Expected::Found(&["serde_json::de::from_slice"]),
        || assert_eq!(handle(&engine, secrets, "encrypt-datakey", escaped), 200),
    );
}

fn replace_last(text: &str, from: &str, to: &str) -> String {
    let at = text.rfind(from).expect("in the text");
    [&text[..at], to, &text[at + from.len()..]].concat()
}

/// Encrypts a payload under a new DEK.
fn encrypt(engine: &Engine<MemoryKeyring>, plaintext: &[u8], secrets: &mut Secrets) -> Result<Vec<u8>, Error> {
    let payload_cipher = engine.create_payload_cipher_with_rng(&key_id(), &context(), &mut secrets.rng())?;
    payload_cipher.encrypt_with_rng(plaintext, &mut secrets.rng())
}

fn encrypt_writer<W: Write>(
    engine: &Engine<MemoryKeyring>,
    inner: W,
    secrets: &mut Secrets,
) -> Result<PayloadWriter<W>, Error> {
    let payload_cipher = engine.create_payload_cipher_with_rng(&key_id(), &context(), &mut secrets.rng())?;
    payload_cipher.encrypt_writer_with_rng(inner, &mut secrets.rng())
}

fn payloads(outcome: &mut Outcome, secrets: &mut Secrets) {
    let (key_id, context) = (key_id(), context());
    secrets.version(1, material(2));
    let cmks = [secrets.cmk(0, material(1)), secrets.cmk(1, material(2))];
    let engine = Engine::new(MemoryKeyring::from_versions(cmks).expect("two"));
    let plaintext = plaintext(200_000);
    let mut payload = Vec::new();
    outcome.nothing("payload: encrypt and decrypt", || {
        let made = encrypt(&engine, plaintext, secrets);
        payload = made.expect("made");
        let opened = engine.decrypt(&key_id, &context, &payload).expect("opened");
        assert_eq!(*opened, plaintext);
    });
    outcome.nothing("payload: decrypt what was changed", || {
        let mut changed = payload.clone();
        // The third of four segments: two were decrypted before it.
        changed[264 + 2 * SEALED_SEGMENT_LEN] ^= 1;
        assert_refused(&engine.decrypt(&key_id, &context, &changed));
        let mut opened = vec![0; plaintext.len()];
        let header = PayloadHeader::from_bytes(changed.first_chunk().expect("a header")).expect("a header");
        let payload_cipher = engine.open_payload_cipher(&key_id, &context, header.sealed_dek());
        assert_refused(&payload_cipher.expect("opened").decrypt_into(&changed, &mut opened));
        // The commitment; the sealed DEK in another context.
        changed[240] ^= 1;
        assert_refused(&engine.decrypt(&key_id, &context, &changed));
        assert_refused(&engine.decrypt(&key_id, &EncryptionContext::none(), &payload));
    });
    outcome.nothing("payload: a PayloadCipher", || {
        let made = engine.create_payload_cipher_with_rng(&key_id, &context, &mut secrets.rng());
        let payload_cipher = Box::new(made.expect("made"));
        for length in [0, 1, 100, SEGMENT_LEN, plaintext.len()] {
            let made = payload_cipher.encrypt_with_rng(&plaintext[..length], &mut secrets.rng());
            assert_eq!(
                *payload_cipher.decrypt(&made.expect("made")).expect("opened"),
                plaintext[..length]
            );
        }
        assert_refused(&payload_cipher.decrypt(&payload));
    });
    outcome.nothing("payload: rewrap", || {
        engine
            .rewrap(&key_id, &context, &key_id, &mut payload)
            .expect("sealed anew");
        let path = std::env::temp_dir().join(format!("dekseal-freed-{}", std::process::id()));
        std::fs::write(&path, &payload).expect("written");
        let rewrapped = engine.rewrap_file(&key_id, &context, &key_id, &path);
        std::fs::remove_file(&path).expect("removed");
        rewrapped.expect("sealed anew");
    });
}

/// Accepts this many bytes and no more.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn streams(outcome: &mut Outcome, secrets: &mut Secrets) {
    let (key_id, context) = (key_id(), context());
    let engine = Engine::new(MemoryKeyring::from_versions([secrets.cmk(0, material(1))]).expect("one"));
    let plaintext = plaintext(200_000);
    // A buffer of the host's, which is leaked: the plaintext is read into it.
    let room: &mut [u8] = vec![0; plaintext.len() + 1].leak();
    let mut payload = Vec::new();
    outcome.nothing("payload: writer, in pieces", || {
        for piece in [1, 1000, SEGMENT_LEN, 100_000] {
            payload.clear();
            let made = encrypt_writer(&engine, &mut payload, secrets);
            let mut writer = made.expect("made");
            for piece in plaintext[..plaintext.len() / if piece == 1 { 10 } else { 1 }].chunks(piece) {
                writer.write_all(piece).expect("written");
            }
            writer.finish().expect("written");
        }
    });
    // `finish` takes the writer by value, and moving it out of a `Box` leaves a copy in its block.
    outcome.row(
        "a leak: a host's Box of a writer, finished",
        Expected::Found(&["freed::streams"]),
        || {
            let made = encrypt_writer(&engine, io::sink(), secrets);
            let writer = std::hint::black_box(Box::new(made.expect("made")));
            writer.finish().expect("written");
        },
    );
    outcome.nothing("payload: writer, not finished, or failed", || {
        let made = encrypt_writer(&engine, Vec::new(), secrets);
        let mut writer = Box::new(made.expect("made"));
        writer.write_all(&plaintext[..100_000]).expect("written");
        drop(writer);
        for (room, length) in [(70_000, 200_000), (300, 100), (100, 100)] {
            let made = encrypt_writer(&engine, Full(room), secrets);
            let mut writer = made.expect("made");
            let written = writer.write_all(&plaintext[..length]);
            assert!(written.is_err() || writer.finish().is_err());
        }
    });
    outcome.nothing("payload: reader", || {
        let mut reader = Box::new(engine.decrypt_reader(&key_id, &context, &payload[..]).expect("opened"));
        reader.read_exact(&mut room[..10]).expect("read");
        let count = reader.fill_buf().expect("read").len();
        reader.consume(count);
        // Half of the plaintext is still in the reader when it is dropped.
        drop(reader);
        let mut reader = engine.decrypt_reader(&key_id, &context, &payload[..]).expect("opened");
        reader.read_exact(&mut room[..plaintext.len()]).expect("read");
        assert_eq!(reader.read(room).expect("the end"), 0);
        let mut reader = engine.decrypt_reader(&key_id, &context, &payload[..]).expect("opened");
        io::copy(&mut reader, &mut io::sink()).expect("read");
    });
    outcome.nothing("payload: reader of what was changed", || {
        let mut changed = payload.clone();
        changed[264 + SEALED_SEGMENT_LEN] ^= 1;
        for changed in [&changed[..], &payload[..payload.len() - 1], &payload[..100_000]] {
            let mut reader = engine.decrypt_reader(&key_id, &context, changed).expect("opened");
            assert!(reader.read_exact(&mut room[..plaintext.len()]).is_err());
        }
    });
    outcome.nothing("payload: seek reader", || {
        let made = engine.decrypt_seek_reader(&key_id, &context, Cursor::new(&payload));
        let mut reader = Box::new(made.expect("opened"));
        for at in [SeekFrom::End(-10), SeekFrom::Start(70_000), SeekFrom::Current(60_000)] {
            reader.seek(at).expect("sought");
            reader.read_exact(&mut room[..10]).expect("read");
        }
        drop(reader);
        let mut changed = payload.clone();
        changed[264 + SEALED_SEGMENT_LEN] ^= 1;
        let made = engine.decrypt_seek_reader(&key_id, &context, Cursor::new(&changed));
        let mut reader = made.expect("opened");
        reader.read_exact(&mut room[..10]).expect("read");
        reader.seek(SeekFrom::Start(70_000)).expect("sought");
        assert!(reader.read_exact(&mut room[..10]).is_err());
    });
}

/// Prints the secrets that are left on the stack. Rust cannot wipe the copies that moves leave behind, and dekseal does
/// not promise it. But each row names the secrets that dekseal wipes, and these must not be found. `wipe_stack` must
/// leave nothing.
fn stack(outcome: &mut Outcome, secrets: &mut Secrets) {
    println!("\nleft on the stack, in windows of 8 bytes (for the record; what is wiped must not be there):");
    let (key_id, context) = (key_id(), context());
    let dek = secrets.dek(7);
    let cmk = secrets.cmk(0, material(1));
    let engine = Engine::new(MemoryKeyring::from_versions([secrets.cmk(0, material(1))]).expect("one"));
    let sealed = cmk.seal(&context, &Dek::from_bytes(dek));
    let forged = apart(|| forge(&derived(&key_id, 0, material(1)), dek, &random(4)));
    let payload = encrypt(&engine, plaintext(1000), secrets);
    let payload = payload.expect("made");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("keyring.json");
    let root = || CmkVersion::new(ROOT_ID.parse().expect("a key ID"), 0, material(5)).expect("64 bytes");
    let imported = "33333333-3333-3333-3333-333333333333".parse().expect("a key ID");
    secrets.other_version(imported, 0, material(2));
    let padded = secrets.dek(8);
    let mut rng = secrets.rng();

    let prk = ("PRK", 0);
    let prk_as_state = ("PRK, as a state of HMAC", 0);
    // AES-GCM leaves 56 bytes of what it decrypts. A copy of 64 bytes would have 57 windows.
    let material_of_a_file = ("material", 56);
    outcome.left("CmkVersion::new", &[prk, prk_as_state], || {
        drop(CmkVersion::new(key_id, 0, material(1)));
    });
    outcome.left("CmkVersion::seal", &[], || {
        std::hint::black_box(cmk.seal(&context, &Dek::from_bytes(dek)));
    });
    outcome.left("CmkVersion::open", &[], || drop(cmk.open(&context, &sealed)));
    outcome.left("CmkVersion::open in another context", &[], || {
        drop(cmk.open(&EncryptionContext::none(), &sealed));
    });
    outcome.left("CmkVersion::open of a forged salt", &[], || {
        drop(cmk.open(&context, &forged));
    });
    outcome.left("Engine::create_dek", &[], || {
        drop(engine.create_dek_with_rng(&key_id, &context, &mut rng));
    });
    // The buffer of DEKs that are drawn at once.
    let mut slots = Vec::from_iter((0..100).map(|_| None));
    outcome.left("Engine::create_deks of 100", &[("a DEK", 0)], || {
        drop(engine.create_deks_with_rng(&key_id, &context, &mut slots, &mut rng));
    });
    // When the generator fails, the buffer contains the bytes that were drawn before.
    slots.fill_with(|| None);
    let mut failing = FailsAfter(&mut rng, 64 * 64);
    outcome.left("Engine::create_deks, it fails", &[("a DEK", 57)], || {
        drop(engine.create_deks_with_rng(&key_id, &context, &mut slots, &mut failing));
    });
    outcome.left("PayloadCipher::new", &[("payload PRK", 0)], || {
        drop(PayloadCipher::new(&Dek::from_bytes(dek), sealed));
    });
    outcome.left("Engine::decrypt_dek", &[], || {
        drop(engine.decrypt_dek(&key_id, &context, &sealed));
    });
    outcome.left("PayloadCipher, made and used", &[("payload PRK", 0)], || {
        let payload_cipher = engine.create_payload_cipher_with_rng(&key_id, &context, &mut rng);
        let made = payload_cipher.and_then(|cipher| cipher.encrypt_with_rng(plaintext(1000), &mut rng));
        drop(made);
    });
    outcome.left("Engine::decrypt", &[("payload PRK", 0)], || {
        drop(engine.decrypt(&key_id, &context, &payload));
    });
    outcome.left("Keyset::import_key", &[prk, prk_as_state], || {
        drop(Keyset::new().import_key(key_id, material(1)));
    });
    outcome.left(
        "FileKeyring: create and import",
        &[prk, prk_as_state, material_of_a_file],
        || {
            let keyring = FileKeyring::create(&path, root()).expect("made");
            let imported = keyring.update(|keys| keys.import_key(key_id, material(1)));
            imported.expect("imported");
        },
    );
    // Nothing is written after the material was sealed, so later calls do not cover what is left of it.
    let keyring = FileKeyring::open(&path, root()).expect("made before");
    outcome.left(
        "FileKeyring: an import that is given up",
        &[prk, prk_as_state, material_of_a_file],
        || {
            let given_up = keyring.update(|keys| {
                keys.import_key(imported, material(2))?;
                Err::<(), _>(ErrorKind::Keyring.into())
            });
            assert!(given_up.is_err());
        },
    );
    outcome.left("FileKeyring::open", &[prk, prk_as_state, material_of_a_file], || {
        drop(FileKeyring::open(&path, root()).expect("opened"));
    });
    // The material opens, and then its padding is refused. So no later call covers what is left of it.
    let padding = directory.path().join("padding.json");
    apart(|| with_wrong_padding(&path, &padding, padded));
    outcome.left("FileKeyring::open, wrong padding", &[("a DEK", 56)], || {
        let opened = FileKeyring::open(&padding, root());
        assert_eq!(kind(&opened), Some(ErrorKind::File(FileFault::Changed)));
    });
    // The answer is dropped by the caller, who must wipe it: here it is leaked.
    let body =
        apart(|| format!("{{\"key_id\":\"{key_id}\",\"cipher_text\":\"{sealed}\",\"datakey_cipher_length\":\"64\"}}"));
    outcome.left("api: decrypt-datakey", &[], || {
        let path = "/v1.0/53d1aefc533f4ce9a59c26b01667cbcf/kms/decrypt-datakey";
        let answer = api::handle(&engine, "POST", path, body.as_bytes());
        std::mem::forget(std::hint::black_box(answer));
    });
    println!("    after wipe_stack nothing of these is left");
}
