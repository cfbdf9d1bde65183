"""Forks and threads at once, secrets in output, memory, and interpreters.

`DEKSEAL_STRESS` is the number of seconds that the stress test takes: a few in the checks, a minute or more by hand.
"""

from __future__ import annotations

import ctypes
import faulthandler
import functools
import gc
import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable

import dekseal
import pytest
from conftest import CONTEXT, Opener

SECONDS = float(os.environ.get("DEKSEAL_STRESS", "3"))
CALLS = int(os.environ.get("DEKSEAL_CALLS", "60000"))


def in_child(work: Callable[[], None], seconds: float = 60, fork: Callable[[], int] = os.fork) -> Callable[[], None]:
    """Forks a child that does the work. Returns a function that waits for it, and raises if it failed or hangs."""
    sys.stdout.flush()
    child = fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def wait() -> None:
        end = time.monotonic() + seconds
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                assert status == 0, f"the child ended with {status}"
                return
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise AssertionError("the child hangs")
            time.sleep(0.01)

    return wait


# CPython warns of any fork while there are threads. That it goes well is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def test_a_child_goes_on_and_changes_keys(opener: Opener) -> None:
    keyring = opener()
    engine = dekseal.Engine(keyring)
    key_id = keyring.create_key()
    dek, sealed = engine.create_dek(key_id, CONTEXT)

    def work() -> None:
        assert engine.decrypt_dek(key_id, CONTEXT, sealed) == dek
        assert keyring.rotate(key_id) == 1
        assert engine.create_dek(key_id, CONTEXT)[1].key_version == 1
        # A child of the child.
        in_child(lambda: engine.decrypt_dek(key_id, CONTEXT, sealed).wipe())()

    in_child(work)()
    # The keys in memory are the parent's own; all others are shared.
    keyring.refresh()
    shared = not isinstance(keyring, dekseal.MemoryKeyring)
    assert keyring.info(key_id).current_version == int(shared)
    assert engine.decrypt_dek(key_id, CONTEXT, sealed) == dek


def test_a_fork_that_python_does_not_see_shares_no_connection(postgres: str, root: dekseal.Root) -> None:
    """A library in C forks without Python's hooks, so the child has the keyring of its parent. Answers that reached the
    wrong process could report a rotation that was not made."""
    keyring = dekseal.PostgresKeyring(postgres, root, table="unseen_forks", create_schema=True)
    keys = [keyring.create_key() for _ in range(3)]

    def rotate(key_id: str) -> None:
        for version in range(1, 51):
            assert keyring.rotate(key_id) == version

    fork = ctypes.PyDLL(None).fork
    children = [in_child(functools.partial(rotate, key_id), fork=fork) for key_id in keys[1:]]
    rotate(keys[0])
    for wait in children:
        wait()
    other = dekseal.PostgresKeyring(postgres, root, table="unseen_forks")
    assert [other.info(key_id).current_version for key_id in keys] == [50, 50, 50]


def test_threads_and_forks_at_once(opener: Opener) -> None:
    """8 threads seal, open, rotate and work on columns, while 4 children at a time do the same."""
    pa = pytest.importorskip("pyarrow")
    keyring = opener()
    engine = dekseal.Engine(keyring)
    key_id, rotating = keyring.create_key(), keyring.create_key()
    data = pa.array([bytes([row % 256]) * row for row in range(1100)])
    wrong: list[BaseException] = []

    def work(until: float, number: int) -> None:
        count = 0
        while time.monotonic() < until:
            count += 1
            key = rotating if number % 2 else key_id
            dek, sealed = engine.create_dek(key, CONTEXT)
            assert engine.decrypt_dek(key, CONTEXT, sealed) == dek
            payload = engine.encrypt(key, CONTEXT, b"x" * 20_000)
            assert engine.decrypt(key, CONTEXT, payload) == b"x" * 20_000
            if count % 20 == number:
                keyring.rotate(rotating)
            if count % 20 == number + 1:
                encrypted = pa.table(engine.encrypt_column(key, CONTEXT, data))["payload"]
                decrypted = engine.decrypt_column(key, CONTEXT, encrypted)
                assert decrypted.failed == 0 and pa.table(decrypted)["data"].equals(pa.chunked_array([data]))

    def thread(until: float, number: int) -> None:
        try:
            work(until, number)
        except BaseException as error:
            wrong.append(error)

    until = time.monotonic() + SECONDS
    threads = [threading.Thread(target=thread, args=(until, number)) for number in range(8)]
    for started in threads:
        started.start()
    while time.monotonic() < until:
        children = [
            in_child(lambda number=number: work(time.monotonic() + 0.3, number), 120)  # type: ignore[misc]
            for number in range(4)
        ]
        for wait in children:
            wait()
    for started in threads:
        started.join()
    assert not wrong, wrong


