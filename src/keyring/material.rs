//! The material of one version, sealed under a root CMK (FORMAT.md C2).

use alloc::{string::ToString, vec};

use crate::{
    blob::SealedDek,
    cmk::CmkVersion,
    context::EncryptionContext,
    dek::Dek,
    error::{Error, ErrorKind, FileFault},
    key_id::KeyId,
};

/// Material as a keyring document holds it: padded with zeros to the 64 bytes of a DEK, and sealed in a context that
/// names its version. It is not checked before it is opened.
#[derive(Clone, PartialEq)]
pub(super) struct SealedMaterial {
    pub(super) length: u8,
    pub(super) blob: [u8; SealedDek::LEN],
}

impl SealedMaterial {
    /// Seals the material of one version under `root`.
    pub(super) fn seal(root: &CmkVersion, key_id: &KeyId, key_version: u32, material: &[u8]) -> Result<Self, Error> {
        let mut padded = Dek::zeroed();
        let slot = padded.expose_mut().get_mut(..material.len());
        slot.ok_or(ErrorKind::InvalidMaterial)?.copy_from_slice(material);
        let length = u8::try_from(material.len()).map_err(|_| ErrorKind::InvalidMaterial)?;
        let context = context(key_id, key_version, length)?;
        Ok(Self {
            length,
            blob: *root.seal(&context, &padded).as_bytes(),
        })
    }

    /// Opens the material of one version.
    pub(super) fn open(&self, root: &CmkVersion, key_id: &KeyId, key_version: u32) -> Result<CmkVersion, Error> {
        let changed = || {
            let error = Error::from(ErrorKind::File(FileFault::Changed));
            error.with_key_id(key_id).with_key_version(key_version)
        };
        let mut padded = Dek::zeroed();
        let opened = self.open_padded(root, key_id, key_version, &mut padded);
        opened.map_err(|_| changed())?;
        let (material, tail) = padded
            .expose_secret()
            .split_at_checked(self.length.into())
            .ok_or_else(changed)?;
        // The loop has no branch for each byte.
        if tail.iter().fold(0, |any, byte| any | byte) != 0 {
            return Err(changed());
        }
        CmkVersion::new(*key_id, key_version, material).map_err(|_| changed())
    }

    /// Seals the same material under another root.
    pub(super) fn reseal(&self, from: &CmkVersion, to: &CmkVersion, whose: &CmkVersion) -> Result<Self, Error> {
        let (key_id, key_version) = (whose.key_id(), whose.key_version());
        let mut padded = Dek::zeroed();
        self.open_padded(from, &key_id, key_version, &mut padded)?;
        let context = context(&key_id, key_version, self.length)?;
        Ok(Self {
            length: self.length,
            blob: *to.seal(&context, &padded).as_bytes(),
        })
    }

    /// Opens the material in place: a `Dek` that is returned would leave a copy on the stack.
    fn open_padded(&self, root: &CmkVersion, key_id: &KeyId, key_version: u32, padded: &mut Dek) -> Result<(), Error> {
        let blob = SealedDek::from_bytes(&self.blob)?;
        root.open_into(&context(key_id, key_version, self.length)?, &blob, padded)
    }
}

fn context(key_id: &KeyId, key_version: u32, length: u8) -> Result<EncryptionContext, Error> {
    EncryptionContext::of(vec![
        ("purpose", "dekseal keyring"),
        ("key_id", key_id.as_str()),
        ("key_version", &key_version.to_string()),
        ("material_length", &length.to_string()),
    ])
}
