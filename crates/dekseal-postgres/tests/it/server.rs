//! Starts PostgreSQL servers for the tests, in temporary directories.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dekseal_postgres::{Options, PostgresStore};
use tempfile::TempDir;

use crate::conformance::call;

/// The password of the superuser, which connections over TCP need.
const PASSWORD: &str = "correct horse";

/// A running server. It stops when this is dropped, and when the test process ends for any reason.
pub(crate) struct Server {
    bin: PathBuf,
    directory: TempDir,
    pub(crate) port: u16,
    settings: Vec<String>,
    postgres: Option<Child>,
    /// A process that stops the server when its input ends.
    guard: Child,
}

/// A server that the tests share, unless they stop it. `None` if PostgreSQL is not installed.
pub(crate) fn shared() -> Option<&'static Server> {
    static SHARED: LazyLock<Option<Server>> = LazyLock::new(|| Server::start(&[]));
    SHARED.as_ref()
}

/// Options for a new schema in the shared server.
pub(crate) fn options() -> Option<Options> {
    static SCHEMAS: AtomicU32 = AtomicU32::new(0);
    let schema = format!("schema_{}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
    Some(shared()?.options().schema(&schema))
}

pub(crate) fn create(options: Options) -> PostgresStore {
    let store = PostgresStore::new(options).unwrap();
    store.create_schema(&call()).unwrap();
    store
}

/// The directory of PostgreSQL's programs.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut candidates: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    candidates.sort();
    candidates.reverse();
    let path = std::env::var_os("PATH").unwrap_or_default();
    candidates.extend(std::env::split_paths(&path));
    candidates
        .into_iter()
        .find(|directory| directory.join("initdb").exists() && directory.join("postgres").exists())
}

/// Reports a missing tool, and returns whether it is missing. If tools are required, a missing tool fails the test.
pub(crate) fn is_missing(tool: &str, found: bool) -> bool {
    if !found {
        assert!(std::env::var_os("REQUIRE_TOOLS").is_none(), "{tool} is missing");
        let _ = writeln!(std::io::stderr(), "skipped: {tool} is missing");
    }
    !found
}

/// The user and the group of the server, which refuses to run as root: `postgres`, or else `nobody`.
fn user() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let id = |name: &str| {
        let line = users.lines().find_map(|line| line.strip_prefix(name))?;
        let mut fields = line.split(':').skip(1).take(2).map(|field| field.parse().unwrap());
        Some((fields.next()?, fields.next()?))
    };
    Some(id("postgres:").unwrap_or((65534, 65534)))
}

impl Server {
    /// Starts a server with these settings, each in the form `name=value`.
    pub(crate) fn start(settings: &[&str]) -> Option<Self> {
        /// A new cluster. Each server gets a copy of it.
        static TEMPLATE: LazyLock<Option<Server>> = LazyLock::new(Server::template);
        let template = TEMPLATE.as_ref();
        if is_missing("PostgreSQL's server", template.is_some()) {
            return None;
        }
        let mut server = Self::prepare(template?.bin.clone(), settings);
        let mut copy = Command::new("cp");
        must(copy.arg("-a").arg(template?.path("data")).arg(server.path("data")));
        server.launch();
        Some(server)
    }

    fn template() -> Option<Self> {
        let server = Self::prepare(programs()?, &[]);
        let password = server.path("password");
        fs::write(&password, PASSWORD).unwrap();
        // A collation in which letters come before digits, unlike the order of bytes.
        server.run(
            server
                .program("initdb")
                .args(["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256"])
                .args([
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                    "--locale-provider=icu",
                    "--icu-locale=en-US-u-kr-latn-digit",
                ])
                .args(["--no-sync", "--no-instructions"])
                .arg(format!("--pwfile={}", password.display()))
                .arg("--pgdata")
                .arg(server.path("data")),
        );
        Some(server)
    }

    /// Makes a standby that follows this server.
    pub(crate) fn standby(&self) -> Self {
        let mut standby = Self::prepare(self.bin.clone(), &[]);
        standby.run(
            standby
                .program("pg_basebackup")
                .args([
                    "--username=postgres",
                    "--checkpoint=fast",
                    "--write-recovery-conf",
                    "--no-sync",
                ])
                .arg("--host")
                .arg(self.directory.path())
                .arg(format!("--port={}", self.port))
                .arg("--pgdata")
                .arg(standby.path("data")),
        );
        standby.launch();
        standby
    }

    fn prepare(bin: PathBuf, settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        if let Some((user, group)) = user() {
            chown(directory.path(), Some(user), Some(group)).unwrap();
        }
        let guard = Command::new("sh")
            .args(["-c", GUARD, "sh"])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            bin,
            port: free.local_addr().unwrap().port(),
            directory,
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            postgres: None,
            guard,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The command for a program of PostgreSQL, run as the user of the server.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        if let Some((user, group)) = user() {
            command.uid(user).gid(group);
        }
        command.current_dir(self.directory.path()).env("LC_ALL", "C.UTF-8");
        command
    }

