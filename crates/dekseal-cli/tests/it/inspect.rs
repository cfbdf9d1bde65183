//! `dekseal inspect`.

use std::{
    fs,
    io::Write,
    process::{Command, Output, Stdio},
    time::Instant,
};

use base64ct::{Base64, Base64Unpadded, Base64Url, Base64UrlUnpadded, Encoding};
use dekseal::{CmkVersion, Dek, EncryptionContext, SealedDek};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{KEY_ID, OTHER_KEY_ID, Place, dekseal};

/// A blob under this key and version, different for each `seed`.
fn blob(key_id: &str, version: u32, seed: u8) -> [u8; 188] {
    let cmk = CmkVersion::new(key_id.parse().unwrap(), version, &[7; 32]).unwrap();
    *cmk.seal(&EncryptionContext::none(), &Dek::from_bytes(&[seed; 64]))
        .as_bytes()
}

/// Changes a byte of a blob and repairs its checksum.
fn changed(at: usize, to: u8) -> [u8; 188] {
    let mut blob = blob(KEY_ID, 0, 1);
    assert_ne!(blob[at], to);
    blob[at] = to;
    let checksum = Sha256::digest(&blob[..156]);
    blob[156..].copy_from_slice(&checksum);
    blob
}

fn command(arguments: &[&str]) -> Command {
    let mut command = dekseal();
    command
        .arg("inspect")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn feed(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.spawn().unwrap();
    // The process may end before it has read all input.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Inspects readable input. Returns the output, and whether it found damage.
fn inspect(arguments: &[&str], input: impl AsRef<[u8]>) -> (String, bool) {
    let output = feed(command(arguments), input.as_ref());
    let stderr = String::from_utf8_lossy(&output.stderr);
    let damaged = match output.status.code() {
        Some(0) => false,
        Some(1) => true,
        other => panic!("{arguments:?}: {other:?}"),
    };
    assert_eq!(stderr.contains("damaged; restore"), damaged, "{stderr}");
    assert_eq!(stderr.lines().count(), usize::from(damaged), "{stderr}");
    (String::from_utf8(output.stdout).unwrap(), damaged)
}

/// The rules that the blobs of `input` break, and the number of undamaged blobs.
fn rules(arguments: &[&str], input: impl AsRef<[u8]>) -> (Vec<String>, u64) {
    let (output, damaged) = inspect(&[arguments, &["--json"]].concat(), input);
    let lines: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let broken = lines.iter().filter(|line| line["type"] == "damaged");
    let rules: Vec<_> = broken.map(|line| line["rule"].as_str().unwrap().to_owned()).collect();
    let total = lines.last().unwrap();
    assert_eq!(total["type"], "total");
    assert_eq!(total["damaged"], rules.len());
    assert_eq!(damaged, !rules.is_empty());
    (rules, total["whole"].as_u64().unwrap())
}

/// Two keys, two versions, three forms, and three damaged blobs.
fn mixed() -> Vec<u8> {
    let lines = [
        hex::encode(blob(KEY_ID, 0, 1)),
        hex::encode_upper(blob(KEY_ID, 10, 2)) + "\r",
        String::new(),
        "tomorrow".to_owned(),
        Base64::encode_string(&blob(OTHER_KEY_ID, 0, 3)),
        hex::encode(&blob(KEY_ID, 0, 4)[..187]),
        format!("  \\x{} ", hex::encode(blob(KEY_ID, 0, 5))),
        hex::encode(changed(116, b'A')),
    ];
    lines.join("\n").into_bytes()
}

#[test]
fn the_table_is_told_to_the_byte() {
    let (output, damaged) = inspect(&[], mixed());
    assert!(damaged);
    assert_eq!(
        output,
        "\
key ID                                   version       blobs
0d0466b0-e727-4d9c-b35d-f84bb474a37f           0           2
0d0466b0-e727-4d9c-b35d-f84bb474a37f          10           1
25abe69f-ae10-44cd-bc87-1bda1de3b7d7           0           1
damaged                                                    3
total                                                      7
-: line 4: not a sealed DEK: the length is not 188 bytes
-: line 6: not a sealed DEK: the length is not 188 bytes
-: line 8: malformed key ID
"
    );
}

#[test]
fn lines_of_json_are_told_to_the_byte() {
    let (output, _) = inspect(&["--json"], mixed());
    let counts = r#"{"type":"key","key_id":"0d0466b0-e727-4d9c-b35d-f84bb474a37f","key_version":0,"blobs":2}
{"type":"key","key_id":"0d0466b0-e727-4d9c-b35d-f84bb474a37f","key_version":10,"blobs":1}
{"type":"key","key_id":"25abe69f-ae10-44cd-bc87-1bda1de3b7d7","key_version":0,"blobs":1}
{"type":"total","whole":4,"damaged":3}
"#;
    let damaged = r#"{"type":"damaged","file":"-","line":4,"rule":"length"}
{"type":"damaged","file":"-","line":6,"rule":"length"}
{"type":"damaged","file":"-","line":8,"rule":"key_id"}
"#;
    assert_eq!(output, format!("{damaged}{counts}"));

    let (output, _) = inspect(&["--each", "--json"], mixed());
    let each = r#"{"type":"blob","file":"-","line":1,"key_id":"0d0466b0-e727-4d9c-b35d-f84bb474a37f","key_version":0}
{"type":"blob","file":"-","line":2,"key_id":"0d0466b0-e727-4d9c-b35d-f84bb474a37f","key_version":10}
{"type":"damaged","file":"-","line":4,"rule":"length"}
{"type":"blob","file":"-","line":5,"key_id":"25abe69f-ae10-44cd-bc87-1bda1de3b7d7","key_version":0}
{"type":"damaged","file":"-","line":6,"rule":"length"}
{"type":"blob","file":"-","line":7,"key_id":"0d0466b0-e727-4d9c-b35d-f84bb474a37f","key_version":0}
{"type":"damaged","file":"-","line":8,"rule":"key_id"}
"#;
    assert_eq!(output, format!("{each}{counts}"));
}

#[test]
fn each_blob_has_a_line() {
    let (output, _) = inspect(&["--each"], &mixed()[..]);
    let mut lines = output.lines();
    let each = [
        "-: line 1: 0d0466b0-e727-4d9c-b35d-f84bb474a37f version 0",
        "-: line 2: 0d0466b0-e727-4d9c-b35d-f84bb474a37f version 10",
        "-: line 4: not a sealed DEK: the length is not 188 bytes",
        "-: line 5: 25abe69f-ae10-44cd-bc87-1bda1de3b7d7 version 0",
        "-: line 6: not a sealed DEK: the length is not 188 bytes",
        "-: line 7: 0d0466b0-e727-4d9c-b35d-f84bb474a37f version 0",
        "-: line 8: malformed key ID",
    ];
    for line in each {
        assert_eq!(lines.next(), Some(line));
    }
    // The table, without a list of blobs that were printed before.
    assert_eq!(lines.count(), 6);
}

#[test]
fn every_rule_has_a_name() {
    let mut checksum = blob(KEY_ID, 0, 1);
    checksum[187] ^= 1;
    let broken = [
        (&changed(0, 3), "version"),
        (&changed(2, 153), "body_length"),
        (&changed(124, b'x'), "key_id"),
        (&checksum, "checksum"),
    ];
    let mut lines: Vec<_> = broken.iter().map(|(blob, _)| hex::encode(blob)).collect();
    lines.push("00".repeat(189));
    lines.push("nothing of the kind".to_owned());
    let names = ["version", "body_length", "key_id", "checksum", "length", "encoding"];
    assert_eq!(rules(&[], lines.join("\n")), (names.map(str::to_owned).to_vec(), 0));

    let records: Vec<u8> = broken.iter().flat_map(|(blob, _)| **blob).collect();
    assert_eq!(
        rules(&[], records),
        (names[..4].iter().map(|&rule| rule.to_owned()).collect(), 0)
    );
}

#[test]
fn every_form_is_read() {
    // Some have + and / in their base64, some have padding, and all have the same length.
    for seed in 0..20 {
        let blob = blob(KEY_ID, 0, seed);
        let hex = hex::encode(blob);
        let upper = hex.to_uppercase();
        let forms = [
            format!("\\x{hex}"),
            format!("\\\\x{hex}"),
            format!("0x{upper}"),
            hex,
            upper,
        ];
        assert_eq!(rules(&["--format", "hex"], forms.join("\r\n")), (vec![], 5));
        let other = [
            Base64::encode_string(&blob),
            Base64Unpadded::encode_string(&blob),
            Base64Url::encode_string(&blob),
            Base64UrlUnpadded::encode_string(&blob),
        ];
        assert_eq!(rules(&["--format", "base64"], other.join("\n") + "\n\n"), (vec![], 4));
        let all = [forms.join("\n"), other.join("\n")].join("\n");
        assert_eq!(rules(&[], &all), (vec![], 9));

        let refused = |count| vec!["encoding".to_owned(); count];
        assert_eq!(rules(&["--format", "hex"], other.join("\n")), (refused(4), 0));
        // Without a prefix, hex digits are also base64 characters.
        assert_eq!(rules(&["--format", "base64"], forms[..2].join("\n")), (refused(2), 0));
        assert_eq!(
            rules(&["--format", "base64"], &forms[3]),
            (vec!["length".to_owned()], 0)
        );
    }
}

#[test]
fn a_form_is_read_strictly() {
    let blob = blob(KEY_ID, 0, 1);
    let (hex, base64) = (hex::encode(blob), Base64::encode_string(&blob));
    let bits = base64.replace("=", "") + "="; // As it should be,
    assert_eq!(rules(&[], &bits), (vec![], 1));
    for bad in [
        &hex[1..],                      // an odd number of digits
        &hex.replacen('0', " ", 1)[..], // white space within
        &format!("\\x\\x{hex}"),
        &format!("\\x{base64}"),
        &format!("{base64}="),
        &format!("={}", &base64[1..]),
        &(base64[..250].to_owned() + "/" + &base64[251..]), // bits that no byte has
        &(base64[..100].to_owned() + "-+" + &base64[102..]), // both alphabets
    ] {
        assert_eq!(rules(&[], bad), (vec!["encoding".to_owned()], 0), "{bad}");
    }
}

#[test]
fn binary_is_records_and_a_rest() {
    let mut records: Vec<u8> = (0..50)
        .flat_map(|seed| blob(KEY_ID, u32::from(seed % 2), seed))
        .collect();
    assert_eq!(rules(&[], &records), (vec![], 50));
    assert_eq!(rules(&["--format", "binary"], &records), (vec![], 50));

    records[188] = 9;
    records.extend_from_slice(&blob(KEY_ID, 0, 50)[..187]);
    let (output, damaged) = inspect(&[], &records);
    assert!(damaged);
    assert_eq!(
        output,
        "\
key ID                                   version       blobs
0d0466b0-e727-4d9c-b35d-f84bb474a37f           0          25
0d0466b0-e727-4d9c-b35d-f84bb474a37f           1          24
damaged                                                    2
total                                                     51
-: record 2: not a sealed DEK: the version is not 2
-: record 51: not a sealed DEK: the length is not 188 bytes
"
    );
    let (output, _) = inspect(&["--json"], &records);
    assert!(output.starts_with("{\"type\":\"damaged\",\"file\":\"-\",\"record\":2,\"rule\":\"version\"}\n"));

    // A first record without any byte of a blob still counts as binary, and text never does.
    records[..188].copy_from_slice(&std::array::from_fn::<u8, 188, _>(|at| at as u8 | 0x81));
    assert_eq!(rules(&[], &records).1, 48);
    let euros = "\u{20ac}".repeat(300);
    for start in 0..3 {
        let text = format!("{}{euros}\n{}", &"   "[start..], hex::encode(blob(KEY_ID, 0, 1)));
        assert_eq!(rules(&[], text), (vec!["encoding".to_owned()], 1));
    }
}

#[test]
fn no_more_damaged_ones_are_listed_than_a_screen_holds() {
    let (output, _) = inspect(&[], "?\n".repeat(1234));
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines[1], "damaged                                                 1234");
    assert_eq!(lines[2], "total                                                   1234");
    assert_eq!(lines[3], "-: line 1: neither hex nor base64");
    assert_eq!(lines[12], "-: line 10: neither hex nor base64");
    assert_eq!(lines[13..], ["and 1224 more"]);
    assert_eq!(rules(&[], "?\n".repeat(1234)).0.len(), 1234);
    let (output, _) = inspect(&["--format", "hex"], "?\n".repeat(10));
    assert!(output.ends_with("-: line 10: not hex\n"));
}

#[test]
fn files_are_read_in_order_and_counted_together() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("lines"), hex::encode(blob(KEY_ID, 0, 1)) + "\n?\n").unwrap();
    fs::write(path("records"), [blob(KEY_ID, 0, 2), changed(0, 3)].concat()).unwrap();
    fs::write(path("--each"), b"?").unwrap();
    fs::write(path("nothing"), b"").unwrap();
    let words = ["--json", "records", "-", "nothing", "lines", "--", "--each"];
    let mut command = command(&words);
    command.current_dir(directory.path());
    let output = feed(command, &blob(OTHER_KEY_ID, 3, 3));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        r#"{"type":"damaged","file":"records","record":2,"rule":"version"}
{"type":"damaged","file":"lines","line":2,"rule":"encoding"}
{"type":"damaged","file":"--each","line":1,"rule":"encoding"}
{"type":"key","key_id":"0d0466b0-e727-4d9c-b35d-f84bb474a37f","key_version":0,"blobs":2}
{"type":"key","key_id":"25abe69f-ae10-44cd-bc87-1bda1de3b7d7","key_version":3,"blobs":1}
{"type":"total","whole":3,"damaged":3}
"#
    );
}

