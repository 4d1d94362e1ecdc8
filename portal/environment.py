"""The environment that this process was given, taken out of reach of every other process.

Linux shows the first environment of a process in `/proc/<pid>/environ` as long as it lives,
whatever becomes of `os.environ`. So the settings move into this module, the rest of the environment
to other memory, and the block that the kernel shows is overwritten.
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
_ENV_START = 47  # fields 50 and 51 of /proc/<pid>/stat, counted from the one after the name


class _State:
    withdrawn = False


_taken: dict[str, str] = {}


def withdraw() -> None:
    """Take the settings out of the environment, once, as the first act of a process of the portal.

    `os.environ` then has no `PORTAL_*`, `/proc/<pid>/environ` is blank, and other processes of the
    same user can neither read this one's memory nor trace it. Children inherit none of it; a
    process of the portal's own gets it by `handed_over`. On other systems than Linux only
    `os.environ` is cleared.
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
    """The environment with what was taken out of it: for reading settings, and never for a
    child."""
    return {**_taken, **os.environ}


def set_default(name: str, value: str) -> None:
    """Give a setting a value where it has none, for this process and those of the portal that it
    starts."""
    if name not in given():
        (_taken if _State.withdrawn else os.environ)[name] = value


def take(name: str) -> str | None:
    """A variable that the config file names, None where it is not set. From then on no child
    inherits it."""
    value = given().get(name)
    if _State.withdrawn and value is not None and name not in _KEPT:
        _taken[name] = value
        os.environ.pop(name, None)
    return value


@contextmanager
def handed_over() -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
    """What a child that is a process of the portal is started with: its environment, and
    descriptors to pass on.

    The child's `withdraw` reads what was taken from a file without a name, which is closed here at
    the end.
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
    """Add to the `variables` of an `exec` that follows what lets the program after it find the
    settings."""
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
        os.environ[name] = value  # copied to the heap, where C libraries go on to find it
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
