//! Runs the targets as ordinary tests: with seeds made from the test vectors, with truncated and changed copies of
//! each, and with the files in `corpus/` and `artifacts/`. With `WRITE_SEEDS=1` it writes the seeds to `corpus/`, where
//! a fuzzer starts.

use std::{env, fs, ops::Range, path::Path};

use dekseal_fuzz::{
    TARGETS, roundtrip,
    second::{Key, KeyringFile},
};
use serde_json::{Value, json};

fn vectors(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/vectors")
        .join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let sealed = vectors("blob.json");
    let sealed = array(&sealed);
    match target {
        "blob_parse" => {
            let (invalid, samples) = (vectors("blob_invalid.json"), vectors("public_samples.json"));
            let valid = sealed.iter().map(|v| bytes(&v["blob"]));
            let invalid = array(&invalid["invalid"]).iter().map(|v| bytes(&v["blob"]));
            valid
                .chain(invalid)
                .chain(array(&samples["samples"]).iter().map(|v| bytes(&v["cipher_text"])))
                .collect()
        }
        "open" => sealed
            .iter()
            .map(|v| [&bytes(&v["blob"])[4..116], b"some context"].concat())
            .collect(),
        "context" => {
            let contexts = vectors("context.json");
            let valid = array(&contexts["valid"]).iter().filter(|v| v["context"].is_object());
            let valid = valid.map(|v| v["context"].to_string().into_bytes());
            valid
                .chain(
                    array(&contexts["invalid_json"])
                        .iter()
                        .map(|v| text(&v["json"]).into_bytes()),
                )
                .collect()
        }
        "key_document" => plans(1..24).collect(),
        "keyring_file" => {
            let raw = keyring_files().into_iter().map(|text| [vec![0], text].concat());
            raw.chain(plans(1..4)).collect()
        }
        // Each four bytes choose the next operation, so every part of a blob is a way to go.
        "keyrings" => sealed
            .chunks(4)
            .take(8)
            .map(|v| v.iter().flat_map(|v| bytes(&v["blob"])).collect())
            .chain([branch()])
            .collect(),
        "payload_read" => {
            let payloads = vectors("payload.json");
            let valid = array(&payloads["valid"]).iter().filter(|v| v["payload"].is_string());
            let valid: Vec<_> = valid.map(|v| bytes(&v["payload"])).collect();
            let raw = valid.iter().map(|payload| [&[0], payload.as_slice()].concat());
            // Segments of valid payloads, after another header.
            let behind = valid.iter().map(|payload| [&[1], &payload[264..]].concat());
            raw.chain(behind).chain(plans(2..12)).collect()
        }
        "roundtrip" => sealed
            .iter()
            .zip([0, 0, 248, 0, 252, 0, 254].into_iter().cycle())
            .map(|(v, segments)| {
                let context = v["context"].as_object().unwrap().iter();
                let context: Vec<_> = context.map(|(key, value)| (key.clone(), text(value))).collect();
                let dek = bytes(&v["dek"]).try_into().unwrap();
                let version = v["key_version"].as_u64().unwrap().try_into().unwrap();
                let (key_id, material) = (text(&v["key_id"]), bytes(&v["material"]));
                roundtrip::seed((&key_id, version, &material), &context, &dek, segments)
            })
            .collect(),
        "wire_request" => {
            let mut seeds = Vec::new();
            for v in &sealed[..6] {
                let (id, blob, dek) = (text(&v["key_id"]), text(&v["blob"]), text(&v["dek"]));
                let context = &v["context"];
                let common = format!(r#""key_id":"{id}","encryption_context":{context}"#);
                seeds.push(format!("\0{{{common},\"datakey_length\":\"512\"}}"));
                seeds.push(format!("\u{1}{{{common},\"datakey_length\":512}}"));
                let digest = "00".repeat(32);
                seeds.push(format!(
                    "\u{2}{{{common},\"plain_text\":\"{dek}{digest}\",\"datakey_plain_length\":64}}"
                ));
                seeds.push(format!(
                    "\u{3}{{{common},\"cipher_text\":\"{blob}\",\"datakey_cipher_length\":\"64\"}}"
                ));
            }
            seeds.into_iter().map(String::into_bytes).collect()
        }
        _ => panic!("{target} has no seeds"),
    }
}

/// The keyring file of the test vector, unchanged and with one change, mostly under a correct MAC.
fn keyring_files() -> Vec<Vec<u8>> {
    let v = vectors("keyring.json");
    let root = Key::new(&text(&v["root_key_id"]), 0, &bytes(&v["root_material"])).unwrap();
    let changes = [
        ("/generation", json!(8)),
        ("/generation", json!(6)),
        ("/generation", json!(0)),
        ("/id", json!("00".repeat(16))),
        ("/id", json!("00".repeat(15))),
        ("/root", json!([v["root_key_id"], 0, v["check"]])),
        ("/version", json!(2)),
        ("/unknown", json!(1)),
        ("/root/check", json!("00".repeat(32))),
        ("/root/unknown", json!(null)),
        ("/keys", json!([])),
        ("/keys", json!([v["file"]["keys"][1], v["file"]["keys"][0]])),
        ("/keys", json!([v["file"]["keys"][0], v["file"]["keys"][0]])),
        ("/keys/0/key_id", v["root_key_id"].clone()),
        ("/keys/0/key_id", v["file"]["keys"][1]["key_id"].clone()),
        ("/keys/0/min_version", json!(0)),
        ("/keys/0/min_version", json!(3)),
        ("/keys/0/state", json!("disabled")),
        ("/keys/0/deletion", json!(null)),
        ("/keys/0/deletion", v["file"]["keys"][2]["deletion"].clone()),
        ("/keys/0/unknown", json!(null)),
        ("/keys/0/versions", json!([])),
        ("/keys/0/versions/0/version", json!(1)),
        ("/keys/0/versions/0/version", json!(3)),
        ("/keys/0/versions/0/created", json!("2020-01-01T00:00:00Z")),
        ("/keys/0/versions/0/created", json!("2019-12-31T23:59:59Z")),
        ("/keys/0/versions/0/created", json!(null)),
        ("/keys/0/versions/0/material_length", json!(64)),
        ("/keys/0/versions/0/material_length", json!(31)),
        ("/keys/0/versions/0/unknown", json!(null)),
        (
            "/keys/0/versions/0/sealed",
            v["file"]["keys"][1]["versions"][0]["sealed"].clone(),
        ),
        (
            "/keys/2/deletion",
            json!(text(&v["file"]["keys"][2]["deletion"]).replace('T', " ")),
        ),
        (
            "/keys/2/deletion",
            json!(text(&v["file"]["keys"][2]["deletion"]).replace('Z', ".0Z")),
        ),
        (
            "/keys/2/deletion",
            json!(text(&v["file"]["keys"][2]["deletion"]).replace('Z', "")),
        ),
        ("/keys/2/deletion", json!("2028-02-29T23:59:59Z")),
        ("/keys/2/deletion", json!("2027-02-29T23:59:59Z")),
        ("/mac", json!("00".repeat(32))),
    ];
    let file = &v["file"];
    let mut texts = vec![
        serde_json::to_vec(file).unwrap(),
        serde_json::to_vec_pretty(file).unwrap(),
    ];
    for (place, value) in changes {
        let mut changed = file.clone();
        let (object, field) = place.rsplit_once('/').unwrap();
        changed.pointer_mut(object).unwrap()[field] = value;
        if let Some(file) = KeyringFile::parse(&changed).filter(|_| place != "/mac") {
            changed["mac"] = json!(hex::encode(root.keyring_mac(&file.message())));
        }
        texts.push(serde_json::to_vec_pretty(&changed).unwrap());
    }
    // Repeated fields.
    for field in ["generation", "min_version", "material_length", "check", "mac"] {
        let pretty = String::from_utf8(texts[1].clone()).unwrap();
        let line = pretty.lines().find(|line| line.contains(field)).unwrap();
        let twice = format!("{},\n{line}", line.trim_end_matches(','));
        texts.push(pretty.replacen(line, &twice, 1).into_bytes());
    }
    texts
}

/// For `keyrings`: an older file is restored, and the second process takes the branch further than the first one is.
fn branch() -> Vec<u8> {
    // `Arbitrary` chooses a variant by the first four bytes.
    let variant = |number: u64, of: u64| (((number << 32) + (1 << 31)) / of).to_le_bytes()[..4].to_vec();
    let op = |number, fields: &[u8]| [&variant(number, 13), fields].concat();
    let update = |who, step, fields: &[u8]| op(0, &[&[who, 1], &*variant(step, 11), fields, &[0, 0]].concat());
    let (import, rotate) = ([0, 34], [0]);
    [
        update(0, 0, &import),
        update(0, 1, &rotate),
        op(6, &[0, 0]),
        op(8, &[2, 0, 0]),
        op(5, &[1, 1]),
        update(1, 1, &rotate),
        update(1, 1, &rotate),
        op(6, &[1, 0]),
        op(1, &[0]),
        op(7, &[1, 0]),
        op(3, &[0]),
    ]
    .concat()
}

/// For each first byte: an empty plan, and plans of bytes from the test vectors.
fn plans(first: Range<u8>) -> impl Iterator<Item = Vec<u8>> {
    let sealed = vectors("blob.json");
    let random: Vec<_> = array(&sealed).iter().map(|v| bytes(&v["blob"])).collect();
    first.flat_map(move |first| {
        let plans = random
            .iter()
            .take(4)
            .map(move |blob| [&[first], &blob[4..116]].concat());
        plans.chain([vec![first]]).collect::<Vec<_>>()
    })
}

/// The files that a fuzzer has left for `target`.
fn found(target: &str) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["corpus", "artifacts"]
        .into_iter()
        .filter_map(|place| fs::read_dir(root.join(place).join(target)).ok());
    files
        .flatten()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect()
}

#[test]
fn every_seed_and_what_is_near_it() {
    for (target, run) in TARGETS {
        let seeds = seeds(target);
        assert!(!seeds.is_empty());
        for (number, seed) in seeds.iter().enumerate() {
            run(seed);
            if env::var_os("WRITE_SEEDS").is_some() {
                let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
                fs::create_dir_all(&directory).unwrap();
                fs::write(directory.join(format!("seed-{number:03}")), seed).unwrap();
            }
            for at in (0..seed.len().min(600)).step_by(7) {
                run(&seed[..at]);
                let mut flipped = seed.clone();
                flipped[at] ^= 1 << (at % 8);
                run(&flipped);
            }
        }
        for input in found(target) {
            run(&input);
        }
    }
}
