#!/usr/bin/env python3
"""Writes, reads and rotates Parquet files with PyArrow, for tests/it/pyarrow.rs.

    pyarrow_files.py --kms reference|package KEYRING ROOT write|read|rotate FOOTER_KEY COLUMN_KEY FILE…

KEYRING is a keyring file, and ROOT is the root: its key ID, version and material in hex, joined by colons. The name of
a FILE says how it is written, such as `encrypted-footer.external.double.256.parquet`. With `reference` the KMS is made
of the Python implementation in conformance/, with `package` it is dekseal.pyarrow.
"""

import argparse
import base64
import os
import pathlib
import sys

import pyarrow
import pyarrow.parquet
import pyarrow.parquet.encryption as encryption

FILES = {"table": "orders"}


def reference_factory(keyring_path, root):
    sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "conformance"))
    import keyring
    import reference

    key_id, version, material = root
    root = reference.Cmk(key_id, version, material)
    document = keyring.read(root, pathlib.Path(keyring_path).read_text())
    cmks, current = [], {}
    for key in document.keys:
        for one in key.versions:
            current[key.key_id] = reference.Cmk(key.key_id, one.version, one.material)
            if one.version >= key.min_version:
                cmks.append(current[key.key_id])
    context = reference.canonical({"purpose": "dekseal parquet", **FILES}.items())

    class Kms(encryption.KmsClient):
        def __init__(self, connection):
            super().__init__()
            assert not connection.custom_kms_conf

        def wrap_key(self, key, master_key_id):
            assert len(key) in (16, 24, 32)
            dek, salt = os.urandom(64), os.urandom(32)
            payload = reference.seal_payload(current[master_key_id], context, dek, salt, key)
            return base64.b64encode(payload)

        def unwrap_key(self, wrapped, master_key_id):
            payload = base64.b64decode(wrapped, validate=True)
            key = reference.open_payload(cmks, master_key_id, context, payload)
            assert len(key) in (16, 24, 32)
            return key

    return encryption.CryptoFactory(Kms)


def package_factory(keyring_path, root):
    import dekseal
    import dekseal.pyarrow

    key_id, version, material = root
    root = dekseal.Root.from_bytes(material, key_id=key_id, key_version=version)
    engine = dekseal.Engine(dekseal.FileKeyring.open(keyring_path, root))
    return dekseal.pyarrow.crypto_factory(engine, FILES)


def table():
    numbers = list(range(1000))
    return pyarrow.table({
        "id": pyarrow.array(numbers, pyarrow.int32()),
        "card": [f"4929-{number:04}" for number in numbers],
        "amount": [number / 8 for number in numbers],
    })


def write(factory, connection, footer_key, column_key, path):
    footer, material, wrapping, bits, _ = path.name.split(".")
    configuration = encryption.EncryptionConfiguration(
        footer_key=footer_key,
        column_keys={column_key: ["card"]},
        plaintext_footer=footer == "plaintext-footer",
        double_wrapping=wrapping == "double",
        internal_key_material=material == "internal",
        data_key_length_bits=int(bits),
    )
    properties = factory.file_encryption_properties(connection, configuration, path)
    with pyarrow.parquet.ParquetWriter(path, table().schema, encryption_properties=properties) as writer:
        writer.write_table(table())


def read(factory, connection, path):
    properties = factory.file_decryption_properties(connection, encryption.DecryptionConfiguration(), path)
    with pyarrow.parquet.ParquetFile(path, decryption_properties=properties) as file:
        found = file.read()
    # Rust writes columns that cannot be null.
    assert found.cast(table().schema).equals(table()), f"{path}: other rows"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kms", choices=("reference", "package"), required=True)
    parser.add_argument("keyring")
    parser.add_argument("root")
    parser.add_argument("command", choices=("write", "read", "rotate"))
    parser.add_argument("footer_key")
    parser.add_argument("column_key")
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()
    key_id, version, material = arguments.root.split(":")
    root = key_id, int(version), bytes.fromhex(material)
    make = {"reference": reference_factory, "package": package_factory}[arguments.kms]
    factory, connection = make(arguments.keyring, root), encryption.KmsConnectionConfig()
    for path in arguments.files:
        if arguments.command == "write":
            write(factory, connection, arguments.footer_key, arguments.column_key, path)
        elif arguments.command == "read":
            read(factory, connection, path)
        else:
            double = ".double." in path.name
            factory.rotate_master_keys(connection, path, double_wrapping=double)


if __name__ == "__main__":
    main()