#[test]
fn nothing_is_whole() {
    let (output, damaged) = inspect(&["--json"], b"\n \r\n");
    assert_eq!(output, "{\"type\":\"total\",\"whole\":0,\"damaged\":0}\n");
    assert!(!damaged);
}

#[test]
fn what_it_cannot_read_ends_it() {
    let place = Place::new();
    for (bad, exit) in [
        (&["--format"][..], 2),
        (&["--format", "octal"], 2),
        (&["--json=1"], 2),
        (&["-x"], 2),
        (&["no such file"], 4),
        (&["-", "no such file"], 4),
        (&["."], 4),
    ] {
        let mut command = command(bad);
        command.current_dir(place.path("."));
        let output = feed(command, &mixed());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(exit), "{bad:?}: {error}");
        assert!(output.stdout.is_empty(), "{bad:?}");
        if exit == 4 {
            let name = bad.last().unwrap();
            assert!(
                error.starts_with(&format!("dekseal: {name}: ")) && error.contains("; "),
                "{error}"
            );
        }
    }
}

#[test]
fn a_payload_is_recognized_by_its_beginning() {
    let place = Place::with_keys();
    std::fs::write(place.path("plain"), vec![7; 200_000]).unwrap();
    place.does(&["encrypt", "--key", KEY_ID, "-o", "sealed", "plain"]);
    let table = "\
key ID                                   version       blobs
0d0466b0-e727-4d9c-b35d-f84bb474a37f           0           1
damaged                                                    0
total                                                      1
";
    let line = format!("sealed: payload of 200000 bytes: {KEY_ID} version 0\n");
    assert_eq!(place.does(&["inspect", "sealed"]), table);
    assert_eq!(place.does(&["inspect", "--each", "sealed"]), line + table);
    let json = place.does(&["inspect", "--each", "--json", "sealed"]);
    let first = r#"{"type":"blob","file":"sealed","payload_len":200000,"key_id":"#;
    let first = format!("{first}\"{KEY_ID}\",\"key_version\":0}}");
    assert_eq!(json.lines().next(), Some(first.as_str()));

    // On standard input the length is counted.
    let payload = std::fs::read(place.path("sealed")).unwrap();
    assert!(
        inspect(&["--each"], &payload)
            .0
            .starts_with("-: payload of 200000 bytes: ")
    );
    for cut in [7, 263, 279] {
        assert_eq!(rules(&[], &payload[..cut]).0, ["payload"], "{cut}");
    }
}

