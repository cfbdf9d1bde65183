#!/usr/bin/env python3
"""Writes conformance/vectors from tests/vectors.

Every known answer comes from tests/vectors, or is put together from bytes of known answers. Every expected refusal
follows from docs/FORMAT.md. Long payloads, of which tests/vectors has only the SHA-256, and one refusal have to be
encrypted here: with the package cryptography, and compared with a known answer.

    python3 conformance/generate.py [DIRECTORY]
"""

import hashlib
import hmac
import json
import pathlib
import sys

import generate_keyring
import generate_payload
from generated import File

ROOT = pathlib.Path(__file__).resolve().parent.parent


def known(name):
    return json.loads((ROOT / "tests/vectors" / f"{name}.json").read_text("utf-8"))


# How blob_invalid.json names the steps of A5.
ERRORS = {
    "blob": "not_a_blob",
    "key_id": "malformed_key_id",
    "checksum": "damaged_blob",
    "key_mismatch": "key_mismatch",
    "unknown_key": "unknown_key",
    "unknown_version": "unknown_key_version",
    "authentication": "authentication_failed",
}
# The errors of steps 1 to 3, which need no key.
OF_THE_FRAME = ("not_a_blob", "malformed_key_id", "damaged_blob")


def blob_flags(name):
    """The flags of an invalid blob, from its name."""
    for start, flags in [
        (("cut to", "one byte more", "twice"), ["BlobLength"]),
        (("version changed, checksum not", "checksum", "salt changed"), ["Checksum"]),
        (("version ",), ["BlobVersion"]),
        (("body length",), ["BodyLength"]),
        (("bad key id and bad checksum",), ["KeyId", "Order"]),
        (("upper-case", "hyphen", "non-ascii", "nul in", "newline in"), ["KeyId"]),
        (("another key expected",), ["ExpectedKey"]),
        (("unknown",), ["UnknownKey"]),
        (("bit of byte",), ["Modified"]),
        (("key version swapped", "key id swapped", "wrong material", "material one bit"), ["WrongKey"]),
        (("opened with", "sealed without", "boundary shift", "nfc opened"), ["WrongContext"]),
        (("the tag holds", "a true salt", "salt of one"), ["Commitment"]),
        (("aad", "context left out", "header left out", "trailer left out"), ["AssociatedData"]),
        (("no label", "salt_key and wrap_key"), ["KeyDerivation"]),
    ]:
        if name.startswith(start):
            return flags
    raise ValueError(f"no flag for {name!r}")


def seal_flags(name):
    for start, flag in [
        ("no context", "Basic"),
        ("the example context", "Basic"),
        ("material of", "MaterialLength"),
        ("key version", "KeyVersion"),
        ("key id beyond", "KeyId"),
        ("zero dek", "DekValue"),
        ("ff dek", "DekValue"),
        ("unicode", "Context"),
        ("utf-16", "Context"),
        ("one material, two key ids", "KeySeparation"),
        ("random", "Random"),
    ]:
        if name.startswith(start):
            return [flag]
    raise ValueError(f"no flag for {name!r}")


BLOB_FLAGS = {
    "Basic": ("A4", "A plain case."),
    "MaterialLength": ("A4", "CMK material has 32 to 64 bytes. Longer material must not be cut or hashed first."),
    "KeyVersion": ("A1", "The key version is an unsigned 32-bit little-endian number, up to 4294967295."),
    "KeyId": ("A2", "The form of a key ID: the letters go up to z, and nothing but lower case is accepted."),
    "DekValue": ("A4", "Every DEK of 64 bytes can be sealed."),
    "Context": ("A3", "The context has characters outside ASCII, or an order that UTF-16 gets wrong."),
    "KeySeparation": ("A4", "Equal material under two key IDs gives unrelated keys."),
    "Random": ("A4", "Random inputs."),
    "BlobLength": ("A5 step 1", "A blob has exactly 188 bytes."),
    "BlobVersion": ("A5 step 1", "The version is 2."),
    "BodyLength": ("A5 step 1", "The body length is 152."),
    "Checksum": ("A5 step 3", "The checksum covers bytes 0 to 156."),
    "Order": ("A5", "Two checks would fail. The first one gives the error."),
    "ExpectedKey": ("A5 step 4", "The blob names another key than the caller expects."),
    "UnknownKey": ("A5 step 5", "The keyring has no such key, or no such version of the key."),
    "Modified": ("A5 step 6", "A part of the blob was changed and the checksum repaired, as an attacker can."),
    "WrongKey": ("A5 step 6", "The blob was sealed under another key, another version or other material."),
    "WrongContext": ("A5 step 6", "The blob was sealed in another context."),
    "Commitment": (
        "A5 step 7",
        "Whoever made the blob has the keys. The salt is not that of the decrypted DEK, or not used as A4 says. "
        "Some of these blobs have a correct tag: an implementation that omits step 7 accepts them.",
    ),
    "AssociatedData": ("A4", "The tag was made with a part of the associated data missing."),
    "KeyDerivation": ("A4", "The blob was sealed under keys that are derived in another way."),
    "PublicSample": (
        "A1",
        "A published example of another service that uses the same frame. It parses, and opens under no key.",
    ),
}


