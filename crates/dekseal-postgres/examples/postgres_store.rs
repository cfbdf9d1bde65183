//! Seals and opens a DEK under a key that a fleet shares, and lists the keys:
//!
//! ```sh
//! head -c 64 /dev/urandom >root.key # once, and kept: without it the database is worth nothing
//! cargo run --example postgres_store -- "host=localhost dbname=keys user=me" root.key
//! ```

use std::{env, error::Error, fs, time::Duration};

use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, StoreKeyring, store::Call};
use dekseal_postgres::{Options, PostgresStore};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(connection), Some(root)) = (arguments.next(), arguments.next()) else {
        return Err("usage: postgres_store CONNECTION ROOT".into());
    };
    let store = PostgresStore::new(Options::new(&connection)?)?;
    store.create_schema(&Call::within(Duration::from_secs(5)))?;
    let root_id = "00000000-0000-0000-0000-00000000root".parse()?;
    let root = CmkVersion::new(root_id, 0, &fs::read(root)?)?;
    let keyring = StoreKeyring::new(store, root);
    // Hears at once what other processes change.
    keyring.start_refresher()?;

    let engine = Engine::new(keyring);
    let keyring = engine.keyring();
    let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    match keyring.list(None, 1)?.is_empty() {
        true => keyring.update(&key_id, |keys| keys.create_key(key_id))?,
        false => drop(keyring.update(&key_id, |keys| keys.rotate(&key_id))?),
    }
    let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    let (dek, sealed) = engine.create_dek(&key_id, &context)?;
    assert_eq!(engine.decrypt_dek(&key_id, &context, &sealed)?, dek);

    for key_id in keyring.list(None, 1000)? {
        println!("{key_id} version {}", keyring.info(&key_id)?.current_version);
    }
    Ok(())
}
