//! The KMS wire API: JSON text to requests, and responses to JSON text (docs/KMS_API.md).
//!
//! No network. A host passes method, path and body in, and sends the status and the body that come back. `handle` does it
//! all. A host that authorises its callers, as one that serves more than itself must, does it in two steps, so that whoever may not
//! use a key learns nothing about it:
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

/// The longest body that is read, in bytes: 256 KiB.
///
/// Whatever is in it, a request takes no more than 32 times as much memory, besides the body itself.
pub const MAX_BODY: usize = 256 * 1024;

/// Parses a request and executes it.
///
/// The shorthand for a host without callers to tell apart; [`Request::parse`] is for the others.
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

/// `handle` with a caller's random generator.
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
    /// `create-datakey`: makes a DEK, gives it and what was sealed.
    CreateDatakey,
    /// `create-datakey-without-plaintext`: makes a DEK, gives what was sealed.
    CreateDatakeyWithoutPlaintext,
    /// `encrypt-datakey`: seals the caller's DEK.
    EncryptDatakey,
    /// `decrypt-datakey`: opens what was sealed.
    DecryptDatakey,
}

impl Operation {
    const ALL: [Self; 4] = [
        Self::CreateDatakey,
        Self::CreateDatakeyWithoutPlaintext,
        Self::EncryptDatakey,
        Self::DecryptDatakey,
    ];

    /// The last part of the path.
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
