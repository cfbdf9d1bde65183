"""docs/FORMAT.md part C and D2 in Python, made from that text: see reference.py."""

import hmac
import json
import re
from datetime import datetime, timezone

from reference import KEY_ID, Refused, canonical, expand, mac, open_blob, require

STATES = ["enabled", "disabled", "pending_deletion"]
FORMAT = "dekseal keyring"


# C1


def check(root):
    return expand(root.wrap_key, b"dekseal/v2 keyring check")


def mac_key(root):
    return expand(root.wrap_key, b"dekseal/v2 keyring")


# C2


def well_formed(condition):
    require(condition, "not_a_keyring")


class Object(dict):
    """A JSON object that knows which names occurred twice."""

    def __init__(self, pairs):
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.repeated = {name for name in names if names.count(name) > 1}


class NotAnInteger(float):
    """A number with a sign, a fraction or an exponent, which C2 does not allow."""


def fields(value, names, optional=()):
    well_formed(isinstance(value, Object) and not value.repeated)
    well_formed(set(names) <= value.keys() <= set(names) | set(optional))
    return [value.get(name) for name in (*names, *optional)]


def number(value, least, most):
    well_formed(type(value) is int and least <= value <= most)
    return value


def from_hex(value, length):
    well_formed(isinstance(value, str) and re.fullmatch(f"[0-9A-Fa-f]{{{2 * length}}}", value, re.ASCII))
    return bytes.fromhex(value)


def key_id(value):
    well_formed(isinstance(value, str) and KEY_ID.fullmatch(value.encode("utf-8", "surrogatepass")))
    return value


def seconds(value):
    well_formed(isinstance(value, str))
    well_formed(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value, re.ASCII))
    try:
        date = datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        raise Refused("not_a_keyring") from None
    well_formed(date.year >= 2020)
    return int(date.timestamp())


