//! Key material beside a Parquet file, in the form of PyArrow and parquet-java.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use dekseal::Keyring;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Error, ErrorKind, Kms, sealed_dek};

/// The key material of one Parquet file, which is kept beside the file instead of in it.
///
/// Only such material can be moved to another version of a CMK, because a Parquet file is never changed. The file is
/// `_KEY_MATERIAL_FOR_` and the name of the Parquet file, with `.json` at the end.
///
/// # Examples
///
/// `README.md` shows how a file is written, rotated and read.
///
/// ```
/// use dekseal_parquet::KeyMaterial;
///
/// let path = KeyMaterial::path("orders/1.parquet".as_ref()).unwrap();
/// assert_eq!(path, std::path::Path::new("orders/_KEY_MATERIAL_FOR_1.parquet.json"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyMaterial {
    /// By reference, such as `footerKey`: a JSON object as text.
    pub(crate) entries: BTreeMap<String, String>,
}

/// What is needed of the JSON of one key. The other fields stay as they are.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    key_material_type: String,
    #[serde(rename = "masterKeyID")]
    master_key_id: String,
    double_wrapping: bool,
    #[serde(rename = "wrappedDEK")]
    wrapped_dek: String,
    #[serde(rename = "wrappedKEK")]
    wrapped_kek: Option<String>,
}

/// The only type of key material.
pub(crate) const TYPE: &str = "PKMT1";

impl KeyMaterial {
    /// The path of the key material of a Parquet file, or `None` if the path has no file name in UTF-8.
    #[must_use]
    pub fn path(parquet: &Path) -> Option<PathBuf> {
        let name = parquet.file_name()?.to_str()?;
        Some(parquet.with_file_name(format!("_KEY_MATERIAL_FOR_{name}.json")))
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyMaterial`] if the text is of another form. No others.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let entries =
            serde_json::from_slice(text).map_err(|error| unknown("not a JSON object of strings").with(error))?;
        let material = Self { entries };
        for reference in material.entries.keys() {
            material.wrapped(reference)?;
        }
        Ok(material)
    }

    /// The text of the file.
    #[must_use]
    pub fn to_json(&self) -> String {
        // A map of strings is always JSON.
        Value::from_iter(self.entries.iter().map(|(name, entry)| (name.as_str(), entry.as_str()))).to_string()
    }

    /// Reads the key material of a Parquet file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`], and [`ErrorKind::KeyMaterial`] if the text is of another form. No others.
    pub fn read(parquet: &Path) -> Result<Self, Error> {
        let path = Self::path(parquet).ok_or_else(|| no_name(parquet))?;
        Self::parse(&fs::read(&path).map_err(|error| failed(&path, error))?)
    }

    /// Writes the key material of a Parquet file, which may have some already. It is synced, and replaces what is there
    /// in one step: a crash leaves the old material or the new.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`], and then nothing was changed, unless only the last sync of the directory failed. No others.
    pub fn write(&self, parquet: &Path) -> Result<(), Error> {
        let path = Self::path(parquet).ok_or_else(|| no_name(parquet))?;
        self.replace(&path).map_err(|error| failed(&path, error))
    }

