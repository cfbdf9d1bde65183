//! One opaque error with a kind.

use alloc::{boxed::Box, sync::Arc};
use core::fmt;
#[cfg(feature = "std")]
use std::path::{Path, PathBuf};

/// The length of a key ID. This module is below `key_id`, so errors hold the bytes of checked IDs.
const KEY_ID_LEN: usize = 36;

/// Why an operation failed.
///
/// Decide what to do by [`kind`](Error::kind); the text is for people. Both the text and the accessors name the thing
/// that failed: key ID, key version, path. None of them holds a key, a DEK or a value of an encryption context.
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

/// The details that an error holds besides its kind. None of them is secret.
#[derive(Clone, Default)]
struct Details {
    /// The key that was requested or expected. `key_id.rs` returns it as a `KeyId`.
    key_id: Option<[u8; KEY_ID_LEN]>,
    key_version: Option<u32>,
    newest_key_version: Option<u32>,
    /// The key that was found instead.
    found_key_id: Option<[u8; KEY_ID_LEN]>,
    found_key_version: Option<u32>,
    #[cfg(feature = "std")]
    path: Option<PathBuf>,
    may_be_truncated: bool,
    source: Option<Arc<dyn core::error::Error + Send + Sync>>,
}

impl Error {
    /// The kind of the failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The key version that was requested or expected, if the error is about one.
    ///
    /// # Examples
    ///
    /// The error that a host's own keyring returns if a version is missing:
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

    /// The file that the operation failed on.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.details.as_ref()?.path.as_deref()
    }

    /// An error of the store behind an implementation of [`Keyring`](crate::Keyring). Its kind is
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

    /// The same error, naming the key version that was requested.
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

    /// The same error, saying that the payload may be truncated: its end is missing or not authentic.
    pub(crate) fn may_be_truncated(mut self) -> Self {
        self.details().may_be_truncated = true;
        self
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn core::error::Error + Send + Sync>>) -> Self {
        self.details().source = Some(source.into().into());
        self
    }

    /// The same error, for another caller that waited for the same thing.
    #[cfg(feature = "store-keyring")]
    pub(crate) fn duplicate(&self) -> Self {
        Self {
            kind: self.kind,
            details: self.details.clone(),
        }
    }

    /// The same details under another kind.
    #[cfg(feature = "store-keyring")]
    pub(crate) fn with_kind(self, kind: ErrorKind) -> Self {
        Self { kind, ..self }
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

    /// An error of the operating system while a file was read or written.
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

#[cfg(feature = "file-keyring")]
impl From<FileFault> for Error {
    fn from(fault: FileFault) -> Self {
        ErrorKind::File(fault).into()
    }
}

#[cfg(feature = "store-keyring")]
impl From<StoreFault> for Error {
    fn from(fault: StoreFault) -> Self {
        ErrorKind::Store(fault).into()
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, details: None }
    }
}