def open_test(blob, context, expected_key_id, **result):
    return {"blob": blob, "context": context, "expected_key_id": expected_key_id, **result}


def parsed(blob):
    """What A1 says about the bytes of a blob."""
    raw = bytes.fromhex(blob)
    return {"key_id": raw[116:152].decode("ascii"), "key_version": int.from_bytes(raw[152:156], "little")}


def parse():
    sealed, refused, samples = known("blob"), known("blob_invalid"), known("public_samples")
    file = File("parse", "A5 steps 1 to 3", "Blobs that are parsed without any key.", BLOB_FLAGS)
    group = file.group("BlobParse", "Blobs of this kit. Most of those that must not open have a correct frame.")
    for v in sealed:
        group.valid(v["name"], seal_flags(v["name"]), blob=v["blob"], **parsed(v["blob"]))
    for v in refused["invalid"]:
        error, flags = ERRORS[v["error"]], blob_flags(v["name"])
        if error in OF_THE_FRAME:
            group.invalid(v["name"], flags, error, blob=v["blob"])
        else:
            group.valid(f"{v['name']}: has a correct frame", flags, blob=v["blob"], **parsed(v["blob"]))
    group = file.group("BlobParse", samples["source"])
    for v in samples["samples"]:
        blob = v["cipher_text"].lower()
        if v["bytes"] == 188:
            assert parsed(blob) == {"key_id": v["key_id"], "key_version": 0}
            group.valid(v["operation"], ["PublicSample"], blob=blob, **parsed(blob))
        else:
            group.invalid(v["operation"], ["PublicSample", "BlobLength"], "not_a_blob", blob=blob)
    return file


def cmk(v):
    return {"key_id": v["key_id"], "key_version": v["key_version"], "material": v["material"]}


def named(v):
    return v["key_id"], v["key_version"]


def opening():
    sealed, refused, samples = known("blob"), known("blob_invalid"), known("public_samples")
    file = File("open", "A5", "Blobs that are opened with the keys of a keyring.", BLOB_FLAGS)
    groups = []
    for v in sealed:
        # A keyring has one material for each version of a key. Two of the vectors differ there.
        same = [number for number, (keys, _) in enumerate(groups) if keys.setdefault(named(v), cmk(v)) == cmk(v)]
        if not same:
            groups.append(({named(v): cmk(v)}, []))
        groups[same[0] if same else -1][1].append(v)
    for keys, vectors in groups:
        group = file.group("BlobOpen", "Blobs that open.", keys=list(keys.values()))
        for v in vectors:
            group.valid(v["name"], seal_flags(v["name"]),
                        **open_test(v["blob"], v["context"], v["key_id"], dek=v["dek"]))
    group = file.group("BlobOpen", "Blobs that do not open, and one that does.", keys=refused["keys"])
    v = refused["valid"]
    group.valid("the blob that the others are made from", ["Basic"],
                **open_test(v["blob"], v["context"], v["key_id"], dek=v["dek"]))
    for v in refused["invalid"]:
        group.invalid(v["name"], blob_flags(v["name"]), ERRORS[v["error"]],
                      **open_test(v["blob"], v["context"], v["expected_key_id"]))
    keys = [{"key_id": samples["samples"][0]["key_id"], "key_version": 0, "material": "07" * 32}]
    group = file.group("BlobOpen", "Blobs of another service. The material stands for any material.", keys=keys)
    for v in samples["samples"]:
        if v["bytes"] == 188:
            group.invalid(v["operation"], ["PublicSample"], "authentication_failed",
                          **open_test(v["cipher_text"].lower(), {}, v["key_id"]))
    return file