    fn replace(&self, path: &Path) -> std::io::Result<()> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".KEY_MATERIAL_").suffix(".tmp");
        // As readable as any other new file: the keys are wrapped.
        #[cfg(unix)]
        builder.permissions(<fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666));
        let mut file = builder.tempfile_in(directory)?;
        file.write_all(self.to_json().as_bytes())?;
        // Or as readable as the material that it replaces.
        match fs::metadata(path) {
            Ok(old) => file.as_file().set_permissions(old.permissions())?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        file.as_file().sync_all()?;
        file.persist(path)?;
        #[cfg(unix)]
        fs::File::open(directory)?.sync_all()?;
        Ok(())
    }

    /// The wrapped keys by reference: under which CMK, and in what form.
    ///
    /// With double wrapping this is the key-encryption key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyReference`] and [`ErrorKind::KeyMaterial`]. No others.
    pub(crate) fn wrapped(&self, reference: &str) -> Result<(Entry, &'static str), Error> {
        let entry = self.entries.get(reference);
        let entry = entry.ok_or_else(|| Error::new(ErrorKind::KeyReference, reference))?;
        let entry: Entry = serde_json::from_str(entry).map_err(|error| unknown(reference).with(error))?;
        if entry.key_material_type != TYPE {
            return Err(unknown(&format!("{reference} is not of the type {TYPE}")));
        }
        if entry.double_wrapping && entry.wrapped_kek.is_none() {
            return Err(unknown(&format!("{reference} has no wrapped key-encryption key")));
        }
        let field = if entry.double_wrapping {
            "wrappedKEK"
        } else {
            "wrappedDEK"
        };
        Ok((entry, field))
    }

    /// The sealed DEK of each wrapped key, by reference. They name the CMKs and their versions.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyMaterial`], [`ErrorKind::WrappedKey`] and [`ErrorKind::Dekseal`]. No others.
    pub fn sealed_deks(&self) -> Result<BTreeMap<&str, dekseal::SealedDek>, Error> {
        let sealed = self.entries.keys().map(|reference| {
            let (entry, _) = self.wrapped(reference)?;
            Ok((reference.as_str(), sealed_dek(entry.wrapped_key())?))
        });
        sealed.collect()
    }

    /// Rewraps every key under the current version of its CMK. Returns how many keys that changed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyMaterial`], and the errors of [`Kms::rewrap`]. No others. After an error nothing was changed.
    pub fn rotate<K: Keyring>(&mut self, kms: &Kms<K>) -> Result<usize, Error> {
        let mut entries = BTreeMap::new();
        let mut changed = Vec::new();
        for (reference, text) in &self.entries {
            let (entry, field) = self.wrapped(reference)?;
            let old = entry.wrapped_key();
            let new = kms.rewrap(old, &entry.master_key_id)?;
            if new != old {
                changed.push(reference);
            }
            let mut fields: Map<String, Value> =
                serde_json::from_str(text).map_err(|error| unknown(reference).with(error))?;
            fields.insert(field.into(), new.into());
            entries.insert(reference.clone(), Value::from(fields).to_string());
        }
        let changed = changed.len();
        self.entries = entries;
        Ok(changed)
    }
}

impl Entry {
    /// What the KMS wrapped.
    fn wrapped_key(&self) -> &str {
        let kek = self.wrapped_kek.as_deref().filter(|_| self.double_wrapping);
        kek.unwrap_or(&self.wrapped_dek)
    }
}

/// Rewraps every key of a Parquet file whose key material is beside it, under the current versions of their CMKs.
/// Returns how many keys that changed. If there are none, nothing is written.
///
/// This is what `rotate_master_keys` is in PyArrow and parquet-java. Here the Parquet keys and the key-encryption keys
/// stay the same.
///
/// # Errors
///
/// Those of [`KeyMaterial::read`], [`KeyMaterial::rotate`] and [`KeyMaterial::write`]. No others.
pub fn rotate_master_keys<K: Keyring>(kms: &Kms<K>, parquet: impl AsRef<Path>) -> Result<usize, Error> {
    let parquet = parquet.as_ref();
    let mut material = KeyMaterial::read(parquet)?;
    let changed = material.rotate(kms)?;
    if changed > 0 {
        material.write(parquet)?;
    }
    Ok(changed)
}

pub(crate) fn unknown(what: &str) -> Error {
    Error::new(ErrorKind::KeyMaterial, what)
}

fn no_name(parquet: &Path) -> Error {
    Error::new(
        ErrorKind::Io,
        format!("of {}: the path has no file name", parquet.display()),
    )
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("{}: {error}", path.display())).with(error)
}
