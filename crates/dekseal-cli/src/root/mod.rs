//! The root of a keyring: its material by source.

pub(crate) mod material;
#[cfg(feature = "pkcs11")]
mod pkcs11;
mod source;

use std::fmt;

use dekseal::{CmkVersion, KeyId};
use zeroize::Zeroizing;

pub(crate) use self::source::{Kind, Source};
use crate::failure::{Exit, Failure};

/// One version of a root. Its material is wiped on drop.
pub(crate) struct Root {
    key_id: KeyId,
    key_version: u32,
    material: Zeroizing<Vec<u8>>,
}

impl Root {
    pub(crate) fn cmk(&self) -> Result<CmkVersion, Failure> {
        let cmk = CmkVersion::new(self.key_id, self.key_version, &self.material);
        cmk.map_err(|error| Failure::new(Exit::Key, format!("the root: {error}")))
    }
}

/// The name of the root.
impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "root {} version {}", self.key_id, self.key_version)
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({}, {}, ..)", self.key_id, self.key_version)
    }
}
