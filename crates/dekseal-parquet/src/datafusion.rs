//! DataFusion: files whose key material may be beside them, in the same object store.

use std::{fmt, sync::Arc};

use datafusion_common::{
    DataFusionError, Result,
    arrow::datatypes::SchemaRef,
    config::EncryptionFactoryOptions,
    encryption::{FileDecryptionProperties, FileEncryptionProperties},
};
use datafusion_execution::parquet_encryption::EncryptionFactory;
use dekseal::Keyring;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use parquet::encryption::decrypt::KeyRetriever;
use parquet_key_management::{
    crypto_factory::{CryptoFactory, DecryptionConfiguration},
    datafusion::{KmsEncryptionFactory, KmsEncryptionFactoryOptions},
    key_unwrapper::KeyUnwrapper,
    kms::KmsConnectionConfig,
};

use crate::{Error, ErrorKind, KeyMaterial, Kms, files::unwrapped, reference::reference};

/// The encryption factory of DataFusion for files whose key material may be beside them.
///
/// For each file that is read, it asks the object store for the key material beside the file. If there is none, the
/// file has its own. What DataFusion writes has its key material inside. If no file has key material beside it, use
/// [`KmsEncryptionFactory`] instead, which needs no such request.
///
/// # Examples
///
/// See `README.md`.
pub struct DataFusionKeys {
    inside: KmsEncryptionFactory,
    factory: CryptoFactory,
    connection: Arc<KmsConnectionConfig>,
    store: Arc<dyn ObjectStore>,
}

impl DataFusionKeys {
    /// The factory for the files in `store`, which must be the one that DataFusion reads them from.
    pub fn new<K: Keyring + 'static>(kms: &Kms<K>, store: Arc<dyn ObjectStore>) -> Self {
        let connection = Arc::new(KmsConnectionConfig::default());
        Self {
            inside: KmsEncryptionFactory::new(CryptoFactory::new(kms.clone()), Arc::clone(&connection)),
            factory: CryptoFactory::new(kms.clone()),
            connection,
            store,
        }
    }

    /// The key material beside a file, if there is some.
    async fn material(&self, file: &Path) -> Result<Option<KeyMaterial>> {
        let (directory, name) = file.as_ref().rsplit_once('/').unwrap_or(("", file.as_ref()));
        let path = Path::parse(format!("{directory}/_KEY_MATERIAL_FOR_{name}.json")).map_err(external)?;
        let found = match self.store.get(&path).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(external)?,
        };
        let text = found.bytes().await.map_err(external)?;
        Ok(Some(KeyMaterial::parse(&text).map_err(external)?))
    }
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl fmt::Debug for DataFusionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataFusionKeys").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl EncryptionFactory for DataFusionKeys {
    async fn get_file_encryption_properties(
        &self,
        config: &EncryptionFactoryOptions,
        schema: &SchemaRef,
        file: &Path,
    ) -> Result<Option<Arc<FileEncryptionProperties>>> {
        self.inside.get_file_encryption_properties(config, schema, file).await
    }

    async fn get_file_decryption_properties(
        &self,
        config: &EncryptionFactoryOptions,
        file: &Path,
    ) -> Result<Option<Arc<FileDecryptionProperties>>> {
        let options: KmsEncryptionFactoryOptions = config.to_extension_options()?;
        let configuration: DecryptionConfiguration = options.decryption.try_into()?;
        let unwrapper = self
            .factory
            .key_unwrapper(Arc::clone(&self.connection), configuration)?;
        let keys = Keys {
            unwrapper,
            material: self.material(file).await?,
            file: file.to_string(),
        };
        let properties = FileDecryptionProperties::with_key_retriever(Arc::new(keys)).build()?;
        Ok(Some(properties))
    }
}

/// The keys of one file.
struct Keys {
    unwrapper: KeyUnwrapper,
    material: Option<KeyMaterial>,
    file: String,
}

impl KeyRetriever for Keys {
    fn retrieve_key(&self, metadata: &[u8]) -> parquet::errors::Result<Vec<u8>> {
        match (reference(metadata)?, &self.material) {
            (Some(reference), Some(material)) => unwrapped(&self.unwrapper, material, &reference),
            (Some(_), None) => Err(Error::new(ErrorKind::Io, format!("of {}: there is none", self.file)).into()),
            (None, _) => Ok(self.unwrapper.unwrap_key(metadata)?),
        }
    }
}
