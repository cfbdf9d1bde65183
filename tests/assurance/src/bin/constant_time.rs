//! Tests under valgrind's memcheck that no branch and no address depends on a secret.
//!
//! Material, DEKs and plaintext are marked as undefined. memcheck tracks all values that are computed from them, and
//! reports each conditional jump and each address that depends on them. Values that the crate returns, and so makes
//! public, are marked as defined here (`public`). Comparisons inside the crate with a public result are listed in
//! valgrind.supp, one by one.
//!
//! `constant_time table` and `constant_time exit` are negative controls: they contain a leak, which must be reported.

use std::{
    io::{Cursor, Read, Seek, SeekFrom, Write},
    process::ExitCode,
};

use dekseal::{CmkVersion, Dek, EncryptionContext, Engine, ErrorKind, FileKeyring, MemoryKeyring, SealedDek, api};
use dekseal_assurance::{CONTEXT, Drawing, KEY_ID, ROOT_ID, derived, forge, hex, key_id, memcheck, random};
use sha2::{Digest, Sha256};

/// Secret bytes.
fn secret<const N: usize>(seed: u64) -> [u8; N] {
    let mut bytes = random(seed);
    memcheck::secret(&mut bytes);
    bytes
}

/// A generator that returns secret bytes.
fn drawing(seed: u64) -> Drawing<impl FnMut(&mut [u8])> {
    Drawing {
        counter: seed << 32,
        // 64 bytes are a DEK. The payload salt of 32 bytes is public.
        drawn: |bytes: &mut [u8]| {
            if bytes.len().is_multiple_of(Dek::LEN) {
                memcheck::secret(bytes);
            }
        },
    }
}

/// Asserts that memcheck tracked the secrets to a place where they must arrive.
fn assert_secret(bytes: &[u8]) {
    assert!(
        !memcheck::is_running() || memcheck::count_secret(bytes) > 0,
        "memcheck has lost a secret"
    );
}

fn published(sealed: SealedDek) -> SealedDek {
    assert_secret(sealed.as_bytes());
    memcheck::public(&sealed);
    sealed
}

fn cmk(material_len: usize) -> CmkVersion {
    let mut material = random::<64>(1);
    memcheck::secret(&mut material);
    CmkVersion::new(key_id(), 0, &material[..material_len]).expect("a length that is allowed")
}

fn context() -> EncryptionContext {
    EncryptionContext::from_pairs(CONTEXT).expect("allowed")
}

fn refused<T>(result: Result<T, dekseal::Error>) {
    assert_eq!(
        result.err().map(|error| error.kind()),
        Some(ErrorKind::AuthenticationFailed)
    );
}

fn seal_and_open() {
    let context = context();
    let dek = Dek::from_bytes(&secret(2));
    for material_len in [32, 64] {
        let cmk = cmk(material_len);
        let sealed = published(cmk.seal(&context, &dek));
        let opened = cmk.open(&context, &sealed).expect("its own");
        assert_secret(opened.expose_secret());

        // The result of comparing two DEKs is returned to the caller, so it is public.
        let other = Dek::from_bytes(&secret(3));
        let equal = [opened == dek, opened == other];
        memcheck::public(&equal);
        assert_eq!(equal, [true, false]);

        // A wrong tag; a valid tag with another salt.
        refused(cmk.open(&EncryptionContext::none(), &sealed));
        let key = derived(&key_id(), 0, &random::<64>(1)[..material_len]);
        refused(cmk.open(&context, &forge(&key, &random(2), &random(4))));
    }
}

fn engine() -> Engine<MemoryKeyring> {
    Engine::new(MemoryKeyring::from_versions([cmk(64)]).expect("one"))
}

