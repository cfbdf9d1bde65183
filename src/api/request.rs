//! A request: a host parses it, authorises it, and executes it.

use alloc::{borrow::ToOwned, string::String};
use core::fmt;

use rand_core::TryCryptoRng;

use super::{
    MAX_BODY, Operation,
    fields::{Fields, Payload},
    json,
    response::{self, Refusal, Response, hex, refusal},
};
use crate::{
    blob::SealedDek, context::EncryptionContext, dek::Dek, engine::Engine, key_id::KeyId, keyring::Keyring,
    secret::Secret, sha256::sha256,
};

/// A request that keeps all rules that can be checked without a key.
///
/// `Debug` shows the operation and the key ID.
///
/// # Examples
///
/// ```
/// use dekseal::api::{Operation, Request};
///
/// let path = "/v1.0/53d1aefc533f4ce9a59c26b01667cbcf/kms/create-datakey";
/// let body = br#"{
///     "key_id": "0d0466b0-e727-4d9c-b35d-f84bb474a37f",
///     "datakey_length": "512",
///     "sequence": "919c82d4-8046-4722-9094-35c3c6524cff",
///     "encryption_context": {"tenant": "42"}
/// }"#;
/// let request = Request::parse("POST", path, body).unwrap();
/// assert_eq!(request.operation(), Operation::CreateDatakey);
/// assert_eq!(request.project_id(), "53d1aefc533f4ce9a59c26b01667cbcf");
/// assert_eq!(request.key_id().as_str(), "0d0466b0-e727-4d9c-b35d-f84bb474a37f");
/// assert_eq!(request.sequence(), Some("919c82d4-8046-4722-9094-35c3c6524cff"));
///
/// let context = dekseal::EncryptionContext::from_pairs([("tenant", "42")])?;
/// assert_eq!(*request.encryption_context(), context);
/// # Ok::<(), dekseal::Error>(())
/// ```
pub struct Request {
    payload: Payload,
    project_id: String,
    key_id: KeyId,
    sequence: Option<String>,
    context: EncryptionContext,
}

impl Request {
    /// Parses a request.
    ///
    /// # Errors
    ///
    /// The response to send. It is for the first broken rule of the error table, up to `KMS.2202`.
    ///
    /// # Examples
    ///
    /// ```
    /// use dekseal::api::Request;
    ///
    /// let refusal = Request::parse("GET", "/v1.0/p/kms/create-datakey", b"").unwrap_err();
    /// assert_eq!((refusal.status(), refusal.error_code()), (405, Some("KMS.0215")));
    /// ```
    pub fn parse(method: &str, path: &str, body: &[u8]) -> Result<Self, Response> {
        let (project_id, operation) = parse_path(path).ok_or_else(|| response::PATH.response())?;
        if method != "POST" {
            return Err(response::METHOD.response());
        }
        if body.len() > MAX_BODY {
            return Err(response::TOO_LONG.response());
        }
        let object = json::read(body).ok_or_else(|| response::NOT_AN_OBJECT.response())?;
        let fields = Fields::of(operation, &object)?;
        let key_id = fields.key_id().ok_or_else(|| response::KEY_ID.response())?;
        let sequence = fields
            .sequence()
            .ok_or_else(|| response::SEQUENCE.response())?
            .map(ToOwned::to_owned);
        let context = fields.context()?;
        let payload = fields.payload(operation, &key_id)?;
        Ok(Self {
            payload,
            project_id: project_id.to_owned(),
            key_id,
            sequence,
            context,
        })
    }

    /// The requested operation.
    #[must_use]
    pub fn operation(&self) -> Operation {
        match self.payload {
            Payload::CreateDatakey => Operation::CreateDatakey,
            Payload::CreateDatakeyWithoutPlaintext => Operation::CreateDatakeyWithoutPlaintext,
            Payload::EncryptDatakey(_) => Operation::EncryptDatakey,
            Payload::DecryptDatakey(_) => Operation::DecryptDatakey,
        }
    }

    /// The project in the path: 1 to 64 characters of `[0-9A-Za-z_-]`.
    #[must_use]
    pub fn project_id(&self) -> &str {
        &self.project_id
    }

