"""Protection of the settings in the environment from other processes.

Linux shows the initial environment of a process in `/proc/<pid>/environ`, even after changes to
`os.environ`. So the settings are moved to this module and the rest of the environment to other
memory, and the memory that the kernel shows is overwritten.
"""

import ctypes
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "PORTAL_"
_HANDED_OVER = "PORTAL_HANDED_OVER"
_KEPT = frozenset({"PATH", "HOME", "LANG", "TZ", "TMPDIR", "USER", "SHELL", "TERM"})
_PR_SET_DUMPABLE = 4
_ENV_START = 47  # index of field 50 of /proc/<pid>/stat, after the name; 51 follows


class _State:
    withdrawn = False


_taken: dict[str, str] = {}


def withdraw() -> None:
    """Move the settings out of the environment. Call once, first in each process of the portal.

    Afterwards `os.environ` has no `PORTAL_*`, `/proc/<pid>/environ` is blank, and other processes
    of the same user cannot read the memory of this one or trace it. Child processes do not inherit
    the settings; those of the portal get them through `handed_over`. On other systems than Linux,
    only `os.environ` is cleared.
    """
    handed = os.environ.pop(_HANDED_OVER, None)
    if handed is not None:
        with open(int(handed), encoding="utf-8") as stream:
            _taken.update(json.load(stream))
    for name in [name for name in os.environ if name.upper().startswith(_PREFIX)]:
        _taken[name] = os.environ.pop(name)
    _State.withdrawn = True
    if Path("/proc/self/stat").exists():
        _blank_the_block()
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def given() -> dict[str, str]:
    """Return the environment with the settings, for reading them. Never pass it to a child."""
    return {**_taken, **os.environ}


def set_default(name: str, value: str) -> None:
    """Set a setting without a value, for this process and its child processes of the portal."""
    if name not in given():
        (_taken if _State.withdrawn else os.environ)[name] = value


def take(name: str) -> str | None:
    """Return a variable named in the config file, or None. Child processes do not inherit it."""
    value = given().get(name)
    if _State.withdrawn and value is not None and name not in _KEPT:
        _taken[name] = value
        os.environ.pop(name, None)
    return value


@contextmanager
def handed_over() -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
    """Provide environment and file descriptors for a child process of the portal.

    The `withdraw` of the child reads the settings from an unnamed file, which is closed at the end.
    """
    if not _taken:
        yield dict(os.environ), ()
        return
    descriptor = _nameless()
    try:
        yield {**os.environ, _HANDED_OVER: str(descriptor)}, (descriptor,)
    finally:
        os.close(descriptor)


def hand_over_at_exec(variables: dict[str, str]) -> None:
    """Add the settings to the `variables` of a following `exec` of the portal."""
    if _taken:
        descriptor = _nameless()
        os.set_inheritable(descriptor, True)
        variables[_HANDED_OVER] = str(descriptor)


def _nameless() -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("settings")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    with open(descriptor, "w", encoding="utf-8", closefd=False) as stream:
        json.dump(_taken, stream)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _blank_the_block() -> None:
    for name, value in list(os.environ.items()):
        os.environ[name] = value  # copied to the heap, where C libraries still find it
    fields = (
        Path("/proc/self/stat")
        .read_text(encoding="utf-8", errors="replace")
        .rpartition(")")[2]
        .split()
    )
    start = int(fields[_ENV_START])
    end = int(fields[_ENV_START + 1])
    if 0 < start < end:
        ctypes.memset(start, 0, end - start)
