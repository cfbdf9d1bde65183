//! The KMS wire API: parses requests from JSON text, and writes responses as JSON text (docs/KMS_API.md).
//!
//! This module has no network code. The host passes in the method, the path and the body of a request, and sends the
//! status and the body of the response. `handle` does everything in one call.
//!
//! A host that serves more than itself must authorise its callers. It uses two steps, so that a caller who may not use
//! a key learns nothing about the key:
//!
#![cfg_attr(feature = "std", doc = "```")]
#![cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
//! use dekseal::{Engine, Keyring, api::{Request, Response}};
//!
//! # fn may_use(caller: &str, request: &Request) -> bool { true }
//! fn serve(engine: &Engine<impl Keyring>, caller: &str, method: &str, path: &str, body: &[u8]) -> Response {
//!     match Request::parse(method, path, body) {
//!         Ok(request) if may_use(caller, &request) => request.execute(engine),
//!         Ok(_) => Response::forbidden(),
//!         Err(refusal) => refusal,
//!     }
//! }
//! ```

mod fields;
mod json;
mod request;
mod response;

use rand_core::TryCryptoRng;

use crate::{engine::Engine, keyring::Keyring};

pub use self::{request::Request, response::Response};

/// The maximum length of a body in bytes: 256 KiB.
///
/// A request takes at most 32 times as much memory as this, in addition to the body itself.
pub const MAX_BODY: usize = 256 * 1024;

/// Parses a request and executes it.
///
/// This is for hosts that do not authorise their callers. Other hosts start with [`Request::parse`].
///
/// # Examples
///
/// ```
/// use dekseal::{CmkVersion, Engine, MemoryKeyring, api};
///
/// let cmk = CmkVersion::new("0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?, 0, &[7; 32])?;
/// let engine = Engine::new(MemoryKeyring::from_versions([cmk])?);
/// let path = "/v1.0/53d1aefc533f4ce9a59c26b01667cbcf/kms/create-datakey";
/// let body = br#"{"key_id": "0d0466b0-e727-4d9c-b35d-f84bb474a37f", "datakey_length": "512"}"#;
///
/// let response = api::handle(&engine, "POST", path, body);
/// assert_eq!(response.status(), 200);
/// # Ok::<(), dekseal::Error>(())
/// ```
#[cfg(feature = "std")]
#[must_use]
pub fn handle<K: Keyring>(engine: &Engine<K>, method: &str, path: &str, body: &[u8]) -> Response {
    handle_with_rng(engine, method, path, body, &mut getrandom::SysRng)
}

/// [`handle`] with a random generator of the caller's.
#[must_use]
pub fn handle_with_rng<K: Keyring, R: TryCryptoRng + ?Sized>(
    engine: &Engine<K>,
    method: &str,
    path: &str,
    body: &[u8],
    rng: &mut R,
) -> Response {
    match Request::parse(method, path, body) {
        Ok(request) => request.execute_with_rng(engine, rng),
        Err(refusal) => refusal,
    }
}

/// The operations of the API.
///
/// # Examples
///
/// ```
/// use dekseal::api::Operation;
///
/// assert_eq!(Operation::CreateDatakey.as_str(), "create-datakey");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// `create-datakey`: makes a DEK and returns it in plaintext and sealed.
    CreateDatakey,
    /// `create-datakey-without-plaintext`: makes a DEK and returns it sealed.
    CreateDatakeyWithoutPlaintext,
    /// `encrypt-datakey`: seals the caller's DEK.
    EncryptDatakey,
    /// `decrypt-datakey`: opens a sealed DEK.
    DecryptDatakey,
}

impl Operation {
    const ALL: [Self; 4] = [
        Self::CreateDatakey,
        Self::CreateDatakeyWithoutPlaintext,
        Self::EncryptDatakey,
        Self::DecryptDatakey,
    ];

    /// The name of the operation: the last part of the path.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateDatakey => "create-datakey",
            Self::CreateDatakeyWithoutPlaintext => "create-datakey-without-plaintext",
            Self::EncryptDatakey => "encrypt-datakey",
            Self::DecryptDatakey => "decrypt-datakey",
        }
    }

    /// The mandatory fields besides `key_id`.
    fn mandatory(self) -> &'static [&'static str] {
        match self {
            Self::CreateDatakey | Self::CreateDatakeyWithoutPlaintext => &["datakey_length"],
            Self::EncryptDatakey => &["plain_text", "datakey_plain_length"],
            Self::DecryptDatakey => &["cipher_text", "datakey_cipher_length"],
        }
    }
}