    /// The CMK of the request.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The caller's serial number of the message: 36 characters of `[0-9A-Za-z-]`.
    #[must_use]
    pub fn sequence(&self) -> Option<&str> {
        self.sequence.as_deref()
    }

    /// The encryption context. A host can authorise requests by it.
    #[must_use]
    pub fn encryption_context(&self) -> &EncryptionContext {
        &self.context
    }

    /// Executes the request.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// use dekseal::api::Request;
    ///
    /// let body = br#"{"key_id": "0d0466b0-e727-4d9c-b35d-f84bb474a37f", "datakey_length": "512"}"#;
    /// let request = Request::parse("POST", "/v1.0/p/kms/create-datakey-without-plaintext", body).unwrap();
    /// let response = request.execute(&engine);
    /// assert_eq!((response.status(), response.error_code()), (200, None));
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[cfg(feature = "std")]
    #[must_use]
    pub fn execute<K: Keyring>(&self, engine: &Engine<K>) -> Response {
        self.execute_with_rng(engine, &mut getrandom::SysRng)
    }

    /// [`execute`](Self::execute) with a random generator of the caller's.
    #[must_use]
    pub fn execute_with_rng<K: Keyring, R: TryCryptoRng + ?Sized>(&self, engine: &Engine<K>, rng: &mut R) -> Response {
        self.try_execute(engine, rng).unwrap_or_else(Refusal::response)
    }

    fn try_execute<K: Keyring, R: TryCryptoRng + ?Sized>(
        &self,
        engine: &Engine<K>,
        rng: &mut R,
    ) -> Result<Response, &'static Refusal> {
        let Self { key_id, context, .. } = self;
        let mut plain = Secret::<{ 2 * Dek::LEN }>::zeroed();
        Ok(match &self.payload {
            Payload::CreateDatakey => {
                let (dek, sealed) = engine.create_dek_with_rng(key_id, context, rng).map_err(refusal)?;
                Response::ok(&[
                    ("key_id", key_id.as_str()),
                    ("plain_text", hex(dek.expose_secret(), &mut plain)?),
                    ("cipher_text", hex(sealed.as_bytes(), &mut [0; 2 * SealedDek::LEN])?),
                ])
            }
            Payload::CreateDatakeyWithoutPlaintext => {
                let sealed = engine
                    .create_dek_without_plaintext_with_rng(key_id, context, rng)
                    .map_err(refusal)?;
                Response::ok(&[
                    ("key_id", key_id.as_str()),
                    ("cipher_text", hex(sealed.as_bytes(), &mut [0; 2 * SealedDek::LEN])?),
                ])
            }
            Payload::EncryptDatakey(dek) => {
                let sealed = engine.encrypt_dek(key_id, context, dek).map_err(refusal)?;
                Response::ok(&[
                    ("key_id", key_id.as_str()),
                    ("cipher_text", hex(sealed.as_bytes(), &mut [0; 2 * SealedDek::LEN])?),
                    ("datakey_length", "64"),
                ])
            }
            Payload::DecryptDatakey(sealed) => {
                let dek = engine.decrypt_dek(key_id, context, sealed).map_err(refusal)?;
                let digest = sha256(dek.expose_secret());
                Response::ok(&[
                    ("data_key", hex(dek.expose_secret(), &mut plain)?),
                    ("datakey_length", "64"),
                    ("datakey_dgst", hex(&digest, &mut [0; 64])?),
                ])
            }
        })
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} under {}, ..)", self.operation().as_str(), self.key_id)
    }
}

/// `/v1.0/{project_id}/kms/OPERATION`
fn parse_path(path: &str) -> Option<(&str, Operation)> {
    let (project_id, rest) = path.strip_prefix("/v1.0/")?.split_once('/')?;
    let name = rest.strip_prefix("kms/")?;
    let operation = Operation::ALL
        .into_iter()
        .find(|operation| operation.as_str() == name)?;
    let well_formed = matches!(project_id.len(), 1..=64)
        && project_id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    well_formed.then_some((project_id, operation))
}
