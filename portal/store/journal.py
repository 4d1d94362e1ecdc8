"""The revocation journal of SQLite: a file beside the database that is not part of its backup.

It has a line of JSON for each entry of `revocations`, appended and synced after the commit. Each
line has an HMAC over itself and the previous line, so that changed, moved and missing lines are
detected. A small second file contains the head of the audit chain and the end of the journal, so
that a truncated journal is detected.

Nothing is written before the journal is created: `services/operations/revocations.py` does that
when the portal starts.
"""

import fcntl
import hashlib
import hmac
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

_HEAD_BYTES = 512


@dataclass(frozen=True)
class JournalEntry:
    """A row of `revocations` as it is written; `at` is an ISO time."""

    position: int
    entry_id: str
    at: str
    op: str
    kind: str
    subject: str
    facts: str


@dataclass(frozen=True)
class OutsideHead:
    """The head of the audit chain, stored outside the database, and the end of the journal then.

    `announced` is the event about to be committed, with its hash; the database tells whether it
    was.
    """

    sequence: int
    event_hash: str
    position: int = 0
    announced: tuple[int, str] | None = None


@dataclass(frozen=True)
class Contents:
    """The contents of a journal up to its first `fault`, if any."""

    journal_id: str | None = None
    entries: tuple[JournalEntry, ...] = ()
    fault: str | None = None
    is_under_newest: bool = True
    end: int = 0
    mac: str = ""

    @property
    def position(self) -> int:
        """The position of the last entry."""
        return self.entries[-1].position if self.entries else 0


