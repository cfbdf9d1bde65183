//! Where a secret may go: a file that only its owner can read, a pipe, and a terminal if the user says so.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::PathBuf,
};

use zeroize::Zeroizing;

use crate::{failure::Failure, output_file, root::material};

/// The place for a secret: `file:PATH` or `fd:N`.
#[derive(Clone)]
pub(crate) enum Sink {
    File(PathBuf),
    Fd(u32),
}

impl Sink {
    pub(crate) const STDOUT: Self = Self::Fd(1);

    pub(crate) fn parse(option: &str, text: &str) -> Result<Self, Failure> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("fd", number)) if number.parse::<u32>().is_ok_and(|number| number > 0) => {
                Ok(Self::Fd(number.parse().unwrap_or(1)))
            }
            _ => Err(Failure::usage(format!("{option} {text}: write file:PATH or fd:N"))),
        }
    }

    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self, Self::Fd(1))
    }

    /// Refuses a place where others would see the secret. Call this before the secret is made, and before anything is
    /// changed.
    pub(crate) fn check(&self, show_secret: bool) -> Result<(), Failure> {
        match self {
            Self::File(path) if path.symlink_metadata().is_ok() => Err(Failure::io(format!(
                "{}: it exists already; name a new file for the secret",
                path.display()
            ))),
            Self::File(_) => Ok(()),
            Self::Fd(number) => {
                let place = Place::open(*number)?;
                place.check(*number, show_secret)
            }
        }
    }

    /// Writes a secret: raw, or as a line of hex. A terminal gets hex.
    pub(crate) fn write(&self, secret: &[u8], hex: bool) -> Result<(), Failure> {
        match self {
            Self::File(path) => output_file::create(path, false, |file| {
                let written = file.write_all(&encoded(secret, hex));
                written.map_err(|error| Failure::of_io(path.display(), &error))
            }),
            Self::Fd(number) => {
                let mut place = Place::open(*number)?;
                let hex = hex || place.is_terminal();
                let written = place.writer().write_all(&encoded(secret, hex));
                written.map_err(|error| Failure::of_io(format!("fd:{number}"), &error))
            }
        }
    }
}

fn encoded(secret: &[u8], hex: bool) -> Zeroizing<Vec<u8>> {
    if hex {
        let mut line = base16ct::lower::encode_string(secret);
        let mut bytes = Zeroizing::new(Vec::with_capacity(line.len().saturating_add(1)));
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        zeroize::Zeroize::zeroize(&mut line);
        bytes
    } else {
        Zeroizing::new(secret.to_vec())
    }
}

/// An open file descriptor.
enum Place {
    Stdout(io::Stdout),
    Stderr(io::Stderr),
    Other(File),
}

impl Place {
    fn open(number: u32) -> Result<Self, Failure> {
        match number {
            1 => Ok(Self::Stdout(io::stdout())),
            2 => Ok(Self::Stderr(io::stderr())),
            _ => {
                let opened = File::options().append(true).open(material::descriptor(number));
                opened.map(Self::Other).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => Failure::io(format!(
                        "fd:{number}: this file descriptor is not open; open it, as in `{number}>FILE`"
                    )),
                    _ => Failure::io(format!("fd:{number}: {error}; pass a pipe or a file")),
                })
            }
        }
    }

    fn is_terminal(&self) -> bool {
        match self {
            Self::Stdout(stdout) => stdout.is_terminal(),
            Self::Stderr(stderr) => stderr.is_terminal(),
            Self::Other(file) => file.is_terminal(),
        }
    }

    fn check(&self, number: u32, show_secret: bool) -> Result<(), Failure> {
        if self.is_terminal() && !show_secret {
            return Err(Failure::usage(format!(
                "fd:{number} is a terminal; write the secret to a file or a pipe, or pass --show-secret"
            )));
        }
        #[cfg(unix)]
        if self
            .is_shared()
            .map_err(|error| Failure::of_io(format!("fd:{number}"), &error))?
        {
            return Err(Failure::io(format!(
                "fd:{number} is a file that other users may read; run `umask 077` before you make it, or name file:PATH"
            )));
        }
        Ok(())
    }

    /// Whether this is a file that its group or others may read.
    #[cfg(unix)]
    fn is_shared(&self) -> io::Result<bool> {
        use rustix::fs::{FileType, fstat};

        let stat = match self {
            Self::Stdout(stdout) => fstat(stdout),
            Self::Stderr(stderr) => fstat(stderr),
            Self::Other(file) => fstat(file),
        }?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o077 != 0)
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Stdout(stdout) => stdout,
            Self::Stderr(stderr) => stderr,
            Self::Other(file) => file,
        }
    }
}
