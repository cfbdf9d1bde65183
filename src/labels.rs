//! Every label of the key schedules, in one place (FORMAT.md A4, B2, C1).

use crate::sha256::HmacKey;

/// HKDF-Extract over CMK material: HMAC under the salt `"dekseal/v2"`. The states are computed in advance, and a test
/// compares them.
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
/// Material to `salt_key`.
pub(crate) const SALT_KEY: &[u8; 15] = b"dekseal/v2 salt";
/// Material to `wrap_key`.
pub(crate) const WRAP_KEY: &[u8; 15] = b"dekseal/v2 wrap";
/// `wrap_key` to the key of one blob.
pub(crate) const BLOB_KEY: &[u8; 14] = b"dekseal/v2 key";
/// `wrap_key` of a root CMK to the key of a keyring file's MAC (part C).
#[cfg(feature = "file-keyring")]
pub(crate) const KEYRING_MAC: &[u8; 18] = b"dekseal/v2 keyring";
/// `wrap_key` of a root CMK to the value that shows whose a keyring file is (part C).
#[cfg(feature = "file-keyring")]
pub(crate) const KEYRING_CHECK: &[u8; 24] = b"dekseal/v2 keyring check";
/// `wrap_key` of a root CMK to the key of a snapshot's MAC (part D).
#[cfg(feature = "store-keyring")]
pub(crate) const SNAPSHOT_MAC: &[u8; 19] = b"dekseal/v2 snapshot";
/// HKDF-Extract over a DEK: HMAC under the salt `"dekseal/v2 payload"`, likewise.
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
