//! A second implementation of docs/FORMAT.md: parts A and B, and the reader of part C.
//!
//! It was written from the document and from RFC 5869 over HMAC, SHA-256 and AES-256-GCM, without this crate. If the
//! crate and this module agree, both follow the document. It is only for comparison: it wipes nothing and compares in
//! variable time.
//!
//! `tests/reference` builds a crate from this file, for the fuzz targets and `tests/assurance`. The benchmarks use it
//! too.

#![allow(dead_code, unreachable_pub, reason = "the tests in `tests/it` use part A only")]

use aes_gcm::{AeadInOut, Aes256Gcm};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The check that failed: the steps of A5 in their order, and payloads that B1 does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Frame,
    KeyId,
    Checksum,
    OtherKey,
    OtherVersion,
    Authentication,
    NotAPayload,
}

/// A3. Returns `None` if a rule is broken.
pub fn canonical<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Vec<u8>> {
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    let characters: usize = pairs.iter().map(|(k, v)| k.chars().count() + v.chars().count()).sum();
    if characters > 8192 || pairs.iter().any(|(key, _)| key.is_empty()) {
        return None;
    }
    pairs.sort_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
    if pairs.windows(2).any(|two| two[0].0 == two[1].0) {
        return None;
    }
    let mut bytes = Vec::new();
    if pairs.is_empty() {
        return Some(bytes);
    }
    bytes.extend((pairs.len() as u16).to_be_bytes());
    for (key, value) in pairs {
        bytes.extend((key.len() as u16).to_be_bytes());
        bytes.extend(key.bytes());
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend(value.bytes());
    }
    Some(bytes)
}

/// A2.
fn is_key_id(bytes: &[u8]) -> bool {
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'z'),
        })
}

/// One version of a CMK: the keys of A4.
pub struct Key {
    id: String,
    version: u32,
    trailer: Vec<u8>,
    pub prk: [u8; 32],
    pub salt_key: [u8; 32],
    pub wrap_key: [u8; 32],
}

impl Key {
    /// Returns `None` if the ID breaks A2, or the length of the material breaks A4.
    pub fn new(id: &str, version: u32, material: &[u8]) -> Option<Self> {
        if !is_key_id(id.as_bytes()) || material.len() < 32 || material.len() > 64 {
            return None;
        }
        let trailer = [id.as_bytes(), &version.to_le_bytes()].concat();
        let prk = extract(b"dekseal/v2", material);
        Some(Self {
            id: id.to_owned(),
            version,
            salt_key: expand_32(&prk, &[b"dekseal/v2 salt", &trailer]),
            wrap_key: expand_32(&prk, &[b"dekseal/v2 wrap", &trailer]),
            prk,
            trailer,
        })
    }

    /// A4.
    pub fn seal(&self, context: &[u8], dek: &[u8; 64]) -> Vec<u8> {
        self.seal_under_salt(context, dek, &self.salt(context, dek))
    }

    /// A4 with any salt. If the salt does not belong to the DEK, the tag is valid and step 7 of A5 fails.
    pub fn seal_under_salt(&self, context: &[u8], dek: &[u8; 64], salt: &[u8; 32]) -> Vec<u8> {
        let mut blob = [&[2, 0, 152, 0], salt.as_slice()].concat();
        let (key, aad) = self.key_and_aad(context, salt);
        blob.extend(encrypt(&key, &salt[..12], &aad, dek));
        blob.extend(&self.trailer);
        let checksum = sha256(&blob);
        blob.extend(checksum);
        blob
    }

    /// A5, for a caller who expects this key and has only this version of it.
    pub fn open(&self, context: &[u8], blob: &[u8]) -> Result<[u8; 64], Refused> {
        if blob.len() != 188 || blob[..2] != [2, 0] || blob[2..4] != [152, 0] {
            return Err(Refused::Frame);
        }
        if !is_key_id(&blob[116..152]) {
            return Err(Refused::KeyId);
        }
        if sha256(&blob[..156]) != blob[156..] {
            return Err(Refused::Checksum);
        }
        if &blob[116..152] != self.id.as_bytes() {
            return Err(Refused::OtherKey);
        }
        if blob[152..156] != self.version.to_le_bytes() {
            return Err(Refused::OtherVersion);
        }
        let salt: [u8; 32] = blob[4..36].try_into().unwrap();
        let (key, aad) = self.key_and_aad(context, &salt);
        let dek = decrypt(&key, &salt[..12], &aad, &blob[36..116]).ok_or(Refused::Authentication)?;
        let dek = dek.try_into().unwrap();
        if self.salt(context, &dek) == salt {
            Ok(dek)
        } else {
            Err(Refused::Authentication)
        }
    }

