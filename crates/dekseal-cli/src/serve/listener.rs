//! The address that the server listens on.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;

use crate::failure::Failure;

/// A Unix socket or a TCP address.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Address {
    /// Parses `unix:PATH` or `IP:PORT`.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let text = text.replacen("localhost:", "127.0.0.1:", 1);
        text.parse().map(Self::Tcp).map_err(|_| {
            Failure::usage(format!(
                "--listen {text}: write unix:PATH, 127.0.0.1:PORT or [::1]:PORT"
            ))
        })
    }

    /// Whether other machines cannot reach it.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(address) => address.ip().is_loopback(),
        }
    }
}

/// A socket that listens.
pub(crate) enum Listener {
    /// The fields are dropped in this order: the path is removed before the socket is closed, so another server never
    /// finds a path that nobody listens on, and never loses one of its own.
    #[cfg(unix)]
    Unix(SocketFile, UnixListener),
    Tcp(TcpListener),
}

/// The path of a socket. It is removed when this is dropped.
pub(crate) struct SocketFile(PathBuf);

impl Listener {
    /// Must be called in a runtime.
    pub(crate) async fn bind(address: &Address) -> Result<Self, Failure> {
        match address {
            Address::Unix(path) => bind_unix(path),
            Address::Tcp(address) => {
                let bound = TcpListener::bind(address).await;
                bound.map(Self::Tcp).map_err(|error| Failure::of_io(address, &error))
            }
        }
    }

    /// The address for people, with the port that the system chose.
    pub(crate) fn name(&self) -> io::Result<String> {
        match self {
            #[cfg(unix)]
            Self::Unix(path, _) => Ok(format!("unix:{}", path.0.display())),
            Self::Tcp(listener) => Ok(listener.local_addr()?.to_string()),
        }
    }
}

#[cfg(unix)]
fn bind_unix(path: &Path) -> Result<Listener, Failure> {
    use std::os::unix::{fs::FileTypeExt, net::UnixStream};

    let failed = |error: io::Error| Failure::of_io(path.display(), &error);
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Failure::usage(format!(
                "{}: exists and is not a socket",
                path.display()
            )));
        }
        // A socket that nobody listens on was left behind by a killed server.
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => {
                return Err(Failure::io(format!(
                    "{}: another server listens on this socket",
                    path.display()
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed)?,
            Err(error) => return Err(failed(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // With the mask the socket has mode 0600 from its first moment on. Nothing else makes files meanwhile.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    rustix::process::umask(mask);
    let listener = bound.map_err(failed)?;
    Ok(Listener::Unix(SocketFile(path.to_owned()), listener))
}

#[cfg(not(unix))]
fn bind_unix(path: &Path) -> Result<Listener, Failure> {
    Err(Failure::usage(format!(
        "{}: this system has no Unix sockets",
        path.display()
    )))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        assert_eq!(Address::parse("unix:a").unwrap(), Address::Unix("a".into()));
        for local in [
            "127.0.0.1:0",
            "127.9.9.9:80",
            "[::1]:80",
            "localhost:80",
            "unix:/run/kms",
        ] {
            assert!(Address::parse(local).unwrap().is_local(), "{local}");
        }
        for remote in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "[::ffff:127.0.0.1]:80"] {
            assert!(!Address::parse(remote).unwrap().is_local(), "{remote}");
        }
        for refused in ["", "unix:", "127.0.0.1", "example.org:80", ":80"] {
            assert!(Address::parse(refused).is_err(), "{refused}");
        }
    }
}
