//! The test vectors of NIST's CAVP for AES-256-GCM and SHA-256, and those of RFC 4231 for HMAC, with the crate's own
//! types. `scripts/assure cavp` fetches the files, which are too large to keep here, and names their directory.

// The tests say how many vectors there are.
#![expect(clippy::print_stdout)]

extern crate std;

use alloc::{string::String, vec::Vec};
use std::{collections::HashMap, fs, path::PathBuf, println};

use aes_gcm::{AeadInOut, KeyInit};

use crate::{
    cmk::Aes256Gcm,
    sha256::{DIGEST_LEN, sha256, tests::keyed},
};

/// The vectors in a file, each with the values that came last: `Key = 00…` or `[Taglen = 128]`. A vector ends with a
/// line of one of these names, or `FAIL`.
fn vectors(path: &str, ends: &[&str]) -> Option<Vec<HashMap<String, String>>> {
    let Some(directory) = std::env::var_os("DEKSEAL_CAVP") else {
        println!("left out: scripts/assure cavp fetches the vectors and sets DEKSEAL_CAVP");
        return None;
    };
    let path = PathBuf::from(directory).join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut values, mut vectors) = (HashMap::new(), Vec::new());
    for line in text.lines() {
        let line = line.trim_matches(['[', ']', ' ']);
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        let name = name.trim();
        values.insert(name.into(), value.trim().into());
        if name == "FAIL" || ends.contains(&name) {
            vectors.push(values.clone());
            values.remove("FAIL");
        }
    }
    Some(vectors)
}

fn bytes(vector: &HashMap<String, String>, name: &str) -> Vec<u8> {
    hex::decode(&vector[name]).unwrap()
}

#[test]
fn aes_256_gcm() {
    let (mut made, mut opened, mut refused) = (0, 0, 0);
    for (file, last) in [("gcmEncryptExtIV256.rsp", "Tag"), ("gcmDecrypt256.rsp", "PT")] {
        let Some(vectors) = vectors(&["ciphers/AES/GCM/", file].concat(), &[last]) else {
            return;
        };
        for vector in vectors
            .iter()
            .filter(|vector| vector["IVlen"] == "96" && vector["Taglen"] == "128")
        {
            let gcm = Aes256Gcm::new_from_slice(&bytes(vector, "Key")).unwrap();
            let (nonce, tag) = (bytes(vector, "IV"), bytes(vector, "Tag"));
            let (nonce, aad) = (nonce[..].try_into().unwrap(), bytes(vector, "AAD"));
            if last == "Tag" {
                let mut text = bytes(vector, "PT");
                let of_text = gcm.encrypt_inout_detached(nonce, &aad, text.as_mut_slice().into());
                assert_eq!(
                    (text, of_text.unwrap().to_vec()),
                    (bytes(vector, "CT"), tag),
                    "{vector:?}"
                );
                made += 1;
                continue;
            }
            let mut text = bytes(vector, "CT");
            let result =
                gcm.decrypt_inout_detached(nonce, &aad, text.as_mut_slice().into(), tag[..].try_into().unwrap());
            if vector.contains_key("FAIL") {
                assert!(result.is_err(), "{vector:?}");
                refused += 1;
            } else {
                assert!(result.is_ok() && text == bytes(vector, "PT"), "{vector:?}");
                opened += 1;
            }
        }
    }
    println!("AES-256-GCM of CAVP: {made} made, {opened} opened, {refused} refused");
    assert_eq!((made, opened + refused), (375, 375));
    assert!(refused > 100);
}

#[test]
fn sha_256() {
    let mut count = 0;
    for file in ["SHA256ShortMsg.rsp", "SHA256LongMsg.rsp"] {
        let Some(vectors) = vectors(&["hashes/SHA2/", file].concat(), &["MD"]) else {
            return;
        };
        for vector in vectors {
            let length = vector["Len"].parse::<usize>().unwrap() / 8;
            let message = bytes(&vector, "Msg");
            assert_eq!(hex::encode(sha256(&message[..length])), vector["MD"]);
            count += 1;
        }
    }
    // Each result is the hash of 1000 hashes in a chain: of the three that came before, each time.
    let monte_carlo = vectors("hashes/SHA2/SHA256Monte.rsp", &["MD"]).unwrap();
    let mut seed: [u8; DIGEST_LEN] = bytes(&monte_carlo[0], "Seed").try_into().unwrap();
    for vector in &monte_carlo {
        let mut last = [seed; 3];
        for _ in 0..1000 {
            let next = sha256(last.as_flattened());
            last = [last[1], last[2], next];
        }
        seed = last[2];
        assert_eq!(hex::encode(seed), vector["MD"]);
    }
    println!(
        "SHA-256 of CAVP: {count} messages, {} times 1000 in chains",
        monte_carlo.len()
    );
    assert_eq!((count, monte_carlo.len()), (129, 100));
}

#[test]
fn hmac_sha_256() {
    let Some(vectors) = vectors("HMAC/rfc-4231-sha256.txt", &["MD"]) else {
        return;
    };
    for vector in &vectors {
        let (message, mut mac) = (bytes(vector, "Msg"), [0; DIGEST_LEN]);
        keyed(&bytes(vector, "Key")).mac_of(&message, &mut mac);
        assert_eq!(hex::encode(mac), vector["MD"]);
    }
    println!("HMAC-SHA-256 of RFC 4231: {}", vectors.len());
    assert_eq!(vectors.len(), 6);
}
