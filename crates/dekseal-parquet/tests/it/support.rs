//! A keyring, a table, and how both are written and read.

use std::{
    collections::BTreeMap,
    error::Error,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{Float64Array, Int32Array, RecordBatch, StringArray};
use dekseal::{CmkVersion, Engine, FileKeyring, KeyId};
use dekseal_parquet::{Kms, external_key_material, file_decryption_properties};
use parquet::{
    arrow::{
        ArrowWriter,
        arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    },
    encryption::decrypt::FileDecryptionProperties,
    file::properties::WriterProperties,
};
use parquet_key_management::{
    crypto_factory::{CryptoFactory, DecryptionConfiguration, EncryptionConfiguration},
    kms::KmsConnectionConfig,
};
use tempfile::TempDir;

pub(crate) const FOOTER: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
pub(crate) const COLUMN: &str = "25abe69f-ae10-44cd-bc87-1bda1de3b7d7";
const ROOT: &str = "00000000-0000-0000-0000-00000000root";

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A keyring file with two CMKs, and a directory for Parquet files beside it.
pub(crate) struct Setup {
    pub(crate) directory: TempDir,
}

pub(crate) fn id(text: &str) -> KeyId {
    text.parse().unwrap()
}

fn root() -> CmkVersion {
    CmkVersion::new(id(ROOT), 0, &[7; 64]).unwrap()
}

impl Setup {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keyring = FileKeyring::create(directory.path().join("keyring.json"), root()).unwrap();
        keyring
            .update(|keys| {
                keys.create_key(id(FOOTER))?;
                keys.create_key(id(COLUMN))
            })
            .unwrap();
        Self { directory }
    }

    pub(crate) fn keyring(&self) -> PathBuf {
        self.directory.path().join("keyring.json")
    }

    /// The root as `tests/pyarrow_files.py` takes it.
    pub(crate) fn root(&self) -> String {
        format!("{ROOT}:0:{}", "07".repeat(64))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn engine(&self) -> Engine<FileKeyring> {
        Engine::new(FileKeyring::open(self.keyring(), root()).unwrap())
    }

    /// The KMS over the keyring of another process.
    pub(crate) fn kms_in(directory: &Path, table: &str) -> Kms<FileKeyring> {
        let keyring = FileKeyring::open(directory.join("keyring.json"), root()).unwrap();
        Kms::new(Engine::new(keyring), [("table", table)]).unwrap()
    }

    pub(crate) fn kms(&self) -> Kms<FileKeyring> {
        self.kms_of("orders")
    }

    pub(crate) fn kms_of(&self, table: &str) -> Kms<FileKeyring> {
        Self::kms_in(self.directory.path(), table)
    }

    /// Adds a version to both CMKs.
    pub(crate) fn rotate(&self) {
        let engine = self.engine();
        let rotated = engine
            .keyring()
            .update(|keys| Ok((keys.rotate(&id(FOOTER))?, keys.rotate(&id(COLUMN))?)));
        rotated.unwrap();
    }

    /// No version below this one opens.
    pub(crate) fn retire_below(&self, version: u32) {
        let engine = self.engine();
        engine
            .keyring()
            .update(|keys| {
                keys.set_min_version(&id(FOOTER), version)?;
                keys.set_min_version(&id(COLUMN), version)
            })
            .unwrap();
    }
}

/// How a file is written. Its name says so, to PyArrow too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) plaintext_footer: bool,
    pub(crate) external: bool,
    pub(crate) double: bool,
    pub(crate) bits: u32,
}

impl Form {
    /// Every form with keys of these lengths.
    pub(crate) fn all(bits: &[u32]) -> Vec<Self> {
        let mut forms = Vec::new();
        for plaintext_footer in [false, true] {
            for external in [false, true] {
                for double in [false, true] {
                    forms.extend(bits.iter().map(|bits| Self {
                        plaintext_footer,
                        external,
                        double,
                        bits: *bits,
                    }));
                }
            }
        }
        forms
    }

    pub(crate) fn name(self) -> String {
        let footer = if self.plaintext_footer {
            "plaintext"
        } else {
            "encrypted"
        };
        let material = if self.external { "external" } else { "internal" };
        let wrapping = if self.double { "double" } else { "single" };
        format!("{footer}-footer.{material}.{wrapping}.{}.parquet", self.bits)
    }

    pub(crate) fn configuration(self) -> EncryptionConfiguration {
        EncryptionConfiguration::builder(FOOTER.into())
            .add_column_key(COLUMN.into(), vec!["card".into()])
            .set_plaintext_footer(self.plaintext_footer)
            .set_double_wrapping(self.double)
            .build()
            .unwrap()
    }
}

/// The table of `tests/pyarrow_files.py`.
pub(crate) fn table() -> RecordBatch {
    let ids = Int32Array::from_iter_values(0..1000);
    let cards = StringArray::from_iter_values((0..1000).map(|number| format!("4929-{number:04}")));
    let amounts = Float64Array::from_iter_values((0..1000).map(|number| f64::from(number) / 8.0));
    RecordBatch::try_from_iter([
        ("id", Arc::new(ids) as arrow_array::ArrayRef),
        ("card", Arc::new(cards)),
        ("amount", Arc::new(amounts)),
    ])
    .unwrap()
}

pub(crate) fn connection() -> Arc<KmsConnectionConfig> {
    Arc::new(KmsConnectionConfig::default())
}

pub(crate) fn write(kms: &Kms<FileKeyring>, form: Form, path: &Path) {
    let factory = CryptoFactory::new(kms.clone());
    let keys = factory
        .file_encryption_keys(connection(), &form.configuration())
        .unwrap();
    let properties = if form.external {
        let (builder, material) = external_key_material(&keys).unwrap();
        material.write(path).unwrap();
        builder.build().unwrap()
    } else {
        keys.into_parquet_builder().build().unwrap()
    };
    let properties = WriterProperties::builder()
        .with_file_encryption_properties(properties)
        .build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), table().schema(), Some(properties)).unwrap();
    writer.write(&table()).unwrap();
    writer.close().unwrap();
}

pub(crate) fn properties(kms: &Kms<FileKeyring>, path: &Path) -> Arc<FileDecryptionProperties> {
    let factory = CryptoFactory::new(kms.clone());
    file_decryption_properties(&factory, connection(), DecryptionConfiguration::default(), path).unwrap()
}

/// Reads a file with the crate `parquet` and compares its rows.
pub(crate) fn read(kms: &Kms<FileKeyring>, path: &Path) -> Outcome<()> {
    let options = ArrowReaderOptions::new().with_file_decryption_properties(properties(kms, path));
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(File::open(path)?, options)?;
    let batches = reader.with_batch_size(1000).build()?.collect::<Result<Vec<_>, _>>()?;
    let [batch] = &batches[..] else {
        panic!("{} batches", batches.len())
    };
    same_rows(batch, path);
    Ok(())
}

/// Schemas differ in whether a column may be null, so this compares the columns.
pub(crate) fn same_rows(batch: &RecordBatch, path: &Path) {
    let columns = |batch: &RecordBatch| -> BTreeMap<String, _> {
        let names = batch
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect::<Vec<_>>();
        names.into_iter().zip(batch.columns().to_vec()).collect()
    };
    assert_eq!(columns(batch), columns(&table()), "{}", path.display());
}

/// The kind of the error of this crate inside an error.
pub(crate) fn kind(error: &(dyn Error + 'static)) -> dekseal_parquet::ErrorKind {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<dekseal_parquet::Error>() {
            return found.kind();
        }
        next = error.source();
    }
    panic!("no error of this crate in {error:?}")
}
