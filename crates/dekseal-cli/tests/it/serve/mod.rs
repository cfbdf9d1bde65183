//! `dekseal serve` over TCP and over a Unix socket.

mod codes;
mod load;

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::Place;

const KEY: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
const TOKEN: &str = "marked-token-7f3a9c5511e2";

/// A running server with one key. It is killed when this is dropped.
struct Server {
    place: Place,
    child: Child,
    /// Reads what the server writes to standard error.
    log: Option<JoinHandle<String>>,
    address: String,
}

/// A connection of either kind.
trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

/// An answer: the status, the head in small letters, and the body.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The status and the error code.
    fn code(&self) -> (u16, String) {
        let code = self.json()["error"]["error_code"].as_str().unwrap_or("none").to_owned();
        (self.status, code)
    }
}

fn place() -> Place {
    let place = Place::new();
    place.does(&["keyring", "create"]);
    place.does(&["key", "create", KEY]);
    let token = place.path("token");
    fs::write(&token, format!("another-token-0123456789\n{TOKEN}\n")).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    place
}

impl Server {
    fn tcp(options: &[&str]) -> Self {
        Self::start(
            place(),
            &[&["--listen", "127.0.0.1:0", "--token-file", "token"], options].concat(),
        )
    }

    fn unix(options: &[&str]) -> Self {
        Self::start(place(), &[&["--listen", "unix:kms.sock"], options].concat())
    }

    fn start(place: Place, options: &[&str]) -> Self {
        let mut command = place.command(&[&["serve"], options].concat());
        Self::run(place, &mut command)
    }

    fn run(place: Place, command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let Some(address) = line.trim().strip_prefix("listening on ") else {
            panic!("{line:?} {:?}", child.wait_with_output());
        };
        let mut stderr = child.stderr.take().unwrap();
        let log = thread::spawn(move || {
            let mut log = String::new();
            stderr.read_to_string(&mut log).unwrap();
            log
        });
        Self {
            address: address.to_owned(),
            place,
            child,
            log: Some(log),
        }
    }

    fn connect(&self) -> Box<dyn Connection> {
        self.try_connect().unwrap()
    }

    fn try_connect(&self) -> io::Result<Box<dyn Connection>> {
        let time = Some(Duration::from_secs(60));
        Ok(match self.address.strip_prefix("unix:") {
            Some(path) => {
                let stream = UnixStream::connect(self.place.path(path))?;
                stream.set_read_timeout(time)?;
                Box::new(stream)
            }
            None => {
                let stream = TcpStream::connect(&self.address)?;
                stream.set_read_timeout(time)?;
                Box::new(stream)
            }
        })
    }

