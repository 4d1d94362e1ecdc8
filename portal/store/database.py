"""The engine and its sessions: SQLite in embedded mode, PostgreSQL elsewhere."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

_LOCK_WAIT_MS = 5_000


class Database:
    """One per process: hands out sessions, each of which carries `info`."""

    def __init__(self, url: str, info: Mapping[str, object]) -> None:
        self.engine = _engine(url)
        self._info = dict(info)
        self._writing = self.engine.execution_options(portal_writes=True)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    def session(self, *, writes: bool = False) -> Session:
        """A session. With `writes` each of its transactions takes SQLite's write lock as it begins, so that nothing
        that was read is stale when it is written."""
        return self._sessions(bind=self._writing if writes else self.engine, info=dict(self._info))

    def look_into(self, file: Path) -> Session:
        """A session on another SQLite file that nobody changes; nothing is written, not even beside it."""
        uri = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
        engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=NullPool)
        return Session(engine, info=dict(self._info))

    def answers(self) -> bool:
        """Whether the database can be asked at all."""
        try:
            with self.engine.connect() as connection:
                connection.execute(text("select 1"))
        except SQLAlchemyError:
            return False
        return True


def release(session: Session) -> None:
    """End the transaction before a long wait, so that no lock or connection is held while an upstream thinks."""
    session.rollback()


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_size=10, max_overflow=10, pool_pre_ping=True, pool_timeout=10, pool_recycle=1800)
    path = make_url(url).database
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, pool_size=16, max_overflow=16, pool_timeout=10)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver would open transactions by itself, and late; `_begin_sqlite` does it, and says which kind.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout={_LOCK_WAIT_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON",
        "temp_store=MEMORY", "cache_size=-16000",
    ):  # fmt: skip
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("portal_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
