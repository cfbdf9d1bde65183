//! The KMS client.

use std::{fmt, sync::Arc};

use base64ct::{Base64, Encoding};
use dekseal::{EncryptionContext, Engine, KeyId, Keyring, SealedDek, payload::PayloadHeader};
use parquet_key_management::{
    errors,
    kms::{KmsClient, KmsClientFactory, KmsClientRef, KmsConnectionInfo},
};

use crate::{Error, ErrorKind};

/// The pair of the context that this crate sets.
const PURPOSE: (&str, &str) = ("purpose", "dekseal parquet");

/// The lengths of Parquet keys: AES-128, AES-192 and AES-256.
const KEY_LENGTHS: [usize; 3] = [16, 24, 32];

/// Wraps and unwraps the keys of Parquet files under CMKs.
///
/// This is the KMS of a [`CryptoFactory`](parquet_key_management::crypto_factory::CryptoFactory), and its own client:
/// nothing is connected to. The master key identifiers are key IDs of dekseal.
///
/// Clones share the engine.
///
/// # Examples
///
/// ```
/// # use dekseal::{CmkVersion, Engine, MemoryKeyring};
/// # let key_id: dekseal::KeyId = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(key_id, 0, &[7; 32])?])?);
/// use dekseal_parquet::Kms;
/// use parquet_key_management::crypto_factory::CryptoFactory;
///
/// let kms = Kms::new(engine, [("table", "orders")])?;
/// let factory = CryptoFactory::new(kms);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Kms<K> {
    engine: Arc<Engine<K>>,
    context: EncryptionContext,
}

impl<K> Clone for Kms<K> {
    fn clone(&self) -> Self {
        Self {
            engine: Arc::clone(&self.engine),
            context: self.context.clone(),
        }
    }
}

impl<K> fmt::Debug for Kms<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kms").finish_non_exhaustive()
    }
}

impl<K: Keyring> Kms<K> {
    /// The KMS of the files that `files` names, such as `[("table", "orders")]`.
    ///
    /// The pairs are bound to every key: the keys of these files open with the same pairs only.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Context`] if there is no pair, or if a key is `purpose`; [`ErrorKind::Dekseal`] if the pairs break
    /// another rule of contexts. No others.
    pub fn new<N, V>(engine: impl Into<Arc<Engine<K>>>, files: impl IntoIterator<Item = (N, V)>) -> Result<Self, Error>
    where
        N: AsRef<str>,
        V: AsRef<str>,
    {
        let files: Vec<_> = files.into_iter().collect();
        if files.is_empty() {
            return Err(Error::new(ErrorKind::Context, "no pair says what the files are for"));
        }
        if files.iter().any(|(name, _)| name.as_ref() == PURPOSE.0) {
            return Err(Error::new(ErrorKind::Context, "the key `purpose` is set by this crate"));
        }
        let pairs = files.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
        let context = EncryptionContext::from_pairs(pairs.chain([PURPOSE]));
        Ok(Self {
            engine: engine.into(),
            context: context.map_err(|error| refused("context of Parquet files", error))?,
        })
    }

    /// The engine that this KMS seals and opens with.
    #[must_use]
    pub fn engine(&self) -> &Engine<K> {
        &self.engine
    }

    /// Wraps a Parquet key under the current version of a CMK.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::MasterKeyId`], [`ErrorKind::KeyLength`], and [`ErrorKind::Dekseal`] if the CMK does not seal. No
    /// others.
    pub fn wrap(&self, key: &[u8], master_key_id: &str) -> Result<String, Error> {
        let key_id = parsed(master_key_id)?;
        check_length(key.len())?;
        let payload = self.engine.encrypt(&key_id, &self.context, key);
        let payload = payload.map_err(|error| refused(&format!("wrapping under {key_id}"), error))?;
        Ok(Base64::encode_string(&payload))
    }

    /// Unwraps a Parquet key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::MasterKeyId`], [`ErrorKind::WrappedKey`], [`ErrorKind::KeyLength`], and [`ErrorKind::Dekseal`] if
    /// the CMK does not open it. No others.
    ///
    /// # Security
    ///
    /// The key is returned in memory that nobody wipes, because the libraries above take a plain vector.
    pub fn unwrap(&self, wrapped: &str, master_key_id: &str) -> Result<Vec<u8>, Error> {
        let key_id = parsed(master_key_id)?;
        let payload = decoded(wrapped)?;
        let key = self.engine.decrypt(&key_id, &self.context, &payload);
        let mut key = key.map_err(|error| refused(&format!("unwrapping under {key_id}"), error))?;
        check_length(key.len())?;
        Ok(std::mem::take(&mut *key))
    }