/// If the reader closes the pipe, there is no panic and no result.
#[test]
fn a_closed_pipe_ends_it() {
    let lines = (hex::encode(blob(KEY_ID, 0, 1)) + "\n").repeat(10_000);
    for arguments in [&["--each"][..], &["--json", "--each"], &[]] {
        let mut child = command(arguments).spawn().unwrap();
        drop(child.stdout.take());
        let _ = child.stdin.take().unwrap().write_all(lines.as_bytes());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{arguments:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            stderr.starts_with("dekseal: standard output: ") && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
}

/// A process limited to 128 MiB of memory reads a line of 256 MiB.
#[cfg(target_os = "linux")]
#[test]
fn a_line_without_an_end_is_not_kept() {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -v 131072; exec \"$0\" inspect --json"])
        .arg(dekseal().get_program())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let whole = hex::encode(blob(KEY_ID, 0, 1));
    let input = [whole.as_bytes(), &vec![b'0'; 256 << 20], b"\n", whole.as_bytes()].concat();
    let output = feed(command, &input);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        r#"{"type":"damaged","file":"-","line":1,"rule":"length"}
{"type":"key","key_id":"0d0466b0-e727-4d9c-b35d-f84bb474a37f","key_version":0,"blobs":1}
{"type":"total","whole":1,"damaged":1}
"#
    );
}

