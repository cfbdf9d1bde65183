"""The vectors of payloads (FORMAT.md B), for generate.py."""

import base64
import hashlib
import hmac

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from generated import File

PAYLOAD_FLAGS = {
    "Basic": ("B1", "A plain case."),
    "Empty": ("B3.2", "The only segment of an empty payload is empty."),
    "Boundary": ("B3.2", "The last segment is full, or almost empty."),
    "Rewrapped": ("B2", "The sealed DEK was replaced by one under another CMK version. The data stays as it is."),
    "Truncated": ("B3.3", "The end is missing."),
    "Trailing": ("B3.3", "Something follows the last segment."),
    "LastFlag": ("B2", "The last segment, and only the last one, is sealed as the last."),
    "SegmentLength": ("B3.2", "A segment other than the last is not full, or the last one is empty without need."),
    "Reordered": ("B2", "Segments were exchanged, repeated or dropped."),
    "Counter": ("B2", "The counter starts at 0 and is big-endian."),
    "OtherPayload": ("B2", "A segment, a DEK or a salt of another payload."),
    "Commitment": ("B3.1", "The commitment is compared before any segment is decrypted."),
    "Header": ("B1", "The header has other constants."),
    "HighIndex": ("B2", "A single segment far behind the start. The counter has 32 bits."),
    "Limit": ("B3.4", "At most 2^32 - 1 segments."),
}


def payload_flags(name):
    return {
        "nothing": ["Truncated"],
        "half a header": ["Truncated"],
        "a header alone": ["Truncated"],
        "cut in the first segment": ["Truncated"],
        "cut at a segment boundary": ["Truncated", "LastFlag"],
        "cut inside a tag": ["Truncated"],
        "one byte after the end": ["Trailing"],
        "a valid segment after the end": ["Trailing"],
        "an empty last segment after a full one": ["SegmentLength"],
        "the last flag in the middle": ["LastFlag"],
        "no last flag at the end": ["LastFlag"],
        "flag byte 2": ["LastFlag"],
        "a short middle segment": ["SegmentLength"],
        "two segments exchanged": ["Reordered"],
        "a segment twice": ["Reordered"],
        "a segment dropped": ["Reordered"],
        "the counter starts at one": ["Counter"],
        "little-endian counter": ["Counter"],
        "a segment of another payload of the same dek": ["OtherPayload"],
        "magic changed": ["Header"],
        "payload version 2": ["Header"],
        "payload salt changed": ["OtherPayload", "Commitment"],
        "commitment changed": ["Commitment"],
        "the sealed dek of another dek": ["OtherPayload", "Commitment"],
    }.get(name) or {"segment length": ["Header"]}[name[:14]]


# No payload of a length that B3.5 excludes, or with another fixed field of B1, is one.
NOT_A_PAYLOAD = (
    "nothing",
    "half a header",
    "a header alone",
    "an empty last segment after a full one",
    "magic changed",
    "payload version 2",
)
HEADER, FULL = 264, 65536 + 16


def plaintext(length):
    return hashlib.shake_256(b"dekseal payload").digest(length)


def sha256(raw):
    return hashlib.sha256(raw).hexdigest()


