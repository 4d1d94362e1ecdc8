"""The database: whether it answers, is whole, has room, and has the schema of this code."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing

from sqlalchemy import func, select, text

from portal.cli.checks.findings import Finding, Surroundings, bad, ok, warn
from portal.store import copying, schema
from portal.store.models import AuditEvent

_LITTLE = 1024**3


def answers(around: Surroundings) -> Iterator[Finding]:
    """Whether it can be asked at all, and what it is."""
    if around.file is not None and not around.file.exists():
        yield bad(
            "database",
            f"{around.file} is not there",
            "Start portal serve, which makes it, or: portal db upgrade",
        )
    elif not around.database.answers():
        cure = (
            "Restore a backup: portal restore FILE --force"
            if around.file
            else "Check PORTAL_DATABASE_URL, and that it runs"
        )
        yield bad("database", "does not answer", cure)
    else:
        with around.database.engine.connect() as connection:
            version = connection.dialect.server_version_info or ()
        kind = "SQLite" if around.file else "PostgreSQL"
        yield ok("database", f"{kind} {'.'.join(str(part) for part in version)} answers")


def at_head(around: Surroundings) -> Iterator[Finding]:
    """Whether it has the schema of this code."""
    revision = schema.revision(around.database.engine)
    if schema.is_at_head(around.database.engine):
        yield ok("migrations", "at head")
    elif revision is not None and not schema.knows(revision):
        yield bad(
            "migrations",
            f"the schema {revision} is a newer portal's",
            "Install that version, or restore a backup",
        )
    else:
        yield bad("migrations", "not at head", "Run: portal db upgrade")


def whole(around: Surroundings) -> Iterator[Finding]:
    """SQLite: whether its pages fit together, and whether readers and writers do not wait for each
    other."""
    if around.file is None:
        return
    with closing(sqlite3.connect(around.file)) as connection:
        try:
            copying.check(connection)
            yield ok("database file", "its pages fit together")
        except copying.Broken as error:
            cure = "Stop the portal, and restore a backup: portal restore FILE --force"
            yield bad("database file", f"it is damaged ({str(error).splitlines()[-1]})", cure)
            return
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            yield bad(
                "database file",
                "no write-ahead log is possible there",
                "Move it from a network drive to a local disk",
            )


def has_room(around: Surroundings) -> Iterator[Finding]:
    """SQLite: whether the disk has room for it to grow, and for a copy."""
    if around.file is None:
        return
    free = shutil.disk_usage(around.file.parent).free
    size = around.file.stat().st_size
    figures = f"{free // 1024**2:,} MiB free beside a database of {size // 1024**2:,} MiB"
    if free < size:
        yield bad("disk", figures, "Make room: neither a backup nor a migration fits")
    elif free < _LITTLE:
        yield warn("disk", figures, "Make room")
    else:
        yield ok("disk", "has room")


def clock(around: Surroundings) -> Iterator[Finding]:
    """Whether this host's clock is that of the database, and behind no event that is on record."""
    at = around.clock()
    most = 30
    with around.database.engine.connect() as connection:
        if around.file is None:
            there = connection.execute(text("select clock_timestamp()")).scalar_one()
            yield from compared("clock", "the database", abs((there - at).total_seconds()), most)
        newest = connection.execute(select(func.max(AuditEvent.at))).scalar()
    if newest is not None and (newest - at).total_seconds() > most:
        yield bad(
            "clock",
            "it is before the newest event of the audit log",
            "Set this host's clock, by NTP",
        )
    else:
        yield ok("clock", "it is after all that is on record")


def compared(name: str, other: str, apart: float, most: int = 30) -> Iterator[Finding]:
    """Whether two clocks, some seconds `apart`, count as one."""
    if apart > most:
        yield bad(
            name,
            f"it is {apart:.0f} s apart from that of {other}",
            "Set both hosts' clocks, by NTP",
        )
    else:
        yield ok(name, f"it agrees with that of {other}")
