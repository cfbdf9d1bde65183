"""The exceptions of dekseal: one class for each kind of error, under the base class `Error`.

`docs/errors.md` in the repository says what each kind means and what to do about it. Exceptions can be pickled, so they
cross the processes of `multiprocessing`.
"""

from __future__ import annotations

from typing import Any


class Error(Exception):
    """The base class of all exceptions of dekseal.

    Decide by the class or by `kind`. The text is for people. Neither the text nor an attribute contains key material, a
    DEK, plaintext or a value of an encryption context.
    """

    #: The name of the kind, as in Rust's `ErrorKind`.
    kind: str
    #: The broken rule or the fault, if the kind has several: for example `"WrongRoot"`.
    fault: str | None
    #: The key that was requested or expected.
    key_id: str | None
    #: The version that was requested or expected.
    key_version: int | None
    #: The newest version that the keyring knows, if a version was not found.
    newest_key_version: int | None
    #: The key that was found instead.
    found_key_id: str | None
    #: The version that was found instead.
    found_key_version: int | None
    #: The file that the operation failed on.
    path: str | None

    def __init__(
        self,
        message: str,
        *,
        kind: str | None = None,
        fault: str | None = None,
        key_id: str | None = None,
        key_version: int | None = None,
        newest_key_version: int | None = None,
        found_key_id: str | None = None,
        found_key_version: int | None = None,
        path: str | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind or _RUST_NAMES.get(type(self).__name__, type(self).__name__)
        self.fault = fault
        self.key_id = key_id
        self.key_version = key_version
        self.newest_key_version = newest_key_version
        self.found_key_id = found_key_id
        self.found_key_version = found_key_version
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (type(self), str(self), dict(self.__dict__)))


def _restore(kind: type[Error], message: str, attributes: dict[str, Any]) -> Error:
    error = kind(message)
    error.__dict__.update(attributes)
    return error


class MalformedKeyId(Error):
    """A key ID breaks the rules."""


class ContextError(Error):
    """An encryption context breaks a rule, which `fault` names."""


class NotABlob(Error):
    """The bytes are not a sealed DEK. `fault` names the broken rule."""


class DamagedBlob(Error):
    """The checksum of the blob does not match."""


class KeyMismatch(Error):
    """The blob is sealed under another key ID than the caller expects."""


class UnknownKey(Error):
    """The keyring has no key with this ID."""


class UnknownKeyVersion(Error):
    """The keyring has the key, but not this version of it."""


class KeyVersionRetired(Error):
    """The version is below the minimum version of its key."""


class KeyVersionDestroyed(Error):
    """The material of the version was destroyed or never added."""


class KeyDisabled(Error):
    """The key is disabled."""


class KeyPendingDeletion(Error):
    """The key is pending deletion."""


class AuthenticationFailed(Error):
    """The material or the context is wrong, or the blob or payload was changed. These cases cannot be told apart."""


class InvalidMaterial(Error):
    """CMK material is not 32 to 64 bytes long."""


class DuplicateKeyVersion(Error):
    """The keyring already holds this version of this key."""


class KeyExists(Error):
    """The keyring already holds a key with this ID, or the ID belongs to its root."""


class ForeignKeys(Error):
    """The keys belong to another keyring."""


class TooManyVersions(Error):
    """The key has used all its versions."""


class MinVersion(Error):
    """The minimum version cannot be set to this value."""


class VersionInUse(Error):
    """Only versions below the minimum version can be destroyed."""


class GracePeriod(Error):
    """The successor of the version is younger than the grace period."""


class KeyNotDisabled(Error):
    """Only a disabled key can be enabled."""


class KeyNotEnabled(Error):
    """Only an enabled key can be disabled."""


class DeletionDays(Error):
    """A deletion must be scheduled 7 to 1096 days ahead."""


class DeletionScheduled(Error):
    """The deletion of the key is already scheduled."""


class DeletionNotScheduled(Error):
    """The key has no scheduled deletion."""


class DeletionNotDue(Error):
    """The deletion of the key is not due yet."""


class ImplausibleTime(Error):
    """The time is not between the years 2020 and 9999."""


class RollbackUnresolved(Error):
    """The keyring was rolled back: it seals again after `adopt` or `write_back`."""


class RandomnessError(Error):
    """The random generator cannot be used."""


class KeyringError(Error):
    """The keyring failed."""


class KeyringUnavailable(Error):
    """The keyring cannot answer now."""


class FileError(Error):
    """The keyring file cannot be used. `fault` says why."""


class StoreError(Error):
    """The store failed, or a document in it was refused. `fault` says why."""


class NotAPayload(Error):
    """The bytes are not a sealed payload. `fault` names the broken rule."""


class PayloadTooLong(Error):
    """The payload would need more than 2**32 - 1 segments."""


class BufferLength(Error):
    """A buffer does not have the documented length."""


class ForeignHeaderCopy(Error):
    """The copy of a header beside the file belongs to another payload."""


# Classes whose names are not those of the kinds in Rust: these say nothing on their own.
_RUST_NAMES = {
    "ContextError": "Context",
    "RandomnessError": "Randomness",
    "KeyringError": "Keyring",
    "FileError": "File",
    "StoreError": "Store",
}

__all__ = [
    "AuthenticationFailed",
    "BufferLength",
    "ContextError",
    "DamagedBlob",
    "DeletionDays",
    "DeletionNotDue",
    "DeletionNotScheduled",
    "DeletionScheduled",
    "DuplicateKeyVersion",
    "Error",
    "FileError",
    "ForeignHeaderCopy",
    "ForeignKeys",
    "GracePeriod",
    "ImplausibleTime",
    "InvalidMaterial",
    "KeyDisabled",
    "KeyExists",
    "KeyMismatch",
    "KeyNotDisabled",
    "KeyNotEnabled",
    "KeyPendingDeletion",
    "KeyVersionDestroyed",
    "KeyVersionRetired",
    "KeyringError",
    "KeyringUnavailable",
    "MalformedKeyId",
    "MinVersion",
    "NotABlob",
    "NotAPayload",
    "PayloadTooLong",
    "RandomnessError",
    "RollbackUnresolved",
    "StoreError",
    "TooManyVersions",
    "UnknownKey",
    "UnknownKeyVersion",
    "VersionInUse",
]

# The class of each kind in Rust.
BY_KIND: dict[str, type[Error]] = {
    _RUST_NAMES.get(kind.__name__, kind.__name__): kind for kind in Error.__subclasses__()
}