def payload(vector, salt, length):
    """The payload with this salt (B1, B2)."""
    plain, blob = plaintext(length), bytes.fromhex(vector["valid"][0]["payload"])[44:232]
    start = b"dekseal\1" + (65536).to_bytes(4, "little") + bytes.fromhex(salt)
    prk = hmac.digest(b"dekseal/v2 payload", bytes.fromhex(vector["dek"]), "sha256")
    key = hmac.digest(prk, start + b"\1", "sha256")
    commitment = hmac.digest(prk, key + start + b"\2", "sha256")
    out, count = start + blob + commitment, max(1, -(-length // 65536))
    for index in range(count):
        nonce = bytes(7) + index.to_bytes(4, "big") + bytes([index == count - 1])
        out += AESGCM(key).encrypt(nonce, plain[index * 65536:][:65536], None)
    return out


def known_payload(vector, v):
    """The payload of a known answer. Its hash shows that the bytes are right."""
    made = payload(vector, v["payload_salt"], v["plaintext_length"])
    assert sha256(made) == v["payload_sha256"]
    return made


def segments_of(raw):
    return [raw[:HEADER]] + [raw[at:at + FULL] for at in range(HEADER, len(raw), FULL)]


def against(base, raw):
    """A payload as pieces: ranges of the base payload, and other bytes in base64."""
    pieces, at = [], 0
    for part, same in zip(segments_of(raw), segments_of(base), strict=True):
        end = at + len(part)
        if part != same:
            pieces.append({"base64": base64.b64encode(part).decode()})
        elif pieces and pieces[-1].get("base", [0, 0])[1] == at:
            pieces[-1]["base"][1] = end
        else:
            pieces.append({"base": [at, end]})
        at = end
    return pieces


def payload_open(vector):
    base = known_payload(vector, vector["base"])
    keys = [{"key_id": vector["key_id"], **key} for key in vector["keys"]]
    file = File("payload_open", "B", "Payloads that are opened.", PAYLOAD_FLAGS)
    group = file.group("PayloadOpen", "The plaintext is a part of SHAKE-256 of the ASCII text `dekseal payload`.",
                       keys=keys, key_id=vector["key_id"], context=vector["context"],
                       base=base64.b64encode(base).decode())

    def opens(comment, flags, payload, plain):
        group.valid(comment, flags, payload=payload, plaintext_length=len(plain), plaintext_sha256=sha256(plain))

    for v in vector["valid"]:
        plain = plaintext(v["plaintext_length"])
        if "payload" in v:
            opens(v["name"], ["Basic"] if plain else ["Empty"], [{"hex": v["payload"]}], plain)
        elif len(plain) in (65536, 65537):
            whole = base64.b64encode(known_payload(vector, v)).decode()
            opens(v["name"], ["Boundary"], [{"base64": whole}], plain)
    full = plaintext(vector["base"]["plaintext_length"])
    opens("the payload that the others are made from", ["Basic"], [{"base": [0, len(base)]}], full)
    opens("under another CMK version", ["Rewrapped"],
          [{"base": [0, 44]}, {"hex": vector["rewrapped_sealed_dek"]}, {"base": [232, len(base)]}], full)

    for v in vector["invalid"]:
        if "payload_base64" in v:
            pieces = against(base, base64.b64decode(v["payload_base64"]))
        else:
            pieces = [{"hex": p} if isinstance(p, str) else {"base": p} for p in v["pieces"]]
        structural = v["name"] in NOT_A_PAYLOAD or v["name"].startswith("segment length")
        error = "not_a_payload" if structural else "authentication_failed"
        group.invalid(v["name"], payload_flags(v["name"]), error, payload=pieces)

    group = file.group("PayloadSegment", "Single segments under the key of the base payload of the other group.",
                       segment_key=vector["segment_key"], commitment=vector["commitment"],
                       dek=vector["dek"], header=base[:44].hex())
    for v in vector["segments"]:
        last = "as the last" if v["last"] else "not as the last"
        flags = ["HighIndex"] if v["index"] > 2 else ["Basic"]
        group.valid(f"segment {v['index']}, {last}", flags, index=v["index"], last=v["last"], plaintext=v["plaintext"],
                    segment=v["segment"])
    return file


def payload_seal(vector):
    base = known_payload(vector, vector["base"])
    first = {"key_id": vector["key_id"], **vector["keys"][0]}
    second = {"key_id": vector["key_id"], **vector["keys"][1]}
    longest = max(v["plaintext_length"] for v in vector["valid"])
    file = File("payload_seal", "B", "Payloads that are sealed with a given DEK and payload salt.", PAYLOAD_FLAGS)
    group = file.group("PayloadSeal", "The plaintext of a test is the start of that of the group.", cmk=first,
                       context=vector["context"], dek=vector["dek"],
                       plaintext=base64.b64encode(plaintext(longest)).decode())
    for v in [*vector["valid"], {"name": "the base payload", "payload_length": len(base), **vector["base"]}]:
        flags = ["Empty"] if v["plaintext_length"] == 0 else ["Basic"]
        if v["plaintext_length"] % 65536 in (0, 1, 65535) and v["plaintext_length"] > 1:
            flags = ["Boundary"]
        group.valid(v["name"], flags, **{name: item for name, item in v.items() if name != "name"})
    group = file.group("PayloadRewrap", "The DEK of a payload is sealed again, under the last of the keys.",
                       keys=[first, second], context=vector["context"])
    new = base[:44] + bytes.fromhex(vector["rewrapped_sealed_dek"]) + base[232:HEADER]
    group.valid("under version 1", ["Rewrapped"], header=base[:HEADER].hex(), rewrapped_header=new.hex())
    group = file.group("PayloadLength", "The length of a payload follows from that of its plaintext (B3.5).")
    most = (2**32 - 1) * 65536
    for length in (0, 1, 16, 65535, 65536, 65537, 131072, 131073, 2**31, 2**32, most - 1, most):
        sealed = HEADER + length + 16 * max(1, -(-length // 65536))
        flags = ["Limit"] if length > 2**32 else ["Basic"]
        group.valid(f"{length} bytes", flags, plaintext_length=length, payload_length=sealed)
    for length in (most + 1, 2**48):
        group.invalid(f"{length} bytes", ["Limit"], "payload_too_long", plaintext_length=length)
    return file
