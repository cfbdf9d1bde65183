//! Compares the second implementation with the test vectors, then with the crate.

use std::{env, panic::AssertUnwindSafe, path::Path, time::Instant};

use arbitrary::{Arbitrary, Unstructured};
use base64ct::{Base64, Encoding};
use dekseal_fuzz::{
    payload_read,
    roundtrip::{self, Case},
    second::{self, Key, Refused},
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use shake::{
    Shake256,
    digest::{ExtendableOutput, Update},
};

fn vectors(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/vectors")
        .join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn number(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

fn canonical(context: &Value) -> Option<Vec<u8>> {
    let pairs = context.as_object().unwrap().iter();
    second::canonical(pairs.map(|(key, value)| (key.as_str(), text(value))))
}

fn key(v: &Value) -> Key {
    Key::new(text(&v["key_id"]), number(&v["key_version"]), &bytes(&v["material"])).unwrap()
}

#[test]
fn it_uses_nothing_of_the_crate() {
    let source = include_str!("../../tests/it/reference.rs");
    assert!(!source.contains("dekseal::") && !source.contains("crate::") && !source.contains("super::"));
}

#[test]
fn blobs() {
    let vectors = vectors("blob.json");
    for v in array(&vectors) {
        let (key, context) = (key(v), canonical(&v["context"]).unwrap());
        let (dek, blob) = (bytes(&v["dek"]).try_into().unwrap(), bytes(&v["blob"]));
        assert_eq!(key.seal(&context, &dek), blob, "{}", v["name"]);
        assert_eq!(key.open(&context, &blob), Ok(dek), "{}", v["name"]);
    }
    assert!(array(&vectors).len() > 20);
    let id = text(&vectors[0]["key_id"]);
    assert!(Key::new(id, 0, &[7; 31]).is_none() && Key::new(id, 0, &[7; 65]).is_none());
    assert!(Key::new(&id.to_uppercase(), 0, &[7; 32]).is_none());
}

#[test]
fn invalid_blobs() {
    let vectors = vectors("blob_invalid.json");
    let keys: Vec<_> = array(&vectors["keys"]).iter().map(|v| (v, key(v))).collect();
    for v in array(&vectors["invalid"]) {
        let expected = match text(&v["error"]) {
            "blob" => Refused::Frame,
            "key_id" => Refused::KeyId,
            "checksum" => Refused::Checksum,
            "key_mismatch" | "unknown_key" => Refused::OtherKey,
            "unknown_version" => Refused::OtherVersion,
            _ => Refused::Authentication,
        };
        let (blob, context) = (bytes(&v["blob"]), canonical(&v["context"]).unwrap());
        // The version that the blob names. If no key has that ID, any key is a wrong key.
        let named = blob
            .get(152..156)
            .map(|version| u32::from_le_bytes(version.try_into().unwrap()));
        let of_id = keys.iter().filter(|(key, _)| key["key_id"] == v["expected_key_id"]);
        let exact = of_id
            .clone()
            .find(|(key, _)| Some(number(&key["key_version"])) == named);
        let (_, key) = exact.or(of_id.clone().next()).unwrap_or(&keys[0]);
        assert_eq!(key.open(&context, &blob), Err(expected), "{}", v["name"]);
    }
}

#[test]
fn contexts() {
    let vectors = vectors("context.json");
    for v in array(&vectors["valid"]) {
        let Some(context) = v.get("context") else { continue };
        let bytes = canonical(context).unwrap();
        assert_eq!(bytes.len(), number(&v["canonical_length"]) as usize, "{}", v["name"]);
        assert_eq!(
            hex::encode(Sha256::digest(&bytes)),
            v["canonical_sha256"],
            "{}",
            v["name"]
        );
        if let Some(known) = v.get("canonical") {
            assert_eq!(hex::encode(&bytes), *known, "{}", v["name"]);
        }
    }
    let long = "é".repeat(8192);
    assert!(second::canonical([("k", &*long)]).is_none() && second::canonical([(&*long, "")]).is_some());
    assert!(second::canonical([("", "v")]).is_none() && second::canonical([("k", "1"), ("k", "2")]).is_none());
}

/// "the first `length` bytes of SHAKE-256 of the ASCII text 'dekseal payload'"
fn plaintext(length: &Value) -> Vec<u8> {
    let mut shake = Shake256::default();
    shake.update(b"dekseal payload");
    let mut bytes = vec![0; number(length) as usize];
    shake.finalize_xof_into(&mut bytes);
    bytes
}

#[test]
fn payloads() {
    let vectors = vectors("payload.json");
    let material = bytes(&vectors["keys"][0]["material"]);
    let key = Key::new(text(&vectors["key_id"]), 0, &material).unwrap();
    let context = canonical(&vectors["context"]).unwrap();
    let dek = bytes(&vectors["dek"]).try_into().unwrap();
    let sealed = key.seal(&context, &dek);
    let made = |v: &Value| {
        let plaintext = plaintext(&v["plaintext_length"]);
        let salt = bytes(&v["payload_salt"]).try_into().unwrap();
        let payload = Key::seal_payload(&sealed, &dek, &salt, &plaintext);
        assert_eq!(
            hex::encode(Sha256::digest(&payload)),
            v["payload_sha256"],
            "{}",
            v["name"]
        );
        assert!(key.open_payload(&context, &payload) == Some(plaintext), "{}", v["name"]);
        payload
    };
    for v in array(&vectors["valid"]) {
        let payload = made(v);
        assert_eq!(payload.len(), number(&v["payload_length"]) as usize);
        payload_read(&[&[0], payload.as_slice()].concat());
    }

    let base = made(&vectors["base"]);
    for v in array(&vectors["invalid"]) {
        let payload = match v.get("payload_base64") {
            Some(text) => Base64::decode_vec(self::text(text)).unwrap(),
            None => array(&v["pieces"])
                .iter()
                .flat_map(|piece| piece_of(&base, piece))
                .collect(),
        };
        assert_eq!(key.open_payload(&context, &payload), None, "{}", v["name"]);
        // The payload is too long for a seed, so it is read here.
        payload_read(&[&[0], payload.as_slice()].concat());
    }

    // The DEK sealed under another version, with the rest unchanged.
    let material = bytes(&vectors["keys"][1]["material"]);
    let next = Key::new(text(&vectors["key_id"]), 1, &material).unwrap();
    let rewrapped = bytes(&vectors["rewrapped_sealed_dek"]);
    assert_eq!(next.seal(&context, &dek), rewrapped);
    let payload = [&base[..44], &rewrapped, &base[232..]].concat();
    assert!(next.open_payload(&context, &payload).is_some() && key.open_payload(&context, &payload).is_none());
}

fn piece_of(base: &[u8], piece: &Value) -> Vec<u8> {
    match piece {
        Value::Array(range) => base[number(&range[0]) as usize..number(&range[1]) as usize].to_vec(),
        digits => bytes(digits),
    }
}

#[test]
fn keyring_files() {
    let v = vectors("keyring.json");
    let root = Key::new(text(&v["root_key_id"]), 0, &bytes(&v["root_material"])).unwrap();
    assert_eq!(hex::encode_upper(root.keyring_check()), v["check"]);
    let file = root.open_keyring(&v["file"]).unwrap();
    assert_eq!(file.message(), bytes(&v["message"]));
    let after = root.open_keyring(&v["after"]["file"]).unwrap();
    assert_eq!(after.message(), bytes(&v["after"]["message"]));
    let materials = file.keys.iter().flat_map(|key| {
        let of = |version: &_| hex::encode(root.open_material(key, version).unwrap());
        key.versions.iter().map(of).collect::<Vec<_>>()
    });
    let known: Vec<_> = array(&v["keys"])
        .iter()
        .map(|key| text(&key["material"]).to_owned())
        .collect();
    assert_eq!(materials.collect::<Vec<_>>(), known);
}

/// SplitMix64, so that every run has the same cases.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn text(&mut self, length: usize) -> String {
        // Characters of each length in UTF-8, and characters that UTF-16 sorts differently.
        const LETTERS: [char; 16] = [
            'a',
            'b',
            'c',
            'A',
            '0',
            '=',
            ' ',
            '\0',
            '-',
            'é',
            '\u{301}',
            '漢',
            '～',
            '😀',
            '🔑',
            '\u{10ffff}',
        ];
        (0..length).map(|_| LETTERS[self.below(LETTERS.len())]).collect()
    }

    fn case(&mut self) -> Case {
        // All fields before the context.
        let mut bytes: Vec<u8> = (0..32).flat_map(|_| self.next().to_le_bytes()).take(207).collect();
        let pairs = [0, 1, 2, 3, 5, 40][self.below(6)];
        // Some contexts are about as long as a context may be.
        let length = if self.below(200) == 0 {
            8400 / (2 * pairs).max(1)
        } else {
            12
        };
        for _ in 0..pairs {
            let (key, value) = (self.below(length) + 1, self.below(length + 1));
            bytes.extend(format!("{}={}\n", self.text(key).replace('=', "~"), self.text(value)).bytes());
        }
        Case::arbitrary_take_rest(Unstructured::new(&bytes)).unwrap()
    }
}

/// `DEKSEAL_CASES` sets the number of cases.
#[test]
fn the_crate_and_the_second_implementation_agree() {
    let cases = env::var("DEKSEAL_CASES").map_or(3000, |cases| cases.parse().expect("a number"));
    let (start, mut random) = (Instant::now(), Random(0x64656b));
    let (mut bytes, mut long, mut contexts) = (0, 0, 0);
    for number in 0..cases {
        let case = random.case();
        let checked = std::panic::catch_unwind(AssertUnwindSafe(|| roundtrip::check(&case)));
        if let Err(panic) = checked {
            eprintln!("case {number}: {case:?}");
            std::panic::resume_unwind(panic);
        }
        bytes += case.length;
        long += usize::from(case.length > 65000);
        contexts += usize::from(!case.context.is_empty());
    }
    println!(
        "{cases} cases: {contexts} with a context, {long} with a payload of 64 KiB and more, {bytes} bytes, in {:?}",
        start.elapsed()
    );
}

/// A seed is read as the case that it was made from.
#[test]
fn seeds_are_read_as_they_are_meant() {
    let context = [("k".to_owned(), "v=é".to_owned()), ("none".to_owned(), String::new())];
    let id = "tlkukvir-gnmy-simr-rtqj-qogvkrsxqsiy";
    let seed = roundtrip::seed((id, 258, &[7; 45]), &context, &[9; 64], 0);
    let case = Case::arbitrary_take_rest(Unstructured::new(&seed)).unwrap();
    assert_eq!(
        (case.material, case.key_id.as_str(), case.key_version),
        (vec![7; 45], id, 258)
    );
    assert_eq!(
        (case.context.as_slice(), case.dek, case.length),
        (context.as_slice(), [9; 64], 102)
    );
}
