"""Prints the speed of the package beside that of Rust and of other libraries. `python/bench` runs it."""

from __future__ import annotations

import io
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import asherah
import aws_encryption_sdk
import dekseal
import pyarrow as pa
import tink
from aws_encryption_sdk.identifiers import CommitmentPolicy, EncryptionKeyType, WrappingAlgorithm
from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tink import aead

ROWS = 20_000
STREAM = 32 << 20
CHUNK = b"\x07" * (1 << 20)
ROUNDS = 61


def took(run: Callable[[], object]) -> float:
    """The nanoseconds of a call."""
    began = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - began


def processor() -> str:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


class Rust:
    """The program that runs the same loops in Rust."""

    def __init__(self, program: str, file: pathlib.Path) -> None:
        # On the same core as this process, because cores are not equally fast at one time.
        self._cores = os.sched_getaffinity(0)
        self._process = subprocess.Popen([program, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def took(self, name: str) -> float:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def beside(self, name: str, run: Callable[[], object]) -> tuple[float, float, float]:
        """Runs a loop of Rust and one of Python in turns. Returns the median times, and the median of how many times
        as fast Python is."""
        for process in (0, self._process.pid):
            os.sched_setaffinity(process, {min(self._cores)})
        self.took(name), run()
        rounds = [(self.took(name), took(run)) for _ in range(ROUNDS)]
        os.sched_setaffinity(0, self._cores)
        return (
            statistics.median(rust for rust, _ in rounds),
            statistics.median(python for _, python in rounds),
            statistics.median(rust / python for rust, python in rounds),
        )


keyring = dekseal.MemoryKeyring()
key_id = keyring.create_key()
engine = dekseal.Engine(keyring)


failed = False


def verdict(ratio: float, bound: float) -> str:
    global failed
    failed = failed or ratio < bound
    return f"{ratio:.2f} | ≥ {bound} | {'holds' if ratio >= bound else 'FAILS'} |"


def columns(rust: Rust) -> None:
    contexts = {"table": "patient", "row": pa.array([str(row) for row in range(ROWS)])}
    made = [{"table": "patient", "row": str(row)} for row in range(ROWS)]
    blobs = pa.array([bytes(engine.create_dek(key_id, context)[1]) for context in made])
    keyring.rotate(key_id)
    data = pa.array([b"\x07" * 100] * ROWS)
    payloads = pa.table(engine.encrypt_column(key_id, contexts, data))["payload"]
    print(f"\ncolumns of {ROWS:,} rows, a context for each row; nanoseconds for each row\n")
    print("| operation | Rust loop | 1 thread | ratio | bound | | all cores |")
    print("|---|---:|---:|---:|---:|---|---:|")
    for name, run, values in (
        ("rewrap", engine.rewrap_column, blobs),
        ("open", engine.open_column, blobs),
        ("encrypt", engine.encrypt_column, data),
        ("decrypt", engine.decrypt_column, payloads),
    ):
        assert run(key_id, contexts, values).failed == 0
        loop, one, ratio = rust.beside(name, lambda: run(key_id, contexts, values, threads=1))  # noqa: B023
        every = statistics.median(took(lambda: run(key_id, contexts, values)) for _ in range(5))  # noqa: B023
        print(f"| {name} | {loop / ROWS:.0f} | {one / ROWS:.0f} | {verdict(ratio, 0.85)} {every / ROWS:.0f} |")


def streams(rust: Rust, directory: pathlib.Path) -> None:
    stored, path = io.BytesIO(), directory / "payload"

    def write(file: Any) -> None:
        with engine.open(file, "wb", key_id=key_id, context={}) as writer:
            for _ in range(STREAM // len(CHUNK)):
                writer.write(CHUNK)

    buffer = bytearray(len(CHUNK))

    def read(file: Any) -> None:
        with engine.open(file, "rb", key_id=key_id, context={}) as reader:
            while reader.readinto(buffer):
                pass

    def rewound() -> io.BytesIO:
        # Its memory is used again, as that of the vector in Rust.
        stored.seek(0)
        return stored

    write(stored)
    path.write_bytes(stored.getbuffer())
    print("\nstreams of 32 MiB, 1 MiB at a time, into the same buffer; GB/s")
    print("Memory is a vector in Rust, and a BytesIO in Python.\n")
    print("| stream | Rust | Python | ratio | bound | |")
    print("|---|---:|---:|---:|---:|---|")
    for name, run, bound in (
        ("write to a file", lambda: write("/dev/null"), 0.9),
        ("read of a file", lambda: read(path), 0.9),
        # A file object of Python's takes and gives bytes objects, so each byte is copied once more than in Rust.
        ("write to memory", lambda: write(rewound()), 0.85),
        ("read of memory", lambda: read(rewound()), 0.85),
    ):
        loop, python, ratio = rust.beside(name, run)
        print(f"| {name} | {STREAM / loop:.2f} | {STREAM / python:.2f} | {verdict(ratio, bound)}")


def peers() -> None:
    context = {"tenant": "42", "purpose": "backup"}
    secret, data = os.urandom(32), b"\x07" * 100

    def dekseal_dek() -> None:
        dek, sealed = engine.create_dek(key_id, context)
        assert engine.decrypt_dek(key_id, context, sealed) == dek

    def dekseal_payload() -> None:
        assert engine.decrypt(key_id, context, engine.encrypt(key_id, context, data)) == data

    rows: list[tuple[str, str, Callable[[], object]]] = [
        ("dekseal", "create_dek + decrypt_dek", dekseal_dek),
        ("dekseal", "encrypt + decrypt, 100 bytes", dekseal_payload),
    ]

    wrapping, bound = AESGCM(secret), repr(sorted(context.items())).encode()

    def by_hand() -> None:
        dek, nonce = os.urandom(64), os.urandom(12)
        sealed = wrapping.encrypt(nonce, dek, bound)
        assert wrapping.decrypt(nonce, sealed, bound) == dek

    rows.append(("cryptography", "AESGCM by hand: a DEK, wrapped and unwrapped", by_hand))

    aead.register()
    primitive = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM).primitive(aead.Aead)
    envelope = aead.KmsEnvelopeAead(aead.aead_key_templates.AES256_GCM, primitive)

    def of_tink() -> None:
        assert envelope.decrypt(envelope.encrypt(data, bound), bound) == data

    rows.append(("tink", "KmsEnvelopeAead over a local key, 100 bytes", of_tink))

    config = {
        "ServiceName": "bench",
        "ProductID": "bench",
        "Metastore": "memory",
        "KMS": "static",
        "StaticMasterKeyHex": secret.hex(),
    }
    session = asherah.SessionFactory(config).get_session("42")

    def of_asherah() -> None:
        assert session.decrypt_bytes(session.encrypt_bytes(data)) == data

    rows.append(("asherah", "encrypt + decrypt in a session, 100 bytes", of_asherah))

    class Raw(RawMasterKeyProvider):  # type: ignore[misc]
        provider_id = "bench"

        def _get_raw_key(self, key_id: bytes) -> WrappingKey:
            return WrappingKey(
                wrapping_algorithm=WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
                wrapping_key=secret,
                wrapping_key_type=EncryptionKeyType.SYMMETRIC,
            )

    client = aws_encryption_sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
    provider = Raw()
    provider.add_master_key("bench")
    algorithm = aws_encryption_sdk.Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY

    def of_aws() -> None:
        sealed, _ = client.encrypt(source=data, key_provider=provider, encryption_context=context, algorithm=algorithm)
        assert client.decrypt(source=sealed, key_provider=provider)[0] == data

    rows.append(("aws-encryption-sdk", "encrypt + decrypt with a raw key, 100 bytes", of_aws))

    print("\none call after another; microseconds for both\n")
    print("| library | operation | time |")
    print("|---|---|---:|")
    count = 100
    for _, _, run in rows:
        run()
    # In turns, so that a change of the machine's speed affects all of them.
    times = [[took(lambda: [run() for _ in range(count)]) for _, _, run in rows] for _ in range(ROUNDS)]  # noqa: B023
    for (library, operation, _), of_one in zip(rows, zip(*times, strict=True), strict=True):
        print(f"| {library} | {operation} | {statistics.median(of_one) / count / 1000:.1f} |")


def main() -> None:
    print(f"{processor()}, CPython {platform.python_version()}, dekseal {dekseal.__version__}")
    with tempfile.TemporaryDirectory() as directory:
        rust = Rust(sys.argv[1], pathlib.Path(directory, "of-rust"))
        columns(rust)
        streams(rust, pathlib.Path(directory))
    peers()


main()
sys.exit(failed)