fn create() {
    let (engine, key_id, context) = (engine(), key_id(), context());
    let made = engine.create_dek_with_rng(&key_id, &context, &mut drawing(5));
    let (dek, sealed) = made.expect("a key of the keyring");
    assert_secret(dek.expose_secret());
    published(sealed);
    let mut slots = [const { None }; 3];
    let made = engine.create_deks_with_rng(&key_id, &context, &mut slots, &mut drawing(6));
    made.expect("a key of the keyring");
}

/// A request that succeeds.
fn request(engine: &Engine<MemoryKeyring>, operation: &str, body: &[u8]) {
    let path = format!("/v1.0/project/kms/{operation}");
    let response = api::handle_with_rng(engine, "POST", &path, body, &mut drawing(7));
    assert_eq!(response.status(), 200, "{}", response.body());
    assert_secret(response.body().as_bytes());
}

fn wire() {
    let engine = engine();
    let create = format!(r#"{{"key_id":"{KEY_ID}","datakey_length":"512","encryption_context":{{"tenant":"42"}}}}"#);
    request(&engine, "create-datakey", create.as_bytes());
    request(&engine, "create-datakey-without-plaintext", create.as_bytes());

    let sealed = published(cmk(64).seal(&context(), &Dek::from_bytes(&secret(2))));
    let cipher_text = hex(sealed.as_bytes());
    let decrypt = format!(
        r#"{{"key_id":"{KEY_ID}","encryption_context":{{"tenant":"42"}},
            "cipher_text":"{cipher_text}","datakey_cipher_length":"64"}}"#
    );
    request(&engine, "decrypt-datakey", decrypt.as_bytes());

    // The parser of JSON branches on every byte of a body, so secret digits in a body would be reported there. The
    // steps after the parser are called here directly, as `api` calls them: decode the digits, seal the DEK.
    let dek: [u8; 64] = random(2);
    let digest: [u8; 32] = Sha256::digest(dek).into();
    let mut digits = (hex(&dek) + &hex(&digest)).into_bytes();
    let encrypt = format!(
        r#"{{"key_id":"{KEY_ID}","plain_text":"{}","datakey_plain_length":"64"}}"#,
        str::from_utf8(&digits).expect("digits")
    );
    request(&engine, "encrypt-datakey", encrypt.as_bytes());
    memcheck::secret(&mut digits);
    let mut decoded = [0; 96];
    let decoding = base16ct::mixed::decode(&digits, &mut decoded);
    decoding.expect("digits");
    assert_secret(&decoded);
    let (dek, _) = decoded.split_first_chunk().expect("96 bytes");
    let sealed = engine.encrypt_dek(&key_id(), &context(), &Dek::from_bytes(dek));
    published(sealed.expect("a key of the keyring"));
}

fn payload() {
    let (engine, key_id, context) = (engine(), key_id(), context());
    let mut plaintext = vec![7; 70_000];
    memcheck::secret(&mut plaintext);
    let rng = &mut drawing(8);
    let payload_cipher = engine
        .create_payload_cipher_with_rng(&key_id, &context, rng)
        .expect("it is there");
    let payload = payload_cipher.encrypt_with_rng(&plaintext, rng);
    let mut payload = payload.expect("short enough");
    assert_secret(&payload);
    memcheck::public(&payload[..]);
    let opened = engine.decrypt(&key_id, &context, &payload).expect("its own");
    assert_secret(&opened);
    payload[300] ^= 1;
    refused(engine.decrypt(&key_id, &context, &payload));
}

