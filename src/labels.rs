//! All labels of the key schedules (FORMAT.md A4, B2, C1).

use crate::sha256::HmacKey;

/// HKDF-Extract of CMK material: HMAC under the salt `"dekseal/v2"`. Its states are precomputed, and a test checks
/// them.
pub(crate) static EXTRACT: HmacKey = HmacKey::of_states(
    [
        0x5c74_a3fa,
        0x758f_6380,
        0x8d5b_2d97,
        0x14f1_d9f0,
        0xd5b1_0876,
        0x4873_1a49,
        0x100b_6bc6,
        0xec88_0b1d,
    ],
    [
        0xc3ef_25c7,
        0x416e_cffd,
        0x0ee0_8658,
        0x5d00_01eb,
        0x6db0_e262,
        0xf58e_b36d,
        0xccd3_1928,
        0x0783_5690,
    ],
);
/// Derives `salt_key` from the material.
pub(crate) const SALT_KEY: &[u8; 15] = b"dekseal/v2 salt";
/// Derives `wrap_key` from the material.
pub(crate) const WRAP_KEY: &[u8; 15] = b"dekseal/v2 wrap";
/// Derives the key of one blob from `wrap_key`.
pub(crate) const BLOB_KEY: &[u8; 14] = b"dekseal/v2 key";
/// Derives the MAC key of a keyring file from the `wrap_key` of its root CMK (part C).
#[cfg(feature = "file-keyring")]
pub(crate) const KEYRING_MAC: &[u8; 18] = b"dekseal/v2 keyring";
/// Derives the value that identifies the root of a keyring file from the `wrap_key` of the root CMK (part C).
#[cfg(feature = "file-keyring")]
pub(crate) const KEYRING_CHECK: &[u8; 24] = b"dekseal/v2 keyring check";
/// Derives the MAC key of a snapshot from the `wrap_key` of its root CMK (part D).
#[cfg(feature = "store-keyring")]
pub(crate) const SNAPSHOT_MAC: &[u8; 19] = b"dekseal/v2 snapshot";
/// HKDF-Extract of a DEK: HMAC under the salt `"dekseal/v2 payload"`. Its states are precomputed in the same way.
pub(crate) static PAYLOAD_EXTRACT: HmacKey = HmacKey::of_states(
    [
        0x8196_f574,
        0x5e44_8a95,
        0x9513_d4a7,
        0x32ab_1205,
        0x52aa_d68c,
        0x3e42_dd61,
        0x81b6_eecd,
        0xc7d7_5786,
    ],
    [
        0xda80_c038,
        0xf026_8574,
        0x4e52_5af9,
        0xec28_cedf,
        0xb96c_316f,
        0x0aae_8990,
        0x3248_0589,
        0xd8e6_25c1,
    ],
);
