//! Seals and opens a DEK under a key that all processes of this machine share, and lists the keys:
//!
//! ```sh
//! head -c 64 /dev/urandom >root.key # once, and kept: without it the database is worth nothing
//! cargo run --example sqlite_store -- keys.db root.key
//! ```

use std::{env, error::Error, fs};

use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, StoreKeyring};
use dekseal_sqlite::SqliteStore;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    let (Some(database), Some(root)) = (arguments.next(), arguments.next()) else {
        return Err("usage: sqlite_store DATABASE ROOT".into());
    };
    let root_id = "00000000-0000-0000-0000-00000000root".parse()?;
    let root = CmkVersion::new(root_id, 0, &fs::read(root)?)?;
    let keyring = StoreKeyring::new(SqliteStore::open(database)?, root);
    // Sees within a minute what other processes change, without a call that waits for it.
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
