"""Many rows at once, over the Arrow PyCapsule interface."""

from __future__ import annotations

from typing import Any

import dekseal
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import CONTEXT

# More than two pieces of work.
ROWS = 1100


@pytest.fixture
def contexts() -> list[dict[str, str]]:
    return [{"table": "patient", "row": str(row)} for row in range(ROWS)]


@pytest.fixture
def blobs(engine: dekseal.Engine, key_id: str, contexts: list[dict[str, str]]) -> list[bytes]:
    return [bytes(engine.create_dek(key_id, context)[1]) for context in contexts]


def forms(contexts: list[dict[str, str]]) -> dict[str, Any]:
    """The same contexts in each form that a call takes."""
    rows = [context["row"] for context in contexts]
    pairs = pa.map_(pa.string(), pa.string())
    struct = pa.struct([("table", pa.string()), ("row", pa.large_string())])
    entry = pa.struct([("key", pa.string()), ("value", pa.string())])
    lists = [[{"key": key, "value": value} for key, value in context.items()] for context in contexts]
    return {
        "map": pa.array([list(context.items()) for context in contexts], pairs),
        "struct": pa.array(contexts, struct),
        "list": pa.array(lists, pa.list_(entry)),
        "large list": pa.array(lists, pa.large_list(entry)),
        "dict with a column": {"table": "patient", "row": pa.array(rows)},
        "dict with a view": {"table": "patient", "row": pa.array(rows, pa.string_view())},
        "polars struct": pl.Series(contexts),
        "sliced": pa.array([{"table": "x", "row": "y"}, *contexts], struct).slice(1),
        "chunked": pa.chunked_array([pa.array(contexts[:300], struct), pa.array(contexts[300:], struct)]),
    }


def test_contexts_come_in_many_forms(
    engine: dekseal.Engine, key_id: str, blobs: list[bytes], contexts: list[dict[str, str]]
) -> None:
    expected = [bytes(memoryview(engine.decrypt_dek(key_id, *pair))) for pair in zip(contexts, blobs, strict=True)]
    for name, form in forms(contexts).items():
        opened = engine.open_column(key_id, form, pa.array(blobs))
        assert (opened.failed, len(opened)) == (0, ROWS), name
        assert pa.table(opened)["dek"].to_pylist() == expected, name


@pytest.mark.parametrize(
    "values",
    [
        pa.array,
        lambda blobs: pa.array(blobs, pa.large_binary()),
        lambda blobs: pa.array(blobs, pa.binary_view()),
        lambda blobs: pa.array(blobs, pa.binary(188)),
        lambda blobs: pa.chunked_array([blobs[:1000], [], blobs[1000:]]),
        lambda blobs: pl.Series(blobs),
        lambda blobs: pa.array([b"x", *blobs]).slice(1),
    ],
    ids=["binary", "large", "view", "fixed", "chunked", "polars", "sliced"],
)
def test_blobs_are_rewrapped(
    keyring: dekseal.MemoryKeyring,
    engine: dekseal.Engine,
    key_id: str,
    blobs: list[bytes],
    contexts: list[dict[str, str]],
    values: Any,
) -> None:
    keyring.rotate(key_id)
    column = forms(contexts)["struct"]
    for threads in (None, 1, 5):
        batch = engine.rewrap_column(key_id, column, values(blobs), threads=threads)
        table = pa.table(batch)
        assert table.column_names == batch.column_names == ["value", "renewed", "error_kind", "error"]
        assert (batch.failed, table["renewed"].to_pylist()) == (0, [True] * ROWS)
        single = [bytes(engine.rewrap_dek(key_id, *pair)) for pair in zip(contexts, blobs, strict=True)]
        assert table["value"].to_pylist() == single
        again = pa.table(engine.rewrap_column(key_id, column, table["value"]))
        assert again["renewed"].to_pylist() == [False] * ROWS and again["value"].to_pylist() == single
    inspected = pa.table(dekseal.inspect_column(values(blobs)))
    assert inspected["key_id"].to_pylist() == [key_id] * ROWS and inspected["key_version"].to_pylist() == [0] * ROWS


