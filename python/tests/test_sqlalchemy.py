"""Encrypted attributes of SQLAlchemy, on SQLite and on PostgreSQL."""

from __future__ import annotations

import copy
import json
import os
import pathlib
import pickle
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import dekseal
import pytest
import sqlalchemy as sa
from dekseal.sqlalchemy import Encrypted, Payload, use
from sqlalchemy import orm

SECRET = "a diagnosis that nobody else may read"


class Base(orm.DeclarativeBase):
    pass


class Patient(Base):
    __tablename__ = "patient"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True, autoincrement=False)
    name: orm.Mapped[str | None]
    diagnosis_payload: orm.Mapped[bytes | None] = orm.mapped_column("diagnosis", Payload)
    diagnosis = Encrypted("diagnosis_payload", str)
    history_payload: orm.Mapped[bytes | None] = orm.mapped_column("history", Payload)
    history = Encrypted("history_payload", list)


class Document(Base):
    __tablename__ = "document"
    tenant: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    id: orm.Mapped[str] = orm.mapped_column(primary_key=True, default=lambda: str(uuid.uuid4()))
    body_payload: orm.Mapped[bytes | None] = orm.mapped_column("body", Payload)
    body = Encrypted("body_payload", bytes)


class Noted:
    note_payload: orm.Mapped[bytes | None] = orm.mapped_column("note", Payload)
    note = Encrypted("note_payload", str)


class Visit(Noted, Base):
    __tablename__ = "visit"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True, autoincrement=False)


class Letter(Noted, Base):
    __tablename__ = "letter"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True, autoincrement=False)


class Invoice(Noted, Base):
    __tablename__ = "invoice"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True, autoincrement=False)


