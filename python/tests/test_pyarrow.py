"""Parquet's encryption with dekseal as its KMS."""

from __future__ import annotations

import base64
import json
import pathlib
from typing import Any

import dekseal
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest
from dekseal.pyarrow import KmsClient, crypto_factory

CONTEXT = {"table": "orders"}
TABLE = pa.table({"id": list(range(1000)), "card": [f"card {row}" for row in range(1000)]})


def write(
    path: pathlib.Path, engine: dekseal.Engine, footer: str, column: str, connection: Any = None, **options: Any
) -> None:
    configuration = pe.EncryptionConfiguration(footer_key=footer, column_keys={column: ["card"]}, **options)
    factory = crypto_factory(engine, CONTEXT)
    connection = connection or pe.KmsConnectionConfig()
    external = options.get("internal_key_material") is False
    properties = factory.file_encryption_properties(connection, configuration, *([path] if external else []))
    with pq.ParquetWriter(path, TABLE.schema, encryption_properties=properties) as writer:
        writer.write_table(TABLE)


def read(path: pathlib.Path, engine: dekseal.Engine, context: dict[str, str] = CONTEXT, **options: Any) -> pa.Table:
    factory = crypto_factory(engine, context)
    properties = factory.file_decryption_properties(pe.KmsConnectionConfig(), **options)
    return pq.ParquetFile(path, decryption_properties=properties).read()


@pytest.mark.parametrize("plaintext_footer", [False, True])
@pytest.mark.parametrize("double_wrapping", [False, True])
@pytest.mark.parametrize("bits", [128, 192, 256])
def test_files_are_read_with_the_keys_and_not_without(
    tmp_path: pathlib.Path,
    keyring: dekseal.MemoryKeyring,
    engine: dekseal.Engine,
    plaintext_footer: bool,
    double_wrapping: bool,
    bits: int,
) -> None:
    footer, column = keyring.create_key(), keyring.create_key()
    path = tmp_path / "orders.parquet"
    options: dict[str, Any] = {"double_wrapping": double_wrapping, "data_key_length_bits": bits}
    write(path, engine, footer, column, plaintext_footer=plaintext_footer, **options)
    assert b"card 17" not in path.read_bytes()
    assert path.read_bytes()[-4:] == (b"PAR1" if plaintext_footer else b"PARE")
    assert read(path, engine).equals(TABLE)

    # Rotation needs nothing but the old versions.
    keyring.rotate(footer)
    keyring.rotate(column)
    assert read(path, engine).equals(TABLE)
    # Another context, another keyring, a disabled key.
    with pytest.raises(Exception, match="authentication failed"):
        read(path, engine, {"table": "payments"})
    with pytest.raises(Exception, match="unknown key"):
        read(path, dekseal.Engine(dekseal.MemoryKeyring()))
    keyring.disable(column)
    with pytest.raises(Exception, match="disabled"):
        read(path, engine)
    with pytest.raises(OSError):
        pq.ParquetFile(path).read()


def test_master_keys_are_rotated(
    tmp_path: pathlib.Path, keyring: dekseal.MemoryKeyring, engine: dekseal.Engine
) -> None:
    footer, column = keyring.create_key(), keyring.create_key()
    path = tmp_path / "orders.parquet"
    material = tmp_path / "_KEY_MATERIAL_FOR_orders.parquet.json"

    def versions() -> set[int]:
        """The versions of the keys that the key material names."""
        keys = [json.loads(text) for text in json.loads(material.read_text()).values()]
        wrapped = [key["wrappedKEK" if key["doubleWrapping"] else "wrappedDEK"] for key in keys]
        return {dekseal.SealedDek.of_payload(base64.b64decode(text)).key_version for text in wrapped}

    for double_wrapping in (True, False):
        path.unlink(missing_ok=True)
        material.unlink(missing_ok=True)
        write(path, engine, footer, column, internal_key_material=False, double_wrapping=double_wrapping)
        before = path.read_bytes()
        old = keyring.info(footer).current_version
        assert versions() == {old}
        new = keyring.rotate(footer)
        assert keyring.rotate(column) == new
        factory = crypto_factory(engine, CONTEXT)
        factory.rotate_master_keys(pe.KmsConnectionConfig(), path, double_wrapping=double_wrapping)
        assert versions() == {new} and path.read_bytes() == before
        keyring.set_min_version(footer, new)
        keyring.set_min_version(column, new)
        properties = factory.file_decryption_properties(pe.KmsConnectionConfig(), pe.DecryptionConfiguration(), path)
        assert pq.ParquetFile(path, decryption_properties=properties).read().equals(TABLE)


def test_the_client_keeps_the_wire_form(engine: dekseal.Engine, key_id: str) -> None:
    client = KmsClient(engine, CONTEXT)
    for length, characters in ((16, 396), (24, 408), (32, 416)):
        key = bytes(range(length))
        wrapped = client.wrap_key(key, key_id)
        assert len(wrapped) == characters and "\n" not in wrapped
        assert client.unwrap_key(wrapped, key_id) == key
        bound = {"purpose": "dekseal parquet", "table": "orders"}
        assert engine.decrypt(key_id, bound, base64.b64decode(wrapped)) == key
        other = base64.b64encode(engine.encrypt(key_id, bound, key + b"x")).decode()
        with pytest.raises(ValueError, match="16, 24 or 32 bytes, not"):
            client.unwrap_key(other, key_id)
    with pytest.raises(ValueError, match="16, 24 or 32 bytes, not 33"):
        client.wrap_key(bytes(33), key_id)
    with pytest.raises(ValueError, match="not base64"):
        client.unwrap_key("%", key_id)
    with pytest.raises(dekseal.MalformedKeyId):
        client.wrap_key(bytes(16), "footer_key")
    for context in ({}, {"purpose": "x", "table": "orders"}):
        with pytest.raises(ValueError, match="context"):
            KmsClient(engine, context)


def test_what_the_connection_says_is_refused(tmp_path: pathlib.Path, engine: dekseal.Engine, key_id: str) -> None:
    connection = pe.KmsConnectionConfig(custom_kms_conf={"tenant": "42"})
    with pytest.raises(Exception, match="custom_kms_conf"):
        write(tmp_path / "x.parquet", engine, key_id, key_id, connection)


def test_parquet_is_read_through_a_payload(tmp_path: pathlib.Path, engine: dekseal.Engine, key_id: str) -> None:
    path = tmp_path / "whole"
    with engine.open(path, "wb", key_id=key_id, context=CONTEXT) as writer:
        pq.write_table(TABLE, writer)
    with engine.open(path, "rb", key_id=key_id, context=CONTEXT) as reader:
        assert pq.read_table(reader).equals(TABLE)