    /// Sends a request with a token on a new connection.
    fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        send(
            &mut self.connect(),
            method,
            path,
            &format!("authorization: Bearer {TOKEN}\r\n"),
            body,
        )
    }

    fn post(&self, operation: &str, body: &Value) -> Answer {
        self.send(
            "POST",
            &format!("/v1.0/project/kms/{operation}"),
            body.to_string().as_bytes(),
        )
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([format!("-{signal}"), self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Stops the server. Returns what it wrote to standard error.
    fn stop(mut self) -> String {
        self.signal("TERM");
        let log = self.log.take().unwrap().join().unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{log}");
        log
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(connection: &mut impl Connection, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: kms\r\ncontent-length: {length}\r\n{headers}\r\n");
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(body).unwrap();
    receive(connection, method)
}

fn receive(connection: &mut impl Read, method: &str) -> Answer {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(
            connection.read(&mut byte).unwrap(),
            1,
            "{:?}",
            String::from_utf8_lossy(&head)
        );
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head
        .split_once("content-length: ")
        .map_or(0, |(_, rest)| rest.split_once('\r').unwrap().0.parse().unwrap());
    let mut body = vec![0; if method == "HEAD" { 0 } else { length }];
    connection.read_exact(&mut body).unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head,
        body,
    }
}

fn create() -> Value {
    json!({"key_id": KEY, "datakey_length": "512"})
}

#[test]
fn without_a_token_nothing_answers_but_healthz() {
    let server = Server::tcp(&[]);
    let body = create().to_string();
    let path = "/v1.0/project/kms/create-datakey";
    let with = |headers: &str| send(&mut server.connect(), "POST", path, headers, body.as_bytes());
    for headers in [
        "",
        "authorization: Bearer\r\n",
        "authorization: Bearer marked-token-7f3a9c5511e\r\n",
        "authorization: Bearer marked-token-7f3a9c5511e20\r\n",
        "authorization: Basic marked-token-7f3a9c5511e2\r\n",
        "x-auth-token: \r\n",
        "cookie: token=marked-token-7f3a9c5511e2\r\n",
    ] {
        assert_eq!(with(headers).code(), (403, "KMS.0306".into()), "{headers}");
    }
    for headers in [
        "authorization: Bearer marked-token-7f3a9c5511e2\r\n",
        "authorization: bearer another-token-0123456789\r\n",
        "authorization: SDK-HMAC-SHA256 Access=x, Signature=y\r\nx-auth-token: marked-token-7f3a9c5511e2\r\n",
    ] {
        assert_eq!(with(headers).status, 200, "{headers}");
    }
    // Not even whether a path or a method is known.
    for (method, path) in [("POST", "/"), ("GET", path), ("POST", "/healthz"), ("GET", "/healthz/")] {
        let answer = send(&mut server.connect(), method, path, "", b"");
        assert_eq!(answer.code(), (403, "KMS.0306".into()), "{method} {path}");
    }
    let healthy = send(&mut server.connect(), "GET", "/healthz", "", b"");
    assert_eq!((healthy.status, healthy.body.as_slice()), (200, &b"ok\n"[..]));
    assert_eq!(send(&mut server.connect(), "HEAD", "/healthz", "", b"").status, 200);
}

#[test]
fn a_socket_is_for_its_owner_and_goes_with_the_server() {
    let server = Server::unix(&[]);
    let socket = server.place.path("kms.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let answer = send(
        &mut server.connect(),
        "POST",
        "/v1.0/p/kms/create-datakey",
        "",
        create().to_string().as_bytes(),
    );
    assert_eq!(answer.status, 200);
    // A second server does not take the socket away.
    let second = server.place.run(&["serve", "--listen", "unix:kms.sock"]);
    assert_eq!(second.status.code(), Some(4));
    server.signal("KILL");
    let Server { place, .. } = &server;
    while std::os::unix::net::UnixStream::connect(&socket).is_ok() {}
    assert!(socket.exists());
    // One that was left behind is replaced.
    let mut command = place.command(&["serve", "--listen", "unix:kms.sock"]);
    let mut next = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(next.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "listening on unix:kms.sock\n");
    let stopped = Command::new("kill").arg(next.id().to_string()).status();
    assert!(stopped.unwrap().success() && next.wait().unwrap().success());
    assert!(!socket.exists());
    // A token can be asked for on a socket too.
    let server = Server::unix(&["--token-file", "token"]);
    assert_eq!(
        send(&mut server.connect(), "POST", "/v1.0/p/kms/create-datakey", "", b"{}").status,
        403
    );
}

#[test]
fn what_would_be_unsafe_is_refused() {
    let place = place();
    let refused = |words: &[&str], exit: i32, expected: &str| {
        let output = place.run(&[&["serve"], words].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit), "{words:?}: {error}");
        assert!(error.contains(expected) && !error.contains(TOKEN), "{words:?}: {error}");
    };
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        refused(&["--listen", address, "--token-file", "token"], 2, "--behind-tls-proxy");
    }
    refused(&["--listen", "127.0.0.1:0"], 2, "--token-file is missing");
    refused(
        &["--listen", "0.0.0.0:0", "--behind-tls-proxy"],
        2,
        "--token-file is missing",
    );
    refused(
        &["--listen", "example.org:80", "--token-file", "token"],
        2,
        "write unix:PATH, 127.0.0.1:PORT",
    );
    refused(&["--listen", "unix:token"], 2, "token: exists and is not a socket");
    let refresh = |time| ["--listen", "unix:kms.sock", "--refresh", time];
    refused(
        &refresh("0s"),
        2,
        "--refresh 0s: the keyring would be read without a pause",
    );
    for time in ["1h", "1day"] {
        refused(&refresh(time), 2, "write less than 1h: after a rotation");
    }
    refused(&["--listen", "127.0.0.1:0", "--token-file", "missing"], 3, "missing");
    for text in ["", "\n\n", "too-short", "with spaces in it, 30 characters"] {
        fs::write(place.path("token"), text).unwrap();
        refused(
            &["--listen", "127.0.0.1:0", "--token-file", "token"],
            3,
            "`openssl rand -hex 32` makes one",
        );
    }
    fs::write(place.path("token"), TOKEN).unwrap();
    fs::set_permissions(place.path("token"), fs::Permissions::from_mode(0o640)).unwrap();
    refused(&["--listen", "127.0.0.1:0", "--token-file", "token"], 3, "chmod 600");
}

#[test]
fn behind_a_proxy_another_address_is_allowed() {
    let server = Server::start(
        place(),
        &["--listen", "0.0.0.0:0", "--token-file", "token", "--behind-tls-proxy"],
    );
    let port = server.address.rsplit_once(':').unwrap().1;
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    assert_eq!(send(&mut stream, "GET", "/healthz", "", b"").status, 200);
}

#[test]
fn changes_of_the_keyring_are_taken_up() {
    let server = Server::tcp(&["--refresh", "50ms"]);
    assert_eq!(server.post("create-datakey", &create()).status, 200);
    server.place.does(&["key", "disable", KEY]);
    let begun = std::time::Instant::now();
    while server.post("create-datakey", &create()).status == 200 {
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
    assert_eq!(
        server.post("create-datakey", &create()).code(),
        (400, "KMS.0209".into())
    );
}

#[test]
fn a_request_that_was_begun_is_answered_before_the_end() {
    let server = Server::tcp(&[]);
    let body = create().to_string();
    let mut begun = server.connect();
    let head = format!(
        "POST /v1.0/p/kms/create-datakey HTTP/1.1\r\nhost: k\r\nx-auth-token: {TOKEN}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    begun.write_all((head + &body[..5]).as_bytes()).unwrap();
    let mut idle = server.connect();
    assert_eq!(send(&mut idle, "GET", "/healthz", "", b"").status, 200);
    server.signal("TERM");
    // The idle connection is closed, and new ones are refused.
    assert_eq!(idle.read(&mut [0; 10]).unwrap(), 0);
    while server.try_connect().is_ok() {}
    begun.write_all(&body.as_bytes()[5..]).unwrap();
    let answer = receive(&mut begun, "POST");
    assert_eq!(answer.status, 200);
    server.stop();
}

#[test]
fn the_log_has_no_secret() {
    for json in [false, true] {
        let server = Server::tcp(if json { &["--json"] } else { &[] });
        let mut request = create();
        request["encryption_context"] = json!({"marked-name": "marked-value"});
        request["sequence"] = json!("marked--8046-4722-9094-35c3c6524cff-");
        let created = server.post("create-datakey", &request).json();
        let mut request = json!({"key_id": KEY, "datakey_cipher_length": "64"});
        request["cipher_text"] = created["cipher_text"].clone();
        request["encryption_context"] = json!({"marked-name": "marked-value"});
        let opened = server.post("decrypt-datakey", &request).json();
        assert_eq!(opened["data_key"], created["plain_text"]);
        server.send("POST", "/marked-path?marked=1", b"marked-body");
        send(
            &mut server.connect(),
            "GET",
            "/marked",
            "authorization: Bearer marked-wrong-token\r\n",
            b"",
        );
        let log = server.stop();
        assert!(!log.to_lowercase().contains("marked"), "{log}");
        for secret in ["plain_text", "cipher_text"] {
            assert!(!log.contains(&created[secret].as_str().unwrap()[..16]), "{log}");
        }
        let requests: Vec<_> = log.lines().filter(|line| line.contains("dekseal::access")).collect();
        assert_eq!(requests.len(), 4, "{log}");
        assert!(requests[0].contains("create-datakey") && requests[0].contains(KEY) && requests[0].contains("200"));
        assert!(requests[3].contains("403") && requests[3].contains("KMS.0306"), "{log}");
        if json {
            for line in log.lines() {
                serde_json::from_str::<Value>(line).unwrap();
            }
        }
    }
}