@pytest.fixture(params=["sqlite", "postgres"])
def session(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[orm.Session]:
    if request.param == "sqlite":
        database = sa.create_engine(f"sqlite:///{tmp_path / 'data.db'}", hide_parameters=True)
    else:
        connection = dict(part.split("=") for part in request.getfixturevalue("postgres").split())
        database = sa.create_engine(
            f"postgresql+psycopg://{connection['user']}@/postgres",
            connect_args={"host": connection["host"]},
            hide_parameters=True,
        )
    Base.metadata.drop_all(database)
    Base.metadata.create_all(database)
    with orm.Session(database) as opened:
        yield opened
    database.dispose()


@pytest.fixture
def used(engine: dekseal.Engine, key_id: str, keyring: dekseal.MemoryKeyring) -> dict[str, str]:
    tenants = {tenant: keyring.create_key() for tenant in ("a", "b")}
    use(engine, key_id, Patient)
    use(engine, lambda document: tenants[document.tenant], Document)
    return tenants


def rows(session: orm.Session, sql: str) -> list[Any]:
    return list(session.execute(sa.text(sql)))


def test_the_database_has_payloads_and_the_program_plaintext(
    session: orm.Session, used: dict[str, str], engine: dekseal.Engine, key_id: str
) -> None:
    patient = Patient(id=17, diagnosis=SECRET, history=[1, {"a": "Zoë"}])
    assert patient.diagnosis == SECRET and SECRET not in repr(vars(patient))
    session.add_all([patient, Patient(id=18, diagnosis=None)])
    session.commit()
    assert patient.diagnosis == SECRET and patient.history == [1, {"a": "Zoë"}]
    (stored,) = rows(session, "SELECT diagnosis FROM patient WHERE id = 17")
    context = {"table": "patient", "column": "diagnosis", "id": "17"}
    assert engine.decrypt(key_id, context, bytes(stored[0])) == SECRET.encode()

    patient.diagnosis = "other"
    session.commit()
    session.expire_all()
    assert session.scalars(sa.select(Patient).where(Patient.diagnosis.is_not(None))).one().diagnosis == "other"
    patient.diagnosis = None
    session.commit()
    assert rows(session, "SELECT diagnosis FROM patient WHERE id = 17") == [(None,)]
    # A change of another column leaves the payload as it is.
    patient.diagnosis = SECRET
    session.commit()
    before = rows(session, "SELECT diagnosis FROM patient WHERE id = 17")
    patient.name = "name"
    session.commit()
    assert rows(session, "SELECT diagnosis FROM patient WHERE id = 17") == before


def test_values_that_were_moved_do_not_decrypt(session: orm.Session, used: dict[str, str]) -> None:
    session.add_all([Patient(id=1, diagnosis=SECRET, history=["h"]), Patient(id=2, diagnosis="two", history=["i"])])
    session.commit()
    session.execute(sa.text("UPDATE patient SET diagnosis = (SELECT diagnosis FROM patient WHERE id = 1) WHERE id = 2"))
    session.execute(sa.text("UPDATE patient SET history = diagnosis WHERE id = 1"))
    session.commit()
    one, two = session.get_one(Patient, 1), session.get_one(Patient, 2)
    assert one.diagnosis == SECRET and two.history == ["i"]
    for read in (lambda: two.diagnosis, lambda: one.history):
        with pytest.raises(dekseal.AuthenticationFailed):
            read()


def test_each_tenant_has_its_key(session: orm.Session, used: dict[str, str]) -> None:
    documents = [Document(tenant=tenant, body=b"body of " + tenant.encode()) for tenant in used]
    session.add_all(documents)
    session.commit()
    stored = dict(rows(session, "SELECT tenant, body FROM document"))
    for tenant, key_id in used.items():
        assert dekseal.SealedDek.of_payload(bytes(stored[tenant])).key_id == key_id
    session.execute(sa.text("UPDATE document SET body = (SELECT body FROM document WHERE tenant = 'a')"))
    session.commit()
    assert documents[0].body == b"body of a"
    with pytest.raises(dekseal.KeyMismatch):
        documents[1].body


def test_classes_with_one_mixin_have_their_own_keys(
    session: orm.Session, engine: dekseal.Engine, key_id: str, keyring: dekseal.MemoryKeyring
) -> None:
    other = keyring.create_key()
    use(engine, key_id, Visit)
    with pytest.raises(RuntimeError, match="note of Letter has no engine"):
        Letter(id=1, note_payload=engine.encrypt(key_id, {}, b"")).note
    use(engine, other, Invoice)
    # Twice is as once.
    use(engine, other, Invoice)
    made: list[Visit | Invoice] = [Visit(id=1, note=SECRET), Invoice(id=1, note=SECRET)]
    session.add_all(made)
    session.commit()
    for row, table, key in zip(made, ("visit", "invoice"), (key_id, other), strict=True):
        ((stored,),) = rows(session, f"SELECT note FROM {table}")
        assert dekseal.SealedDek.of_payload(bytes(stored)).key_id == key
        assert engine.decrypt(key, {"table": table, "column": "note", "id": "1"}, bytes(stored)) == SECRET.encode()
        assert row.note == SECRET
        row.note = "changed"
    session.commit()
    assert [row.note for row in made] == ["changed", "changed"]


def test_a_rewrapped_table_stays_readable(
    session: orm.Session,
    used: dict[str, str],
    keyring: dekseal.MemoryKeyring,
    engine: dekseal.Engine,
    key_id: str,
) -> None:
    session.add_all(Patient(id=number, diagnosis=f"{SECRET} {number}") for number in range(50))
    session.commit()
    keyring.rotate(key_id)
    for number, payload in rows(session, "SELECT id, diagnosis FROM patient"):
        context = {"table": "patient", "column": "diagnosis", "id": str(number)}
        renewed = engine.rewrap(key_id, context, bytes(payload))
        session.execute(sa.text("UPDATE patient SET diagnosis = :new WHERE id = :id"), {"new": renewed, "id": number})
    session.commit()
    keyring.set_min_version(key_id, 1)
    session.expire_all()
    assert [patient.diagnosis for patient in session.scalars(sa.select(Patient).order_by(Patient.id))] == [
        f"{SECRET} {number}" for number in range(50)
    ]


def test_the_command_sweeps_the_table_and_it_stays_readable(
    session: orm.Session, command: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    keyring = dekseal.FileKeyring.create(tmp_path / "keyring.json", dekseal.Root.create_file(tmp_path / "root.key"))
    key_id = keyring.create_key()
    use(dekseal.Engine(keyring), key_id, Patient, Document)
    session.add_all(Patient(id=number, diagnosis=f"{SECRET} {number}", history=[number]) for number in range(50))
    session.add_all(Document(tenant=tenant, id=f"{tenant}{{}}", body=tenant.encode()) for tenant in ("a", "b=c", "Zoë"))
    session.commit()
    keyring.rotate(key_id)

    url = session.get_bind().engine.url
    address = f"sqlite:{url.database}"
    if url.get_backend_name() == "postgresql":
        ((directory,),) = rows(session, "SHOW unix_socket_directories")
        address = f"postgres://{url.username}@{directory.replace('/', '%2F')}/{url.database}"
        session.rollback()
    for table, column, context in (
        ("patient", "diagnosis", ["id={id}"]),
        ("patient", "history", ["id={id}"]),
        ("document", "body", ["tenant={tenant}", "id={id}"]),
    ):
        words = ["sweep", f"--database={address}", f"--table={table}", f"--blob-column={column}", "--payload", "--json"]
        pairs = [f"table={table}", f"column={column}", *context]
        ran = subprocess.run(
            [command, *words, *(f"--context={pair}" for pair in pairs), f"--state={tmp_path / 'state'}"],
            env={
                **os.environ,
                "DEKSEAL_KEYRING": f"file:{tmp_path / 'keyring.json'}",
                "DEKSEAL_ROOT": f"file:{tmp_path / 'root.key'}",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        report = json.loads(ran.stdout)
        count = 50 if table == "patient" else 3
        assert (report["rows"], report["rewrapped"], report["failed"]) == (count, count, 0)

    # The old version is not needed any more.
    keyring.set_min_version(key_id, 1)
    session.expire_all()
    patients = session.scalars(sa.select(Patient).order_by(Patient.id)).all()
    assert [(patient.diagnosis, patient.history) for patient in patients] == [
        (f"{SECRET} {number}", [number]) for number in range(50)
    ]
    assert {document.tenant: document.body for document in session.scalars(sa.select(Document))} == {
        tenant: tenant.encode() for tenant in ("a", "b=c", "Zoë")
    }


def test_plaintext_never_reaches_the_database(session: orm.Session, used: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="diagnosis takes str, not bytes"):
        Patient(id=1, diagnosis=SECRET.encode())
    for wrong in (SECRET, 7):
        with pytest.raises(sa.exc.StatementError, match="a column of payloads takes bytes") as refused:
            session.execute(sa.insert(Patient).values(id=3, diagnosis_payload=wrong))
        session.rollback()
        assert isinstance(refused.value.orig, TypeError) and SECRET not in str(refused.value)
        with pytest.raises(TypeError, match="a column of payloads takes bytes"):
            Patient(id=3, diagnosis_payload=wrong)
    with pytest.raises(sa.exc.StatementError):
        session.execute(sa.insert(Patient).values(id=3, diagnosis_payload=SECRET.encode()))
    session.rollback()
    with pytest.raises(dekseal.Error):
        Patient(id=3, diagnosis_payload=SECRET.encode())
    session.add(Patient(diagnosis=SECRET))
    with pytest.raises(ValueError, match="primary key id of patient must be known"):
        session.flush()
    session.rollback()
    patient = Patient(id=5, diagnosis=SECRET)
    session.add(patient)
    session.commit()
    patient.id = 6
    with pytest.raises(ValueError, match="must not change"):
        session.flush()
    session.rollback()
    assert rows(session, "SELECT id FROM patient") == [(5,)]


def test_attributes_are_declared_right() -> None:
    with pytest.raises(TypeError, match="need encode and decode"):
        Encrypted("payload", complex)
    with pytest.raises(TypeError, match="or neither"):
        Encrypted("payload", complex, encode=repr)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no encrypted attribute"):
        use(dekseal.Engine(dekseal.MemoryKeyring()), "key", Base)
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            attempt(vars(Patient)["diagnosis"])
