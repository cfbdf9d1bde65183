//! Where secret material comes from: the text of `--root`, and of other options that name a secret.

use std::path::PathBuf;

use dekseal::KeyId;
use zeroize::Zeroizing;

use super::{Root, material};
use crate::failure::Failure;

/// The key ID of a root whose source names none.
const DEFAULT_KEY_ID: &str = "00000000-0000-0000-0000-00000000root";

/// A source of a root, and the ID and the version of that root.
pub(crate) struct Source {
    /// The option that named the source, for messages.
    option: String,
    pub(crate) kind: Kind,
    pub(crate) key_id: KeyId,
    pub(crate) key_version: u32,
}

/// A source of secret bytes.
pub(crate) enum Kind {
    File(PathBuf),
    Env(String),
    Fd(u32),
    Command(String),
    Credential(String),
    Pkcs11(String),
}

impl Source {
    /// Parses `KIND:PLACE`, followed by `#version=N`, `#id=KEY_ID` or both. No error repeats the text: somebody may
    /// have passed the material itself.
    pub(crate) fn parse(option: &str, text: &str) -> Result<Self, Failure> {
        let mut key_id: KeyId = DEFAULT_KEY_ID.parse()?;
        let mut key_version = 0;
        let mut place = text;
        if let Some((before, settings)) = text.rsplit_once('#')
            && (settings.starts_with("version=") || settings.starts_with("id="))
        {
            place = before;
            for setting in settings.split(',') {
                match setting.split_once('=') {
                    Some(("version", number)) => {
                        key_version = number.parse().map_err(|_| {
                            Failure::usage(format!("{option}: the version after # is not a number of 32 bits"))
                        })?;
                    }
                    Some(("id", id)) => key_id = id.parse().map_err(|error| Failure::from(error).about(option))?,
                    _ => {
                        return Err(Failure::usage(format!(
                            "{option}: write only version=NUMBER and id=KEY_ID after #"
                        )));
                    }
                }
            }
        }
        Ok(Self {
            option: option.to_owned(),
            kind: Kind::parse(option, place)?,
            key_id,
            key_version,
        })
    }

    pub(crate) fn read(&self) -> Result<Root, Failure> {
        let material = match &self.kind {
            Kind::Pkcs11(uri) => self.token_material(uri),
            kind => kind.material(),
        };
        Ok(Root {
            key_id: self.key_id,
            key_version: self.key_version,
            material: material.map_err(|failure| failure.about(&self.option))?,
        })
    }

    #[cfg(feature = "pkcs11")]
    fn token_material(&self, uri: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
        super::pkcs11::material(uri, &self.key_id, self.key_version)
    }

    #[cfg(not(feature = "pkcs11"))]
    #[expect(clippy::unused_self, reason = "the other variant uses it")]
    fn token_material(&self, _uri: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
        Err(without_pkcs11())
    }

    /// Makes a key in a token.
    #[cfg(feature = "pkcs11")]
    pub(crate) fn generate_in_token(uri: &str) -> Result<(), Failure> {
        super::pkcs11::generate(uri)
    }

    #[cfg(not(feature = "pkcs11"))]
    pub(crate) fn generate_in_token(_uri: &str) -> Result<(), Failure> {
        Err(without_pkcs11())
    }
}

#[cfg(not(feature = "pkcs11"))]
fn without_pkcs11() -> Failure {
    Failure::usage("this dekseal was built without PKCS#11; install it with `cargo install --features pkcs11`")
}

impl Kind {
    /// Parses `KIND:PLACE`. No error repeats the text.
    pub(crate) fn parse(option: &str, text: &str) -> Result<Self, Failure> {
        let unknown = || {
            Failure::usage(format!(
                "{option} is none of file:PATH, env:NAME, fd:N, command:COMMAND, credential:NAME and pkcs11:URI; if it \
                 was the key itself, other users have seen it on the command line, so make a new one"
            ))
        };
        let (kind, place) = text.split_once(':').ok_or_else(unknown)?;
        if place.is_empty() {
            return Err(Failure::usage(format!("{option}: there is nothing after the colon")));
        }
        Ok(match kind {
            "file" => Self::File(place.into()),
            "env" => Self::Env(place.into()),
            "fd" => {
                Self::Fd(place.parse().map_err(|_| {
                    Failure::usage(format!("{option}: fd: wants the number of an open file descriptor"))
                })?)
            }
            "command" => Self::Command(place.into()),
            "credential" => Self::Credential(place.into()),
            "pkcs11" => Self::Pkcs11(text.into()),
            _ => return Err(unknown()),
        })
    }

    /// Reads the material of a key: 32 to 64 bytes, raw or in hex.
    pub(crate) fn material(&self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        self.read(material::KEY)
    }

    /// Reads a secret of a length within `lengths`, raw or in hex.
    pub(crate) fn read(&self, lengths: material::Lengths) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let (subject, bytes) = match self {
            Self::File(path) => (path.display().to_string(), material::from_file(path)?),
            Self::Env(name) => (format!("env:{name}"), material::from_env(name)?),
            Self::Fd(number) => (format!("fd:{number}"), material::from_fd(*number)?),
            Self::Command(command) => ("the command".to_owned(), material::from_command(command)?),
            Self::Credential(name) => (format!("credential:{name}"), material::from_credential(name)?),
            Self::Pkcs11(_) => {
                return Err(Failure::usage(
                    "a PKCS#11 token gives roots only; use another source for this secret",
                ));
            }
        };
        material::decode(&subject, bytes, lengths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_and_the_id_come_after_the_place() {
        let source = |text| Source::parse("--root", text).unwrap();
        let plain = source("file:a#b");
        assert_eq!((plain.key_id.as_str(), plain.key_version), (DEFAULT_KEY_ID, 0));
        assert!(matches!(plain.kind, Kind::File(path) if path.to_str() == Some("a#b")));

        let id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
        let both = source("env:ROOT#version=7,id=0d0466b0-e727-4d9c-b35d-f84bb474a37f");
        assert_eq!((both.key_id.as_str(), both.key_version), (id, 7));
        assert!(matches!(both.kind, Kind::Env(name) if name == "ROOT"));
    }

    #[test]
    fn a_source_that_is_none_is_refused_without_repeating_it() {
        let secret = "11223344556677889900aabbccddeeff11223344556677889900aabbccddeeff";
        for text in [
            secret,
            &format!("hex:{secret}"),
            "file:",
            "fd:x",
            "env:A#version=x",
            "env:A#id=x",
        ] {
            let failure = Source::parse("--root", text).err().unwrap();
            assert!(!failure.to_string().contains("1122"), "{failure}");
        }
    }
}
