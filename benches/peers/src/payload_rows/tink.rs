//! Tink's streaming AEAD: a key for each message, derived from the key of the keyset with a random salt. The reader and
//! the writer are boxed, and own their source and target.

use std::{
    cell::RefCell,
    io::{self, Cursor, Write},
    mem,
    rc::Rc,
};

use tink_core::{StreamingAead, keyset};

use crate::{
    payload::{PayloadFacts, PayloadPeer, Truncation, read_pieces, write_pieces},
    peer::{Binding, Map, Pairs, joined, map},
};

pub struct Tink(Box<dyn StreamingAead>);

impl Tink {
    pub fn new() -> Self {
        tink_streaming_aead::init();
        let handle = keyset::Handle::new(&tink_streaming_aead::aes256_gcm_hkdf_1mb_key_template());
        let handle = handle.expect("the template is Tink's own");
        Self(tink_streaming_aead::new(&handle).expect("the keyset is of streaming keys"))
    }
}

/// The room, for a writer that needs to own it.
#[derive(Clone, Default)]
struct Lent(Rc<RefCell<Vec<u8>>>);

impl Write for Lent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PayloadPeer for Tink {
    const FACTS: PayloadFacts = PayloadFacts {
        name: "tink-streaming-aead, AES256_GCM_HKDF_1MB",
        package: ("tink-streaming-aead", "0.3"),
        aead: "AES-256-GCM, RustCrypto",
        segment: "1 MiB",
        truncation: Truncation::Missed("after the first byte of a segment"),
        random_access: "no",
        commitment: "none",
        binding: Binding::Bytes,
    };
    /// A segment with its tag is 1 MiB, and the header is part of the first.
    const LAST_SEGMENT_LEN: usize = 40 + 17 * 16;
    type Context = Map;
    type Sealed<'a> = &'a [u8];
    type Stored = Rc<[u8]>;
    type Opened<'a> = &'a [u8];

    fn context(pairs: Pairs) -> Map {
        map(pairs)
    }

    fn encrypt<'a>(&self, context: &Map, plaintext: &[u8], room: &'a mut Vec<u8>) -> &'a [u8] {
        room.clear();
        let lent = Lent::default();
        lent.0.replace(mem::take(room));
        let mut writer = self
            .0
            .new_encrypting_writer(Box::new(lent.clone()), &joined(context))
            .expect("memory takes what is written");
        write_pieces(&mut *writer, plaintext);
        writer.close().expect("memory takes what is written");
        *room = lent.0.take();
        room
    }

    fn decrypt<'a>(&self, context: &Map, stored: &Rc<[u8]>, room: &'a mut [u8]) -> Option<&'a [u8]> {
        let stored = Box::new(Cursor::new(Rc::clone(stored)));
        let reader = self.0.new_decrypting_reader(stored, &joined(context)).ok()?;
        read_pieces(reader, room).ok()
    }
}
