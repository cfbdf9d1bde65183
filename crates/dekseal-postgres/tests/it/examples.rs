//! The examples of the package.

use std::{fs, process::Command};

use crate::server::Server;

#[test]
fn postgres_store_makes_a_key_and_rotates_it() {
    let Some(server) = Server::start(&[]) else { return };
    let root = server.path("root.key");
    fs::write(&root, [7; 64]).unwrap();
    let test = std::env::current_exe().unwrap();
    let example = test.parent().unwrap().parent().unwrap().join("examples/postgres_store");
    let connection = server.tcp("127.0.0.1") + " sslmode=disable";
    assert!(example.exists(), "cargo build --examples comes first");
    for version in 0..2 {
        let output = Command::new(&example).arg(&connection).arg(&root).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let listed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            listed,
            format!("0d0466b0-e727-4d9c-b35d-f84bb474a37f version {version}\n")
        );
    }
}
