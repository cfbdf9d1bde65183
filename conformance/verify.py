#!/usr/bin/env python3
"""Runs conformance/vectors against a Python implementation of docs/FORMAT.md (`reference.py` beside this file).

    python3 conformance/verify.py [--vectors DIRECTORY] [LEVEL…]

It fails on a test that gives another result, on a type, field or flag that it does not know, and on a field that no
check used. To test another implementation, read README.md and write the same for it.
"""

import argparse
import base64
import hashlib
import json
import pathlib
import sys

import keyring
import reference
from reference import Refused

LEVELS = ("parse", "context", "context_json", "open", "seal", "payload_open", "payload_seal", "keyring_open",
          "keyring_write", "root")


class Failed(Exception):
    """A vector file is not of the known form, or a test gave another result."""


class Fields:
    """The fields of an object, each of which is taken exactly once."""

    def __init__(self, value, where):
        if not isinstance(value, dict):
            raise Failed(f"{where}: not an object")
        self.left, self.taken, self.where = dict(value), set(), where

    def take(self, name):
        if name in self.taken:
            raise Failed(f"{self.where}: {name} is used twice")
        if name not in self.left:
            raise Failed(f"{self.where}: {name} is missing")
        self.taken.add(name)
        return self.left.pop(name)

    def maybe(self, name):
        return self.take(name) if name in self.left else None

    def hex(self, name):
        return from_hex(self.take(name), f"{self.where}: {name}")

    def done(self):
        if self.left:
            raise Failed(f"{self.where}: no check uses {', '.join(self.left)}")


def from_hex(digits, where):
    raw = bytes.fromhex(digits)
    if raw.hex() != digits:
        raise Failed(f"{where}: not hex in lower case")
    return raw


def same(found, expected):
    if found != expected:
        raise Failed(f"found {str(found)[:200]!r}, expected {str(expected)[:200]!r}")


def cmk(fields):
    key_id, version, material = fields.take("key_id"), fields.take("key_version"), fields.hex("material")
    return reference.Cmk(key_id, version, material)


def cmk_of(value, where):
    fields = Fields(value, where)
    made = cmk(fields)
    fields.done()
    return made


def keys_of(group):
    keys = [cmk_of(value, f"{group.where}: keys") for value in group.take("keys")]
    same(len({(key.key_id, key.version) for key in keys}), len(keys))
    return keys


# Each function below returns a function for the tests of a group of that type. That one takes the inputs of a test and
# returns a function that compares the outputs, which only a valid test has. It raises `Refused` where the format does.


def blob_parse(_):
    def run(test):
        blob = reference.parse(test.hex("blob"))

        def compare():
            same(blob.key_id, test.take("key_id"))
            same(blob.key_version, test.take("key_version"))

        return compare

    return run


def canonical_of(test, found):
    same(len(found), test.take("canonical_length"))
    same(hashlib.sha256(found).hexdigest(), test.take("canonical_sha256"))
    expected = test.maybe("canonical")
    if expected is not None:
        same(found.hex(), expected)


def context(_):
    def run(test):
        found = reference.canonical([tuple(pair) for pair in test.take("pairs")])
        return lambda: canonical_of(test, found)

    return run


def context_json(_):
    def run(test):
        found = reference.canonical(reference.pairs_of_json(test.take("json")))
        return lambda: canonical_of(test, found)

    return run


def blob_open(group):
    keys = keys_of(group)

    def run(test):
        blob, pairs, expected = test.hex("blob"), test.take("context").items(), test.take("expected_key_id")
        dek = reference.open_blob(keys, expected, reference.canonical(pairs), blob)
        return lambda: same(dek.hex(), test.take("dek"))

    return run


def blob_seal(_):
    def run(test):
        key, found = cmk(test), reference.canonical(test.take("context").items())
        between = Fields(test.take("intermediate"), f"{test.where}: intermediate")
        blob, values = key.seal(found, test.hex("dek"))

        def compare():
            same(blob.hex(), test.take("blob"))
            for name, value in values.items():
                same(value.hex(), between.take(name))
            between.done()

        return compare

    return run


