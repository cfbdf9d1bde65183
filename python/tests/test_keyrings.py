"""Keyrings, roots and the management of keys."""

from __future__ import annotations

import copy
import datetime
import hashlib
import hmac
import os
import pathlib
import pickle

import dekseal
import pytest
from conftest import CONTEXT, Opener

DAY = datetime.timedelta(days=1)


def test_a_key_lives_its_life(opener: Opener) -> None:
    keyring = opener()
    engine = dekseal.Engine(keyring)
    key_id = keyring.create_key()
    assert keyring.list() == [key_id]
    info = keyring.info(key_id)
    assert (info.key_id, info.state, info.current_version, info.min_version) == (key_id, "enabled", 0, 0)
    assert info.current_created is not None and info.deletion_date is None
    assert abs(info.current_created - datetime.datetime.now(datetime.UTC)) < DAY

    dek, sealed = engine.create_dek(key_id, CONTEXT)
    assert (sealed.key_id, sealed.key_version) == (key_id, 0)
    assert keyring.rotate(key_id) == 1
    assert engine.decrypt_dek(key_id, CONTEXT, sealed) == dek
    new = engine.rewrap_dek(key_id, CONTEXT, sealed)
    assert new.key_version == 1
    assert engine.rewrap_dek(key_id, CONTEXT, new) == new
    assert [version.key_version for version in keyring.versions(key_id)] == [0, 1]

    keyring.set_min_version(key_id, 1)
    with pytest.raises(dekseal.KeyVersionRetired) as retired:
        engine.decrypt_dek(key_id, CONTEXT, sealed)
    assert (retired.value.key_id, retired.value.key_version) == (key_id, 0)
    with pytest.raises(dekseal.GracePeriod):
        keyring.destroy_versions(key_id, 1, grace=DAY)
    assert keyring.destroy_versions(key_id, 1, grace=DAY, now=datetime.datetime.now(datetime.UTC) + 2 * DAY) == 1
    assert keyring.force_destroy_versions(key_id, 1) == 0
    assert engine.decrypt_dek(key_id, CONTEXT, new) == dek

    keyring.disable(key_id)
    with pytest.raises(dekseal.KeyDisabled):
        engine.decrypt_dek(key_id, CONTEXT, new)
    with pytest.raises(dekseal.KeyNotEnabled):
        keyring.disable(key_id)
    keyring.enable(key_id)

    date = keyring.schedule_deletion(key_id, 7)
    assert keyring.info(key_id).state == "pending_deletion"
    assert keyring.info(key_id).deletion_date == date
    with pytest.raises(dekseal.KeyPendingDeletion):
        engine.create_dek(key_id, CONTEXT)
    keyring.cancel_deletion(key_id)
    assert keyring.info(key_id).state == "disabled"
    keyring.schedule_deletion(key_id, 7)
    with pytest.raises(dekseal.DeletionNotDue):
        keyring.purge(key_id)
    keyring.purge(key_id, now=date + DAY)
    assert keyring.list() == []
    with pytest.raises(dekseal.UnknownKey) as unknown:
        keyring.info(key_id)
    assert unknown.value.key_id == key_id


def test_another_process_sees_it(opener: Opener) -> None:
    here, elsewhere = opener(), opener()
    key_id = here.create_key()
    elsewhere.refresh()
    sealed = dekseal.Engine(here).create_dek(key_id, CONTEXT)[1]
    dekseal.Engine(elsewhere).decrypt_dek(key_id, CONTEXT, sealed)
    # A version that the other one has not seen yet.
    here.rotate(key_id)
    dek, sealed = dekseal.Engine(here).create_dek(key_id, CONTEXT)
    assert sealed.key_version == 1
    assert dekseal.Engine(elsewhere).decrypt_dek(key_id, CONTEXT, sealed) == dek


