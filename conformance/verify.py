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
import kit
import reference
from kit import LEVELS, Failed, Fields, joined, same


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


# For each type, a function as kit.py describes it. It raises `Refused` where the format refuses.


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
        payload = joined(test, base)
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


def run_file(path, level):
    return kit.run_file(path, level, TYPES)


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
