//! Reads secret bytes, and decides whether they are raw or hex.

use std::{
    env,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use zeroize::Zeroizing;

use crate::failure::Failure;

/// The lengths in bytes that a secret may have.
#[derive(Clone, Copy)]
pub(crate) struct Lengths {
    shortest: usize,
    longest: usize,
}

/// The material of a CMK.
pub(crate) const KEY: Lengths = Lengths {
    shortest: 32,
    longest: 64,
};

/// A DEK.
pub(crate) const DEK: Lengths = Lengths {
    shortest: 64,
    longest: 64,
};

/// Every source is shorter than this.
const LONGEST_SOURCE: usize = 4096;

/// Reads a file that only its owner can read.
pub(crate) fn from_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |error: &io::Error| Failure::key(format!("{}: {error}; check the path", path.display()));
    let file = File::open(path).map_err(|error| failed(&error))?;
    // Of the open file, so that it cannot be replaced after the check.
    check_mode(path, &file)?;
    bounded(file).map_err(|error| failed(&error))
}

#[cfg(unix)]
fn check_mode(path: &Path, file: &File) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;

    let metadata = file
        .metadata()
        .map_err(|error| Failure::of_io(path.display(), &error))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        let path = path.display();
        return Err(Failure::key(format!(
            "{path}: other users may read or write this file; run `chmod 600 {path}`, and make a new key if they have \
             read it"
        )));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &File) -> Result<(), Failure> {
    Ok(())
}

pub(crate) fn from_env(name: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    match env::var_os(name) {
        Some(value) => Ok(Zeroizing::new(value.into_encoded_bytes())),
        None => Err(Failure::key(format!(
            "env:{name}: this variable is not set; set it to the key in hex"
        ))),
    }
}

/// Reads an open file descriptor to its end.
pub(crate) fn from_fd(number: u32) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let read = if number == 0 {
        bounded(io::stdin().lock())
    } else {
        File::open(descriptor(number)).and_then(bounded)
    };
    read.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::key(format!(
            "fd:{number}: this file descriptor is not open; open it, as in `{number}<FILE`"
        )),
        _ => Failure::key(format!("fd:{number}: {error}; pass a pipe or a file")),
    })
}

/// The path of a file descriptor of this process.
pub(crate) fn descriptor(number: u32) -> PathBuf {
    format!("/dev/fd/{number}").into()
}

/// Runs a command with the shell, and reads its standard output.
pub(crate) fn from_command(command: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |error: &io::Error| Failure::key(format!("the command: {error}; check that `sh` can run it"));
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let read = child.stdout.take().map_or_else(|| Ok(Zeroizing::default()), bounded);
    let status = child.wait().map_err(|error| failed(&error))?;
    // Before the status: a command whose output is too long is ended by a signal.
    let bytes = read.map_err(|error| Failure::key(format!("the output of the command: {error}")))?;
    if !status.success() {
        return Err(Failure::key(format!(
            "the command failed with {status}; run it by itself to see why"
        )));
    }
    Ok(bytes)
}

/// Reads a credential of systemd.
pub(crate) fn from_credential(name: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if name.contains('/') || name == ".." || name == "." {
        return Err(Failure::usage(format!(
            "credential:{name}: a name of a credential has no slash"
        )));
    }
    let Some(directory) = env::var_os("CREDENTIALS_DIRECTORY") else {
        return Err(Failure::key(format!(
            "credential:{name}: CREDENTIALS_DIRECTORY is not set; name the credential in the unit with LoadCredential= \
             or LoadCredentialEncrypted="
        )));
    };
    // systemd sets the permissions of the directory. Access lists show as rights of the group there.
    let path = Path::new(&directory).join(name);
    let read = File::open(&path).and_then(bounded);
    read.map_err(|error| Failure::key(format!("{}: {error}; check the unit", path.display())))
}

/// Reads to the end, which must come before [`LONGEST_SOURCE`]. The buffer never moves, so no copy is left behind.
fn bounded(mut input: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; LONGEST_SOURCE]);
    let mut filled = 0;
    while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
        match input.read(room) {
            Ok(0) => break,
            Ok(read) => filled = filled.saturating_add(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if filled == LONGEST_SOURCE {
        let message = format!("it is longer than {} bytes", LONGEST_SOURCE.saturating_sub(1));
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Decodes a secret: hex digits with white space around them, or raw bytes.
///
/// Text is never taken as raw bytes, so a password, base64, or hex of the wrong length is not mistaken for a key.
pub(crate) fn decode(
    subject: &str,
    bytes: Zeroizing<Vec<u8>>,
    lengths: Lengths,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let Lengths { shortest, longest } = lengths;
    let wanted = if shortest == longest {
        format!("{longest} bytes, raw or in hex")
    } else {
        format!("{shortest} to {longest} bytes, raw or in hex")
    };
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    if bytes.is_empty() {
        return Err(Failure::key(format!("{subject} is empty; give it {wanted}")));
    }
    let secret = if bytes.iter().all(is_text) {
        base16ct::mixed::decode_vec(bytes.trim_ascii())
            .map(Zeroizing::new)
            .map_err(|_| {
                Failure::key(format!(
                    "{subject} is text, but not hex; give it {wanted}, never a password"
                ))
            })?
    } else {
        bytes
    };
    if !(shortest..=longest).contains(&secret.len()) {
        let found = secret.len();
        return Err(Failure::key(format!(
            "{subject} has {found} bytes of key; give it {wanted}"
        )));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let secret = decode("it", Zeroizing::new(bytes.to_vec()), KEY);
        secret
            .map(|secret| secret.to_vec())
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn hex_of_either_case_and_raw_bytes_are_read() {
        let hex = "aB".repeat(32);
        assert_eq!(decoded(hex.as_bytes()), Ok(vec![0xab; 32]));
        assert_eq!(decoded(format!(" {hex}\r\n").as_bytes()), Ok(vec![0xab; 32]));
        // White space at the ends of raw bytes belongs to them.
        let raw = [b"\n\xff".repeat(16), b" \n".to_vec()].concat();
        assert_eq!(decoded(&raw), Ok(raw));
        assert_eq!(decoded(&[0; 64]), Ok(vec![0; 64]));
    }

    #[test]
    fn a_source_that_is_too_long_is_not_cut() {
        assert_eq!(*bounded(&[1; 4095][..]).unwrap(), [1; 4095]);
        for length in [4096, 4097, 10_000] {
            let error = bounded(&vec![1; length][..]).unwrap_err();
            assert_eq!(error.to_string(), "it is longer than 4095 bytes");
        }
        let failure = from_command("head -c 100000 /dev/zero").unwrap_err();
        assert_eq!(
            failure.to_string(),
            "the output of the command: it is longer than 4095 bytes"
        );
    }

    /// 40 hex digits are 40 bytes of text, and only 20 bytes of key.
    #[test]
    fn text_is_never_a_raw_key() {
        for text in [
            "ab".repeat(20),
            "ab".repeat(65),
            "abc".repeat(21),
            "correct horse battery staple, twice".into(),
        ] {
            assert!(decoded(text.as_bytes()).is_err(), "{text}");
        }
        assert!(decoded("q83v".repeat(11).as_bytes()).unwrap_err().contains("not hex"));
        assert!(decoded(&[0; 31]).unwrap_err().contains("31 bytes"));
        assert!(decoded(&[0; 65]).unwrap_err().contains("65 bytes"));
        assert!(decoded(b"").unwrap_err().contains("empty"));
    }
}
