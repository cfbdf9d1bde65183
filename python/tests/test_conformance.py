"""The conformance kit (`conformance/vectors`), run against the package as it is installed.

Left out: the level `context_json`, because the package reads no JSON, and `keyring_write`, because it makes each change
on its own and with the clock of the system; the types `PayloadLength` and `PayloadSegment`, because it has no function
for a length or a single segment. The lengths of `PayloadSeal` are compared.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import io
import json
import pathlib
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dekseal
import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "conformance"))

import kit

VECTORS = REPOSITORY / "conformance" / "vectors"
LEVELS = [level for level in kit.LEVELS if level not in ("context_json", "keyring_write")]

# How the kit names an error, by its kind, and for documents by their fault.
ERRORS = {
    "NotABlob": "not_a_blob",
    "MalformedKeyId": "malformed_key_id",
    "DamagedBlob": "damaged_blob",
    "KeyMismatch": "key_mismatch",
    "UnknownKey": "unknown_key",
    "UnknownKeyVersion": "unknown_key_version",
    "AuthenticationFailed": "authentication_failed",
    "InvalidMaterial": "invalid_material",
    "Context": "context",
    "NotAPayload": "not_a_payload",
    "PayloadTooLong": "payload_too_long",
}
FAULTS = {
    "Truncated": "truncated",
    "NotAKeyring": "not_a_keyring",
    "NotADocument": "not_a_keyring",
    "UnknownFormat": "unknown_format",
    "WrongRoot": "wrong_root",
    "Changed": "changed",
    "KeyCount": "changed",
    "OtherKey": "changed",
}

Compare = Callable[[], None]
Run = Callable[[Any], Compare]


def refused(run: Run) -> Run:
    """Names the errors of the package as the kit does."""

    def translated(test: Any) -> Compare:
        try:
            return run(test)
        except dekseal.Error as error:
            names = FAULTS if error.kind in ("File", "Store") else ERRORS
            raise kit.Refused(names[error.fault or "" if names is FAULTS else error.kind]) from None

    return translated


class Pairs(Mapping[str, str]):
    """A mapping whose items may have one key twice, as in a vector."""

    def __init__(self, pairs: list[list[str]]) -> None:
        self.pairs = pairs

    def __getitem__(self, key: str) -> str:
        return dict(self.items())[key]

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def items(self) -> Any:
        return [tuple(pair) for pair in self.pairs]


def cmk(fields: Any) -> tuple[str, int, bytes]:
    return fields.take("key_id"), fields.take("key_version"), fields.hex("material")


def cmk_of(value: Any, where: str) -> tuple[str, int, bytes]:
    fields = kit.Fields(value, where)
    made = cmk(fields)
    fields.done()
    return made


def engine_of(group: Any) -> dekseal.Engine:
    keys = [cmk_of(value, f"{group.where}: keys") for value in group.take("keys")]
    return dekseal.Engine(dekseal.MemoryKeyring.from_versions(keys))


def root_of(group: Any) -> dekseal.Root:
    key_id, key_version, material = cmk_of(group.take("root"), group.where)
    return dekseal.Root.from_bytes(material, key_id=key_id, key_version=key_version)


def blob_parse(_group: Any) -> Run:
    def run(test: Any) -> Compare:
        sealed = dekseal.SealedDek(test.hex("blob"))

        def compare() -> None:
            kit.same(sealed.key_id, test.take("key_id"))
            kit.same(sealed.key_version, test.take("key_version"))

        return compare

    return run


def context(_group: Any) -> Run:
    def run(test: Any) -> Compare:
        found = dekseal.EncryptionContext(Pairs(test.take("pairs"))).canonical()

        def compare() -> None:
            kit.same(len(found), test.take("canonical_length"))
            kit.same(hashlib.sha256(found).hexdigest(), test.take("canonical_sha256"))
            expected = test.maybe("canonical")
            if expected is not None:
                kit.same(found.hex(), expected)

        return compare

    return run


def blob_open(group: Any) -> Run:
    engine = engine_of(group)

    def run(test: Any) -> Compare:
        blob, pairs, key_id = test.hex("blob"), test.take("context"), test.take("expected_key_id")
        with engine.decrypt_dek(key_id, pairs, blob) as dek:
            found = bytes(memoryview(dek))
        return lambda: kit.same(found.hex(), test.take("dek"))

    return run


def blob_seal(_group: Any) -> Run:
    def run(test: Any) -> Compare:
        key, pairs = cmk(test), test.take("context")
        engine = dekseal.Engine(dekseal.MemoryKeyring.from_versions([key]))
        sealed = engine.encrypt_dek(key[0], pairs, dekseal.Dek.from_bytes(test.hex("dek")))
        # The values in between are inside of the package.
        test.take("intermediate")
        return lambda: kit.same(bytes(sealed).hex(), test.take("blob"))

    return run


def cmk_only(_group: Any) -> Run:
    def run(test: Any) -> Compare:
        dekseal.MemoryKeyring.from_versions([cmk(test)])
        return lambda: None

    return run


def payload_open(group: Any) -> Run:
    engine, key_id, pairs = engine_of(group), group.take("key_id"), group.take("context")
    base = base64.b64decode(group.take("base"), validate=True)

    def run(test: Any) -> Compare:
        payload = kit.joined(test, base)
        read: bytes | None
        try:
            with engine.open(io.BytesIO(payload), "rb", key_id=key_id, context=pairs) as reader:
                read = reader.read()
        except dekseal.Error:
            read = None
        try:
            plaintext = engine.decrypt(key_id, pairs, payload)
        except dekseal.Error:
            assert read is None
            raise

        def compare() -> None:
            kit.same(read, plaintext)
            kit.same(len(plaintext), test.take("plaintext_length"))
            kit.same(hashlib.sha256(plaintext).hexdigest(), test.take("plaintext_sha256"))

        return compare

    return run


def payload_seal(group: Any) -> Run:
    """The package takes neither a DEK nor a salt for a payload. It makes as many bytes, and opens the vector."""
    key, pairs = cmk_of(group.take("cmk"), group.where), group.take("context")
    plaintext = base64.b64decode(group.take("plaintext"), validate=True)
    group.take("dek")
    engine = dekseal.Engine(dekseal.MemoryKeyring.from_versions([key]))

    def run(test: Any) -> Compare:
        data = plaintext[: test.take("plaintext_length")]
        made = engine.encrypt(key[0], pairs, data)
        test.take("payload_salt")

        def compare() -> None:
            kit.same(len(made), test.take("payload_length"))
            digest, expected = test.take("payload_sha256"), test.maybe("payload")
            if expected is not None:
                payload = bytes.fromhex(expected)
                kit.same(hashlib.sha256(payload).hexdigest(), digest)
                kit.same(engine.decrypt(key[0], pairs, payload), data)

        return compare

    return run


def payload_rewrap(group: Any) -> Run:
    engine, pairs = engine_of(group), group.take("context")

    def run(test: Any) -> Compare:
        # Any segment: rewrapping does not read it.
        payload = test.hex("header") + bytes(16)
        key_id = dekseal.SealedDek.of_payload(payload).key_id
        renewed = engine.rewrap(key_id, pairs, payload)
        return lambda: kit.same(renewed.hex(), test.take("rewrapped_header") + "00" * 16)

    return run


def keyring_document(group: Any) -> Run:
    root = root_of(group)
    check = group.take("check")
    # The key of the MAC is inside of the package, which refuses another MAC.
    group.take("mac_key")

    def run(test: Any) -> Compare:
        text = test.take("text")
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "keyring.json"
            path.write_text(text, "utf-8")
            keyring = dekseal.FileKeyring.open(path, root)
            test.take("message")
            expected = test.take("opened")
            kit.same(json.loads(text)["root"]["check"].upper(), check)
            kit.same(keyring.generation, expected["generation"])
            same_keys(keyring, keyring.list(), expected)
        return lambda: None

    return run


def key_document(group: Any) -> Run:
    root = root_of(group)

    def run(test: Any) -> Compare:
        key_id, text = test.take("key_id"), test.take("text")
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "keys.db"
            # It makes the table. Not open at the same time as Python's SQLite: see README.md.
            dekseal.SqliteKeyring(path, root, table="keys", refresher=False)
            with sqlite3.connect(path) as database:
                database.execute("INSERT INTO keys VALUES (?, ?, ?)", (key_id, bytes(32), text.encode()))
            database.close()
            keyring = dekseal.SqliteKeyring(path, root, table="keys", refresher=False)
            keyring.load(key_id)
            test.take("message")
            expected = test.take("opened")
            kit.same(json.loads(text)["generation"], expected["generation"])
            same_keys(keyring, [key_id], expected)
        return lambda: None

    return run


def same_keys(keyring: Any, found: list[str], expected: dict[str, Any]) -> None:
    """Compares keys and their material with what a document holds. The package shows no material, so this seals with
    the expected material, and opens with the keyring."""
    kit.same(found, [key["key_id"] for key in expected["keys"]])
    for key in expected["keys"]:
        key_id, info = key["key_id"], keyring.info(key["key_id"])
        kit.same(info.state, key["state"])
        kit.same(info.deletion_date and int(info.deletion_date.timestamp()), key["deletion"])
        kit.same(info.min_version, key["min_version"])
        versions = keyring.versions(key_id)
        kit.same(
            [(version.key_version, int(version.created.timestamp())) for version in versions],
            [(version["version"], version["created"]) for version in key["versions"]],
        )
        if expected["generation"] == 2**64 - 1:
            # No change is possible any more.
            continue
        if info.state == "pending_deletion":
            keyring.cancel_deletion(key_id)
        if info.state != "enabled":
            keyring.enable(key_id)
        keyring.set_min_version(key_id, min(info.min_version, versions[0].key_version))
        engine = dekseal.Engine(keyring)
        for version in key["versions"]:
            alone = [(key_id, version["version"], bytes.fromhex(version["material"]))]
            dek, sealed = dekseal.Engine(dekseal.MemoryKeyring.from_versions(alone)).create_dek(key_id, {})
            assert engine.decrypt_dek(key_id, {}, sealed) == dek


def root_derivation(_group: Any) -> Run:
    def run(test: Any) -> Compare:
        k, answers = test.hex("k"), []

        def device(message: bytes) -> bytes:
            answers.append(hmac.digest(k, message, "sha512"))
            return answers[-1]

        root = dekseal.Root.from_hmac(device, key_id=test.take("key_id"), key_version=test.take("key_version"))

        def compare() -> None:
            kit.same([answer.hex() for answer in answers], [test.take("material")])
            with tempfile.TemporaryDirectory() as directory:
                path = pathlib.Path(directory) / "keyring.json"
                dekseal.FileKeyring.create(path, root)
                kit.same(json.loads(path.read_text())["root"]["check"], test.take("check"))

        return compare

    return run


TYPES: dict[str, Callable[[Any], Run]] = {
    "BlobParse": blob_parse,
    "BlobOpen": blob_open,
    "BlobSeal": blob_seal,
    "Cmk": cmk_only,
    "Context": context,
    "KeyDocument": key_document,
    "KeyringDocument": keyring_document,
    "PayloadOpen": payload_open,
    "PayloadRewrap": payload_rewrap,
    "PayloadSeal": payload_seal,
    "RootDerivation": root_derivation,
}
LEFT_OUT = ("PayloadLength", "PayloadSegment")


def run_file(path: pathlib.Path, level: str) -> int:
    types = {kind: lambda group, kind=kind: refused(TYPES[kind](group)) for kind in TYPES}
    count: int = kit.run_file(path, level, {**types, **dict.fromkeys(LEFT_OUT)})
    return count


@pytest.mark.parametrize("level", LEVELS)
def test_the_package_passes_the_level(level: str) -> None:
    assert run_file(VECTORS / f"{level}.json", level) > 0


# A level, a type and an output of it.
OUTPUTS = [
    ("parse", "BlobParse", "key_version"),
    ("context", "Context", "canonical_sha256"),
    ("open", "BlobOpen", "dek"),
    ("seal", "BlobSeal", "blob"),
    ("payload_open", "PayloadOpen", "plaintext_sha256"),
    ("payload_seal", "PayloadSeal", "payload_length"),
    ("payload_seal", "PayloadRewrap", "rewrapped_header"),
    ("keyring_open", "KeyringDocument", "opened"),
    ("keyring_open", "KeyDocument", "opened"),
    ("root", "RootDerivation", "check"),
]


@pytest.mark.parametrize(("level", "kind", "name"), OUTPUTS)
def test_another_result_is_noticed(tmp_path: pathlib.Path, level: str, kind: str, name: str) -> None:
    file = json.loads((VECTORS / f"{level}.json").read_text())
    [group, *_] = [group for group in file["groups"] if group["type"] == kind]
    [test, *_] = [test for test in group["tests"] if test["result"] == "valid"]
    before = copy.deepcopy(test)
    match test[name]:
        case int(number):
            test[name] = number + 1
        case str(digits):
            test[name] = ("1" if digits[0] == "0" else "0") + digits[1:]
        case opened:
            # The material of the last version.
            version = opened["keys"][-1]["versions"][-1]
            version["material"] = version["material"][::-1]
    assert test != before
    path = tmp_path / "vectors.json"
    path.write_text(json.dumps(file))
    with pytest.raises((kit.Failed, dekseal.AuthenticationFailed, kit.Refused)):
        run_file(path, level)
