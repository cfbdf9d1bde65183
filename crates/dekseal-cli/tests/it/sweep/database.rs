//! Databases with a table of sealed DEKs, and a second process that writes to it.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{TryRecvError, channel},
    time::Duration,
};

use dekseal::{CmkVersion, Dek, EncryptionContext, Engine, FileKeyring, KeyId, Keyring, SealedDek};
use dekseal_postgres::tokio_postgres::{Client, Config, NoTls};
use rusqlite::{Connection, params};
use tokio::runtime::{Builder, Runtime};

use crate::{server::Server, support::Place};

pub(super) const KEY: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";

/// The table. `digest` tells which DEK belongs into the row; a sweep never changes it.
pub(super) const TABLE: &str =
    "CREATE TABLE document (id bigint PRIMARY KEY, tenant bigint NOT NULL, sealed BLOB, digest BLOB)";

/// A keyring file with one key, and a database.
pub(super) struct Stage {
    pub(super) place: Place,
    pub(super) engine: Engine<FileKeyring>,
    /// The address as the command takes it.
    pub(super) address: String,
    _server: Option<Server>,
}

pub(super) fn key_id() -> KeyId {
    KEY.parse().unwrap()
}

/// The keyring file at `path`, with the root in the file `root` beside it.
fn keyring(path: PathBuf, create: bool) -> FileKeyring {
    let material = fs::read_to_string(path.with_file_name("root")).unwrap();
    let material = base16ct::lower::decode_vec(material.trim()).unwrap();
    let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse().unwrap(), 0, &material).unwrap();
    match create {
        true => FileKeyring::create(path, root).unwrap(),
        false => FileKeyring::open(path, root).unwrap(),
    }
}

impl Stage {
    fn new(address: impl FnOnce(&Place) -> String, server: Option<Server>) -> Self {
        let place = Place::new();
        let keyring = keyring(place.path("keys"), true);
        keyring.update(|keys| keys.create_key(key_id())).unwrap();
        Self {
            address: address(&place),
            engine: Engine::new(keyring),
            place,
            _server: server,
        }
    }

    pub(super) fn sqlite() -> Self {
        let stage = Self::new(|place| format!("sqlite:{}", place.path("app.db").display()), None);
        let connection = Connection::open(stage.place.path("app.db")).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        stage
    }

    /// `None` if PostgreSQL is not installed.
    pub(super) fn postgres(settings: &[&str]) -> Option<Self> {
        let server = Server::start(settings)?;
        let url = server.url();
        Some(Self::new(|_| url, Some(server)))
    }

    pub(super) fn server(&mut self) -> &mut Server {
        self._server.as_mut().unwrap()
    }

    pub(super) fn rotate(&self) {
        self.engine.keyring().update(|keys| keys.rotate(&key_id())).unwrap();
    }

    pub(super) fn current_version(&self) -> u32 {
        self.engine.keyring().keys().info(&key_id()).unwrap().current_version
    }

    pub(super) fn database(&self) -> Database {
        Database::open(&self.address)
    }

    /// Makes the table, with `rows` rows under the current version.
    pub(super) fn fill(&self, rows: i64) {
        let mut database = self.database();
        database.run(&match database {
            Database::Sqlite(_) => TABLE.to_owned(),
            Database::Postgres(..) => TABLE.replace("BLOB", "bytea"),
        });
        let ids: Vec<i64> = (1..=rows).collect();
        for ids in ids.chunks(10_000) {
            database.run("BEGIN");
            let made: Vec<_> = ids.iter().map(|&id| made(&self.engine, id % 7)).collect();
            database.insert(ids, &made);
            database.run("COMMIT");
        }
    }

    /// The command over `table`, a row at a time. All rows have the context of tenant 1.
    pub(super) fn sweep_table(&self, table: &str, options: &[&str]) -> Command {
        let database = ["sweep", "--database", &self.address, "--table", table];
        let columns = ["--blob-column", "sealed", "--context", "tenant=1"];
        let state = ["--state", table, "--batch", "1"];
        self.place.command(&[&database[..], &columns, &state, options].concat())
    }

    /// The command over this table.
    pub(super) fn sweep(&self, options: &[&str]) -> Command {
        self.sweep_column("sealed", options)
    }