def date(number):
    return datetime.fromtimestamp(number, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def ascending(values):
    well_formed(all(one < next for one, next in zip(values, values[1:])))


def items(value):
    well_formed(isinstance(value, list))
    return value


class Version:
    """A version of a key."""

    def __init__(self, version, created, material=None, length=None, sealed=None):
        self.version, self.created, self.material = version, created, material
        self.length, self.sealed = length or len(material), sealed

    @classmethod
    def parsed(cls, value):
        version, created, length, sealed = fields(value, ("version", "created", "material_length", "sealed"))
        return cls(number(version, 0, 2**32 - 1), seconds(created), None, number(length, 32, 64), from_hex(sealed, 188))

    def context(self, key):
        return canonical({
            "purpose": "dekseal keyring",
            "key_id": key.key_id,
            "key_version": str(self.version),
            "material_length": str(self.length),
        }.items())

    def seal(self, root, key):
        self.sealed, _ = root.seal(self.context(key), self.material.ljust(64, b"\0"))

    def open(self, root, key):
        """C5, step 8."""
        try:
            padded = open_blob([root], root.key_id, self.context(key), self.sealed)
        except Refused:
            raise Refused("changed") from None
        self.material, padding = padded[:self.length], padded[self.length:]
        require(not any(padding), "changed")


class Key:
    """A key with its versions."""

    def __init__(self, key_id, state, deletion, min_version, versions):
        self.key_id, self.state, self.deletion = key_id, state, deletion
        self.min_version, self.versions = min_version, versions

    @classmethod
    def parsed(cls, value, root_id):
        names = ("key_id", "state", "min_version", "versions")
        own_id, state, min_version, versions, deletion = fields(value, names, ("deletion",))
        well_formed(key_id(own_id) != root_id)
        well_formed(isinstance(state, str) and state in STATES)
        well_formed((deletion is not None) == (state == "pending_deletion"))
        versions = [Version.parsed(version) for version in items(versions)]
        well_formed(versions)
        ascending([version.version for version in versions])
        min_version = number(min_version, 0, versions[-1].version)
        return cls(own_id, state, None if deletion is None else seconds(deletion), min_version, versions)


class Document:
    """A document whose fields follow C2."""

    def __init__(self, identity, generation, keys):
        self.version, self.id, self.generation, self.keys = 1, identity, generation, keys

    @classmethod
    def parsed(cls, value):
        names = ("format", "version", "id", "generation", "root", "keys", "mac")
        _, _, identity, generation, root, keys, mac = fields(value, names)
        identity, generation = from_hex(identity, 16), number(generation, 1, 2**64 - 1)
        root_id, root_version, check = fields(root, ("key_id", "key_version", "check"))
        key_id(root_id)
        root_version, check = number(root_version, 0, 2**32 - 1), from_hex(check, 32)
        keys = [Key.parsed(key, root_id) for key in items(keys)]
        ascending([key.key_id for key in keys])
        document = cls(identity, generation, keys)
        document.root_id, document.root_version, document.check = root_id, root_version, check
        document.mac = from_hex(mac, 32)
        return document

    def message(self):
        """C3."""
        out = self.version.to_bytes(4, "big") + self.id + self.generation.to_bytes(8, "big")
        out += len(self.keys).to_bytes(4, "big")
        for key in self.keys:
            out += key.key_id.encode() + bytes([STATES.index(key.state)]) + (key.deletion or 0).to_bytes(8, "big")
            out += key.min_version.to_bytes(4, "big") + len(key.versions).to_bytes(4, "big")
            for version in key.versions:
                out += version.version.to_bytes(4, "big") + bytes([version.length])
                out += version.created.to_bytes(8, "big") + version.sealed
        return out

    def opened(self):
        """What a reader knows."""
        return {
            "id": self.id.hex().upper(),
            "generation": self.generation,
            "keys": [
                {
                    "key_id": key.key_id,
                    "state": key.state,
                    "deletion": key.deletion,
                    "min_version": key.min_version,
                    "versions": [
                        {"version": v.version, "created": v.created, "material": v.material.hex()}
                        for v in key.versions
                    ],
                }
                for key in self.keys
            ],
        }

    def change(self, change):
        """Applies one change of KeyringChange, whose fields it takes."""
        kind, own_id = change.take("do"), change.take("key_id")
        [key] = [key for key in self.keys if key.key_id == own_id] or [None]
        if kind == "import_version":
            version = key.versions[-1].version + 1
            key.versions.append(Version(version, change.take("now"), change.hex("material")))
        elif kind == "set_min_version":
            key.min_version = change.take("version")
        elif kind == "destroy_versions":
            first_kept = change.take("version")
            key.versions = [version for version in key.versions if version.version >= first_kept]
        elif kind in ("enable", "disable"):
            key.state = f"{kind}d"
        elif kind == "schedule_deletion":
            key.state, key.deletion = "pending_deletion", change.take("now") + change.take("days") * 86_400
        elif kind == "purge":
            assert key.state == "pending_deletion" and key.deletion <= change.take("now")
            self.keys.remove(key)
        elif kind == "import_key":
            assert key is None
            made = Version(0, change.take("now"), change.hex("material"))
            self.keys.append(Key(own_id, "enabled", None, 0, [made]))
            self.keys.sort(key=lambda key: key.key_id)
        else:
            raise ValueError(f"an unknown change: {kind}")

    def write(self, root):
        """The text of the next generation."""
        self.generation += 1
        keys = []
        for key in self.keys:
            for version in key.versions:
                version.seal(root, key)
            deletion = {} if key.deletion is None else {"deletion": date(key.deletion)}
            keys.append({"key_id": key.key_id, "state": key.state, **deletion, "min_version": key.min_version,
                         "versions": [
                             {"version": v.version, "created": date(v.created), "material_length": v.length,
                              "sealed": v.sealed.hex().upper()}
                             for v in key.versions
                         ]})
        return json.dumps({
            "format": FORMAT,
            "version": self.version,
            "id": self.id.hex().upper(),
            "generation": self.generation,
            "root": {"key_id": root.key_id, "key_version": root.version, "check": check(root).hex().upper()},
            "keys": keys,
            "mac": mac(mac_key(root), self.message()).hex().upper(),
        })


# C5


def no_constant(name):
    raise ValueError(f"{name} is no JSON")


def integer(digits):
    return NotAnInteger(digits) if digits.startswith("-") else int(digits)


DECODER = json.JSONDecoder(object_pairs_hook=Object, parse_int=integer, parse_float=NotAnInteger,
                           parse_constant=no_constant)


def read(root, text):
    require(len(text.encode()) <= 64 * 2**20, "too_large")
    start = len(text) - len(text.lstrip(" \t\r\n"))
    try:
        value, end = DECODER.raw_decode(text, start)
    except ValueError:
        require(not is_open(text), "truncated")
        raise Refused("not_a_keyring") from None
    well_formed(not text[end:].strip(" \t\r\n"))
    well_formed(isinstance(value, Object) and value.get("format") == FORMAT)
    version = value.get("version")
    well_formed(type(version) is int and version < 2**64 and not value.repeated & {"format", "version"})
    require(version == 1, "unknown_format")
    document = Document.parsed(value)
    same_root = (document.root_id, document.root_version) == (root.key_id, root.version)
    require(same_root and hmac.compare_digest(document.check, check(root)), "wrong_root")
    require(hmac.compare_digest(document.mac, mac(mac_key(root), document.message())), "changed")
    for key in document.keys:
        for version in key.versions:
            version.open(root, key)
    return document


def is_open(text):
    """Whether a string, an array or an object has no end in the text."""
    open_brackets, in_string, escaped = 0, False, False
    for character in text:
        if in_string:
            in_string, escaped = escaped or character != '"', character == "\\" and not escaped
        elif character == '"':
            in_string = True
        else:
            open_brackets += (character in "{[") - (character in "}]")
    return in_string or open_brackets > 0


# D2


def read_key(root, own_id, text):
    document = read(root, text)
    require([key.key_id for key in document.keys] == [own_id], "changed")
    return document
