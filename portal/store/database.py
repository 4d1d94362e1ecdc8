"""The engine and its sessions: SQLite in embedded mode, PostgreSQL elsewhere."""

import json
import logging
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVarTuple

from sqlalchemy import Connection, CursorResult, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.selectable import TypedReturnsRows

from portal.telemetry import metrics

log = logging.getLogger("portal.store")
Ts = TypeVarTuple("Ts")
_LOCK_WAIT_MS = 5_000
_BRIEF_WAIT_MS = 200
_CONNECT_SECONDS = 5


class Database:
    """One per process: hands out sessions, each of which carries `info`."""

    def __init__(self, url: str, info: Mapping[str, object]) -> None:
        self.engine = _engine(url)
        self._info = dict(info)
        self._writing = self.engine.execution_options(portal_writes=True)
        self._noting = self.engine.execution_options(portal_writes=True, portal_brief=True)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    def session(self, *, writes: bool = False) -> Session:
        """A session. With `writes` each of its transactions takes SQLite's write lock as it begins,
        so that nothing that was read is stale when it is written."""
        return self._sessions(bind=self._writing if writes else self.engine, info=dict(self._info))

    def look_into(self, file: Path) -> Session:
        """A session on another SQLite file that nobody changes; nothing is written, not even beside
        it."""
        uri = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
        engine = create_engine(
            "sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=NullPool
        )
        return Session(engine, info=dict(self._info))

    @contextmanager
    def noting(self) -> Iterator[Session]:
        """A session that commits at the end, for what is good to know and worth no wait: when
        something was last used.

        It is given up where the database is busy, full or gone, so that reading goes on.
        """
        try:
            with self._sessions(bind=self._noting, info=dict(self._info)) as session:
                yield session
                session.commit()
        except SQLAlchemyError:
            log.debug("a note was given up")

    @contextmanager
    def counting(self) -> Iterator[Session]:
        """A session that commits at the end, for counts that many wait for: it gives up soon where
        somebody else writes (SQLite). Raises what the database raises."""
        with self._sessions(bind=self._noting, info=dict(self._info)) as session:
            yield session
            session.commit()

    def answers(self) -> bool:
        """Whether the database can be asked at all."""
        try:
            with self.engine.connect() as connection:
                connection.execute(text("select 1"))
        except SQLAlchemyError:
            return False
        return True


def read(session: Session, statement: TypedReturnsRows[*Ts], **values: object) -> CursorResult[*Ts]:
    """Plain rows of columns, seen after what the session has to write.

    For what every request asks: a statement that was made once, with `bindparam`s for `values`, and
    no objects made of its rows. Together that takes a fifth of the time.
    """
    session.flush()
    return session.connection().execute(statement, values)


def release(session: Session) -> None:
    """End the transaction before a long wait, so that no lock or connection is held while an
    upstream thinks."""
    session.rollback()


def take_turn(session: Session, lock: int) -> None:
    """Wait until no other transaction holds the `lock` (any number, the same in every process), and
    hold it until this one ends. On SQLite a session that writes is alone anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": lock})


def hold_writers(session: Session, table: str) -> None:
    """Wait for those who write to `table`, and let nobody else write to it until this transaction
    ends; so what is read of it in several statements is of one time. On SQLite a session that
    writes is alone anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"lock table {table} in share row exclusive mode"))


def _from_json(stored: str | bytes) -> Any:
    # Most of what is stored as JSON are lists with nothing in them.
    return [] if stored in ("[]", b"[]") else json.loads(stored)


def _engine(url: str) -> Engine:
    engine = _made(url)
    event.listen(
        engine, "checkout", lambda *_: metrics.move("portal_database_connections_in_use", 1)
    )
    event.listen(
        engine, "checkin", lambda *_: metrics.move("portal_database_connections_in_use", -1)
    )
    return engine


def _made(url: str) -> Engine:
    if not url.startswith("sqlite"):
        engine = create_engine(
            url,
            pool_size=10,
            max_overflow=10,
            pool_pre_ping=True,
            pool_timeout=10,
            pool_recycle=1800,
            connect_args={"connect_timeout": _CONNECT_SECONDS},
            hide_parameters=True,
            json_deserializer=_from_json,
        )
        event.listen(engine, "connect", _prepare_postgresql)
        return engine
    path = make_url(url).database
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url,
        pool_size=16,
        max_overflow=16,
        pool_timeout=10,
        hide_parameters=True,
        json_deserializer=_from_json,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _SqliteBegin())
    return engine


def _prepare_postgresql(connection: Any, _record: object) -> None:
    # A statement and not a start-up option, which poolers in between refuse. What waits for a lock
    # gives up, as on SQLite: a transaction that somebody forgot must not hold every thread.
    connection.autocommit = True
    connection.execute(f"SET lock_timeout = {_LOCK_WAIT_MS}")
    connection.autocommit = False


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver would open transactions by itself, and late; `_SqliteBegin` does it, and says which
    # kind.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout={_LOCK_WAIT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "temp_store=MEMORY",
        "cache_size=-16000",
    ):
        connection.execute(f"PRAGMA {pragma}")


class _SqliteBegin:
    """Opens SQLite's transactions, those that write with the write lock.

    Once one has waited for that lock in vain, the next ones of this process wait only briefly,
    until one gets it: a lock held for long would otherwise have every thread waiting, and none left
    to read.
    """

    def __init__(self) -> None:
        self._waited_in_vain = False

    def __call__(self, connection: Connection) -> None:
        options = connection.get_execution_options()
        if not options.get("portal_writes", False):
            connection.exec_driver_sql("BEGIN")
            return
        is_note = options.get("portal_brief", False)
        brief = is_note or self._waited_in_vain
        if brief:
            connection.exec_driver_sql(f"PRAGMA busy_timeout={_BRIEF_WAIT_MS}")
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            self._waited_in_vain = False
        except OperationalError:
            self._waited_in_vain = self._waited_in_vain or not is_note
            raise
        finally:
            if brief:
                connection.exec_driver_sql(f"PRAGMA busy_timeout={_LOCK_WAIT_MS}")
