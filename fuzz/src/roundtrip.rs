//! Compares the crate with the second implementation: both give the same bytes, and refuse at the same step.

use std::io::Write;

use arbitrary::{Arbitrary, Unstructured};
use dekseal::{
    CmkVersion, Dek, EncryptionContext, Engine, ErrorKind, KeyId, MemoryKeyring, SealedDek,
    payload::{PayloadCipher, PayloadHeader},
};
use sha2::{Digest, Sha256};

use crate::{
    Once,
    second::{self, Key, Refused},
};

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The input of a seal, and the changes after it.
#[derive(Debug, PartialEq, Eq)]
pub struct Case {
    pub material: Vec<u8>,
    pub key_id: String,
    pub key_version: u32,
    pub context: Vec<(String, String)>,
    pub dek: [u8; 64],
    pub payload_salt: [u8; 32],
    /// The length of a payload's plaintext.
    pub length: usize,
    /// The bit to flip, modulo the number of bits.
    pub flip: u32,
    /// The way to change the context.
    pub change: u8,
    /// The number of bytes of each write.
    pub piece: u16,
}

/// All parts except the context have fixed places, so that a fuzzer can keep a useful field in the next input. The
/// context is the rest, as text, with a pair `key=value` on each line.
#[derive(Arbitrary)]
struct Fixed {
    material: [u8; 64],
    material_length: u8,
    key_id: [u8; 32],
    key_version: u32,
    dek: [u8; 64],
    payload_salt: [u8; 32],
    segments: u8,
    offset: u16,
    flip: u32,
    change: u8,
    piece: u16,
}

impl<'a> Arbitrary<'a> for Case {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut fixed = Fixed::arbitrary(u)?;
        let rest = String::from_utf8_lossy(u.bytes(u.len())?);
        let pair = |line: &str| {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            (key.to_owned(), value.to_owned())
        };
        // A generator that returns equal halves counts as stuck.
        if fixed.payload_salt[..16] == fixed.payload_salt[16..] {
            fixed.payload_salt[31] ^= 1;
        }
        let mut digits = fixed
            .key_id
            .map(|byte| char::from(DIGITS[usize::from(byte) % 36]))
            .into_iter();
        let groups = [8, 4, 4, 4, 12].map(|length| digits.by_ref().take(length).collect::<String>());
        // Most lengths are short, for speed. The others are near a boundary between segments.
        let offset = usize::from(fixed.offset);
        let length = match fixed.segments {
            0..248 => offset % 600,
            248..252 => 65536 - 20 + offset % 41,
            252..254 => 2 * 65536 - 20 + offset % 41,
            254.. => 3 * 65536 - 20 + offset % 4000,
        };
        Ok(Self {
            material: fixed.material[..32 + usize::from(fixed.material_length) % 33].to_vec(),
            key_id: groups.join("-"),
            key_version: fixed.key_version,
            context: rest.split_terminator('\n').map(pair).collect(),
            dek: fixed.dek,
            payload_salt: fixed.payload_salt,
            length,
            flip: fixed.flip,
            change: fixed.change,
            piece: fixed.piece,
        })
    }
}

/// Makes the bytes that are read as this case, for seeds. Material is 32 to 64 bytes long. `segments` is 0 for a short
/// payload, and 248, 252 or 254 for a payload that ends near the end of the first, second or third segment.
pub fn seed(
    (key_id, key_version, material): (&str, u32, &[u8]),
    context: &[(String, String)],
    dek: &[u8; 64],
    segments: u8,
) -> Vec<u8> {
    let mut bytes = material.to_vec();
    bytes.resize(64, 0);
    bytes.push((material.len() - 32) as u8);
    let digits = key_id
        .bytes()
        .filter_map(|digit| DIGITS.iter().position(|d| *d == digit));
    bytes.extend(digits.map(|digit| digit as u8));
    bytes.extend(key_version.to_le_bytes());
    bytes.extend(dek);
    bytes.extend(0..32);
    // 102 bytes for a short payload, one bit of the DEK's ciphertext, one more pair, writes of 8 bytes.
    bytes.extend([segments, 102, 0, 77, 2, 0, 0, 0, 7, 0]);
    for (key, value) in context {
        bytes.extend(format!("{key}={value}\n").bytes());
    }
    bytes
}

