"""Markers: made-up secrets that are found again wherever they turn up, as they are or encoded."""

import base64
import logging
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from werkzeug.test import TestResponse

from portal.telemetry.logs import formatter
from tests.support.security.callers import Caller

# url, spec_path, header, env, args and global values: a full Admin reads them over the API
DEFINITION = "definition"
NEVER = "never"  # credentials, people's keys, values and passwords: nobody, ever
ADMINS = ("admin", "k-admin")


_BEGIN = "MRKMRK"
# How every marker begins in each way of writing it, at least for four letters: a look that finds
# none is over.
_STUBS = (b"MRKM", b"MKRM", b"4d524b", b"TVJL", b"S01S", b"UktN")


@dataclass(frozen=True)
class Mark:
    """One planted secret: what it is, and all the ways in which it may be written."""

    text: str
    kind: str
    what: str
    needles: tuple[bytes, ...] = field(repr=False)


def _needles(text: str) -> tuple[bytes, ...]:
    """The text, its hex digits, and the parts of its base64 that do not depend on what stands
    around it."""
    raw = text.encode()
    shifted = (
        base64.b64encode(b"x" * before + raw)[4 if before else 0 : -4] for before in range(3)
    )
    return (raw, raw[::-1], raw.hex().encode(), *shifted)


class Marks:
    """All that was planted, and where any of it was seen."""

    def __init__(self) -> None:
        self.planted: list[Mark] = []
        self.leaks: list[str] = []
        self.looks = 0

    def new(self, kind: str, what: str) -> str:
        """Plant a secret of letters and digits, which no encoding of text changes."""
        return self.known(f"{_BEGIN}{secrets.token_hex(10)}", kind, what)

    def known(self, text: str, kind: str, what: str) -> str:
        """Look out for a secret that was made elsewhere."""
        self.planted.append(Mark(text, kind, what, _needles(text)))
        return text

    def found_in(self, data: bytes) -> list[Mark]:
        """The markers that `data` holds."""
        marked = any(stub in data for stub in _STUBS)
        return [
            mark
            for mark in self.planted
            if (marked or not mark.text.startswith(_BEGIN))
            and any(needle in data for needle in mark.needles)
        ]

    def look(self, data: bytes, where: str, *, allowed: Iterable[str] = ()) -> None:
        """Note every marker in `data` whose text is not `allowed` there."""
        self.looks += 1
        fine = set(allowed)
        self.leaks += [
            f"{mark.what} in {where}" for mark in self.found_in(data) if mark.text not in fine
        ]

    def read(
        self, caller: Caller, response: TestResponse, *, allowed: Iterable[str] = ()
    ) -> TestResponse:
        """Look through the whole of an answer: status line, headers, cookies and body."""
        request = response.request
        path = response.request.path
        fine = [*allowed, *(self._of(DEFINITION) if self._is_read_by_admin(caller, path) else ())]
        head = f"{response.status}\n{response.headers}".encode()
        where = f"{request.method} {path} ({response.status_code}) for {caller.name}"
        self.look(head + response.get_data(), where, allowed=fine)
        return response

    def _is_read_by_admin(self, caller: Caller, path: str) -> bool:
        return self.exempts_admins and caller.name in ADMINS and path.startswith("/v1/mcp/server")

    exempts_admins = True

    def _of(self, kind: str) -> list[str]:
        return [mark.text for mark in self.planted if mark.kind == kind]

    def of_kind(self, kind: str) -> set[str]:
        """The texts of one kind."""
        return set(self._of(kind))

    def report(self) -> list[str]:
        """Each leak since the last report, once."""
        found, self.leaks = sorted(set(self.leaks)), []
        return found


class _Keep(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        self._as_json = formatter(as_json=True)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        if record.name.startswith("portal"):
            # All that the record carries, before anything is hidden; and the line that an operator
            # gets.
            self.lines += [str(vars(record)), self._as_json.format(record)]


@contextmanager
def everything_logged() -> Iterator[list[str]]:
    """All that any library writes to the log at DEBUG, tracebacks included, as it comes."""
    root = logging.getLogger()
    handler = _Keep()
    others = [(other, other.level) for other in root.handlers]
    # SQLAlchemy's own switch for an echo of every statement with its parameters.
    levels = {logger: logger.level for logger in (root, logging.getLogger("sqlalchemy.engine"))}
    for other, _ in others:  # pytest's own would keep every statement in the report of every test
        other.setLevel(logging.WARNING)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    # Which line of code wrote a record holds no secret, and takes longest to find out.
    source, logging._srcfile = logging._srcfile, None
    logging.getLogger("sqlalchemy.engine").setLevel(logging.INFO)
    try:
        yield handler.lines
    finally:
        logging._srcfile = source
        root.removeHandler(handler)
        for logger, level in levels.items():
            logger.setLevel(level)
        for other, level in others:
            other.setLevel(level)
