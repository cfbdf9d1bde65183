use alloc::{collections::BTreeSet, format};
use core::hash::BuildHasher;

use super::{KeyIdHash, PAIRS};
use crate::key_id::KeyId;

fn id(n: u32) -> KeyId {
    format!("{n:08}-e727-4d9c-b35d-000000000000").parse().unwrap()
}

/// Keys that are the same in every run.
const KEYS: [u64; 2 * PAIRS + 1] = [
    0x9e37_79b9_7f4a_7c15,
    0x3c6e_f372_fe94_f82b,
    0xdaa6_6d2c_7ddf_743f,
    0x78dd_e6e5_fd29_f055,
    0x1715_609f_7c74_6c69,
    0xb54c_da58_fbbe_e87f,
    0x5384_5412_7b09_6493,
    0xf1bb_cdcb_fa53_e0a9,
    0x8ff3_4785_799e_5cbd,
    0x2e2a_c13e_f8e8_d8d3,
    0xcc62_3af8_7833_54e7,
];

fn fixed() -> KeyIdHash {
    let (pairs, offset) = KEYS.as_chunks();
    KeyIdHash {
        pairs: pairs.try_into().unwrap(),
        offset: offset[0],
    }
}

/// Computed apart from this crate: `(a[10] + Σ (a[2i] + x[2i + 1]) · (a[2i + 1] + x[2i])) >> 32`, where x are the
/// little-endian words of the ID and a zero, and a are the keys. The hash stands in both halves.
#[test]
fn the_formula_of_the_paper() {
    for (key_id, hash) in [
        ("00000000-e727-4d9c-b35d-000000000000", 0xa8d7_a28d_a8d7_a28d),
        ("00000001-e727-4d9c-b35d-000000000000", 0x1c06_67b5_1c06_67b5),
        ("zyx0w9v8-7654-3210-abcd-efghijklmnop", 0xee37_70a5_ee37_70a5),
    ] {
        let key_id: KeyId = key_id.parse().unwrap();
        assert_eq!(fixed().hash_one(key_id), hash, "{key_id}");
    }
}

/// Each byte of an ID changes its hash, and each map hashes differently.
#[test]
fn every_byte_and_every_key_counts() {
    let hash = KeyIdHash::default();
    let key_id = *b"aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa";
    let mut hashes = BTreeSet::new();
    hashes.insert(hash.hash_one(KeyId::from_checked(key_id)));
    for at in (0..KeyId::LEN).filter(|at| key_id[*at] == b'a') {
        let mut other = key_id;
        other[at] = b'b';
        hashes.insert(hash.hash_one(KeyId::from_checked(other)));
    }
    // 33 hashes of 32 bits: two of them are the same once in eight million runs.
    assert_eq!(hashes.len(), 33);

    let other = KeyIdHash::default();
    assert_ne!(hash.offset, other.offset);
    let keys: BTreeSet<u64> = [&hash, &other]
        .into_iter()
        .flat_map(|hash| hash.pairs)
        .flatten()
        .collect();
    assert_eq!(keys.len(), 20, "two keys are the same");
}

/// IDs that differ in a counter alone spread over a table.
#[test]
fn a_counter_spreads() {
    let hash = fixed();
    let mut buckets = [0_u32; 256];
    for n in 0..16_384 {
        // What a map takes: the low bits for the place, and the highest for its tag.
        let hash = hash.hash_one(id(n));
        buckets[((hash % 16) | (hash >> 60 << 4)) as usize] += 1;
    }
    // 64 on average.
    assert!(buckets.iter().all(|count| (32..128).contains(count)), "{buckets:?}");
}
