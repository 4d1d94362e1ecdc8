"""The database engine and sessions: SQLite in embedded mode, otherwise PostgreSQL."""

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
    """Creates sessions, each with `info`; one per process."""

    def __init__(self, url: str, info: Mapping[str, object]) -> None:
        self.engine = _engine(url)
        self._info = dict(info)
        self._writing = self.engine.execution_options(portal_writes=True)
        self._noting = self.engine.execution_options(portal_writes=True, portal_brief=True)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    def session(self, *, writes: bool = False) -> Session:
        """Return a session.

        With `writes`, each transaction takes SQLite's write lock when it begins, so that nothing it
        reads is outdated when it writes.
        """
        return self._sessions(bind=self._writing if writes else self.engine, info=dict(self._info))

    def look_into(self, file: Path) -> Session:
        """Return a read-only session on another, unused SQLite file; writes no files."""
        uri = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
        engine = create_engine(
            "sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=NullPool
        )
        return Session(engine, info=dict(self._info))

    @contextmanager
    def noting(self) -> Iterator[Session]:
        """Yield a session for optional writes, such as the last use, and commit at the end.

        Gives up if the database is busy, full or unavailable, so that reading still works.
        """
        try:
            with self._sessions(bind=self._noting, info=dict(self._info)) as session:
                yield session
                session.commit()
        except SQLAlchemyError:
            log.debug("an optional write was skipped")

    @contextmanager
    def counting(self) -> Iterator[Session]:
        """Yield a session for counters that many requests use, and commit at the end.

        Fails quickly while another process writes (SQLite). Raises what the database raises.
        """
        with self._sessions(bind=self._noting, info=dict(self._info)) as session:
            yield session
            session.commit()

    def answers(self) -> bool:
        """Return whether the database responds."""
        try:
            with self.engine.connect() as connection:
                connection.execute(text("select 1"))
        except SQLAlchemyError:
            return False
        return True


def read(session: Session, statement: TypedReturnsRows[*Ts], **values: object) -> CursorResult[*Ts]:
    """Return plain rows after flushing the session.

    For queries of every request: use a statement created once, with `bindparam`s for `values`. It
    creates no objects from rows, and takes a fifth of the time.
    """
    session.flush()
    return session.connection().execute(statement, values)


def release(session: Session) -> None:
    """End the transaction before a long wait, to hold no lock or connection meanwhile."""
    session.rollback()


def take_turn(session: Session, lock: int) -> None:
    """Wait for the advisory `lock`, and hold it until the transaction ends.

    `lock` is any number, the same in every process. On SQLite, a writing session is alone anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": lock})


def hold_writers(session: Session, table: str) -> None:
    """Wait for writers of `table`, and block others until this transaction ends.

    Several statements then read a consistent state. On SQLite, a writing session is alone anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"lock table {table} in share row exclusive mode"))


def _from_json(stored: str | bytes) -> Any:
    # Most stored JSON values are empty lists.
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
    # Use a statement, because connection poolers refuse startup options. Waiting for a lock times
    # out as on SQLite, so that an abandoned transaction cannot block every thread.
    connection.autocommit = True
    connection.execute(f"SET lock_timeout = {_LOCK_WAIT_MS}")
    connection.autocommit = False


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver would start transactions by itself, and late; `_SqliteBegin` starts them, with the
    # right type.
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
    """Starts SQLite transactions; writing ones take the write lock.

    After one has waited for the lock in vain, the next ones in this process wait only briefly,
    until one gets it. Otherwise a lock held for long would block every thread, including readers.
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
