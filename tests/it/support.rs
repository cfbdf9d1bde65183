//! Helpers of several modules: the test vectors, and generators with a given behaviour.

#[cfg(feature = "std")]
use std::process::Command;
use std::{collections::BTreeMap, convert::Infallible};

use dekseal::{
    CmkVersion, Dek, EncryptionContext, Engine, Error, KeyId, Keyring, MemoryKeyring, SealedDek, UnixTime,
    rand_core::{TryCryptoRng, TryRng},
};
use serde::Deserialize;

/// The key ID in the examples of the KMS documentation.
pub(crate) const KEY_ID: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
pub(crate) const OTHER_KEY_ID: &str = "25abe69f-ae10-44cd-bc87-1bda1de3b7d7";

pub(crate) fn key_id(text: &str) -> KeyId {
    text.parse().unwrap()
}

/// The present time in the tests: 2027-01-15T08:00:00Z.
pub(crate) const NOW: u64 = 1_800_000_000;

/// The time this many seconds after 1970.
pub(crate) fn time(secs: u64) -> UnixTime {
    UnixTime::from_secs(secs).unwrap()
}

pub(crate) fn cmk(key_id: &str, version: u32, material: &[u8]) -> CmkVersion {
    CmkVersion::new(self::key_id(key_id), version, material).unwrap()
}

/// The context with the longest canonical form: 8192 keys, each one character of four bytes.
pub(crate) fn longest_context() -> EncryptionContext {
    let keys = (0x10000..0x10000 + 8192).filter_map(char::from_u32);
    let keys: Vec<String> = keys.map(String::from).collect();
    EncryptionContext::from_pairs(keys.iter().map(|key| (key, ""))).unwrap()
}

/// A keyring with one CMK version: version 0 of `KEY_ID`.
pub(crate) fn one_key() -> MemoryKeyring {
    MemoryKeyring::from_versions([cmk(KEY_ID, 0, &[7; 32])]).unwrap()
}

pub(crate) fn dek(digits: &str) -> Dek {
    Dek::from_bytes(&hex::decode(digits).unwrap().try_into().unwrap())
}

pub(crate) fn context<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> EncryptionContext {
    EncryptionContext::from_pairs(pairs).unwrap()
}

/// A payload under a DEK of its own. The generator gives first the DEK, then the payload salt.
pub(crate) fn encrypt<R: TryCryptoRng + ?Sized>(
    engine: &Engine<impl Keyring>,
    key_id: &KeyId,
    context: &EncryptionContext,
    plaintext: &[u8],
    rng: &mut R,
) -> Result<Vec<u8>, Error> {
    let payload_cipher = engine.create_payload_cipher_with_rng(key_id, context, rng)?;
    payload_cipher.encrypt_with_rng(plaintext, rng)
}

/// `blob` with the correct checksum of its first 156 bytes.
pub(crate) fn with_checksum(mut blob: [u8; SealedDek::LEN]) -> [u8; SealedDek::LEN] {
    use sha2::{Digest, Sha256};
    let checksum = Sha256::digest(&blob[..156]);
    blob[156..].copy_from_slice(&checksum);
    blob
}

/// A file of `tests/vectors`. Every field is declared here; a field that no test reads would not parse.
pub(crate) fn vectors<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    let path = format!("{}/tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// blob.json
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SealedVector {
    pub name: String,
    pub key_id: String,
    pub key_version: u32,
    pub material: String,
    pub context: BTreeMap<String, String>,
    pub dek: String,
    pub blob: String,
    // The intermediate values. `cmk::tests` inside the crate compares with each of them.
    #[serde(rename = "prk")]
    _prk: String,
    #[serde(rename = "salt_key")]
    _salt_key: String,
    #[serde(rename = "wrap_key")]
    _wrap_key: String,
    #[serde(rename = "aad")]
    _aad: String,
    #[serde(rename = "salt")]
    _salt: String,
    #[serde(rename = "key")]
    _key: String,
}

/// The path of an example that cargo built beside this test.
#[cfg(all(feature = "api", feature = "file-keyring"))]
pub(crate) fn example(name: &str) -> std::path::PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(
        built.with_extension(std::env::consts::EXE_EXTENSION).exists(),
        "cargo build --examples comes first"
    );
    built
}

/// A command that runs `program`, which was built for the same processor as this test. If an emulator runs this test,
/// `DEKSEAL_EMULATOR` names it, because the system cannot start such a program.
#[cfg(feature = "std")]
pub(crate) fn command(program: &std::path::Path) -> Command {
    let Some(emulator) = std::env::var_os("DEKSEAL_EMULATOR") else {
        return Command::new(program);
    };
    let mut command = Command::new(emulator);
    command.arg(program);
    command
}

/// A command that runs this test binary again.
#[cfg(feature = "std")]
pub(crate) fn this_test() -> Command {
    command(&std::env::current_exe().unwrap())
}

/// A command that lets a shell run `script`, in which `"$0" "$@"` is `command`.
#[cfg(feature = "file-keyring")]
pub(crate) fn in_shell(script: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script])
        .arg(command.get_program())
        .args(command.get_args());
    shell
}

/// A generator that returns these bytes in order and then fails.
pub(crate) struct Fixed<'a>(pub &'a [u8]);

/// A generator that fails.
pub(crate) struct Failing;

/// A generator that repeats the same bytes.
pub(crate) struct Repeating<'a>(pub &'a [u8]);

#[derive(Debug)]
pub(crate) struct Exhausted;

impl std::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no bytes left")
    }
}

impl std::error::Error for Exhausted {}

/// Derives the methods for words. Only bytes are requested from these generators.
macro_rules! words_from_bytes {
    () => {
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            let mut bytes = [0; 4];
            self.try_fill_bytes(&mut bytes)?;
            Ok(u32::from_le_bytes(bytes))
        }

        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            let mut bytes = [0; 8];
            self.try_fill_bytes(&mut bytes)?;
            Ok(u64::from_le_bytes(bytes))
        }
    };
}

pub(crate) use words_from_bytes;

impl TryRng for Fixed<'_> {
    type Error = Exhausted;

    words_from_bytes!();

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Exhausted> {
        let (head, tail) = self.0.split_at_checked(bytes.len()).ok_or(Exhausted)?;
        bytes.copy_from_slice(head);
        self.0 = tail;
        Ok(())
    }
}

impl TryRng for Failing {
    type Error = Exhausted;

    words_from_bytes!();

    /// Writes half of the bytes and then fails.
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Exhausted> {
        let half = bytes.len() / 2;
        bytes[..half].fill(0xa5);
        Err(Exhausted)
    }
}

impl TryRng for Repeating<'_> {
    type Error = Infallible;

    words_from_bytes!();

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for (byte, source) in bytes.iter_mut().zip(self.0.iter().cycle()) {
            *byte = *source;
        }
        Ok(())
    }
}

impl TryCryptoRng for Fixed<'_> {}
impl TryCryptoRng for Failing {}
impl TryCryptoRng for Repeating<'_> {}