@pytest.mark.parametrize("opener", ["sqlite", "postgres"], indirect=True)
def test_new_versions_of_children_open_during_forks(opener: Opener, tmp_path: pathlib.Path) -> None:
    """Children rotate and seal. Threads of the parent ask the store for these versions while it forks."""
    keyring = opener()
    engine = dekseal.Engine(keyring)
    key_id = keyring.create_key()
    directory = tmp_path / "sealed"
    directory.mkdir()
    opened: list[int] = []
    wrong: list[BaseException] = []

    def seal() -> None:
        for _ in range(3):
            version = keyring.rotate(key_id)
            sealed = engine.create_dek(key_id, CONTEXT)[1]
            assert sealed.key_version >= version
            unfinished = tmp_path / f"{os.getpid()}-{version}"
            unfinished.write_bytes(bytes(sealed))
            unfinished.rename(directory / unfinished.name)

    def open_sealed(until: float) -> None:
        seen: set[str] = set()
        try:
            while time.monotonic() < until:
                for name in set(os.listdir(directory)) - seen:
                    seen.add(name)
                    sealed = dekseal.SealedDek((directory / name).read_bytes())
                    engine.decrypt_dek(key_id, CONTEXT, sealed).wipe()
                    opened.append(sealed.key_version)
        except BaseException as error:
            wrong.append(error)

    # A thread that waits with the GIL stops the whole interpreter, so no Python code could end the test.
    faulthandler.dump_traceback_later(SECONDS + 120, exit=True)
    until = time.monotonic() + SECONDS
    threads = [threading.Thread(target=open_sealed, args=(until,)) for _ in range(4)]
    for started in threads:
        started.start()
    while time.monotonic() < until:
        children = [in_child(seal) for _ in range(3)]
        for wait in children:
            wait()
    for started in threads:
        started.join()
    faulthandler.cancel_dump_traceback_later()
    assert not wrong, wrong
    assert len(set(opened)) > 3


def test_file_keyrings_of_children_keep_what_the_parent_saw(tmp_path: pathlib.Path, root: dekseal.Root) -> None:
    path = tmp_path / "keyring.json"
    keyring = dekseal.FileKeyring.create(path, root)
    key_id = keyring.create_key()
    before = path.read_bytes()
    keyring.rotate(key_id)
    path.write_bytes(before)

    def work() -> None:
        with pytest.raises(dekseal.FileError) as rolled_back:
            keyring.info(key_id)
        assert rolled_back.value.fault == "RolledBack"

    in_child(work)()


