"""Deletion of folders with untrusted content, with any permissions and depth, without links."""

import itertools
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW
_MOST_ROUNDS = 100_000  # one per level of depth; limits the time if a process keeps writing


def remove(path: Path) -> None:
    """Delete `path` and its content. Raises `OSError` if something is left.

    Works without recursion, so that depth is not limited: the folders of each level are moved to
    the first one.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with _opened(path.name, parent) as top:
            rounds = itertools.count()
            while (folders := _cleared(top)) and next(rounds) < _MOST_ROUNDS:
                for name in folders:
                    _take_up(name, top)
        os.rmdir(path.name, dir_fd=parent)
    finally:
        os.close(parent)


@contextmanager
def _opened(name: str, parent: int) -> Iterator[int]:
    """Open a folder as a descriptor, after giving its owner read and write permission."""
    held = os.open(name, os.O_PATH | _FOLDER, dir_fd=parent)
    try:
        # By descriptor, since another folder may have the name by now.
        os.chmod(f"/proc/self/fd/{held}", stat.S_IRWXU)
        folder = os.open(".", os.O_RDONLY | _FOLDER, dir_fd=held)
    finally:
        os.close(held)
    try:
        yield folder
    finally:
        os.close(folder)


def _cleared(folder: int) -> list[str]:
    """Delete all files in a folder, and return the names of its folders."""
    folders = []
    for name in os.listdir(folder):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            folders.append(name)
        else:
            os.unlink(name, dir_fd=folder)
    return folders


def _take_up(name: str, top: int) -> None:
    """Delete a folder at the top level, after moving its folders to the top level."""
    with _opened(name, top) as folder:
        for inner in _cleared(folder):
            with _opened(inner, folder):  # moving a folder requires write permission on it
                os.rename(inner, secrets.token_hex(16), src_dir_fd=folder, dst_dir_fd=top)
    os.rmdir(name, dir_fd=top)
