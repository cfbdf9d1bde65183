//! Reading and writing with the crate `parquet`, where key material may be beside the file.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use parquet::encryption::{
    decrypt::{FileDecryptionProperties, KeyRetriever},
    encrypt::{EncryptionPropertiesBuilder, FileEncryptionProperties},
};
use parquet_key_management::{
    crypto_factory::{CryptoFactory, DecryptionConfiguration},
    encryption_keys::FileEncryptionKeys,
    key_unwrapper::KeyUnwrapper,
    kms::KmsConnectionConfig,
};

use crate::{Error, KeyMaterial, reference::reference};

/// The properties for reading a Parquet file, with its key material in the file or beside it.
///
/// The key material beside the file is read when the first key is needed.
///
/// # Errors
///
/// Those of [`CryptoFactory::key_unwrapper`]. Reading the file fails with an [`Error`] inside if its keys do not open.
///
/// # Examples
///
/// See `README.md`.
pub fn file_decryption_properties(
    factory: &CryptoFactory,
    connection: Arc<KmsConnectionConfig>,
    configuration: DecryptionConfiguration,
    parquet: impl Into<PathBuf>,
) -> parquet::errors::Result<Arc<FileDecryptionProperties>> {
    let keys = Keys {
        unwrapper: factory.key_unwrapper(connection, configuration)?,
        parquet: parquet.into(),
        material: OnceLock::new(),
    };
    FileDecryptionProperties::with_key_retriever(Arc::new(keys)).build()
}

/// Moves the key material of new keys out of the Parquet file that they are for.
///
/// Write the key material with [`KeyMaterial::write`] before the Parquet file: without it nobody can read that file.
///
/// # Errors
///
/// [`ErrorKind::KeyMaterial`](crate::ErrorKind::KeyMaterial) if the metadata of a key is no key material. No others.
///
/// # Examples
///
/// See `README.md`.
pub fn external_key_material(keys: &FileEncryptionKeys) -> Result<(EncryptionPropertiesBuilder, KeyMaterial), Error> {
    let mut material = KeyMaterial::default();
    let footer = keys.footer_key();
    let mut builder = FileEncryptionProperties::builder(footer.key().to_vec())
        .with_footer_key_metadata(material.take_out("footerKey", footer.metadata())?)
        .with_plaintext_footer(keys.plaintext_footer());
    for (number, (column, key)) in keys.column_keys().enumerate() {
        let metadata = material.take_out(&format!("columnKey{number}"), key.metadata())?;
        builder = builder.with_column_key_and_metadata(column, key.key().to_vec(), metadata);
    }
    Ok((builder, material))
}

/// The keys of one file.
struct Keys {
    unwrapper: KeyUnwrapper,
    parquet: PathBuf,
    material: OnceLock<KeyMaterial>,
}

impl Keys {
    fn material(&self) -> Result<&KeyMaterial, Error> {
        if let Some(material) = self.material.get() {
            return Ok(material);
        }
        let material = KeyMaterial::read(Path::new(&self.parquet))?;
        Ok(self.material.get_or_init(|| material))
    }
}

impl KeyRetriever for Keys {
    fn retrieve_key(&self, metadata: &[u8]) -> parquet::errors::Result<Vec<u8>> {
        match reference(metadata)? {
            Some(reference) => unwrapped(&self.unwrapper, self.material()?, &reference),
            None => Ok(self.unwrapper.unwrap_key(metadata)?),
        }
    }
}

/// Unwraps the key with this reference.
pub(crate) fn unwrapped(
    unwrapper: &KeyUnwrapper,
    material: &KeyMaterial,
    reference: &str,
) -> parquet::errors::Result<Vec<u8>> {
    Ok(unwrapper.unwrap_key(&material.internal(reference)?)?)
}
