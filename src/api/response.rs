//! The responses: status and body, and all errors of the API.

use alloc::string::String;
use core::{fmt, fmt::Write};

use zeroize::Zeroizing;

#[cfg(feature = "store-keyring")]
use crate::error::StoreFault;
use crate::error::{Error, ErrorKind};

/// The response to a client: an HTTP status and a JSON body. The body may hold a DEK, so it is wiped on drop.
///
/// `Debug` shows the status and the error code, not the body.
///
/// # Examples
///
/// ```
/// use dekseal::api::Response;
///
/// let response = Response::forbidden();
/// assert_eq!(response.status(), 403);
/// assert_eq!(response.error_code(), Some("KMS.0306"));
/// assert!(response.body().starts_with(r#"{"error":{"error_code":"KMS.0306","#));
/// ```
pub struct Response {
    status: u16,
    /// Empty if the request succeeded. An empty `Option` would leave a place for old contents of the stack, which a
    /// host that moves the response to the heap would carry there.
    code: &'static str,
    body: Zeroizing<String>,
}

impl Response {
    /// The HTTP status: 200, or the status of the error.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The error code, such as `KMS.0207`, or `None` if the request succeeded.
    #[must_use]
    pub fn error_code(&self) -> Option<&'static str> {
        (!self.code.is_empty()).then_some(self.code)
    }

    /// The JSON text.
    ///
    /// # Security
    ///
    /// The text may hold a DEK: do not log it, and wipe every copy of it.
    #[must_use]
    pub fn body(&self) -> &str {
        &self.body
    }

    /// The response to a caller who may not use the key: 403 with `KMS.0306`.
    #[must_use]
    pub fn forbidden() -> Self {
        FORBIDDEN.response()
    }

    /// A success with these fields. Names and values consist of letters, digits, `_` and `-`, which JSON does not
    /// escape.
    pub(super) fn ok(fields: &[(&str, &str)]) -> Self {
        // The capacity covers the whole text, because a string that grows would leave parts of a DEK in freed memory.
        let length = fields.iter().fold("{}".len(), |sum, (name, value)| {
            sum.saturating_add(name.len())
                .saturating_add(value.len())
                .saturating_add(r#""":"","#.len())
        });
        let mut body = Zeroizing::new(String::with_capacity(length));
        for (name, value) in fields {
            let before = if body.is_empty() { r#"{""# } else { r#"",""# };
            for part in [before, name, r#"":""#, value] {
                body.push_str(part);
            }
        }
        body.push_str(r#""}"#);
        Self {
            status: 200,
            code: "",
            body,
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (status, code) = (self.status, self.error_code().unwrap_or("ok"));
        write!(f, "Response({status} {code}, ..)")
    }
}

/// A row of the error table of docs/KMS_API.md.
pub(super) struct Refusal {
    status: u16,
    code: &'static str,
    message: &'static str,
}

impl Refusal {
    const fn new(status: u16, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message }
    }

    pub(super) fn response(&self) -> Response {
        self.response_with(format_args!(""))
    }

    /// The response for this row, with `detail` after the message.
    pub(super) fn response_with(&self, detail: fmt::Arguments<'_>) -> Response {
        let mut message = String::from(self.message);
        let detailed = message.write_fmt(detail).map(|()| serde_json::to_string(&message));
        // Writing to a string does not fail. If it did, the message of the row, which JSON does not escape, would be
        // sent alone.
        let message = match detailed {
            Ok(Ok(quoted)) => quoted,
            _ => alloc::format!("\"{}\"", self.message),
        };
        let code = self.code;
        let body = alloc::format!(r#"{{"error":{{"error_code":"{code}","error_msg":{message}}}}}"#);
        Response {
            status: self.status,
            code,
            body: Zeroizing::new(body),
        }
    }

    /// The response for this row, with at most 64 characters of the name of a field.
    pub(super) fn naming(&self, field: &str) -> Response {
        let field: String = field.chars().take(64).collect();
        self.response_with(format_args!(": {field}"))
    }
}

/// The row for an error of the engine. The client is not told what the error names.
pub(super) fn refusal(error: Error) -> &'static Refusal {
    match error.kind() {
        ErrorKind::UnknownKey => &NO_SUCH_KEY,
        ErrorKind::UnknownKeyVersion | ErrorKind::KeyVersionRetired | ErrorKind::KeyVersionDestroyed => {
            &NO_SUCH_VERSION
        }
        ErrorKind::KeyDisabled => &DISABLED,
        ErrorKind::KeyPendingDeletion => &PENDING_DELETION,
        ErrorKind::AuthenticationFailed => &AUTHENTICATION_FAILED,
        ErrorKind::KeyringUnavailable | ErrorKind::RollbackUnresolved => &UNAVAILABLE,
        // The file was read to find out whether there is such a key.
        #[cfg(feature = "file-keyring")]
        ErrorKind::File(_) => &UNAVAILABLE,
        #[cfg(feature = "store-keyring")]
        ErrorKind::Store(
            StoreFault::Deadline | StoreFault::Unavailable | StoreFault::Stale | StoreFault::RolledBack,
        ) => &UNAVAILABLE,
        // The other errors that a caller can cause were answered while parsing.
        _ => &INTERNAL,
    }
}

// The rows of the table, in its order.
pub(super) const PATH: Refusal = Refusal::new(400, "KMS.0201", "the path is no operation of this API");
pub(super) const METHOD: Refusal = Refusal::new(405, "KMS.0215", "the method is not POST");
pub(super) const TOO_LONG: Refusal = Refusal::new(400, "KMS.0203", "the body is longer than 256 KiB");
pub(super) const NOT_AN_OBJECT: Refusal = Refusal::new(
    400,
    "KMS.0202",
    "the body is not one JSON object of UTF-8 text, or a key occurs twice",
);
pub(super) const UNKNOWN_FIELD: Refusal = Refusal::new(400, "KMS.0308", "unknown field");
pub(super) const MISSING_FIELD: Refusal = Refusal::new(400, "KMS.0204", "missing field");
pub(super) const KEY_ID: Refusal = Refusal::new(400, "KMS.0205", "key_id is malformed");
pub(super) const SEQUENCE: Refusal = Refusal::new(400, "KMS.0206", "sequence is malformed");
pub(super) const CONTEXT: Refusal = Refusal::new(400, "KMS.0208", "encryption_context is refused");
pub(super) const CREATE_LENGTH: Refusal = Refusal::new(400, "KMS.1901", "datakey_length is not 512");
pub(super) const CREATE_WITHOUT_PLAINTEXT_LENGTH: Refusal = Refusal::new(400, "KMS.2001", "datakey_length is not 512");
pub(super) const PLAIN_TEXT: Refusal = Refusal::new(400, "KMS.2101", "plain_text is not 192 hex digits");
pub(super) const PLAIN_LENGTH: Refusal = Refusal::new(400, "KMS.2102", "datakey_plain_length is not 64");
pub(super) const DIGEST: Refusal = Refusal::new(400, "KMS.2103", "the digest in plain_text is not that of the DEK");
pub(super) const CIPHER_TEXT: Refusal = Refusal::new(400, "KMS.2201", "cipher_text is refused");
pub(super) const CIPHER_LENGTH: Refusal = Refusal::new(400, "KMS.2202", "datakey_cipher_length is not 64");
const NO_SUCH_KEY: Refusal = Refusal::new(404, "KMS.0207", "no such key");
const NO_SUCH_VERSION: Refusal = Refusal::new(404, "KMS.0207", "no such version of the key");
const DISABLED: Refusal = Refusal::new(400, "KMS.0209", "the key is disabled");
const PENDING_DELETION: Refusal = Refusal::new(400, "KMS.0210", "the key is pending deletion");
const AUTHENTICATION_FAILED: Refusal = Refusal::new(400, "KMS.2203", "authentication failed");
const UNAVAILABLE: Refusal = Refusal::new(503, "KMS.0101", "the keyring is unavailable");
const INTERNAL: Refusal = Refusal::new(500, "KMS.0101", "internal error");
const FORBIDDEN: Refusal = Refusal::new(403, "KMS.0306", "the caller may not use this key");

/// Writes bytes to `digits` as upper-case hex, in constant time.
///
/// Fails only if `digits` is too short, which the assertion rules out. A failure would give an internal error.
pub(super) fn hex<'a, const N: usize, const DIGITS: usize>(
    bytes: &[u8; N],
    digits: &'a mut [u8; DIGITS],
) -> Result<&'a str, &'static Refusal> {
    const { assert!(DIGITS == 2 * N) };
    base16ct::upper::encode_str(bytes, digits).map_err(|_| &INTERNAL)
}
