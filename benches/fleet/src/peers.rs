//! Small records, each under a key of its own: dekseal and asherah over the same server.

use std::{cell::Cell, hint::black_box, sync::Arc, time::Duration};

use asherah::{
    Config,
    aead::AES256GCM,
    api::new_session_factory,
    kms::StaticKMS,
    metastore_postgres::PostgresMetastore,
    session::{PublicFactory, PublicSession},
};
use dekseal::{EncryptionContext, Engine, StoreKeyring};
use dekseal_postgres::PostgresStore;

use crate::{
    call, key_id,
    measure::{in_turns, micros},
    root,
    server::Server,
};

/// asherah's own table, from its documentation.
const METASTORE: &str = "CREATE TABLE encryption_key (id VARCHAR(255) NOT NULL, \
     created TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, key_record JSONB NOT NULL, \
     PRIMARY KEY (id, created))";
const RECORD: [u8; 64] = [7; 64];
const WARM: usize = 20_000;
const COLD: usize = 1_000;

type Factory = PublicFactory<AES256GCM, StaticKMS<AES256GCM>, PostgresMetastore>;
type Session = PublicSession<AES256GCM, StaticKMS<AES256GCM>, PostgresMetastore>;

/// A factory without cached keys. The metastore keeps its connections.
fn factory(metastore: &PostgresMetastore) -> Factory {
    let crypto = Arc::new(AES256GCM::new());
    let kms = StaticKMS::new(Arc::clone(&crypto), vec![9; 32]).expect("the key has 32 bytes");
    let config = Config::new("service", "product");
    new_session_factory(config, Arc::new(metastore.clone()), Arc::new(kms), crypto)
}

fn session(factory: &Factory) -> Session {
    factory.get_session("partition")
}

/// An engine without a key in memory. The store keeps its connections.
fn engine(store: &Arc<PostgresStore>) -> Engine<StoreKeyring<Arc<PostgresStore>>> {
    Engine::new(StoreKeyring::new(Arc::clone(store), root(0)))
}

pub(crate) fn run() {
    let server = Server::start(&[]).expect("PostgreSQL's server");
    server.sql(METASTORE);
    let store = Arc::new(PostgresStore::new(server.options()).expect("options"));
    store.create_schema(&call()).expect("a table");
    let key_id = key_id(1);
    let made = engine(&store);
    made.keyring()
        .update(&key_id, |keys| keys.create_key(key_id))
        .expect("a new key");
    let metastore = PostgresMetastore::connect(&server.socket()).expect("a server");
    let context = EncryptionContext::none();

    let ours = made.encrypt(&key_id, &context, &RECORD).expect("a key");
    let factory_at_hand = factory(&metastore);
    let at_hand = session(&factory_at_hand);
    let theirs = at_hand.encrypt(&RECORD).expect("a session");

    let warm = in_turns(
        WARM,
        [
            &mut || drop(black_box(made.encrypt(&key_id, &context, &RECORD).expect("a key"))),
            &mut || drop(black_box(made.decrypt(&key_id, &context, &ours).expect("a key"))),
            &mut || drop(black_box(at_hand.encrypt(&RECORD).expect("a session"))),
            &mut || drop(black_box(at_hand.decrypt(theirs.clone()).expect("a session"))),
        ],
    );
    let opened = Cell::new(0_usize);
    let mut cold = |opens: bool, asherah: bool| {
        opened.set(opened.get() + 1);
        match (asherah, opens) {
            (false, false) => drop(engine(&store).encrypt(&key_id, &context, &RECORD).expect("a key")),
            (false, true) => drop(engine(&store).decrypt(&key_id, &context, &ours).expect("a key")),
            (true, false) => drop(session(&factory(&metastore)).encrypt(&RECORD).expect("a session")),
            (true, true) => drop(
                session(&factory(&metastore))
                    .decrypt(theirs.clone())
                    .expect("a session"),
            ),
        }
    };
    let mut times = [Duration::ZERO; 4];
    for (time, (asherah, opens)) in times
        .iter_mut()
        .zip([(false, false), (false, true), (true, false), (true, true)])
    {
        [*time] = in_turns(COLD, [&mut || cold(opens, asherah)]);
    }
    println!("A record of 64 bytes, over the same PostgreSQL server:\n");
    println!("| | encrypt, warm | decrypt, warm | encrypt, cold | decrypt, cold |");
    println!("|---|---:|---:|---:|---:|");
    for (name, warm, cold) in [
        ("dekseal, a DEK for each record", &warm[..2], &times[..2]),
        ("asherah 1.0, a key for each record", &warm[2..], &times[2..]),
    ] {
        let columns: Vec<_> = warm.iter().chain(cold).map(|time| micros(*time)).collect();
        println!("| {name} | {} |", columns.join(" | "));
    }
}
