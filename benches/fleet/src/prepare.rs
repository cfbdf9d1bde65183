//! Databases with many documents.

use std::{io::Write, path::PathBuf, thread};

use dekseal::{
    StoreKeyring,
    store::{KeyStore, MemoryStore, StoredDocument},
};
use dekseal_postgres::PostgresStore;
use dekseal_sqlite::SqliteStore;
use postgres::NoTls;
use tempfile::TempDir;

use crate::{call, key_id, root, server::Server};

/// A server and a file, each with a table of many documents and one of ten.
pub(crate) struct Stores {
    pub(crate) server: Server,
    directory: TempDir,
    pub(crate) documents: u64,
}

/// The tables. Each is a table in the server, and a file.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Size {
    Many,
    Ten,
}

impl Size {
    pub(crate) const ALL: [Self; 2] = [Self::Many, Self::Ten];

    pub(crate) fn table(self) -> &'static str {
        match self {
            Self::Many => "many",
            Self::Ten => "ten",
        }
    }
}

impl Stores {
    pub(crate) fn new(documents: u64) -> Self {
        let stores = Self {
            server: Server::start(&["shared_buffers=256MB", "max_wal_size=4GB"]).expect("PostgreSQL's server"),
            directory: tempfile::tempdir().expect("a directory"),
            documents,
        };
        for size in Size::ALL {
            stores.postgres(size).create_schema(&call()).expect("a table");
            drop(stores.sqlite(size));
            let made = make(stores.count(size));
            stores.insert(size, &made);
        }
        stores.server.sql("VACUUM ANALYZE");
        stores
    }

    pub(crate) fn count(&self, size: Size) -> u64 {
        match size {
            Size::Many => self.documents,
            Size::Ten => 10,
        }
    }

    pub(crate) fn postgres(&self, size: Size) -> PostgresStore {
        let options = self.server.options().schema("bench").table(size.table()).notify(false);
        PostgresStore::new(options).expect("options")
    }

    pub(crate) fn sqlite(&self, size: Size) -> SqliteStore {
        SqliteStore::open(self.path(size)).expect("a database")
    }

    pub(crate) fn path(&self, size: Size) -> PathBuf {
        self.directory.path().join(size.table())
    }

    pub(crate) fn client(&self) -> postgres::Client {
        postgres::Client::connect(&self.server.socket(), NoTls).expect("a server")
    }

    fn insert(&self, size: Size, made: &[(u64, StoredDocument)]) {
        let mut client = self.client();
        let copy = format!("COPY bench.{} (key_id, revision, document) FROM STDIN", size.table());
        let mut rows = client.copy_in(&copy).expect("a table");
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for (number, stored) in made {
            let (revision, document) = (hex(stored.revision.as_bytes()), hex(&stored.document));
            writeln!(rows, "{}\t\\\\x{revision}\t\\\\x{document}", key_id(*number)).expect("a row");
        }
        rows.finish().expect("the rows");
        let mut connection = rusqlite::Connection::open(self.path(size)).expect("a database");
        let transaction = connection.transaction().expect("a transaction");
        {
            let insert = "INSERT INTO dekseal_key (key_id, revision, document) VALUES (?1, ?2, ?3)";
            let mut insert = transaction.prepare(insert).expect("a statement");
            for (number, stored) in made {
                let key_id = key_id(*number);
                let row = rusqlite::params![key_id.as_str(), stored.revision.as_bytes(), stored.document];
                insert.execute(row).expect("a row");
            }
        }
        transaction.commit().expect("the rows");
    }
}

/// The documents of new keys, made by two threads.
fn make(count: u64) -> Vec<(u64, StoredDocument)> {
    let part = |from: u64, to: u64| -> Vec<_> {
        let keyring = StoreKeyring::new(MemoryStore::new(), root(0));
        let made = (from..to).map(|number| {
            let key_id = key_id(number);
            let made = keyring.update(&key_id, |keys| keys.create_key(key_id));
            made.expect("a new key");
            let stored = keyring
                .store()
                .get(&key_id, &call())
                .expect("a store")
                .expect("a document");
            keyring.store().overwrite(&key_id, None);
            (number, stored)
        });
        made.collect()
    };
    thread::scope(|scope| {
        let first = scope.spawn(|| part(0, count / 2));
        let second = part(count / 2, count);
        [first.join().expect("a thread"), second].concat()
    })
}
