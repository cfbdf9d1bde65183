"""Envelope encryption with versioned keys and no network.

    >>> import dekseal
    >>> keyring = dekseal.MemoryKeyring()
    >>> key_id = keyring.create_key()
    >>> engine = dekseal.Engine(keyring)
    >>> context = {"tenant": "42", "purpose": "backup"}
    >>> payload = engine.encrypt(key_id, context, b"attack at dawn")
    >>> engine.decrypt(key_id, context, payload)
    b'attack at dawn'

The documentation of the formats, errors and guarantees is that of the Rust crate.
"""

import os as _os

from dekseal import errors
from dekseal._dekseal import VERSION as __version__
from dekseal._dekseal import (
    Batch,
    Dek,
    EncryptionContext,
    FileKeyring,
    KeyInfo,
    Keyring,
    MemoryKeyring,
    PostgresKeyring,
    Root,
    SealedDek,
    SqliteKeyring,
    StoreKeyring,
    VersionInfo,
    generate_key_id,
    inspect_column,
)
from dekseal._dekseal import (
    after_fork_in_child as _after_fork_in_child,
)
from dekseal._dekseal import (
    after_fork_in_parent as _after_fork_in_parent,
)
from dekseal._dekseal import (
    before_fork as _before_fork,
)
from dekseal._files import Engine, PayloadReader, PayloadWriter
from dekseal.errors import *

if hasattr(_os, "register_at_fork"):
    _os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )

__all__ = [
    "AuthenticationFailed",
    "Batch",
    "BufferLength",
    "ContextError",
    "DamagedBlob",
    "Dek",
    "DeletionDays",
    "DeletionNotDue",
    "DeletionNotScheduled",
    "DeletionScheduled",
    "DuplicateKeyVersion",
    "EncryptionContext",
    "Engine",
    "Error",
    "FileError",
    "FileKeyring",
    "ForeignHeaderCopy",
    "ForeignKeys",
    "GracePeriod",
    "ImplausibleTime",
    "InvalidMaterial",
    "KeyDisabled",
    "KeyExists",
    "KeyInfo",
    "KeyMismatch",
    "KeyNotDisabled",
    "KeyNotEnabled",
    "KeyPendingDeletion",
    "KeyVersionDestroyed",
    "KeyVersionRetired",
    "Keyring",
    "KeyringError",
    "KeyringUnavailable",
    "MalformedKeyId",
    "MemoryKeyring",
    "MinVersion",
    "NotABlob",
    "NotAPayload",
    "PayloadReader",
    "PayloadTooLong",
    "PayloadWriter",
    "PostgresKeyring",
    "RandomnessError",
    "RollbackUnresolved",
    "Root",
    "SealedDek",
    "SqliteKeyring",
    "StoreError",
    "StoreKeyring",
    "TooManyVersions",
    "UnknownKey",
    "UnknownKeyVersion",
    "VersionInUse",
    "VersionInfo",
    "__version__",
    "errors",
    "generate_key_id",
    "inspect_column",
]