    /// A4: `salt`.
    pub fn salt(&self, context: &[u8], dek: &[u8; 64]) -> [u8; 32] {
        mac(&self.salt_key, &[&sha256(context), dek])
    }

    /// A4: the key of the blob with this salt.
    pub fn blob_key(&self, salt: &[u8; 32]) -> [u8; 32] {
        expand_32(&self.wrap_key, &[b"dekseal/v2 key", salt])
    }

    fn key_and_aad(&self, context: &[u8], salt: &[u8; 32]) -> ([u8; 32], Vec<u8>) {
        let key = self.blob_key(salt);
        (key, [&[2, 0, 152, 0], &*self.trailer, context].concat())
    }

    /// Part B. `sealed` is `dek`, sealed under this key or another one.
    pub fn seal_payload(sealed: &[u8], dek: &[u8; 64], salt: &[u8; 32], plaintext: &[u8]) -> Vec<u8> {
        let mut payload = [b"dekseal\x01".as_slice(), &65536_u32.to_le_bytes(), salt].concat();
        let (key, commitment) = payload_keys(dek, &payload);
        payload.extend(sealed);
        payload.extend(commitment);
        // An empty payload has one empty segment.
        let count = plaintext.len().div_ceil(65536).max(1);
        for index in 0..count {
            let segment = &plaintext[index * 65536..plaintext.len().min((index + 1) * 65536)];
            let nonce = segment_nonce(index, index + 1 == count);
            payload.extend(encrypt(&key, &nonce, &[], segment));
        }
        payload
    }

    /// The segments of a payload, with `None` for each one that does not open at its place. A reader may return the
    /// segments before the first `None`. The payload is complete if all open.
    pub fn open_segments(&self, context: &[u8], payload: &[u8]) -> Result<Vec<Option<Vec<u8>>>, Refused> {
        if payload.len() < 264 || &payload[..8] != b"dekseal\x01" || payload[8..12] != 65536_u32.to_le_bytes() {
            return Err(Refused::NotAPayload);
        }
        let dek = self.open(context, &payload[44..232])?;
        let (key, commitment) = payload_keys(&dek, &payload[..44]);
        if commitment != payload[232..264] {
            return Err(Refused::Authentication);
        }
        let mut segments = Vec::new();
        let mut rest = &payload[264..];
        loop {
            let (segment, behind) = rest.split_at(rest.len().min(65536 + 16));
            let nonce = segment_nonce(segments.len(), behind.is_empty());
            let opened = decrypt(&key, &nonce, &[], segment);
            // B3.2: a segment is empty only if it is the only one.
            segments.push(opened.filter(|opened| !opened.is_empty() || rest.len() == payload.len() - 264));
            rest = behind;
            if rest.is_empty() {
                return Ok(segments);
            }
        }
    }

    /// The plaintext of a complete payload.
    pub fn open_payload(&self, context: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
        let segments = self.open_segments(context, payload).ok()?;
        Some(segments.into_iter().collect::<Option<Vec<_>>>()?.concat())
    }

    /// C1: `check`.
    pub fn keyring_check(&self) -> [u8; 32] {
        expand_32(&self.wrap_key, &[b"dekseal/v2 keyring check"])
    }

    /// C1 and C3.
    pub fn keyring_mac(&self, message: &[u8]) -> [u8; 32] {
        mac(&self.keyring_mac_key(), &[message])
    }

    /// C1: the key of `keyring_mac`.
    pub fn keyring_mac_key(&self) -> [u8; 32] {
        expand_32(&self.wrap_key, &[b"dekseal/v2 keyring"])
    }

    /// D6: the MAC of a snapshot.
    pub fn snapshot_mac(&self, message: &[u8]) -> [u8; 32] {
        mac(&expand_32(&self.wrap_key, &[b"dekseal/v2 snapshot"]), &[message])
    }

