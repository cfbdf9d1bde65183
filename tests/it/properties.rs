//! Properties that hold for every input.

use std::collections::BTreeMap;

use dekseal::{Dek, EncryptionContext, KeyId, SealedDek};
use proptest::prelude::*;

use crate::support::{cmk, context};

/// Small maps over few characters, so that similar maps occur often.
pub(crate) fn maps() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop_oneof![
        prop::collection::btree_map("[ab\0\u{1}\u{2}]{1,3}", "[ab\0\u{1}\u{2}]{0,3}", 0..4),
        prop::collection::btree_map(".{1,12}", ".{0,40}", 0..12),
    ]
}

pub(crate) fn key_ids() -> impl Strategy<Value = String> {
    "[0-9a-z]{8}-[0-9a-z]{4}-[0-9a-z]{4}-[0-9a-z]{4}-[0-9a-z]{12}"
}

/// Parses canonical bytes by FORMAT.md A3, without the crate.
fn parse_canonical(bytes: &[u8]) -> BTreeMap<String, String> {
    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (head, tail) = bytes.split_at(count);
        *bytes = tail;
        head
    }
    fn number(bytes: &mut &[u8]) -> usize {
        u16::from_be_bytes(take(bytes, 2).try_into().unwrap()).into()
    }
    fn text(bytes: &mut &[u8]) -> String {
        let length = number(bytes);
        String::from_utf8(take(bytes, length).to_vec()).unwrap()
    }

    let mut rest = bytes;
    let mut map = BTreeMap::new();
    if rest.is_empty() {
        return map;
    }
    let count = number(&mut rest);
    let mut last: Option<String> = None;
    for _ in 0..count {
        let (key, value) = (text(&mut rest), text(&mut rest));
        assert!(last.is_none_or(|last| last.as_bytes() < key.as_bytes()), "not in order");
        last = Some(key.clone());
        map.insert(key, value);
    }
    assert!(rest.is_empty(), "bytes left over");
    assert_eq!(map.len(), count);
    map
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn canonical_bytes_do_not_depend_on_order((map, order) in maps().prop_flat_map(|map| {
        let pairs: Vec<_> = map.clone().into_iter().collect();
        (Just(map), Just(pairs).prop_shuffle())
    })) {
        let shuffled = EncryptionContext::from_pairs(order).unwrap();
        prop_assert_eq!(shuffled, context(&map));
    }

    /// So two different maps never have the same canonical bytes.
    #[test]
    fn canonical_bytes_give_the_map_back(map in maps()) {
        prop_assert_eq!(parse_canonical(context(&map).canonical()), map);
    }

    #[test]
    fn different_maps_have_different_bytes(a in maps(), b in maps()) {
        prop_assert_eq!(a == b, context(&a).canonical() == context(&b).canonical());
        prop_assert_eq!(a == b, context(&a) == context(&b));
    }

    #[test]
    fn a_sealed_dek_opens_in_its_context_only(
        id in key_ids(), version: u32, material in prop::collection::vec(any::<u8>(), 32..=64),
        bytes: [u8; 32], more: [u8; 32], map in maps(), other in maps(),
    ) {
        let cmk = cmk(&id, version, &material);
        let dek = Dek::from_bytes(&[bytes, more].concat().try_into().unwrap());
        let sealed = cmk.seal(&context(&map), &dek);
        let parsed = SealedDek::from_bytes(sealed.as_bytes()).unwrap();
        prop_assert_eq!(parsed.key_id(), crate::support::key_id(&id));
        prop_assert_eq!(parsed.key_version(), version);
        prop_assert!(cmk.open(&context(&map), &parsed).unwrap() == dek);
        prop_assert_eq!(cmk.open(&context(&other), &parsed).is_ok(), other == map);
    }

    #[test]
    fn no_bytes_make_the_blob_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = SealedDek::from_bytes(&bytes);
    }

    #[test]
    fn a_parsed_blob_has_the_bytes_that_were_parsed(
        version in prop_oneof![Just(2u16), any::<u16>()], length in prop_oneof![Just(152u16), any::<u16>()],
        middle in prop::collection::vec(any::<u8>(), 112), id in prop_oneof![key_ids(), "[0-9a-zA-Z-]{36}"],
        key_version: u32, good: bool,
    ) {
        let (version, length) = (version.to_le_bytes(), length.to_le_bytes());
        let key_version = key_version.to_le_bytes();
        let mut blob = [&version, &length, &middle[..], id.as_bytes(), &key_version, &[0; 32]].concat();
        if good {
            blob = crate::support::with_checksum(blob.try_into().unwrap()).to_vec();
        }
        let frame = (version, length) == (2_u16.to_le_bytes(), 152_u16.to_le_bytes());
        let expected = frame && id.parse::<KeyId>().is_ok() && good;
        match SealedDek::from_bytes(&blob) {
            Ok(sealed) => {
                prop_assert!(expected);
                prop_assert_eq!(sealed.as_bytes().as_slice(), blob);
            }
            Err(_) => prop_assert!(!expected),
        }
    }

    #[test]
    fn no_text_makes_the_key_id_parser_panic(text in ".{0,40}") {
        if let Ok(id) = text.parse::<KeyId>() {
            prop_assert_eq!(id.as_str(), text);
        }
    }
}

#[cfg(feature = "api")]
mod wire {
    use dekseal::{Engine, api};

    use super::*;
    use crate::support::{Failing, one_key};

    /// JSON that is almost a request.
    fn bodies() -> impl Strategy<Value = String> {
        let field = prop_oneof![
            Just("key_id"),
            Just("encryption_context"),
            Just("datakey_length"),
            Just("plain_text"),
            Just("datakey_plain_length"),
            Just("cipher_text"),
            Just("datakey_cipher_length"),
            Just("sequence"),
            Just("x"),
        ];
        let value = prop_oneof![
            Just(format!("\"{}\"", crate::support::KEY_ID)),
            Just("\"512\"".into()),
            Just("64".into()),
            Just("null".into()),
            Just(r#"{"a":"b"}"#.into()),
            Just(r#""\ud800""#.into()),
            Just("[{}]".into()),
            "[\"{}\\[\\]0-9a-z,:\\\\ ]{0,12}",
        ];
        prop::collection::vec((field, value), 0..6).prop_map(|fields| {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("\"{name}\":{value}"))
                .collect();
            format!("{{{}}}", fields.join(","))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_request_is_answered_in_json(
            method in prop_oneof![9 => Just("POST".to_owned()), 1 => ".{0,6}"],
            operation in prop_oneof![
                Just("create-datakey"), Just("create-datakey-without-plaintext"), Just("encrypt-datakey"),
                Just("decrypt-datakey"), Just("x"),
            ],
            project in "[0-9A-Za-z_./-]{0,8}",
            body in prop_oneof![bodies().prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..80)],
        ) {
            let path = format!("/v1.0/{project}/kms/{operation}");
            let response = api::handle_with_rng(&Engine::new(one_key()), &method, &path, &body, &mut Failing);
            let value: serde_json::Value = serde_json::from_str(response.body()).unwrap();
            prop_assert_eq!(response.error_code().is_none(), response.status() == 200);
            prop_assert_eq!(value["error"]["error_code"].as_str(), response.error_code());
        }
    }
}
