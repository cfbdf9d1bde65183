//! What `panics` looks at: each operation of the library in a function of its own, which is called so that it is
//! linked.

use std::{convert::Infallible, hint::black_box};

use dekseal::{
    CmkVersion, Dek, EncryptionContext, Engine, Error, KeyId, Keyset, MemoryKeyring, Rewrapped, SealedDek,
    api::{self, Response},
    rand_core::{TryCryptoRng, TryRng},
};

/// A generator that cannot fail, and does not panic.
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
    /// Of the program itself, to see that it is found.
    fn entry_control(bytes: &[u8], at: usize) -> u8 {
        bytes[at]
    }
    fn entry_cmk_new(key_id: KeyId, material: &[u8]) -> Result<CmkVersion, Error> {
        CmkVersion::new(key_id, 0, material)
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
        engine.encrypt_with_rng(key_id, context, plaintext, &mut Counting(0))
    }
    fn entry_payload_decrypt(
        engine: &Engine<MemoryKeyring>,
        key_id: &KeyId,
        context: &EncryptionContext,
        payload: &[u8]
    ) -> Result<Bytes, Error> {
        engine.decrypt(key_id, context, payload)
    }
    fn entry_keys(keys: &mut Keyset, key_id: KeyId, material: &[u8], now: u64) -> Result<(), Error> {
        keys.import_key(key_id, material)?;
        keys.rotate_with_rng(&key_id, &mut Counting(0))?;
        keys.set_min_version(&key_id, 1)?;
        let at = keys.schedule_deletion(&key_id, 7, now)?;
        keys.purge(&key_id, at)
    }
}

fn main() -> Result<(), Error> {
    entry_control(black_box(b"0"), black_box(0));
    let key_id = entry_key_id(black_box("0d0466b0-e727-4d9c-b35d-f84bb474a37f"))?;
    let context = entry_context(black_box(&[("tenant", "42")]))?;
    let cmk = entry_cmk_new(key_id, black_box(&[7; 32]))?;
    let dek = Dek::generate_with_rng(&mut Counting(0))?;
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
    entry_keys(&mut Keyset::new(), key_id, black_box(&[7; 32]), black_box(0))
}