def test_imported_material_gives_known_blobs(opener: Opener) -> None:
    keyring = opener()
    key_id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f"
    keyring.import_key(key_id, bytes(32))
    assert keyring.import_version(key_id, bytearray(64)) == 1
    with pytest.raises(dekseal.InvalidMaterial):
        keyring.import_version(key_id, b"a password")
    with pytest.raises(dekseal.KeyExists):
        keyring.import_key(key_id, bytes(32))
    other = dekseal.MemoryKeyring()
    other.import_key(key_id, bytes(32))
    other.import_version(key_id, bytes(64))
    dek = dekseal.Dek.from_bytes(bytes(range(64)))
    made = [dekseal.Engine(ring).encrypt_dek(key_id, CONTEXT, dek) for ring in (keyring, other)]
    assert made[0] == made[1]


def test_a_list_is_complete_beyond_a_page(tmp_path: pathlib.Path, root: dekseal.Root) -> None:
    keyring = dekseal.SqliteKeyring(tmp_path / "keys.db", root)
    ids = sorted(keyring.create_key() for _ in range(1001))
    assert keyring.list() == ids


def test_a_wrong_root_is_named(tmp_path: pathlib.Path, root: dekseal.Root) -> None:
    path = tmp_path / "keyring.json"
    dekseal.FileKeyring.create(path, root)
    other = dekseal.Root.from_bytes(bytes(64))
    with pytest.raises(dekseal.FileError) as wrong:
        dekseal.FileKeyring.open(path, other)
    assert (wrong.value.kind, wrong.value.fault, wrong.value.path) == ("File", "WrongRoot", str(path))
    with pytest.raises(dekseal.FileError) as exists:
        dekseal.FileKeyring.create(path, root)
    assert exists.value.fault == "Exists"
    with pytest.raises(dekseal.FileError) as missing:
        dekseal.FileKeyring.open(tmp_path / "none", root)
    assert isinstance(missing.value.__cause__, FileNotFoundError)

    database = tmp_path / "keys.db"
    key_id = dekseal.SqliteKeyring(database, root).create_key()
    with pytest.raises(dekseal.StoreError) as wrong_root:
        dekseal.SqliteKeyring(database, other).info(key_id)
    assert wrong_root.value.fault == "WrongRoot"
    with pytest.raises(dekseal.StoreError) as settings:
        dekseal.SqliteKeyring(database, root, max_age=DAY, max_stale=DAY)
    assert settings.value.fault == "Settings"


def test_the_root_changes(tmp_path: pathlib.Path, root: dekseal.Root) -> None:
    new = dekseal.Root.from_bytes(b"n" * 64, key_version=1)
    path = tmp_path / "keyring.json"
    keyring = dekseal.FileKeyring.create(path, root)
    key_id = keyring.create_key()
    keyring.change_root(new)
    assert dekseal.FileKeyring.open(path, new).list() == [key_id]
    assert (keyring.path, keyring.generation) == (path, 3)

    database = tmp_path / "keys.db"
    store = dekseal.SqliteKeyring(database, root, reading_roots=[new])
    key_id = store.create_key()
    store.set_roots(new, [root])
    assert store.reseal() == (1, [])
    assert dekseal.SqliteKeyring(database, new).info(key_id).key_id == key_id


def test_a_rollback_is_refused_until_it_is_resolved(tmp_path: pathlib.Path, root: dekseal.Root) -> None:
    path = tmp_path / "keyring.json"
    keyring = dekseal.FileKeyring.create(path, root)
    key_id = keyring.create_key()
    before = path.read_bytes()
    keyring.rotate(key_id)
    path.write_bytes(before)
    with pytest.raises(dekseal.FileError) as rolled_back:
        keyring.refresh()
    assert rolled_back.value.fault == "RolledBack"
    with pytest.raises(dekseal.RollbackUnresolved):
        dekseal.Engine(keyring).create_dek(key_id, CONTEXT)
    keyring.write_back()
    assert keyring.info(key_id).current_version == 1
    path.write_bytes(before)
    with pytest.raises(dekseal.FileError):
        keyring.refresh()
    keyring.adopt()
    assert keyring.info(key_id).current_version == 0


