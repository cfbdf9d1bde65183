//! Keyrings: they hold CMKs with their versions and states.

#[cfg(feature = "file-keyring")]
mod document;
#[cfg(feature = "file-keyring")]
mod file;
#[cfg(feature = "store-keyring")]
mod fleet;
mod key;
mod keyset;
#[cfg(feature = "file-keyring")]
mod material;
mod memory;
#[cfg(feature = "store-keyring")]
pub mod store;

use alloc::sync::Arc;

use crate::{cmk::CmkVersion, error::Error, key_id::KeyId};

#[cfg(feature = "file-keyring")]
pub use self::file::FileKeyring;
#[cfg(feature = "store-keyring")]
pub use self::fleet::{Resealed, StoreCounters, StoreKeyring, StoreSettings};
pub use self::{
    key::{KeyInfo, KeyState, VersionInfo},
    keyset::Keyset,
    memory::MemoryKeyring,
};

/// A source of CMKs for an [`Engine`](crate::Engine).
///
/// A host can implement it for its own store. Both methods lend the CMK to a function and return the function's result.
/// So an implementation cannot forget to call the function, and need not share or clone a CMK.
///
/// # Errors
///
/// An implementation returns [`UnknownKey`](crate::ErrorKind::UnknownKey),
/// [`UnknownKeyVersion`](crate::ErrorKind::UnknownKeyVersion),
/// [`KeyVersionRetired`](crate::ErrorKind::KeyVersionRetired), [`KeyDisabled`](crate::ErrorKind::KeyDisabled) or
/// [`KeyPendingDeletion`](crate::ErrorKind::KeyPendingDeletion) if that is the state of the key
/// (`Err(ErrorKind::UnknownKey.into())`). It returns [`KeyringUnavailable`](crate::ErrorKind::KeyringUnavailable) if it
/// cannot answer now, and [`Error::keyring`] if its store fails in another way. The engine returns these errors to its
/// caller. If an error names no key, the engine adds the key ID and the version.
///
/// [`FileKeyring`] also returns `ErrorKind::File`, if a key is not in memory and the file cannot be
/// read, and [`RollbackUnresolved`](crate::ErrorKind::RollbackUnresolved).
///
/// # Examples
///
/// A keyring over a host's own database. Each call reads the current keys and keeps nothing. If the database is slow,
/// put a cache in front of `cmk`.
///
/// ```
/// use dekseal::{CmkVersion, Error, ErrorKind, KeyId, Keyring};
///
/// # trait Database: Send + Sync {
/// #     type Fault: std::error::Error + Send + Sync + 'static;
/// #     fn key(&self, key_id: &str) -> Result<Option<Row>, Self::Fault>;
/// #     fn material(&self, key_id: &str, version: u32) -> Result<Option<Vec<u8>>, Self::Fault>;
/// # }
/// struct Row {
///     enabled: bool,
///     pending_deletion: bool,
///     current_version: u32,
///     min_version: u32,
/// }
///
/// struct DatabaseKeyring<D>(D);
///
/// impl<D: Database> DatabaseKeyring<D> {
///     fn row(&self, key_id: &KeyId) -> Result<Row, Error> {
///         let row = self.0.key(key_id.as_str()).map_err(Error::keyring)?;
///         Ok(row.ok_or(ErrorKind::UnknownKey)?)
///     }
///
///     fn cmk(&self, key_id: &KeyId, version: u32, row: &Row) -> Result<CmkVersion, Error> {
///         let material = self.0.material(key_id.as_str(), version).map_err(Error::keyring)?;
///         let material = zeroize::Zeroizing::new(material.ok_or(ErrorKind::UnknownKeyVersion)?);
///         if version < row.min_version {
///             return Err(ErrorKind::KeyVersionRetired.into());
///         }
///         if row.pending_deletion {
///             return Err(ErrorKind::KeyPendingDeletion.into());
///         }
///         if !row.enabled {
///             return Err(ErrorKind::KeyDisabled.into());
///         }
///         CmkVersion::new(*key_id, version, &material)
///     }
/// }
///
/// impl<D: Database> Keyring for DatabaseKeyring<D> {
///     fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
///         let row = self.row(key_id)?;
///         Ok(f(&self.cmk(key_id, row.current_version, &row)?))
///     }
///
///     fn with_version<T>(&self, key_id: &KeyId, version: u32, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
///         let row = self.row(key_id)?;
///         Ok(f(&self.cmk(key_id, version, &row)?))
///     }
/// }
/// ```
pub trait Keyring: Send + Sync {
    /// Lends the version of `key_id` that seals to `f`.
    ///
    /// # Errors
    ///
    /// See the trait.
    fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error>;

    /// Lends version `key_version` of `key_id` to `f`, which opens what was sealed under it.
    ///
    /// # Errors
    ///
    /// See the trait.
    fn with_version<T>(&self, key_id: &KeyId, key_version: u32, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error>;
}

impl<K: Keyring + ?Sized> Keyring for Arc<K> {
    fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        (**self).with_current(key_id, f)
    }

    fn with_version<T>(&self, key_id: &KeyId, key_version: u32, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        (**self).with_version(key_id, key_version, f)
    }
}