/// White space is ignored, up to the limit.
#[test]
fn a_line_may_have_white_space() {
    let whole = hex::encode(blob(KEY_ID, 0, 1));
    assert_eq!(whole.len(), 2 * SealedDek::LEN);
    assert_eq!(rules(&[], format!("{whole:>1023}\n{whole}")), (vec![], 2));
    assert_eq!(
        rules(&[], format!("{whole:>1024}\n{whole}")),
        (vec!["length".to_owned()], 1)
    );
}

/// A million blobs: the time and the rate for each form. `scripts/bench inspect` runs it.
#[test]
#[ignore = "a measurement"]
fn a_million_blobs() {
    const BLOBS: usize = 1_000_000;
    let place = Place::new();
    let cmk = CmkVersion::new(KEY_ID.parse().unwrap(), 0, &[7; 32]).unwrap();
    let blobs: Vec<_> = (0..BLOBS)
        .map(|number| {
            let mut dek = [7; 64];
            dek[..8].copy_from_slice(&number.to_le_bytes());
            cmk.seal(&EncryptionContext::none(), &Dek::from_bytes(&dek))
        })
        .collect();
    println!("| form | length | time | rate |\n|---|---:|---:|---:|");
    for name in ["hex", "base64", "binary"] {
        let file = place.path(name);
        let text = |blob: &SealedDek| match name {
            "hex" => (base16ct::lower::encode_string(blob.as_bytes()) + "\n").into_bytes(),
            "base64" => (Base64::encode_string(blob.as_bytes()) + "\n").into_bytes(),
            _ => blob.as_bytes().to_vec(),
        };
        fs::write(&file, blobs.iter().flat_map(text).collect::<Vec<_>>()).unwrap();
        let times = (0..5).map(|_| {
            let begun = Instant::now();
            let (table, damaged) = inspect(&[file.to_str().unwrap()], "");
            assert!(!damaged && table.contains(&BLOBS.to_string()), "{table}");
            begun.elapsed().as_secs_f64()
        });
        let time = times.fold(f64::INFINITY, f64::min);
        let (length, rate) = (fs::metadata(&file).unwrap().len(), BLOBS as f64 / time);
        println!(
            "| {name} | {:.0} MB | {time:.2} s | {:.1} million/s |",
            length as f64 / 1e6,
            rate / 1e6
        );
    }
}
