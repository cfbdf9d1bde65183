//! Runs the example `kms_stdio` as a process.

use std::{
    io::Write,
    process::{Output, Stdio},
};

use dekseal::FileKeyring;
use serde_json::{Value, json};

use crate::support::{KEY_ID, SealedVector, cmk, command, example, key_id, vectors};

fn run(arguments: &[String], input: &str) -> Output {
    let mut child = command(&example("kms_stdio"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The process may end before it has read all input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn line(operation: &str, body: &Value) -> String {
    json!({"method": "POST", "path": format!("/v1.0/p/kms/{operation}"), "body": body.to_string()}).to_string() + "\n"
}

/// The status and the body of each line.
fn answers(output: &Output) -> Vec<(u64, Value)> {
    let text = core::str::from_utf8(&output.stdout).unwrap();
    let answer = |line: &str| {
        let answer: Value = serde_json::from_str(line).unwrap();
        assert_eq!(answer.as_object().unwrap().len(), 2);
        (
            answer["status"].as_u64().unwrap(),
            serde_json::from_str(answer["body"].as_str().unwrap()).unwrap(),
        )
    };
    text.lines().map(answer).collect()
}

#[test]
fn it_seals_and_opens_every_known_answer() {
    use sha2::{Digest, Sha256};
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cmks");
    for v in vectors::<Vec<SealedVector>>("blob") {
        let digest = hex::encode(Sha256::digest(hex::decode(&v.dek).unwrap()));
        let encrypt = json!({
            "key_id": v.key_id,
            "plain_text": v.dek.clone() + &digest,
            "datakey_plain_length": "64",
            "encryption_context": v.context,
        });
        let decrypt = json!({
            "key_id": v.key_id,
            "cipher_text": v.blob,
            "datakey_cipher_length": "64",
            "encryption_context": v.context,
        });
        std::fs::write(&file, format!("{}:{}:{}\n", v.key_id, v.key_version, v.material)).unwrap();
        let arguments = ["--cmk-file", file.to_str().unwrap()].map(str::to_owned);
        let output = run(
            &arguments,
            &(line("encrypt-datakey", &encrypt) + &line("decrypt-datakey", &decrypt)),
        );
        assert!(output.status.success() && output.stderr.is_empty());
        let answers = answers(&output);
        assert_eq!(answers.len(), 2);
        assert_eq!(answers[0].1["cipher_text"], v.blob.to_uppercase(), "{}", v.name);
        assert_eq!(answers[1].1["data_key"], v.dek.to_uppercase(), "{}", v.name);
    }
}

#[test]
fn it_answers_refusals_and_goes_on() {
    let create = json!({"key_id": KEY_ID, "datakey_length": "512"});
    let arguments: Vec<String> = (0..3)
        .flat_map(|version| ["--cmk".to_owned(), format!("{KEY_ID}:{version}:{}", "0a".repeat(32))])
        .collect();
    let input = line("create-datakey", &json!({})) + &line("nothing", &create) + &line("create-datakey", &create);
    let output = run(&arguments, &input);
    let answers = answers(&output);
    assert_eq!(
        answers.iter().map(|(status, _)| *status).collect::<Vec<_>>(),
        [400, 400, 200]
    );
    assert_eq!(answers[0].1["error"]["error_code"], "KMS.0204");
    assert_eq!(answers[1].1["error"]["error_code"], "KMS.0201");
    // Version 2 seals.
    assert_eq!(
        &answers[2].1["cipher_text"].as_str().unwrap()[2 * 152..2 * 156],
        "02000000"
    );
    assert!(output.status.success() && output.stderr.is_empty());
}

#[test]
fn a_malformed_line_ends_it_with_exit_code_2() {
    let good = line("create-datakey", &json!({"key_id": KEY_ID, "datakey_length": "512"}));
    for bad in [
        "",
        "x",
        "{}",
        r#"{"method":"POST","path":"/"}"#,
        r#"{"method":"POST","path":"/","body":{}}"#,
        r#"{"method":"POST","path":"/","body":"","x":1}"#,
    ] {
        let output = run(&[], &format!("{good}{bad}\n{good}"));
        assert_eq!(output.status.code(), Some(2), "{bad}");
        assert_eq!(answers(&output).len(), 1, "{bad}");
        assert!(
            String::from_utf8(output.stderr)
                .unwrap()
                .starts_with("kms_stdio: line 2: "),
            "{bad}"
        );
    }
}

#[test]
fn bad_arguments_end_it_with_exit_code_2() {
    let secret = "5ec3e7".repeat(12);
    for bad in [
        vec!["--cmk".to_owned()],
        vec!["--help".to_owned(), "x".to_owned()],
        vec!["--cmk".to_owned(), format!("{KEY_ID}:0")],
        vec!["--cmk".to_owned(), format!("{KEY_ID}:4294967296:{secret}")],
        vec!["--cmk".to_owned(), format!("{KEY_ID}:0:{secret}x")],
        vec!["--cmk".to_owned(), format!("{KEY_ID}:0:{}", &secret[..62])],
        vec!["--cmk".to_owned(), format!("x:0:{}", &secret[..64])],
    ] {
        let output = run(&bad, "");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{bad:?}");
        assert!(
            stderr.starts_with("kms_stdio: ") && !stderr.contains("5ec3e7"),
            "{stderr}"
        );
    }
}

#[test]
fn a_cmk_file_has_a_cmk_on_each_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cmks");
    let arguments = ["--cmk-file", file.to_str().unwrap()].map(str::to_owned);
    let create = line("create-datakey", &json!({"key_id": KEY_ID, "datakey_length": "512"}));

    let lines: Vec<String> = (0..3)
        .map(|version| format!("{KEY_ID}:{version}:{}", "0a".repeat(32)))
        .collect();
    std::fs::write(&file, format!("\n{}\r\n\n", lines.join("\n"))).unwrap();
    let output = run(&arguments, &create);
    let answers = answers(&output);
    assert_eq!((answers.len(), answers[0].0), (1, 200));
    assert_eq!(
        &answers[0].1["cipher_text"].as_str().unwrap()[2 * 152..2 * 156],
        "02000000"
    );

    let secret = "5ec3e7".repeat(12);
    for (text, error) in [
        (format!("\n{KEY_ID}:0:{secret}x"), "line 2: the material is not hex"),
        (format!("{KEY_ID}:0"), "line 1: not KEY_ID:VERSION:HEX"),
        (secret, "line 1: not KEY_ID:VERSION:HEX"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = run(&arguments, &create);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), stderr.trim()),
            (Some(2), &*format!("kms_stdio: --cmk-file: {error}"))
        );
    }
    std::fs::remove_file(&file).unwrap();
    let output = run(&arguments, &create);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn it_serves_a_keyring_file_as_it_is_at_each_request() {
    let directory = tempfile::tempdir().unwrap();
    let (file, root_file) = (directory.path().join("keyring.json"), directory.path().join("root.hex"));
    std::fs::write(&root_file, format!("{}\n", "5e".repeat(32))).unwrap();
    let root = || cmk("00000000-0000-0000-0000-00000000root", 0, &[0x5e; 32]);
    let files = [
        "--keyring",
        file.to_str().unwrap(),
        "--root-key-file",
        root_file.to_str().unwrap(),
    ]
    .map(str::to_owned);
    let create = line("create-datakey", &json!({"key_id": KEY_ID, "datakey_length": "512"}));
    let code = || {
        let output = run(&files, &create);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        answers(&output)[0].1["error"]["error_code"].as_str().map(str::to_owned)
    };

    let output = run(&files, &create);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("keyring.json"));
    let keyring = FileKeyring::create(&file, root()).unwrap();
    let key_id = key_id(KEY_ID);
    assert_eq!(code().as_deref(), Some("KMS.0207"));
    keyring.update(|keys| keys.create_key(key_id)).unwrap();
    assert_eq!(code(), None);
    keyring.update(|keys| keys.disable(&key_id)).unwrap();
    assert_eq!(code().as_deref(), Some("KMS.0209"));
    keyring.update(|keys| keys.enable(&key_id)).unwrap();
    keyring.update(|keys| keys.schedule_deletion(&key_id, 7)).unwrap();
    assert_eq!(code().as_deref(), Some("KMS.0210"));

    for wrong in [&"77".repeat(32), "S3cret"] {
        std::fs::write(&root_file, wrong).unwrap();
        let output = run(&files, &create);
        assert_eq!(output.status.code(), Some(2));
        assert!(!String::from_utf8(output.stderr).unwrap().contains("S3cret"));
    }
}
