"""What the tests share. A PostgreSQL server and the programs of the repository are real; what is missing fails."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

import dekseal
import pkcs11
import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CONTEXT = {"tenant": "42", "purpose": "backup"}


@pytest.fixture
def keyring() -> dekseal.MemoryKeyring:
    return dekseal.MemoryKeyring()


@pytest.fixture
def key_id(keyring: dekseal.MemoryKeyring) -> str:
    return keyring.create_key()


@pytest.fixture
def engine(keyring: dekseal.MemoryKeyring) -> dekseal.Engine:
    return dekseal.Engine(keyring)


@pytest.fixture
def root() -> dekseal.Root:
    return dekseal.Root.from_bytes(bytes(range(64)))


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server on a Unix socket, and its connection string."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    assert found, "install the PostgreSQL server: scripts/tools system"
    binaries = found[-1].parent
    # The path of a Unix socket is short.
    directory = pathlib.Path(tempfile.mkdtemp(prefix="dekseal-", dir="/tmp"))
    as_user: list[str] = []
    if os.geteuid() == 0:
        # The server refuses to run as root.
        shutil.chown(directory, "nobody")
        as_user = ["setpriv", "--reuid=nobody", "--clear-groups"]
    data = directory / "data"
    subprocess.run(
        [*as_user, binaries / "initdb", "-D", data, "-U", "test", "--auth=trust", "--no-sync"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    server = subprocess.Popen(
        [
            *as_user, binaries / "postgres", "-D", data, "-k", directory, "-c", "listen_addresses=", "-c", "fsync=off",
            # A store of keys refuses `off`.
            "-c", "synchronous_commit=on", "-c", "logging_collector=off",
        ],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        ready = [binaries / "pg_isready", "-q", "-h", directory, "-t", "10"]
        end = time.monotonic() + 120
        while subprocess.run(ready, check=False).returncode != 0:
            assert server.poll() is None, "the PostgreSQL server ended"
            assert time.monotonic() < end, "the PostgreSQL server does not answer"
            time.sleep(0.1)
        yield f"host={directory} user=test dbname=postgres"
    finally:
        # SIGTERM would wait until the last connection is closed; a child that was killed may still have one.
        server.send_signal(signal.SIGINT)
        server.wait(60)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def command() -> pathlib.Path:
    """The command `dekseal`, which python/check builds."""
    found = REPOSITORY / "crates" / "target" / "debug" / "dekseal"
    assert found.exists(), "run python/check, or cargo build -p dekseal-cli --features pkcs11 in crates/"
    return found


@dataclasses.dataclass
class Token:
    """The token `prod` of SoftHSM2, with a key `dekseal-root`, and a file with its PIN."""

    module: str
    pin: str
    pin_file: pathlib.Path


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    places = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/lib/libsofthsm2.so")
    modules = [place for place in places if os.path.exists(place)]
    assert modules, "install SoftHSM2: scripts/tools system"
    directory = tmp_path_factory.mktemp("softhsm")
    (directory / "tokens").mkdir()
    configuration = directory / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {directory / 'tokens'}\n")
    made = Token(modules[0], "9382745", directory / "pin")
    made.pin_file.touch(0o600)
    made.pin_file.write_text(made.pin + "\n")
    # SoftHSM2 reads this when it is first used, and it is loaded once in a process.
    os.environ["SOFTHSM2_CONF"] = str(configuration)
    arguments = ["--init-token", "--free", "--label", "prod", "--so-pin", "12345678", "--pin", made.pin]
    subprocess.run(["softhsm2-util", *arguments], check=True, stdout=subprocess.DEVNULL)
    with pkcs11.lib(made.module).get_token(token_label="prod").open(rw=True, user_pin=made.pin) as session:
        template = {pkcs11.Attribute.SIGN: True}
        session.generate_key(pkcs11.KeyType.GENERIC_SECRET, 512, label="dekseal-root", store=True, template=template)
    yield made
    del os.environ["SOFTHSM2_CONF"]


Opener = Callable[[], dekseal.Keyring]


@pytest.fixture(params=["memory", "file", "sqlite", "postgres"])
def opener(request: pytest.FixtureRequest, tmp_path: pathlib.Path, root: dekseal.Root) -> Opener:
    """Opens one keyring of each kind. Each call opens the same one, except in memory."""
    match request.param:
        case "memory":
            made = dekseal.MemoryKeyring()
            return lambda: made
        case "file":
            path = tmp_path / "keyring.json"
            dekseal.FileKeyring.create(path, root)
            return lambda: dekseal.FileKeyring.open(path, root)
        case "sqlite":
            return lambda: dekseal.SqliteKeyring(tmp_path / "keys.db", root)
        case _:
            connection = request.getfixturevalue("postgres")
            table = "t" + dekseal.generate_key_id().replace("-", "")
            return lambda: dekseal.PostgresKeyring(connection, root, table=table, create_schema=True)