SECRETS = """
import faulthandler, io, logging, pathlib, sys, traceback, warnings
import dekseal, dekseal.pyarrow, dekseal.sqlalchemy
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy import orm

logging.basicConfig(level=1)
warnings.simplefilter("always")
faulthandler.enable()
material, secret, value = (bytes.fromhex(line) for line in sys.stdin.read().split())
key_id = dekseal.generate_key_id()
keyring = dekseal.MemoryKeyring()
keyring.import_key(key_id, material)
engine = dekseal.Engine(keyring)
dek = dekseal.Dek.from_bytes(secret)
root = dekseal.Root.from_bytes(material)
context = {"tenant": value.hex()}
sealed = engine.encrypt_dek(key_id, context, dek)
payload = engine.encrypt(key_id, context, value)
directory = pathlib.Path(sys.argv[1])
dekseal.FileKeyring.create(directory / "keyring.json", root)
stored_id = dekseal.SqliteKeyring(directory / "keys.db", root).create_key()
kms = dekseal.pyarrow.KmsClient(engine, context)

class Base(orm.DeclarativeBase):
    pass

class Patient(Base):
    __tablename__ = "patient"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    diagnosis_payload: orm.Mapped[bytes | None] = orm.mapped_column("diagnosis", dekseal.sqlalchemy.Payload)
    diagnosis = dekseal.sqlalchemy.Encrypted("diagnosis_payload", bytes)

dekseal.sqlalchemy.use(engine, key_id, Patient)
database = sa.create_engine("sqlite://", hide_parameters=True, echo=True)
Base.metadata.create_all(database)
session = orm.Session(database)
patient = Patient(id=1, diagnosis=value)
session.add(patient)
session.commit()

def insert(**values):
    with database.begin() as connection:
        connection.execute(sa.insert(Patient.__table__), values)

def reads(data):
    return engine.open(io.BytesIO(data), "rb", key_id=key_id, context=context)

attempts = [
    lambda: insert(id=2, diagnosis=secret),
    lambda: insert(id=1, diagnosis=payload),
    lambda: setattr(patient, "diagnosis", secret.hex()),
    lambda: setattr(patient, "diagnosis_payload", secret),
    lambda: Patient(id=3, diagnosis_payload=patient.diagnosis_payload).diagnosis,
    lambda: reads(payload[:-1] + b"x").read(),
    lambda: reads(secret).read(),
    lambda: reads(payload).write(secret),
    lambda: engine.open(io.BytesIO(), "wb", key_id=key_id, context=context).write(secret.hex()),
    lambda: engine.open(secret.hex(), "rb", key_id=key_id, context=secret),
    lambda: kms.wrap_key(secret, key_id),
    lambda: kms.wrap_key(secret[:32], dekseal.generate_key_id()),
    lambda: kms.unwrap_key(secret, key_id),
    lambda: kms.unwrap_key(secret.hex(), key_id),
    lambda: dekseal.FileKeyring.open(directory / "keyring.json", dekseal.Root.from_bytes(secret)),
    lambda: dekseal.SqliteKeyring(directory / "keys.db", dekseal.Root.from_bytes(secret)).info(stored_id),
    lambda: keyring.import_key(key_id, material),
    lambda: keyring.import_version(key_id, material[:10]),
    lambda: dekseal.Dek.from_bytes(secret[:63]),
    lambda: dekseal.SealedDek(secret),
    lambda: dekseal.SealedDek.from_hex(secret.hex()),
    lambda: dekseal.Root.from_bytes(material + material),
    lambda: dekseal.Root.from_hmac(lambda message: secret + b"x"),
    lambda: dekseal.Root.from_bytes(material, key_id=secret.hex()),
    lambda: engine.create_dek(secret.hex(), context),
    lambda: engine.create_dek(key_id, {"a": secret}),
    lambda: engine.create_dek(key_id, {"": secret.hex()}),
    lambda: engine.create_dek(key_id, secret.hex()),
    lambda: engine.decrypt_dek(key_id, context, secret),
    lambda: engine.decrypt_dek(key_id, context, secret.hex()),
    lambda: engine.decrypt_dek(key_id, {"tenant": secret.hex()}, sealed),
    lambda: engine.encrypt(key_id, context, secret.hex()),
    lambda: engine.decrypt(key_id, context, payload[:-1] + b"x"),
    lambda: engine.decrypt(key_id, context, secret),
    lambda: engine.encrypt_dek(key_id, context, secret),
    lambda: engine.encrypt_column(key_id, context, secret),
    lambda: engine.encrypt_column(key_id, {"a": pa.array([1])}, pa.array([secret])),
    lambda: hash(dek),
    lambda: dek + dek,
    lambda: dek.unknown,
    lambda: setattr(dek, "name", secret),
    lambda: (lambda dek: dek.wipe() or memoryview(dek))(dekseal.Dek.from_bytes(secret)),
]
failed = 0
for attempt in attempts:
    try:
        attempt()
    except Exception as error:
        failed += 1
        traceback.print_exc()
        logging.exception("failed: %s %r", error, error)
        # An error of SQLAlchemy has the values of its statement in an attribute.
        if not isinstance(error, sa.exc.StatementError):
            logging.error("%s", getattr(error, "__dict__", {}))
        warnings.warn(f"{error!r}")
assert failed == len(attempts), failed
things = [dek, root, keyring, engine, sealed, dekseal.EncryptionContext(context), keyring.info(key_id),
          patient, Patient(id=4, diagnosis=value), kms, reads(payload),
          engine.encrypt_column(key_id, context, pa.array([value])),
          engine.decrypt_column(key_id, {"tenant": secret.hex()}, pa.array([payload, secret]))]
for thing in things:
    logging.info("%s %r %s", thing, thing, f"{thing}")
    print(thing, repr(thing), dir(thing))
    if hasattr(thing, "__dict__"):
        print(vars(thing))
print(pa.table(things[-1])["error"].to_pylist())
faulthandler.dump_traceback(all_threads=True)
print("end of the program")
"""


