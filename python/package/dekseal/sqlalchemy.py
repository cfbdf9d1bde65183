"""Encrypted attributes for SQLAlchemy, each value bound to its table, column and row.

    class Patient(Base):
        __tablename__ = "patient"
        id: Mapped[int] = mapped_column(primary_key=True)
        diagnosis_payload: Mapped[bytes | None] = mapped_column("diagnosis", Payload)
        diagnosis = Encrypted("diagnosis_payload", str)

    use(engine, key_id, Patient)
    database = sqlalchemy.create_engine(url, hide_parameters=True)

`patient.diagnosis` is the plaintext, and the column has payloads. The context of a value is
`{"table": "patient", "column": "diagnosis", "id": "17"}`, so a value that was moved to another row, column or table
does not decrypt.

With `hide_parameters`, the errors and logs of SQLAlchemy do not show the values of a statement. Without it, plaintext
that a program passes to `insert` in place of a payload is refused, but is part of the error's text. The error's
attribute `params` has it in any case.

The primary key must be known before the row is written: assign it, or give it a default that Python computes. It must
not change while the row has encrypted values.
"""

from __future__ import annotations

import json
import uuid
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, orm
from sqlalchemy.types import LargeBinary, TypeDecorator

import dekseal

__all__ = ["Encrypted", "Payload", "use"]


class _Pending:
    """Plaintext that is encrypted when the row is written."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "<plaintext>"


class Payload(TypeDecorator[bytes]):
    """The type of a column of payloads. It refuses everything else, so plaintext never reaches the database."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> bytes | None:
        return _payload(value)


def _payload(value: Any) -> bytes | None:
    """Raises if a value is neither a payload nor null."""
    if value is None:
        return None
    if isinstance(value, bytes):
        # Raises if it is none.
        dekseal.SealedDek.of_payload(value)
        return value
    # The value itself is perhaps a secret.
    raise TypeError(f"a column of payloads takes bytes, not {type(value).__name__}")


# How a value becomes bytes, and back.
_CODECS: dict[type, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    bytes: (bytes, bytes),
    str: (lambda value: value.encode(), lambda data: data.decode()),
    int: (lambda value: str(int(value)).encode(), int),
    dict: (lambda value: json.dumps(value).encode(), json.loads),
    list: (lambda value: json.dumps(value).encode(), json.loads),
    uuid.UUID: (lambda value: value.bytes, lambda data: uuid.UUID(bytes=data)),
}