    /// The keyring in this JSON document under this root, or `None` if a rule, a check or the MAC fails. Repeated
    /// fields cannot be seen in a parsed document.
    pub fn open_keyring(&self, document: &Value) -> Option<KeyringFile> {
        let root = &document["root"];
        only(
            document,
            &["format", "version", "id", "generation", "root", "keys", "mac"],
        )?;
        only(root, &["key_id", "key_version", "check"])?;
        if document["format"] != "dekseal keyring"
            || document["version"] != 1
            || root["key_id"] != self.id
            || root["key_version"] != self.version
            || hex_of(&root["check"])? != self.keyring_check()
        {
            return None;
        }
        let file = KeyringFile::parse(document)?;
        if hex_of(&document["mac"])? != self.keyring_mac(&file.message()) {
            return None;
        }
        let holds = |key: &KeyringKey| {
            let opens = |version| self.open_material(key, version).is_some();
            key.id != self.id
                && key.versions.is_sorted_by(|a, b| a.version < b.version)
                && key.versions.last().is_some_and(|last| last.version >= key.min_version)
                && key.versions.iter().all(opens)
        };
        let ascending = file.keys.is_sorted_by(|a, b| a.id < b.id);
        (file.generation > 0 && ascending && file.keys.iter().all(holds)).then_some(file)
    }

    /// C2: the material of one version.
    pub fn open_material(&self, key: &KeyringKey, version: &KeyringVersion) -> Option<Vec<u8>> {
        let (number, length) = (version.version.to_string(), version.length.to_string());
        let context = canonical([
            ("purpose", "dekseal keyring"),
            ("key_id", &key.id),
            ("key_version", &number),
            ("material_length", &length),
        ])?;
        let padded = self.open(&context, &version.sealed).ok()?;
        if !(32..=64).contains(&version.length) {
            return None;
        }
        let (material, padding) = padded.split_at(version.length.into());
        padding.iter().all(|byte| *byte == 0).then(|| material.to_vec())
    }
}