/// The readers and writers of payloads return errors of the kind [`InvalidData`](std::io::ErrorKind::InvalidData), with
/// the [`Error`] inside.
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
        // A key ID is ASCII by construction.
        fn text(key_id: &[u8; KEY_ID_LEN]) -> &str {
            core::str::from_utf8(key_id).unwrap_or("?")
        }
        let numbers = [
            ("version", self.key_version),
            ("newest known version", self.newest_key_version),
        ];
        let found = self.found_key_id.as_ref().map(text);
        if self.may_be_truncated {
            f.write_str(": the payload was changed, or it is truncated, or its writer never finished it")?;
        }
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
/// `docs/errors.md` in the repository (module `guide::errors`) says what to do about each kind.
///
/// ```
/// use dekseal::{BlobRule, ErrorKind, SealedDek};
///
/// match SealedDek::from_bytes(b"something else").map_err(|error| error.kind()) {
///     Ok(sealed) => println!("sealed under {}", sealed.key_id()),
///     Err(ErrorKind::DamagedBlob) => println!("restore it from a backup"),
///     Err(ErrorKind::NotABlob(BlobRule::Length)) => println!("not a blob: check where it was read from"),
///     Err(kind) => println!("refused: {kind}"),
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A key ID, given alone or inside a blob, breaks the rules of FORMAT.md A2.
    MalformedKeyId,
    /// An encryption context breaks a rule of FORMAT.md A3.
    Context(ContextRule),
    /// The bytes are not a sealed DEK (FORMAT.md A1).
    NotABlob(BlobRule),
    /// The checksum of the blob does not match: the blob was changed at rest or in transit.
    DamagedBlob,
    /// The blob is sealed under another key ID than the caller expects.
    KeyMismatch,
    /// The keyring has no key with this ID.
    UnknownKey,
    /// The keyring has the key, but not this version of it.
    UnknownKeyVersion,
    /// The version is below the minimum version of its key.
    KeyVersionRetired,
    /// The version is older than the current version, and the keyring has no material for it: it was destroyed or never
    /// added.
    KeyVersionDestroyed,
    /// The key is disabled.
    KeyDisabled,
    /// The key is pending deletion.
    KeyPendingDeletion,
    /// A blob does not open, because the CMK material or the encryption context is wrong, or because the blob was
    /// changed. These cases cannot be told apart. Or a payload does not open, because the DEK is wrong, or because the
    /// payload was changed, truncated or extended.
    AuthenticationFailed,
    /// CMK material is not 32 to 64 bytes long.
    InvalidMaterial,
    /// The keyring already holds this version of this key.
    DuplicateKeyVersion,
    /// The keyring already holds a key with this ID, or the ID belongs to its root.
    KeyExists,
    /// The keys belong to another keyring: their material is not sealed under the root of this keyring.
    ForeignKeys,
    /// The key has used all 2³² versions.
    TooManyVersions,
    /// The minimum version cannot be above the current version or a destroyed version.
    MinVersion,
    /// Only versions below the minimum version can be destroyed.
    VersionInUse,
    /// The successor of the version is younger than the grace period, or its age is unknown.
    GracePeriod,
    /// Only a disabled key can be enabled (KMS.1201).
    KeyNotDisabled,
    /// Only an enabled key can be disabled (KMS.1301).
    KeyNotEnabled,
    /// A deletion must be scheduled 7 to 1096 days ahead (KMS.1401).
    DeletionDays,
    /// The deletion of the key is already scheduled (KMS.1402).
    DeletionScheduled,
    /// The key has no scheduled deletion (KMS.1501).
    DeletionNotScheduled,
    /// The deletion of the key is not due yet.
    DeletionNotDue,
    /// The time is before the year 2020 or after 9999: the clock is not set, or the time is not in seconds.
    ImplausibleTime,
    /// The store of the keyring went back to an older state. The keyring still opens DEKs with the versions that it
    /// holds. It refuses to seal and to change keys until the host calls `adopt` or `write_back`.
    RollbackUnresolved,
    /// The random generator cannot be used.
    Randomness(RandomnessFault),
    /// The store behind a keyring failed; [`source`](core::error::Error::source) says why.
    Keyring,
    /// The keyring cannot answer now: its store does not answer in time, the state that it holds is too old, or its
    /// store was rolled back. The same call may succeed later.
    KeyringUnavailable,
    /// The file of a [`FileKeyring`](crate::FileKeyring) cannot be used.
    #[cfg(feature = "file-keyring")]
    File(FileFault),
    /// The store of a fleet's keyring failed, or a document in it was refused.
    #[cfg(feature = "store-keyring")]
    Store(StoreFault),
    /// The bytes are not a sealed payload (FORMAT.md B1).
    NotAPayload(PayloadRule),
    /// The payload would need more than 2³² − 1 segments (FORMAT.md B3.4).
    PayloadTooLong,
    /// A buffer does not have the documented length.
    BufferLength,
    /// The copy of a header that [`Engine::rewrap_file`](crate::Engine::rewrap_file) found beside the file belongs to
    /// another payload.
    #[cfg(feature = "std")]
    ForeignHeaderCopy,
}

/// The rule of FORMAT.md A3 that an encryption context breaks.
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
    /// A key is empty.
    EmptyKey,
    /// A key occurs twice.
    DuplicateKey,
    /// The keys and values have more than 8192 characters in total.
    TooManyCharacters,
}

/// The rule of FORMAT.md A5, step 1, that the bytes of a sealed DEK break.
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
    /// The length is not 188 bytes.
    Length,
    /// The version is not 2.
    Version,
    /// The body length is not 152.
    BodyLength,
    /// The text is not 376 hex digits.
    Hex,
}

/// The rule of FORMAT.md B1 or B3 that the bytes of a payload break.
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
    /// The first bytes are not `dekseal`.
    Magic,
    /// The format version is unknown.
    Version,
    /// The segment length is not 65536.
    SegmentLength,
    /// No payload has this length: it was truncated within its header or within the tag of its last segment.
    Length,
}

