//! Tests the program over TCP.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dekseal::{CmkVersion, FileKeyring, api::MAX_BODY};
use serde_json::{Value, json};
use tempfile::TempDir;

const KEY_ID: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";

struct Server {
    child: Child,
    address: String,
    directory: TempDir,
}

impl Server {
    /// Starts the program on a port that the system chooses, with one key.
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (keyring, root) = (directory.path().join("keyring.json"), directory.path().join("root"));
        fs::write(&root, format!("{}\n", "07".repeat(64))).unwrap();
        let cmk = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse().unwrap(), 0, &[7; 64]);
        FileKeyring::create(&keyring, cmk.unwrap())
            .unwrap()
            .update(|keys| keys.create_key(KEY_ID.parse()?))
            .unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_dekseal-http"))
            .args([
                keyring.as_os_str(),
                root.as_os_str(),
                "127.0.0.1:0".as_ref(),
                "0.05".as_ref(),
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self {
            child,
            address,
            directory,
        }
    }

    /// Sends a request over a new connection. Returns status, headers and body.
    fn send(&self, method: &str, path: &str, body: &[u8]) -> (u16, String, Value) {
        self.announce(method, path, body.len(), body)
    }

    /// Sends a request whose `Content-Length` is `length`.
    fn announce(&self, method: &str, path: &str, length: usize, body: &[u8]) -> (u16, String, Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: kms\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), serde_json::from_str(body).unwrap())
    }

    fn post(&self, operation: &str, body: &Value) -> (u16, String, Value) {
        self.send(
            "POST",
            &format!("/v1.0/project/kms/{operation}"),
            body.to_string().as_bytes(),
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn code(body: &Value) -> &str {
    body["error"]["error_code"].as_str().unwrap()
}

#[test]
fn a_dek_is_made_and_opened_again() {
    let server = Server::start();
    let context = json!({"tenant": "42"});
    let request = json!({"key_id": KEY_ID, "datakey_length": "512", "encryption_context": context});
    let (status, head, created) = server.post("create-datakey", &request);
    assert_eq!(status, 200, "{created}");
    assert!(head.contains("content-type: application/json\r\n") && head.contains("cache-control: no-store\r\n"));

    let mut request = json!({
        "key_id": KEY_ID,
        "cipher_text": created["cipher_text"],
        "datakey_cipher_length": "64",
        "encryption_context": context,
    });
    let (status, _, opened) = server.post("decrypt-datakey", &request);
    assert_eq!((status, &opened["data_key"]), (200, &created["plain_text"]));
    request["encryption_context"] = json!({"tenant": "43"});
    let (status, _, refused) = server.post("decrypt-datakey", &request);
    assert_eq!((status, code(&refused)), (400, "KMS.2203"));
}

#[test]
fn whatever_else_comes_is_answered_by_the_api() {
    let server = Server::start();
    let request = json!({"key_id": KEY_ID, "datakey_length": "512"});
    let (status, _, refused) = server.post("create-datakeys", &request);
    assert_eq!((status, code(&refused)), (400, "KMS.0201"));
    let (status, _, refused) = server.send("GET", "/v1.0/project/kms/create-datakey", b"");
    assert_eq!((status, code(&refused)), (405, "KMS.0215"));
    let (status, _, refused) = server.send("POST", "/v1.0/project/kms/create-datakey", b"{");
    assert_eq!((status, code(&refused)), (400, "KMS.0202"));

    // A body of the maximum length, and one byte more.
    let mut body = request.to_string().into_bytes();
    body.resize(MAX_BODY, b' ');
    let (status, ..) = server.send("POST", "/v1.0/project/kms/create-datakey", &body);
    assert_eq!(status, 200);
    body.push(b' ');
    let (status, _, refused) = server.send("POST", "/v1.0/project/kms/create-datakey", &body);
    assert_eq!((status, code(&refused)), (400, "KMS.0203"));
    // The server answers without waiting for a longer body.
    let (status, _, refused) = server.announce("POST", "/v1.0/project/kms/create-datakey", 1 << 30, &body);
    assert_eq!((status, code(&refused)), (400, "KMS.0203"));
}

/// With standard error closed, a report of the refresh thread must not end the thread.
#[test]
fn the_refresh_goes_on_when_standard_error_is_closed() {
    let mut server = Server::start();
    drop(server.child.stderr.take());
    let (file, aside) = (
        server.directory.path().join("keyring.json"),
        server.directory.path().join("aside"),
    );
    let code = |server: &Server| {
        let (_, _, answer) = server.post("create-datakey", &json!({"key_id": KEY_ID, "datakey_length": "512"}));
        answer["error"]["error_code"].as_str().map(str::to_owned)
    };
    assert_eq!(code(&server), None);

    // Several refreshes fail, and the keys stay as they are.
    fs::rename(&file, &aside).unwrap();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(code(&server), None);
    fs::rename(&aside, &file).unwrap();

    let cmk = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse().unwrap(), 0, &[7; 64]);
    let keyring = FileKeyring::open(&file, cmk.unwrap()).unwrap();
    keyring.update(|keys| keys.disable(&KEY_ID.parse()?)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while code(&server).as_deref() != Some("KMS.0209") {
        assert!(Instant::now() < deadline, "the change is never taken up");
        thread::sleep(Duration::from_millis(50));
    }
}
