//! Roots: the CMK version that seals the keys of a keyring.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    path::PathBuf,
    sync::Arc,
};

use dekseal::{CmkVersion, KeyId, zeroize::Zeroizing};
use pyo3::{
    exceptions::{PyFileExistsError, PyKeyError, PyPermissionError, PyTypeError, PyValueError},
    prelude::*,
    types::PyBytes,
};

use crate::{buffers::Input, errors::OrRaise, sealed::parse_id};

/// The key ID of a root whose caller names none.
const DEFAULT_KEY_ID: &str = "00000000-0000-0000-0000-00000000root";

/// Longer files are not material.
const MAX_FILE: u64 = 4096;

/// The material of a root, which opens the keyring again after a fork.
pub(crate) struct Material {
    key_id: KeyId,
    key_version: u32,
    bytes: Zeroizing<Vec<u8>>,
}

impl Material {
    pub(crate) fn cmk(&self) -> Result<CmkVersion, dekseal::Error> {
        CmkVersion::new(self.key_id, self.key_version, &self.bytes)
    }
}

/// The root of a keyring: 32 to 64 secret random bytes, under which the keyring seals its keys.
///
/// Whoever has the root has all keys. Keep it apart from the keyring, and keep a copy: without it the keyring is lost.
#[pyclass(module = "dekseal", name = "Root", frozen, weakref)]
pub(crate) struct PyRoot(pub(crate) Arc<Material>);

impl PyRoot {
    fn of(key_id: &str, key_version: u32, bytes: Zeroizing<Vec<u8>>) -> PyResult<Self> {
        let key_id = parse_id(key_id)?;
        let material = Material {
            key_id,
            key_version,
            bytes,
        };
        // Checks the length.
        material.cmk().or_raise()?;
        Ok(Self(Arc::new(material)))
    }
}

#[pymethods]
impl PyRoot {
    /// A root whose material the caller has. The caller's bytes are not wiped.
    #[staticmethod]
    #[pyo3(signature = (material, *, key_id = DEFAULT_KEY_ID, key_version = 0))]
    fn from_bytes(material: &Bound<'_, PyAny>, key_id: &str, key_version: u32) -> PyResult<Self> {
        let material = Zeroizing::new(Input::of(material, "material")?.to_vec());
        Self::of(key_id, key_version, material)
    }

    /// A root in a file: 32 to 64 bytes, or 64 to 128 hex digits. A file that others can read is refused.
    #[staticmethod]
    #[pyo3(signature = (path, *, key_id = DEFAULT_KEY_ID, key_version = 0))]
    fn from_file(path: PathBuf, key_id: &str, key_version: u32) -> PyResult<Self> {
        let file = fs::File::open(&path)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            let mode = file.metadata()?.mode();
            if mode & 0o077 != 0 {
                return Err(PyPermissionError::new_err(format!(
                    "others can read the root, mode {:o}: run chmod 600 {}",
                    mode & 0o7777,
                    path.display()
                )));
            }
        }
        // The capacity is that of the longest file, so the vector never moves and leaves no copy.
        let mut content = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize));
        file.take(MAX_FILE).read_to_end(&mut content)?;
        let material = decoded(&content).unwrap_or(content);
        Self::of(key_id, key_version, material)
    }

    /// A root in an environment variable, as 64 to 128 hex digits. The variable stays set.
    #[staticmethod]
    #[pyo3(signature = (name, *, key_id = DEFAULT_KEY_ID, key_version = 0))]
    fn from_env(name: &str, key_id: &str, key_version: u32) -> PyResult<Self> {
        let text = env::var_os(name)
            .ok_or_else(|| PyKeyError::new_err(format!("the environment variable {name} is not set")))?;
        let text = Zeroizing::new(text.into_encoded_bytes());
        let material = decoded(&text).ok_or_else(|| {
            PyValueError::new_err(format!("the environment variable {name} is not 64 to 128 hex digits"))
        })?;
        Self::of(key_id, key_version, material)
    }

    /// A root that a device or a service computes: `hmac_sha512(message)` returns the HMAC-SHA-512 of a message under a
    /// key that never leaves the device. It is called once.
    #[staticmethod]
    #[pyo3(signature = (hmac_sha512, *, key_id = DEFAULT_KEY_ID, key_version = 0))]
    fn from_hmac(hmac_sha512: &Bound<'_, PyAny>, key_id: &str, key_version: u32) -> PyResult<Self> {
        let id: KeyId = parse_id(key_id)?;
        // FLEET.md D7: "dekseal/v2 root" ‖ key_id[36] ‖ u32be(key_version)
        let mut message = b"dekseal/v2 root".to_vec();
        message.extend_from_slice(id.as_bytes());
        message.extend_from_slice(&key_version.to_be_bytes());
        let answer = hmac_sha512.call1((PyBytes::new(hmac_sha512.py(), &message),))?;
        let answer = Zeroizing::new(Input::of(&answer, "the result of hmac_sha512")?.to_vec());
        if answer.len() != 64 {
            return Err(PyValueError::new_err(format!(
                "hmac_sha512 returned {} bytes, and HMAC-SHA-512 has 64",
                answer.len()
            )));
        }
        Self::of(key_id, key_version, answer)
    }

    /// Makes 64 random bytes and writes them to a new file that only the owner can read, as hex digits.
    #[staticmethod]
    #[pyo3(signature = (path, *, key_id = DEFAULT_KEY_ID, key_version = 0))]
    fn create_file(path: PathBuf, key_id: &str, key_version: u32) -> PyResult<Self> {
        let dek = &dekseal::Dek::generate();
        let secret = match dek {
            Ok(dek) => Zeroizing::new(dek.expose_secret().to_vec()),
            Err(error) => return Err(crate::errors::exception(error)),
        };
        let root = Self::of(key_id, key_version, secret)?;
        let mut text = Zeroizing::new(base16ct::lower::encode_string(&root.0.bytes));
        text.push('\n');
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                PyFileExistsError::new_err(format!("the file exists already: {}", path.display()))
            }
            _ => error.into(),
        })?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(root)
    }

    #[getter]
    fn key_id(&self) -> String {
        self.0.key_id.to_string()
    }

    #[getter]
    fn key_version(&self) -> u32 {
        self.0.key_version
    }

    fn __repr__(&self) -> String {
        format!(
            "Root(key_id='{}', key_version={}, ..)",
            self.0.key_id, self.0.key_version
        )
    }

    fn __reduce_ex__(&self, _protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(PyTypeError::new_err("a root cannot be pickled or copied"))
    }
}

/// The bytes of 64 to 128 hex digits with white space around them.
fn decoded(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let digits = text.trim_ascii();
    if !(64..=128).contains(&digits.len()) {
        return None;
    }
    base16ct::mixed::decode_vec(digits).ok().map(Zeroizing::new)
}
