//! The example that looks at sealed DEKs, as a process.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::{Command, Output, Stdio},
};

use base64ct::{Base64, Base64Unpadded, Base64Url, Base64UrlUnpadded, Encoding};
use dekseal::{Dek, EncryptionContext, SealedDek};

use crate::support::{KEY_ID, OTHER_KEY_ID, cmk, example, with_checksum};

fn sealed(key_id: &str, key_version: u32, number: u8) -> SealedDek {
    let dek = Dek::from_bytes(&[number; 64]);
    cmk(key_id, key_version, &[7; 32]).seal(&EncryptionContext::none(), &dek)
}

fn start(words: &[&str]) -> Command {
    let mut command = Command::new(example("inspect"));
    command.args(words);
    command
}

/// What it makes of this on its standard input: the exit code, standard output, standard error.
fn inspect(words: &[&str], input: &[u8]) -> (i32, String, String) {
    let pipes = || Stdio::piped();
    let mut child = start(words)
        .stdin(pipes())
        .stdout(pipes())
        .stderr(pipes())
        .spawn()
        .unwrap();
    // It may end before it has read all.
    let _ = child.stdin.take().unwrap().write_all(input);
    read(child.wait_with_output().unwrap())
}

fn read(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A blob of each kind of damage, with the rule that it breaks and what is said of it.
fn damaged() -> Vec<(Vec<u8>, &'static str, &'static str)> {
    let whole = *sealed(KEY_ID, 0, 1).as_bytes();
    let changed = |at: usize, byte: u8| {
        let mut blob = whole;
        blob[at] = byte;
        with_checksum(blob).to_vec()
    };
    let mut checksum = whole.to_vec();
    checksum[187] ^= 1;
    vec![
        (
            whole[..187].to_vec(),
            "length",
            "not a sealed DEK: the length is not 188 bytes",
        ),
        (changed(0, 3), "version", "not a sealed DEK: the version is not 2"),
        (
            changed(2, 151),
            "body_length",
            "not a sealed DEK: the body length is not 152",
        ),
        (changed(116, b'A'), "key_id", "malformed key ID"),
        (checksum, "checksum", "damaged sealed DEK: the checksum does not fit"),
    ]
}

const TABLE: &str = "\
key ID                                   version       blobs
0d0466b0-e727-4d9c-b35d-f84bb474a37f           0           2
0d0466b0-e727-4d9c-b35d-f84bb474a37f           7           1
43e243b5-0095-1b21-67b2-58370386cc4b  4294967295           1
damaged                                                    0
total                                                      4
";

fn four() -> [SealedDek; 4] {
    [
        sealed(OTHER_KEY_ID, u32::MAX, 1),
        sealed(KEY_ID, 7, 2),
        sealed(KEY_ID, 0, 3),
        sealed(KEY_ID, 0, 4),
    ]
}

fn table() -> String {
    TABLE.replace("43e243b5-0095-1b21-67b2-58370386cc4b", OTHER_KEY_ID)
}

#[test]
fn every_form_of_text_is_counted() {
    let [a, b, c, d] = four();
    let hex = hex::encode(a);
    let forms = [
        format!(
            "{hex}\n{}\n\n  {} \r\n{}",
            hex::encode_upper(b),
            hex::encode(c),
            hex::encode(d)
        ),
        format!(
            "\\x{hex}\n\\\\x{}\n0x{}\n{}\n",
            hex::encode(b),
            hex::encode(c),
            hex::encode(d)
        ),
        [
            Base64::encode_string(a.as_bytes()),
            Base64Unpadded::encode_string(b.as_bytes()),
            Base64Url::encode_string(c.as_bytes()),
            Base64UrlUnpadded::encode_string(d.as_bytes()),
        ]
        .join("\n"),
        // Told apart line by line.
        format!(
            "{hex}\n{}\n{}\n{}",
            Base64::encode_string(b.as_bytes()),
            hex::encode(c),
            hex::encode(d)
        ),
    ];
    for form in forms {
        assert_eq!(inspect(&[], form.as_bytes()), (0, table(), String::new()), "{form}");
    }
}

#[test]
fn binary_is_records_end_to_end() {
    let mut blobs: Vec<u8> = four().iter().flat_map(|sealed| *sealed.as_bytes()).collect();
    for words in [&[][..], &["--format", "binary"], &["-"]] {
        assert_eq!(inspect(words, &blobs), (0, table(), String::new()));
    }
    // What is left over is no blob.
    blobs.extend(&blobs[..100].to_vec());
    let (code, output, _) = inspect(&[], &blobs);
    let last = "-: record 5: not a sealed DEK: the length is not 188 bytes\n";
    assert_eq!((code, output.ends_with(last)), (1, true), "{output}");
}

#[test]
fn each_damage_is_named_with_its_place() {
    let whole = hex::encode(sealed(KEY_ID, 0, 1));
    let (mut text, mut table, mut json) = (format!("{whole}\n"), String::new(), String::new());
    for (line, (blob, rule, message)) in (2..).zip(damaged()) {
        text += &format!("{}\n", hex::encode(blob));
        table += &format!("-: line {line}: {message}\n");
        json += &format!("{{\"type\":\"damaged\",\"file\":\"-\",\"line\":{line},\"rule\":\"{rule}\"}}\n");
    }
    text += "no blob\n";
    table += "-: line 7: neither hex nor base64\n";
    json += "{\"type\":\"damaged\",\"file\":\"-\",\"line\":7,\"rule\":\"encoding\"}\n";
    let head = format!(
        "{:36}  {:>10}  {:>10}\n{KEY_ID}           0           1\n{:36}  {:>10}  {:>10}\n{:36}  {:>10}  {:>10}\n",
        "key ID", "version", "blobs", "damaged", "", 6, "total", "", 7
    );
    assert_eq!(inspect(&[], text.as_bytes()), (1, head + &table, String::new()));

    let key = format!("{{\"type\":\"key\",\"key_id\":\"{KEY_ID}\",\"key_version\":0,\"blobs\":1}}\n");
    let total = "{\"type\":\"total\",\"whole\":1,\"damaged\":6}\n";
    let counts = format!("{key}{total}");
    assert_eq!(
        inspect(&["--json"], text.as_bytes()),
        (1, json.clone() + &counts, String::new())
    );
    let blob = format!("{{\"type\":\"blob\",\"file\":\"-\",\"line\":1,\"key_id\":\"{KEY_ID}\",\"key_version\":0}}\n");
    assert_eq!(
        inspect(&["--json", "--each"], text.as_bytes()),
        (1, blob + &json + &counts, String::new())
    );
}

#[test]
fn ten_damaged_ones_are_shown_and_all_are_counted() {
    let text = "no blob\n".repeat(1000);
    let (code, output, _) = inspect(&[], text.as_bytes());
    let lines: Vec<_> = output.lines().collect();
    assert_eq!((code, lines.len()), (1, 3 + 10 + 1));
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["damaged", "1000"]);
    assert_eq!(lines[12], "-: line 10: neither hex nor base64");
    assert_eq!(lines[13], "and 990 more");
    let (_, output, _) = inspect(&["--each"], text.as_bytes());
    assert_eq!(output.lines().count(), 1003);
}

