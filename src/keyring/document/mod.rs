//! Keyring documents (FORMAT.md part C): keys as text, sealed and authenticated under a root CMK.
//!
//! A keyring file holds one document with all keys. A fleet's store holds one document for each key.

mod contents;
mod json;
#[cfg(feature = "store-keyring")]
mod newest;

use std::{collections::BTreeMap, format, sync::Arc, vec::Vec};

use rand_core::TryRng;

use self::contents::{Contents, KeyContents, RootContents, VersionContents, same_material};
#[cfg(feature = "store-keyring")]
pub(super) use self::newest::Newest;
use super::{
    key::{Key, Version},
    keyset::Keyset,
    material::SealedMaterial,
};
use crate::{
    cmk::CmkVersion,
    error::{Error, ErrorKind, FileFault, RandomnessFault},
    key_id::KeyId,
};

/// A document that is authentic, and whose material was all opened.
pub(super) struct Document<K = Keyset> {
    pub(super) keys: K,
    pub(super) edition: Edition,
    /// The root that the document is under.
    pub(super) root: Arc<CmkVersion>,
}

/// Identifies one state of a keyring: its `id`, its generation, and its MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edition {
    pub(super) id: [u8; 16],
    pub(super) generation: u64,
    pub(super) mac: [u8; 32],
}

/// Makes the `id` of a new keyring.
pub(super) fn new_id() -> Result<[u8; 16], Error> {
    let mut id = [0; 16];
    let filled = getrandom::SysRng.try_fill_bytes(&mut id);
    filled.map_err(|_| ErrorKind::Randomness(RandomnessFault::Failed))?;
    Ok(id)
}

/// Writes a document of these keys under `root`, which also seals their material.
pub(super) fn write(keys: &Keyset, id: [u8; 16], generation: u64, root: &CmkVersion) -> Result<Vec<u8>, Error> {
    write_with(keys, id, generation, root, |_, material| Ok(material.clone()))
}

/// Writes a document of these keys under `root`. Their material is sealed under `from`.
pub(super) fn write_resealed(
    keys: &Keyset,
    id: [u8; 16],
    generation: u64,
    from: &CmkVersion,
    root: &CmkVersion,
) -> Result<Vec<u8>, Error> {
    write_with(keys, id, generation, root, |version, material| {
        material.reseal(from, root, &version.cmk)
    })
}

fn write_with(
    keys: &Keyset,
    id: [u8; 16],
    generation: u64,
    root: &CmkVersion,
    seal: impl Fn(&Version, &SealedMaterial) -> Result<SealedMaterial, Error>,
) -> Result<Vec<u8>, Error> {
    // C2: no key has the ID of the root.
    if keys.info(&root.key_id()).is_ok() {
        return Err(Error::from(ErrorKind::KeyExists).with_key_id(&root.key_id()));
    }
    let versions = |key_id: &KeyId, key: &Key| -> Result<Vec<_>, Error> {
        let versions = key.versions().map(|version| {
            // A version from another keyring may lack either of them.
            let foreign = || {
                let error = Error::from(ErrorKind::ForeignKeys).with_key_id(key_id);
                error.with_key_version(version.cmk.key_version())
            };
            Ok(VersionContents {
                version: version.cmk.key_version(),
                created: version.created.ok_or_else(foreign)?,
                material: seal(version, version.sealed.as_deref().ok_or_else(foreign)?)?,
            })
        });
        versions.collect()
    };
    let entries = keys.iter().map(|(key_id, key)| {
        Ok(KeyContents {
            key_id: *key_id,
            state: key.state(),
            min_version: key.min_version,
            versions: versions(key_id, key)?,
        })
    });
    let mut entries = entries.collect::<Result<Vec<_>, Error>>()?;
    entries.sort_unstable_by_key(|entry| entry.key_id);
    let contents = Contents {
        id,
        generation,
        root: RootContents::new(root),
        keys: entries,
    };
    let mac = contents.mac(root)?;
    json::render(&contents, mac)
}

