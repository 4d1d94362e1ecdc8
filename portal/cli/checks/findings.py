"""Findings of checks, and the input of a check."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from sqlalchemy.engine import make_url

from portal.settings import Settings
from portal.store.database import Database
from portal.store.models import now


class Level(StrEnum):
    """The severity; `doctor` exits with 1 if any finding is BAD."""

    OK = "ok"
    WARN = "warn"
    BAD = "BAD"


@dataclass(frozen=True)
class Finding:
    """A line of the report: what was found, and the remedy, if any."""

    level: Level
    name: str
    what: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.level:4} {self.name}: {self.what}{f' · {self.cure}' if self.cure else ''}"


@dataclass(frozen=True)
class Surroundings:
    """The portal on its host; `clock` returns the host's time."""

    settings: Settings
    database: Database
    clock: Callable[[], datetime] = now

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database."""
        if not self.settings.embedded:
            return None
        return Path(make_url(self.settings.database_url).database or "")


Check = Callable[[Surroundings], Iterator[Finding]]


def ok(name: str, what: str) -> Finding:
    """Return a finding without a problem."""
    return Finding(Level.OK, name, what)


def warn(name: str, what: str, cure: str) -> Finding:
    """Return a finding that works but should be improved."""
    return Finding(Level.WARN, name, what, cure)


def bad(name: str, what: str, cure: str) -> Finding:
    """Return a finding that does not work or is not safe."""
    return Finding(Level.BAD, name, what, cure)
