//! Each row of the error table of docs/KMS_API.md.

use serde_json::{Value, json};

use super::{KEY, Server, create, place, send};

const OTHER: &str = "25abe69f-ae10-44cd-bc87-1bda1de3b7d7";

/// A request with some fields changed, or removed where the value is null.
fn with(mut request: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(request.as_object_mut().unwrap().remove(name)),
            value => request[name] = value.clone(),
        }
    }
    request
}

#[test]
fn every_code_is_answered() {
    let place = place();
    for (key, state) in [("disabled", &["disable"][..]), ("deleted0", &["delete", "--yes"])] {
        let key = KEY.replace("0d0466b0", key);
        place.does(&["key", "create", &key]);
        place.does(&[&["key"], state, &[key.as_str()]].concat());
    }
    let servers = [Server::start(place, &["--listen", "unix:kms.sock"]), Server::tcp(&[])];
    for (at, server) in servers.iter().enumerate() {
        let expect = |operation: &str, request: &Value, status: u16, code: &str| {
            let answer = server.post(operation, request);
            assert_eq!(answer.code(), (status, code.to_owned()), "{operation} {request}");
            assert!(answer.head.contains("content-type: application/json\r\n"));
            assert!(answer.head.contains("cache-control: no-store\r\n"));
        };
        let raw = |method: &str, path: &str, body: &[u8]| server.send(method, path, body).code();
        let path = "/v1.0/project/kms/create-datakey";

        let context = json!({"tenant": "42"});
        let create = with(create(), json!({"encryption_context": context}));
        let created = server.post("create-datakey", &create);
        assert_eq!(created.status, 200);
        let created = created.json();
        let names: Vec<_> = created.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["cipher_text", "key_id", "plain_text"]);
        expect("create-datakey-without-plaintext", &create, 200, "none");
        let decrypt = json!({
            "key_id": KEY, "cipher_text": created["cipher_text"], "datakey_cipher_length": "64",
            "encryption_context": context,
        });
        let opened = server.post("decrypt-datakey", &decrypt).json();
        assert_eq!(opened["data_key"], created["plain_text"]);
        let digits = opened["data_key"].as_str().unwrap().to_owned() + opened["datakey_dgst"].as_str().unwrap();
        let encrypt = json!({
            "key_id": KEY, "plain_text": digits, "datakey_plain_length": "64", "encryption_context": context,
        });
        assert_eq!(
            server.post("encrypt-datakey", &encrypt).json()["cipher_text"],
            created["cipher_text"]
        );

        for other in [
            "/",
            "/v1.0/project/kms/create-datakeys",
            "/v1.0//kms/create-datakey",
            "/v1.0/a.b/kms/create-datakey",
        ] {
            assert_eq!(raw("POST", other, b"{}"), (400, "KMS.0201".into()), "{other}");
        }
        assert_eq!(raw("GET", path, b""), (405, "KMS.0215".into()));
        assert_eq!(raw("PUT", path, b"{}"), (405, "KMS.0215".into()));
        assert_eq!(server.send("HEAD", path, b"").status, 405);
        assert_eq!(raw("POST", path, &vec![b' '; 256 * 1024 + 1]), (400, "KMS.0203".into()));
        for body in [
            &b""[..],
            b"{",
            b"[]",
            b"{\"key_id\":\"\",\"key_id\":\"\"}",
            b"{\"\xff\":1}",
        ] {
            assert_eq!(raw("POST", path, body), (400, "KMS.0202".into()));
        }
        expect(
            "create-datakey",
            &with(create.clone(), json!({"encryption_contexts": {}})),
            400,
            "KMS.0308",
        );
        expect(
            "create-datakey",
            &with(create.clone(), json!({"datakey_length": null})),
            400,
            "KMS.0204",
        );
        expect(
            "create-datakey",
            &with(create.clone(), json!({"key_id": "x"})),
            400,
            "KMS.0205",
        );
        expect(
            "create-datakey",
            &with(create.clone(), json!({"sequence": "x"})),
            400,
            "KMS.0206",
        );
        expect(
            "create-datakey",
            &with(create.clone(), json!({"encryption_context": {"": "x"}})),
            400,
            "KMS.0208",
        );
        expect(
            "create-datakey",
            &with(create.clone(), json!({"datakey_length": "256"})),
            400,
            "KMS.1901",
        );
        expect(
            "create-datakey-without-plaintext",
            &with(create.clone(), json!({"datakey_length": "1"})),
            400,
            "KMS.2001",
        );
        expect(
            "encrypt-datakey",
            &with(encrypt.clone(), json!({"plain_text": "00"})),
            400,
            "KMS.2101",
        );
        expect(
            "encrypt-datakey",
            &with(encrypt.clone(), json!({"datakey_plain_length": "32"})),
            400,
            "KMS.2102",
        );
        expect(
            "encrypt-datakey",
            &with(encrypt.clone(), json!({"plain_text": "0".repeat(192)})),
            400,
            "KMS.2103",
        );
        expect(
            "decrypt-datakey",
            &with(decrypt.clone(), json!({"cipher_text": "00"})),
            400,
            "KMS.2201",
        );
        expect(
            "decrypt-datakey",
            &with(decrypt.clone(), json!({"datakey_cipher_length": "65"})),
            400,
            "KMS.2202",
        );
        expect(
            "create-datakey",
            &with(create.clone(), json!({"key_id": OTHER})),
            404,
            "KMS.0207",
        );
        expect(
            "decrypt-datakey",
            &with(decrypt.clone(), json!({"encryption_context": {}})),
            400,
            "KMS.2203",
        );
        if at == 0 {
            let key = |key: &str| with(create.clone(), json!({"key_id": KEY.replace("0d0466b0", key)}));
            expect("create-datakey", &key("disabled"), 400, "KMS.0209");
            expect("create-datakey", &key("deleted0"), 400, "KMS.0210");
        }
    }
}

