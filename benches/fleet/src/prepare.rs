//! Databases with many documents.

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use dekseal::{
    KeyId, StoreKeyring, StoreSettings,
    store::{KeyStore, MemoryStore, StoredDocument},
};
use dekseal_postgres::{Options, PostgresStore};
use dekseal_sqlite::SqliteStore;
use postgres::NoTls;
use tempfile::TempDir;

use crate::{call, certificates::certificates, key_id, root, server::Server};

/// A server and a file, each with a table of many documents and one of ten.
pub(crate) struct Stores {
    pub(crate) server: Server,
    directory: TempDir,
    /// The root certificate of the server.
    root: Vec<u8>,
    pub(crate) documents: u64,
}

/// The way to the server.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    Socket,
    /// TLS over the loopback interface.
    Tls,
}

/// The tables. Each is a table in the server, and a file.
#[derive(Clone, Copy)]
pub(crate) enum Size {
    Many,
    Ten,
}

impl Size {
    pub(crate) fn table(self) -> &'static str {
        match self {
            Self::Many => "many",
            Self::Ten => "ten",
        }
    }
}

/// Opens a table of the server at `address`, the settings of a connection.
pub(crate) fn open_postgres(address: &str, size: Size) -> PostgresStore {
    open_with(Options::new(address).expect("an address"), size)
}

fn open_with(options: Options, size: Size) -> PostgresStore {
    PostgresStore::new(options.table(size.table()).notify(false)).expect("options")
}

pub(crate) fn open_sqlite(path: &Path) -> SqliteStore {
    SqliteStore::open(path).expect("a database")
}

impl Stores {
    pub(crate) fn new(documents: u64) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        // The server runs as another user, and reads its certificate here.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("a directory");
        let (root, certificate, key) = certificates(directory.path(), "DNS:localhost");
        let settings = [
            // Commits are durable, unlike in the tests.
            "fsync=on",
            "shared_buffers=512MB",
            "max_wal_size=4GB",
            "ssl=on",
            &format!("ssl_cert_file={}", certificate.display()),
            &format!("ssl_key_file={}", key.display()),
        ];
        let stores = Self {
            server: Server::start(&settings).expect("PostgreSQL's server"),
            directory,
            root: fs::read(root).expect("a certificate"),
            documents,
        };
        for (size, count) in [(Size::Many, documents), (Size::Ten, 10)] {
            stores
                .postgres(Way::Socket, size)
                .create_schema(&call())
                .expect("a table");
            drop(stores.sqlite(size));
            stores.insert(size, &make(count));
        }
        stores.server.sql("VACUUM ANALYZE");
        stores.server.sql("CHECKPOINT");
        stores
    }

    pub(crate) fn postgres(&self, way: Way, size: Size) -> PostgresStore {
        open_with(self.options(way), size)
    }

    pub(crate) fn options(&self, way: Way) -> Options {
        match way {
            Way::Socket => Options::new(&self.server.socket()).expect("an address"),
            Way::Tls => {
                let options = Options::new(&self.server.tcp("localhost")).expect("an address");
                options.root_certificates(&self.root).expect("a certificate")
            }
        }
    }

    pub(crate) fn sqlite(&self, size: Size) -> SqliteStore {
        open_sqlite(&self.path(size))
    }

    pub(crate) fn path(&self, size: Size) -> PathBuf {
        self.directory.path().join(size.table())
    }

    /// Writes all rows in one transaction.
    fn insert(&self, size: Size, rows: &[(KeyId, StoredDocument)]) {
        let mut client = postgres::Client::connect(&self.server.socket(), NoTls).expect("a server");
        let copy = format!("COPY {} (key_id, revision, document) FROM STDIN", size.table());
        let mut copied = client.copy_in(&copy).expect("a table");
        let digit = |digit: u8| char::from_digit(digit.into(), 16).expect("a digit");
        let hex = |bytes: &[u8]| -> String {
            let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            digits.map(digit).collect()
        };
        for (key_id, stored) in rows {
            let (revision, document) = (hex(stored.revision.as_bytes()), hex(&stored.document));
            writeln!(copied, "{key_id}\t\\\\x{revision}\t\\\\x{document}").expect("a row");
        }
        copied.finish().expect("the rows");

        let mut connection = rusqlite::Connection::open(self.path(size)).expect("a database");
        let transaction = connection.transaction().expect("a transaction");
        let insert = "INSERT INTO dekseal_key (key_id, revision, document) VALUES (?1, ?2, ?3)";
        let mut statement = transaction.prepare(insert).expect("a statement");
        for (key_id, stored) in rows {
            let row = rusqlite::params![key_id.as_str(), stored.revision.as_bytes(), stored.document];
            statement.execute(row).expect("a row");
        }
        drop(statement);
        transaction.commit().expect("the rows");
    }
}

/// The documents of new keys, made by the library on two threads.
fn make(count: u64) -> Vec<(KeyId, StoredDocument)> {
    let part = |from: u64, to: u64| -> Vec<_> {
        // A process that is stopped meanwhile must not fail.
        let mut settings = StoreSettings::default();
        settings.deadline = Duration::from_secs(3600);
        let keyring = StoreKeyring::with_settings(MemoryStore::new(), root(0), [], settings).expect("settings");
        let made = (from..to).map(|number| {
            let key_id = key_id(number);
            let made = keyring.update(&key_id, |keys| keys.create_key(key_id));
            made.expect("a new key");
            let stored = keyring.store().get(&key_id, &call()).expect("a store");
            keyring.store().overwrite(&key_id, None);
            (key_id, stored.expect("a document"))
        });
        made.collect()
    };
    thread::scope(|scope| {
        let first = scope.spawn(|| part(0, count / 2));
        let second = part(count / 2, count);
        [first.join().expect("a thread"), second].concat()
    })
}
