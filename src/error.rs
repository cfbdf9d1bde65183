//! One opaque error with a kind.

use alloc::boxed::Box;
use core::fmt;
#[cfg(feature = "std")]
use std::path::{Path, PathBuf};

/// The length of a key ID. Errors stand below key IDs, so they keep the bytes of checked ones.
const KEY_ID_LEN: usize = 36;

/// Why an operation failed.
///
/// Decide what to do by [`kind`](Error::kind); the text is for people. Both the text and the accessors name the thing that
/// failed: key ID, key version, path. None of them holds a key, a DEK or a value of an encryption context.
///
/// # Examples
///
/// ```
/// use dekseal::{ErrorKind, KeyId};
///
/// let error = "not a key ID".parse::<KeyId>().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::MalformedKeyId);
/// ```
pub struct Error {
    kind: ErrorKind,
    /// Boxed, so that a `Result` stays small.
    details: Option<Box<Details>>,
}

/// What an error names besides its kind. Nothing here is secret.
#[derive(Default)]
struct Details {
    /// The key that was asked for, or expected. `key_id.rs` gives it out as a `KeyId`.
    key_id: Option<[u8; KEY_ID_LEN]>,
    key_version: Option<u32>,
    newest_key_version: Option<u32>,
    /// The key that stood there instead.
    found_key_id: Option<[u8; KEY_ID_LEN]>,
    found_key_version: Option<u32>,
    #[cfg(feature = "std")]
    path: Option<PathBuf>,
    source: Option<Box<dyn core::error::Error + Send + Sync>>,
}

impl Error {
    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The key version that was asked for or expected, if the error is about one.
    ///
    /// # Examples
    ///
    /// What a keyring of a host's own returns where a version is missing:
    ///
    /// ```
    /// use dekseal::{Error, ErrorKind};
    ///
    /// let error = Error::from(ErrorKind::UnknownKeyVersion).with_key_version(7).with_newest_key_version(5);
    /// assert_eq!((error.key_version(), error.newest_key_version()), (Some(7), Some(5)));
    /// assert_eq!(error.found_key_version(), None);
    /// # #[cfg(feature = "std")]
    /// assert_eq!(error.path(), None);
    /// assert_eq!(error.to_string(), "unknown key version (version 7, newest known version 5)");
    /// ```
    #[must_use]
    pub fn key_version(&self) -> Option<u32> {
        self.details.as_ref()?.key_version
    }

    /// The newest version of that key that the keyring knows, if a version was not found.
    #[must_use]
    pub fn newest_key_version(&self) -> Option<u32> {
        self.details.as_ref()?.newest_key_version
    }

    /// The key version that was found instead of the expected one.
    #[must_use]
    pub fn found_key_version(&self) -> Option<u32> {
        self.details.as_ref()?.found_key_version
    }

    /// The file that could not be used.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.details.as_ref()?.path.as_deref()
    }

    /// A fault of the store behind a keyring, for an implementation of [`Keyring`](crate::Keyring): the kind is
    /// [`ErrorKind::Keyring`], and [`source`](core::error::Error::source) returns `source`.
    ///
    /// # Security
    ///
    /// Logs of errors often include their sources: `source` must not hold key material.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::error::Error as _;
    ///
    /// use dekseal::{Error, ErrorKind};
    ///
    /// let error = Error::keyring("the database did not answer");
    /// assert_eq!(error.kind(), ErrorKind::Keyring);
    /// assert_eq!(error.source().unwrap().to_string(), "the database did not answer");
    /// ```
    #[must_use]
    pub fn keyring(source: impl Into<Box<dyn core::error::Error + Send + Sync>>) -> Self {
        Self::from(ErrorKind::Keyring).with_source(source)
    }

    /// The same error, naming the key version that was asked for.
    #[must_use]
    pub fn with_key_version(mut self, key_version: u32) -> Self {
        self.details().key_version = Some(key_version);
        self
    }

    /// The same error, naming the newest version of the key that the keyring knows.
    #[must_use]
    pub fn with_newest_key_version(mut self, key_version: u32) -> Self {
        self.details().newest_key_version = Some(key_version);
        self
    }

    pub(crate) fn with_key_id_bytes(mut self, key_id: &[u8; KEY_ID_LEN]) -> Self {
        self.details().key_id = Some(*key_id);
        self
    }

    pub(crate) fn with_found_bytes(mut self, key_id: &[u8; KEY_ID_LEN], key_version: Option<u32>) -> Self {
        let details = self.details();
        details.found_key_id = Some(*key_id);
        details.found_key_version = key_version;
        self
    }

    #[cfg(feature = "std")]
    pub(crate) fn with_path(mut self, path: &Path) -> Self {
        self.details().path = Some(path.to_path_buf());
        self
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn core::error::Error + Send + Sync>>) -> Self {
        self.details().source = Some(source.into());
        self
    }

    pub(crate) fn key_id_bytes(&self) -> Option<[u8; KEY_ID_LEN]> {
        self.details.as_ref()?.key_id
    }

    pub(crate) fn found_key_id_bytes(&self) -> Option<[u8; KEY_ID_LEN]> {
        self.details.as_ref()?.found_key_id
    }

    fn details(&mut self) -> &mut Details {
        self.details.get_or_insert_default()
    }

    /// The operating system failed to read or write a file.
    #[cfg(feature = "file-keyring")]
    pub(crate) fn io(source: std::io::Error) -> Self {
        Self::file(FileFault::Io, source)
    }

    /// A fault of a keyring file with the operating system's error as its source.
    #[cfg(feature = "file-keyring")]
    pub(crate) fn file(fault: FileFault, source: std::io::Error) -> Self {
        Self::from(ErrorKind::File(fault)).with_source(source)
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, details: None }
    }
}

