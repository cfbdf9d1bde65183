//! The AWS Encryption SDK with the raw AES keyring, and the suite without a signature from its rows of keys. The Rust
//! SDK has no streams: the request and the response own all of the data.

use std::collections::HashMap;

use aws_smithy_types::Blob;

use crate::{
    esdk_rows::{Esdk, Unsigned},
    payload::{PayloadFacts, PayloadPeer, Truncation},
    peer::{Binding, Pairs, Peer},
};

impl PayloadPeer for Esdk<Unsigned> {
    const FACTS: PayloadFacts = PayloadFacts {
        name: "aws-esdk, without signature, in one call (it has no streams)",
        package: ("aws-esdk", "1."),
        aead: "AES-256-GCM, aws-lc-rs",
        segment: "4 KiB (its default)",
        truncation: Truncation::Detected,
        random_access: "no",
        commitment: "key",
        binding: Binding::Map,
    };
    /// The mark of the last frame, its number, its nonce, its length, the content and the tag.
    const LAST_SEGMENT_LEN: usize = 4 + 4 + 12 + 4 + 4096 + 16;
    type Context = HashMap<String, String>;
    type Sealed<'a> = Blob;
    type Stored = Blob;
    type Opened<'a> = Blob;

    fn context(pairs: Pairs) -> Self::Context {
        <Self as Peer>::context(pairs)
    }

    fn encrypt(&self, context: &Self::Context, plaintext: &[u8], _: &mut Vec<u8>) -> Blob {
        self.seal(context, plaintext)
    }

    fn decrypt(&self, context: &Self::Context, stored: &Blob, _: &mut [u8]) -> Option<Blob> {
        self.open(context, stored)
    }
}
