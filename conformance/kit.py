"""Reads vector files and runs their tests: what a verifier does, whatever implementation it is for.

`run_file` takes a function for each type. It takes the inputs that the tests of a group share, and returns a function
for the tests. That one takes the inputs of a test and returns a function that compares the outputs, which only a valid
test has. It raises `Refused` where the implementation refuses. A type whose function is None is left out.
"""

import base64
import json

LEVELS = ("parse", "context", "context_json", "open", "seal", "payload_open", "payload_seal", "keyring_open",
          "keyring_write", "root")


class Refused(Exception):
    """What the implementation refuses, with the error of README.md."""

    def __init__(self, error):
        super().__init__(error)
        self.error = error


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


def joined(test, base):
    """The payload of a test, which is a list of pieces."""
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
    return payload


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


def run_file(path, level, types):
    """Runs the tests of a file. Returns how many there are."""
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
        if kind not in types:
            raise Failed(f"{group.where}: unknown type {kind!r}")
        if types[kind] is None:
            count += len(tests)
            used_flags |= {flag for test in tests for flag in test["flags"]}
            continue
        run = types[kind](group)
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
