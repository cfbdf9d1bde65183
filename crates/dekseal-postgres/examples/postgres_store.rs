//! Makes the table and lists its keys: `cargo run --example postgres_store -- "host=localhost dbname=keys user=me"`.

use std::{env, error::Error, time::Duration};

use dekseal::store::{Call, KeyStore};
use dekseal_postgres::{Options, PostgresStore};

fn main() -> Result<(), Box<dyn Error>> {
    let connection = env::args().nth(1).ok_or("usage: postgres_store CONNECTION")?;
    let store = PostgresStore::new(Options::new(&connection)?)?;
    let call = || Call::within(Duration::from_secs(5));
    store.create_schema(&call())?;
    let mut last = None;
    loop {
        let page = store.list(last.as_ref(), 1000, &call())?;
        for key_id in &page {
            println!("{key_id}");
        }
        last = page.last().copied();
        if last.is_none() {
            return Ok(());
        }
    }
}
