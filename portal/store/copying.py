"""Copies of an SQLite database: made while others write to it, and put in its place in one step."""

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path


class InUse(Exception):
    """Another process has the database open."""


class Broken(Exception):
    """The file is no database, or not a whole one."""


def copy(source: Path, target: Path) -> None:
    """A copy of `source` as it is at one moment, as a single new file that only its owner reads.
    Raises `Broken` where it is not whole."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    here = f"{source.absolute().as_uri()}?mode=ro"
    with (
        closing(sqlite3.connect(here, uri=True)) as reading,
        closing(sqlite3.connect(target)) as writing,
    ):
        try:
            reading.backup(writing)  # in one step: under WAL writers go on meanwhile
        except sqlite3.DatabaseError as error:
            raise Broken(str(error)) from None
        writing.execute(
            "PRAGMA journal_mode=DELETE"
        )  # what would be in a file beside it is in the file itself
        check(writing)
    _sync(target)


def check(connection: sqlite3.Connection) -> None:
    """Raise `Broken` where the database's pages do not fit together."""
    try:
        [(found,)] = connection.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.DatabaseError as error:
        raise Broken(str(error)) from None
    if found != "ok":
        raise Broken(str(found))


def digest(file: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Have the database, where there is one, for oneself: nobody opens it until the block ends.
    Raises `InUse`."""
    if not file.exists():
        yield
        return
    with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
            connection.execute(
                "PRAGMA journal_mode=DELETE"
            )  # nothing is left beside it that the next one would read
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise InUse(str(file)) from None
        except sqlite3.DatabaseError:
            pass  # no database any more: that may be why another one is to take its place
        yield


def put_in_place(new: Path, file: Path) -> None:
    """Make `new` the database, in one step; it has to be in the same folder, and `file` ours
    `alone`."""
    with closing(sqlite3.connect(new)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    _sync(new)
    for beside in (f"{file}-wal", f"{file}-shm"):  # of a file that was no database any more
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
