//! age: a file key for each message, wrapped for an X25519 recipient. It has no context.

use std::iter;

use age::{
    Decryptor, Encryptor,
    x25519::{Identity, Recipient},
};

use crate::{
    payload::{PIECE_LEN, PayloadFacts, PayloadPeer, Truncation, read_pieces, write_pieces},
    peer::{Binding, Pairs},
};

pub struct Age {
    identity: Identity,
    recipient: Recipient,
}

impl Age {
    pub fn new() -> Self {
        let identity = Identity::generate();
        Self {
            recipient: identity.to_public(),
            identity,
        }
    }
}

impl PayloadPeer for Age {
    const FACTS: PayloadFacts = PayloadFacts {
        name: "age, X25519 recipient",
        package: ("age", "0.12"),
        aead: "ChaCha20-Poly1305, RustCrypto",
        segment: "64 KiB",
        truncation: Truncation::Detected,
        random_access: "yes",
        commitment: "key",
        binding: Binding::None,
    };
    const LAST_SEGMENT_LEN: usize = PIECE_LEN + 16;
    type Context = ();
    type Sealed<'a> = &'a [u8];
    type Stored = Vec<u8>;
    type Opened<'a> = &'a [u8];

    fn context(_: Pairs) {}

    fn encrypt<'a>(&self, (): &(), plaintext: &[u8], room: &'a mut Vec<u8>) -> &'a [u8] {
        room.clear();
        let encryptor =
            Encryptor::with_recipients(iter::once(&self.recipient as _)).expect("one recipient suits itself");
        let mut writer = encryptor.wrap_output(&mut *room).expect("memory takes what is written");
        write_pieces(&mut writer, plaintext);
        writer.finish().expect("memory takes what is written");
        room
    }

    fn decrypt<'a>(&self, (): &(), stored: &Vec<u8>, room: &'a mut [u8]) -> Option<&'a [u8]> {
        let decryptor = Decryptor::new_buffered(stored.as_slice()).ok()?;
        let reader = decryptor.decrypt(iter::once(&self.identity as _)).ok()?;
        read_pieces(reader, room).ok()
    }
}