def test_no_output_shows_a_secret(tmp_path: pathlib.Path) -> None:
    secrets = [os.urandom(64) for _ in range(3)]
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-c", SECRETS, str(tmp_path)],
        input="\n".join(secret.hex() for secret in secrets),
        capture_output=True,
        text=True,
        check=False,
    )
    output = ran.stdout + ran.stderr
    assert ran.returncode == 0 and "end of the program" in output, output
    assert output.count("Traceback") > 40
    for secret in secrets:
        # Any eight bytes of it, in the forms that Python prints.
        for start in range(0, 57):
            part = secret[start : start + 8]
            for form in (part.hex(), part.hex().upper(), repr(part)[2:-1], str(list(part))[1:-1]):
                assert form not in output


def test_calls_leave_no_memory_behind(keyring: dekseal.MemoryKeyring, engine: dekseal.Engine, key_id: str) -> None:
    pa = pytest.importorskip("pyarrow")
    other = dekseal.generate_key_id()
    data = pa.array([b"x" * 100] * 600)

    def calls(count: int) -> None:
        for number in range(count):
            with engine.create_dek(key_id, CONTEXT)[0] as dek, memoryview(dek):
                pass
            for wrong in (lambda: engine.create_dek(other, CONTEXT), lambda: dekseal.SealedDek(b"short")):
                with pytest.raises(dekseal.Error):
                    wrong()
            engine.decrypt(key_id, CONTEXT, engine.encrypt(key_id, CONTEXT, b"data"))
            if number % 200 == 0:
                pa.table(engine.encrypt_column(key_id, CONTEXT, data))
        gc.collect()

    def size() -> int:
        # The resident pages now: the highest number of the past would hide what a round adds below it.
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    # Each round makes five calls.
    calls(CALLS // 20)
    before = size()
    calls(CALLS // 5)
    grown = size() - before
    assert grown < 8 * 1024 * 1024, f"{grown} bytes more after {CALLS} calls"


def test_a_second_interpreter_is_refused() -> None:
    """The module holds Python objects for the whole process, so PyO3 lets one interpreter import it.

    CPython 3.11 copies the module of the first interpreter without asking it.
    """
    program = """
import dekseal
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
inner = interpreters.create()
code = "try:\\n import dekseal\\nexcept ImportError as error:\\n print('refused:', error)"
print(interpreters.run_string(inner, code) or "")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ("refused:" in ran.stdout) == (sys.version_info >= (3, 12)), ran.stdout