/// Compares two implementations of the same document.
pub fn roundtrip(data: &[u8]) {
    if let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(data)) {
        check(&case);
    }
}

/// Panics if the two differ.
pub fn check(case: &Case) {
    let context = EncryptionContext::from_pairs(case.context.iter().map(|(key, value)| (key, value)));
    let canonical = canonical(&case.context);
    let (Ok(context), Some(canonical)) = (&context, &canonical) else {
        assert_eq!(context.is_ok(), canonical.is_some());
        return;
    };
    assert_eq!(context.canonical(), canonical);
    let both = Both::new(case, &case.material);
    let sealed = dek(&both, case, context, canonical);
    payload(&both, case, context, canonical, sealed);
}

fn canonical(pairs: &[(String, String)]) -> Option<Vec<u8>> {
    second::canonical(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}

/// One key in both implementations.
struct Both {
    id: KeyId,
    engine: Engine<MemoryKeyring>,
    second: Key,
}

impl Both {
    fn new(case: &Case, material: &[u8]) -> Self {
        let id: KeyId = case.key_id.parse().expect("a key ID");
        let cmk = CmkVersion::new(id, case.key_version, material).expect("32 to 64 bytes");
        Self {
            id,
            engine: Engine::new(MemoryKeyring::from_versions([cmk]).expect("one key")),
            second: Key::new(&case.key_id, case.key_version, material).expect("a key ID, and 32 to 64 bytes"),
        }
    }

    /// The result of both for a blob, which must be the same.
    fn open(&self, context: &EncryptionContext, canonical: &[u8], blob: &[u8]) -> Result<[u8; 64], Refused> {
        let opened = SealedDek::from_bytes(blob)
            .and_then(|sealed| self.engine.decrypt_dek(&self.id, context, &sealed))
            .map(|dek| *dek.expose_secret())
            .map_err(|error| match error.kind() {
                ErrorKind::NotABlob(_) => Refused::Frame,
                ErrorKind::MalformedKeyId => Refused::KeyId,
                ErrorKind::DamagedBlob => Refused::Checksum,
                ErrorKind::KeyMismatch => Refused::OtherKey,
                ErrorKind::UnknownKeyVersion | ErrorKind::KeyVersionDestroyed => Refused::OtherVersion,
                ErrorKind::AuthenticationFailed => Refused::Authentication,
                other => panic!("{other:?}"),
            });
        assert_eq!(opened, self.second.open(canonical, blob));
        opened
    }

    /// The result of both for a payload, which must be the same.
    fn decrypt(&self, context: &EncryptionContext, canonical: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
        let opened = self.engine.decrypt(&self.id, context, payload).ok();
        let opened = opened.map(|plaintext| plaintext.to_vec());
        assert!(opened == self.second.open_payload(canonical, payload));
        opened
    }
}

/// Part A. Returns the blob.
fn dek(both: &Both, case: &Case, context: &EncryptionContext, canonical: &[u8]) -> SealedDek {
    let blob = both.second.seal(canonical, &case.dek);
    let sealed = both.engine.encrypt_dek(&both.id, context, &Dek::from_bytes(&case.dek));
    let sealed = sealed.expect("the key is there");
    assert_eq!(sealed.as_bytes().as_slice(), blob);
    assert_eq!(both.open(context, canonical, &blob), Ok(case.dek));

    let refused = |blob: &[u8]| assert!(both.open(context, canonical, blob).is_err());
    // Once with the old checksum, which shows the change, and once with a new checksum, as an attacker would compute
    // it.
    let flip = case.flip as usize;
    refused(&flipped(&blob, flip));
    refused(&with_checksum(flipped(&blob[..156], flip)));
    refused(&blob[..flip % 188]);
    refused(&[blob.as_slice(), &[0]].concat());
    // A valid tag under a salt that does not belong to the DEK.
    if case.payload_salt != blob[4..36] {
        refused(&both.second.seal_under_salt(canonical, &case.dek, &case.payload_salt));
    }

    let other = changed(&case.context, case.change);
    let other_context = EncryptionContext::from_pairs(other.iter().map(|(key, value)| (key, value)));
    if let (Ok(other_context), Some(other)) = (other_context, self::canonical(&other))
        && other != canonical
    {
        let opened = both.open(&other_context, &other, &blob);
        assert_eq!(opened, Err(Refused::Authentication));
    }

    let material = flipped(&case.material, flip);
    let opened = Both::new(case, &material).open(context, canonical, &blob);
    assert_eq!(opened, Err(Refused::Authentication));
    sealed
}

/// Part B.
fn payload(both: &Both, case: &Case, context: &EncryptionContext, canonical: &[u8], sealed: SealedDek) {
    let plaintext = plaintext(case.length, case.dek[0]);
    let payload = Key::seal_payload(sealed.as_bytes(), &case.dek, &case.payload_salt, &plaintext);
    let payload_cipher = PayloadCipher::new(&Dek::from_bytes(&case.dek), sealed);
    let encrypted = payload_cipher.encrypt_with_rng(&plaintext, &mut Once(&case.payload_salt));
    assert!(encrypted.expect("it is short") == payload);

    // About fifty writes at most.
    let piece = usize::from(case.piece) + 1 + case.length / 50;
    let mut writer = payload_cipher
        .encrypt_writer_with_rng(Vec::new(), &mut Once(&case.payload_salt))
        .expect("the salt is there");
    for piece in plaintext.chunks(piece) {
        writer.write_all(piece).expect("a Vec");
    }
    assert!(writer.finish().expect("a Vec") == payload);

    assert!(both.decrypt(context, canonical, &payload) == Some(plaintext));

    // Opening takes most of the time, so there is one change of each kind: anywhere, at a boundary, and at the end.
    let refused = |payload: &[u8]| assert!(both.decrypt(context, canonical, payload).is_none());
    refused(&flipped(&payload, case.flip as usize));
    let boundary = PayloadHeader::LEN + (payload.len() - PayloadHeader::LEN - 1) / 65552 * 65552;
    refused(&payload[..boundary]);
    refused(&[payload.as_slice(), &[case.change]].concat());
}

/// Bytes in which no two segments are alike.
pub(crate) fn plaintext(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|at| (at as u8) ^ ((at >> 8) as u8).wrapping_mul(31) ^ ((at >> 16) as u8).wrapping_mul(97) ^ seed)
        .collect()
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = bit / 8 % bytes.len();
    bytes[at] ^= 1 << (bit % 8);
    bytes
}

fn with_checksum(mut blob: Vec<u8>) -> Vec<u8> {
    let checksum = Sha256::digest(&blob);
    blob.extend(checksum);
    blob
}

/// A context that differs in some way.
fn changed(pairs: &[(String, String)], how: u8) -> Vec<(String, String)> {
    let mut pairs = pairs.to_vec();
    match (how % 6, pairs.first_mut()) {
        (1, Some((_, value))) => value.push('\0'),
        (2, Some((key, value))) => std::mem::swap(key, value),
        // Moves the boundary between key and value.
        (3, Some((key, value))) => {
            if let Some(last) = key.pop() {
                value.insert(0, last);
            }
        }
        (4, Some((key, _))) => *key = key.to_uppercase(),
        (5, Some(_)) => drop(pairs.pop()),
        _ => pairs.push((String::from("one more"), String::new())),
    }
    pairs
}
