"""Columns of a PySpark `DataFrame`: encrypt, decrypt, rewrap, inspect.

    renewed = dekseal.spark.rewrap(frame, open_engine, key_id, "blob", {"tenant": F.col("tenant_id")})

Each Python worker opens the keyring itself, by calling `open_engine`, and keeps it for all of its tasks. Neither an
engine nor a root is sent to the workers: `open_engine` is pickled, so it must read the root from where the worker has
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

import dekseal

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

__all__ = ["decrypt", "encrypt", "inspect", "rewrap"]

# The context, and the values to work on. Columns of the frame must not have these names.
_CONTEXT = "__dekseal_context"

# The engines of this worker, by the pickled function that opens them.
_ENGINES: dict[bytes, dekseal.Engine] = {}


def _engine(open_engine: Callable[[], dekseal.Engine], name: bytes) -> dekseal.Engine:
    engine = _ENGINES.get(name)
    if engine is None:
        engine = _ENGINES.setdefault(name, open_engine())
    return engine


def encrypt(
    frame: DataFrame,
    open_engine: Callable[[], dekseal.Engine],
    key_id: str,
    column: str,
    context: Mapping[str, str | Column],
    *,
    errors: str | None = None,
) -> DataFrame:
    """Replaces a column of binary values or texts by payloads.

    `context` has a text or a column for each key. With `errors`, a row that fails has a null, and its error in a new
    column of this name. Without it, a row that fails ends the task with an exception.
    """
    return _run(frame, open_engine, "encrypt_column", key_id, column, context, errors)


def decrypt(
    frame: DataFrame,
    open_engine: Callable[[], dekseal.Engine],
    key_id: str,
    column: str,
    context: Mapping[str, str | Column],
    *,
    errors: str | None = None,
) -> DataFrame:
    """Replaces a column of payloads by their data, which is binary."""
    return _run(frame, open_engine, "decrypt_column", key_id, column, context, errors)


def rewrap(
    frame: DataFrame,
    open_engine: Callable[[], dekseal.Engine],
    key_id: str,
    column: str,
    context: Mapping[str, str | Column],
    *,
    errors: str | None = None,
) -> DataFrame:
    """Seals the DEKs of a column of blobs or payloads again, under the current version of the key."""
    return _run(frame, open_engine, "rewrap_column", key_id, column, context, errors)


def _run(
    frame: DataFrame,
    open_engine: Callable[[], dekseal.Engine],
    method: str,
    key_id: str,
    column: str,
    context: Mapping[str, str | Column],
    errors: str | None,
) -> DataFrame:
    from pyspark.sql import functions as F
    from pyspark.sql import types as T

    if errors is not None and errors in frame.columns:
        raise ValueError(f"the frame has a column {errors!r} already")
    fields = {key: F.lit(value) if isinstance(value, str) else value.cast("string") for key, value in context.items()}
    with_context = frame
    if fields:
        with_context = frame.withColumn(_CONTEXT, F.struct(*(value.alias(key) for key, value in fields.items())))
    schema = T.StructType(
        [T.StructField(f.name, T.BinaryType() if f.name == column else f.dataType, True) for f in frame.schema.fields]
    )
    if errors is not None:
        schema.add(errors, T.StringType())
    names, name = frame.columns, _pickled(open_engine)

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        engine = _engine(open_engine, name)
        for batch in batches:
            contexts: Any = batch.column(_CONTEXT) if _has_contexts(batch) else {}
            # Spark runs a worker for each core.
            result = getattr(engine, method)(key_id, contexts, batch.column(column), threads=1)
            made = pa.record_batch(result)
            if errors is None and result.failed:
                failure = next(text for text in made.column("error").to_pylist() if text is not None)
                raise dekseal.Error(f"{result.failed} of {batch.num_rows} rows failed, the first with: {failure}")
            columns = [made.column(0) if field == column else batch.column(field) for field in names]
            if errors is not None:
                yield pa.record_batch([*columns, made.column("error")], [*names, errors])
            else:
                yield pa.record_batch(columns, names)

    return with_context.mapInArrow(work, schema)


def _has_contexts(batch: pa.RecordBatch) -> bool:
    """Whether the batch has contexts. A struct without fields does not exist in Spark."""
    return _CONTEXT in batch.schema.names


def _pickled(open_engine: Callable[[], dekseal.Engine]) -> bytes:
    """The function as Spark sends it. It must not hold an engine: that is an error here, and not in a worker."""
    from pyspark import cloudpickle

    pickled: bytes = cloudpickle.dumps(open_engine)
    return pickled


def inspect(frame: DataFrame, column: str) -> DataFrame:
    """The blobs or payloads of a column, counted by key and version, without any key: columns `key_id`, `key_version`,
    `error` and `count`."""

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            made = pa.record_batch(dekseal.inspect_column(batch.column(0), threads=1))
            version = made.column("key_version").cast(pa.int64())
            yield pa.record_batch(
                [made.column("key_id"), version, made.column("error")], ["key_id", "key_version", "error"]
            )

    inspected = frame.select(column).mapInArrow(work, "key_id string, key_version long, error string")
    return inspected.groupBy("key_id", "key_version", "error").count()