/// Reads a document under one of the `roots`, with the checks of C5 in their order. Versions of the keys that `known`
/// returns are taken from there, and not opened again.
pub(super) fn read<'a, K: FromIterator<(KeyId, Key)>>(
    text: &[u8],
    roots: &[Arc<CmkVersion>],
    known: impl Fn(&KeyId) -> Option<&'a Key>,
) -> Result<Document<K>, Error> {
    let (keys, edition, root) = authentic(text, roots)?;
    let keys = keys.into_iter().map(|key| {
        let known = known(&key.key_id);
        Ok((key.key_id, open(key, root, known)?))
    });
    Ok(Document {
        keys: keys.collect::<Result<_, Error>>()?,
        edition,
        root: Arc::clone(root),
    })
}

/// The keys of an authentic document, which were not opened yet, and its root.
fn authentic<'a>(
    text: &[u8],
    roots: &'a [Arc<CmkVersion>],
) -> Result<(Vec<KeyContents>, Edition, &'a Arc<CmkVersion>), Error> {
    let (contents, mac) = json::parse(text)?;
    let root = roots.iter().find(|root| contents.root.is(root));
    let root = root.ok_or_else(|| {
        let error = Error::from(FileFault::WrongRoot);
        let error = error.with_found(&contents.root.key_id, Some(contents.root.key_version));
        match roots.first() {
            Some(root) => error.with_key_id(&root.key_id()).with_key_version(root.key_version()),
            None => error,
        }
    })?;
    contents.verify(root, &mac)?;
    let edition = Edition {
        id: contents.id,
        generation: contents.generation,
        mac,
    };
    Ok((contents.keys, edition, root))
}

fn open(key: KeyContents, root: &CmkVersion, known: Option<&Key>) -> Result<Key, Error> {
    let mut versions = BTreeMap::new();
    for entry in key.versions {
        let known = known
            .and_then(|known| known.get(entry.version))
            .filter(|known| known.created == Some(entry.created) && known.sealed.as_deref() == Some(&entry.material));
        let version = match known {
            Some(known) => Arc::clone(known),
            None => Arc::new(Version {
                cmk: entry.material.open(root, &key.key_id, entry.version)?,
                created: Some(entry.created),
                sealed: Some(entry.material.into()),
            }),
        };
        versions.insert(entry.version, version);
    }
    let (_, current) = versions.pop_last().ok_or(FileFault::NotAKeyring)?;
    Ok(Key::from_parts(key.state, key.min_version, current, versions))
}

impl Edition {
    /// C6: returns `true` if `next` is a later state of the same keyring, and `false` if it is this state. Refuses any
    /// other state.
    pub(super) fn precedes(&self, next: &Self) -> Result<bool, Error> {
        if next.id != self.id {
            return Err(FileFault::OtherKeyring.into());
        }
        if next == self {
            return Ok(false);
        }
        if next.generation > self.generation {
            return Ok(true);
        }
        let text = format!("generation {} after generation {}", next.generation, self.generation);
        Err(Error::from(FileFault::RolledBack).with_source(text))
    }
}

/// C6: refuses keys in which a version of the `held` keys has other material, or is missing without having been
/// destroyed. Such keys come from a branch that was restored from an old copy and was changed since.
pub(super) fn check_successor(held: &Keyset, next: &Keyset) -> Result<(), Error> {
    for (key_id, key) in held.iter() {
        // A key may have been purged.
        if let Some(next) = next.get(key_id) {
            check_key_successor(key, next)?;
        }
    }
    Ok(())
}

/// C6 for one key.
pub(super) fn check_key_successor(held: &Key, next: &Key) -> Result<(), Error> {
    for version in held.versions() {
        let key_version = version.cmk.key_version();
        let kept = match next.get(key_version) {
            Some(same) if Arc::ptr_eq(version, same) => true,
            Some(other) => same_material(&version.cmk, &other.cmk),
            // The oldest versions may have been destroyed.
            None => key_version < next.oldest_version(),
        };
        if !kept {
            return Err(lost_version(key_version, next));
        }
    }
    Ok(())
}

fn lost_version(key_version: u32, next: &Key) -> Error {
    let newest = &next.current.cmk;
    let error = Error::from(FileFault::RolledBack).with_key_id(&newest.key_id());
    let error = error.with_key_version(key_version);
    error.with_newest_key_version(newest.key_version())
}
