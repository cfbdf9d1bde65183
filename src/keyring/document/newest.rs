//! What a fleet's keyring remembers of the versions of a key that it evicted.

use super::{contents::check, lost_version};
use crate::{error::Error, keyring::key::Key, secret::ct_eq};

/// The newest version of a key, with a check of its material: what is remembered of the versions of an evicted key.
#[derive(Clone, Copy)]
pub(in crate::keyring) struct Newest {
    key_version: u32,
    check: [u8; 32],
}

impl Newest {
    pub(in crate::keyring) fn of(key: &Key) -> Self {
        let cmk = &key.current.cmk;
        Self {
            key_version: cmk.key_version(),
            check: check(cmk),
        }
    }

    /// C6, as far as one version shows it.
    pub(in crate::keyring) fn check_successor(&self, next: &Key) -> Result<(), Error> {
        let kept = match next.get(self.key_version) {
            Some(version) => ct_eq(&self.check, &check(&version.cmk)),
            None => self.key_version < next.oldest_version(),
        };
        if kept {
            Ok(())
        } else {
            Err(lost_version(self.key_version, next))
        }
    }
}
