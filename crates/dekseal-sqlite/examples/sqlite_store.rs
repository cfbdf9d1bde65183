//! Lists the keys in a database: `cargo run --example sqlite_store -- keys.db`.

use std::{env, error::Error, time::Duration};

use dekseal::store::{Call, KeyStore};
use dekseal_sqlite::SqliteStore;

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args_os().nth(1).ok_or("usage: sqlite_store PATH")?;
    let store = SqliteStore::open(path)?;
    let mut last = None;
    loop {
        let page = store.list(last.as_ref(), 1000, &Call::within(Duration::from_secs(5)))?;
        for key_id in &page {
            println!("{key_id}");
        }
        last = page.last().copied();
        if last.is_none() {
            return Ok(());
        }
    }
}
