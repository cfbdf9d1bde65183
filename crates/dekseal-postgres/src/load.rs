//! Loads keys in an async host.

use std::sync::Arc;

use dekseal::{Error, KeyId, StoreFault, StoreKeyring};

use crate::PostgresStore;

/// [`StoreKeyring::load`] for an async host: waits for the database without blocking the thread of the task.
///
/// An async host calls this before the call of the engine, if [`is_ready`](StoreKeyring::is_ready) says that the call
/// would need the database. It works with every async runtime, because it waits on a thread of the store. If the future
/// is dropped, the query continues.
///
/// # Errors
///
/// The errors of [`StoreKeyring::load`]; no others.
///
/// # Examples
///
/// ```no_run
/// use std::sync::Arc;
///
/// use dekseal::{Dek, EncryptionContext, Engine, Error, KeyId, SealedDek, StoreKeyring};
/// use dekseal_postgres::{PostgresStore, load};
///
/// type Fleet = Engine<Arc<StoreKeyring<PostgresStore>>>;
///
/// async fn open(engine: &Fleet, sealed: &SealedDek) -> Result<Dek, Error> {
///     let (key_id, keyring) = (sealed.key_id(), engine.keyring());
///     if !keyring.is_ready_for(&key_id, sealed.key_version()) {
///         load(keyring, key_id).await?;
///     }
///     engine.decrypt_dek(&key_id, &EncryptionContext::none(), sealed)
/// }
/// ```
pub async fn load(keyring: &Arc<StoreKeyring<PostgresStore>>, key_id: KeyId) -> Result<(), Error> {
    let runtime = keyring.store().runtime();
    let loading = Arc::clone(keyring);
    let load = runtime.spawn_blocking(move || loading.load(&key_id));
    // `load` does not panic, and the store's runtime lives as long as the keyring in the closure.
    load.await
        .unwrap_or_else(|_| Err(Error::from(StoreFault::Unavailable).with_key_id(&key_id)))
}
