//! The kinds of errors, and their texts.

use core::fmt;

/// The kinds of [`Error`](crate::Error).
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

/// The fault of the store of a [`StoreKeyring`](crate::StoreKeyring), or of a document in it.
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
    /// The store cannot be reached, or cannot serve the call now. Nothing was changed.
    Unavailable,
    /// The store does not allow this: [`source`](core::error::Error::source) says why. Nothing was changed.
    Refused,
    /// The store has not confirmed the document for longer than `max_stale`, so the key may be disabled or retired.
    Stale,
    /// The change was sent, and the store did not say whether it was made. Read the key when the store answers again.
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
    /// The MAC of the document or the snapshot does not match: a program other than this crate changed it.
    Changed,
    /// The document has no key, or more than one.
    KeyCount,
    /// The document belongs to another key.
    OtherKey,
    /// The document is older than one that was seen before, has another history, or is gone.
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
