"""The database: whether it responds, is intact, has disk space, and has the current schema."""

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
    """Check that the database responds, and report its version."""
    if around.file is not None and not around.file.exists():
        yield bad(
            "database",
            f"{around.file} does not exist",
            "Start portal serve, which creates it, or run: portal db upgrade",
        )
    elif not around.database.answers():
        cure = (
            "Restore a backup: portal restore FILE --force"
            if around.file
            else "Check PORTAL_DATABASE_URL, and that the database is running"
        )
        yield bad("database", "does not respond", cure)
    else:
        with around.database.engine.connect() as connection:
            version = connection.dialect.server_version_info or ()
        kind = "SQLite" if around.file else "PostgreSQL"
        yield ok("database", f"{kind} {'.'.join(str(part) for part in version)} responds")


def at_head(around: Surroundings) -> Iterator[Finding]:
    """Check that the database has the schema of this code."""
    revision = schema.revision(around.database.engine)
    if schema.is_at_head(around.database.engine):
        yield ok("migrations", "up to date")
    elif revision is not None and not schema.knows(revision):
        yield bad(
            "migrations",
            f"the schema {revision} belongs to a newer version of the portal",
            "Install that version, or restore a backup",
        )
    else:
        yield bad("migrations", "not up to date", "Run: portal db upgrade")


def whole(around: Surroundings) -> Iterator[Finding]:
    """SQLite: check the file's integrity, and that readers and writers do not block."""
    if around.file is None:
        return
    with closing(sqlite3.connect(around.file)) as connection:
        try:
            copying.check_integrity(connection)
            yield ok("database file", "its integrity check passed")
        except copying.Broken as error:
            cure = "Stop the portal, and restore a backup: portal restore FILE --force"
            yield bad("database file", f"it is damaged ({str(error).splitlines()[-1]})", cure)
            return
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            yield bad(
                "database file",
                "write-ahead logging is not possible there",
                "Move it from a network drive to a local disk",
            )


def has_room(around: Surroundings) -> Iterator[Finding]:
    """SQLite: check that the disk has space for the database to grow, and for a copy."""
    if around.file is None:
        return
    free = shutil.disk_usage(around.file.parent).free
    size = around.file.stat().st_size
    figures = f"{free // 1024**2:,} MiB free for a database of {size // 1024**2:,} MiB"
    if free < size:
        yield bad("disk", figures, "Free disk space: neither a backup nor a migration fits")
    elif free < _LITTLE:
        yield warn("disk", figures, "Free disk space")
    else:
        yield ok("disk", "has enough space")


def clock(around: Surroundings) -> Iterator[Finding]:
    """Check that this host's clock matches the database's, and is not behind the newest event."""
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
            "it is behind the newest event of the audit log",
            "Set this host's clock with NTP",
        )
    else:
        yield ok("clock", "it is later than all audit events")


def compared(name: str, other: str, apart: float, most: int = 30) -> Iterator[Finding]:
    """Check that two clocks differ by no more than `most` seconds; `apart` is the difference."""
    if apart > most:
        yield bad(
            name,
            f"it differs from that of {other} by {apart:.0f} s",
            "Set both hosts' clocks with NTP",
        )
    else:
        yield ok(name, f"it matches that of {other}")
