//! dekseal as streams, and in one call.

use dekseal::{
    EncryptionContext,
    payload::{PayloadHeader, SEALED_SEGMENT_LEN, encrypted_len},
    zeroize::Zeroizing,
};

use crate::{
    dekseal_rows::{Service, context},
    payload::{PLAINTEXT_LEN, PayloadFacts, PayloadPeer, Truncation, read_pieces, write_pieces},
    peer::{Binding, Bytes, Pairs},
};

/// A name that says which feature the library was built with, for the two runs.
macro_rules! name {
    ($rest:literal) => {
        if cfg!(feature = "dekseal-ring") {
            concat!("dekseal, feature ring", $rest)
        } else {
            concat!("dekseal", $rest)
        }
    };
}

const FACTS: PayloadFacts = PayloadFacts {
    name: name!(""),
    package: ("dekseal", "0."),
    aead: if cfg!(feature = "dekseal-ring") {
        "AES-256-GCM, ring"
    } else {
        "AES-256-GCM, RustCrypto"
    },
    segment: "64 KiB",
    truncation: Truncation::Detected,
    random_access: "yes",
    commitment: "key and context",
    binding: Binding::Map,
};

impl Bytes for Zeroizing<Vec<u8>> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

pub struct Stream(Service);

impl Stream {
    pub fn new() -> Self {
        Self(Service::new())
    }
}

impl PayloadPeer for Stream {
    const FACTS: PayloadFacts = FACTS;
    const LAST_SEGMENT_LEN: usize = SEALED_SEGMENT_LEN;
    type Context = EncryptionContext;
    type Sealed<'a> = &'a [u8];
    type Stored = Vec<u8>;
    type Opened<'a> = &'a [u8];

    fn context(pairs: Pairs) -> EncryptionContext {
        context(pairs)
    }

    fn encrypt<'a>(&self, context: &EncryptionContext, plaintext: &[u8], room: &'a mut Vec<u8>) -> &'a [u8] {
        room.clear();
        let Service { engine, key_id } = &self.0;
        let writer = engine.encrypt_writer(key_id, context, &mut *room);
        let mut writer = writer.expect("the key is in the keyring");
        write_pieces(&mut writer, plaintext);
        writer.finish().expect("memory takes what is written");
        room
    }

    fn decrypt<'a>(&self, context: &EncryptionContext, stored: &Vec<u8>, room: &'a mut [u8]) -> Option<&'a [u8]> {
        let Service { engine, key_id } = &self.0;
        let reader = engine.decrypt_reader(key_id, context, stored.as_slice()).ok()?;
        read_pieces(reader, room).ok()
    }
}

/// In one call, into memory that the call allocates. The decrypted data is wiped when it is dropped.
pub struct Whole(Service);

impl Whole {
    pub fn new() -> Self {
        Self(Service::new())
    }
}

impl PayloadPeer for Whole {
    const FACTS: PayloadFacts = PayloadFacts {
        name: name!(", in one call"),
        ..FACTS
    };
    const LAST_SEGMENT_LEN: usize = SEALED_SEGMENT_LEN;
    type Context = EncryptionContext;
    type Sealed<'a> = Vec<u8>;
    type Stored = Vec<u8>;
    type Opened<'a> = Zeroizing<Vec<u8>>;

    fn context(pairs: Pairs) -> EncryptionContext {
        context(pairs)
    }

    fn encrypt(&self, context: &EncryptionContext, plaintext: &[u8], _: &mut Vec<u8>) -> Vec<u8> {
        let Service { engine, key_id } = &self.0;
        let sealed = engine.encrypt(key_id, context, plaintext);
        sealed.expect("the key is in the keyring")
    }

    fn decrypt(&self, context: &EncryptionContext, stored: &Vec<u8>, _: &mut [u8]) -> Option<Zeroizing<Vec<u8>>> {
        let Service { engine, key_id } = &self.0;
        engine.decrypt(key_id, context, stored).ok()
    }
}

/// [`Whole`], into a buffer of the caller.
pub struct IntoBuffer(Service);

impl IntoBuffer {
    pub fn new() -> Self {
        Self(Service::new())
    }
}

impl PayloadPeer for IntoBuffer {
    const FACTS: PayloadFacts = PayloadFacts {
        name: name!(", in one call into a buffer"),
        ..FACTS
    };
    const LAST_SEGMENT_LEN: usize = SEALED_SEGMENT_LEN;
    type Context = EncryptionContext;
    type Sealed<'a> = &'a [u8];
    type Stored = Vec<u8>;
    type Opened<'a> = &'a [u8];

    fn context(pairs: Pairs) -> EncryptionContext {
        context(pairs)
    }

    fn encrypt<'a>(&self, context: &EncryptionContext, plaintext: &[u8], room: &'a mut Vec<u8>) -> &'a [u8] {
        let Service { engine, key_id } = &self.0;
        let len = encrypted_len(PLAINTEXT_LEN as u64).expect("the data is not too long");
        room.resize(len as usize, 0);
        let payload_cipher = engine.create_payload_cipher(key_id, context);
        let sealed = payload_cipher.and_then(|cipher| cipher.encrypt_into(plaintext, room));
        sealed.expect("the key is in the keyring");
        room
    }

    fn decrypt<'a>(&self, context: &EncryptionContext, stored: &Vec<u8>, room: &'a mut [u8]) -> Option<&'a [u8]> {
        let Service { engine, key_id } = &self.0;
        let plaintext = &mut room[..PLAINTEXT_LEN];
        let header = PayloadHeader::from_bytes(stored.first_chunk()?).ok()?;
        let payload_cipher = engine.open_payload_cipher(key_id, context, header.sealed_dek()).ok()?;
        payload_cipher.decrypt_into(stored, plaintext).ok()?;
        Some(plaintext)
    }
}
