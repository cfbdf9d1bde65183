//! The code of docs/guide/kms-api.md. The handler is in examples/http/src/kms.rs.

// ANCHOR: authorize
use dekseal::{
    EncryptionContext, Engine, Error, KeyId, Keyring,
    api::{Operation, Request, Response},
};

/// The caller, from the certificate or the token that the server has verified. Nothing here comes from the request.
struct Caller {
    project: String,
    key_id: KeyId,
    may_decrypt: bool,
    tenant: String,
}

impl Caller {
    fn may(&self, request: &Request) -> Result<bool, Error> {
        let decrypts = request.operation() == Operation::DecryptDatakey;
        let tenant = EncryptionContext::from_pairs([("tenant", &self.tenant)])?;
        Ok(request.project_id() == self.project
            && request.key_id() == self.key_id
            && *request.encryption_context() == tenant
            && (self.may_decrypt || !decrypts))
    }
}

fn serve(engine: &Engine<impl Keyring>, caller: &Caller, method: &str, path: &str, body: &[u8]) -> Response {
    match Request::parse(method, path, body) {
        Ok(request) if caller.may(&request).unwrap_or(false) => request.execute(engine),
        Ok(_) => Response::forbidden(),
        Err(refusal) => refusal,
    }
}
// ANCHOR_END: authorize

#[test]
fn a_caller_gets_what_it_may_use() -> Result<(), Error> {
    let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    let cmk = dekseal::CmkVersion::new(key_id, 0, &[7; 64])?;
    let engine = Engine::new(dekseal::MemoryKeyring::from_versions([cmk])?);
    let mut caller = Caller {
        project: "p1".into(),
        key_id,
        may_decrypt: false,
        tenant: "42".into(),
    };
    // ANCHOR: answers
    let body = br#"{
        "key_id": "0d0466b0-e727-4d9c-b35d-f84bb474a37f",
        "datakey_length": "512",
        "encryption_context": {"tenant": "42"}
    }"#;
    let response = serve(&engine, &caller, "POST", "/v1.0/p1/kms/create-datakey", body);
    assert_eq!((response.status(), response.error_code()), (200, None));

    // Another project than the caller's.
    let response = serve(&engine, &caller, "POST", "/v1.0/p2/kms/create-datakey", body);
    assert_eq!((response.status(), response.error_code()), (403, Some("KMS.0306")));
    // ANCHOR_END: answers

    let other_tenant = String::from_utf8_lossy(body).replace("\"42\"", "\"43\"");
    let path = "/v1.0/p1/kms/create-datakey";
    assert_eq!(
        serve(&engine, &caller, "POST", path, other_tenant.as_bytes()).status(),
        403
    );
    let unknown_key = String::from_utf8_lossy(body).replace("0d0466b0", "00000000");
    assert_eq!(
        serve(&engine, &caller, "POST", path, unknown_key.as_bytes()).status(),
        403
    );
    assert_eq!(serve(&engine, &caller, "GET", path, body).status(), 405);

    let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    let sealed = engine.create_dek_without_plaintext(&key_id, &context)?;
    let fields = r#""datakey_cipher_length":"64","encryption_context":{"tenant":"42"}"#;
    let body = format!(r#"{{"key_id":"{key_id}","cipher_text":"{sealed}",{fields}}}"#);
    let path = "/v1.0/p1/kms/decrypt-datakey";
    assert_eq!(serve(&engine, &caller, "POST", path, body.as_bytes()).status(), 403);
    caller.may_decrypt = true;
    assert_eq!(serve(&engine, &caller, "POST", path, body.as_bytes()).status(), 200);
    Ok(())
}
