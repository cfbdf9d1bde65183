//! A call that misses, against the bare query; and a rotation among many keys, against one among ten.

use std::hint::black_box;

use dekseal::{
    KeyId, StoreKeyring,
    store::{KeyStore, MemoryStore, Revision, StoredDocument},
};
use rusqlite::{Connection, Row};
use tokio::runtime::Builder;

use crate::{
    key_id,
    measure::{compare, compare_with_least, header, in_turns},
    prepare::{Size, Stores, Way},
    root,
};

const MISSES: usize = 20_000;
/// The documents of the store in memory: more than the keyring's capacity.
const READ: u64 = 20_000;
const ROTATIONS: usize = 2_000;

/// Key IDs of a table, one after another. `from` is the part of the table at which they begin.
fn numbers(count: u64, from: f64) -> impl FnMut() -> KeyId {
    let mut numbers = (0..count).cycle().skip((count as f64 * from) as usize);
    move || key_id(numbers.next().expect("it never ends"))
}

/// A call that misses, against the bare query: one prepared statement for the same row, through the same client,
/// without pool and deadline. `query` sends it.
///
/// A document must also be parsed, authenticated and opened, and its keys must be derived. A miss over a store in
/// memory takes that time. It is the same for every database, so it counts most where a query is fast.
fn misses<S: KeyStore>(name: &str, store: S, count: u64, mut query: impl FnMut(&KeyId) -> StoredDocument) -> bool {
    let keyring = StoreKeyring::new(store, root(0));
    let (mut missed, mut queried, mut read) = (numbers(count, 0.0), numbers(count, 0.5), numbers(READ, 0.0));
    let memory = StoreKeyring::new(MemoryStore::new(), root(0));
    for number in 0..READ {
        memory.store().overwrite(&key_id(number), Some(query(&key_id(number))));
    }
    let mut miss = || keyring.load(&missed()).expect("a key");
    let mut bare = || drop(black_box(query(&queried())));
    let mut read = || memory.load(&read()).expect("a key");
    let [miss, bare, read] = in_turns(MISSES, [&mut miss, &mut bare, &mut read]);
    let least = bare.median + read.median;
    compare_with_least(
        &format!("a miss in {name}"),
        &miss,
        ("the bare query", bare.median),
        ("the bare query, then reading the document", least),
        (1.30, 1.20),
    )
}

fn in_postgres(stores: &Stores, way: Way) -> impl FnMut(&KeyId) -> StoredDocument {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let connector = stores.options(way).connector().expect("options");
    let select = format!(
        "SELECT revision, document FROM {} WHERE key_id = $1",
        Size::Many.table()
    );
    let (client, statement) = runtime.block_on(async {
        let (client, run) = connector.connect().await.expect("a server");
        tokio::spawn(run);
        let statement = client.prepare(&select).await.expect("a table");
        (client, statement)
    });
    move |key_id| {
        let row = runtime.block_on(client.query_one(&statement, &[&key_id.as_str()]));
        let row = row.expect("a row");
        stored(row.get(0), row.get(1))
    }
}

fn in_sqlite(connection: &Connection) -> impl FnMut(&KeyId) -> StoredDocument {
    let select = "SELECT revision, document FROM dekseal_key WHERE key_id = ?1";
    let mut statement = connection.prepare(select).expect("a table");
    move |key_id| {
        let columns = |row: &Row<'_>| Ok(stored(row.get_ref(0)?.as_blob()?, row.get(1)?));
        statement.query_row([key_id.as_str()], columns).expect("a row")
    }
}

fn stored(revision: &[u8], document: Vec<u8>) -> StoredDocument {
    let revision = Revision::new(revision).expect("32 bytes");
    StoredDocument { revision, document }
}

fn rotation<S: KeyStore>(store: S, count: u64) -> impl FnMut() {
    let keyring = StoreKeyring::new(store, root(0));
    // Ten keys that lie far apart in the table.
    let key_ids: Vec<_> = (0..10).map(|number| key_id(number * count / 10)).collect();
    let mut key_ids = key_ids.into_iter().cycle();
    move || {
        let key_id = key_ids.next().expect("it never ends");
        let rotated = keyring.update(&key_id, |keys| {
            let version = keys.rotate(&key_id)?;
            // The documents stay short.
            keys.set_min_version(&key_id, version)?;
            keys.force_destroy_versions(&key_id, version)
        });
        rotated.expect("a key");
    }
}

fn rotations<S: KeyStore>(name: &str, open: impl Fn(Size) -> S, count: u64) -> bool {
    let (mut many, mut ten) = (rotation(open(Size::Many), count), rotation(open(Size::Ten), 10));
    let [many, ten] = in_turns(ROTATIONS, [&mut many, &mut ten]);
    compare(
        &format!("a rotation in {name}"),
        &many,
        "among 10 keys",
        ten.median,
        1.50,
    )
}

pub(crate) fn run(stores: &Stores) -> bool {
    println!("In a table of {} keys:\n", stores.documents);
    header();
    let connection = Connection::open(stores.path(Size::Many)).expect("a database");
    let count = stores.documents;
    let holds = [
        misses(
            "PostgreSQL, TLS",
            stores.postgres(Way::Tls, Size::Many),
            count,
            in_postgres(stores, Way::Tls),
        ),
        misses(
            "PostgreSQL, Unix socket",
            stores.postgres(Way::Socket, Size::Many),
            count,
            in_postgres(stores, Way::Socket),
        ),
        misses("SQLite", stores.sqlite(Size::Many), count, in_sqlite(&connection)),
        rotations("PostgreSQL", |size| stores.postgres(Way::Socket, size), count),
        rotations("SQLite", |size| stores.sqlite(size), count),
    ];
    println!();
    !holds.contains(&false)
}