    #[track_caller]
    fn run(&self, command: &mut Command) -> String {
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts the server again on the same port, and waits until it accepts connections.
    pub(crate) fn launch(&mut self) {
        assert!(self.postgres.is_none());
        let begun = Instant::now();
        self.postgres = Some(self.spawn());
        while !self.serves() {
            // After a crash, processes of the last one may hold its memory or its port for a moment.
            if self.postgres.as_mut().unwrap().try_wait().unwrap().is_some() {
                self.postgres = Some(self.spawn());
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{}",
                fs::read_to_string(self.path("log")).unwrap()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn spawn(&self) -> Child {
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.path("log"))
            .unwrap();
        let mut command = self.program("postgres");
        command
            .arg("-D")
            .arg(self.path("data"))
            .arg("-k")
            .arg(self.directory.path());
        command.args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        // The tests do not simulate a power failure, and a crash of the server alone loses no written data.
        command.args(["-c", "fsync=off"]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    fn serves(&self) -> bool {
        let mut ready = self.program("pg_isready");
        ready
            .arg("--host")
            .arg(self.directory.path())
            .arg(format!("--port={}", self.port));
        ready.output().unwrap().status.success()
    }

    /// Runs a statement as the superuser. Returns one line for each row.
    #[track_caller]
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.run(self.psql().args(["-c", sql]))
    }

    /// What is in the database, as statements that put it back into the tables.
    pub(crate) fn dump(&self) -> String {
        let mut dump = self.program("pg_dump");
        let dump = dump.args(["--data-only", "-U", "postgres", "-d", "postgres", "-h"]);
        self.run(dump.arg(self.directory.path()).arg("-p").arg(self.port.to_string()))
    }

    /// A client for the superuser that reads statements from its input.
    pub(crate) fn psql(&self) -> Command {
        let mut psql = self.program("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres"])
            .arg("-h")
            .arg(self.directory.path())
            .arg("-p")
            .arg(self.port.to_string());
        psql
    }

    /// Options that connect as the superuser over the socket.
    pub(crate) fn options(&self) -> Options {
        self.options_as("postgres")
    }

    pub(crate) fn options_as(&self, user: &str) -> Options {
        Options::new(&self.socket_as(user)).unwrap()
    }

    /// The settings of a connection of the superuser over the socket.
    pub(crate) fn socket(&self) -> String {
        self.socket_as("postgres")
    }

    fn socket_as(&self, user: &str) -> String {
        let host = self.directory.path().display();
        format!("host={host} port={} dbname=postgres user={user}", self.port)
    }

    /// The URL of a connection of the superuser over the socket.
    #[allow(dead_code, reason = "the tests of dekseal-cli use it")]
    pub(crate) fn url(&self) -> String {
        let host = self.directory.path().display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{host}:{}/postgres", self.port)
    }

    /// The connection string for TCP with a password.
    pub(crate) fn tcp(&self, host: &str) -> String {
        format!(
            "host={host} port={} dbname=postgres user=postgres password='{PASSWORD}'",
            self.port
        )
    }

    /// Sends a signal to the server and all its processes, at once.
    pub(crate) fn signal(&self, signal: &str) {
        let postmaster = self.postgres.as_ref().unwrap().id();
        let mut processes = vec![postmaster.to_string()];
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
                continue;
            };
            // The fields are PID, (name), state, parent, …
            let parent = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap();
            if parent == processes[0] {
                processes.push(entry.file_name().into_string().unwrap());
            }
        }
        // Some processes may have ended by now.
        Command::new("kill")
            .arg(format!("-{signal}"))
            .args(processes)
            .output()
            .unwrap();
    }

    /// Crashes the server: it writes nothing and does not tell its clients.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        self.postgres.take().unwrap().wait().unwrap();
    }

    /// Stops the server in an orderly way, which tells the clients.
    pub(crate) fn stop(&mut self) {
        let postmaster = self.postgres.as_ref().unwrap().id().to_string();
        Command::new("kill").args(["-INT", &postmaster]).status().unwrap();
        self.postgres.take().unwrap().wait().unwrap();
    }
}

/// Stops the server in the directory and removes the directory when the input ends. The input ends when the test asks
/// for it, and when the test process is killed.
const GUARD: &str = r#"
trap '' INT TERM
read -r _
postmaster=$(head -n 1 "$1/data/postmaster.pid")
if [ -n "$postmaster" ]; then
    kill -CONT "$postmaster"
    kill -QUIT "$postmaster"
    # It removes the file at its end.
    tries=0
    while [ -e "$1/data/postmaster.pid" ] && [ $tries -lt 200 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
fi
rm -rf "$1"
"#;

impl Drop for Server {
    fn drop(&mut self) {
        if self.postgres.is_some() {
            self.signal("CONT");
            self.stop();
        }
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Runs a command and asserts that it succeeds.
#[track_caller]
pub(crate) fn must(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Makes the user of the server the owner of a file, and the only reader.
pub(crate) fn give_to_server(path: &Path) {
    if let Some((user, group)) = user() {
        chown(path, Some(user), Some(group)).unwrap();
    }
}
