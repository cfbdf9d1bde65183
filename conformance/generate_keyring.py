"""The vectors of keyring documents (FORMAT.md C and D2), for generate.py.

A document is changed, and where that takes a correct MAC it gets one: the MAC key is in tests/vectors/keyring.json. One
refusal needs material that is sealed with a wrong padding. `sealed` makes it, after it reproduced a known answer.
"""

import copy
import hashlib
import hmac
import json
from datetime import datetime, timezone

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from generated import File


def mac(key, message):
    return hmac.digest(key, message, "sha256")


def expand(key, info):
    """HKDF-Expand for L = 32: one block."""
    return mac(key, info + b"\1")


def wrap_key(key_id, key_version, material):
    """A4."""
    trailer = key_id.encode() + key_version.to_bytes(4, "little")
    return expand(mac(b"dekseal/v2", material), b"dekseal/v2 wrap" + trailer)


def check(key_id, key_version, material):
    """C1."""
    return expand(wrap_key(key_id, key_version, material), b"dekseal/v2 keyring check")


def seconds(date):
    return int(datetime.strptime(date, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp())


def message(document):
    """C3."""
    out = document["version"].to_bytes(4, "big") + bytes.fromhex(document["id"])
    out += document["generation"].to_bytes(8, "big") + len(document["keys"]).to_bytes(4, "big")
    for key in document["keys"]:
        state = ["enabled", "disabled", "pending_deletion"].index(key["state"])
        deletion = seconds(key["deletion"]) if key.get("deletion") else 0
        out += key["key_id"].encode() + state.to_bytes(1, "big") + deletion.to_bytes(8, "big")
        out += key["min_version"].to_bytes(4, "big") + len(key["versions"]).to_bytes(4, "big")
        for version in key["versions"]:
            out += version["version"].to_bytes(4, "big") + version["material_length"].to_bytes(1, "big")
            out += seconds(version["created"]).to_bytes(8, "big") + bytes.fromhex(version["sealed"])
    return out


FLAGS = {
    "Basic": ("C2", "A plain case."),
    "Free": ("C2", "What C2 leaves open: white space, the order of fields, the case of hex, gaps between versions."),
    "Truncated": ("C5 step 2", "The text ends within the JSON value."),
    "NotAnObject": ("C5 step 3", "The text is not one JSON object with the right `format`."),
    "Version": ("C5 step 4", "`version` is another one."),
    "Fields": ("C2", "A field is missing, unknown or repeated."),
    "Number": ("C2", "A number is an integer without sign, fraction or exponent, in its range."),
    "Hex": ("C2", "Hex has exactly the required number of digits."),
    "Date": ("C2", "A date has exactly one form."),
    "Order": ("C2", "Keys and versions stand in ascending order, each once."),
    "State": ("C2", "A state has its name, and a date of deletion only if the key is pending deletion."),
    "Versions": ("C2", "A key has at least one version, and `min_version` is not above the last."),
    "KeyId": ("C2", "A key ID has the form of A2 and is not that of the root."),
    "Root": ("C5 step 6", "The document is under another root."),
    "Mac": ("C5 step 7", "The document was changed by someone without the root: its MAC is wrong."),
    "Sealed": (
        "C5 step 8",
        "The MAC is right, but the material does not open. Only a holder of the root can make this.",
    ),
    "FirstFailure": ("C5", "Several checks would fail. The first one gives the error."),
    "KeyDocument": ("D2", "A key document is a document with exactly one key, which is stored under its key ID."),
}


def sealed(root, key_id, version, length, padded):
    """The blob of a version (C2, A4)."""
    values = {"purpose": "dekseal keyring", "key_id": key_id, "key_version": str(version),
              "material_length": str(length)}
    pairs = [part for name in sorted(values) for part in (name.encode(), values[name].encode())]
    context = len(values).to_bytes(2, "big") + b"".join(len(part).to_bytes(2, "big") + part for part in pairs)
    trailer = root["key_id"].encode() + root["key_version"].to_bytes(4, "little")
    salt_key = expand(mac(b"dekseal/v2", bytes.fromhex(root["material"])), b"dekseal/v2 salt" + trailer)
    salt = mac(salt_key, hashlib.sha256(context).digest() + padded)
    key = wrap_key(root["key_id"], root["key_version"], bytes.fromhex(root["material"]))
    key = expand(key, b"dekseal/v2 key" + salt)
    head = bytes([2, 0, 152, 0])
    body = head + salt + AESGCM(key).encrypt(salt[:12], padded, head + trailer + context) + trailer
    return (body + hashlib.sha256(body).digest()).hex().upper()


class Documents:
    """The known documents, and the material in them."""

    def __init__(self, vector):
        self.root = {
            "key_id": vector["root_key_id"],
            "key_version": vector["root_key_version"],
            "material": vector["root_material"],
        }
        self.check, self.mac_key = vector["check"], vector["mac_key"]
        self.first, self.second = vector["file"], vector["after"]["file"]
        self.changes = vector["changes"]
        self.materials = {(key["key_id"], key["version"]): key["material"] for key in vector["keys"]}
        for document, known in [(self.first, vector["message"]), (self.second, vector["after"]["message"])]:
            assert message(document).hex() == known
            assert self.signed(document) == document
        root = self.root
        assert check(root["key_id"], root["key_version"], bytes.fromhex(root["material"])).hex().upper() == self.check

    def signed(self, document):
        mac_key = bytes.fromhex(self.mac_key)
        return {**document, "mac": mac(mac_key, message(document)).hex().upper()}

    def materials_after(self):
        """The material in the document after the changes."""
        result = dict(self.materials)
        for change in self.changes:
            if change["do"] == "import_version":
                key_id = change["key_id"]
                last = max(version for of, version in self.materials if of == key_id)
                result[key_id, last + 1] = change["material"]
            elif change["do"] == "import_key":
                result[change["key_id"], 0] = change["material"]
        return result

    @staticmethod
    def opened(document, materials):
        """What a reader finds in a document."""
        keys = []
        for key in document["keys"]:
            versions = [
                {
                    "version": version["version"],
                    "created": seconds(version["created"]),
                    "material": materials[key["key_id"], version["version"]],
                }
                for version in key["versions"]
            ]
            deletion = seconds(key["deletion"]) if key.get("deletion") else None
            keys.append({"key_id": key["key_id"], "state": key["state"], "deletion": deletion,
                         "min_version": key["min_version"], "versions": versions})
        return {"id": document["id"], "generation": document["generation"], "keys": keys}


def text(document, **form):
    return json.dumps(document, **form)


def backwards(value):
    """The same JSON value with the fields of every object in reverse order."""
    if isinstance(value, dict):
        return {name: backwards(item) for name, item in reversed(value.items())}
    return [backwards(item) for item in value] if isinstance(value, list) else value


def lower_hex(value, name=None):
    if isinstance(value, dict):
        return {name: lower_hex(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [lower_hex(item, name) for item in value]
    return value.lower() if name in ("id", "check", "mac", "sealed") else value


def changed(document, path, value):
    """A copy of a document with another value at a path, or without the field."""
    document = copy.deepcopy(document)
    *outer, last = path
    inner = document
    for step in outer:
        inner = inner[step]
    if value is ABSENT:
        del inner[last]
    else:
        inner[last] = value
    return document


ABSENT = object()


def breaking_c2(file):
    """Changes that break a rule of C2: a comment, a flag, and the document."""
    key, version = ("keys", 0), ("keys", 0, "versions", 0)
    date = (*version, "created")
    for name in ("version", "id", "generation", "root", "keys", "mac"):
        yield f"no `{name}`", "Fields", changed(file, [name], ABSENT)
    for path in [("root", "check"), (*key, "min_version"), (*key, "state"), (*version, "sealed"), date]:
        yield f"no `{path[-1]}`", "Fields", changed(file, path, ABSENT)
    for where in [(), ("root",), key, version]:
        place = where[-2] if where[-1:] == (0,) else "".join(where) or "the document"
        yield f"an unknown field in {place}", "Fields", changed(file, [*where, "comment"], "x")
    for value in (7.0, "7", -1, 0, 2**64, None):
        yield f"`generation` is {json.dumps(value)}", "Number", changed(file, ["generation"], value)
    yield "`min_version` is 2^32", "Number", changed(file, [*key, "min_version"], 2**32)
    for value in (31, 65):
        yield f"`material_length` is {value}", "Number", changed(file, [*version, "material_length"], value)
    yield "`id` is one digit short", "Hex", changed(file, ["id"], file["id"][:-1])
    yield "`id` is two digits long", "Hex", changed(file, ["id"], file["id"] + "00")
    yield "`mac` has another letter", "Hex", changed(file, ["mac"], "G" + file["mac"][1:])
    yield "`sealed` is two digits short", "Hex", changed(file, [*version, "sealed"], "02" * 187)
    for value in ("2025-12-11T08:00:00+00:00", "2025-12-11t08:00:00z", "2025-12-11T08:00:00.0Z", "2025-12-11 08:00:00Z",
                  "2025-12-11T08:00Z", "2019-12-31T23:59:59Z", "2025-02-30T08:00:00Z", "10000-01-01T00:00:00Z", ""):
        yield f"`created` is {value!r}", "Date", changed(file, date, value)
    yield "`created` is a number", "Date", changed(file, date, 1765440000)
    keys = file["keys"]
    yield "keys in another order", "Order", changed(file, ["keys"], [keys[1], keys[0], *keys[2:]])
    yield "a key twice", "Order", changed(file, ["keys"], [keys[0], *keys])
    versions = keys[0]["versions"]
    yield "versions in another order", "Order", changed(file, [*key, "versions"], versions[::-1])
    yield "a version twice", "Order", changed(file, [*key, "versions"], [versions[0], *versions])
    yield "no versions", "Versions", changed(file, [*key, "versions"], [])
    yield "`min_version` above the last version", "Versions", changed(file, [*key, "min_version"], 3)
    yield "an unknown state", "State", changed(file, [*key, "state"], "Enabled")
    yield "pending deletion without a date", "State", changed(file, [*key, "state"], "pending_deletion")
    yield "enabled with a date of deletion", "State", changed(file, [*key, "deletion"], "2027-02-14T08:00:00Z")
    yield "a malformed key ID", "KeyId", changed(file, [*key, "key_id"], keys[0]["key_id"].upper())
    root_id = file["root"]["key_id"]
    yield "a key with the ID of the root", "KeyId", changed(file, [*key, "key_id"], root_id)
    yield "a malformed ID of the root", "KeyId", changed(file, ["root", "key_id"], root_id[:-1])


def refused(known):
    """Refused texts: a comment, flags, the error, and the text."""
    file = known.first
    whole = text(file)
    for part in (1, len(whole) // 2, len(whole) - 1):
        yield f"the first {part} characters", ["Truncated"], "truncated", whole[:part]
    for comment, wrong in [
        ("no JSON", "dekseal keyring"),
        ("an array", "[" + whole + "]"),
        ("null", "null"),
        ("something behind the object", whole + "{}"),
        ("a byte order mark", "\ufeff" + whole),
        ("another format", text({**file, "format": "dekseal Keyring"})),
        ("no format", text(changed(file, ["format"], ABSENT))),
    ]:
        yield comment, ["NotAnObject"], "not_a_keyring", wrong
    yield "another format and version", ["NotAnObject", "FirstFailure"], "not_a_keyring", text(
        {**file, "format": "something else", "version": 2})
    yield "version 2", ["Version"], "unknown_format", text({**file, "version": 2})
    yield "version 0", ["Version"], "unknown_format", text({**file, "version": 0})
    yield "version 2 with an unknown field", ["Version", "FirstFailure"], "unknown_format", text(
        {**file, "version": 2, "new": 1})
    head = '{"format": "dekseal keyring", "version": '
    for other in ("1", '"\\ud800"', "1e999", "[" * 300 + "]" * 300, '{"a": 1, "a": 1}'):
        comment = "deep arrays" if len(other) > 100 else other
        yield f"version 2 and {comment}", ["Version"], "unknown_format", f'{head}2, "x": {other}}}'
        yield f"version 1 and {comment}", ["Fields"], "not_a_keyring", f'{head}1, "x": {other}}}'
    for version in (2**32, 2**64 - 1):
        yield f"version {version}", ["Version"], "unknown_format", f"{head}{version}}}"
    for version in (str(2**64), "-1", "-0", "1.0", "2.0", "2e0", "null", '"2"', "[2]", '2, "version": 2',
                    '2, "format": "dekseal keyring"'):
        yield f"version {version}", ["Version", "Number"], "not_a_keyring", f"{head}{version}}}"
    for comment, flag, document in breaking_c2(file):
        yield comment, [flag], "not_a_keyring", text(document)
    for comment, field, value in [("a fraction", "generation", "7.0"), ("an exponent", "generation", "7e0"),
                                  ("a sign", "generation", "-0")]:
        whole = text(file).replace(f'"{field}": 7', f'"{field}": {value}')
        assert whole != text(file)
        yield f"`{field}` with {comment}", ["Number"], "not_a_keyring", whole
    twice = text(file).replace('"generation": 7', '"generation": 7, "generation": 7')
    yield "`generation` twice", ["Fields"], "not_a_keyring", twice
    yield "`mac` twice", ["Fields"], "not_a_keyring", text(file)[:-1] + f', "mac": "{file["mac"]}"}}'

    wrong = "00" * 32
    for comment, path, value in [("another version of the root", "key_version", 1), ("another check", "check", wrong),
                                 ("another ID of the root", "key_id", "00000000-0000-0000-0000-0000000other")]:
        yield comment, ["Root"], "wrong_root", text(changed(file, ["root", path], value))
    yield "another check and another MAC", ["Root", "FirstFailure"], "wrong_root", text(
        changed({**file, "mac": wrong}, ["root", "check"], wrong))
    yield "an unknown field and another check", ["Fields", "FirstFailure"], "not_a_keyring", text(
        changed({**file, "comment": ""}, ["root", "check"], wrong))
    first = ("keys", 0)
    for comment, path, value in [
        ("another MAC", ("mac",), wrong),
        ("another ID", ("id",), "00" * 16),
        ("a higher generation", ("generation",), 8),
        ("no keys", ("keys",), []),
        ("a lower minimum", (*first, "min_version"), 0),
        ("a disabled key is enabled", ("keys", 1, "state"), "enabled"),
        ("a later deletion", ("keys", 2, "deletion"), "2027-02-14T08:00:01Z"),
        ("another date", (*first, "versions", 0, "created"), "2025-12-11T08:00:01Z"),
        ("another length", (*first, "versions", 0, "material_length"), 33),
        ("another version number", (*first, "versions", 2, "version"), 3),
        ("a version is missing", (*first, "versions"), file["keys"][0]["versions"][1:]),
        ("sealed material of another version", (*first, "versions", 0, "sealed"),
         file["keys"][0]["versions"][1]["sealed"]),
    ]:
        document = changed(file, path, value)
        yield comment, ["Mac"], "changed", text(document)
        if comment in ("another length", "another version number", "sealed material of another version"):
            yield f"{comment}, with a correct MAC", ["Sealed"], "changed", text(known.signed(document))
    blob = file["keys"][1]["versions"][0]["sealed"]
    for comment, digits in [("a damaged blob", blob[:-2] + "00"), ("no blob at all", "00" * 188)]:
        document = changed(file, ["keys", 1, "versions", 0, "sealed"], digits)
        yield f"{comment} of a disabled key, with a correct MAC", ["Sealed"], "changed", text(known.signed(document))
    key = file["keys"][0]
    number, length = key["versions"][0]["version"], key["versions"][0]["material_length"]
    material = bytes.fromhex(known.materials[key["key_id"], number])
    inputs = (known.root, key["key_id"], number, length)
    assert sealed(*inputs, material.ljust(64, b"\0")) == key["versions"][0]["sealed"]
    for place in (length, 63):
        padded = bytearray(material.ljust(64, b"\0"))
        padded[place] = 1
        document = changed(file, ["keys", 0, "versions", 0, "sealed"], sealed(*inputs, bytes(padded)))
        yield f"padding with a 1 at {place}, with a correct MAC", ["Sealed"], "changed", text(known.signed(document))


def keyring_open(vector):
    known = Documents(vector)
    file = File("keyring_open", "C5 and D2", "Keyring documents and key documents that are read.", FLAGS)
    group = file.group("KeyringDocument", "Documents under their root. `check` and `mac_key` are those of C1.",
                       root=known.root, check=known.check, mac_key=known.mac_key)

    def opens(group, comment, flags, document, written, materials, **inputs):
        group.valid(comment, flags, **inputs, text=written, message=message(document).hex(),
                    opened=Documents.opened(document, materials))

    first, materials = known.first, known.materials
    opens(group, "the first document", ["Basic"], first, text(first, indent=1), materials)
    opens(group, "the document after changes", ["Basic"], known.second, text(known.second), known.materials_after())
    opens(group, "without white space", ["Free"], first, text(first, separators=(",", ":")), materials)
    opens(group, "with white space behind it", ["Free"], first, text(first) + "\r\n\t \n", materials)
    opens(group, "fields in reverse order", ["Free"], first, text(backwards(first)), materials)
    opens(group, "hex in lower case", ["Free"], first, text(lower_hex(first)), materials)
    opens(group, "null in place of no date", ["Free"], first, text(changed(first, ["keys", 0, "deletion"], None)),
          materials)
    empty = known.signed({**first, "keys": []})
    opens(group, "no keys", ["Basic"], empty, text(empty), materials)
    latest = known.signed({**first, "generation": 2**64 - 1})
    opens(group, "the highest generation", ["Number"], latest, text(latest), materials)
    gap = known.signed(changed(first, ["keys", 0, "versions"], first["keys"][0]["versions"][::2]))
    opens(group, "a gap between versions", ["Free"], gap, text(gap), materials)
    for comment, flags, error, written in refused(known):
        group.invalid(comment, flags, error, text=written)

    other = "another root"
    for comment, change in [("other material", {"material": "07" * 48}), ("another version", {"key_version": 1}),
                            ("another ID", {"key_id": "00000000-0000-0000-0000-0000000other"})]:
        root = {**known.root, **change}
        made = check(root["key_id"], root["key_version"], bytes.fromhex(root["material"])).hex().upper()
        group = file.group("KeyringDocument", f"{other}: {comment}", root=root, check=made, mac_key=mac_key_of(root))
        group.invalid(f"under {other}", ["Root"], "wrong_root", text=text(first))

    group = file.group("KeyDocument", "Documents of one key, stored under a key ID.", root=known.root)
    for number, key in enumerate(first["keys"]):
        identity = hashlib.shake_256(f"key document {number}".encode()).hexdigest(16).upper()
        document = known.signed({**first, "id": identity, "generation": number + 1, "keys": [key]})
        opens(group, f"key {number}", ["KeyDocument"], document, text(document), materials, key_id=key["key_id"])
    group.invalid("the document of another key", ["KeyDocument"], "changed", key_id=first["keys"][0]["key_id"],
                  text=text(document))
    group.invalid("a document of four keys", ["KeyDocument"], "changed", key_id=first["keys"][0]["key_id"],
                  text=text(first))
    group.invalid("a document without keys", ["KeyDocument"], "changed", key_id=first["keys"][0]["key_id"],
                  text=text(empty))
    return file


def mac_key_of(root):
    """C1."""
    key = wrap_key(root["key_id"], root["key_version"], bytes.fromhex(root["material"]))
    return expand(key, b"dekseal/v2 keyring").hex()


def keyring_write(vector):
    known = Documents(vector)
    flags = {"Changes": ("C", "What is done to keys, and every value of the document that is written then.")}
    file = File("keyring_write", "C2 and C3", "Documents that are written after changes.", flags)
    group = file.group("KeyringChange", "The changes make one new generation. Dates are seconds since 1970.",
                       root=known.root)
    group.valid("all changes at once", ["Changes"], before=text(known.first), changes=known.changes, after=known.second)
    return file