#[test]
fn a_line_of_any_length_is_one_damaged_blob() {
    let whole = hex::encode(sealed(KEY_ID, 0, 1));
    for length in [1023, 1024, 1025, 10_000_000] {
        let text = format!("{}\n{whole}", "0".repeat(length));
        let (code, output, _) = inspect(&["--json"], text.as_bytes());
        assert_eq!(code, 1);
        assert!(output.contains("\"line\":1"), "{output}");
        assert!(
            output.ends_with("{\"type\":\"total\",\"whole\":1,\"damaged\":1}\n"),
            "{output}"
        );
    }
}

#[test]
fn files_are_named_and_counted_together() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).unwrap();
    let [a, b, c, d] = four();
    write("binary", &[*a.as_bytes(), *b.as_bytes()].concat());
    write("text", format!("{}\n", hex::encode(c)).as_bytes());
    write("bad", b"no blob");
    let run = |words: &[&str]| read(start(words).current_dir(directory.path()).output().unwrap());
    let text = format!("{}\n", hex::encode(d));
    write("more", text.as_bytes());
    assert_eq!(run(&["binary", "text", "more"]), (0, table(), String::new()));
    let (code, output, _) = run(&["text", "bad"]);
    assert_eq!(
        (code, output.ends_with("\nbad: line 1: neither hex nor base64\n")),
        (1, true)
    );
    // Asked for one format, it takes no other.
    for (format, file, rest) in [("base64", "text", "length is not 188"), ("hex", "bad", "not hex")] {
        let (code, output, _) = run(&["--format", format, file]);
        assert_eq!((code, output.contains(rest)), (1, true), "{output}");
    }
    // A file that cannot be read gives no verdict.
    let (code, output, error) = run(&["text", "missing"]);
    assert_eq!((code, output.as_str()), (2, ""));
    assert!(error.starts_with("inspect: missing: "), "{error}");
}

#[test]
fn nothing_to_count_is_whole() {
    let (code, output, _) = inspect(&["--json"], b"\n \n");
    assert_eq!(
        (code, output.as_str()),
        (0, "{\"type\":\"total\",\"whole\":0,\"damaged\":0}\n")
    );
}

#[test]
fn wrong_arguments_are_told() {
    for words in [&["--format"][..], &["--format", "json"], &["--jsn"], &["-x"]] {
        let (code, output, error) = inspect(words, b"");
        assert_eq!((code, output.as_str()), (2, ""), "{words:?}");
        assert!(error.starts_with("inspect: usage: inspect "), "{error}");
    }
    let (code, output, error) = inspect(&["--help"], b"");
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(output.contains("Exit code 0"));
}

/// Whoever reads no further gets no message, and no verdict either.
#[cfg(unix)]
#[test]
fn a_closed_pipe_ends_it() {
    let directory = tempfile::tempdir().unwrap();
    let file: &Path = &directory.path().join("many");
    let line = format!("{}\n", hex::encode(sealed(KEY_ID, 0, 1)));
    fs::write(file, line.repeat(5000)).unwrap();
    let mut child = start(&["--each"])
        .arg(file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let (code, _, error) = read(child.wait_with_output().unwrap());
    assert_eq!((code, error.as_str()), (2, ""));
}
