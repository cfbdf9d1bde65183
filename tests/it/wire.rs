//! The wire API: the responses to valid requests.

use dekseal::{Dek, EncryptionContext, Engine, MemoryKeyring, SealedDek, api, api::Operation, api::Request};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Fixed, KEY_ID, SealedVector, cmk, context, key_id, one_key, vectors};

const PROJECT: &str = "53d1aefc533f4ce9a59c26b01667cbcf";

fn path(operation: &str) -> String {
    format!("/v1.0/{PROJECT}/kms/{operation}")
}

/// 64 bytes for a DEK, and their hex.
fn known_bytes() -> ([u8; 64], String) {
    let bytes = core::array::from_fn(|at| u8::try_from(at * 3).unwrap());
    (bytes, hex::encode_upper(bytes))
}

fn call(engine: &Engine<MemoryKeyring>, operation: &str, body: &str) -> String {
    let (bytes, _) = known_bytes();
    let response = api::handle_with_rng(engine, "POST", &path(operation), body.as_bytes(), &mut Fixed(&bytes));
    assert_eq!(
        (response.status(), response.error_code()),
        (200, None),
        "{}",
        response.body()
    );
    response.body().to_owned()
}

#[test]
fn each_operation_answers_its_fields_in_order_and_in_upper_case() {
    let engine = Engine::new(one_key());
    let (bytes, plain) = known_bytes();
    let digest = hex::encode_upper(Sha256::digest(bytes));
    let context = EncryptionContext::from_pairs([("Key1", "Value1"), ("Key2", "Value2")]).unwrap();
    let sealed = engine
        .encrypt_dek(&key_id(KEY_ID), &context, &Dek::from_bytes(&bytes))
        .unwrap();
    let cipher = hex::encode_upper(sealed.as_bytes());
    let pairs = r#"{"Key2":"Value2","Key1":"Value1"}"#;
    let sequence = "919c82d4-8046-4722-9094-35c3c6524cff";
    let common = format!(r#""key_id":"{KEY_ID}","encryption_context":{pairs},"sequence":"{sequence}""#);

    assert_eq!(
        call(
            &engine,
            "create-datakey",
            &format!(r#"{{{common},"datakey_length":"512"}}"#)
        ),
        format!(r#"{{"key_id":"{KEY_ID}","plain_text":"{plain}","cipher_text":"{cipher}"}}"#)
    );
    assert_eq!(
        call(
            &engine,
            "create-datakey-without-plaintext",
            &format!(r#"{{{common},"datakey_length":"512"}}"#)
        ),
        format!(r#"{{"key_id":"{KEY_ID}","cipher_text":"{cipher}"}}"#)
    );
    let encrypt = format!(r#"{{{common},"plain_text":"{plain}{digest}","datakey_plain_length":"64"}}"#);
    assert_eq!(
        call(&engine, "encrypt-datakey", &encrypt),
        format!(r#"{{"key_id":"{KEY_ID}","cipher_text":"{cipher}","datakey_length":"64"}}"#)
    );
    let decrypt = format!(r#"{{{common},"cipher_text":"{cipher}","datakey_cipher_length":"64"}}"#);
    assert_eq!(
        call(&engine, "decrypt-datakey", &decrypt),
        format!(r#"{{"data_key":"{plain}","datakey_length":"64","datakey_dgst":"{digest}"}}"#)
    );
}

#[test]
fn the_published_request_is_answered() {
    let body = r#"{"key_id": "0d0466b0-e727-4d9c-b35d-f84bb474a37f", "datakey_length": "512"}"#;
    let answer: Value = serde_json::from_str(&call(&Engine::new(one_key()), "create-datakey", body)).unwrap();
    let sealed = SealedDek::from_bytes(&hex::decode(answer["cipher_text"].as_str().unwrap()).unwrap()).unwrap();
    let dek = cmk(KEY_ID, 0, &[7; 32])
        .open(&EncryptionContext::none(), &sealed)
        .unwrap();
    assert_eq!(
        hex::encode_upper(dek.expose_secret()),
        answer["plain_text"].as_str().unwrap()
    );
}

#[test]
fn encrypt_and_decrypt_give_every_known_answer() {
    for v in vectors::<Vec<SealedVector>>("blob") {
        let key = cmk(&v.key_id, v.key_version, &hex::decode(&v.material).unwrap());
        let engine = Engine::new(MemoryKeyring::from_versions([key]).unwrap());
        let digest = hex::encode(Sha256::digest(hex::decode(&v.dek).unwrap()));
        let mut encrypt = json!({
            "key_id": v.key_id, "plain_text": format!("{}{digest}", v.dek), "datakey_plain_length": 64,
            "encryption_context": v.context,
        });
        if v.context.is_empty() {
            encrypt.as_object_mut().unwrap().remove("encryption_context");
        }
        let answer: Value = serde_json::from_str(&call(&engine, "encrypt-datakey", &encrypt.to_string())).unwrap();
        assert_eq!(
            answer["cipher_text"].as_str().unwrap(),
            v.blob.to_uppercase(),
            "{}",
            v.name
        );

        let decrypt = json!({
            "key_id": v.key_id, "cipher_text": v.blob, "datakey_cipher_length": 64, "encryption_context": v.context,
        });
        let answer: Value = serde_json::from_str(&call(&engine, "decrypt-datakey", &decrypt.to_string())).unwrap();
        assert_eq!(answer["data_key"].as_str().unwrap(), v.dek.to_uppercase(), "{}", v.name);
        assert_eq!(
            answer["datakey_dgst"].as_str().unwrap(),
            digest.to_uppercase(),
            "{}",
            v.name
        );
        assert!(
            cmk(&v.key_id, v.key_version, &hex::decode(&v.material).unwrap())
                .open(
                    &context(&v.context),
                    &SealedDek::from_bytes(&hex::decode(&v.blob).unwrap()).unwrap()
                )
                .is_ok()
        );
    }
}

#[test]
fn what_known_clients_send_is_accepted() {
    let engine = Engine::new(one_key());
    let (bytes, plain) = known_bytes();
    let digest = hex::encode_upper(Sha256::digest(bytes));
    let both = format!("{plain}{digest}");
    let mixed: String = both
        .chars()
        .enumerate()
        .map(|(at, c)| if at % 3 == 0 { c.to_ascii_lowercase() } else { c })
        .collect();
    let sealed = hex::encode(
        engine
            .encrypt_dek(&key_id(KEY_ID), &EncryptionContext::none(), &Dek::from_bytes(&bytes))
            .unwrap(),
    );

    for length in [r#""512""#, "512"] {
        call(
            &engine,
            "create-datakey",
            &format!(r#"{{"datakey_length":{length},"key_id":"{KEY_ID}"}}"#),
        );
        call(
            &engine,
            "create-datakey-without-plaintext",
            &format!(r#"{{"datakey_length":{length},"key_id":"{KEY_ID}"}}"#),
        );
    }
    for length in [r#""64""#, "64"] {
        for plain in [&both, &both.to_lowercase(), &mixed] {
            let body = format!(r#"{{"key_id":"{KEY_ID}","plain_text":"{plain}","datakey_plain_length":{length}}}"#);
            assert!(call(&engine, "encrypt-datakey", &body).contains(&sealed.to_uppercase()));
        }
        for cipher in [&sealed, &sealed.to_uppercase()] {
            let body = format!(r#"{{"key_id":"{KEY_ID}","cipher_text":"{cipher}","datakey_cipher_length":{length}}}"#);
            assert!(call(&engine, "decrypt-datakey", &body).contains(&plain));
        }
    }
}

#[test]
fn json_is_read_as_json() {
    let engine = Engine::new(one_key());
    let plain_body = call(
        &engine,
        "create-datakey",
        &format!(r#"{{"key_id":"{KEY_ID}","datakey_length":"512"}}"#),
    );
    // White space around and inside, escapes in names and values, an empty context.
    let escaped = KEY_ID.replace('0', "\\u0030");
    for body in [
        format!(" \n\t{{\r\"key_id\" : \"{KEY_ID}\" , \"datakey_length\":\"512\"}}\n "),
        format!(r#"{{"key\u005fid":"{escaped}","datakey_length":"\u0035\u00312"}}"#),
        format!(r#"{{"key_id":"{KEY_ID}","datakey_length":"512","encryption_context":{{}}}}"#),
    ] {
        assert_eq!(call(&engine, "create-datakey", &body), plain_body, "{body}");
    }
    // Escapes in a context are decoded before the context is bound.
    let create = |context: &str| {
        call(
            &engine,
            "create-datakey",
            &format!(r#"{{"key_id":"{KEY_ID}","datakey_length":"512","encryption_context":{context}}}"#),
        )
    };
    assert_eq!(
        create(r#"{"k\u00e9y":"\ud83d\udd11\u0000\/"}"#),
        create("{\"kéy\":\"🔑\\u0000/\"}")
    );
    assert_ne!(create(r#"{"a":"b"}"#), create(r#"{"a":"b "}"#));
    assert_ne!(create(r#"{"a":"b"}"#), plain_body);
}

#[test]
fn a_body_of_256_kib_is_read() {
    let body = format!(r#"{{"key_id":"{KEY_ID}","datakey_length":"512"}}"#);
    let body = format!("{body}{}", " ".repeat(api::MAX_BODY - body.len()));
    assert_eq!(body.len(), 262_144);
    call(&Engine::new(one_key()), "create-datakey", &body);
}

#[test]
fn a_parsed_request_shows_what_a_host_authorises_by() {
    let engine = Engine::new(one_key());
    let (bytes, plain) = known_bytes();
    let digest = hex::encode_upper(Sha256::digest(bytes));
    let sealed = hex::encode(
        engine
            .encrypt_dek(&key_id(KEY_ID), &EncryptionContext::none(), &Dek::from_bytes(&bytes))
            .unwrap(),
    );
    let bodies = [
        (Operation::CreateDatakey, r#""datakey_length":"512""#.to_owned()),
        (
            Operation::CreateDatakeyWithoutPlaintext,
            r#""datakey_length":"512""#.to_owned(),
        ),
        (
            Operation::EncryptDatakey,
            format!(r#""datakey_plain_length":"64","plain_text":"{plain}{digest}""#),
        ),
        (
            Operation::DecryptDatakey,
            format!(r#""datakey_cipher_length":"64","cipher_text":"{sealed}""#),
        ),
    ];
    for (operation, fields) in bodies {
        let sequence = "919c82d4-8046-4722-9094-35c3c6524CFF";
        let body =
            format!(r#"{{"key_id":"{KEY_ID}",{fields},"sequence":"{sequence}","encryption_context":{{"a":"b"}}}}"#);
        let request = Request::parse("POST", &path(operation.as_str()), body.as_bytes()).unwrap();
        assert_eq!(request.operation(), operation);
        assert_eq!(request.project_id(), PROJECT);
        assert_eq!(request.key_id(), key_id(KEY_ID));
        assert_eq!(request.sequence(), Some(sequence));
        assert_eq!(
            request.encryption_context(),
            &EncryptionContext::from_pairs([("a", "b")]).unwrap()
        );
        // Neither shows the DEK or the context.
        assert_eq!(
            format!("{request:?}"),
            format!("Request({} under {KEY_ID}, ..)", operation.as_str())
        );
        let response = request.execute_with_rng(&engine, &mut Fixed(&bytes));
        assert!(["Response(200 ok, ..)", "Response(400 KMS.2203, ..)"].contains(&format!("{response:?}").as_str()));
    }
    let body = format!(r#"{{"key_id":"{KEY_ID}","datakey_length":512}}"#);
    let request = Request::parse("POST", &path("create-datakey"), body.as_bytes()).unwrap();
    assert_eq!(request.sequence(), None);
    assert_eq!(request.encryption_context(), &EncryptionContext::none());
}

#[test]
fn a_host_can_refuse() {
    let response = api::Response::forbidden();
    assert_eq!((response.status(), response.error_code()), (403, Some("KMS.0306")));
    let body: Value = serde_json::from_str(response.body()).unwrap();
    assert_eq!(body["error"]["error_code"], "KMS.0306");
}