/// What a reader or a writer of payloads returns: the kind [`InvalidData`](std::io::ErrorKind::InvalidData) with the
/// [`Error`] inside.
#[cfg(feature = "std")]
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        match &self.details {
            Some(details) => details.fmt(f),
            None => Ok(()),
        }
    }
}

/// ` (key …, version …, newest known version …; found key …, version …): path`
impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // ASCII by construction.
        fn text(key_id: &[u8; KEY_ID_LEN]) -> &str {
            core::str::from_utf8(key_id).unwrap_or("?")
        }
        let numbers = [
            ("version", self.key_version),
            ("newest known version", self.newest_key_version),
        ];
        let found = self.found_key_id.as_ref().map(text);
        let mut before = " (";
        if let Some(key_id) = &self.key_id {
            write!(f, "{before}key {}", text(key_id))?;
            before = ", ";
        }
        for (name, number) in numbers {
            if let Some(number) = number {
                write!(f, "{before}{name} {number}")?;
                before = ", ";
            }
        }
        if let Some(found) = found {
            write!(f, "{before}found key {found}")?;
            before = ", ";
        }
        if let Some(version) = self.found_key_version {
            let found = if found.is_some() { "" } else { "found " };
            write!(f, "{before}{found}version {version}")?;
            before = ", ";
        }
        if before == ", " {
            f.write_str(")")?;
        }
        #[cfg(feature = "std")]
        if let Some(path) = &self.path {
            write!(f, ": {}", path.display())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.details.as_ref().and_then(|details| details.source.as_ref());
        let mut shown = f.debug_struct("Error");
        shown.field("kind", &self.kind).field("text", &format_args!("{self}"));
        if let Some(source) = source {
            shown.field("source", source);
        }
        shown.finish()
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        self.details.as_ref()?.source.as_deref().map(|source| source as _)
    }
}

/// The kinds of [`Error`].
///
/// # Examples
///
/// The crate's documentation says for each what to do.
///
/// ```
/// use dekseal::{BlobRule, ErrorKind, SealedDek};
///
/// match SealedDek::from_bytes(b"something else").map_err(|error| error.kind()) {
///     Ok(sealed) => println!("sealed under {}", sealed.key_id()),
///     Err(ErrorKind::DamagedBlob) => println!("to be restored from a copy"),
///     Err(ErrorKind::NotABlob(BlobRule::Length)) => println!("read from the wrong place"),
///     Err(kind) => println!("refused: {kind}"),
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A key ID breaks FORMAT.md A2, alone or inside a blob.
    MalformedKeyId,
    /// An encryption context breaks FORMAT.md A3.
    Context(ContextRule),
    /// The bytes are not a sealed DEK of FORMAT.md A1.
    NotABlob(BlobRule),
    /// The blob's checksum does not fit: it was damaged after it was made.
    DamagedBlob,
    /// The blob was sealed under another key ID than the caller expects.
    KeyMismatch,
    /// The keyring does not know the key ID.
    UnknownKey,
    /// The keyring knows the key ID, and not that version of it.
    UnknownKeyVersion,
    /// The version is below the lowest one of its key that still opens.
    KeyVersionRetired,
    /// The key is disabled.
    KeyDisabled,
    /// The key is pending deletion.
    KeyPendingDeletion,
    /// The blob does not open: wrong CMK material, wrong encryption context, or a changed blob. Which of them cannot be told.
    /// Or a payload does not: another DEK, or a payload that was changed, cut short or continued.
    AuthenticationFailed,
    /// CMK material is not 32 to 64 bytes long.
    InvalidMaterial,
    /// The keyring holds that version of that key ID already.
    DuplicateKeyVersion,
    /// The keyring holds a key of that ID already, or it is that of its root.
    KeyExists,
    /// The keys are those of another keyring: their material is not sealed under the root of this one.
    ForeignKeys,
    /// The key has had its 2³² versions.
    TooManyVersions,
    /// The lowest version that opens can be raised, up to the current version, and nothing else.
    MinVersion,
    /// Only a disabled key can be enabled (KMS.1201).
    KeyNotDisabled,
    /// Only an enabled key can be disabled (KMS.1301).
    KeyNotEnabled,
    /// Deletion is scheduled for 7 to 1096 days ahead (KMS.1401).
    DeletionDays,
    /// The deletion of the key is scheduled already (KMS.1402).
    DeletionScheduled,
    /// The deletion of the key is not scheduled (KMS.1501).
    DeletionNotScheduled,
    /// The time of the deletion has not come.
    DeletionNotDue,
    /// The random source cannot be used.
    Randomness(RandomnessFault),
    /// The place where CMKs are kept failed; [`source`](core::error::Error::source) says why.
    Keyring,
    /// The file of a [`FileKeyring`](crate::FileKeyring) cannot be used.
    #[cfg(feature = "file-keyring")]
    File(FileFault),
    /// The bytes are not a sealed payload of FORMAT.md B1.
    NotAPayload(PayloadRule),
    /// The payload would need more than 2³² − 1 segments (FORMAT.md B3.4).
    PayloadTooLong,
    /// A buffer has another length than the call documents.
    BufferLength,
    /// The copy of a header that [`Engine::rewrap_file`](crate::Engine::rewrap_file) found beside the file is not of this file.
    #[cfg(feature = "std")]
    ForeignHeaderCopy,
}

