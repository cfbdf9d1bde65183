//! Seals DEKs again: under the current version, under another key, or in another context.

use super::{Engine, rewrapped::Rewrapped, sweep::Sweep};
use crate::{blob::SealedDek, context::EncryptionContext, error::Error, key_id::KeyId, keyring::Keyring, trace::Event};

impl<K: Keyring> Engine<K> {
    /// Seals the DEK of `sealed` again, under the current version of its key. The caller does not get the DEK.
    ///
    /// # Errors
    ///
    /// The errors of [`decrypt_dek`](Self::decrypt_dek); no others.
    ///
    /// # Examples
    ///
    /// After a rotation, rewrap every stored blob:
    ///
    /// ```
    /// # use dekseal::{EncryptionContext, Engine, KeyId, Keyring, Rewrapped, SealedDek};
    /// fn renew(engine: &Engine<impl Keyring>, key_id: &KeyId, blob: &mut Vec<u8>) -> Result<(), dekseal::Error> {
    ///     let sealed = SealedDek::from_bytes(blob)?;
    ///     match engine.rewrap_dek(key_id, &EncryptionContext::none(), &sealed)? {
    ///         Rewrapped::Renewed(sealed) => *blob = sealed.as_bytes().to_vec(),
    ///         Rewrapped::AlreadyCurrent(_) => {}
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn rewrap_dek(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
        sealed: &SealedDek,
    ) -> Result<Rewrapped, Error> {
        Event::new("rewrap_dek", Some(key_id), Some(context)).of(|event| {
            event.opens(sealed.key_version());
            event.to(key_id, None);
            let dek = self.open(key_id, context, sealed)?;
            Ok(Rewrapped::of(sealed, self.seal(key_id, context, &dek, event)?))
        })
    }

    /// Rewraps any number of blobs, each with its context, as [`rewrap_dek`](Self::rewrap_dek) does. Returns the
    /// results in order. An error of one blob does not stop the others.
    ///
    /// The iterator takes 64 blobs at a time. For these it asks the keyring once for each run of blobs of the same
    /// version, and once for the current version.
    ///
    /// The errors are those of [`SealedDek::from_bytes`] and of [`decrypt_dek`](Self::decrypt_dek).
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, EncryptionContext, Engine, MemoryKeyring, Rewrapped};
    /// # let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
    /// let context = EncryptionContext::none();
    /// let rows = [vec![1, 2, 3], vec![2; 188]];
    /// let blobs = rows.iter().map(|row| (&context, row));
    /// let failed = engine.rewrap_deks(&key_id, blobs).filter(Result::is_err).count();
    /// assert_eq!(failed, 2);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn rewrap_deks<'a, B: AsRef<[u8]>>(
        &'a self,
        key_id: &'a KeyId,
        blobs: impl IntoIterator<Item = (&'a EncryptionContext, B)> + 'a,
    ) -> impl Iterator<Item = Result<Rewrapped, Error>> + 'a {
        Sweep::new(self, key_id, blobs.into_iter())
    }

    /// Seals the DEK of `sealed` under another key, in another context, or both. The caller does not get the DEK.
    ///
    /// # Errors
    ///
    /// The errors of [`decrypt_dek`](Self::decrypt_dek) for `from`, and the errors of the [`Keyring`] for the key of
    /// `to`; no others.
    ///
    /// # Examples
    ///
    /// To another key and context. The data that was encrypted with the DEK does not change:
    ///
    /// ```
    /// # use dekseal::{CmkVersion, Dek, EncryptionContext, Engine, KeyId, MemoryKeyring};
    /// # let old: KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
    /// # let new: KeyId = "25abe69f-ae10-44cd-bc87-1bda1de3b7d7".parse()?;
    /// # let versions = [CmkVersion::new(old, 0, &[7; 32])?, CmkVersion::new(new, 0, &[8; 32])?];
    /// # let engine = Engine::new(MemoryKeyring::from_versions(versions)?);
    /// # let dek = Dek::from_bytes(&core::array::from_fn(|at| at as u8));
    /// let inbox = EncryptionContext::from_pairs([("folder", "inbox")])?;
    /// let archive = EncryptionContext::from_pairs([("folder", "archive")])?;
    /// # let sealed = engine.encrypt_dek(&old, &inbox, &dek)?;
    /// let moved = engine.rewrap_dek_to((&old, &inbox), &sealed, (&new, &archive))?;
    /// assert_eq!(engine.decrypt_dek(&new, &archive, &moved)?, dek);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn rewrap_dek_to(
        &self,
        from: (&KeyId, &EncryptionContext),
        sealed: &SealedDek,
        to: (&KeyId, &EncryptionContext),
    ) -> Result<SealedDek, Error> {
        Event::new("rewrap_dek_to", Some(from.0), Some(from.1)).of(|event| {
            event.opens(sealed.key_version());
            event.to(to.0, Some(to.1));
            let dek = self.open(from.0, from.1, sealed)?;
            self.seal(to.0, to.1, &dek, event)
        })
    }
}
