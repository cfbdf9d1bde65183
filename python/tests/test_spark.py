"""Columns of a PySpark DataFrame, in local mode with two workers.

`DEKSEAL_SPARK_ROWS` is the number of blobs: some thousands in the checks, 1,000,000 by hand.
"""

from __future__ import annotations

import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

import dekseal
import dekseal.spark
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

ROWS = int(os.environ.get("DEKSEAL_SPARK_ROWS", "5000"))

# PySpark leaves sockets and processes to the end of the program.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    # The workers run the interpreter of the tests, and not the one that is first in PATH.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.memory", "2g")
        .config("spark.sql.shuffle.partitions", "4")
        .config("spark.log.level", "OFF")
        .getOrCreate()
    )
    yield session
    session.stop()


Shared = tuple[dekseal.SqliteKeyring, str, Callable[[], dekseal.Engine]]


@pytest.fixture
def shared(tmp_path: pathlib.Path) -> Shared:
    """A keyring that workers open themselves."""
    root, database = str(tmp_path / "root.key"), str(tmp_path / "keys.db")
    keyring = dekseal.SqliteKeyring(database, dekseal.Root.create_file(root))

    def open_engine() -> dekseal.Engine:
        import dekseal

        return dekseal.Engine(dekseal.SqliteKeyring(database, dekseal.Root.from_file(root)))

    return keyring, keyring.create_key(), open_engine


def test_data_is_encrypted_and_decrypted(spark: SparkSession, shared: Shared) -> None:
    _keyring, key_id, open_engine = shared
    frame = spark.createDataFrame(
        [(row, f"name {row}" if row % 7 else None) for row in range(100)], "id int, name string"
    )
    context = {"table": "customer", "id": F.col("id")}
    encrypted = dekseal.spark.encrypt(frame, open_engine, key_id, "name", context)
    assert encrypted.dtypes == [("id", "int"), ("name", "binary")]
    rows = encrypted.collect()
    engine = open_engine()
    assert engine.decrypt(key_id, {"table": "customer", "id": "1"}, bytes(rows[1]["name"])) == b"name 1"
    assert rows[7]["name"] is None
    back = dekseal.spark.decrypt(encrypted, open_engine, key_id, "name", context)
    assert [row["name"] for row in back.withColumn("name", F.col("name").cast("string")).collect()] == [
        row["name"] for row in frame.collect()
    ]
    whole = dekseal.spark.encrypt(frame, open_engine, key_id, "name", {})
    assert engine.decrypt(key_id, {}, bytes(whole.collect()[1]["name"])) == b"name 1"


def test_rows_that_fail_are_named(spark: SparkSession, shared: Shared) -> None:
    _keyring, key_id, open_engine = shared
    engine = open_engine()
    good = engine.encrypt(key_id, {"id": "0"}, b"data")
    frame = spark.createDataFrame([(0, good), (1, good), (2, b"x"), (3, None)], "id int, data binary")
    context = {"id": F.col("id")}
    rows = dekseal.spark.decrypt(frame, open_engine, key_id, "data", context, errors="why").collect()
    assert [row["data"] for row in rows] == [b"data", None, None, None]
    assert [row["why"] is None for row in rows] == [True, False, False, True]
    assert rows[1]["why"].startswith("authentication failed")
    with pytest.raises(Exception, match="rows failed, the first with: "):
        dekseal.spark.decrypt(frame, open_engine, key_id, "data", context).collect()
    with pytest.raises(ValueError, match="has a column"):
        dekseal.spark.decrypt(frame, open_engine, key_id, "data", context, errors="id")


def test_an_engine_is_never_sent_to_a_worker(spark: SparkSession, shared: Shared) -> None:
    _keyring, key_id, open_engine = shared
    engine = open_engine()
    frame = spark.createDataFrame([(b"x",)], "data binary")
    with pytest.raises(TypeError, match="cannot be pickled"):
        dekseal.spark.encrypt(frame, lambda: engine, key_id, "data", {})


def test_all_blobs_are_rewrapped_while_keys_rotate(
    spark: SparkSession, shared: Shared, tmp_path: pathlib.Path, record_property: Callable[[str, object], None]
) -> None:
    """Workers that start in the middle of a rotation fail no row."""
    keyring, key_id, open_engine = shared
    engine = dekseal.Engine(keyring)
    source = tmp_path / "blobs.parquet"
    blobs, tenants = [], []
    for tenant in range(10):
        made = engine.create_deks(key_id, {"tenant": str(tenant)}, ROWS // 10)
        blobs += [bytes(sealed) for _, sealed in made]
        tenants += [tenant] * len(made)
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"tenant": tenants, "blob": blobs}), source, row_group_size=max(1, ROWS // 20))
    assert keyring.rotate(key_id) == 1
    stop = threading.Event()

    def rotates() -> None:
        while not stop.wait(0.2):
            keyring.rotate(key_id)

    rotating = threading.Thread(target=rotates)
    rotating.start()
    try:
        frame = spark.read.parquet(str(source)).repartition(4)
        context: dict[str, object] = {"tenant": F.col("tenant")}
        began = time.monotonic()
        renewed = dekseal.spark.rewrap(frame, open_engine, key_id, "blob", context)  # type: ignore[arg-type]
        renewed.write.parquet(str(tmp_path / "renewed"))
        seconds = time.monotonic() - began
    finally:
        stop.set()
        rotating.join()
    record_property("rewrapped_per_second", ROWS / seconds)
    print(f"{ROWS} blobs rewrapped in {seconds:.1f} s: {ROWS / seconds:,.0f} per second")

    table: DataFrame = spark.read.parquet(str(tmp_path / "renewed"))
    versions = {row["key_version"]: row["count"] for row in dekseal.spark.inspect(table, "blob").collect()}
    assert sum(versions.values()) == ROWS and 0 not in versions and None not in versions
    # Every blob opens, and to the DEK that it had.
    after = pq.read_table(tmp_path / "renewed")
    contexts = {"tenant": after["tenant"].cast(pa.string())}
    opened = engine.open_column(key_id, contexts, after["blob"])
    before = engine.open_column(key_id, {"tenant": pa.array(map(str, tenants))}, pa.array(blobs))
    assert opened.failed == before.failed == 0
    assert sorted(pa.table(opened)["dek"].to_pylist()) == sorted(pa.table(before)["dek"].to_pylist())


def test_the_guide_runs(spark: SparkSession, shared: Shared, tmp_path: pathlib.Path) -> None:
    from test_documents import blocks

    _keyring, key_id, _open_engine = shared
    names = {
        "spark": spark,
        "key_id": key_id,
        "root_file": str(tmp_path / "root.key"),
        "database": str(tmp_path / "keys.db"),
        "__name__": "__main__",
    }
    for block in blocks("docs/guide/data-engines.md"):
        exec(compile(block, "data-engines.md", "exec", dont_inherit=True), names)
