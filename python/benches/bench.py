"""Prints the speed of the package beside that of Rust and of other libraries. `python/bench` runs it."""

from __future__ import annotations

import io
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable

import dekseal
import pyarrow as pa

ROWS = 100_000
STREAM = 256 << 20


def fastest(run: Callable[[], object], times: int = 5) -> float:
    """The fastest of some runs, in nanoseconds."""
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter_ns()
        run()
        best = min(best, time.perf_counter_ns() - began)
    return best


def processor() -> str:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


keyring = dekseal.MemoryKeyring()
key_id = keyring.create_key()
engine = dekseal.Engine(keyring)


def columns(rust: dict[str, float]) -> None:
    contexts = {"table": "patient", "row": pa.array([str(row) for row in range(ROWS)])}
    made = [{"table": "patient", "row": str(row)} for row in range(ROWS)]
    blobs = pa.array([bytes(engine.create_dek(key_id, context)[1]) for context in made])
    keyring.rotate(key_id)
    data = pa.array([b"\x07" * 100] * ROWS)
    payloads = pa.table(engine.encrypt_column(key_id, contexts, data))["payload"]
    print(f"\ncolumns of {ROWS:,} rows, a context for each row; nanoseconds for each row")
    print(f"| {'operation':9} | {'Rust loop':>9} | {'1 thread':>9} | ratio | {'all cores':>9} |")
    print("|---|---:|---:|---:|---:|")
    for name, run, values in (
        ("rewrap", engine.rewrap_column, blobs),
        ("open", engine.open_column, blobs),
        ("encrypt", engine.encrypt_column, data),
        ("decrypt", engine.decrypt_column, payloads),
    ):
        assert run(key_id, contexts, values).failed == 0
        one = fastest(lambda: run(key_id, contexts, values, threads=1)) / ROWS  # noqa: B023
        all_ = fastest(lambda: run(key_id, contexts, values)) / ROWS  # noqa: B023
        print(f"| {name:9} | {rust[name]:9.0f} | {one:9.0f} | {rust[name] / one:5.2f} | {all_:9.0f} |")


def streams(rust: dict[str, float]) -> None:
    class Sink(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            return len(data)

    chunk = b"\x07" * (1 << 20)
    stored = io.BytesIO()
    with engine.open(stored, "wb", key_id=key_id, context={}) as writer:
        for _ in range(STREAM // len(chunk)):
            writer.write(chunk)

    def write() -> None:
        target = io.BytesIO()
        with engine.open(target, "wb", key_id=key_id, context={}) as writer:
            for _ in range(STREAM // len(chunk)):
                writer.write(chunk)

    def read() -> None:
        stored.seek(0)
        with engine.open(stored, "rb", key_id=key_id, context={}) as reader:
            while reader.read(1 << 20):
                pass

    print("\nstreams of 256 MiB in memory, 1 MiB at a time; GB/s")
    print(f"| {'direction':9} | {'Rust':>5} | {'Python':>6} | ratio |")
    print("|---|---:|---:|---:|")
    for name, run in (("write", write), ("read", read)):
        speed = STREAM / fastest(run)
        print(f"| {name:9} | {rust[name]:5.2f} | {speed:6.2f} | {speed / rust[name]:5.2f} |")


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

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    wrapping, bound = AESGCM(secret), repr(sorted(context.items())).encode()

    def by_hand() -> None:
        dek, nonce = os.urandom(64), os.urandom(12)
        sealed = wrapping.encrypt(nonce, dek, bound)
        assert wrapping.decrypt(nonce, sealed, bound) == dek

    rows.append(("cryptography", "AESGCM by hand: a DEK, wrapped and unwrapped", by_hand))

    try:
        import tink
        from tink import aead

        aead.register()
        handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
        primitive = handle.primitive(aead.Aead)
        envelope = aead.KmsEnvelopeAead(aead.aead_key_templates.AES256_GCM, primitive)
        rows.append(
            (
                "tink",
                "KmsEnvelopeAead over a local key, 100 bytes",
                lambda: envelope.decrypt(envelope.encrypt(data, bound), bound),
            )
        )
    except ImportError as error:
        print("tink is left out:", error)

    try:
        import aws_encryption_sdk
        from aws_encryption_sdk.identifiers import CommitmentPolicy, EncryptionKeyType, WrappingAlgorithm
        from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
        from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider

        class Raw(RawMasterKeyProvider):  # type: ignore[misc]
            provider_id = "bench"

            def _get_raw_key(self, key_id: bytes) -> WrappingKey:
                return WrappingKey(
                    wrapping_algorithm=WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
                    wrapping_key=secret,
                    wrapping_key_type=EncryptionKeyType.SYMMETRIC,
                )

        client = aws_encryption_sdk.EncryptionSDKClient(
            commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
        )
        provider = Raw()
        provider.add_master_key("bench")

        def aws() -> None:
            algorithm = aws_encryption_sdk.Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
            sealed, _ = client.encrypt(
                source=data, key_provider=provider, encryption_context=context, algorithm=algorithm
            )
            assert client.decrypt(source=sealed, key_provider=provider)[0] == data

        rows.append(("aws-encryption-sdk", "encrypt + decrypt with a raw key, 100 bytes", aws))
    except ImportError as error:
        print("aws-encryption-sdk is left out:", error)

    try:
        import asherah

        crypter = asherah.Asherah()
        crypter.setup(
            asherah.AsherahConfig(
                kms="static", metastore="memory", service_name="bench", product_id="bench", enable_session_caching=True
            )
        )
        rows.append(
            ("asherah", "encrypt + decrypt, 100 bytes", lambda: crypter.decrypt("p", crypter.encrypt("p", data)))
        )
    except Exception as error:
        print("asherah is left out:", repr(error))

    print("\none call after another; microseconds for both")
    print("| library | operation | time |")
    print("|---|---|---:|")
    for library, operation, run in rows:
        count = 2000

        def many() -> None:
            for _ in range(count):  # noqa: B023
                run()  # noqa: B023

        run()
        print(f"| {library} | {operation} | {fastest(many, 3) / count / 1000:.1f} |")


def main() -> None:
    ran = subprocess.run([sys.argv[1]], capture_output=True, text=True, check=True)
    rust = {name: float(value) for name, value in (line.split() for line in ran.stdout.splitlines())}
    print(f"{processor()}, CPython {platform.python_version()}, dekseal {dekseal.__version__}")
    columns(rust)
    streams(rust)
    peers()


main()
