//! The targets as ordinary tests: over seeds made of the vectors, over cuts and flips of each, and over what is in `corpus/` and
//! `artifacts/`. With `WRITE_SEEDS=1` the seeds are written to `corpus/`, where a fuzzer starts from.

use std::{env, fs, ops::Range, path::Path};

use dekseal_fuzz::{TARGETS, roundtrip};
use serde_json::Value;

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
        "payload_read" => {
            let payloads = vectors("payload.json");
            let valid = array(&payloads["valid"]).iter().filter(|v| v["payload"].is_string());
            let valid: Vec<_> = valid.map(|v| bytes(&v["payload"])).collect();
            let raw = valid.iter().map(|payload| [&[0], payload.as_slice()].concat());
            // Segments of theirs behind another header.
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

/// For each first byte: no plan at all, and plans of bytes that come from the vectors.
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
