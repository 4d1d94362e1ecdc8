"""Copies of an SQLite database: made while others write, and replaced in one step."""

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path


class InUse(Exception):
    """Another process has the database open."""


class Broken(Exception):
    """The file is not a database, or not a complete one."""


def copy(source: Path, target: Path) -> None:
    """Copy `source` as of one moment to a new file that only its owner can read.

    Raises `Broken` if it is not complete.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    here = f"{source.absolute().as_uri()}?mode=ro"
    with (
        closing(sqlite3.connect(here, uri=True)) as reading,
        closing(sqlite3.connect(target)) as writing,
    ):
        try:
            reading.backup(writing)  # in one step: with WAL, writers continue meanwhile
        except sqlite3.DatabaseError as error:
            raise Broken(str(error)) from None
        writing.execute("PRAGMA journal_mode=DELETE")  # leaves no second file
        check_integrity(writing)
    _sync(target)


def check_integrity(connection: sqlite3.Connection) -> None:
    """Raise `Broken` if the database fails its integrity check."""
    try:
        [(found,)] = connection.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.DatabaseError as error:
        raise Broken(str(error)) from None
    if found != "ok":
        raise Broken(str(found))


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Hold the database exclusively, if it exists, until the block ends. Raises `InUse`."""
    if not file.exists():
        yield
        return
    with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode=DELETE")  # leaves no file for the next one
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise InUse(str(file)) from None
        except sqlite3.DatabaseError:
            pass  # not a valid database, which may be why it is being replaced
        yield


def put_in_place(new: Path, file: Path) -> None:
    """Replace the database with `new` in one step.

    `new` has to be in the same folder, and `file` must be held by `alone`.
    """
    with closing(sqlite3.connect(new)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    _sync(new)
    for beside in (f"{file}-wal", f"{file}-shm"):  # of a file that was not a valid database
        with suppress(FileNotFoundError):
            os.unlink(beside)
    os.replace(new, file)
    _sync(file.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