/// The fault of a random generator.
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
/// // A generator that returns only the byte 7.
/// let error = Dek::generate_with_rng(&mut Stuck).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Randomness(RandomnessFault::Stuck));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RandomnessFault {
    /// The generator reported an error.
    Failed,
    /// The generator repeats itself: both halves of a DEK or of a payload salt are equal.
    Stuck,
}

/// The fault of a keyring file. Nothing was changed, except with [`NotSynced`](Self::NotSynced).
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
    /// The operating system could not read or write the file; [`source`](core::error::Error::source) says why.
    Io,
    /// The file already exists.
    Exists,
    /// Another program removed or replaced the keyring file or its lock file during the change. The change was not
    /// made; try it again.
    Conflict,
    /// The file is, or would become, larger than 64 MiB.
    TooLarge,
    /// The file ends too early: it was not written completely, or it was truncated.
    Truncated,
    /// The file is not a keyring file.
    NotAKeyring,
    /// The file has an unknown format version.
    UnknownFormat,
    /// The file is sealed under another root CMK.
    WrongRoot,
    /// The MAC does not match: a program other than this crate changed the file.
    Changed,
    /// The file is older than the state read before, or has another history.
    RolledBack,
    /// The file is another keyring under the same root.
    OtherKeyring,
    /// The file was changed and the change is in effect, but it may not survive a power failure.
    NotSynced,
}

