"""docs/FORMAT.md parts A and B in Python, made from that text. It is for comparison, not for use with real keys: it
wipes nothing."""

import hashlib
import hmac
import json
import re

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from kit import Refused


def require(condition, error):
    if not condition:
        raise Refused(error)


def sha256(data):
    return hashlib.sha256(data).digest()


def mac(key, message):
    return hmac.digest(key, message, "sha256")


def expand(key, info, length=32):
    return HKDFExpand(algorithm=SHA256(), length=length, info=info).derive(key)


# A2

KEY_ID = re.compile(rb"[0-9a-z]{8}-[0-9a-z]{4}-[0-9a-z]{4}-[0-9a-z]{4}-[0-9a-z]{12}")


def key_id_bytes(text):
    raw = text.encode("utf-8", "surrogatepass")
    require(KEY_ID.fullmatch(raw), "malformed_key_id")
    return raw


# A3


def canonical(pairs):
    encoded, characters = {}, 0
    for key, value in pairs:
        require(key, "context")
        require(key.encode() not in encoded, "context")
        characters += len(key) + len(value)
        encoded[key.encode()] = value.encode()
    require(characters <= 8192, "context")
    if not encoded:
        return b""
    out = len(encoded).to_bytes(2, "big")
    for key, value in sorted(encoded.items()):
        out += len(key).to_bytes(2, "big") + key + len(value).to_bytes(2, "big") + value
    return out


class JsonObject(list):
    """The pairs of a JSON object, in the order of the text."""


def pairs_of_json(text):
    value = json.loads(text, object_pairs_hook=JsonObject)
    require(isinstance(value, JsonObject), "context")
    for key, item in value:
        require(isinstance(item, str), "context")
        for character in key + item:
            require(not 0xD800 <= ord(character) <= 0xDFFF, "context")
    return value


# A4


class Cmk:
    """One version of a CMK."""

    def __init__(self, key_id, version, material):
        require(32 <= len(material) <= 64, "invalid_material")
        self.key_id, self.version = key_id, version
        self.trailer = key_id_bytes(key_id) + version.to_bytes(4, "little")
        self.prk = mac(b"dekseal/v2", material)
        self.salt_key = expand(self.prk, b"dekseal/v2 salt" + self.trailer)
        self.wrap_key = expand(self.prk, b"dekseal/v2 wrap" + self.trailer)

    def salt(self, context, dek):
        return mac(self.salt_key, sha256(context) + dek)

    def blob_key(self, salt):
        return expand(self.wrap_key, b"dekseal/v2 key" + salt)

    def aad(self, context):
        return FRAME + self.trailer + context

    def seal(self, context, dek):
        """The blob, and the values in between."""
        assert len(dek) == 64
        salt, aad = self.salt(context, dek), self.aad(context)
        key = self.blob_key(salt)
        body = FRAME + salt + AESGCM(key).encrypt(salt[:12], dek, aad) + self.trailer
        between = {"prk": self.prk, "salt_key": self.salt_key, "wrap_key": self.wrap_key, "aad": aad, "salt": salt,
                   "key": key}
        return body + sha256(body), between

    def open(self, context, blob):
        """Steps 6 and 7 of A5."""
        try:
            dek = AESGCM(self.blob_key(blob.salt)).decrypt(blob.salt[:12], blob.sealed, self.aad(context))
        except InvalidTag:
            raise Refused("authentication_failed") from None
        require(hmac.compare_digest(self.salt(context, dek), blob.salt), "authentication_failed")
        return dek


# A1, and steps 1 to 3 of A5

FRAME = (2).to_bytes(2, "little") + (152).to_bytes(2, "little")


class Blob:
    """The fields of a blob."""

    def __init__(self, raw):
        self.salt, self.sealed, trailer = raw[4:36], raw[36:116], raw[116:156]
        self.key_id, self.key_version = trailer[:36].decode(), int.from_bytes(trailer[36:], "little")


def parse(raw):
    require(len(raw) == 188 and raw[:4] == FRAME, "not_a_blob")
    require(KEY_ID.fullmatch(raw[116:152]), "malformed_key_id")
    require(sha256(raw[:156]) == raw[156:], "damaged_blob")
    return Blob(raw)


# A5


def open_blob(keys, expected_key_id, context, raw):
    blob = parse(raw)
    require(blob.key_id == expected_key_id, "key_mismatch")
    versions = [key for key in keys if key.key_id == blob.key_id]
    require(versions, "unknown_key")
    versions = [key for key in versions if key.version == blob.key_version]
    require(versions, "unknown_key_version")
    return versions[0].open(context, blob)


# B

SEGMENT, TAG, HEADER = 65536, 16, 264
SEGMENTS = 2**32 - 1
START = b"dekseal\1" + SEGMENT.to_bytes(4, "little")


def payload_length(length):
    """B3.5 and B3.4."""
    segments = max(1, -(-length // SEGMENT))
    require(segments <= SEGMENTS, "payload_too_long")
    return HEADER + length + TAG * segments


def payload_keys(dek, start):
    """B2: the key and the commitment."""
    okm = expand(mac(b"dekseal/v2 payload", dek), start, 64)
    return okm[:32], okm[32:]


def nonce(index, last):
    return bytes(7) + index.to_bytes(4, "big") + bytes([last])


def seal_segment(key, index, last, plaintext):
    return AESGCM(key).encrypt(nonce(index, last), plaintext, None)


def open_segment(key, index, last, segment):
    try:
        return AESGCM(key).decrypt(nonce(index, last), segment, None)
    except InvalidTag:
        raise Refused("authentication_failed") from None


def seal_payload(cmk, context, dek, salt, plaintext):
    blob, _ = cmk.seal(context, dek)
    key, commitment = payload_keys(dek, START + salt)
    pieces = [plaintext[at:at + SEGMENT] for at in range(0, len(plaintext), SEGMENT)] or [b""]
    last = len(pieces) - 1
    return START + salt + blob + commitment + b"".join(
        seal_segment(key, index, index == last, piece) for index, piece in enumerate(pieces))


def check_header(payload):
    require(len(payload) >= HEADER and payload[:12] == START, "not_a_payload")


def open_payload(keys, key_id, context, payload):
    check_header(payload)
    body = payload[HEADER:]
    segments = [body[at:at + SEGMENT + TAG] for at in range(0, len(body), SEGMENT + TAG)]
    # B3.2: the length of the last segment.
    require(segments and len(segments[-1]) >= TAG + (len(segments) > 1), "not_a_payload")
    dek = open_blob(keys, key_id, context, payload[44:232])
    key, commitment = payload_keys(dek, payload[:44])
    require(hmac.compare_digest(commitment, payload[232:HEADER]), "authentication_failed")
    last = len(segments) - 1
    return b"".join(open_segment(key, index, index == last, segment) for index, segment in enumerate(segments))


def rewrap_header(keys, new, context, header):
    check_header(header)
    blob, _ = new.seal(context, open_blob(keys, new.key_id, context, header[44:232]))
    return header[:44] + blob + header[232:]


# D7


def root_material(k, key_id, version):
    return hmac.digest(k, b"dekseal/v2 root" + key_id_bytes(key_id) + version.to_bytes(4, "big"), "sha512")