def seal():
    file = File("seal", "A4", "Sealing, which is a function of CMK, context and DEK.", BLOB_FLAGS)
    group = file.group("BlobSeal", "Sealed DEKs, with the values in between.")
    for v in known("blob"):
        between = {name: v[name] for name in ("prk", "salt_key", "wrap_key", "aad", "salt", "key")}
        group.valid(v["name"], seal_flags(v["name"]), **cmk(v), context=v["context"], dek=v["dek"],
                    intermediate=between, blob=v["blob"])
    group = file.group("Cmk", "Which CMKs may exist.")
    key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f"
    for length in (0, 1, 16, 31, 32, 33, 63, 64, 65, 128):
        test = {"key_id": key_id, "key_version": 0, "material": bytes(range(length)).hex()}
        if 32 <= length <= 64:
            group.valid(f"material of {length} bytes", ["MaterialLength"], **test)
        else:
            group.invalid(f"material of {length} bytes", ["MaterialLength"], "invalid_material", **test)
    for comment, wrong in [
        ("upper case", key_id.upper()),
        ("a hyphen moved", "0d0466b-0e727-4d9c-b35d-f84bb474a37f"),
        ("no hyphens", key_id.replace("-", "")),
        ("one character more", key_id + "0"),
        ("one character less", key_id[:-1]),
        ("a digit that is not of ASCII", "\N{FULLWIDTH DIGIT ZERO}" + key_id[1:]),
        ("a line break at the end", key_id[:-1] + "\n"),
        ("a line break after the end", key_id + "\n"),
        ("braces", "{" + key_id[1:-1] + "}"),
        ("nothing", ""),
    ]:
        test = {"key_id": wrong, "key_version": 0, "material": "07" * 32}
        group.invalid(f"key ID: {comment}", ["KeyId"], "malformed_key_id", **test)
    return file


CONTEXT_FLAGS = {
    "Empty": ("A3", "No pairs give no bytes."),
    "Basic": ("A3", "A plain case."),
    "Order": ("A3", "Pairs are sorted by the bytes of their keys, a prefix first."),
    "Utf16Order": ("A3", "Sorting by UTF-16 code units would give another order than sorting by bytes."),
    "Lengths": ("A3", "Lengths count bytes of UTF-8 and keep keys and values apart."),
    "EmptyValue": ("A3", "A value may be empty."),
    "AsGiven": ("A3", "Nothing is normalized, trimmed or case-folded, and NUL is a character like any other."),
    "Limit": ("A3", "Keys and values have at most 8192 characters (Unicode scalar values) together."),
    "EmptyKey": ("A3", "A key is not empty."),
    "DuplicateKey": ("A3", "No key occurs twice, after escapes are decoded."),
    "Random": ("A3", "Random inputs."),
    "Escapes": ("A3", "The JSON text has escapes, among them surrogate pairs."),
    "NotAString": ("A3", "Every value is a string."),
    "LoneSurrogate": ("A3", "Half of a surrogate pair is no character."),
    "NotAnObject": ("A3", "A context is a JSON object. `null` is not the same as no context."),
}


def context_flags(name):
    if name.startswith("random"):
        return ["Random"]
    return {
        "none": ["Empty"],
        "another order": ["Order"],
        "empty value": ["EmptyValue"],
        "nul": ["AsGiven"],
        "prefix first": ["Order"],
        "boundary one": ["Lengths"],
        "boundary two": ["Lengths"],
        "utf-8 lengths": ["Lengths"],
        "utf-8 against utf-16 order": ["Order", "Utf16Order"],
        "nfc": ["AsGiven"],
        "nfd": ["AsGiven"],
        "white space": ["AsGiven"],
        "upper case sorts first": ["Order"],
        "8192 ascii characters": ["Limit"],
        "8192 four-byte characters": ["Limit"],
        "4096 one-character keys and values": ["Limit", "Order"],
    }.get(name, ["Basic"])


def refused_context_flags(name):
    return {
        "empty key": ["EmptyKey"],
        "8193 characters": ["Limit"],
        "duplicate key": ["DuplicateKey"],
        "duplicate key after unescaping": ["DuplicateKey", "Escapes"],
        "lone surrogate": ["LoneSurrogate"],
        "null": ["NotAnObject"],
        "array": ["NotAnObject"],
        "string": ["NotAnObject"],
    }.get(name, ["NotAString"])


def contexts():
    """Each known context as a list of pairs, in the order of the vector, and its result."""
    for v in known("context")["valid"]:
        if "repeat" in v:
            (key, of_key), (value, of_value) = v["repeat"]["key"], v["repeat"]["value"]
            pairs = [[key * of_key, value * of_value]]
        else:
            pairs = [[key, value] for key, value in v["context"].items()]
        result = {"canonical_length": v["canonical_length"], "canonical_sha256": v["canonical_sha256"]}
        if "canonical" in v:
            result["canonical"] = v["canonical"]
        yield v["name"], pairs, result