def test_a_snapshot_starts_a_keyring_without_its_store(tmp_path: pathlib.Path, root: dekseal.Root) -> None:
    keyring = dekseal.SqliteKeyring(tmp_path / "keys.db", root)
    key_id = keyring.create_key()
    snapshot = keyring.snapshot()
    other = dekseal.SqliteKeyring(tmp_path / "empty.db", root, refresher=False)
    assert not other.is_ready(key_id)
    assert other.restore(snapshot) == 1
    assert other.is_ready(key_id)
    sealed = dekseal.Engine(other).create_dek(key_id, CONTEXT)[1]
    dekseal.Engine(keyring).decrypt_dek(key_id, CONTEXT, sealed)
    with pytest.raises(dekseal.StoreError) as refused:
        other.restore(b"{}")
    assert refused.value.fault == "NotASnapshot"


def test_roots_come_from_files_variables_and_devices(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seals(root: dekseal.Root) -> bytes:
        """Creates a keyring under one root and opens it under another with the same material."""
        path = tmp_path / dekseal.generate_key_id()
        dekseal.FileKeyring.create(path, root)
        return bytes(str(path), "ascii")

    def same(root: dekseal.Root, material: bytes) -> None:
        path = pathlib.Path(seals(root).decode())
        again = dekseal.Root.from_bytes(material, key_id=root.key_id, key_version=root.key_version)
        dekseal.FileKeyring.open(path, again)

    material = os.urandom(64)
    monkeypatch.setenv("DEKSEAL_TEST_ROOT", material.hex())
    same(dekseal.Root.from_env("DEKSEAL_TEST_ROOT"), material)
    monkeypatch.setenv("DEKSEAL_TEST_ROOT", "a password")
    with pytest.raises(ValueError, match="DEKSEAL_TEST_ROOT is not"):
        dekseal.Root.from_env("DEKSEAL_TEST_ROOT")
    with pytest.raises(KeyError, match="DEKSEAL_NO_ROOT is not set"):
        dekseal.Root.from_env("DEKSEAL_NO_ROOT")

    file = tmp_path / "root.key"
    for content in (material, material.hex().upper().encode() + b"\n"):
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        file.write_bytes(content)
        same(dekseal.Root.from_file(file), material)
    file.chmod(0o640)
    with pytest.raises(PermissionError, match="chmod 600"):
        dekseal.Root.from_file(file)
    made = dekseal.Root.create_file(tmp_path / "new.key", key_version=3)
    assert (tmp_path / "new.key").stat().st_mode & 0o777 == 0o600
    same(made, bytes.fromhex((tmp_path / "new.key").read_text()))
    with pytest.raises(FileExistsError):
        dekseal.Root.create_file(tmp_path / "new.key")

    # The device's own formula, spelled out: HMAC-SHA-512(K, "dekseal/v2 root" ‖ key ID ‖ u32be(version)).
    device = os.urandom(32)
    root_id = "00000000-0000-0000-0000-0000000000ab"
    computed = hmac.digest(device, b"dekseal/v2 root" + root_id.encode() + bytes([0, 0, 1, 2]), "sha512")
    root = dekseal.Root.from_hmac(
        lambda message: hmac.digest(device, message, "sha512"), key_id=root_id, key_version=258
    )
    same(root, computed)
    with pytest.raises(ValueError, match="32 bytes"):
        dekseal.Root.from_hmac(lambda message: hashlib.sha256(message).digest())
    with pytest.raises(dekseal.InvalidMaterial):
        dekseal.Root.from_bytes(b"short")
    with pytest.raises(dekseal.MalformedKeyId):
        dekseal.Root.from_bytes(material, key_id="ROOT")


def test_nothing_that_has_a_secret_is_pickled_or_copied(
    keyring: dekseal.MemoryKeyring, engine: dekseal.Engine, root: dekseal.Root
) -> None:
    for thing in (keyring, engine, root, dekseal.Dek.generate()):
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be"):
                attempt(thing)
        assert not hasattr(thing, "__dict__")