def cmk_only(_):
    def run(test):
        cmk(test)
        return lambda: None

    return run


def payload_open(group):
    keys, key_id = keys_of(group), group.take("key_id")
    found = reference.canonical(group.take("context").items())
    base = base64.b64decode(group.take("base"), validate=True)

    def run(test):
        payload = b""
        for piece in test.take("payload"):
            fields = Fields(piece, f"{test.where}: payload")
            [(kind, value)] = piece.items()
            fields.take(kind)
            if kind == "base":
                payload += base[value[0]:value[1]]
            elif kind == "hex":
                payload += from_hex(value, test.where)
            elif kind == "base64":
                payload += base64.b64decode(value, validate=True)
            else:
                raise Failed(f"{test.where}: an unknown kind of piece: {kind}")
        plaintext = reference.open_payload(keys, key_id, found, payload)

        def compare():
            same(len(plaintext), test.take("plaintext_length"))
            same(hashlib.sha256(plaintext).hexdigest(), test.take("plaintext_sha256"))

        return compare

    return run


def payload_segment(group):
    key, commitment = reference.payload_keys(group.hex("dek"), group.hex("header"))
    same(key.hex(), group.take("segment_key"))
    same(commitment.hex(), group.take("commitment"))

    def run(test):
        index, last = test.take("index"), test.take("last")
        plaintext, segment = test.hex("plaintext"), test.hex("segment")
        same(reference.seal_segment(key, index, last, plaintext).hex(), segment.hex())
        same(reference.open_segment(key, index, last, segment).hex(), plaintext.hex())
        return lambda: None

    return run


def payload_seal(group):
    key, found = cmk_of(group.take("cmk"), group.where), reference.canonical(group.take("context").items())
    dek, plaintext = group.hex("dek"), base64.b64decode(group.take("plaintext"), validate=True)

    def run(test):
        length = test.take("plaintext_length")
        payload = reference.seal_payload(key, found, dek, test.hex("payload_salt"), plaintext[:length])

        def compare():
            same(len(payload), test.take("payload_length"))
            same(hashlib.sha256(payload).hexdigest(), test.take("payload_sha256"))
            expected = test.maybe("payload")
            if expected is not None:
                same(payload.hex(), expected)

        return compare

    return run


def payload_rewrap(group):
    keys, found = keys_of(group), reference.canonical(group.take("context").items())

    def run(test):
        header = reference.rewrap_header(keys, keys[-1], found, test.hex("header"))
        return lambda: same(header.hex(), test.take("rewrapped_header"))

    return run


def payload_length(_):
    def run(test):
        length = reference.payload_length(test.take("plaintext_length"))
        return lambda: same(length, test.take("payload_length"))

    return run


def keyring_document(group):
    root = cmk_of(group.take("root"), group.where)
    same(keyring.check(root).hex().upper(), group.take("check"))
    same(keyring.mac_key(root).hex(), group.take("mac_key"))

    def run(test):
        document = keyring.read(root, test.take("text"))

        def compare():
            same(document.message().hex(), test.take("message"))
            same(document.opened(), test.take("opened"))

        return compare

    return run


def key_document(group):
    root = cmk_of(group.take("root"), group.where)

    def run(test):
        document = keyring.read_key(root, test.take("key_id"), test.take("text"))

        def compare():
            same(document.message().hex(), test.take("message"))
            same(document.opened(), test.take("opened"))

        return compare

    return run


def keyring_change(group):
    root = cmk_of(group.take("root"), group.where)

    def run(test):
        document = keyring.read(root, test.take("before"))
        for value in test.take("changes"):
            fields = Fields(value, f"{test.where}: changes")
            document.change(fields)
            fields.done()
        return lambda: same(json.loads(document.write(root)), test.take("after"))

    return run


