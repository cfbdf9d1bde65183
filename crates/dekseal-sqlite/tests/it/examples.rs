//! The examples of the package.

use std::process::Command;

use dekseal::store::KeyStore;

use crate::{
    conformance::{call, key_id, stored},
    temporary,
};

#[test]
fn sqlite_store_lists_the_keys() {
    let store = temporary();
    for number in [2, 1] {
        store.put(&key_id(number), None, &stored(b"first"), &call()).unwrap();
    }
    let test = std::env::current_exe().unwrap();
    let example = test.parent().unwrap().parent().unwrap().join("examples/sqlite_store");
    assert!(example.exists(), "cargo build --examples comes first");
    let output = Command::new(example).arg(store.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(listed, format!("{}\n{}\n", key_id(1), key_id(2)));
}