/// The rules for an encryption context (FORMAT.md A3).
///
/// # Examples
///
/// ```
/// use dekseal::{ContextRule, EncryptionContext, ErrorKind};
///
/// let error = EncryptionContext::from_pairs([("", "42")]).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Context(ContextRule::EmptyKey));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContextRule {
    /// Keys are not empty.
    EmptyKey,
    /// No key occurs twice.
    DuplicateKey,
    /// All keys and values together have at most 8192 characters.
    TooManyCharacters,
}

/// The rules for the frame of a sealed DEK (FORMAT.md A5, step 1).
///
/// # Examples
///
/// ```
/// use dekseal::{BlobRule, ErrorKind, SealedDek};
///
/// let error = SealedDek::from_bytes(&[1; 188]).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotABlob(BlobRule::Version));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlobRule {
    /// A blob has 188 bytes.
    Length,
    /// The version is 2.
    Version,
    /// The body length is 152.
    BodyLength,
}

/// The rules for the structure of a sealed payload (FORMAT.md B1 and B3).
///
/// # Examples
///
/// ```
/// use dekseal::{ErrorKind, PayloadRule, payload::PayloadHeader};
///
/// let error = PayloadHeader::from_bytes(&[0; PayloadHeader::LEN]).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotAPayload(PayloadRule::Magic));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PayloadRule {
    /// A payload begins with `dekseal`.
    Magic,
    /// The version is 1.
    Version,
    /// The segment length is 65536.
    SegmentLength,
    /// There is a whole header, and what follows it can be cut into segments.
    Length,
}

/// What is wrong with a random source.
///
/// # Examples
///
/// ```
/// # use dekseal::rand_core::{TryCryptoRng, TryRng};
/// use dekseal::{Dek, ErrorKind, RandomnessFault};
///
/// # struct Stuck;
/// # impl TryRng for Stuck {
/// #     type Error = core::convert::Infallible;
/// #     fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
/// #         Ok(7)
/// #     }
/// #     fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
/// #         Ok(7)
/// #     }
/// #     fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
/// #         bytes.fill(7);
/// #         Ok(())
/// #     }
/// # }
/// # impl TryCryptoRng for Stuck {}
/// // A generator that gives 7 and nothing else.
/// let error = Dek::generate_with_rng(&mut Stuck).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Randomness(RandomnessFault::Stuck));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RandomnessFault {
    /// It reported an error.
    Failed,
    /// It repeats itself: the first half of the bytes of a DEK or a payload salt is the second half too.
    Stuck,
}