/// What is wrong with the store of a [`StoreKeyring`](crate::StoreKeyring), or with a document in it.
///
/// # Examples
///
/// ```
/// use dekseal::{CmkVersion, ErrorKind, Keyring, StoreFault, StoreKeyring, store::{Action, MemoryStore}};
///
/// let store = MemoryStore::new();
/// store.set_script(|_request, _call| Action::Fail); // it is away
/// let root = CmkVersion::new("00000000-0000-0000-0000-00000000root".parse()?, 0, &[7; 32])?;
/// let keyring = StoreKeyring::new(store, root);
///
/// let key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?;
/// let error = keyring.with_current(&key_id, |_cmk| ()).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Store(StoreFault::Unavailable));
/// # Ok::<(), dekseal::Error>(())
/// ```
#[cfg(feature = "store-keyring")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreFault {
    /// The store did not answer before the deadline of the call. Nothing was changed.
    Deadline,
    /// The store cannot be reached, or cannot serve now. Nothing was changed.
    Unavailable,
    /// The store does not do this: [`source`](core::error::Error::source) says why. Nothing was changed.
    Refused,
    /// The store has not confirmed the document for longer than `max_stale`, so the key may be disabled or retired.
    Stale,
    /// The change was sent, and the store did not say whether it was made. Look at the key once the store answers.
    OutcomeUnknown,
    /// Other writers changed the document at each attempt. Nothing was changed.
    Conflict,
    /// The document is not a key document.
    NotADocument,
    /// The document has an unknown format version.
    UnknownFormat,
    /// The document is, or would become, larger than 64 MiB.
    TooLarge,
    /// The document, or the snapshot, is sealed under a root that the keyring does not have.
    WrongRoot,
    /// The MAC of the document, or of the snapshot, does not match: something other than this crate changed it.
    Changed,
    /// The document has no key, or more than one.
    KeyCount,
    /// The document is that of another key.
    OtherKey,
    /// The document is older than one that was seen before, comes from another line of changes, or is gone.
    RolledBack,
    /// The bytes are not a snapshot.
    NotASnapshot,
    /// The settings contradict each other: `max_age` must be shorter than `max_stale`, and the capacity cannot be 0.
    Settings,
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
            Self::NotABlob(BlobRule::Hex) => "not a sealed DEK: the text is not 376 hex digits",
            Self::DamagedBlob => "damaged sealed DEK: the checksum does not match",
            Self::KeyMismatch => "the blob is sealed under another key than expected",
            Self::UnknownKey => "unknown key",
            Self::UnknownKeyVersion => "unknown key version",
            Self::KeyVersionRetired => "the key version is retired",
            Self::KeyDisabled => "the key is disabled",
            Self::KeyPendingDeletion => "the key is pending deletion",
            Self::AuthenticationFailed => "authentication failed",
            Self::InvalidMaterial => "CMK material is not 32 to 64 bytes long",
            Self::DuplicateKeyVersion => "the keyring already holds this key version",
            Self::Randomness(RandomnessFault::Failed) => "the random generator failed",
            Self::Randomness(RandomnessFault::Stuck) => "the random generator repeats itself",
            Self::KeyExists => "the keyring already holds a key with this ID",
            Self::ForeignKeys => "the keys belong to another keyring",
            Self::TooManyVersions => "the key has used all its versions",
            Self::KeyVersionDestroyed => "the key version was destroyed",
            Self::MinVersion => "the minimum version cannot be above the current version or a destroyed version",
            Self::VersionInUse => "only versions below the minimum version can be destroyed",
            Self::GracePeriod => "the successor of the key version is younger than the grace period",
            Self::ImplausibleTime => "the time is not between the years 2020 and 9999",
            Self::RollbackUnresolved => "the keyring was rolled back: call `adopt` or `write_back` first",
            Self::KeyNotDisabled => "the key is not disabled",
            Self::KeyNotEnabled => "the key is not enabled",
            Self::DeletionDays => "a deletion must be scheduled 7 to 1096 days ahead",
            Self::DeletionScheduled => "the deletion of the key is already scheduled",
            Self::DeletionNotScheduled => "the key has no scheduled deletion",
            Self::DeletionNotDue => "the deletion of the key is not due yet",
            Self::Keyring => "the keyring failed",
            Self::KeyringUnavailable => "the keyring cannot answer now",
            #[cfg(feature = "file-keyring")]
            Self::File(fault) => match fault {
                FileFault::Io => "the keyring file cannot be read or written",
                FileFault::Exists => "the keyring file already exists",
                FileFault::Conflict => "the keyring file or its lock file was replaced during the change",
                FileFault::TooLarge => "the keyring file is larger than 64 MiB",
                FileFault::Truncated => "the keyring file is truncated",
                FileFault::NotAKeyring => "the file is not a keyring",
                FileFault::UnknownFormat => "the keyring file has an unknown format version",
                FileFault::WrongRoot => "the keyring file is sealed under another root CMK",
                FileFault::Changed => "the keyring file was tampered with: its MAC does not match",
                FileFault::RolledBack => "the keyring file is older than the state read before, or has another history",
                FileFault::OtherKeyring => "the file is another keyring under the same root",
                FileFault::NotSynced => "the keyring file was changed, but the change may not survive a power failure",
            },
            #[cfg(feature = "store-keyring")]
            Self::Store(fault) => match fault {
                StoreFault::Deadline => "the store did not answer before the deadline",
                StoreFault::Unavailable => "the store is not available",
                StoreFault::Refused => "the store refused the request",
                StoreFault::Stale => "the store has not confirmed the key for too long",
                StoreFault::OutcomeUnknown => "the change may or may not have been made",
                StoreFault::Conflict => "other writers changed the key at each attempt",
                StoreFault::NotADocument => "the store holds something that is not a key document",
                StoreFault::UnknownFormat => "the key document has an unknown format version",
                StoreFault::TooLarge => "the key document is larger than 64 MiB",
                StoreFault::WrongRoot => "the key document or snapshot is sealed under another root CMK",
                StoreFault::Changed => "the key document or snapshot was tampered with: its MAC does not match",
                StoreFault::KeyCount => "the key document does not hold exactly one key",
                StoreFault::OtherKey => "the key document is that of another key",
                StoreFault::RolledBack => "the key document does not follow the one read before",
                StoreFault::NotASnapshot => "not a snapshot of a keyring",
                StoreFault::Settings => "max_age must be shorter than max_stale, and the capacity at least 1",
            },
            Self::NotAPayload(PayloadRule::Magic) => "not a sealed payload: it does not begin with \"dekseal\"",
            Self::NotAPayload(PayloadRule::Version) => "not a sealed payload: the version is not 1",
            Self::NotAPayload(PayloadRule::SegmentLength) => "not a sealed payload: the segment length is not 65536",
            Self::NotAPayload(PayloadRule::Length) => {
                "not a sealed payload: no payload has this length; it may be truncated, or its writer never finished it"
            }
            Self::PayloadTooLong => "payload too long: more than 4294967295 segments",
            Self::BufferLength => "a buffer has the wrong length",
            #[cfg(feature = "std")]
            Self::ForeignHeaderCopy => "the copy of a header beside the file belongs to another payload",
        })
    }
}
