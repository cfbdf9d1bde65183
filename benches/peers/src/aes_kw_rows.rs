//! AES key wrap (RFC 3394), the standard for wrapping a key and nothing else.

use aes_kw::{KeyInit, KwAes256};

use crate::peer::{Binding, Facts, MASTER_KEY, Pairs, Peer};

pub struct AesKw(KwAes256);

impl AesKw {
    pub fn new() -> Self {
        Self(KwAes256::new(&MASTER_KEY.into()))
    }
}

impl Peer for AesKw {
    const FACTS: Facts = Facts {
        name: "aes-kw",
        package: ("aes-kw", "0.3"),
        randomness: "OS call: key",
        nonce: "none",
        commitment: "none",
        binding: Binding::None,
    };
    type Context = ();
    type Made = ([u8; 64], [u8; 72]);
    type Unwrapped = [u8; 64];

    fn context(_: Pairs) {}

    fn wrap(&self, (): &()) -> Self::Made {
        let mut key = [0; 64];
        getrandom::fill(&mut key).expect("there is randomness");
        let mut wrapped = [0; 72];
        self.0.wrap_key(&key, &mut wrapped).expect("the lengths fit");
        (key, wrapped)
    }

    fn unwrap(&self, (): &(), (_, wrapped): &Self::Made) -> Option<[u8; 64]> {
        let mut key = [0; 64];
        self.0.unwrap_key(wrapped, &mut key).ok()?;
        Some(key)
    }
}
