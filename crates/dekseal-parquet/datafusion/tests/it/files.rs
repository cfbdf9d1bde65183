//! Files that DataFusion reads and writes.

use std::{path::Path, sync::Arc};

use datafusion::{
    arrow::compute::concat_batches,
    common::config::TableParquetOptions,
    dataframe::DataFrameWriteOptions,
    datasource::{file_format::parquet::ParquetFormat, listing::ListingOptions},
    execution::object_store::ObjectStoreUrl,
    prelude::{SessionContext, col},
};
use dekseal::{ErrorKind as Refused, FileKeyring};
use dekseal_parquet::{DataFusionKeys, ErrorKind, Kms};
use parquet_key_management::{crypto_factory::DecryptionConfiguration, datafusion::KmsEncryptionFactoryOptions};

use crate::support::{Form, Outcome, Setup, kind, read as read_alone, same_rows, table, write as write_alone};

fn session(kms: &Kms<FileKeyring>) -> SessionContext {
    let session = SessionContext::new();
    let store = session
        .runtime_env()
        .object_store(ObjectStoreUrl::local_filesystem())
        .unwrap();
    let keys = Arc::new(DataFusionKeys::new(kms, store));
    session
        .runtime_env()
        .register_parquet_encryption_factory("dekseal", keys);
    session
}

fn options(form: Form) -> TableParquetOptions {
    let options = KmsEncryptionFactoryOptions::new(form.configuration(), DecryptionConfiguration::default());
    let mut parquet = TableParquetOptions::new();
    parquet.crypto.configure_factory("dekseal", &options);
    parquet
}

/// Reads a file with DataFusion and compares its rows.
pub(crate) fn read(kms: &Kms<FileKeyring>, form: Form, path: &Path) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let batches = runtime.block_on(async {
        let session = session(kms);
        let format = ParquetFormat::default()
            .with_options(options(form))
            .with_force_view_types(false);
        let listing = ListingOptions::new(Arc::new(format));
        session
            .register_listing_table("orders", path.to_str().unwrap(), listing, None, None)
            .await?;
        let sorted = session.table("orders").await?.sort_by(vec![col("id")])?;
        sorted.collect().await
    })?;
    same_rows(&concat_batches(&batches[0].schema(), &batches).unwrap(), path);
    Ok(())
}

/// Writes a file with DataFusion.
pub(crate) fn write(kms: &Kms<FileKeyring>, form: Form, path: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(async {
        let frame = session(kms).read_batch(table()).unwrap();
        let single = DataFrameWriteOptions::new().with_single_file_output(true);
        let written = frame.write_parquet(path.to_str().unwrap(), single, Some(options(form)));
        written.await.unwrap();
    });
}

#[test]
fn datafusion_reads_every_form_before_and_after_a_rotation() {
    let setup = Setup::new();
    for form in Form::all(&[128]) {
        write_alone(&setup.kms(), form, &setup.file(&form.name()));
        read(&setup.kms(), form, &setup.file(&form.name())).unwrap();
    }
    setup.rotate();
    for form in Form::all(&[128]) {
        let path = setup.file(&form.name());
        if form.external {
            dekseal_parquet::rotate_master_keys(&setup.kms(), &path).unwrap();
        }
        read(&setup.kms(), form, &path).unwrap();
    }
    setup.retire_below(1);
    for form in Form::all(&[128]) {
        let outcome = read(&setup.kms(), form, &setup.file(&form.name()));
        if form.external {
            outcome.unwrap();
        } else {
            let refused = outcome.unwrap_err();
            assert_eq!(
                kind(&*refused),
                ErrorKind::Dekseal(Refused::KeyVersionRetired),
                "{form:?}"
            );
        }
    }
}

#[test]
fn datafusion_writes_what_the_crate_parquet_reads() {
    let setup = Setup::new();
    for form in Form::all(&[128]).into_iter().filter(|form| !form.external) {
        let path = setup.file(&form.name());
        write(&setup.kms(), form, &path);
        read_alone(&setup.kms(), &path).unwrap();
        read(&setup.kms(), form, &path).unwrap();
    }
}

#[test]
fn datafusion_reads_nothing_without_the_keys() {
    let setup = Setup::new();
    for form in Form::all(&[128]) {
        let path = setup.file(&form.name());
        write_alone(&setup.kms(), form, &path);
        let refused = read(&setup.kms_of("customers"), form, &path).unwrap_err();
        assert_eq!(
            kind(&*refused),
            ErrorKind::Dekseal(Refused::AuthenticationFailed),
            "{form:?}"
        );
        if form.external {
            std::fs::remove_file(dekseal_parquet::KeyMaterial::path(&path).unwrap()).unwrap();
            let refused = read(&setup.kms(), form, &path).unwrap_err();
            assert_eq!(kind(&*refused), ErrorKind::Io, "{form:?}");
        }
    }
}
