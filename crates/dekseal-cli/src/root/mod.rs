//! The root of a keyring: its material by source.

mod source;

use std::fmt;

use dekseal::{CmkVersion, KeyId};
use zeroize::Zeroizing;

pub(crate) use self::source::Source;
use crate::failure::Failure;

/// The key ID of a root whose source names none.
pub(crate) const DEFAULT_KEY_ID: &str = "00000000-0000-0000-0000-00000000root";

/// One version of a root. Its material is wiped on drop.
pub(crate) struct Root {
    key_id: KeyId,
    key_version: u32,
    material: Zeroizing<Vec<u8>>,
}

impl Root {
    pub(crate) fn new(key_id: KeyId, key_version: u32, material: Zeroizing<Vec<u8>>) -> Self {
        Self {
            key_id,
            key_version,
            material,
        }
    }

    pub(crate) fn cmk(&self) -> Result<CmkVersion, Failure> {
        CmkVersion::new(self.key_id, self.key_version, &self.material)
            .map_err(|error| Failure::from(error).about("the root"))
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({}, {}, ..)", self.key_id, self.key_version)
    }
}
