"""The keys of Parquet's encryption: dekseal as the KMS of `pyarrow.parquet.encryption`.

    kms = dekseal.pyarrow.crypto_factory(engine, {"table": "orders"})
    properties = kms.file_encryption_properties(connection, configuration)

Master key identifiers are the key IDs of the keyring. `crates/dekseal-parquet` reads and writes the same files.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import pyarrow.parquet.encryption as pe

import dekseal

__all__ = ["KmsClient", "crypto_factory"]

_PURPOSE = {"purpose": "dekseal parquet"}
_KEY_LENGTHS = (16, 24, 32)


class KmsClient(pe.KmsClient):  # type: ignore[misc]
    """Wraps the keys of Parquet files under the keys of a keyring.

    `context` says what the files are for: at least one pair. It must be the same when a file is read.
    """

    def __init__(self, engine: dekseal.Engine, context: Mapping[str, str]) -> None:
        pe.KmsClient.__init__(self)
        if not context:
            raise ValueError("the encryption context of Parquet files must name what they are for")
        if "purpose" in context:
            raise ValueError("the key 'purpose' of the encryption context is that of dekseal")
        self._engine = engine
        self._context = dekseal.EncryptionContext({**context, **_PURPOSE})

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> str:
        """Called by pyarrow to wrap a key of a file."""
        _check_length(key_bytes)
        payload = self._engine.encrypt(master_key_identifier, self._context, key_bytes)
        return base64.b64encode(payload).decode()

    def unwrap_key(self, wrapped_key: str | bytes, master_key_identifier: str) -> bytes:
        """Called by pyarrow to unwrap a key of a file."""
        try:
            payload = base64.b64decode(wrapped_key, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("the wrapped key of a Parquet file is not base64") from None
        key = self._engine.decrypt(master_key_identifier, self._context, payload)
        _check_length(key)
        return key


def _check_length(key: bytes) -> None:
    if len(key) not in _KEY_LENGTHS:
        raise ValueError(f"a Parquet key has 16, 24 or 32 bytes, not {len(key)}")


def crypto_factory(engine: dekseal.Engine, context: Mapping[str, str]) -> Any:
    """A `pyarrow.parquet.encryption.CryptoFactory` whose KMS is this engine.

    pyarrow keeps a client for each connection, and uses it again. The configuration of the connection is not used, so
    one that says something is refused.
    """
    client = KmsClient(engine, context)

    def make(connection: Any) -> KmsClient:
        if connection.custom_kms_conf:
            raise ValueError("dekseal does not use custom_kms_conf: leave it empty")
        return client

    return pe.CryptoFactory(make)