/// The values of the fields of a keyring file.
#[derive(Debug, PartialEq, Eq)]
pub struct KeyringFile {
    pub id: Vec<u8>,
    pub generation: u64,
    pub keys: Vec<KeyringKey>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct KeyringKey {
    pub id: String,
    /// The number of the state in C3.
    pub state: u8,
    pub deletion: u64,
    pub min_version: u32,
    pub versions: Vec<KeyringVersion>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct KeyringVersion {
    pub version: u32,
    pub created: u64,
    pub length: u8,
    pub sealed: Vec<u8>,
}

impl KeyringFile {
    /// The fields that C3 covers, if they exist and have the right type. The rules of C2 are not checked.
    pub fn parse(document: &Value) -> Option<Self> {
        let keys = document["keys"].as_array()?.iter().map(KeyringKey::parse);
        Some(Self {
            id: hex_of(&document["id"]).filter(|id| id.len() == 16)?,
            generation: document["generation"].as_u64()?,
            keys: keys.collect::<Option<_>>()?,
        })
    }

    /// C3.
    pub fn message(&self) -> Vec<u8> {
        let mut message = [0, 0, 0, 1].to_vec();
        message.extend(&self.id);
        message.extend(self.generation.to_be_bytes());
        message.extend((self.keys.len() as u32).to_be_bytes());
        for key in &self.keys {
            message.extend(key.id.bytes().chain([key.state]));
            message.extend(key.deletion.to_be_bytes());
            message.extend(key.min_version.to_be_bytes());
            message.extend((key.versions.len() as u32).to_be_bytes());
            for version in &key.versions {
                message.extend(version.version.to_be_bytes());
                message.push(version.length);
                message.extend(version.created.to_be_bytes());
                message.extend(&version.sealed);
            }
        }
        message
    }
}

impl KeyringKey {
    fn parse(key: &Value) -> Option<Self> {
        only(key, &["key_id", "state", "deletion", "min_version", "versions"])?;
        let (state, deletion) = match (key["state"].as_str()?, &key["deletion"]) {
            ("enabled", Value::Null) => (0, 0),
            ("disabled", Value::Null) => (1, 0),
            ("pending_deletion", Value::String(date)) => (2, seconds(date)?),
            _ => return None,
        };
        let versions = key["versions"].as_array()?.iter().map(|version| {
            only(version, &["version", "created", "material_length", "sealed"])?;
            Some(KeyringVersion {
                version: u32_of(&version["version"])?,
                created: seconds(version["created"].as_str()?)?,
                length: version["material_length"].as_u64()?.try_into().ok()?,
                sealed: hex_of(&version["sealed"]).filter(|sealed| sealed.len() == 188)?,
            })
        });
        Some(Self {
            id: key["key_id"].as_str().filter(|id| is_key_id(id.as_bytes()))?.to_owned(),
            state,
            deletion,
            min_version: u32_of(&key["min_version"])?,
            versions: versions.collect::<Option<_>>()?,
        })
    }
}

/// An object without other fields.
fn only(object: &Value, fields: &[&str]) -> Option<()> {
    let known = object.as_object()?.keys().all(|field| fields.contains(&&**field));
    known.then_some(())
}

/// The seconds since 1970 of a date in the form of C2.
fn seconds(date: &str) -> Option<u64> {
    let shape: String = date.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    if shape != "0000-00-00T00:00:00Z" {
        return None;
    }
    let number = |from: usize, to: usize| date[from..to].parse::<u64>().unwrap();
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    let (hour, minute, second) = (number(11, 13), number(14, 16), number(17, 19));
    let leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    let february = if leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month).ok()?.checked_sub(1)?;
    let in_month = *months.get(before)?;
    if year < 2020 || day < 1 || day > in_month || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days: u64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let days = days + months[..before].iter().sum::<u64>() + day - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

fn u32_of(value: &Value) -> Option<u32> {
    value.as_u64()?.try_into().ok()
}

fn hex_of(value: &Value) -> Option<Vec<u8>> {
    hex::decode(value.as_str()?).ok()
}

/// B2: `PRK`.
pub fn payload_prk(dek: &[u8; 64]) -> [u8; 32] {
    extract(b"dekseal/v2 payload", dek)
}

/// B2: the key and the commitment of the payload with these first 44 bytes.
pub fn payload_keys(dek: &[u8; 64], header: &[u8]) -> ([u8; 32], [u8; 32]) {
    let okm = expand(&payload_prk(dek), &[header], 64);
    (okm[..32].try_into().unwrap(), okm[32..].try_into().unwrap())
}

/// B2: the nonce of a segment.
pub fn segment_nonce(index: usize, last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[7..11].copy_from_slice(&(index as u32).to_be_bytes());
    nonce[11] = if last { 1 } else { 0 };
    nonce
}

/// HKDF-Extract (RFC 5869, 2.2).
fn extract(salt: &[u8], ikm: &[u8]) -> [u8; 32] {
    mac(salt, &[ikm])
}

/// HKDF-Expand (RFC 5869, 2.3): T(n) = HMAC(PRK, T(n-1) | info | n). T(0) is empty.
fn expand(prk: &[u8; 32], info: &[&[u8]], length: usize) -> Vec<u8> {
    let info = info.concat();
    let mut last = Vec::new();
    let blocks = (1..=255_u8).flat_map(|number| {
        last = mac(prk, &[&last, &info, &[number]]).to_vec();
        last.clone()
    });
    blocks.take(length).collect()
}

fn expand_32(prk: &[u8; 32], info: &[&[u8]]) -> [u8; 32] {
    expand(prk, info, 32).try_into().unwrap()
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Returns ciphertext and tag.
pub fn encrypt(key: &[u8; 32], nonce: &[u8], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let nonce: &[u8; 12] = nonce.try_into().unwrap();
    let mut sealed = plaintext.to_vec();
    let tag = Aes256Gcm::new(key.into()).encrypt_inout_detached(nonce.into(), aad, sealed.as_mut_slice().into());
    sealed.extend(tag.unwrap());
    sealed
}

/// Returns the plaintext, or `None` if the input is shorter than a tag or the tag is wrong.
fn decrypt(key: &[u8; 32], nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let nonce: &[u8; 12] = nonce.try_into().unwrap();
    let (ciphertext, tag) = sealed.split_last_chunk::<16>()?;
    let mut plaintext = ciphertext.to_vec();
    let gcm = Aes256Gcm::new(key.into());
    gcm.decrypt_inout_detached(nonce.into(), aad, plaintext.as_mut_slice().into(), tag.into())
        .ok()?;
    Some(plaintext)
}
