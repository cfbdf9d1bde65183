//! AES-256-GCM of one segment, from the crate aes-gcm, or from ring with the feature `ring`. The bytes are the same.
//!
//! Both implementations have the same methods. `None` means that the tag is wrong, or that a length exceeds the limits
//! of AES-256-GCM, which no segment does. The output then contains no plaintext of the segment.

#[cfg(feature = "ring")]
pub(super) use by_ring::SegmentCipher;
#[cfg(not(feature = "ring"))]
pub(super) use rustcrypto::SegmentCipher;

use super::TAG_LEN;

pub(super) const KEY_LEN: usize = 32;
pub(super) const NONCE_LEN: usize = 12;

type Nonce = [u8; NONCE_LEN];
type Tag = [u8; TAG_LEN];

#[cfg(not(feature = "ring"))]
mod rustcrypto {
    use aes_gcm::{AeadInOut, KeyInit, aead::inout::InOutBuf};
    use zeroize::ZeroizeOnDrop;

    use super::{KEY_LEN, Nonce, Tag};
    use crate::cmk::Aes256Gcm;

    pub(in crate::payload) struct SegmentCipher(Aes256Gcm);

    // These functions are never inlined: when they are, the loops of aes-gcm compile to code up to two times slower.
    impl SegmentCipher {
        #[inline]
        pub(in crate::payload) fn new(key: &[u8; KEY_LEN]) -> Self {
            Self(Aes256Gcm::new(key.into()))
        }

        #[inline(never)]
        pub(in crate::payload) fn seal(&self, nonce: &Nonce, plaintext: &[u8], ciphertext: &mut [u8]) -> Option<Tag> {
            let text = InOutBuf::new(plaintext, ciphertext).ok()?;
            let tag = self.0.encrypt_inout_detached(nonce.into(), &[], text).ok()?;
            Some(tag.into())
        }

        #[inline(never)]
        pub(in crate::payload) fn seal_in_place(&self, nonce: &Nonce, text: &mut [u8]) -> Option<Tag> {
            let tag = self.0.encrypt_inout_detached(nonce.into(), &[], text.into()).ok()?;
            Some(tag.into())
        }

        // aes-gcm checks the tag before it decrypts, so a segment that does not open leaves the output unchanged.

        #[inline(never)]
        pub(in crate::payload) fn open(
            &self,
            nonce: &Nonce,
            ciphertext: &[u8],
            tag: &Tag,
            plaintext: &mut [u8],
        ) -> Option<()> {
            let text = InOutBuf::new(ciphertext, plaintext).ok()?;
            self.0.decrypt_inout_detached(nonce.into(), &[], text, tag.into()).ok()
        }

        #[inline(never)]
        pub(in crate::payload) fn open_in_place(&self, nonce: &Nonce, text: &mut [u8], tag: &Tag) -> Option<()> {
            self.0
                .decrypt_inout_detached(nonce.into(), &[], text.into(), tag.into())
                .ok()
        }
    }

    // The only field is wiped on drop.
    impl ZeroizeOnDrop for SegmentCipher {}
}

#[cfg(feature = "ring")]
mod by_ring {
    use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce as Once, UnboundKey};
    use zeroize::Zeroize;

    use super::{KEY_LEN, Nonce, Tag};

    /// ring calls a key less safe if the caller chooses the nonces, as FORMAT.md B2 does. ring works only in place.
    ///
    /// `None` if ring refused the key, which it does for a wrong length only.
    pub(in crate::payload) struct SegmentCipher(Option<LessSafeKey>);

    impl SegmentCipher {
        pub(in crate::payload) fn new(key: &[u8; KEY_LEN]) -> Self {
            Self(UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new))
        }

        pub(in crate::payload) fn seal(&self, nonce: &Nonce, plaintext: &[u8], ciphertext: &mut [u8]) -> Option<Tag> {
            if plaintext.len() != ciphertext.len() {
                return None;
            }
            ciphertext.copy_from_slice(plaintext);
            let tag = self.seal_in_place(nonce, ciphertext);
            if tag.is_none() {
                ciphertext.zeroize();
            }
            tag
        }

        pub(in crate::payload) fn seal_in_place(&self, nonce: &Nonce, text: &mut [u8]) -> Option<Tag> {
            let nonce = Once::assume_unique_for_key(*nonce);
            let key = self.0.as_ref()?;
            let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), text).ok()?;
            tag.as_ref().try_into().ok()
        }

        pub(in crate::payload) fn open(
            &self,
            nonce: &Nonce,
            ciphertext: &[u8],
            tag: &Tag,
            plaintext: &mut [u8],
        ) -> Option<()> {
            if ciphertext.len() != plaintext.len() {
                return None;
            }
            plaintext.copy_from_slice(ciphertext);
            self.open_in_place(nonce, plaintext, tag)
        }

        // ring decrypts while it authenticates. It overwrites a segment that does not open with zeros.
        pub(in crate::payload) fn open_in_place(&self, nonce: &Nonce, text: &mut [u8], tag: &Tag) -> Option<()> {
            let nonce = Once::assume_unique_for_key(*nonce);
            let key = self.0.as_ref()?;
            let opened = key.open_in_place_separate_tag(nonce, Aad::empty(), (*tag).into(), text, 0..);
            opened.map(|_| ()).ok()
        }
    }
}