    pub(super) fn sweep_column(&self, column: &str, options: &[&str]) -> Command {
        let database = [
            "sweep",
            "--database",
            &self.address,
            "--table",
            "document",
            "--blob-column",
            column,
        ];
        let context = ["--context", "tenant={tenant}", "--state", "state"];
        self.place.command(&[&database[..], &context, options].concat())
    }

    /// Opens every row, and returns the number of rows under each version, by the lowest.
    pub(super) fn check(&self) -> Vec<(u32, u64)> {
        let mut versions = std::collections::BTreeMap::new();
        self.database().each(|id, tenant, sealed, digest| {
            let sealed = SealedDek::from_bytes(&sealed).unwrap();
            let dek = self.engine.decrypt_dek(&key_id(), &context(tenant), &sealed).unwrap();
            assert!(
                digest_of(&dek) == digest,
                "row {id} has lost the DEK that was written last"
            );
            *versions.entry(sealed.key_version()).or_default() += 1;
        });
        versions.into_iter().collect()
    }
}

pub(super) fn context(tenant: i64) -> EncryptionContext {
    EncryptionContext::from_pairs([("tenant", &tenant.to_string())]).unwrap()
}

/// A sealed DEK for a tenant, and the digest of the DEK.
pub(super) fn made(engine: &Engine<impl Keyring>, tenant: i64) -> (Vec<u8>, Vec<u8>) {
    let (dek, sealed) = engine.create_dek(&key_id(), &context(tenant)).unwrap();
    (sealed.as_bytes().to_vec(), digest_of(&dek))
}

/// Enough of the DEK to tell it from others.
fn digest_of(dek: &Dek) -> Vec<u8> {
    dek.expose_secret()[..8].to_vec()
}

/// A connection for the tests.
pub(super) enum Database {
    Sqlite(Connection),
    Postgres(Runtime, Client),
}

impl Database {
    pub(super) fn open(address: &str) -> Self {
        if let Some(path) = address.strip_prefix("sqlite:") {
            let connection = Connection::open(path).unwrap();
            connection.busy_timeout(Duration::from_secs(60)).unwrap();
            return Self::Sqlite(connection);
        }
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let config: Config = address.parse().unwrap();
        let (client, connection) = runtime.block_on(config.connect(NoTls)).unwrap();
        runtime.spawn(connection);
        Self::Postgres(runtime, client)
    }

    pub(super) fn run(&mut self, sql: &str) {
        match self {
            Self::Sqlite(connection) => connection.execute_batch(sql).unwrap(),
            Self::Postgres(runtime, client) => runtime.block_on(client.batch_execute(sql)).unwrap(),
        }
    }

    /// The first column of the first row, as text.
    pub(super) fn text(&mut self, sql: &str) -> String {
        match self {
            Self::Sqlite(connection) => connection
                .query_row(
                    &format!(
                        "SELECT CASE typeof(x) WHEN 'blob' THEN hex(x) ELSE CAST(x AS text) END \
                         FROM (SELECT ({sql}) AS x)"
                    ),
                    [],
                    |row| row.get(0),
                )
                .unwrap(),
            Self::Postgres(runtime, client) => {
                let row = runtime.block_on(client.query_one(&format!("SELECT ({sql})::text"), &[]));
                row.unwrap().get(0)
            }
        }
    }