#[test]
fn a_version_that_is_not_there_is_named_so() {
    let server = Server::unix(&[]);
    let cmk = dekseal::CmkVersion::new(KEY.parse().unwrap(), 7, &[1; 32]).unwrap();
    let dek = dekseal::Dek::from_bytes(&[7; 64]);
    let sealed = cmk.seal(&dekseal::EncryptionContext::none(), &dek);
    let digits = base16ct::upper::encode_string(sealed.as_bytes());
    let request = json!({"key_id": KEY, "cipher_text": digits, "datakey_cipher_length": "64"});
    assert_eq!(
        server.post("decrypt-datakey", &request).code(),
        (404, "KMS.0207".into())
    );
}

#[test]
fn what_the_host_does_not_serve_is_forbidden() {
    let server = Server::unix(&["--allow-key", KEY, "--allow-operation", "create-datakey"]);
    assert_eq!(server.post("create-datakey", &create()).status, 200);
    let refused = server.post("create-datakey-without-plaintext", &create());
    assert_eq!(refused.code(), (403, "KMS.0306".into()));
    // Not even whether there is such a key. But what is malformed is named first, as the table says.
    let other = server.post("create-datakey", &with(create(), json!({"key_id": OTHER})));
    assert_eq!(other.code(), (403, "KMS.0306".into()));
    let malformed = server.post(
        "create-datakey",
        &with(create(), json!({"key_id": OTHER, "datakey_length": "1"})),
    );
    assert_eq!(malformed.code(), (400, "KMS.1901".into()));
}

#[test]
fn a_store_that_is_away_is_unavailable() {
    let place = place();
    let sqlite = |words: &[&str]| {
        let mut command = place.command(words);
        command.env("DEKSEAL_KEYRING", "sqlite:keys.db");
        command
    };
    assert!(sqlite(&["keyring", "create"]).output().unwrap().status.success());
    assert!(sqlite(&["key", "create", KEY]).output().unwrap().status.success());
    let mut command = sqlite(&["serve", "--listen", "unix:kms.sock"]);
    let server = Server::run(place, &mut command);
    assert_eq!(server.post("create-datakey", &create()).status, 200);
    std::fs::rename(server.place.path("keys.db"), server.place.path("aside.db")).unwrap();
    // A key that was read before is still there, another one cannot be looked up.
    assert_eq!(server.post("create-datakey", &create()).status, 200);
    let other = with(create(), json!({"key_id": OTHER}));
    assert_eq!(server.post("create-datakey", &other).code(), (503, "KMS.0101".into()));
    std::fs::rename(server.place.path("aside.db"), server.place.path("keys.db")).unwrap();
    assert_eq!(server.post("create-datakey", &other).code(), (404, "KMS.0207".into()));
}

#[test]
fn a_connection_takes_many_requests() {
    let server = Server::unix(&[]);
    let mut connection = server.connect();
    for _ in 0..3 {
        let body = create().to_string();
        assert_eq!(
            send(
                &mut connection,
                "POST",
                "/v1.0/p/kms/create-datakey",
                "",
                body.as_bytes()
            )
            .status,
            200
        );
        assert_eq!(
            send(&mut connection, "HEAD", "/v1.0/p/kms/create-datakey", "", b"").status,
            405
        );
        assert_eq!(
            send(&mut connection, "GET", "/nothing", "", b"").code(),
            (400, "KMS.0201".into())
        );
        assert_eq!(send(&mut connection, "HEAD", "/healthz", "", b"").status, 200);
    }
    // In one write, without waiting for the answers.
    let mut connection = server.connect();
    let one = "GET /healthz HTTP/1.1\r\nhost: k\r\n\r\n";
    connection.write_all(one.repeat(3).as_bytes()).unwrap();
    for _ in 0..3 {
        assert_eq!(super::receive(&mut connection, "GET").status, 200);
    }
}
