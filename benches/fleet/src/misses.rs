//! A call that misses, against the bare query for the same row.

use std::hint::black_box;

use dekseal::{StoreKeyring, store::KeyStore};
use postgres::types::Type;

use crate::{
    key_id,
    measure::{compare, header, in_turns},
    prepare::{Size, Stores},
    root,
};

const ROUNDS: usize = 20_000;

/// Looks up one key after another, none of which is held.
fn miss<S: KeyStore>(store: S, keys: u64) -> impl FnMut() {
    let keyring = StoreKeyring::new(store, root(0));
    let mut numbers = (0..keys).cycle();
    move || {
        let key_id = key_id(numbers.next().expect("it never ends"));
        black_box(keyring.info(&key_id).expect("a key"));
    }
}

pub(crate) fn run(stores: &Stores) -> bool {
    println!(
        "A key that is not in memory, in a table of {} keys:\n",
        stores.documents
    );
    header();
    let mut client = stores.client();
    let mut numbers = (0..stores.documents).cycle();
    let mut query = || {
        let key_id = key_id(numbers.next().expect("it never ends"));
        let select = "SELECT revision, document FROM bench.many WHERE key_id = $1";
        let rows = client.query_typed(select, &[(&key_id.as_str(), Type::TEXT)]);
        black_box(rows.expect("a row")[0].get::<_, Vec<u8>>(1));
    };
    let mut call = miss(stores.postgres(Size::Many), stores.documents);
    let [ours, bare] = in_turns(ROUNDS, [&mut call, &mut query]);
    let postgres = compare("a miss in PostgreSQL", ours, "the bare query", bare, 1.30);

    let connection = rusqlite::Connection::open(stores.path(Size::Many)).expect("a database");
    let mut numbers = (0..stores.documents).cycle();
    let mut query = || {
        let key_id = key_id(numbers.next().expect("it never ends"));
        let select = "SELECT revision, document FROM dekseal_key WHERE key_id = ?1";
        let mut select = connection.prepare_cached(select).expect("a statement");
        let row = select.query_row([key_id.as_str()], |row| row.get::<_, Vec<u8>>(1));
        black_box(row.expect("a row"));
    };
    let mut call = miss(stores.sqlite(Size::Many), stores.documents);
    let [ours, bare] = in_turns(ROUNDS, [&mut call, &mut query]);
    let sqlite = compare("a miss in SQLite", ours, "the bare query", bare, 1.30);
    println!();
    postgres && sqlite
}
