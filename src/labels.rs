//! Every label of the key schedules, in one place (FORMAT.md A4, B2, C1).

/// The salt of HKDF-Extract over CMK material.
pub(crate) const EXTRACT: &[u8] = b"dekseal/v2";
/// Material to `salt_key`.
pub(crate) const SALT_KEY: &[u8] = b"dekseal/v2 salt";
/// Material to `wrap_key`.
pub(crate) const WRAP_KEY: &[u8] = b"dekseal/v2 wrap";
/// `wrap_key` to the key of one blob.
pub(crate) const BLOB_KEY: &[u8] = b"dekseal/v2 key";
/// `wrap_key` of a root CMK to the key of a keyring file's MAC (part C).
#[cfg(feature = "file-keyring")]
pub(crate) const KEYRING_MAC: &[u8] = b"dekseal/v2 keyring";
/// `wrap_key` of a root CMK to the value that tells whose a keyring file is (part C).
#[cfg(feature = "file-keyring")]
pub(crate) const KEYRING_CHECK: &[u8] = b"dekseal/v2 keyring check";
/// The salt of HKDF-Extract over a DEK.
pub(crate) const PAYLOAD_EXTRACT: &[u8] = b"dekseal/v2 payload";
