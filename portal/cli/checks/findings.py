"""What a check answers, and what it is given."""

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
    """How bad it is; `doctor` ends with 1 where anything is BAD."""

    OK = "ok"
    WARN = "warn"
    BAD = "BAD"


@dataclass(frozen=True)
class Finding:
    """A line of the report: what was found, and what to do where something is to be done."""

    level: Level
    name: str
    what: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.level:4} {self.name}: {self.what}{f' · {self.cure}' if self.cure else ''}"


@dataclass(frozen=True)
class Surroundings:
    """The portal on its host, as a command finds it. `clock` tells the time of this host."""

    settings: Settings
    database: Database
    clock: Callable[[], datetime] = now

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database."""
        return (
            Path(make_url(self.settings.database_url).database or "")
            if self.settings.embedded
            else None
        )


Check = Callable[[Surroundings], Iterator[Finding]]


def ok(name: str, what: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, name, what)


def warn(name: str, what: str, cure: str) -> Finding:
    """It works, and could be better."""
    return Finding(Level.WARN, name, what, cure)


def bad(name: str, what: str, cure: str) -> Finding:
    """Something does not work, or is not safe."""
    return Finding(Level.BAD, name, what, cure)