def root_derivation(_):
    def run(test):
        key_id, version = test.take("key_id"), test.take("key_version")
        material = reference.root_material(test.hex("k"), key_id, version)

        def compare():
            same(material.hex(), test.take("material"))
            same(keyring.check(reference.Cmk(key_id, version, material)).hex().upper(), test.take("check"))

        return compare

    return run


TYPES = {
    "BlobParse": blob_parse,
    "BlobOpen": blob_open,
    "BlobSeal": blob_seal,
    "Cmk": cmk_only,
    "Context": context,
    "ContextJson": context_json,
    "KeyDocument": key_document,
    "KeyringChange": keyring_change,
    "KeyringDocument": keyring_document,
    "PayloadLength": payload_length,
    "PayloadOpen": payload_open,
    "PayloadRewrap": payload_rewrap,
    "PayloadSeal": payload_seal,
    "PayloadSegment": payload_segment,
    "RootDerivation": root_derivation,
}


def run_test(run, test, known_flags, used_flags):
    test.take("comment")
    flags = test.take("flags")
    if not flags or not set(flags) <= known_flags:
        raise Failed(f"{test.where}: unknown flags {flags}")
    used_flags |= set(flags)
    result = test.take("result")
    if result not in ("valid", "invalid"):
        raise Failed(f"{test.where}: an unknown result {result!r}")
    expected = test.take("error") if result == "invalid" else None
    try:
        compare = run(test)
        found = None
    except Refused as refused:
        found = refused.error
    if found != expected:
        raise Failed(f"{test.where}: {found or 'accepted'}, expected {expected or 'to be accepted'}")
    if expected is None:
        try:
            compare()
        except Failed as failed:
            raise Failed(f"{test.where}: {failed}") from None
    test.done()


def run_file(path, level):
    file = Fields(json.loads(path.read_text("utf-8"), object_pairs_hook=once), path.name)
    same(file.take("format"), "dekseal conformance vectors")
    same(file.take("version"), 1)
    same(file.take("level"), level)
    file.take("section")
    file.take("comment")
    flags, used_flags, count = file.take("flags"), set(), 0
    for name, value in flags.items():
        flag = Fields(value, f"{path.name}: {name}")
        flag.take("section")
        flag.take("explanation")
        flag.done()
    for number, value in enumerate(file.take("groups"), 1):
        group = Fields(value, f"{path.name}: group {number}")
        group.take("comment")
        tests, kind = group.take("tests"), group.take("type")
        if kind not in TYPES:
            raise Failed(f"{group.where}: unknown type {kind!r}")
        run = TYPES[kind](group)
        group.done()
        for value in tests:
            count += 1
            test = Fields(value, f"{path.name}: test {count}")
            same(test.take("id"), count)
            run_test(run, test, flags.keys(), used_flags)
    same(used_flags, set(flags))
    same(count, file.take("number_of_tests"))
    file.done()
    return count


def once(pairs):
    """A JSON object whose names are all different."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Failed("a name occurs twice in an object")
    return value


def main():
    parser = argparse.ArgumentParser(description="Runs the conformance vectors against a Python implementation.")
    parser.add_argument("levels", nargs="*", metavar="LEVEL", help=f"one of {', '.join(LEVELS)} (default: all)")
    parser.add_argument("--vectors", type=pathlib.Path, default=pathlib.Path(__file__).parent / "vectors")
    arguments = parser.parse_args()
    for level in arguments.levels:
        if level not in LEVELS:
            parser.error(f"no level {level!r}: there are {', '.join(LEVELS)}")
    try:
        if sorted(path.name for path in arguments.vectors.iterdir()) != sorted(f"{level}.json" for level in LEVELS):
            raise Failed(f"{arguments.vectors} does not have one file for each level")
        for level in arguments.levels or LEVELS:
            print(f"{level}: {run_file(arguments.vectors / f'{level}.json', level)} tests passed")
    except (Failed, OSError, ValueError) as failed:
        sys.exit(f"failed: {failed}")


if __name__ == "__main__":
    main()
