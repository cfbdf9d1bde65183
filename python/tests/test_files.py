"""Payloads as file objects."""

from __future__ import annotations

import array
import csv
import faulthandler
import gc
import io
import os
import pathlib
import pickle
import shutil
import threading
import time
import zipfile
from typing import Any

import dekseal
import pytest
from conftest import CONTEXT

# Three segments, and a part of a fourth.
DATA = bytes(i * 7 % 256 for i in range(200_000))


@pytest.fixture
def path(tmp_path: pathlib.Path, engine: dekseal.Engine, key_id: str) -> pathlib.Path:
    path = tmp_path / "payload"
    path.write_bytes(engine.encrypt(key_id, CONTEXT, DATA))
    return path


@pytest.fixture
def of_key(key_id: str) -> dict[str, Any]:
    return {"key_id": key_id, "context": CONTEXT}


class Trickle(io.RawIOBase):
    """A pipe that gives and takes a few bytes at a time."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), len(self.data), 1000)
        buffer[:count] = self.data[:count]
        del self.data[:count]
        return count

    def write(self, data: Any) -> int:
        self.data += data[:999]
        return min(len(data), 999)


@pytest.mark.parametrize("length", [0, 1, 65535, 65536, 65537, 200_000])
def test_what_is_written_is_read(
    tmp_path: pathlib.Path, engine: dekseal.Engine, key_id: str, of_key: dict[str, Any], length: int
) -> None:
    data = DATA[:length]
    path = tmp_path / "written"
    with engine.open(path, "wb", **of_key) as writer:
        for start in range(0, length, 30_001):
            assert writer.write(data[start : start + 30_001]) == len(data[start : start + 30_001])
        assert writer.tell() == length and writer.writable() and not writer.readable()
    assert engine.decrypt(key_id, CONTEXT, path.read_bytes()) == data
    with engine.open(path, "rb", **of_key) as reader:
        assert reader.read() == data and reader.read() == b"" and reader.tell() == length
    trickle = Trickle()
    with engine.open(trickle, "wb", **of_key) as writer:
        writer.write(data)
    assert not trickle.closed
    assert engine.decrypt(key_id, CONTEXT, bytes(trickle.data)) == data
    with engine.open(trickle, "rb", **of_key) as reader:
        assert not reader.seekable()
        assert b"".join(iter(lambda: reader.read(7777), b"")) == data
    with pytest.raises(FileExistsError):
        engine.open(path, "xb", **of_key)


def test_any_part_can_be_read(path: pathlib.Path, engine: dekseal.Engine, of_key: dict[str, Any]) -> None:
    for file in (path, str(path), os.fsencode(path), io.BytesIO(path.read_bytes())):
        with engine.open(file, "rb", **of_key) as reader:
            assert reader.seekable() and reader.size() == len(DATA) and reader.tell() == 0
            for offset, whence, start in ((150_000, 0, 150_000), (10, 1, 150_110), (-5, 2, len(DATA) - 5), (0, 0, 0)):
                assert reader.seek(offset, whence) == start
                assert reader.read(100) == DATA[start : start + 100]
            buffer = bytearray(70_000)
            reader.seek(65_000)
            assert reader.readinto(buffer) == 70_000 and buffer == DATA[65_000:135_000]
            assert reader.tell() == 135_000
            # Near the end there is less, and the rest of the buffer stays as it was.
            reader.seek(-10, 2)
            assert reader.readinto(buffer) == 10 and buffer == DATA[-10:] + DATA[65_010:135_000]
            assert reader.readinto(buffer) == 0
            numbers = array.array("H", bytes(200))
            reader.seek(0)
            assert reader.readinto(numbers) == 200 and numbers.tobytes() == DATA[:200]
            with pytest.raises(BufferError):
                reader.readinto(bytes(10))
            assert reader.seek(10, 2) == len(DATA) + 10 and reader.read(5) == b""
            with pytest.raises(ValueError, match="negative"):
                reader.seek(-1)
            with pytest.raises(ValueError, match="whence"):
                reader.seek(0, 3)
        with pytest.raises(ValueError, match="closed"):
            reader.read(1)
        with pytest.raises(ValueError, match="closed"):
            reader.tell()


def test_the_standard_library_reads_through_it(
    tmp_path: pathlib.Path, engine: dekseal.Engine, of_key: dict[str, Any]
) -> None:
    archive = tmp_path / "archive"
    with engine.open(archive, "wb", **of_key) as raw, zipfile.ZipFile(raw, "w") as written:
        written.writestr("a.txt", "alpha")
        written.writestr("b.bin", DATA)
    with engine.open(archive, "rb", **of_key) as reader, zipfile.ZipFile(reader) as read:
        assert read.read("a.txt") == b"alpha" and read.read("b.bin") == DATA and read.testzip() is None

    table = tmp_path / "table"
    rows = [["id", "name"], ["1", "Zoë"], ["2", "two\nlines"]]
    with engine.open(table, "wb", **of_key) as raw, io.TextIOWrapper(raw, "utf-8", newline="") as text:
        csv.writer(text).writerows(rows)
    with engine.open(table, "rb", **of_key) as raw:
        assert list(csv.reader(io.TextIOWrapper(io.BufferedReader(raw), "utf-8", newline=""))) == rows

    copy = tmp_path / "copy"
    with engine.open(archive, "rb", **of_key) as reader, engine.open(copy, "wb", **of_key) as writer:
        shutil.copyfileobj(reader, writer)
    with engine.open(archive, "rb", **of_key) as reader, engine.open(copy, "rb", **of_key) as copied:
        assert reader.read() == copied.read()


def test_a_payload_that_was_cut_off_does_not_look_whole(
    tmp_path: pathlib.Path, engine: dekseal.Engine, key_id: str, of_key: dict[str, Any]
) -> None:
    path = tmp_path / "cut"

    def cut() -> None:
        with pytest.raises(dekseal.Error):
            engine.decrypt(key_id, CONTEXT, path.read_bytes())

    with pytest.raises(KeyboardInterrupt), engine.open(path, "wb", **of_key) as writer:
        writer.write(DATA)
        raise KeyboardInterrupt
    assert writer.closed
    cut()

    writer = engine.open(path, "wb", **of_key)
    writer.write(DATA)
    with pytest.warns(ResourceWarning, match="never closed"):
        del writer
        gc.collect()
    cut()

    writer = engine.open(path, "wb", **of_key)
    writer.write(DATA)
    writer.abort()
    with pytest.raises(ValueError):
        writer.write(b"more")
    writer.close()
    cut()


def test_an_error_stays_and_nothing_false_is_read(
    path: pathlib.Path, engine: dekseal.Engine, of_key: dict[str, Any]
) -> None:
    changed = bytearray(path.read_bytes())
    changed[264 + 65552 + 10] ^= 1
    for file in (io.BytesIO(changed), Trickle(bytes(changed))):
        with engine.open(file, "rb", **of_key) as reader:
            assert reader.read(65536) == DATA[:65536]
            for _ in range(2):
                with pytest.raises(dekseal.AuthenticationFailed):
                    reader.read(1)
    for file in (io.BytesIO(changed[:200_000]), Trickle(bytes(changed[:60_000]))):
        with engine.open(file, "rb", **of_key) as reader, pytest.raises(dekseal.Error):
            reader.read()
    with pytest.raises(dekseal.NotAPayload):
        engine.open(io.BytesIO(b"x" * 300), "rb", **of_key)
    with pytest.raises(dekseal.AuthenticationFailed):
        engine.open(path, "rb", key_id=of_key["key_id"], context={})


def test_errors_of_the_file_below_are_raised(
    tmp_path: pathlib.Path, path: pathlib.Path, engine: dekseal.Engine, of_key: dict[str, Any]
) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 65536:
                raise ConnectionResetError("the peer is gone")
            return super().read(size)

        def write(self, data: Any, /) -> int:
            raise BrokenPipeError("nobody reads")

    with engine.open(Broken(path.read_bytes()), "rb", **of_key) as reader, pytest.raises(ConnectionResetError):
        reader.read()
    with pytest.raises(BrokenPipeError), engine.open(Broken(), "wb", **of_key) as writer:
        writer.write(DATA)
    with pytest.raises(FileNotFoundError):
        engine.open(tmp_path / "none", "rb", **of_key)
    with pytest.raises(IsADirectoryError):
        engine.open(tmp_path, "rb", **of_key)
    with pytest.raises(ValueError, match="mode must be"):
        engine.open(path, "r", **of_key)  # type: ignore[call-overload]
    # The file is not touched before the key was found.
    before = path.read_bytes()
    with pytest.raises(dekseal.UnknownKey):
        engine.open(path, "wb", key_id=dekseal.generate_key_id(), context={})
    assert path.read_bytes() == before


def test_a_file_object_that_lies_is_refused(engine: dekseal.Engine, of_key: dict[str, Any]) -> None:
    class Lies(io.RawIOBase):
        answer: Any = b"x" * 100_000

        def read(self, size: int | None = -1, /) -> Any:
            return self.answer

        def write(self, data: Any, /) -> Any:
            return len(data) + 1

    with pytest.raises(OSError, match="more than was asked"):
        engine.open(Lies(), "rb", **of_key)
    Lies.answer = None
    with pytest.raises(OSError, match="non-blocking"):
        engine.open(Lies(), "rb", **of_key)
    Lies.answer = "text"
    with pytest.raises(TypeError, match="not str"):
        engine.open(Lies(), "rb", **of_key)
    with pytest.raises(OSError, match="more than was written"), engine.open(Lies(), "wb", **of_key) as writer:
        writer.write(b"x" * 100_000)


def test_a_stream_in_use_refuses_a_second_thread(
    path: pathlib.Path, engine: dekseal.Engine, of_key: dict[str, Any]
) -> None:
    entered, leave = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        slow = False

        def read(self, size: int | None = -1, /) -> bytes:
            if self.slow:
                entered.set()
                leave.wait(60)
            return super().read(size)

    slow = Slow(path.read_bytes())
    with engine.open(slow, "rb", **of_key) as reader:
        slow.slow = True
        thread = threading.Thread(target=reader.read, args=(10,))
        thread.start()
        entered.wait(60)
        with pytest.raises(RuntimeError, match="another thread"):
            reader.read(10)
        leave.set()
        thread.join()


def test_files_are_rewrapped_in_place(
    path: pathlib.Path, keyring: dekseal.MemoryKeyring, engine: dekseal.Engine, key_id: str
) -> None:
    before = path.read_bytes()
    keyring.rotate(key_id)
    assert engine.rewrap_file(key_id, CONTEXT, path).key_version == 1
    after = path.read_bytes()
    assert after[264:] == before[264:] and after != before
    assert engine.decrypt(key_id, CONTEXT, after) == DATA
    with pytest.raises(FileNotFoundError):
        engine.rewrap_file(key_id, CONTEXT, path.with_name("none"))


def test_streams_are_not_pickled(path: pathlib.Path, engine: dekseal.Engine, of_key: dict[str, Any]) -> None:
    with engine.open(path, "rb", **of_key) as reader, pytest.raises(TypeError, match="pickled"):
        pickle.dumps(reader)
    with engine.open(io.BytesIO(), "wb", **of_key) as writer, pytest.raises(TypeError, match="pickled"):
        pickle.dumps(writer)


def test_threads_go_on_while_a_fifo_waits(engine: dekseal.Engine, key_id: str, tmp_path: pathlib.Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    data = os.urandom(1000)
    read: list[bytes] = []

    def reader() -> None:
        with engine.open(fifo, "rb", key_id=key_id, context=CONTEXT) as stream:
            read.append(stream.read())

    def writer() -> None:
        with engine.open(fifo, "wb", key_id=key_id, context=CONTEXT) as stream:
            stream.write(data)

    # If the GIL were held, no Python code could end the test.
    faulthandler.dump_traceback_later(60, exit=True)
    for work, other in (
        (reader, lambda: fifo.write_bytes(engine.encrypt(key_id, CONTEXT, data))),
        (writer, lambda: read.append(engine.decrypt(key_id, CONTEXT, fifo.read_bytes()))),
    ):
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.2)
        other()
        thread.join()
    faulthandler.cancel_dump_traceback_later()
    assert read == [data, data]
