//! Where the material of a root comes from.

use std::{fs, path::PathBuf};

use zeroize::Zeroizing;

use super::{DEFAULT_KEY_ID, Root};
use crate::failure::Failure;

/// A source of material.
pub(crate) enum Source {
    File(PathBuf),
}

impl Source {
    /// Parses the text of an option. No error repeats it: somebody may have passed the material itself.
    pub(crate) fn parse(option: &str, text: &str) -> Result<Self, Failure> {
        match text.split_once(':') {
            Some(("file", path)) => Ok(Self::File(path.into())),
            _ => Err(Failure::usage(format!(
                "{option} is none of file:PATH, env:NAME, fd:N, command:COMMAND, credential:NAME and pkcs11:URI"
            ))),
        }
    }

    pub(crate) fn read(&self) -> Result<Root, Failure> {
        let Self::File(path) = self;
        let text = fs::read(path).map_err(|error| Failure::of_io(path.display(), &error))?;
        let text = Zeroizing::new(text);
        let material = base16ct::mixed::decode_vec(text.trim_ascii()).map_err(|_| Failure::key("not hex"))?;
        Ok(Root::new(DEFAULT_KEY_ID.parse()?, 0, Zeroizing::new(material)))
    }
}
