"""Rust and Python over the same keyrings: what one made, the other opens, with rotations in between."""

from __future__ import annotations

import itertools
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator

import dekseal
import pytest
from conftest import REPOSITORY

CONTEXT = {"tenant": "42", "purpose": "Zoë"}
TEXT = ",".join("=".join(pair) for pair in CONTEXT.items())
PROGRAM = REPOSITORY / "python" / "target" / "debug" / "examples" / "interop"


class Rust:
    """The program tests/interop, which answers line by line."""

    def __init__(self, kind: str, location: str, root: pathlib.Path) -> None:
        assert PROGRAM.exists(), "run cargo build --example interop first"
        self.program = subprocess.Popen(
            [PROGRAM, kind, location, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.program.stdout is not None
        assert self.program.stdout.readline() == "ready\n"

    def __call__(self, operation: str, key_id: str, *words: str) -> str:
        assert self.program.stdin is not None and self.program.stdout is not None
        self.program.stdin.write(" ".join([operation, key_id, *words]) + "\n")
        self.program.stdin.flush()
        answer = self.program.stdout.readline().rstrip("\n")
        assert answer or operation in ("decrypt", "read"), "the program ended"
        assert not answer.startswith("error"), answer
        return answer

    def bytes(self, operation: str, key_id: str, *words: str, data: bytes) -> bytes:
        return bytes.fromhex(self(operation, key_id, TEXT, *words, data.hex() or "-"))

    def close(self) -> None:
        assert self.program.stdin is not None and self.program.stdout is not None
        self.program.stdin.close()
        self.program.stdout.close()
        assert self.program.wait(60) == 0


class Python:
    """The same operations by the package."""

    def __init__(self, keyring: dekseal.Keyring) -> None:
        self.keyring, self.engine = keyring, dekseal.Engine(keyring)

    def __call__(self, operation: str, key_id: str) -> str:
        {"create": self.keyring.create_key, "rotate": self.keyring.rotate}[operation](key_id)
        return "done"

    def bytes(self, operation: str, key_id: str, *words: str, data: bytes) -> bytes:
        engine = self.engine
        match operation:
            case "seal":
                return bytes(engine.encrypt_dek(key_id, CONTEXT, dekseal.Dek.from_bytes(data)))
            case "open":
                return bytes(memoryview(engine.decrypt_dek(key_id, CONTEXT, data)))
            case "rewrap_dek":
                return bytes(engine.rewrap_dek(key_id, CONTEXT, data))
            case "encrypt" | "decrypt" | "rewrap":
                result: bytes = getattr(engine, operation)(key_id, CONTEXT, data)
                return result
        raise AssertionError(operation)


@pytest.fixture(params=["file", "sqlite", "postgres"])
def sides(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> Iterator[tuple[Callable[[], Rust], Callable[[], Python]]]:
    root_file = tmp_path / "root.key"
    root = dekseal.Root.create_file(root_file)
    started: list[Rust] = []

    def rust() -> Rust:
        started.append(Rust(request.param, location, root_file))
        return started[-1]

    def python() -> Python:
        match request.param:
            case "file" if os.path.exists(location):
                return Python(dekseal.FileKeyring.open(location, root))
            case "file":
                return Python(dekseal.FileKeyring.create(location, root))
            case "sqlite":
                return Python(dekseal.SqliteKeyring(location, root))
            case _:
                return Python(dekseal.PostgresKeyring(location, root, create_schema=True))

    location = str(tmp_path / "keys")
    if request.param == "postgres":
        location = request.getfixturevalue("postgres")
    yield rust, python
    for program in started:
        program.close()


@pytest.mark.parametrize("first", ["rust", "python"])
def test_all_pairs_open_what_the_other_made(
    sides: tuple[Callable[[], Rust], Callable[[], Python]], tmp_path: pathlib.Path, first: str
) -> None:
    rust, python = sides
    # The one that opens the keyring first also makes it.
    made: list[Rust | Python] = [rust(), python()] if first == "rust" else [python(), rust()]
    key_id = dekseal.generate_key_id()
    made[0]("create", key_id)
    dek, lengths = os.urandom(64), (0, 20_000, 65_537)
    blobs: list[bytes] = []
    payloads: list[tuple[bytes, bytes]] = []
    for rotation in range(3):
        for side in made:
            blobs.append(side.bytes("seal", key_id, data=dek))
            for length in lengths:
                data = os.urandom(length)
                payloads.append((side.bytes("encrypt", key_id, data=data), data))
        # Sealing is deterministic: both made the same bytes, under the newest version.
        assert blobs[-1] == blobs[-2] and dekseal.SealedDek(blobs[-1]).key_version == rotation
        for side in made:
            for blob in blobs:
                assert side.bytes("open", key_id, data=blob) == dek
                assert side.bytes("rewrap_dek", key_id, data=blob) == blobs[-1]
            for payload, data in payloads:
                assert side.bytes("decrypt", key_id, data=payload) == data
        for side, other in itertools.permutations(made):
            renewed = [(side.bytes("rewrap", key_id, data=payload), data) for payload, data in payloads]
            for payload, data in renewed:
                assert dekseal.SealedDek.of_payload(payload).key_version == rotation
                assert other.bytes("decrypt", key_id, data=payload) == data
        # The two take turns.
        made[rotation % 2]("rotate", key_id)
        # Who has not heard of the new version opens what was sealed under it, and from then on seals under it.
        newest = python().bytes("seal", key_id, data=dek)
        for side in made:
            assert side.bytes("open", key_id, data=newest) == dek


def test_streams_of_both_are_the_same(
    sides: tuple[Callable[[], Rust], Callable[[], Python]], tmp_path: pathlib.Path
) -> None:
    rust, python = sides
    here, there = python(), rust()
    key_id = dekseal.generate_key_id()
    here("create", key_id)
    for length in (0, 5, 65_536, 150_000):
        data, path = os.urandom(length), tmp_path / "stream"
        there("write", key_id, TEXT, str(path), data.hex() or "-")
        with here.engine.open(path, "rb", key_id=key_id, context=CONTEXT) as reader:
            assert reader.read() == data
        with here.engine.open(path, "wb", key_id=key_id, context=CONTEXT) as writer:
            writer.write(data)
        assert bytes.fromhex(there("read", key_id, TEXT, str(path))) == data