    /// Seals the DEK of a wrapped key under the current version of its CMK. The Parquet key stays as it is.
    ///
    /// # Errors
    ///
    /// Those of [`unwrap`](Self::unwrap). No others.
    pub fn rewrap(&self, wrapped: &str, master_key_id: &str) -> Result<String, Error> {
        let key_id = parsed(master_key_id)?;
        let mut payload = decoded(wrapped)?;
        self.engine
            .rewrap(&key_id, &self.context, &key_id, &mut payload)
            .map_err(|error| refused(&format!("rewrapping under {key_id}"), error))?;
        Ok(Base64::encode_string(&payload))
    }
}

/// The sealed DEK of a wrapped key, which names a CMK and its version. This needs no key.
///
/// # Errors
///
/// [`ErrorKind::WrappedKey`] and [`ErrorKind::Dekseal`]. No others.
///
/// # Examples
///
/// ```
/// # use dekseal::{CmkVersion, Engine, MemoryKeyring};
/// # let id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
/// # let engine = Engine::new(MemoryKeyring::from_versions([CmkVersion::new(id.parse()?, 0, &[7; 32])?])?);
/// # let kms = dekseal_parquet::Kms::new(engine, [("table", "orders")])?;
/// let wrapped = kms.wrap(&[0; 16], id)?;
/// let sealed = dekseal_parquet::sealed_dek(&wrapped)?;
/// assert_eq!((sealed.key_id().as_str(), sealed.key_version()), (id, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn sealed_dek(wrapped: &str) -> Result<SealedDek, Error> {
    let payload = decoded(wrapped)?;
    let header = payload.first_chunk().ok_or_else(not_one)?;
    let header = PayloadHeader::from_bytes(header).map_err(|error| refused("wrapped key", error))?;
    Ok(*header.sealed_dek())
}

/// Master key identifiers are text that people write, so the error repeats it, up to a length.
fn parsed(master_key_id: &str) -> Result<KeyId, Error> {
    master_key_id.parse().map_err(|error: dekseal::Error| {
        let start: String = master_key_id.chars().take(64).collect();
        Error::new(ErrorKind::MasterKeyId, start).with(error)
    })
}

fn check_length(length: usize) -> Result<(), Error> {
    if KEY_LENGTHS.contains(&length) {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::KeyLength, length.to_string()))
    }
}

/// The payload that a wrapped key is base64 of. Its length is that of one of the known keys.
fn decoded(wrapped: &str) -> Result<Vec<u8>, Error> {
    let payload = Base64::decode_vec(wrapped)
        .map_err(|error| Error::new(ErrorKind::WrappedKey, "it is not base64").with(error.to_string()))?;
    let length = dekseal::payload::plaintext_len(payload.len() as u64);
    if KEY_LENGTHS.iter().any(|known| length == Some(*known as u64)) {
        Ok(payload)
    } else {
        Err(not_one())
    }
}

fn not_one() -> Error {
    Error::new(ErrorKind::WrappedKey, "it does not have the length of a wrapped key")
}

fn refused(doing: &str, error: dekseal::Error) -> Error {
    Error::new(ErrorKind::Dekseal(error.kind()), doing).with(error)
}

impl<K: Keyring> KmsClient for Kms<K> {
    fn wrap_key(&self, key_bytes: &[u8], master_key_identifier: &str) -> errors::Result<String> {
        Ok(self.wrap(key_bytes, master_key_identifier)?)
    }

    fn unwrap_key(&self, wrapped_key: &str, master_key_identifier: &str) -> errors::Result<Vec<u8>> {
        Ok(self.unwrap(wrapped_key, master_key_identifier)?)
    }
}

impl<K: Keyring + 'static> KmsClientFactory for Kms<K> {
    /// The instance ID, the URL and the access token of the connection are not used.
    fn create_client(&self, connection: &KmsConnectionInfo) -> errors::Result<KmsClientRef> {
        if !connection.custom_kms_conf().is_empty() {
            return Err(Error::new(ErrorKind::CustomConfiguration, "").into());
        }
        Ok(Arc::new(self.clone()))
    }
}
