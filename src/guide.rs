//! Guides: one task each, with code that is compiled and run.
//!
//! | guide | task |
//! |---|---|
//! | [`storing_cmks`] | store CMKs in the environment, a file or a database, with an HSM or a cloud KMS as the root |
//! | [`fleet`] | share CMKs among many machines through a database |
//! | [`columns_and_files`] | encrypt database columns and files |
//! | [`rotation`] | rotate a CMK, and rewrap a million blobs |
//! | [`restore`] | back up and restore a keyring file |
//! | [`kms_api`] | serve the KMS API over HTTP |
//! | [`migrating`] | move from a cloud KMS |
//! | [`tenants`] | separate tenants, and delete one |
//! | [`logging`] | log safely, and choose alerts |
//! | [`errors`] | find out what an error means and what to do |
//! | [`glossary`] | look up a term |
//!
//! These modules contain only text. Their code is in `tests/it/guide` in the repository.

/// Makes a module of a guide. A file in `docs` ends with definitions such as `[rotation]: rotation.md`, which GitHub
/// uses. The definitions here come before them, and Markdown uses the first definition of a name.
macro_rules! guide {
    ($name:ident, $file:literal) => {
        /// [columns-and-files]: crate::guide::columns_and_files
        /// [errors]: crate::guide::errors
        /// [fleet]: crate::guide::fleet
        /// [glossary]: crate::guide::glossary
        /// [kms-api]: crate::guide::kms_api
        /// [kms-api-reference]: crate::api
        /// [logging]: crate::guide::logging
        /// [migrating]: crate::guide::migrating
        /// [restore]: crate::guide::restore
        /// [rotation]: crate::guide::rotation
        /// [storing-cmks]: crate::guide::storing_cmks
        /// [tenants]: crate::guide::tenants
        ///
        #[cfg(not(doctest))]
        #[doc = include_str!($file)]
        pub mod $name {}
    };
}

guide!(storing_cmks, "../docs/guide/storing-cmks.md");
guide!(fleet, "../docs/guide/fleet.md");
guide!(columns_and_files, "../docs/guide/columns-and-files.md");
guide!(rotation, "../docs/guide/rotation.md");
guide!(restore, "../docs/guide/restore.md");
guide!(migrating, "../docs/guide/migrating.md");
guide!(tenants, "../docs/guide/tenants.md");
guide!(kms_api, "../docs/guide/kms-api.md");
guide!(logging, "../docs/guide/logging.md");
guide!(errors, "../docs/errors.md");
guide!(glossary, "../docs/glossary.md");
