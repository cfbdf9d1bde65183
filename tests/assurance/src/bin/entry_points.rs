//! The program that `panics` and `branches` examine. Each operation of the library is called in a separate function, so
//! that it is linked.

use std::{
    convert::Infallible,
    error,
    hint::black_box,
    io::{self, Cursor, Read, Seek, SeekFrom, Write},
    path::Path,
};

use dekseal::{
    CmkVersion, Dek, EncryptionContext, Engine, Error, FileKeyring, KeyId, Keyset, MemoryKeyring, Rewrapped, SealedDek,
    UnixTime,
    api::{self, Response},
    rand_core::{TryCryptoRng, TryRng},
};
use dekseal_assurance::ROOT_ID;

/// A generator that neither fails nor panics.
struct Counting(u8);

impl TryRng for Counting {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(0)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for byte in bytes {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
        Ok(())
    }
}

impl TryCryptoRng for Counting {}

type Bytes = dekseal::zeroize::Zeroizing<Vec<u8>>;

macro_rules! entry_points {
    ($($(#[$attribute:meta])* fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty $body:block)*) => {
        $(
            $(#[$attribute])*
            #[inline(never)]
            fn $name($($argument: $type),*) -> $result $body
        )*
    };
}

entry_points! {
    /// A panic of the program itself, which `panics` must find.
    fn entry_control(bytes: &[u8], at: usize) -> u8 {
        bytes[at]
    }
    fn entry_cmk_new(key_id: KeyId, material: &[u8]) -> Result<CmkVersion, Error> {
        CmkVersion::new(key_id, 0, material)
    }
    /// A comparison that stops at the first difference, which `branches` must find.
    fn control_compare(a: &[u8; 64], b: &[u8; 64]) -> bool {
        a.iter().zip(b).all(|(a, b)| a == b)
    }
    /// A look-up in a table at a place that is a secret byte, which `branches` must find.
    fn control_table(table: &[u8; 256], secret: &[u8; 64]) -> u8 {
        let [first, ..] = black_box(secret);
        table[usize::from(*first)]
    }
    fn entry_key_id(text: &str) -> Result<KeyId, Error> {
        text.parse()
    }
    fn entry_context(pairs: &[(&str, &str)]) -> Result<EncryptionContext, Error> {
        EncryptionContext::from_pairs(pairs.iter().copied())
    }
    fn entry_seal(cmk: &CmkVersion, context: &EncryptionContext, dek: &Dek) -> SealedDek {
        cmk.seal(context, dek)
    }
    fn entry_parse(bytes: &[u8]) -> Result<SealedDek, Error> {
        SealedDek::from_bytes(bytes)
    }
    fn entry_open(cmk: &CmkVersion, context: &EncryptionContext, sealed: &SealedDek) -> Result<Dek, Error> {
        cmk.open(context, sealed)
    }
    fn entry_create(
        engine: &Engine<MemoryKeyring>,
        key_id: &KeyId,
        context: &EncryptionContext
    ) -> Result<(Dek, SealedDek), Error> {
        engine.create_dek_with_rng(key_id, context, &mut Counting(0))
    }
    fn entry_create_batch(
        engine: &Engine<MemoryKeyring>,
        key_id: &KeyId,
        context: &EncryptionContext,
        slots: &mut [Option<(Dek, SealedDek)>]
    ) -> Result<(), Error> {
        engine.create_deks_with_rng(key_id, context, slots, &mut Counting(0))
    }
    fn entry_reencrypt(
        engine: &Engine<MemoryKeyring>,
        key_id: &KeyId,
        context: &EncryptionContext,
        sealed: &SealedDek
    ) -> Result<Rewrapped, Error> {
        engine.rewrap_dek(key_id, context, sealed)
    }
    fn entry_handle(engine: &Engine<MemoryKeyring>, method: &str, path: &str, body: &[u8]) -> Response {
        api::handle_with_rng(engine, method, path, body, &mut Counting(0))
    }
    fn entry_payload_encrypt(
        engine: &Engine<MemoryKeyring>,
        key_id: &KeyId,
        context: &EncryptionContext,
        plaintext: &[u8]
    ) -> Result<Vec<u8>, Error> {
        let payload_cipher = engine.create_payload_cipher_with_rng(key_id, context, &mut Counting(0))?;
        payload_cipher.encrypt_with_rng(plaintext, &mut Counting(0))
    }
    fn entry_payload_decrypt(
        engine: &Engine<MemoryKeyring>,
        key_id: &KeyId,
        context: &EncryptionContext,
        payload: &[u8]
    ) -> Result<Bytes, Error> {
        engine.decrypt(key_id, context, payload)
    }
    fn entry_payload_write(
        engine: &Engine<MemoryKeyring>,
        key_id: &KeyId,
        context: &EncryptionContext,
        plaintext: &[u8]
    ) -> io::Result<Vec<u8>> {
        let payload_cipher = engine.create_payload_cipher_with_rng(key_id, context, &mut Counting(0))?;
        let mut writer = payload_cipher.encrypt_writer_with_rng(Vec::new(), &mut Counting(0))?;
        writer.write_all(plaintext)?;
        writer.finish()
    }
    fn entry_payload_read(
        engine: &Engine<MemoryKeyring>,
        key_id: &KeyId,
        context: &EncryptionContext,
        payload: &[u8],
        plaintext: &mut [u8]
    ) -> io::Result<()> {
        engine.decrypt_reader(key_id, context, payload)?.read_exact(plaintext)
    }
    fn entry_payload_seek(
        engine: &Engine<MemoryKeyring>,
        key_id: &KeyId,
        context: &EncryptionContext,
        payload: &[u8],
        at: SeekFrom
    ) -> io::Result<u8> {
        let mut reader = engine.decrypt_seek_reader(key_id, context, Cursor::new(payload))?;
        reader.seek(at)?;
        let mut byte = [0];
        reader.read_exact(&mut byte)?;
        Ok(byte[0])
    }
    fn entry_payload_rewrap(
        engine: &Engine<MemoryKeyring>,
        key_id: &KeyId,
        context: &EncryptionContext,
        payload: &mut [u8]
    ) -> Result<(), Error> {
        engine.rewrap(key_id, context, key_id, payload)
    }
    fn entry_payload_rewrap_file(
        engine: &Engine<MemoryKeyring>,
        key_id: &KeyId,
        context: &EncryptionContext,
        path: &Path
    ) -> io::Result<()> {
        engine.rewrap_file(key_id, context, key_id, path).map(drop)
    }
    fn entry_file_create(path: &Path, root: CmkVersion) -> Result<FileKeyring, Error> {
        FileKeyring::create(path, root)
    }
    fn entry_file_open(path: &Path, root: CmkVersion) -> Result<FileKeyring, Error> {
        FileKeyring::open(path, root)
    }
    fn entry_file_update(keyring: &FileKeyring, key_id: KeyId, material: &[u8]) -> Result<(), Error> {
        keyring.update(|keys| keys.import_key(key_id, material))
    }
    fn entry_file_refresh(keyring: &FileKeyring) -> Result<bool, Error> {
        keyring.refresh()
    }
    fn entry_file_change_root(keyring: &FileKeyring, root: CmkVersion) -> Result<(), Error> {
        keyring.change_root(root)
    }
    fn entry_file_adopt(keyring: &FileKeyring) -> Result<(), Error> {
        keyring.adopt()
    }
    fn entry_file_write_back(keyring: &FileKeyring) -> Result<(), Error> {
        keyring.write_back()
    }
    fn entry_file_seal(
        engine: &Engine<FileKeyring>,
        key_id: &KeyId,
        context: &EncryptionContext,
        dek: &Dek
    ) -> Result<SealedDek, Error> {
        engine.encrypt_dek(key_id, context, dek)
    }
    fn entry_file_open_dek(
        engine: &Engine<FileKeyring>,
        key_id: &KeyId,
        context: &EncryptionContext,
        sealed: &SealedDek
    ) -> Result<Dek, Error> {
        engine.decrypt_dek(key_id, context, sealed)
    }
    fn entry_keys(keys: &mut Keyset, key_id: KeyId, material: &[u8], now: UnixTime) -> Result<(), Error> {
        keys.import_key_at(key_id, material, now)?;
        keys.rotate_with_rng(&key_id, now, &mut Counting(0))?;
        keys.set_min_version(&key_id, 1)?;
        keys.force_destroy_versions(&key_id, 1)?;
        let at = keys.schedule_deletion_at(&key_id, 7, now)?;
        keys.purge_at(&key_id, at)
    }
}

fn main() -> Result<(), Box<dyn error::Error>> {
    entry_control(black_box(b"0"), black_box(0));
    let key_id = entry_key_id(black_box("0d0466b0-e727-4d9c-b35d-f84bb474a37f"))?;
    let context = entry_context(black_box(&[("tenant", "42")]))?;
    let cmk = entry_cmk_new(key_id, black_box(&[7; 32]))?;
    let dek = Dek::generate_with_rng(&mut Counting(0))?;
    assert!(control_compare(dek.expose_secret(), black_box(dek.expose_secret())));
    assert_eq!(control_table(black_box(&[7; 256]), dek.expose_secret()), 7);
    let sealed = entry_parse(black_box(entry_seal(&cmk, &context, &dek).as_bytes()))?;
    assert!(entry_open(&cmk, &context, &sealed)? == dek);
    let engine = Engine::new(MemoryKeyring::from_versions([cmk])?);
    black_box(entry_create(&engine, &key_id, &context)?);
    entry_create_batch(&engine, &key_id, &context, black_box(&mut [const { None }; 3]))?;
    black_box(entry_reencrypt(&engine, &key_id, &context, &sealed)?);
    let body = br#"{"key_id": "0d0466b0-e727-4d9c-b35d-f84bb474a37f", "datakey_length": "512"}"#;
    let path = "/v1.0/project/kms/create-datakey";
    let response = entry_handle(&engine, black_box("POST"), black_box(path), black_box(body));
    assert_eq!(response.status(), 200);
    let payload = entry_payload_encrypt(&engine, &key_id, &context, black_box(b"plaintext"))?;
    assert_eq!(
        *entry_payload_decrypt(&engine, &key_id, &context, &payload)?,
        b"plaintext"
    );

    let mut payload = entry_payload_write(&engine, &key_id, &context, black_box(b"plaintext"))?;
    let mut plaintext = [0; 9];
    entry_payload_read(&engine, &key_id, &context, &payload, black_box(&mut plaintext))?;
    let byte = entry_payload_seek(&engine, &key_id, &context, &payload, black_box(SeekFrom::End(-1)))?;
    assert_eq!((&plaintext, byte), (b"plaintext", b't'));
    entry_payload_rewrap(&engine, &key_id, &context, &mut payload)?;

    let directory = tempfile::tempdir()?;
    let path = directory.path().join("payload");
    std::fs::write(&path, &payload)?;
    entry_payload_rewrap_file(&engine, &key_id, &context, black_box(&path))?;
    let path = directory.path().join("keyring.json");
    let root = |version| CmkVersion::new(ROOT_ID.parse()?, version, black_box(&[8; 32]));
    drop(entry_file_create(black_box(&path), root(0)?)?);
    let keyring = entry_file_open(black_box(&path), root(0)?)?;
    entry_file_update(&keyring, key_id, black_box(&[7; 32]))?;
    assert!(!entry_file_refresh(&keyring)?);
    entry_file_change_root(&keyring, root(1)?)?;
    entry_file_adopt(&keyring)?;
    entry_file_write_back(&keyring)?;
    let engine = Engine::new(keyring);
    let sealed = entry_file_seal(&engine, &key_id, &context, &dek)?;
    assert!(entry_file_open_dek(&engine, &key_id, &context, &sealed)? == dek);

    entry_keys(
        &mut Keyset::new(),
        key_id,
        black_box(&[7; 32]),
        black_box(UnixTime::from_secs(1_800_000_000)?),
    )?;
    Ok(())
}
