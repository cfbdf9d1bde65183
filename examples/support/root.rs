//! Reads the root CMK of a keyring file from a file that holds its material in hex.

use std::{error::Error, fs, path::Path};

use dekseal::CmkVersion;
use zeroize::Zeroizing;

/// The key ID of the root in all examples.
const ROOT_KEY_ID: &str = "00000000-0000-0000-0000-00000000root";

pub(crate) fn root(path: impl AsRef<Path>) -> Result<CmkVersion, Box<dyn Error>> {
    let digits = Zeroizing::new(fs::read_to_string(path).map_err(|error| format!("root key file: {error}"))?);
    let material = hex::decode(digits.trim()).map_err(|_| "root key file: not hex")?;
    Ok(CmkVersion::new(ROOT_KEY_ID.parse()?, 0, &Zeroizing::new(material))?)
}
