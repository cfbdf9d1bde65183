"""DEKs, sealed DEKs, contexts and payloads in one call."""

from __future__ import annotations

import gc
import hashlib
import json
import multiprocessing
import pickle
import types
from typing import Any

import dekseal
import pytest
from conftest import CONTEXT, REPOSITORY

VECTORS = REPOSITORY / "tests" / "vectors"


def vectors(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


def test_a_dek_lends_its_bytes_and_is_wiped() -> None:
    secret = bytes(range(64))
    dek = dekseal.Dek.from_bytes(secret)
    assert len(dek) == dekseal.Dek.LEN == 64
    with dek, memoryview(dek) as view:
        assert view.readonly and bytes(view) == secret and view.nbytes == 64
        with pytest.raises(TypeError):
            view[0] = 1
        assert dek == dekseal.Dek.from_bytes(secret)
        assert dek != dekseal.Dek.generate()
        assert dek != secret
    assert dek.wiped
    for use in (memoryview, dekseal.Dek.__enter__, dekseal.Dek.expose_secret, bytes):
        with pytest.raises(ValueError, match="wiped"):
            use(dek)
    assert repr(dek) == str(dek) == f"{dek}" == "Dek(..)"
    with pytest.raises(TypeError, match="unhashable"):
        hash(dek)
    with pytest.raises(dekseal.BufferLength):
        dekseal.Dek.from_bytes(bytes(63))


def test_a_view_keeps_its_bytes_until_it_is_released() -> None:
    secret = bytes(range(64))
    dek = dekseal.Dek.from_bytes(secret)
    view = dek.expose_secret()
    other = memoryview(dek)
    dek.wipe()
    # A cipher that works with the view never sees a key of zeros.
    assert dek.wiped and bytes(view) == secret
    with pytest.raises(ValueError, match="wiped"):
        memoryview(dek)
    view.release()
    assert bytes(other) == secret
    other.release()
    del dek
    gc.collect()


def test_sealed_deks_are_those_of_the_vectors() -> None:
    cases = vectors("blob.json")
    assert len(cases) > 15
    for case in cases:
        key_id, blob = case["key_id"], bytes.fromhex(case["blob"])
        version = (key_id, case["key_version"], bytes.fromhex(case["material"]))
        engine = dekseal.Engine(dekseal.MemoryKeyring.from_versions([version]))
        dek = dekseal.Dek.from_bytes(bytes.fromhex(case["dek"]))
        assert bytes(engine.encrypt_dek(key_id, case["context"], dek)) == blob
        assert engine.decrypt_dek(key_id, case["context"], blob) == dek
        assert engine.decrypt_dek_under_any_key(case["context"], blob) == dek


def test_invalid_blobs_are_those_of_the_vectors() -> None:
    invalid = vectors("blob_invalid.json")
    keys = [(key["key_id"], key["key_version"], bytes.fromhex(key["material"])) for key in invalid["keys"]]
    engine = dekseal.Engine(dekseal.MemoryKeyring.from_versions(keys))
    for case in invalid["invalid"]:
        with pytest.raises(dekseal.Error):
            engine.decrypt_dek(case["expected_key_id"], case["context"], bytes.fromhex(case["blob"]))
    assert len(invalid["invalid"]) > 50


def test_payloads_are_those_of_the_vectors() -> None:
    cases = vectors("payload.json")
    key_id = cases["key_id"]
    keys = [(key_id, key["key_version"], bytes.fromhex(key["material"])) for key in cases["keys"]]
    engine = dekseal.Engine(dekseal.MemoryKeyring.from_versions(keys))
    plaintext = hashlib.shake_256(b"dekseal payload").digest(max(case["plaintext_length"] for case in cases["valid"]))
    opened = 0
    for case in cases["valid"]:
        if "payload" in case:
            payload = bytes.fromhex(case["payload"])
            assert engine.decrypt(key_id, cases["context"], payload) == plaintext[: case["plaintext_length"]]
            opened += 1
    assert opened > 0


def test_a_sealed_dek_is_a_value(engine: dekseal.Engine, key_id: str) -> None:
    dek, sealed = engine.create_dek(key_id, CONTEXT)
    assert len(sealed) == len(bytes(sealed)) == dekseal.SealedDek.LEN == 188
    assert dekseal.SealedDek(bytes(sealed)) == sealed == dekseal.SealedDek.from_hex(sealed.hex())
    assert pickle.loads(pickle.dumps(sealed)) == sealed
    assert {sealed: 1}[dekseal.SealedDek(sealed)] == 1
    assert repr(sealed) == f"SealedDek(key_id='{key_id}', key_version=0)"
    for form in (sealed, bytes(sealed), bytearray(bytes(sealed)), memoryview(bytes(sealed))):
        assert engine.decrypt_dek(key_id, CONTEXT, form) == dek
    with pytest.raises(dekseal.NotABlob) as length:
        dekseal.SealedDek(b"short")
    assert length.value.fault == "Length"
    damaged = bytearray(bytes(sealed))
    damaged[40] ^= 1
    with pytest.raises(dekseal.DamagedBlob):
        dekseal.SealedDek(damaged)
    with pytest.raises(TypeError, match="sealed must be bytes-like, not str"):
        engine.decrypt_dek(key_id, CONTEXT, "a secret")


def test_deks_move_to_other_keys_and_contexts(
    keyring: dekseal.MemoryKeyring, engine: dekseal.Engine, key_id: str
) -> None:
    other = keyring.create_key()
    made = engine.create_deks(key_id, CONTEXT, 3)
    assert len({bytes(sealed) for _, sealed in made}) == 3
    dek, sealed = made[0]
    moved = engine.rewrap_dek_to(key_id, CONTEXT, sealed, other, {})
    assert engine.decrypt_dek(other, {}, moved) == dek
    with pytest.raises(dekseal.KeyMismatch) as mismatch:
        engine.decrypt_dek(key_id, {}, moved)
    assert (mismatch.value.key_id, mismatch.value.found_key_id) == (key_id, other)
    with pytest.raises(MemoryError):
        engine.create_deks(key_id, CONTEXT, 2**60)


def test_contexts_are_those_of_the_vectors() -> None:
    cases = [case for case in vectors("context.json")["valid"] if "canonical" in case]
    assert len(cases) > 10
    for case in cases:
        context = dekseal.EncryptionContext(types.MappingProxyType(dict(case["context"])))
        assert context.canonical() == bytes.fromhex(case["canonical"])
        assert context == dekseal.EncryptionContext(context) and hash(context) == hash(
            dekseal.EncryptionContext(context)
        )


def test_a_context_is_never_silently_another(engine: dekseal.Engine, key_id: str) -> None:
    secret = "a-context-value"
    for wrong in (None, secret, [("a", "b")], {"a": 1}, {1: "a"}, {"a": None}, {"a": secret.encode()}):
        with pytest.raises(TypeError, match="encryption context") as refused:
            engine.create_dek(key_id, wrong)
        assert secret not in str(refused.value)
    with pytest.raises(ValueError, match="lone surrogate") as surrogate:
        engine.create_dek(key_id, {"a": secret + "\ud800"})
    assert secret not in str(surrogate.value) and surrogate.value.__cause__ is None
    for wrong, fault in (({"": "a"}, "EmptyKey"), ({"a": "b" * 8192}, "TooManyCharacters")):
        with pytest.raises(dekseal.ContextError) as rule:
            engine.create_dek(key_id, wrong)
        assert (rule.value.kind, rule.value.fault) == ("Context", fault)
    dek, sealed = engine.create_dek(key_id, CONTEXT)
    assert engine.decrypt_dek(key_id, dekseal.EncryptionContext(CONTEXT), sealed) == dek
    for other in ({}, {"tenant": "43", "purpose": "backup"}):
        with pytest.raises(dekseal.AuthenticationFailed):
            engine.decrypt_dek(key_id, other, sealed)


# Below and above the length from which the data is worked on in place.
@pytest.mark.parametrize("length", [0, 1, 100, 16 * 1024 - 1, 16 * 1024, 65536, 65537, 1_000_000])
def test_payloads_in_one_call(keyring: dekseal.MemoryKeyring, engine: dekseal.Engine, key_id: str, length: int) -> None:
    data = bytes(i % 251 for i in range(length))
    payload = engine.encrypt(key_id, CONTEXT, data)
    assert len(payload) == 264 + length + 16 * max(1, -(-length // 65536))
    for form in (payload, bytearray(payload), memoryview(payload)):
        assert engine.decrypt(key_id, CONTEXT, form) == data
    for form in (bytearray(data), memoryview(data)):
        assert engine.decrypt(key_id, CONTEXT, engine.encrypt(key_id, CONTEXT, form)) == data

    keyring.rotate(key_id)
    renewed = engine.rewrap(key_id, CONTEXT, payload)
    assert renewed[264:] == payload[264:] and dekseal.SealedDek.of_payload(renewed).key_version == 1
    assert engine.decrypt(key_id, CONTEXT, renewed) == data
    other = keyring.create_key()
    assert engine.decrypt(other, CONTEXT, engine.rewrap(key_id, CONTEXT, renewed, other)) == data

    for changed in (payload[:-1] + bytes([payload[-1] ^ 1]), payload[:240] + bytes([payload[240] ^ 1]) + payload[241:]):
        with pytest.raises(dekseal.AuthenticationFailed):
            engine.decrypt(key_id, CONTEXT, changed)
    with pytest.raises(dekseal.Error):
        engine.decrypt(key_id, CONTEXT, payload[:-1])


def test_payloads_of_another_kind_are_refused(engine: dekseal.Engine, key_id: str) -> None:
    with pytest.raises(dekseal.NotAPayload) as short:
        engine.decrypt(key_id, CONTEXT, b"short")
    assert short.value.fault == "Length"
    with pytest.raises(dekseal.NotAPayload) as magic:
        engine.decrypt(key_id, CONTEXT, bytes(100_000))
    assert magic.value.fault == "Magic"
    with pytest.raises(TypeError, match="data must be bytes-like, not str"):
        engine.encrypt(key_id, CONTEXT, "text")
    with pytest.raises(dekseal.MalformedKeyId):
        engine.encrypt("KEY", CONTEXT, b"")


def raises_in_a_worker(number: int) -> None:
    raise dekseal.UnknownKeyVersion("unknown", key_id="k", key_version=number)


def test_errors_cross_processes() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(dekseal.UnknownKeyVersion) as raised:
        pool.map(raises_in_a_worker, [7])
    assert (raised.value.kind, raised.value.key_id, raised.value.key_version) == ("UnknownKeyVersion", "k", 7)


def test_each_kind_of_error_has_its_class() -> None:
    source = (REPOSITORY / "src" / "error" / "kind.rs").read_text()
    body = source.split("pub enum ErrorKind {", 1)[1].split("\n}", 1)[0]
    lines = (line.strip() for line in body.splitlines())
    kinds = {line.rstrip(",").split("(")[0] for line in lines if line and not line.startswith(("/", "#"))}
    assert kinds == set(dekseal.errors.BY_KIND)
    for kind, class_ in dekseal.errors.BY_KIND.items():
        assert getattr(dekseal, class_.__name__) is class_ and issubclass(class_, dekseal.Error)
        assert class_("text").kind == kind