    fn insert(&mut self, ids: &[i64], made: &[(Vec<u8>, Vec<u8>)]) {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection
                    .prepare_cached("INSERT INTO document VALUES (?1, ?2, ?3, ?4)")
                    .unwrap();
                for (id, (sealed, digest)) in ids.iter().zip(made) {
                    statement.execute(params![id, id % 7, sealed, digest]).unwrap();
                }
            }
            Self::Postgres(runtime, client) => {
                let (sealed, digest): (Vec<_>, Vec<_>) = made.iter().cloned().unzip();
                let insert = "INSERT INTO document SELECT id, id % 7, sealed, digest \
                     FROM unnest($1::bigint[], $2::bytea[], $3::bytea[]) AS v(id, sealed, digest)";
                runtime
                    .block_on(client.execute(insert, &[&ids, &sealed, &digest]))
                    .unwrap();
            }
        }
    }

    /// Gives a row another DEK. Returns whether the row is there.
    fn write(&mut self, id: i64, (sealed, digest): (Vec<u8>, Vec<u8>)) -> bool {
        match self {
            Self::Sqlite(connection) => {
                let update = "UPDATE document SET sealed = ?2, digest = ?3 WHERE id = ?1";
                connection.execute(update, params![id, sealed, digest]).unwrap() == 1
            }
            Self::Postgres(runtime, client) => {
                let update = "UPDATE document SET sealed = $2, digest = $3 WHERE id = $1";
                runtime
                    .block_on(client.execute(update, &[&id, &sealed, &digest]))
                    .unwrap()
                    == 1
            }
        }
    }

    fn each(&mut self, mut f: impl FnMut(i64, i64, Vec<u8>, Vec<u8>)) {
        let select = "SELECT id, tenant, sealed, digest FROM document WHERE id > $1 ORDER BY id LIMIT 10000";
        let mut after = 0_i64;
        loop {
            let before = after;
            match self {
                Self::Sqlite(connection) => {
                    let mut statement = connection.prepare_cached(select).unwrap();
                    let mut rows = statement.query([after]).unwrap();
                    while let Some(row) = rows.next().unwrap() {
                        after = row.get(0).unwrap();
                        f(after, row.get(1).unwrap(), row.get(2).unwrap(), row.get(3).unwrap());
                    }
                }
                Self::Postgres(runtime, client) => {
                    for row in runtime.block_on(client.query(select, &[&after])).unwrap() {
                        after = row.get(0);
                        f(after, row.get(1), row.get(2), row.get(3));
                    }
                }
            }
            if after == before {
                return;
            }
        }
    }
}

/// A second process that gives random rows other DEKs. It also deletes and inserts some.
pub(super) struct Writer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<std::process::ChildStdout>,
}

impl Writer {
    pub(super) fn start(stage: &Stage, rows: i64) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "sweep::database::writing_child", "--nocapture", "--ignored"])
            .env("SWEEP_ADDRESS", &stage.address)
            .env("SWEEP_KEYRING", stage.place.path("keys"))
            .env("SWEEP_ROWS", rows.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Lets the process see rotations. What it seals from now on is under the newest version.
    pub(super) fn refresh(&mut self) {
        writeln!(self.input.as_mut().unwrap()).unwrap();
        let refreshed = self.output.by_ref().lines().any(|line| line.unwrap() == "refreshed");
        assert!(refreshed);
    }

    /// Ends the process. Returns how many rows it has written.
    pub(super) fn stop(mut self) -> u64 {
        drop(self.input.take());
        let lines = self.output.by_ref().lines().map(Result::unwrap);
        let written = lines.filter_map(|line| line.strip_prefix("written ").map(|count| count.parse().unwrap()));
        let written = written.last();
        assert!(self.child.wait().unwrap().success());
        written.unwrap()
    }
}

#[test]
#[ignore = "the child of other tests"]
fn writing_child() {
    let engine = Engine::new(keyring(env::var_os("SWEEP_KEYRING").unwrap().into(), false));
    let rows: i64 = env::var("SWEEP_ROWS").unwrap().parse().unwrap();
    let mut database = Database::open(&env::var("SWEEP_ADDRESS").unwrap());
    let (ask, asked) = channel();
    std::thread::spawn(move || {
        for _ in std::io::stdin().lines() {
            ask.send(()).unwrap();
        }
    });
    let (mut random, mut written) = (0x9e37_79b9_7f4a_7c15_u64, 0_u64);
    loop {
        match asked.try_recv() {
            Ok(()) => {
                engine.keyring().refresh().unwrap();
                writeln!(std::io::stdout(), "\nrefreshed").unwrap();
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => break,
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let id = (random % u64::try_from(rows).unwrap()) as i64 + 1;
        if written % 50 == 49 {
            // A row that comes back, perhaps behind the sweep.
            database.run(&format!("DELETE FROM document WHERE id = {id}"));
            database.insert(&[id], &[made(&engine, id % 7)]);
        } else {
            assert!(database.write(id, made(&engine, id % 7)));
        }
        written += 1;
        std::thread::sleep(Duration::from_micros(500));
    }
    writeln!(std::io::stdout(), "\nwritten {written}").unwrap();
}
