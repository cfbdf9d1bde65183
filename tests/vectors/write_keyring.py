#!/usr/bin/env python3
"""Writes keyring.json, with the implementation of docs/FORMAT.md in `conformance`, which was made from that text alone.

Needs the package `cryptography` from PyPI. It first reproduces every value of blob.json, then prints the vector:

    python3 tests/vectors/write_keyring.py > tests/vectors/keyring.json
"""

import hashlib
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "conformance"))

from keyring import Document, Key, Version, check, mac_key  # noqa: E402
from kit import Fields  # noqa: E402
from reference import Cmk, canonical  # noqa: E402


def reproduce_blobs():
    vectors = json.loads((HERE / "blob.json").read_text())
    assert len(vectors) > 20
    for v in vectors:
        cmk = Cmk(v["key_id"], v["key_version"], bytes.fromhex(v["material"]))
        blob, between = cmk.seal(canonical(v["context"].items()), bytes.fromhex(v["dek"]))
        assert blob.hex() == v["blob"], v["name"]
        for name, value in between.items():
            assert value.hex() == v[name], (v["name"], name)


def material(name, length=64):
    """Anything that nobody would take for a key in use."""
    return hashlib.shake_256(b"dekseal keyring vector: " + name.encode()).digest(length)


def version(number, created, name, length=64):
    return Version(number, created, material(name, length))


def written(document, root):
    """The document of the next generation, and the message that its MAC is of (C3)."""
    file = json.loads(document.write(root))
    return {"message": document.message().hex(), "file": file}


def main():
    reproduce_blobs()
    root_id, root_material = "00000000-0000-0000-0000-00000000root", material("root", 48)
    root = Cmk(root_id, 0, root_material)
    now, day = 1_800_000_000, 86_400
    first, second = "0d0466b0-e727-4d9c-b35d-f84bb474a37f", "25abe69f-ae10-44cd-bc87-1bda1de3b7d7"
    third, fourth = "43e243b5-0095-1b21-67b2-58370386cc4a", "90000000-0000-0000-0000-00000000000z"

    # Versions of three lengths, the first one retired; disabled; pending deletion; and with destroyed versions.
    document = Document(material("id", 16), 6, [
        Key(first, "enabled", None, 1, [
            version(0, now - 400 * day, "first 0", 32),
            version(1, now - 100 * day, "first 1", 64),
            # Made by a clock that was behind.
            version(2, now - 101 * day, "first 2", 45),
        ]),
        Key(second, "disabled", None, 0, [version(0, 1_577_836_800, "second 0")]),
        Key(third, "pending_deletion", now + 30 * day, 0, [version(0, now - 1, "third 0")]),
        Key(fourth, "enabled", None, 4, [
            version(3, now - 20 * day, "fourth 3"),
            version(6, now - 10 * day, "fourth 6"),
        ]),
    ])
    before = written(document, root)
    materials = [
        {"key_id": key.key_id, "version": v.version, "material": v.material.hex()}
        for key in document.keys for v in key.versions
    ]

    # What is done to it, and what is written then.
    later = now + 31 * day
    changes = [
        {"do": "import_version", "key_id": first, "material": material("first 3").hex(), "now": now},
        {"do": "set_min_version", "key_id": first, "version": 2},
        {"do": "destroy_versions", "key_id": first, "version": 1},
        {"do": "enable", "key_id": second},
        {"do": "schedule_deletion", "key_id": second, "days": 7, "now": now},
        {"do": "purge", "key_id": third, "now": later},
        {"do": "disable", "key_id": fourth},
        {"do": "import_key", "key_id": third, "material": material("third again", 33).hex(), "now": later},
    ]
    for change in changes:
        document.change(Fields(change, change["do"]))
    after = written(document, root)

    vector = {
        "root_key_id": root_id,
        "root_key_version": 0,
        "root_material": root_material.hex(),
        "check": check(root).hex().upper(),
        "mac_key": mac_key(root).hex(),
        **before,
        "keys": materials,
        "changes": changes,
        "after": after,
    }
    json.dump(vector, sys.stdout, indent=1)
    print()


main()