/// What is wrong with the file of a keyring. In no case but [`NotSynced`](Self::NotSynced) was anything changed.
///
/// # Examples
///
/// ```
/// use dekseal::{CmkVersion, ErrorKind, FileFault, FileKeyring};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("keyring.json");
/// # let root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32]);
/// # let other_root = || CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 1, &[8; 32]);
/// FileKeyring::create(&path, root()?)?;
/// let error = FileKeyring::open(&path, other_root()?).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::File(FileFault::WrongRoot));
/// # Ok::<(), dekseal::Error>(())
/// ```
#[cfg(feature = "file-keyring")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileFault {
    /// The system could not read or write it; [`source`](core::error::Error::source) says why.
    Io,
    /// There is one already.
    Exists,
    /// Another program removed or replaced the keyring file or its lock file during the change. The change was not made and can be
    /// tried again.
    Conflict,
    /// It is larger than 64 MiB, or would be.
    TooLarge,
    /// It ends too early: it was not written to its end.
    Truncated,
    /// It is not the JSON of a keyring.
    NotAKeyring,
    /// It is a keyring in a format of another version.
    UnknownFormat,
    /// It is a keyring of another root CMK.
    WrongRoot,
    /// Its MAC does not fit: it was changed after it was written.
    Changed,
    /// It is not the one that was read before, nor one that followed it.
    RolledBack,
    /// It was changed, and the change is in force; the system could not say whether it would outlive a power failure now.
    NotSynced,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MalformedKeyId => "malformed key ID",
            Self::Context(ContextRule::EmptyKey) => "encryption context: a key is empty",
            Self::Context(ContextRule::DuplicateKey) => "encryption context: a key occurs twice",
            Self::Context(ContextRule::TooManyCharacters) => "encryption context: more than 8192 characters",
            Self::NotABlob(BlobRule::Length) => "not a sealed DEK: the length is not 188 bytes",
            Self::NotABlob(BlobRule::Version) => "not a sealed DEK: the version is not 2",
            Self::NotABlob(BlobRule::BodyLength) => "not a sealed DEK: the body length is not 152",
            Self::DamagedBlob => "damaged sealed DEK: the checksum does not fit",
            Self::KeyMismatch => "sealed under another key than expected",
            Self::UnknownKey => "unknown key",
            Self::UnknownKeyVersion => "unknown key version",
            Self::KeyVersionRetired => "the key version is no longer used to open",
            Self::KeyDisabled => "the key is disabled",
            Self::KeyPendingDeletion => "the key is pending deletion",
            Self::AuthenticationFailed => "authentication failed",
            Self::InvalidMaterial => "CMK material is not 32 to 64 bytes long",
            Self::DuplicateKeyVersion => "the keyring holds this key version already",
            Self::Randomness(RandomnessFault::Failed) => "the random source failed",
            Self::Randomness(RandomnessFault::Stuck) => "the random source is stuck",
            Self::KeyExists => "the keyring holds a key of this ID already",
            Self::ForeignKeys => "the keys are those of another keyring",
            Self::TooManyVersions => "the key has had all its versions",
            Self::MinVersion => "the lowest version that opens can only be raised, up to the current one",
            Self::KeyNotDisabled => "the key is not disabled",
            Self::KeyNotEnabled => "the key is not enabled",
            Self::DeletionDays => "deletion is scheduled for 7 to 1096 days ahead",
            Self::DeletionScheduled => "the deletion of the key is scheduled already",
            Self::DeletionNotScheduled => "the deletion of the key is not scheduled",
            Self::DeletionNotDue => "the time of the deletion has not come",
            Self::Keyring => "the keyring failed",
            #[cfg(feature = "file-keyring")]
            Self::File(fault) => match fault {
                FileFault::Io => "keyring file: it cannot be read or written",
                FileFault::Exists => "keyring file: there is one already",
                FileFault::Conflict => "keyring file: it or its lock file was removed or replaced during the change",
                FileFault::TooLarge => "keyring file: larger than 64 MiB",
                FileFault::Truncated => "keyring file: it ends too early",
                FileFault::NotAKeyring => "keyring file: not the JSON of a keyring",
                FileFault::UnknownFormat => "keyring file: a format of another version",
                FileFault::WrongRoot => "keyring file: of another root CMK",
                FileFault::Changed => "keyring file: changed after it was written",
                FileFault::RolledBack => "keyring file: not one that followed what was read before",
                FileFault::NotSynced => "keyring file: changed, and not yet known to be on disk",
            },
            Self::NotAPayload(PayloadRule::Magic) => "not a sealed payload: it does not begin with \"dekseal\"",
            Self::NotAPayload(PayloadRule::Version) => "not a sealed payload: the version is not 1",
            Self::NotAPayload(PayloadRule::SegmentLength) => "not a sealed payload: the segment length is not 65536",
            Self::NotAPayload(PayloadRule::Length) => "not a sealed payload: no payload has this length",
            Self::PayloadTooLong => "payload too long: more than 4294967295 segments",
            Self::BufferLength => "a buffer has the wrong length",
            #[cfg(feature = "std")]
            Self::ForeignHeaderCopy => "the copy of a header beside the file belongs to another payload",
        })
    }
}