class FileJournal:
    """The journal at `path`, authenticated by `keys`, newest first, by id."""

    def __init__(self, path: Path, keys: Mapping[str, bytes]) -> None:
        self.path, self._keys = path, dict(keys)
        self._newest = next(iter(self._keys))
        self._lock = threading.Lock()
        # Inode, end, MAC and position of the last line.
        self._known: tuple[int, int, str, int] | None = None

    @property
    def head_path(self) -> Path:
        """The file with the head of the audit chain."""
        return self.path.with_name(f"{self.path.name}.head")

    def exists(self) -> bool:
        """Return whether the journal was created."""
        return self.path.exists()

    def read(self) -> Contents:
        """Return its contents up to the first invalid line."""
        try:
            return self._parse(self.path.read_bytes(), Contents())
        except OSError as error:
            return Contents(fault=f"{self.path.name} cannot be read ({type(error).__name__})")

    def begin(self, journal_id: str, entries: Sequence[JournalEntry]) -> None:
        """Rewrite the journal in one step, under the newest key, and keep an invalid one."""
        with self._lock:
            if self.exists() and self.read().fault:
                os.replace(self.path, _free(self.path))
            lines, mac = self._line({"journal": journal_id}, "")
            for entry in entries:
                line, mac = self._line({"entry": astuple(entry)}, mac)
                lines += line
            new = self.path.with_name(f"{self.path.name}.new")
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as stream:
                stream.write(lines)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(new, self.path)
            _sync_folder(self.path.parent)
            self._known = None

    def position(self) -> int | None:
        """Return the position of the last entry; None if there is no valid journal."""
        with self._lock:
            try:
                with self._open() as handle:
                    return self._refreshed(handle)[3]
            except (OSError, ValueError):
                return None

    def catch_up(self, fetch: Callable[[int], Sequence[JournalEntry]]) -> int:
        """Append the entries that `fetch(position)` returns, and return their number.

        `position` is that of the last entry. One process at a time does this, and the entries are
        synced to disk at the end. Raises `OSError`.
        """
        with self._lock, self._open() as handle:
            inode, end, mac, position = self._refreshed(handle)
            entries = fetch(position)
            if not entries:
                return 0
            lines = b""
            for entry in entries:
                line, mac = self._line({"entry": astuple(entry)}, mac)
                lines += line
            os.ftruncate(handle, end)  # removes an incomplete line of a killed process
            os.pwrite(handle, lines, end)
            os.fsync(handle)
            self._known = (inode, end + len(lines), mac, entries[-1].position)
            with suppress(ValueError):
                if (head := self.head()) is not None:
                    self._write_head(replace(head, position=entries[-1].position))
            return len(entries)

    def head(self) -> OutsideHead | None:
        """Return the stored head; None if there is none. Raises `ValueError` if it is not valid."""
        try:
            text = self.head_path.read_bytes().rstrip(b" \n")
        except FileNotFoundError:
            return None
        try:
            found = json.loads(text)
            announced = None
            if "announced" in found:
                announced = (int(found["announced"][0]), str(found["announced"][1]))
            head = OutsideHead(
                int(found["sequence"]), str(found["hash"]), int(found["position"]), announced
            )
            whole = hmac.compare_digest(
                self._mac(found["key"], "head", _facts_of(head)), found["mac"]
            )
        except (ValueError, KeyError, TypeError, IndexError):
            whole = False
        if not whole:
            raise ValueError(f"{self.head_path.name} is not valid")
        return head

    def announce(self, before: OutsideHead, after: OutsideHead) -> None:
        """Write the current and the next head before a commit.

        A process killed between the commit and `note_head` then leaves a valid head. Raises what
        `note_head` raises.
        """
        with self._lock, self._open() as journal:
            head = replace(
                before,
                position=self._refreshed(journal)[3],
                announced=(after.sequence, after.event_hash),
            )
            self._write_head(head, is_synced=True)

    def note_head(self, head: OutsideHead, *, force: bool = False) -> None:
        """Write the head and the end of the journal, if the head is newer, or always with `force`.

        Raises `OSError`, and `ValueError` if the journal is not valid.
        """
        with self._lock, self._open() as journal:  # others wait for the lock on the journal
            with suppress(ValueError):
                before = self.head()
                if not force and before is not None:
                    if before.sequence >= head.sequence:
                        return
                    if before.announced is not None and before.announced[0] > head.sequence:
                        head = replace(head, announced=before.announced)
            self._write_head(replace(head, position=self._refreshed(journal)[3]))

    def _write_head(self, head: OutsideHead, *, is_synced: bool = False) -> None:
        text = json.dumps({
            "sequence": head.sequence, "hash": head.event_hash, "position": head.position,
            **({"announced": head.announced} if head.announced else {}), "key": self._newest,
            "mac": self._mac(self._newest, "head", _facts_of(head)),
        })  # fmt: skip
        handle = os.open(self.head_path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(handle, text.encode().ljust(_HEAD_BYTES - 1) + b"\n", 0)
            if is_synced:
                os.fdatasync(handle)
        finally:
            os.close(handle)

    @contextmanager
    def _open(self) -> Iterator[int]:
        """Open and lock the file, again if it was replaced meanwhile."""
        while True:
            handle = os.open(self.path, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if os.fstat(handle).st_ino != os.stat(self.path).st_ino:
                    continue
                yield handle
                return
            finally:
                os.close(handle)

    def _refreshed(self, handle: int) -> tuple[int, int, str, int]:
        """Return the end of the open file. Raises `ValueError` if it is not valid."""
        stat = os.fstat(handle)
        known = self._known
        if known is not None and (known[0] != stat.st_ino or known[1] > stat.st_size):
            known = None
        begin = Contents() if known is None else Contents("known", end=known[1], mac=known[2])
        found = self._parse(os.pread(handle, stat.st_size - begin.end, begin.end), begin)
        if found.fault:
            raise ValueError(found.fault)
        position = found.position or (known[3] if known else 0)
        self._known = (stat.st_ino, found.end, found.mac, position)
        return self._known

    def _parse(self, content: bytes, begin: Contents) -> Contents:
        journal_id = begin.journal_id
        mac = begin.mac
        end = begin.end
        newest = True
        entries: list[JournalEntry] = []
        fault = None
        for number, line in enumerate(content.splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                break  # a process was killed while writing; the database still has the entry
            try:
                found = json.loads(line)
                [(name, said)] = [
                    (name, found[name]) for name in ("journal", "entry") if name in found
                ]
                if not hmac.compare_digest(
                    self._mac(found["key"], mac, {name: said}), found["mac"]
                ):
                    raise ValueError("wrong HMAC")
                if (name == "journal") != (journal_id is None):
                    raise ValueError("misplaced or missing first line")
                if name == "journal":
                    journal_id = str(said)
                else:
                    entries.append(JournalEntry(*said))
            except (ValueError, KeyError, TypeError):
                fault = f"line {number} of {self.path.name} is not valid"
                break
            mac = found["mac"]
            end = end + len(line)
            newest = newest and found["key"] == self._newest
        if fault is None and journal_id is None:
            fault = f"{self.path.name} is empty"
        return Contents(journal_id, tuple(entries), fault, newest, end, mac)

    def _line(self, said: Mapping[str, Any], before: str) -> tuple[bytes, str]:
        mac = self._mac(self._newest, before, said)
        text = json.dumps({**said, "key": self._newest, "mac": mac}, separators=(",", ":"))
        return text.encode() + b"\n", mac

    def _mac(self, key_id: str, before: str, said: object) -> str:
        """Return the HMAC of a line and the previous one. Raises `KeyError` for an unknown key."""
        text = json.dumps([before, said], separators=(",", ":"))
        return hmac.new(self._keys[key_id], text.encode(), hashlib.sha256).hexdigest()


def _facts_of(head: OutsideHead) -> list[object]:
    """Return the data that a head's HMAC covers; older heads have no `announced`."""
    facts = [head.sequence, head.event_hash, head.position]
    return [*facts, *head.announced] if head.announced else facts


def _free(path: Path) -> Path:
    return next(
        free
        for number in range(1, 10_000)
        if not (free := path.with_name(f"{path.name}.broken-{number}")).exists()
    )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