def pairs_of(text):
    """The pairs of a JSON object of strings, with repeated keys, or None."""
    pairs = json.loads(text, object_pairs_hook=lambda pairs: ("object", pairs))
    if not isinstance(pairs, tuple) or not all(isinstance(value, str) for _, value in pairs[1]):
        return None
    characters = "".join(key + value for key, value in pairs[1])
    if any(0xD800 <= ord(character) < 0xE000 for character in characters):
        return None
    return [[key, value] for key, value in pairs[1]]


def context():
    file = File("context", "A3", "Encryption contexts as pairs, and their canonical form.", CONTEXT_FLAGS)
    group = file.group("Context", "The pairs stand in the order in which a caller gives them.")
    for name, pairs, result in contexts():
        group.valid(name, context_flags(name), pairs=pairs, **result)
        if 1 < len(pairs) < 100:
            group.valid(f"{name}, reversed", context_flags(name), pairs=pairs[::-1], **result)
    for v in known("context")["invalid_json"]:
        pairs = pairs_of(v["json"])
        if pairs is not None:
            flags = [flag for flag in refused_context_flags(v["name"]) if flag != "Escapes"]
            group.invalid(v["name"], flags, "context", pairs=pairs)
    return file


def context_json():
    file = File("context_json", "A3", "Encryption contexts as JSON text, for implementations that read them so.",
                CONTEXT_FLAGS)
    group = file.group("ContextJson", "The text is that of the context alone.")
    for name, pairs, result in contexts():
        if result["canonical_length"] > 1000:
            continue
        for escaped in (False, True):
            text = json.dumps(dict(pairs), ensure_ascii=escaped)
            if not escaped:
                group.valid(name, context_flags(name), json=text, **result)
            elif text != json.dumps(dict(pairs), ensure_ascii=False):
                group.valid(f"{name}, escaped", [*context_flags(name), "Escapes"], json=text, **result)
    for v in known("context")["invalid_json"]:
        group.invalid(v["name"], refused_context_flags(v["name"]), "context", json=v["json"])
    return file


def root():
    flags = {
        "Basic": ("D7", "A plain case."),
        "KeyLength": ("D7", "A key of HMAC-SHA-512 may have any length. One above 128 bytes is hashed first."),
        "KeyVersion": ("D7", "The key version is big-endian here, unlike in a blob."),
        "KeyId": ("A2", "The form of a key ID."),
    }
    file = File("root", "D7", "The material of a root from a device that computes HMAC-SHA-512.", flags)
    group = file.group("RootDerivation", "`check` is that of C1, for the root with this ID, version and material.")
    root_id = "00000000-0000-0000-0000-00000000root"

    def derived(comment, flag, k, key_id, version):
        label = b"dekseal/v2 root" + key_id.encode() + version.to_bytes(4, "big")
        material = hmac.digest(k, label, "sha512")
        group.valid(comment, [flag], k=k.hex(), key_id=key_id, key_version=version, material=material.hex(),
                    check=generate_keyring.check(key_id, version, material).hex().upper())

    def k_of(length):
        return hashlib.shake_256(b"dekseal root vector").digest(length)

    derived("the first version", "Basic", k_of(64), root_id, 0)
    derived("another key ID", "KeyId", k_of(64), "zzzzzzzz-0000-zzzz-0000-zzzzzzzzzzzz", 0)
    for version in (1, 256, 16909060, 4294967295):
        derived(f"key version {version}", "KeyVersion", k_of(64), root_id, version)
    for length in (16, 32, 127, 128, 129, 256):
        derived(f"a key of {length} bytes", "KeyLength", k_of(length), root_id, 0)
    derived("a key of zeros", "KeyLength", bytes(64), root_id, 0)
    group.invalid("a key ID in upper case", ["KeyId"], "malformed_key_id", k=k_of(64).hex(), key_id=root_id.upper(),
                  key_version=0)
    return file


def main():
    directory = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "conformance/vectors"
    directory.mkdir(exist_ok=True)
    payload, keyring = known("payload"), known("keyring")
    for file in [parse(), context(), context_json(), opening(), seal(), root(),
                 generate_payload.payload_open(payload), generate_payload.payload_seal(payload),
                 generate_keyring.keyring_open(keyring), generate_keyring.keyring_write(keyring)]:
        file.write(directory)


if __name__ == "__main__":
    main()
