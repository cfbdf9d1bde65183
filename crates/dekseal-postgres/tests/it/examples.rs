//! The examples of the package.

use std::process::Command;

use dekseal::store::KeyStore;

use crate::{
    conformance::{call, key_id, stored},
    server::{Server, create},
};

#[test]
fn postgres_store_lists_the_keys() {
    let Some(server) = Server::start(&[]) else { return };
    let run = || {
        let test = std::env::current_exe().unwrap();
        let example = test.parent().unwrap().parent().unwrap().join("examples/postgres_store");
        let connection = server.tcp("127.0.0.1") + " sslmode=disable";
        assert!(example.exists(), "cargo build --examples comes first");
        let output = Command::new(example).arg(connection).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run(), "");
    let store = create(server.options());
    for number in [2, 1] {
        store.put(&key_id(number), None, &stored(b"first"), &call()).unwrap();
    }
    assert_eq!(run(), format!("{}\n{}\n", key_id(1), key_id(2)));
}
