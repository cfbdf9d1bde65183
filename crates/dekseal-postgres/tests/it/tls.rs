//! TLS with certificates that are made for the tests.

use std::{fs, process::Command};

use dekseal::store::{KeyStore, StoreErrorKind};
use dekseal_postgres::{Options, PostgresStore};

use crate::{
    certificates::certificates,
    conformance::{call, key_id, stored},
    server::{Server, create, is_missing, shared},
};

fn openssl_is_missing() -> bool {
    is_missing("openssl", Command::new("openssl").arg("version").output().is_ok())
}

/// A server for the name `localhost` only, and its root certificate.
fn server() -> Option<(Server, Vec<u8>, tempfile::TempDir)> {
    if openssl_is_missing() {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (root, certificate, key) = certificates(directory.path(), "DNS:localhost");
    let server = Server::start(&[
        "ssl=on",
        &format!("ssl_cert_file={}", certificate.display()),
        &format!("ssl_key_file={}", key.display()),
    ])?;
    let root = fs::read(root).unwrap();
    Some((server, root, directory))
}

#[test]
fn the_servers_certificate_and_name_are_verified() {
    let Some((server, root, _directory)) = server() else {
        return;
    };
    let localhost = server.tcp("localhost");
    for connection in [
        localhost.clone(),
        format!("{localhost} sslmode=prefer"),
        format!("{localhost} sslmode=require"),
        format!("{localhost} sslmode=verify-full"),
        format!(
            "postgresql://postgres:correct%20horse@localhost:{}/postgres?sslmode=verify-full",
            server.port
        ),
    ] {
        let options = Options::new(&connection).unwrap().root_certificates(&root).unwrap();
        let schema = "over_tls";
        let store = create(options.schema(schema));
        let _ = store.put(&key_id(1), None, &stored(b"first"), &call());
        assert_eq!(store.get(&key_id(1), &call()).unwrap(), Some(stored(b"first")));
        let encrypted = server.sql(
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE application_name = 'dekseal'",
        );
        assert_eq!(encrypted, "t\n", "{connection}");
    }

    let other = tempfile::tempdir().unwrap();
    let (other_root, ..) = certificates(other.path(), "DNS:localhost");
    let other_root = fs::read(other_root).unwrap();
    let wrong = [
        // Another authority with the same name; a server with another name.
        (
            Options::new(&localhost)
                .unwrap()
                .root_certificates(&other_root)
                .unwrap(),
            "invalid peer certificate",
        ),
        (
            Options::new(&server.tcp("127.0.0.1"))
                .unwrap()
                .root_certificates(&root)
                .unwrap(),
            "not valid for name",
        ),
    ];
    for (options, why) in wrong {
        let store = PostgresStore::new(options).unwrap();
        for error in [
            store.get(&key_id(1), &call()).unwrap_err(),
            store.put(&key_id(2), None, &stored(b""), &call()).unwrap_err(),
        ] {
            assert_eq!(
                (error.kind(), error.is_outcome_unknown()),
                (StoreErrorKind::Refused, false)
            );
            let text = chain(&error);
            assert!(text.contains(why), "{text}");
        }
    }
}

/// The text of an error and of all its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map(chain).unwrap_or_default();
    format!("{error}: {source}")
}

/// A server, or an attacker in the middle, that claims to have no TLS.
#[test]
fn a_server_without_tls_is_refused_unless_that_is_asked_for() {
    let Some(plain) = shared() else { return };
    if openssl_is_missing() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = fs::read(certificates(directory.path(), "DNS:localhost").0).unwrap();
    for mode in ["", " sslmode=prefer", " sslmode=require", " sslmode=verify-full"] {
        let connection = plain.tcp("localhost") + mode;
        let options = Options::new(&connection).unwrap().root_certificates(&root).unwrap();
        let store = PostgresStore::new(options).unwrap();
        let error = store.get(&key_id(1), &call()).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Refused, "{error:?}");
        assert!(chain(&error).contains("does not support TLS"), "{error:?}");
    }
    let options = Options::new(&(plain.tcp("localhost") + " sslmode=disable")).unwrap();
    create(options.schema("plain")).get(&key_id(1), &call()).unwrap();
}

#[test]
fn root_certificates_are_pem_with_a_certificate() {
    let options = || Options::new("host=localhost user=postgres").unwrap();
    for pem in [
        &b""[..],
        b"no certificate",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let error = options().root_certificates(pem).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Refused);
    }
}
