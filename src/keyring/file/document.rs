//! The JSON of a keyring file, and its MAC (FORMAT.md part C).

use std::{
    boxed::Box,
    collections::BTreeMap,
    fmt::Write,
    string::{String, ToString},
    sync::Arc,
    time::{Duration, SystemTime},
    vec::Vec,
};

use serde::{Deserialize, Serialize};

use super::super::{
    key::{Key, KeyState, Version},
    keyset::Keyset,
};
use crate::{
    blob::SealedDek,
    cmk::CmkVersion,
    context::EncryptionContext,
    dek::Dek,
    error::{Error, ErrorKind, FileFault},
    key_id::KeyId,
    labels,
    secret::{Secret, ct_eq},
    sha256::HmacKey,
};

/// What the field `format` says.
const FORMAT: &str = "dekseal keyring";
/// The version of the format.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    version: u32,
    generation: u64,
    root: RootEntry,
    keys: Vec<KeyEntry>,
    mac: Hex<32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootEntry {
    key_id: String,
    key_version: u32,
    check: Hex<32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    key_id: String,
    state: StateEntry,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[expect(
        clippy::box_collection,
        reason = "an empty place for a String has room for what the stack held before: derived keys"
    )]
    deletion: Option<Box<String>>,
    min_version: u32,
    versions: Vec<VersionEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StateEntry {
    Enabled,
    Disabled,
    PendingDeletion,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VersionEntry {
    version: u32,
    material_length: u8,
    sealed: Hex<{ SealedDek::LEN }>,
}

/// Bytes as upper-case hex; either case is read.
#[derive(Clone, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
struct Hex<const N: usize>([u8; N]);

/// As much of a document as every version of the format has.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
}

/// The material of one version, sealed under the root: as the 64 bytes of a DEK, filled up with zeros.
#[derive(Clone, PartialEq)]
pub(in super::super) struct Stored {
    length: u8,
    sealed: SealedDek,
}

/// The file of these keys, in its `generation`.
pub(super) fn write(keys: &Keyset, root: &CmkVersion, generation: u64) -> Result<Vec<u8>, Error> {
    write_with(keys, root, generation, |_, stored| Ok(stored.clone()))
}

/// The file of these keys under another root.
pub(super) fn write_resealed(
    keys: &Keyset,
    from: &CmkVersion,
    root: &CmkVersion,
    generation: u64,
) -> Result<Vec<u8>, Error> {
    write_with(keys, root, generation, |version, stored| {
        stored.reseal(from, root, &version.cmk)
    })
}

fn write_with(
    keys: &Keyset,
    root: &CmkVersion,
    generation: u64,
    store: impl Fn(&Version, &Stored) -> Result<Stored, Error>,
) -> Result<Vec<u8>, Error> {
    // C2: the root's own ID is no key's.
    if keys.info(&root.key_id()).is_ok() {
        return Err(ErrorKind::KeyExists.into());
    }
    let entries = keys.iter().map(|(key_id, key)| KeyEntry::of(key_id, key, &store));
    let mut entries: Vec<_> = entries.collect::<Result<_, _>>()?;
    entries.sort_unstable_by(|a, b| a.key_id.cmp(&b.key_id));
    let mut document = Document {
        format: FORMAT.into(),
        version: VERSION,
        generation,
        root: RootEntry {
            key_id: root.key_id().to_string(),
            key_version: root.key_version(),
            check: Hex(check(root)),
        },
        keys: entries,
        mac: Hex([0; 32]),
    };
    document.mac = Hex(mac(root, &document.message()?));
    let mut text = serde_json::to_vec_pretty(&document).map_err(Error::keyring)?;
    text.push(b'\n');
    Ok(text)
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Stamp {
    pub(super) generation: u64,
    mac: [u8; 32],
}

/// The keys of a file, and its stamp. A version that is among the `known` ones is not opened again.
pub(super) fn read(text: &[u8], root: &CmkVersion, known: &Keyset) -> Result<(Keyset, Stamp), Error> {
    let document = parse(text)?;
    let RootEntry {
        key_id,
        key_version,
        check,
    } = &document.root;
    let same_root = *key_id == root.key_id().as_str() && *key_version == root.key_version();
    if !same_root || !ct_eq(&check.0, &self::check(root)) {
        return Err(FileFault::WrongRoot.into());
    }
    if !ct_eq(&document.mac.0, &mac(root, &document.message()?)) {
        return Err(FileFault::Changed.into());
    }
    let mut keys = Keyset::new();
    for entry in &document.keys {
        let key_id: KeyId = entry.key_id.parse()?;
        if key_id == root.key_id() {
            return Err(FileFault::NotAKeyring.into());
        }
        keys.insert(key_id, entry.key(&key_id, root, known)?);
    }
    let stamp = Stamp {
        generation: document.generation,
        mac: document.mac.0,
    };
    Ok((keys, stamp))
}

/// C1: the value that tells the root of a file.
fn check(root: &CmkVersion) -> [u8; 32] {
    let mut check = [0; 32];
    root.derive(labels::KEYRING_CHECK, &mut check);
    check
}

/// C3: the MAC of a file under `root`.
fn mac(root: &CmkVersion, message: &[u8]) -> [u8; 32] {
    let mut key = Secret::<32>::zeroed();
    root.derive(labels::KEYRING_MAC, &mut key);
    let mut mac = [0; 32];
    HmacKey::new(&key).mac_of(message, &mut mac);
    mac
}

fn parse(text: &[u8]) -> Result<Document, Error> {
    match serde_json::from_slice::<Document>(text) {
        Ok(document) if document.format == FORMAT && document.version == VERSION => Ok(document),
        Ok(document) if document.format == FORMAT => Err(FileFault::UnknownFormat.into()),
        Ok(_) => Err(FileFault::NotAKeyring.into()),
        Err(error) if error.is_eof() => Err(FileFault::Truncated.into()),
        // Fields may differ in another version of the format.
        Err(_) => match serde_json::from_slice::<Head>(text) {
            Ok(head) if head.format == FORMAT && head.version != u64::from(VERSION) => {
                Err(FileFault::UnknownFormat.into())
            }
            _ => Err(FileFault::NotAKeyring.into()),
        },
    }
}

impl Document {
    /// C3: what the MAC is of. It is made of what was read, so that white space and the case of hex carry no meaning.
    fn message(&self) -> Result<Vec<u8>, Error> {
        let mut message = Vec::new();
        message.extend(self.version.to_be_bytes());
        message.extend(self.generation.to_be_bytes());
        message.extend(count(&self.keys)?.to_be_bytes());
        for key in &self.keys {
            let key_id: KeyId = key.key_id.parse().map_err(|_| FileFault::NotAKeyring)?;
            let (state, deletion) = match key.state()? {
                KeyState::Enabled => (0, 0),
                KeyState::Disabled => (1, 0),
                KeyState::PendingDeletion { at } => (2, at),
            };
            message.extend(key_id.as_bytes());
            message.push(state);
            message.extend(deletion.to_be_bytes());
            message.extend(key.min_version.to_be_bytes());
            message.extend(count(&key.versions)?.to_be_bytes());
            for version in &key.versions {
                message.extend(version.version.to_be_bytes());
                message.push(version.material_length);
                message.extend(version.sealed.0);
            }
        }
        // In order, so that no entry stands twice and one keyring has one message.
        let in_order = self.keys.is_sorted_by(|a, b| a.key_id < b.key_id)
            && self
                .keys
                .iter()
                .all(|key| key.versions.is_sorted_by(|a, b| a.version < b.version));
        if in_order {
            Ok(message)
        } else {
            Err(FileFault::NotAKeyring.into())
        }
    }
}

fn count<T>(entries: &[T]) -> Result<u32, Error> {
    Ok(u32::try_from(entries.len()).map_err(|_| FileFault::TooLarge)?)
}

impl KeyEntry {
    fn of(
        key_id: &KeyId,
        key: &Key,
        store: &impl Fn(&Version, &Stored) -> Result<Stored, Error>,
    ) -> Result<Self, Error> {
        let (state, deletion) = match key.state {
            KeyState::Enabled => (StateEntry::Enabled, None),
            KeyState::Disabled => (StateEntry::Disabled, None),
            KeyState::PendingDeletion { at } => (StateEntry::PendingDeletion, Some(Box::new(date(at)?))),
        };
        let versions = key.versions().map(|version| {
            // Each was sealed when it was made or read, unless it is not from here.
            let stored = store(version, version.stored.as_deref().ok_or(ErrorKind::ForeignKeys)?)?;
            Ok(VersionEntry {
                version: version.cmk.key_version(),
                material_length: stored.length,
                sealed: Hex(*stored.sealed.as_bytes()),
            })
        });
        Ok(Self {
            key_id: key_id.to_string(),
            state,
            deletion,
            min_version: key.min_version,
            versions: versions.collect::<Result<_, Error>>()?,
        })
    }

    fn state(&self) -> Result<KeyState, Error> {
        match (&self.state, &self.deletion) {
            (StateEntry::Enabled, None) => Ok(KeyState::Enabled),
            (StateEntry::Disabled, None) => Ok(KeyState::Disabled),
            (StateEntry::PendingDeletion, Some(date)) => Ok(KeyState::PendingDeletion { at: seconds(date)? }),
            _ => Err(FileFault::NotAKeyring.into()),
        }
    }

    fn key(&self, key_id: &KeyId, root: &CmkVersion, known: &Keyset) -> Result<Key, Error> {
        let mut versions = BTreeMap::new();
        for entry in &self.versions {
            let stored = Stored {
                length: entry.material_length,
                sealed: SealedDek::from_bytes(&entry.sealed.0).map_err(|_| FileFault::Changed)?,
            };
            let known = known
                .version(key_id, entry.version)
                .filter(|known| known.stored.as_deref() == Some(&stored));
            let version = match known {
                Some(known) => Arc::clone(known),
                None => Arc::new(stored.open(root, key_id, entry.version)?),
            };
            versions.insert(entry.version, version);
        }
        let (_, current) = versions.pop_last().ok_or(FileFault::NotAKeyring)?;
        if self.min_version > current.cmk.key_version() {
            return Err(FileFault::NotAKeyring.into());
        }
        Ok(Key::of(self.state()?, self.min_version, current, versions))
    }
}

impl Stored {
    /// C2: the material, filled up with zeros to the 64 bytes of a DEK, in a context that says whose it is.
    pub(in super::super) fn seal(
        root: &CmkVersion,
        key_id: &KeyId,
        version: u32,
        material: &[u8],
    ) -> Result<Self, Error> {
        let mut padded = Dek::zeroed();
        let slot = padded.expose_mut().get_mut(..material.len());
        slot.ok_or(ErrorKind::InvalidMaterial)?.copy_from_slice(material);
        let length = u8::try_from(material.len()).map_err(|_| ErrorKind::InvalidMaterial)?;
        Ok(Self {
            length,
            sealed: root.seal(&context(key_id, version, length)?, &padded),
        })
    }

    fn open(self, root: &CmkVersion, key_id: &KeyId, version: u32) -> Result<Version, Error> {
        let mut padded = Dek::zeroed();
        root.open_into(&context(key_id, version, self.length)?, &self.sealed, &mut padded)
            .map_err(|_| FileFault::Changed)?;
        let material = padded
            .expose_secret()
            .get(..self.length.into())
            .ok_or(FileFault::Changed)?;
        Ok(Version {
            cmk: CmkVersion::new(*key_id, version, material).map_err(|_| FileFault::Changed)?,
            stored: Some(Box::new(self)),
        })
    }

    /// The same material, sealed under another root.
    fn reseal(&self, from: &CmkVersion, to: &CmkVersion, whose: &CmkVersion) -> Result<Self, Error> {
        let context = context(&whose.key_id(), whose.key_version(), self.length)?;
        let mut padded = Dek::zeroed();
        from.open_into(&context, &self.sealed, &mut padded)?;
        Ok(Self {
            length: self.length,
            sealed: to.seal(&context, &padded),
        })
    }
}

fn context(key_id: &KeyId, version: u32, length: u8) -> Result<EncryptionContext, Error> {
    EncryptionContext::from_pairs([
        ("purpose", "dekseal keyring"),
        ("key_id", key_id.as_str()),
        ("key_version", &version.to_string()),
        ("material_length", &length.to_string()),
    ])
}

/// As a person reads it: `2026-12-31T23:59:59Z`.
fn date(seconds: u64) -> Result<String, Error> {
    let time = SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .ok_or(ErrorKind::Keyring)?;
    let mut date = String::new();
    write!(date, "{}", humantime::format_rfc3339_seconds(time)).map_err(Error::keyring)?;
    Ok(date)
}

fn seconds(date: &str) -> Result<u64, Error> {
    let time = humantime::parse_rfc3339(date).map_err(|_| FileFault::NotAKeyring)?;
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| FileFault::NotAKeyring)?;
    let seconds = since.as_secs();
    // One date is written in one way.
    if self::date(seconds)? == date {
        Ok(seconds)
    } else {
        Err(FileFault::NotAKeyring.into())
    }
}

impl<const N: usize> From<Hex<N>> for String {
    fn from(Hex(bytes): Hex<N>) -> Self {
        base16ct::upper::encode_string(&bytes)
    }
}

impl<const N: usize> TryFrom<String> for Hex<N> {
    type Error = &'static str;

    fn try_from(digits: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; N];
        match base16ct::mixed::decode(digits, &mut bytes) {
            Ok(decoded) if decoded.len() == N => Ok(Self(bytes)),
            _ => Err("not as many hex digits as it takes"),
        }
    }
}

impl From<FileFault> for Error {
    fn from(fault: FileFault) -> Self {
        ErrorKind::File(fault).into()
    }
}
