//! Seals the DEK of a payload again, under another CMK or another version.

use super::{PayloadHeader, keys::Prk};
use crate::{
    context::EncryptionContext,
    engine::Engine,
    error::{Error, ErrorKind, PayloadRule},
    key_id::KeyId,
    keyring::Keyring,
    trace::Event,
};

impl<K: Keyring> Engine<K> {
    /// Seals the DEK of a payload under the current version of `new_key_id`, in the same context. Returns the header
    /// that replaces `header`. The segments do not change.
    ///
    /// `key_id` is the key that the caller expects the payload to be sealed under. To move payloads to the current
    /// version after a rotation, pass the same key as `new_key_id`. Sealing is deterministic: if the payload is already
    /// under the current version, the header stays the same.
    ///
    /// # Errors
    ///
    /// The errors of [`decrypt_dek`](Self::decrypt_dek) with `key_id`; the errors of [`encrypt_dek`](Self::encrypt_dek)
    /// with `new_key_id`; [`ErrorKind::AuthenticationFailed`] if the commitment in the header does not belong to the
    /// DEK. No others.
    ///
    /// # Security
    ///
    /// The DEK stays the same. An attacker who once had it can still read the payload, and so can an attacker with the
    /// old CMK and a copy of the old header.
    ///
    /// # Examples
    ///
    #[cfg_attr(feature = "std", doc = "```")]
    #[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// # let payload = engine.encrypt(&key_id, &context, b"attack at dawn")?;
    /// use dekseal::payload::PayloadHeader;
    ///
    /// engine.keyring().update(|keys| keys.rotate(&key_id))?;
    /// let header = PayloadHeader::from_bytes(payload.first_chunk().unwrap())?;
    /// let header = engine.rewrap_header(&key_id, &context, &key_id, &header)?;
    /// assert_eq!(header.sealed_dek().key_version(), 1);
    ///
    /// // In an object store only the header must be written again.
    /// let payload = [&header.to_bytes()[..], &payload[PayloadHeader::LEN..]].concat();
    /// assert_eq!(*engine.decrypt(&key_id, &context, &payload)?, b"attack at dawn");
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn rewrap_header(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        new_key_id: &KeyId,
        header: &PayloadHeader,
    ) -> Result<PayloadHeader, Error> {
        Event::new("rewrap_header", Some(key_id), Some(context))
            .of(|event| self.rewrapped(key_id, context, new_key_id, header, event))
    }

    /// [`rewrap_header`](Self::rewrap_header) as a step of an operation that emits its own event.
    fn rewrapped<'a>(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        new_key_id: &'a KeyId,
        header: &PayloadHeader,
        event: &mut Event<'a>,
    ) -> Result<PayloadHeader, Error> {
        event.opens(header.sealed_dek().key_version());
        event.to(new_key_id, None);
        let dek = self.open(key_id, context, header.sealed_dek())?;
        // Refuses a sealed DEK that is not the payload's own: the segments would not open with it.
        Prk::extract(&dek).check_header(header)?;
        let sealed = self.seal(new_key_id, context, &dek, event)?;
        Ok(header.rewrapped(sealed))
    }

    /// [`rewrap_header`](Self::rewrap_header) for a payload in memory. Reads and changes only the header.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotAPayload`] if the header is incomplete; the errors of [`PayloadHeader::from_bytes`]; those of
    /// [`rewrap_header`](Self::rewrap_header). No others. After an error the payload is unchanged.
    ///
    /// # Examples
    ///
    #[cfg_attr(feature = "std", doc = "```")]
    #[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let key_id: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// # let context = EncryptionContext::none();
    /// let mut payload = engine.encrypt(&key_id, &context, b"attack at dawn")?;
    /// engine.keyring().update(|keys| keys.rotate(&key_id))?;
    ///
    /// engine.rewrap(&key_id, &context, &key_id, &mut payload)?;
    /// assert_eq!(*engine.decrypt(&key_id, &context, &payload)?, b"attack at dawn");
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn rewrap(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        new_key_id: &KeyId,
        payload: &mut [u8],
    ) -> Result<(), Error> {
        Event::new("rewrap", Some(key_id), Some(context)).of(|event| {
            let header = payload.first_chunk_mut();
            let header = header.ok_or(ErrorKind::NotAPayload(PayloadRule::Length))?;
            let parsed = PayloadHeader::from_bytes(header)?;
            let rewrapped = self.rewrapped(key_id, context, new_key_id, &parsed, event)?;
            *header = rewrapped.to_bytes();
            Ok(())
        })
    }
}