/// Writer, reader, random access, and a new header.
fn streams() {
    let (engine, key_id, context) = (engine(), key_id(), context());
    let mut plaintext = vec![7; 70_000];
    memcheck::secret(&mut plaintext);
    let mut payload = Vec::new();
    let rng = &mut drawing(9);
    let payload_cipher = engine.create_payload_cipher_with_rng(&key_id, &context, rng);
    let payload_cipher = payload_cipher.expect("a key of the keyring");
    let writer = payload_cipher.encrypt_writer_with_rng(&mut payload, rng);
    let mut writer = writer.expect("a key of the keyring");
    for piece in plaintext.chunks(30_000) {
        writer.write_all(piece).expect("a Vec takes all");
    }
    writer.finish().expect("a Vec takes all");
    assert_secret(&payload);
    memcheck::public(&payload[..]);

    let mut opened = vec![0; plaintext.len()];
    let mut reader = engine.decrypt_reader(&key_id, &context, &payload[..]).expect("its own");
    reader.read_exact(&mut opened).expect("so long");
    assert_secret(&opened);
    let reader = engine.decrypt_seek_reader(&key_id, &context, Cursor::new(&payload[..]));
    let mut reader = reader.expect("its own");
    for at in [66_000, 10] {
        reader.seek(SeekFrom::Start(at)).expect("before the end");
        reader.read_exact(&mut opened[..100]).expect("before the end");
        assert_secret(&opened[..100]);
    }
    engine
        .rewrap(&key_id, &context, &key_id, &mut payload)
        .expect("its own");
    assert_secret(&payload[..264]);
}

/// The keys of a file under a root with secret material. The file was written under the same root without marks: the
/// crate makes the bytes that it writes to a file public, and a mark cannot be removed there.
fn file_keyring() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("keyring.json");
    let root = |material: &[u8]| CmkVersion::new(ROOT_ID.parse().expect("a key ID"), 0, material).expect("64 bytes");
    let written = FileKeyring::create(&path, root(&random::<64>(10))).expect("written");
    let imported = written.update(|keys| keys.import_key(key_id(), &random::<64>(1)));
    imported.expect("a new key");

    let keyring = FileKeyring::open(&path, root(&secret::<64>(10))).expect("its own");
    assert!(!keyring.refresh().expect("read"));
    let engine = Engine::new(keyring);
    let made = engine.create_dek_with_rng(&key_id(), &context(), &mut drawing(11));
    let (dek, sealed) = made.expect("a key of the keyring");
    assert_secret(dek.expose_secret());
    published(sealed);
}

/// A look-up in a table at an index that is a DEK byte.
fn leaky_table() {
    let table: Vec<u8> = (0..=255).rev().collect();
    let dek = Dek::from_bytes(&secret(2));
    let sum: u32 = dek
        .expose_secret()
        .iter()
        .map(|byte| u32::from(std::hint::black_box(&table)[usize::from(*byte)]))
        .sum();
    memcheck::public(&sum);
    println!("the sum is {sum}");
}

/// A comparison with an early exit where two DEKs differ.
fn leaky_exit() {
    let (dek, other) = (Dek::from_bytes(&secret(2)), Dek::from_bytes(&secret(3)));
    let mut equal = 0;
    for (a, b) in dek
        .expose_secret()
        .iter()
        .zip(std::hint::black_box(other.expose_secret()))
    {
        if a != b {
            break;
        }
        equal += 1;
    }
    println!("the first {equal} bytes are the same");
}

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => {
            for (name, run) in [
                ("seal, open, compare", seal_and_open as fn()),
                ("create", create),
                ("wire API", wire),
                ("payload", payload),
                ("payload streams and rewrap", streams),
                ("keyring file", file_keyring),
            ] {
                let before = memcheck::errors();
                run();
                println!("{name}: {} errors", memcheck::errors() - before);
            }
            #[cfg(target_arch = "x86_64")]
            println!(
                "memcheck: {}, aes: {}, pclmulqdq: {}, avx2: {}, sha: {}, vaes: {}",
                memcheck::is_running(),
                is_x86_feature_detected!("aes"),
                is_x86_feature_detected!("pclmulqdq"),
                is_x86_feature_detected!("avx2"),
                is_x86_feature_detected!("sha"),
                is_x86_feature_detected!("vaes"),
            );
        }
        Some("table") => leaky_table(),
        Some("exit") => leaky_exit(),
        Some(_) => {
            eprintln!("constant_time [table | exit]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
