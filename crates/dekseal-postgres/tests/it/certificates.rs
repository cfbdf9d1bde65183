//! Certificates for a server.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::server::{give_to_server, must};

/// Makes a root certificate, and a certificate under it for a server with these names.
pub(crate) fn certificates(directory: &Path, names: &str) -> (PathBuf, PathBuf, PathBuf) {
    let path = |name: &str| directory.join(name);
    let openssl = || Command::new("openssl");
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    must(
        openssl()
            .args(["req", "-x509", "-days", "2", "-subj", "/CN=root"])
            .args([
                "-addext",
                "basicConstraints=critical,CA:TRUE",
                "-addext",
                "keyUsage=critical,keyCertSign",
            ])
            .args(key)
            .arg("-keyout")
            .arg(path("root.key"))
            .arg("-out")
            .arg(path("root.pem")),
    );
    must(
        openssl()
            .args(["req", "-subj", "/CN=server"])
            .args(key)
            .arg("-keyout")
            .arg(path("server.key"))
            .arg("-out")
            .arg(path("server.csr")),
    );
    fs::write(path("extensions"), format!("subjectAltName={names}\n")).unwrap();
    must(
        openssl()
            .args(["x509", "-req", "-days", "2"])
            .arg("-in")
            .arg(path("server.csr"))
            .arg("-CA")
            .arg(path("root.pem"))
            .arg("-CAkey")
            .arg(path("root.key"))
            .arg("-extfile")
            .arg(path("extensions"))
            .arg("-out")
            .arg(path("server.pem")),
    );
    give_to_server(&path("server.key"));
    give_to_server(&path("server.pem"));
    (path("root.pem"), path("server.pem"), path("server.key"))
}
