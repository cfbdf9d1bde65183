//! DataFusion writes a table to encrypted Parquet files and reads it back.

use std::sync::Arc;

use datafusion::{
    arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray},
    common::config::TableParquetOptions,
    dataframe::DataFrameWriteOptions,
    datasource::{file_format::parquet::ParquetFormat, listing::ListingOptions},
    prelude::*,
};
use dekseal::{Engine, KeyId, Keyset, MemoryKeyring};
use dekseal_parquet::Kms;
use parquet_key_management::{
    crypto_factory::{CryptoFactory, DecryptionConfiguration, EncryptionConfiguration},
    datafusion::{KmsEncryptionFactory, KmsEncryptionFactoryOptions},
    kms::KmsConnectionConfig,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Two CMKs. A service keeps its keyring in a file or a database.
    let (footer_id, card_id) = (KeyId::generate()?, KeyId::generate()?);
    let mut keys = Keyset::new();
    keys.create_key(footer_id)?;
    keys.create_key(card_id)?;
    let engine = Engine::new(MemoryKeyring::new(keys));

    // The pairs say what the files are for. The keys of these files open with the same pairs only.
    let kms = Kms::new(engine, [("table", "orders")])?;
    let factory = KmsEncryptionFactory::new(CryptoFactory::new(kms), Arc::new(KmsConnectionConfig::default()));
    let session = SessionContext::new();
    session
        .runtime_env()
        .register_parquet_encryption_factory("dekseal", Arc::new(factory));

    // The column `card` has its own CMK. The other columns and the footer share one.
    let encryption = EncryptionConfiguration::builder(footer_id.to_string())
        .add_column_key(card_id.to_string(), vec!["card".into()])
        .set_double_wrapping(false)
        .build()?;
    let mut options = TableParquetOptions::new();
    let keys = KmsEncryptionFactoryOptions::new(encryption, DecryptionConfiguration::default());
    options.crypto.configure_factory("dekseal", &keys);

    let directory = tempfile::tempdir()?;
    let path = format!("{}/orders/", directory.path().display());
    let orders = session.read_batch(RecordBatch::try_from_iter([
        ("id", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef),
        ("card", Arc::new(StringArray::from(vec!["4929-1111", "4929-2222"]))),
    ])?)?;
    orders
        .write_parquet(&path, DataFrameWriteOptions::new(), Some(options.clone()))
        .await?;

    // Without the keys, DataFusion reads nothing.
    assert!(
        session
            .read_parquet(&path, ParquetReadOptions::default())
            .await
            .is_err()
    );

    let listing = ListingOptions::new(Arc::new(ParquetFormat::default().with_options(options)));
    session
        .register_listing_table("orders", &path, listing, None, None)
        .await?;
    let card = session
        .table("orders")
        .await?
        .filter(col("id").eq(lit(2)))?
        .select_columns(&["card"])?;
    assert!(card.to_string().await?.contains("4929-2222"));
    Ok(())
}
