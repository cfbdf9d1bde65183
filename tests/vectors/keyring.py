#!/usr/bin/env python3
"""Writes keyring.json: docs/FORMAT.md parts A and C in Python, made from that text alone.

Needs the package `cryptography` from PyPI. It first reproduces every value of blob.json, then prints the vector:

    python3 tests/vectors/keyring.py > tests/vectors/keyring.json
"""

import hashlib
import hmac
import json
import pathlib
import sys
from datetime import datetime, timezone

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand


def big(length, number):
    return number.to_bytes(length, "big")


def mac(key, message):
    return hmac.digest(key, message, "sha256")


def expand(key, info):
    return HKDFExpand(algorithm=SHA256(), length=32, info=info).derive(key)


def canonical(context):
    """A3."""
    pairs = sorted((key.encode(), value.encode()) for key, value in context.items())
    if not pairs:
        return b""
    joined = b"".join(big(2, len(key)) + key + big(2, len(value)) + value for key, value in pairs)
    return big(2, len(pairs)) + joined


class Cmk:
    """A4."""

    def __init__(self, key_id, version, material):
        assert 32 <= len(material) <= 64
        self.key_id, self.version = key_id, version
        self.trailer = key_id.encode() + version.to_bytes(4, "little")
        self.prk = mac(b"dekseal/v2", material)
        self.salt_key = expand(self.prk, b"dekseal/v2 salt" + self.trailer)
        self.wrap_key = expand(self.prk, b"dekseal/v2 wrap" + self.trailer)

    def seal(self, context, dek):
        context = canonical(context)
        salt = mac(self.salt_key, hashlib.sha256(context).digest() + dek)
        key = expand(self.wrap_key, b"dekseal/v2 key" + salt)
        head = (2).to_bytes(2, "little") + (152).to_bytes(2, "little")
        aad = head + self.trailer + context
        body = head + salt + AESGCM(key).encrypt(salt[:12], dek, aad) + self.trailer
        between = {"prk": self.prk, "salt_key": self.salt_key, "wrap_key": self.wrap_key}
        between |= {"aad": aad, "salt": salt, "key": key}
        return body + hashlib.sha256(body).digest(), between


def reproduce_blobs():
    vectors = json.loads(pathlib.Path(__file__).with_name("blob.json").read_text())
    assert len(vectors) > 20
    for v in vectors:
        cmk = Cmk(v["key_id"], v["key_version"], bytes.fromhex(v["material"]))
        blob, between = cmk.seal(v["context"], bytes.fromhex(v["dek"]))
        assert blob.hex() == v["blob"], v["name"]
        for name, value in between.items():
            assert value.hex() == v[name], (v["name"], name)


def date(seconds):
    """C2."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def message(keyring):
    """C3."""
    out = big(4, 1) + keyring["id"] + big(8, keyring["generation"]) + big(4, len(keyring["keys"]))
    for key in keyring["keys"]:
        state = ["enabled", "disabled", "pending_deletion"].index(key["state"])
        out += key["key_id"].encode() + big(1, state) + big(8, key.get("deletion", 0))
        out += big(4, key["min_version"]) + big(4, len(key["versions"]))
        for version in key["versions"]:
            out += big(4, version["version"]) + big(1, len(version["material"])) + big(8, version["created"])
            out += version["sealed"]
    return out


def document(root, keyring):
    """The object of C2, and the message that its MAC is of."""
    keys = []
    for key in keyring["keys"]:
        versions = []
        for version in key["versions"]:
            length = len(version["material"])
            context = {
                "purpose": "dekseal keyring",
                "key_id": key["key_id"],
                "key_version": str(version["version"]),
                "material_length": str(length),
            }
            version["sealed"], _ = root.seal(context, version["material"].ljust(64, b"\0"))
            versions.append({
                "version": version["version"],
                "created": date(version["created"]),
                "material_length": length,
                "sealed": version["sealed"].hex().upper(),
            })
        entry = {"key_id": key["key_id"], "state": key["state"]}
        if "deletion" in key:
            entry["deletion"] = date(key["deletion"])
        keys.append(entry | {"min_version": key["min_version"], "versions": versions})
    text = message(keyring)
    file = {
        "format": "dekseal keyring",
        "version": 1,
        "id": keyring["id"].hex().upper(),
        "generation": keyring["generation"],
        "root": {
            "key_id": root.key_id,
            "key_version": root.version,
            "check": expand(root.wrap_key, b"dekseal/v2 keyring check").hex().upper(),
        },
        "keys": keys,
        "mac": mac(expand(root.wrap_key, b"dekseal/v2 keyring"), text).hex().upper(),
    }
    return {"message": text.hex(), "file": file}


def material(name, length=64):
    """Anything that nobody would take for a key in use."""
    return hashlib.shake_256(b"dekseal keyring vector: " + name.encode()).digest(length)


def version(number, created, name, length=64):
    return {"version": number, "created": created, "material": material(name, length)}


def main():
    reproduce_blobs()
    root_id, root_material = "00000000-0000-0000-0000-00000000root", material("root", 48)
    root = Cmk(root_id, 0, root_material)
    now, day = 1_800_000_000, 86_400
    first, second = "0d0466b0-e727-4d9c-b35d-f84bb474a37f", "25abe69f-ae10-44cd-bc87-1bda1de3b7d7"
    third, fourth = "43e243b5-0095-1b21-67b2-58370386cc4a", "90000000-0000-0000-0000-00000000000z"

    # Versions of three lengths, the first one retired; disabled; pending deletion; and with destroyed versions.
    keyring = {"id": material("id", 16), "generation": 7, "keys": [
        {"key_id": first, "state": "enabled", "min_version": 1, "versions": [
            version(0, now - 400 * day, "first 0", 32),
            version(1, now - 100 * day, "first 1", 64),
            # Made by a clock that was behind.
            version(2, now - 101 * day, "first 2", 45),
        ]},
        {"key_id": second, "state": "disabled", "min_version": 0, "versions": [
            version(0, 1_577_836_800, "second 0"),
        ]},
        {"key_id": third, "state": "pending_deletion", "deletion": now + 30 * day, "min_version": 0, "versions": [
            version(0, now - 1, "third 0"),
        ]},
        {"key_id": fourth, "state": "enabled", "min_version": 4, "versions": [
            version(3, now - 20 * day, "fourth 3"),
            version(6, now - 10 * day, "fourth 6"),
        ]},
    ]}
    before = document(root, keyring)
    materials = [
        {"key_id": key["key_id"], "version": v["version"], "material": v["material"].hex()}
        for key in keyring["keys"] for v in key["versions"]
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
    keys = keyring["keys"]
    keys[0]["versions"] = keys[0]["versions"][1:] + [version(3, now, "first 3")]
    keys[0]["min_version"] = 2
    keys[1] |= {"state": "pending_deletion", "deletion": now + 7 * day}
    versions = [version(0, later, "third again", 33)]
    keys[2] = {"key_id": third, "state": "enabled", "min_version": 0, "versions": versions}
    keys[3]["state"] = "disabled"
    keyring["generation"] = 8
    after = document(root, keyring)

    vector = {
        "root_key_id": root_id,
        "root_key_version": 0,
        "root_material": root_material.hex(),
        "check": before["file"]["root"]["check"],
        "mac_key": expand(root.wrap_key, b"dekseal/v2 keyring").hex(),
        **before,
        "keys": materials,
        "changes": changes,
        "after": after,
    }
    json.dump(vector, sys.stdout, indent=1)
    print()


main()
