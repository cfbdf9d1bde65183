//! Every row of the error table of docs/KMS_API.md, and the order of the rows.

use dekseal::{
    CmkVersion, Dek, EncryptionContext, Engine, Error, ErrorKind, KeyId, Keyring, MemoryKeyring, api,
    rand_core::TryCryptoRng,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    context::ContextFile,
    support::{Failing, KEY_ID, OTHER_KEY_ID, Repeating, key_id, one_key, vectors, with_checksum},
};

/// A keyring whose only key is in the state that a test needs.
struct InState {
    keys: MemoryKeyring,
    state: Option<ErrorKind>,
}

impl InState {
    fn check(&self) -> Result<(), Error> {
        self.state.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl Keyring for InState {
    fn with_current<T>(&self, key_id: &KeyId, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        self.check()?;
        self.keys.with_current(key_id, f)
    }

    fn with_version<T>(&self, key_id: &KeyId, version: u32, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
        self.check()?;
        self.keys.with_version(key_id, version, f)
    }
}

/// A request in parts that can be broken one by one, and the engine that handles it.
struct Case {
    method: String,
    path: String,
    /// The name and the JSON text of each field.
    fields: Vec<(String, String)>,
    padding: usize,
    state: Option<ErrorKind>,
    failing_source: bool,
}

const OPERATIONS: [&str; 4] = [
    "create-datakey",
    "create-datakey-without-plaintext",
    "encrypt-datakey",
    "decrypt-datakey",
];

impl Case {
    fn good(operation: &str) -> Self {
        let plain = [0x5a; 64];
        let plain_text = hex::encode(plain) + &hex::encode(Sha256::digest(plain));
        let fields: Vec<(&str, String)> = match operation {
            "encrypt-datakey" => vec![
                ("plain_text", quote(&plain_text)),
                ("datakey_plain_length", quote("64")),
            ],
            "decrypt-datakey" => vec![
                ("cipher_text", quote(&sealed_hex())),
                ("datakey_cipher_length", quote("64")),
            ],
            _ => vec![("datakey_length", quote("512"))],
        };
        let key_id = [("key_id", quote(KEY_ID))];
        Self {
            method: "POST".into(),
            path: format!("/v1.0/p/kms/{operation}"),
            fields: key_id
                .into_iter()
                .chain(fields)
                .map(|(name, json)| (name.into(), json))
                .collect(),
            padding: 0,
            state: None,
            failing_source: false,
        }
    }

    fn set(&mut self, name: &str, json: &str) {
        match self.fields.iter_mut().find(|(field, _)| field == name) {
            Some((_, value)) => *value = json.into(),
            None => self.fields.push((name.into(), json.into())),
        }
    }

    fn body(&self) -> String {
        let fields: Vec<String> = self
            .fields
            .iter()
            .map(|(name, json)| format!("\"{name}\":{json}"))
            .collect();
        format!("{{{}}}{}", fields.join(","), " ".repeat(self.padding))
    }

    fn answer(&self) -> (u16, String, String) {
        let engine = Engine::new(InState {
            keys: one_key(),
            state: self.state,
        });
        let random: Vec<u8> = (0..64).collect();
        let body = self.body();
        if self.failing_source {
            answer(&engine, &self.method, &self.path, body.as_bytes(), &mut Failing)
        } else {
            answer(
                &engine,
                &self.method,
                &self.path,
                body.as_bytes(),
                &mut Repeating(&random),
            )
        }
    }
}

fn quote(text: &str) -> String {
    format!("\"{text}\"")
}

fn sealed_hex() -> String {
    let sealed = Engine::new(one_key()).encrypt_dek(
        &key_id(KEY_ID),
        &EncryptionContext::none(),
        &Dek::from_bytes(&[0x5a; 64]),
    );
    hex::encode(sealed.unwrap())
}

/// The status, the code (empty if there is none) and the message.
fn answer<K: Keyring, R: TryCryptoRng>(
    engine: &Engine<K>,
    method: &str,
    path: &str,
    body: &[u8],
    rng: &mut R,
) -> (u16, String, String) {
    let response = api::handle_with_rng(engine, method, path, body, rng);
    let json: Value = serde_json::from_str(response.body()).unwrap();
    let Some(error) = json.get("error") else {
        return (response.status(), String::new(), String::new());
    };
    let message = error["error_msg"].as_str().unwrap().to_owned();
    // Both members, in this order.
    let quoted = serde_json::to_string(&message).unwrap();
    let code = error["error_code"].as_str().unwrap().to_owned();
    assert_eq!(
        response.body(),
        format!(r#"{{"error":{{"error_code":"{code}","error_msg":{quoted}}}}}"#)
    );
    assert_eq!(response.error_code(), Some(code.as_str()));
    (response.status(), code, message)
}

type Break = (u16, &'static str, fn(&mut Case));

/// A way to break each row that applies to `operation`, in the order of the table.
fn breaks(operation: &str) -> Vec<Break> {
    let mut breaks: Vec<Break> = vec![
        (400, "KMS.0201", |case| case.path = case.path.replace("/p/", "/p p/")),
        (405, "KMS.0215", |case| case.method = "GET".into()),
        (400, "KMS.0203", |case| case.padding = api::MAX_BODY),
        (400, "KMS.0202", |case| {
            case.fields.push(("key_id".into(), quote(KEY_ID)))
        }),
        (400, "KMS.0308", |case| case.set("encryption_contexts", "{}")),
        (400, "KMS.0204", |case| {
            case.fields.retain(|(name, _)| !name.contains("length"))
        }),
        (400, "KMS.0205", |case| {
            case.fields[0].1 = quote("0D0466B0-e727-4d9c-b35d-f84bb474a37f")
        }),
        (400, "KMS.0206", |case| case.set("sequence", "7")),
        (400, "KMS.0208", |case| case.set("encryption_context", r#"{"":""}"#)),
    ];
    match operation {
        "create-datakey" => breaks.push((400, "KMS.1901", |case| case.set("datakey_length", "256"))),
        "create-datakey-without-plaintext" => breaks.push((400, "KMS.2001", |case| case.set("datakey_length", "256"))),
        "encrypt-datakey" => {
            breaks.push((400, "KMS.2101", |case| case.set("plain_text", &quote("5a"))));
            breaks.push((400, "KMS.2102", |case| case.set("datakey_plain_length", "65")));
            breaks.push((400, "KMS.2103", |case| case.set("plain_text", &quote(&"5a".repeat(96)))));
        }
        _ => {
            breaks.push((400, "KMS.2201", |case| case.set("cipher_text", &quote("02"))));
            breaks.push((400, "KMS.2202", |case| case.set("datakey_cipher_length", "188")));
        }
    }
    breaks.push((404, "KMS.0207", |case| case.state = Some(ErrorKind::UnknownKey)));
    breaks.push((404, "KMS.0207", |case| case.state = Some(ErrorKind::UnknownKeyVersion)));
    breaks.push((404, "KMS.0207", |case| {
        case.state = Some(ErrorKind::KeyVersionDestroyed)
    }));
    breaks.push((400, "KMS.0209", |case| case.state = Some(ErrorKind::KeyDisabled)));
    breaks.push((400, "KMS.0210", |case| case.state = Some(ErrorKind::KeyPendingDeletion)));
    breaks.push((503, "KMS.0101", |case| case.state = Some(ErrorKind::KeyringUnavailable)));
    breaks.push((503, "KMS.0101", |case| case.state = Some(ErrorKind::RollbackUnresolved)));
    #[cfg(feature = "file-keyring")]
    breaks.push((503, "KMS.0101", |case| {
        case.state = Some(ErrorKind::File(dekseal::FileFault::RolledBack))
    }));
    #[cfg(feature = "file-keyring")]
    breaks.push((503, "KMS.0101", |case| {
        case.state = Some(ErrorKind::File(dekseal::FileFault::Io))
    }));
    match operation {
        "decrypt-datakey" => breaks.push((400, "KMS.2203", |case| case.set("encryption_context", r#"{"a":"b"}"#))),
        "encrypt-datakey" => breaks.push((500, "KMS.0101", |case| case.state = Some(ErrorKind::Keyring))),
        _ => breaks.push((500, "KMS.0101", |case| case.failing_source = true)),
    }
    breaks
}

#[test]
fn every_row_is_answered_and_the_first_in_the_table_decides() {
    let mut seen = std::collections::BTreeSet::new();
    for operation in OPERATIONS {
        assert_eq!(Case::good(operation).answer().0, 200, "{operation}");
        let breaks = breaks(operation);
        for (first, (status, code, break_it)) in breaks.iter().enumerate() {
            let mut case = Case::good(operation);
            break_it(&mut case);
            let (found_status, found_code, _) = case.answer();
            assert_eq!((found_status, found_code.as_str()), (*status, *code), "{operation}");
            seen.insert(*code);
            for (_, later_code, break_later) in &breaks[first + 1..] {
                // The later break first: if both set the same part, the earlier row's break remains.
                let mut case = Case::good(operation);
                break_later(&mut case);
                break_it(&mut case);
                let (_, found, _) = case.answer();
                assert_eq!(found, *code, "{operation}: {code} before {later_code}");
            }
        }
    }
    // All rows of the table except KMS.0306, which is the host's.
    assert_eq!(seen.len(), 21);
}

/// The code for `body` sent to `operation`. `{}` in it stands for the key ID.
fn code(operation: &str, body: &str) -> String {
    code_of_bytes(
        operation,
        body.replace("{}", &format!(r#""key_id":"{KEY_ID}""#)).as_bytes(),
    )
    .0
}

fn code_of_bytes(operation: &str, body: &[u8]) -> (String, String) {
    let random: Vec<u8> = (0..64).collect();
    let path = format!("/v1.0/p/kms/{operation}");
    let (_, code, message) = answer(&Engine::new(one_key()), "POST", &path, body, &mut Repeating(&random));
    (code, message)
}

#[test]
fn paths() {
    let body = format!(r#"{{"key_id":"{KEY_ID}","datakey_length":512}}"#);
    let code = |path: &str| {
        answer(
            &Engine::new(one_key()),
            "POST",
            path,
            body.as_bytes(),
            &mut Repeating(&(0..64).collect::<Vec<u8>>()),
        )
        .1
    };
    for project in ["p", "0", "_", "-", &"aZ09_-".repeat(10), &"x".repeat(64)] {
        assert_eq!(code(&format!("/v1.0/{project}/kms/create-datakey")), "", "{project}");
    }
    for path in [
        "",
        "/",
        "/v1.0/p/kms/",
        "/v1.0/p/kms/create-datakeys",
        "/v1.0/p/kms/create-datakey/",
        "/v1.0/p/kms/Create-datakey",
        "/v1.0/p/kms/create-datakey?x=1",
        "/v1.0//kms/create-datakey",
        "/v1.0/p/q/kms/create-datakey",
        "/v1.0/p.q/kms/create-datakey",
        "/v1.0/é/kms/create-datakey",
        "/v1.0/p/kms/kms/create-datakey",
        "/v1/p/kms/create-datakey",
        "v1.0/p/kms/create-datakey",
        " /v1.0/p/kms/create-datakey",
        "/V1.0/p/kms/create-datakey",
        &format!("/v1.0/{}/kms/create-datakey", "x".repeat(65)),
    ] {
        assert_eq!(code(path), "KMS.0201", "{path}");
    }
}

#[test]
fn methods() {
    for method in ["GET", "PUT", "DELETE", "post", "Post", "", "POST "] {
        let (status, code, _) = answer(
            &Engine::new(one_key()),
            method,
            "/v1.0/p/kms/create-datakey",
            b"",
            &mut Failing,
        );
        assert_eq!((status, code.as_str()), (405, "KMS.0215"), "{method}");
    }
}

#[test]
fn bodies_that_are_no_json_object() {
    let not_an_object: [&[u8]; 24] = [
        b"",
        b" ",
        b"null",
        b"[]",
        b"\"x\"",
        b"1",
        b"{",
        b"}",
        b"{}{}",
        b"{} x",
        b"{,}",
        b"{\"a\":1,}",
        b"{a:1}",
        b"{'a':1}",
        b"{\"a\":01}",
        b"{\"a\":+1}",
        b"{\"a\":nul}",
        b"{\"a\":\"\n\"}",
        b"{\"a\nb\":1}",
        b"{\"a\":\"\\x\"}",
        b"{\"a\":\"\\u12\"}",
        b"\xef\xbb\xbf{}",
        b"{\"a\":\"\xff\"}",
        b"{\"\xc0\x80\":1}",
    ];
    for body in not_an_object {
        let code = code_of_bytes("create-datakey", body).0;
        assert_eq!(code, "KMS.0202", "{}", String::from_utf8_lossy(body));
    }
    // At any depth.
    for depth in [1000, api::MAX_BODY / 2] {
        for bracket in ["[", "{\"a\":"] {
            let body = bracket.repeat(depth / bracket.len());
            assert_eq!(code("create-datakey", &body), "KMS.0202");
        }
    }
    // If the body can be parsed, the rule of the field decides.
    for depth in [1, 31, 32, 40, 120] {
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let common = format!(r#""key_id":"{KEY_ID}","datakey_length":512"#);
        let context = format!(r#"{{{common},"encryption_context":{{"a":{nested}}}}}"#);
        assert_eq!(code("create-datakey", &context), "KMS.0208", "{depth}");
        assert_eq!(
            code("create-datakey", &format!(r#"{{{common},"x":{nested}}}"#)),
            "KMS.0308",
            "{depth}"
        );
    }
    // The outermost of the 128 levels is the body.
    for (depth, answer) in [(127, "KMS.0308"), (128, "KMS.0202")] {
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let body = format!(r#"{{"key_id":"{KEY_ID}","datakey_length":512,"x":{nested}}}"#);
        assert_eq!(code("create-datakey", &body), answer, "{depth}");
    }
    let nested = format!(r#"{{"a":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(code("create-datakey", &nested), "KMS.0202");
    assert_eq!(
        code(
            "create-datakey",
            r#"{"a":[[[[[[{"b":[{}]}]]]]]]}"#.replace("{}", "1").as_str()
        ),
        "KMS.0308"
    );
}

#[test]
fn a_small_stack_is_enough_for_the_deepest_body() {
    let deepest = [
        ("[".repeat(127) + &"]".repeat(127), "KMS.0308"),
        (r#"{"a":"#.repeat(126) + "0" + &"}".repeat(126), "KMS.0308"),
        (r#"[{"a":"#.repeat(63) + "0" + &"}]".repeat(63), "KMS.0308"),
        (
            "[".repeat(api::MAX_BODY / 2 - 20) + &"]".repeat(api::MAX_BODY / 2 - 20),
            "KMS.0202",
        ),
        (r#"{"a":"#.repeat(40_000) + "0" + &"}".repeat(40_000), "KMS.0202"),
    ];
    let thread = std::thread::Builder::new().stack_size(96 * 1024).spawn(move || {
        for (nested, expected) in deepest {
            for field in ["x", "sequence"] {
                let body = format!(r#"{{"{field}":{nested}}}"#);
                let refusal = api::Request::parse("POST", "/v1.0/p/kms/create-datakey", body.as_bytes()).unwrap_err();
                // For a known field, the next row of the table applies.
                let expected = if (field, expected) == ("sequence", "KMS.0308") {
                    "KMS.0204"
                } else {
                    expected
                };
                assert_eq!(refusal.error_code(), Some(expected));
            }
        }
    });
    thread.unwrap().join().unwrap();
}

#[test]
fn levels_are_counted_alike_wherever_a_value_stands() {
    let common = format!(r#""key_id":"{KEY_ID}","datakey_length":512"#);
    // A value at level 128, and one level deeper.
    for (innermost, levels) in [
        ("0", 1),
        ("\"s\"", 1),
        ("null", 1),
        ("[]", 1),
        ("{}", 1),
        ("[0]", 2),
        (r#"{"a":"b"}"#, 2),
    ] {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let nested = |above: usize| {
                let around = 128 - above - levels;
                [around, around + 1].map(|around| open.repeat(around) + innermost + &close.repeat(around))
            };
            // Above a field is the body. Above a value of the context are the body and the context.
            for (name, [fits, too_deep]) in [("x", nested(1)), ("sequence", nested(1))] {
                let code = |nested: &str| {
                    code_of_bytes(
                        "create-datakey",
                        format!(r#"{{{common},"{name}":{nested}}}"#).as_bytes(),
                    )
                    .0
                };
                assert_eq!(code(&fits), if name == "x" { "KMS.0308" } else { "KMS.0206" }, "{fits}");
                assert_eq!(code(&too_deep), "KMS.0202", "{too_deep}");
            }
            let [fits, too_deep] = nested(2);
            let code = |nested: &str| {
                code_of_bytes(
                    "create-datakey",
                    format!(r#"{{{common},"encryption_context":{{"k":{nested}}}}}"#).as_bytes(),
                )
                .0
            };
            assert_eq!(code(&fits), "KMS.0208", "{fits}");
            assert_eq!(code(&too_deep), "KMS.0202", "{too_deep}");
        }
    }
}

#[test]
fn bodies_at_the_limit_and_one_byte_over() {
    let fields: String = (0..20_000).map(|number| format!(r#""{number:05}":0,"#)).collect();
    let fields = format!(r#"{{{fields}"x":…}}"#);
    // The filling replaces the three dots.
    for (body, filling, expected) in [
        (r#"{{},"datakey_length":512…}"#, " ", ""),
        (r#"{{},"datakey_length":512}…"#, "\n", ""),
        (r#"{{},"datakey_length":512…}"#, "0", "KMS.1901"),
        (r#"{{},"datakey_length":512.0…}"#, "0", "KMS.1901"),
        (r#"{{},"datakey_length":5e…}"#, "9", "KMS.1901"),
        (r#"{{},"datakey_length":"512…"}"#, "0", "KMS.1901"),
        (r#"{{},"datakey_length":0…}"#, "0", "KMS.0202"),
        (r#"{{},"datakey_length":512…}"#, "}", "KMS.0202"),
        (r#"{{},"datakey_length":512,"x":…}"#, "[", "KMS.0202"),
        ("…", "{", "KMS.0202"),
        ("…", "\0", "KMS.0202"),
        (r#"{"key_id":"…","datakey_length":512}"#, "0", "KMS.0205"),
        (r#"{{},"datakey_length":512,"sequence":"…"}"#, "0", "KMS.0206"),
        (
            r#"{{},"datakey_length":512,"encryption_context":{"k":"…"}}"#,
            "v",
            "KMS.0208",
        ),
        (r#"{{},"datakey_length":512,"…":0}"#, "x", "KMS.0308"),
        (&fields, "9", "KMS.0308"),
    ] {
        let shown = &body[..body.len().min(80)];
        let body = body.replace("{}", &format!(r#""key_id":"{KEY_ID}""#));
        let room = api::MAX_BODY - (body.len() - "…".len());
        let code =
            |count: usize| code_of_bytes("create-datakey", body.replace('…', &filling.repeat(count)).as_bytes()).0;
        assert_eq!(code(room), expected, "{shown}");
        assert_eq!(code(room + 1), "KMS.0203", "{shown}");
    }
}

#[test]
fn contexts_at_the_limit_and_one_character_over() {
    let code = |context: &str| {
        let body = format!(r#"{{"key_id":"{KEY_ID}","datakey_length":512,"encryption_context":{context}}}"#);
        code_of_bytes("create-datakey", body.as_bytes()).0
    };
    for character in ["v", "é", "\u{1f511}", r"\u0000", r"\ud83d\udd11"] {
        let value = |count: usize| format!(r#"{{"k":"{}"}}"#, character.repeat(count));
        assert_eq!(code(&value(8191)), "", "{character}");
        assert_eq!(code(&value(8192)), "KMS.0208", "{character}");
    }
    // The maximum number of keys, each of four bytes: the longest canonical form.
    let keys = |count: u32| {
        let keys = (0x10000..0x10000 + count).filter_map(char::from_u32);
        let pairs: Vec<String> = keys.map(|key| format!(r#""{key}":"""#)).collect();
        format!("{{{}}}", pairs.join(","))
    };
    assert_eq!(code(&keys(8192)), "");
    assert_eq!(code(&keys(8193)), "KMS.0208");
}

#[test]
fn a_name_that_occurs_twice_in_any_object() {
    for body in [
        r#"{{},{},"datakey_length":512}"#,
        r#"{{},"key\u005fid":"x","datakey_length":512}"#,
        r#"{{},"datakey_length":512,"datakey_length":"512"}"#,
        r#"{{},"datakey_length":512,"x":1,"x":1}"#,
        r#"{{},"datakey_length":512,"encryption_context":{"a":"1","a":"1"}}"#,
        r#"{{},"datakey_length":512,"encryption_context":{"a":"1","\u0061":"2"}}"#,
        r#"{{},"datakey_length":512,"encryption_context":{"a":{"b":1,"b":2}}}"#,
        r#"{{},"datakey_length":512,"sequence":[[{"b":1,"b":2}]]}"#,
        r#"{{},"datakey_length":512,"encryption_context":{"\ud800":"1","\ud800":"2"}}"#,
        r#"{{},"datakey_length":512,"x":[{"b":1,"c":{"b":1},"b":2}]}"#,
        r#"{{},"datakey_length":512,"x":{"b":1 , "\u0062" : 2}}"#,
        r#"{{},"datakey_length":512,"x":{"\ud83d\udd11":{},"🔑":[]}}"#,
        r#"{{},"datakey_length":512,"x":{"\ud800":{},"\uD800":[]}}"#,
        r#"{{},"datakey_length":512,"x":{"\\\"":"}","y":"{\"","\u005c\u0022":0}}"#,
        r#"{{},"datakey_length":512,"x":{"":[{"":1},{"":1}],"":0}}"#,
    ] {
        assert_eq!(code("create-datakey", body), "KMS.0202", "{body}");
    }
    for body in [
        r#"{{},"datakey_length":512,"x":[{"b":1},{"b":{"b":["b","b"]}}]}"#,
        r#"{{},"datakey_length":512,"x":{"a":"b","b":"b","c":["c:",":"]}}"#,
        r#"{{},"datakey_length":512,"x":{"a\"":1,"a":2,"a\\":3,"\ud800":4,"\ud801":5}}"#,
    ] {
        assert_eq!(code("create-datakey", body), "KMS.0308", "{body}");
    }
    // A name may occur in two objects, and may also be a value.
    assert_eq!(
        code(
            "create-datakey",
            r#"{{},"datakey_length":512,"encryption_context":{"key_id":"key_id"}}"#
        ),
        ""
    );
}

#[test]
fn unknown_fields_and_fields_of_another_operation_are_named() {
    for (operation, field) in [
        ("create-datakey", "plain_text"),
        ("create-datakey", "cipher_text"),
        ("create-datakey-without-plaintext", "datakey_plain_length"),
        ("encrypt-datakey", "datakey_length"),
        ("encrypt-datakey", "datakey_cipher_length"),
        ("decrypt-datakey", "datakey_length"),
        ("decrypt-datakey", "plain_text"),
        ("create-datakey", "Key_id"),
        ("create-datakey", "encryption-context"),
        ("create-datakey", ""),
        ("create-datakey", "key_id "),
    ] {
        let (code, message) = code_of_bytes(
            operation,
            format!(r#"{{"key_id":"{KEY_ID}","{field}":"512"}}"#).as_bytes(),
        );
        assert_eq!(
            (code.as_str(), message),
            ("KMS.0308", format!("unknown field: {field}")),
            "{operation}"
        );
    }
    // At most 64 characters of it, escaped for JSON.
    let long = "é".repeat(65);
    let (_, message) = code_of_bytes("create-datakey", format!(r#"{{"{long}":1}}"#).as_bytes());
    assert_eq!(message, format!("unknown field: {}", "é".repeat(64)));
    let (_, message) = code_of_bytes("create-datakey", br#"{"a\"\\\u0001":1}"#);
    assert_eq!(message, "unknown field: a\"\\\u{1}");
    let (code, message) = code_of_bytes("create-datakey", br#"{"\ud800":1}"#);
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("KMS.0308", "unknown field: \u{fffd}\u{fffd}\u{fffd}")
    );
}

#[test]
fn missing_fields_are_named() {
    for operation in OPERATIONS {
        let good = Case::good(operation);
        for at in 0..good.fields.len() {
            let mut case = Case::good(operation);
            let (name, _) = case.fields.remove(at);
            let (status, code, message) = case.answer();
            assert_eq!(
                (status, code.as_str(), message),
                (400, "KMS.0204", format!("missing field: {name}")),
                "{operation}"
            );
        }
    }
}

#[test]
fn null_and_values_of_other_types_are_wrong_types() {
    for operation in OPERATIONS {
        for wrong in ["null", "true", "false", "[]", "{}", "-1", "1e3", "\"\"", "\"\\ud800\""] {
            for (field, code) in [
                ("key_id", "KMS.0205"),
                ("sequence", "KMS.0206"),
                ("encryption_context", "KMS.0208"),
                (
                    "datakey_length",
                    if operation == "create-datakey" {
                        "KMS.1901"
                    } else {
                        "KMS.2001"
                    },
                ),
                ("plain_text", "KMS.2101"),
                ("datakey_plain_length", "KMS.2102"),
                ("cipher_text", "KMS.2201"),
                ("datakey_cipher_length", "KMS.2202"),
            ] {
                let mut case = Case::good(operation);
                let common = ["key_id", "sequence", "encryption_context"].contains(&field);
                if !common && !case.fields.iter().any(|(name, _)| name == field)
                    || (field, wrong) == ("encryption_context", "{}")
                {
                    continue;
                }
                case.set(field, wrong);
                assert_eq!(case.answer().1, code, "{operation}: {field} is {wrong}");
            }
        }
    }
}

#[test]
fn lengths_are_one_number_in_one_form() {
    for wrong in [
        "512.0",
        "5.12e2",
        "5120",
        "51",
        "\"0512\"",
        "\" 512\"",
        "\"512 \"",
        "\"512.0\"",
        "-512",
        "256",
        "\"64\"",
    ] {
        assert_eq!(
            code(
                "create-datakey",
                &format!(r#"{{{{}},"datakey_length":{wrong}}}"#).replace("{{}}", "{}")
            ),
            "KMS.1901",
            "{wrong}"
        );
    }
}

#[test]
fn sequences() {
    let code = |sequence: &str| {
        code(
            "create-datakey",
            &format!(r#"{{KEY,"datakey_length":512,"sequence":"{sequence}"}}"#).replace("KEY", "{}"),
        )
    };
    assert_eq!(code("919c82d4-8046-4722-9094-35c3c6524cff"), "");
    assert_eq!(code("ABCDEFGHIJKLMNOPQRSTUVWXYZ----------"), "");
    for wrong in [
        "919c82d4-8046-4722-9094-35c3c6524cf",
        "919c82d4-8046-4722-9094-35c3c6524cfff",
        "919c82d4_8046-4722-9094-35c3c6524cff",
        "919c82d4-8046-4722-9094-35c3c6524cf\\u0000",
        "919c82d4-8046-4722-9094-35c3c6524cé",
    ] {
        assert_eq!(code(wrong), "KMS.0206", "{wrong}");
    }
}

#[test]
fn contexts_that_the_vectors_refuse() {
    let file: ContextFile = vectors("context");
    assert_eq!(file.invalid_json.len(), 13);
    for v in file.invalid_json {
        let body = format!(
            r#"{{"key_id":"{KEY_ID}","datakey_length":"512","encryption_context":{}}}"#,
            v.json
        );
        let (code, _) = code_of_bytes("create-datakey", body.as_bytes());
        // A name that occurs twice breaks an earlier row.
        let expected = if v.name.starts_with("duplicate key") {
            "KMS.0202"
        } else {
            "KMS.0208"
        };
        assert_eq!(code, expected, "{}", v.name);
    }
}

#[test]
fn contexts_contain_only_strings_that_utf_8_can_encode() {
    for (context, wrong) in [
        (r#"{"\ud83d\udd11":"\ud83d\udd11"}"#, ""),
        (r#"{"\ud83d":"v"}"#, "a lone surrogate"),
        (r#"{"k":"\udd11"}"#, "a lone surrogate"),
        (r#"{"k":"\udd11\ud83d"}"#, "a lone surrogate"),
        (r#"{"a":"b","k":null}"#, "a value is not a string"),
        (r#"{"a":"b","k":1}"#, "a value is not a string"),
        (r#"{"a":"b","k":["v"]}"#, "a value is not a string"),
        ("null", "not an object"),
        (r#"[["k","v"]]"#, "not an object"),
    ] {
        let mut case = Case::good("create-datakey");
        case.set("encryption_context", context);
        let (_, code, message) = case.answer();
        let refused = !wrong.is_empty();
        assert_eq!(code, if refused { "KMS.0208" } else { "" }, "{context}");
        assert!(message.ends_with(wrong), "{context}: {message}");
    }
}

#[test]
fn plain_texts() {
    let dek = "5A".repeat(64);
    let digest = hex::encode(Sha256::digest([0x5a; 64]));
    let code = |plain: &str| {
        let mut case = Case::good("encrypt-datakey");
        case.set("plain_text", &quote(plain));
        case.answer().1
    };
    assert_eq!(code(&format!("{dek}{digest}")), "");
    for wrong in [
        dek.as_str(),
        &format!("{dek}{}", &digest[1..]),
        &format!("{dek}{digest}0"),
        &format!("{dek}{digest}00"),
        &format!("{dek}{}g", &digest[1..]),
        &format!("{}é{digest}", &dek[2..]),
    ] {
        assert_eq!(code(wrong), "KMS.2101", "{wrong}");
    }
    for at in [0, 64, 127, 128, 160, 191] {
        let mut changed = format!("{dek}{digest}").into_bytes();
        changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
        assert_eq!(code(core::str::from_utf8(&changed).unwrap()), "KMS.2103", "digit {at}");
    }
}

#[test]
fn cipher_texts() {
    let good = hex::decode(sealed_hex()).unwrap();
    let answer_to = |cipher: &str| {
        let mut case = Case::good("decrypt-datakey");
        case.set("cipher_text", &quote(cipher));
        let (_, code, message) = case.answer();
        (code, message)
    };
    let refused = |cipher: String, why: &str| {
        assert_eq!(
            answer_to(&cipher),
            ("KMS.2201".to_owned(), format!("cipher_text is refused: {why}")),
            "{cipher}"
        );
    };
    let with = |at: usize, bytes: &[u8]| {
        let mut blob: [u8; 188] = good.clone().try_into().unwrap();
        blob[at..at + bytes.len()].copy_from_slice(bytes);
        hex::encode(with_checksum(blob))
    };
    let hex = hex::encode(&good);
    refused(String::new(), "not 376 hex digits");
    refused(hex[..374].to_owned(), "not 376 hex digits");
    refused(format!("{hex}00"), "not 376 hex digits");
    refused(format!("{}x", &hex[..375]), "not 376 hex digits");
    refused(with(0, &[1]), "not a sealed DEK: the version is not 2");
    refused(with(2, &[153]), "not a sealed DEK: the body length is not 152");
    refused(with(116, b"A"), "malformed key ID");
    refused(
        format!("{}0", &hex[..375]).replace("00", "01"),
        "not a sealed DEK: the version is not 2",
    );
    refused(
        with(116, OTHER_KEY_ID.as_bytes()),
        "the blob is sealed under another key than expected",
    );
    let mut damaged = good.clone();
    damaged[50] ^= 1;
    refused(hex::encode(damaged), "damaged sealed DEK: the checksum does not match");

    assert_eq!(
        answer_to(&with(50, &[good[50] ^ 1])),
        ("KMS.2203".to_owned(), "authentication failed".to_owned())
    );
    assert_eq!(
        answer_to(&with(152, &[9])),
        ("KMS.0207".to_owned(), "no such version of the key".to_owned())
    );
}

/// The errors of a host's own keyring may name anything. The messages to the client name nothing.
#[test]
fn details_of_an_engine_error_are_not_in_the_response() {
    struct Naming(ErrorKind);

    impl Keyring for Naming {
        fn with_current<T>(&self, _: &KeyId, _: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
            let error = Error::from(self.0).with_key_id(&key_id(OTHER_KEY_ID));
            Err(error.with_key_version(77).with_newest_key_version(78))
        }

        fn with_version<T>(&self, key_id: &KeyId, _: u32, f: impl FnOnce(&CmkVersion) -> T) -> Result<T, Error> {
            self.with_current(key_id, f)
        }
    }

    for (kind, expected) in [
        (ErrorKind::UnknownKey, (404, "KMS.0207", "no such key")),
        (
            ErrorKind::UnknownKeyVersion,
            (404, "KMS.0207", "no such version of the key"),
        ),
        (
            ErrorKind::KeyVersionRetired,
            (404, "KMS.0207", "no such version of the key"),
        ),
        (ErrorKind::KeyDisabled, (400, "KMS.0209", "the key is disabled")),
        (
            ErrorKind::KeyPendingDeletion,
            (400, "KMS.0210", "the key is pending deletion"),
        ),
        (
            ErrorKind::KeyringUnavailable,
            (503, "KMS.0101", "the keyring is unavailable"),
        ),
        (ErrorKind::Keyring, (500, "KMS.0101", "internal error")),
    ] {
        for operation in OPERATIONS {
            let case = Case::good(operation);
            let body = case.body();
            let (status, code, message) = answer(
                &Engine::new(Naming(kind)),
                &case.method,
                &case.path,
                body.as_bytes(),
                &mut Failing,
            );
            assert_eq!((status, code.as_str(), message.as_str()), expected, "{operation}");
        }
    }
}

#[test]
fn a_stuck_source_is_an_internal_error_that_says_nothing() {
    let body = format!(r#"{{"key_id":"{KEY_ID}","datakey_length":"512"}}"#);
    for operation in &OPERATIONS[..2] {
        let path = format!("/v1.0/p/kms/{operation}");
        let answer = answer(
            &Engine::new(one_key()),
            "POST",
            &path,
            body.as_bytes(),
            &mut Repeating(&[1]),
        );
        assert_eq!(answer, (500, "KMS.0101".to_owned(), "internal error".to_owned()));
    }
}

#[test]
fn no_message_repeats_a_secret_or_a_value() {
    let marks = ["S3cret", "c0ffee", "C0FFEE"];
    for operation in OPERATIONS {
        for (_, _, break_it) in breaks(operation) {
            let mut case = Case::good(operation);
            case.set("encryption_context", r#"{"k":"S3cret"}"#);
            if operation == "encrypt-datakey" {
                let plain = [0xc0, 0xff, 0xee].repeat(22)[..64].to_vec();
                case.set(
                    "plain_text",
                    &quote(&(hex::encode(&plain) + &hex::encode(Sha256::digest(&plain)))),
                );
            }
            break_it(&mut case);
            let (_, code, message) = case.answer();
            for mark in marks {
                assert!(!message.contains(mark), "{operation} {code}: {message}");
            }
        }
    }
}
