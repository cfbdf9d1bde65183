//! Records of 64 bytes, each under a key of its own: dekseal and asherah over the same server.

use std::{hint::black_box, sync::Arc};

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
    prepare::{Size, open_postgres},
    root,
    server::Server,
};

/// asherah's table, as its documentation of PostgreSQL says.
const METASTORE: &str = "CREATE TABLE encryption_key (id TEXT NOT NULL, created TIMESTAMP NOT NULL, \
     key_record JSONB NOT NULL, PRIMARY KEY (id, created))";
const RECORD: [u8; 64] = [7; 64];
const WARM: usize = 20_000;
const COLD: usize = 2_000;

const DEKSEAL: &str = "The context and the ID of the key are bound and committed to. What one process sealed opens in \
    all others at once. A rotation is taken up within `max_age`, 60 seconds. A key document that was changed, moved \
    to another key or replaced by an older one is refused.";
/// Read in the source of asherah 1.0.0: `aead.rs`, `session.rs`, `policy.rs` and `metastore_postgres.rs`.
const ASHERAH: &str = "The partition is compared with the ID in the record, and not authenticated: AES-GCM without \
    AAD, no commitment. What one process sealed opens in all others at once. A key is replaced after 90 days; a \
    revocation is taken up within an hour. A row of the metastore does not bind its ID or state, so a moved or older \
    row is accepted.";

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
    factory.get_session("tenant-42")
}

/// An engine without a key in memory. The store keeps its connections.
fn engine(store: &Arc<PostgresStore>) -> Engine<StoreKeyring<Arc<PostgresStore>>> {
    Engine::new(StoreKeyring::new(Arc::clone(store), root(0)))
}

pub(crate) fn run() {
    let server = Server::start(&["fsync=on"]).expect("PostgreSQL's server");
    server.sql(METASTORE);
    let store = Arc::new(open_postgres(&server.socket(), Size::Ten));
    store.create_schema(&call()).expect("a table");
    let metastore = PostgresMetastore::connect(&server.socket()).expect("a server");
    let key_id = key_id(1);
    let context = EncryptionContext::from_pairs([("tenant", "42")]).expect("within the rules");

    let ours = engine(&store);
    let created = ours.keyring().update(&key_id, |keys| keys.create_key(key_id));
    created.expect("a new key");
    let our_record = ours.encrypt(&key_id, &context, &RECORD).expect("a key");
    let their_factory = factory(&metastore);
    let theirs = session(&their_factory);
    let their_record = theirs.encrypt(&RECORD).expect("a session");

    let warm = in_turns(
        WARM,
        [
            &mut || drop(black_box(ours.encrypt(&key_id, &context, &RECORD).expect("a key"))),
            &mut || drop(black_box(ours.decrypt(&key_id, &context, &our_record).expect("a key"))),
            &mut || drop(black_box(theirs.encrypt(&RECORD).expect("a session"))),
            &mut || drop(black_box(theirs.decrypt(their_record.clone()).expect("a session"))),
        ],
    );
    let cold = in_turns(
        COLD,
        [
            &mut || {
                drop(black_box(
                    engine(&store).encrypt(&key_id, &context, &RECORD).expect("a key"),
                ))
            },
            &mut || {
                drop(black_box(
                    engine(&store).decrypt(&key_id, &context, &our_record).expect("a key"),
                ))
            },
            &mut || {
                drop(black_box(
                    session(&factory(&metastore)).encrypt(&RECORD).expect("a session"),
                ))
            },
            &mut || {
                let opened = session(&factory(&metastore)).decrypt(their_record.clone());
                drop(black_box(opened.expect("a session")));
            },
        ],
    );
    println!(
        "A record of 64 bytes, over the same PostgreSQL server. Medians; cold: no key in memory, but a connection:\n"
    );
    println!("| | encrypt, warm | decrypt, warm | encrypt, cold | decrypt, cold | what it guarantees |");
    println!("|---|---:|---:|---:|---:|---|");
    let rows = [
        ("dekseal, a DEK for each record", DEKSEAL, 0),
        (
            "asherah 1.0, its own metastore, static KMS, a key for each record",
            ASHERAH,
            2,
        ),
    ];
    for (name, guarantees, at) in rows {
        let times = [&warm[at], &warm[at + 1], &cold[at], &cold[at + 1]].map(|times| micros(times.median));
        println!("| {name} | {} | {guarantees} |", times.join(" | "));
    }
}
