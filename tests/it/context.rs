//! The canonical encryption context.

use std::collections::BTreeMap;

use dekseal::{ContextRule, EncryptionContext, ErrorKind};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::support::vectors;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContextFile {
    valid: Vec<Valid>,
    /// The tests of the wire API read these.
    #[cfg_attr(not(feature = "api"), expect(dead_code))]
    pub invalid_json: Vec<InvalidJson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Valid {
    name: String,
    context: Option<BTreeMap<String, String>>,
    repeat: Option<Repeat>,
    canonical: Option<String>,
    canonical_length: usize,
    canonical_sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Repeat {
    key: (String, usize),
    value: (String, usize),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(not(feature = "api"), expect(dead_code))]
pub(crate) struct InvalidJson {
    pub name: String,
    pub json: String,
}

#[test]
fn every_known_answer_is_made_to_the_byte() {
    let file: ContextFile = vectors("context");
    assert_eq!(file.valid.len(), 26);
    for v in file.valid {
        let pairs: Vec<(String, String)> = match (v.context, v.repeat) {
            (Some(map), None) => map.into_iter().collect(),
            (None, Some(Repeat { key, value })) => vec![(key.0.repeat(key.1), value.0.repeat(value.1))],
            _ => panic!("{}", v.name),
        };
        // A map yields its pairs in one order. The reverse order must give the same bytes.
        for pairs in [pairs.clone(), pairs.into_iter().rev().collect()] {
            let context = EncryptionContext::from_pairs(pairs).unwrap();
            assert_eq!(context.canonical().len(), v.canonical_length, "{}", v.name);
            assert_eq!(
                hex::encode(Sha256::digest(context.canonical())),
                v.canonical_sha256,
                "{}",
                v.name
            );
            assert_eq!(hex::encode(context.sha256()), v.canonical_sha256, "{}", v.name);
            if let Some(canonical) = &v.canonical {
                assert_eq!(&hex::encode(context.canonical()), canonical, "{}", v.name);
            }
        }
    }
}

fn kind<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> ErrorKind {
    EncryptionContext::from_pairs(pairs).unwrap_err().kind()
}

#[test]
fn each_rule_is_named() {
    let empty = ErrorKind::Context(ContextRule::EmptyKey);
    let duplicate = ErrorKind::Context(ContextRule::DuplicateKey);
    let too_many = ErrorKind::Context(ContextRule::TooManyCharacters);
    assert_eq!(kind([("", "x")]), empty);
    assert_eq!(kind([("", "")]), empty);
    assert_eq!(kind([("a", "1"), ("a", "1")]), duplicate);
    assert_eq!(kind([("a", "1"), ("b", ""), ("a", "2")]), duplicate);

    // Keys and values may have 8192 characters of any number of bytes, but not 8193.
    for character in ["v", "é", "\u{1f511}"] {
        let value = character.repeat(8191);
        EncryptionContext::from_pairs([("k", &value)]).unwrap();
        assert_eq!(kind([("kk", value.as_str())]), too_many);
        assert_eq!(kind([("k", value.as_str()), ("l", "")]), too_many);
    }
}

#[test]
fn the_longest_canonical_form_is_within_its_limit_and_seals() {
    let context = crate::support::longest_context();
    assert_eq!(context.canonical().len(), 2 + 8192 * (2 + 4 + 2));

    let cmk = crate::support::cmk(crate::support::KEY_ID, 0, &[7; 32]);
    let dek = crate::support::dek(&"5a".repeat(64));
    assert!(cmk.open(&context, &cmk.seal(&context, &dek)).unwrap() == dek);
}

#[test]
fn no_context_and_no_pairs_are_the_same() {
    let empty = EncryptionContext::from_pairs::<&str, &str>([]).unwrap();
    assert_eq!(EncryptionContext::none(), empty);
    assert!(empty.canonical().is_empty());
    assert_eq!(empty.sha256(), Sha256::digest([]).as_slice());
    assert_eq!(EncryptionContext::none().sha256(), Sha256::digest([]).as_slice());
}

/// The serialization of one key or value (A3).
fn written(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

#[test]
fn pairs_are_sorted_by_the_bytes_of_their_keys() {
    // A prefix before longer keys; bytes from 0x80 on after lower ones; last, two keys that UTF-16 sorts in reverse.
    let keys = ["a", "a\0", "aa", "b", "é", "\u{ff5e}", "\u{1f511}"];
    let pairs = keys.map(|key| [written(key), written("v")].concat());
    let canonical = [vec![0, 7], pairs.concat()].concat();
    for turn in 0..keys.len() {
        let mut keys = keys;
        keys.rotate_left(turn);
        for _ in 0..2 {
            keys.reverse();
            let context = EncryptionContext::from_pairs(keys.map(|key| (key, "v"))).unwrap();
            assert_eq!(context.canonical(), canonical, "{keys:?}");
        }
    }
}

#[test]
fn strings_are_not_normalized() {
    let long = "é".repeat(129); // 258 bytes
    for text in [
        "a", "A", " a", "a ", "\t", "a\0b", "\0", "é", "e\u{301}", "ß", "\u{fb01}", &long,
    ] {
        for (key, value) in [(text, text), (text, ""), ("k", text)] {
            let context = EncryptionContext::from_pairs([(key, value)]).unwrap();
            let canonical = [vec![0, 1], written(key), written(value)].concat();
            assert_eq!(context.canonical(), canonical, "{text:?}");
        }
    }
}
