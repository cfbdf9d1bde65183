//! Runs the examples that need no input.

use crate::support::{command, example};

#[test]
fn each_example_succeeds_and_prints_something() {
    for name in ["create_datakey", "encrypt_file", "keyring"] {
        let output = command(&example(name)).output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{name}: {output:?}"
        );
        assert!(!output.stdout.is_empty(), "{name}");
    }
}