class Encrypted:
    """An attribute whose values are encrypted in a column of type `Payload`.

    `payload` is the name of the column's attribute. Values are of `python_type`: bytes, str, int, UUID, or a dict or
    list of JSON. For another type, pass `encode` and `decode`. `context` makes the context of a row, in place of table,
    column and primary key.

    In a query, the attribute of the class is the column: `Patient.diagnosis.is_(None)`.
    """

    def __init__(
        self,
        payload: str,
        python_type: type = bytes,
        *,
        encode: Callable[[Any], bytes] | None = None,
        decode: Callable[[bytes], Any] | None = None,
        context: Callable[[Any], Mapping[str, str]] | None = None,
    ) -> None:
        if (encode is None) != (decode is None):
            raise TypeError("pass both encode and decode, or neither")
        if encode is None and python_type not in _CODECS:
            raise TypeError(f"values of {python_type.__name__} need encode and decode")
        self._payload = payload
        self._type = python_type
        self._encode, self._decode = (encode, decode) if encode and decode else _CODECS[python_type]
        self._context = context
        # The classes of one mixin can have different engines and keys.
        self._used: weakref.WeakKeyDictionary[type, tuple[dekseal.Engine, str | Callable[[Any], str]]] = (
            weakref.WeakKeyDictionary()
        )

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, row: Any, owner: type | None = None) -> Any:
        if row is None:
            return getattr(owner, self._payload)
        value = getattr(row, self._payload)
        if value is None:
            return None
        if isinstance(value, _Pending):
            return value.value
        engine, key_id = self._keys(row)
        return self._decode(engine.decrypt(key_id, self.context(row), value))

    def __set__(self, row: Any, value: Any) -> None:
        if value is not None:
            # A wrong type is an error here, and not at some later flush.
            if not isinstance(value, self._type):
                raise TypeError(f"{self._name} takes {self._type.__name__}, not {type(value).__name__}")
            value = _Pending(value)
        setattr(row, self._payload, value)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("an encrypted attribute cannot be pickled or copied")

    def context(self, row: Any) -> dict[str, str]:
        """The encryption context of the value of a row."""
        if self._context is not None:
            return dict(self._context(row))
        mapper = orm.object_mapper(row)
        column = mapper.attrs[self._payload].columns[0]
        context = {"table": column.table.fullname, "column": column.name}
        for key in mapper.primary_key:
            value = getattr(row, mapper.get_property_by_column(key).key)
            if value is None:
                raise ValueError(
                    f"the primary key {key.name} of {column.table.fullname} must be known before {self._name} is "
                    "encrypted: assign it, or give it a default that Python computes"
                )
            if key.name in context:
                raise ValueError(f"the name of the primary key {key.name} is taken: pass context to Encrypted")
            context[key.name] = str(value)
        return context

    def _keys(self, row: Any) -> tuple[dekseal.Engine, str]:
        for class_ in type(row).__mro__:
            if class_ in self._used:
                engine, key_id = self._used[class_]
                return engine, key_id if isinstance(key_id, str) else key_id(row)
        raise RuntimeError(f"{self._name} of {type(row).__name__} has no engine: call dekseal.sqlalchemy.use")

    def _flush(self, row: Any) -> None:
        """Encrypts what was assigned to the row."""
        value = getattr(row, self._payload)
        if isinstance(value, _Pending):
            engine, key_id = self._keys(row)
            setattr(row, self._payload, engine.encrypt(key_id, self.context(row), self._encode(value.value)))


def use(engine: dekseal.Engine, key_id: str | Callable[[Any], str], *classes: type) -> None:
    """Encrypts the attributes of these mapped classes with an engine.

    `key_id` is a key, or a function from a row to its key, for tenants with keys of their own.
    """
    for class_ in classes:
        attributes = _attributes(class_)
        if not attributes:
            raise TypeError(f"{class_.__name__} has no encrypted attribute")
        # A class that is not mapped has no rows.
        orm.class_mapper(class_, configure=False)
        for attribute in attributes:
            attribute._used[class_] = engine, key_id
            _listen(getattr(class_, attribute._payload), "set", _set)
        _listen(class_, "before_insert", _before_insert)
        _listen(class_, "before_update", _before_update)


def _attributes(class_: type) -> list[Encrypted]:
    return [value for base in class_.__mro__ for value in vars(base).values() if isinstance(value, Encrypted)]


def _listen(target: Any, name: str, listener: Callable[..., None]) -> None:
    if not event.contains(target, name, listener):
        event.listen(target, name, listener, propagate=True)


def _set(row: Any, value: Any, old: Any, initiator: Any) -> None:
    # Refused here already, where no SQL statement with the value is at hand for the text of an error.
    if not isinstance(value, _Pending | sa.ClauseElement):
        _payload(value)


def _before_insert(mapper: orm.Mapper[Any], connection: sa.Connection, row: Any) -> None:
    for key in mapper.primary_key:
        name = mapper.get_property_by_column(key).key
        if getattr(row, name) is None and key.default is not None and key.default.is_callable:
            setattr(row, name, key.default.arg(None))
    for attribute in _attributes(type(row)):
        attribute._flush(row)


def _before_update(mapper: orm.Mapper[Any], connection: sa.Connection, row: Any) -> None:
    state = sa.inspect(row)
    for key in mapper.primary_key:
        name = mapper.get_property_by_column(key).key
        if state.attrs[name].history.has_changes():
            raise ValueError(f"the primary key {key.name} must not change while the row has encrypted values")
    for attribute in _attributes(type(row)):
        attribute._flush(row)