def test_data_of_all_lengths_is_encrypted(keyring: dekseal.MemoryKeyring, engine: dekseal.Engine, key_id: str) -> None:
    data = [bytes(range(256)) * (length // 256) + bytes(length % 256) for length in (0, 1, 5, 17_000, 70_000, 131_072)]
    rows: list[bytes | None] = [*data, None, *data]
    encrypted = pa.table(engine.encrypt_column(key_id, CONTEXT, pa.array(rows)))["payload"]
    for payload, row in zip(encrypted.to_pylist(), rows, strict=True):
        assert (payload is None) == (row is None)
        assert row is None or engine.decrypt(key_id, CONTEXT, payload) == row
    other = keyring.create_key()
    moved = pa.table(engine.rewrap_column(key_id, CONTEXT, encrypted, new_key_id=other))["value"]
    decrypted = engine.decrypt_column(other, dekseal.EncryptionContext(CONTEXT), moved)
    assert decrypted.failed == 0 and pa.table(decrypted)["data"].to_pylist() == rows
    assert pa.table(dekseal.inspect_column(moved))["key_id"].unique().to_pylist() == [other, None]
    text = pa.table(engine.encrypt_column(key_id, {}, pa.array(["Zoë", "", None])))["payload"]
    assert pa.table(engine.decrypt_column(key_id, {}, text))["data"].cast(pa.string()).to_pylist() == ["Zoë", "", None]


def test_rows_that_fail_have_an_error_and_others_a_result(
    keyring: dekseal.MemoryKeyring, engine: dekseal.Engine, key_id: str
) -> None:
    unknown = dekseal.MemoryKeyring()
    unknown_id = unknown.create_key()
    good = engine.encrypt(key_id, CONTEXT, b"data")
    changed = good[:-1] + bytes([good[-1] ^ 1])
    rows = [
        (good, None),
        (changed, "AuthenticationFailed"),
        (None, None),
        (b"", "NotAPayload"),
        (bytes(500), "NotAPayload"),
        (dekseal.Engine(unknown).encrypt(unknown_id, CONTEXT, b""), "KeyMismatch"),
        (good[:264], "NotAPayload"),
        (good, None),
    ]
    column = pa.array([payload for payload, _ in rows])
    batch = engine.decrypt_column(key_id, CONTEXT, column)
    table = pa.table(batch)
    kinds = [kind for _, kind in rows]
    assert table["error_kind"].to_pylist() == kinds and batch.failed == 5
    assert table["data"].to_pylist() == [b"data", None, None, None, None, None, None, b"data"]
    messages = table["error"].to_pylist()
    assert messages[1].startswith("authentication failed") and key_id in messages[5]
    assert [message is None for message in messages] == [kind is None for kind in kinds]
    inspected = pa.table(dekseal.inspect_column(column))
    assert inspected["error_kind"].to_pylist()[3:5] == ["NotABlob", "NotABlob"]
    assert inspected["key_id"].to_pylist()[5] == unknown_id
    keyring.disable(key_id)
    kinds = pa.table(engine.decrypt_column(key_id, CONTEXT, column))["error_kind"].to_pylist()
    assert kinds[0] == kinds[-1] == "KeyDisabled"


def test_a_null_in_a_context_is_refused(engine: dekseal.Engine, key_id: str) -> None:
    data = pa.array([b"a", b"b", b"c"])
    pairs = pa.map_(pa.string(), pa.string())
    for contexts, failing in (
        (pa.array([{"a": "1"}, None, {"a": None}], pa.struct([("a", pa.string())])), [1, 2]),
        (pa.array([[("a", "1")], None, [("a", None)]], pairs), [1, 2]),
        ({"a": pa.array(["1", None, "2"])}, [1]),
    ):
        batch = engine.encrypt_column(key_id, contexts, data)
        kinds = pa.table(batch)["error_kind"].to_pylist()
        assert [row for row, kind in enumerate(kinds) if kind == "Context"] == failing
        assert batch.failed == len(failing)
    # The same key twice, and an empty key.
    for pair in ([("a", "1"), ("a", "2")], [("", "1")]):
        batch = engine.encrypt_column(key_id, pa.array([pair], pairs), pa.array([b"a"]))
        assert pa.table(batch)["error_kind"].to_pylist() == ["Context"]
    # No pairs are the empty context, as in a single call.
    payload = pa.table(engine.encrypt_column(key_id, pa.array([[]], pairs), pa.array([b"a"])))["payload"]
    assert engine.decrypt(key_id, {}, payload[0].as_py()) == b"a"


def test_columns_that_cannot_be_used_are_refused(engine: dekseal.Engine, key_id: str) -> None:
    data = pa.array([b"a"])
    for values in (pa.array([1]), b"a", [b"a"], None):
        with pytest.raises(TypeError, match="values must be"):
            engine.encrypt_column(key_id, CONTEXT, values)
    for contexts in (None, pa.array(["a"]), pa.array([{"a": 1}]), pa.array([[1]])):
        with pytest.raises(TypeError, match=r"context"):
            engine.encrypt_column(key_id, contexts, data)
    with pytest.raises(TypeError, match='"row" must be a column of text, not of Int64'):
        engine.encrypt_column(key_id, {"row": pa.array([1])}, data)
    with pytest.raises(ValueError, match="different numbers of rows"):
        engine.encrypt_column(key_id, pa.array([{"a": "b"}, {"a": "c"}]), data)
    with pytest.raises(dekseal.MalformedKeyId):
        engine.encrypt_column("KEY", CONTEXT, data)


def test_empty_columns_have_the_same_types(engine: dekseal.Engine, key_id: str) -> None:
    for empty in (pa.array([], pa.binary()), pa.chunked_array([], pa.binary()), pa.chunked_array([[]], pa.binary())):
        table = pa.table(engine.rewrap_column(key_id, CONTEXT, empty))
        assert table.num_rows == 0
        assert table.schema.types == [pa.binary(), pa.bool_(), pa.string(), pa.string()]
    nulls = pa.table(engine.rewrap_column(key_id, CONTEXT, pa.array([None, None], pa.large_binary())))
    assert nulls["value"].to_pylist() == nulls["error"].to_pylist() == [None, None]
    assert nulls.schema.types[0] == pa.large_binary()


def test_other_libraries_take_the_result(engine: dekseal.Engine, key_id: str) -> None:
    data = [b"alpha", None, b"gamma"]
    frame = pl.DataFrame({"data": data, "row": ["1", "2", "3"]})
    batch = engine.encrypt_column(key_id, {"row": frame["row"]}, frame["data"])
    encrypted = frame.with_columns(pl.DataFrame(batch)["payload"])
    assert encrypted["payload"].null_count() == 1
    decrypted = pl.DataFrame(engine.decrypt_column(key_id, {"row": encrypted["row"]}, encrypted["payload"]))
    assert decrypted["data"].to_list() == data

    relation = duckdb.sql("select unnest(['x', 'y', null])::blob as data")
    values = pa.table(relation)["data"]
    payloads = engine.encrypt_column(key_id, CONTEXT, values)
    assert duckdb.sql("select count(payload) from payloads").fetchall() == [(2,)]
    assert pa.table(engine.decrypt_column(key_id, CONTEXT, pa.table(payloads)["payload"]))["data"][0].as_py() == b"x"

    series = pd.Series([b"alpha", b"beta"], dtype=pd.ArrowDtype(pa.binary()))
    payload = pd.DataFrame.from_arrow(engine.encrypt_column(key_id, CONTEXT, series))["payload"]
    back = pa.table(engine.decrypt_column(key_id, CONTEXT, pa.array(payload, pa.binary())))
    assert back["data"].to_pylist() == [b"alpha", b"beta"]

    # A record batch where there was one chunk, and a stream where there were several.
    one = engine.encrypt_column(key_id, CONTEXT, pa.array(data))
    assert pa.record_batch(one).num_rows == 3
    two = engine.encrypt_column(key_id, CONTEXT, pa.chunked_array([data, data]))
    with pytest.raises(ValueError, match="stream"):
        two.__arrow_c_array__()
    assert pa.table(two).num_rows == 6


def test_a_capsule_is_taken_once(engine: dekseal.Engine, key_id: str) -> None:
    class Once:
        """Gives the same capsules each time."""

        def __init__(self, array: pa.Array) -> None:
            self.capsules = array.__arrow_c_array__()

        def __arrow_c_array__(self, requested_schema: object = None) -> object:
            return self.capsules

    class Stream:
        def __init__(self, array: pa.ChunkedArray) -> None:
            self.capsule = array.__arrow_c_stream__()

        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return self.capsule

    for column in (Once(pa.array([b"x"])), Stream(pa.chunked_array([[b"x"]]))):
        assert engine.encrypt_column(key_id, CONTEXT, column).failed == 0
        with pytest.raises(ValueError, match="already"):
            engine.encrypt_column(key_id, CONTEXT, column)
    taken = Once(pa.array([b"x"]))
    # It takes the schema as well.
    pa.Array._import_from_c_capsule(*taken.capsules)
    with pytest.raises(ValueError, match="values: the Arrow array of this capsule was already taken"):
        engine.encrypt_column(key_id, CONTEXT, taken)


def test_a_column_of_contexts_has_fields(engine: dekseal.Engine, key_id: str) -> None:
    with pytest.raises(TypeError, match="contexts must be a column of maps or structs of text"):
        engine.encrypt_column(key_id, pa.array([{}], pa.struct([])), pa.array([b"x"]))


def test_a_stream_of_python_is_read(engine: dekseal.Engine, key_id: str) -> None:
    class Rows:
        """A stream whose chunks come from a Python generator, which needs the GIL."""

        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            fields = [pa.field("tenant", pa.string())]
            batches = (pa.record_batch([pa.array([str(row)])], schema=pa.schema(fields)) for row in range(3))
            return pa.RecordBatchReader.from_batches(pa.schema(fields), batches).__arrow_c_stream__()

    values = pa.chunked_array([[b"a", b"b", b"c"]])
    payloads = pa.table(engine.encrypt_column(key_id, Rows(), values))["payload"].to_pylist()
    assert [engine.decrypt(key_id, {"tenant": str(row)}, payloads[row]) for row in range(3)] == [b"a", b"b", b"c"]
