"""Deleting a folder in which something hostile could write: whatever rights and depth its folders
have, and following no link."""

import itertools
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW
_MOST_ROUNDS = (
    100_000  # each takes up one level of depth; who goes on writing for longer is given up on
)


def remove(path: Path) -> None:
    """Delete `path` and all that is in it. Raises OSError where something is left.

    Nothing is recursive, so that no depth is too deep: the folders of each level are taken up to
    the first.
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
    """A folder as a descriptor, which its owner may read and write from now on."""
    held = os.open(name, os.O_PATH | _FOLDER, dir_fd=parent)
    try:
        os.chmod(
            f"/proc/self/fd/{held}", stat.S_IRWXU
        )  # of the very folder, whatever has its name by now
        folder = os.open(".", os.O_RDONLY | _FOLDER, dir_fd=held)
    finally:
        os.close(held)
    try:
        yield folder
    finally:
        os.close(folder)


def _cleared(folder: int) -> list[str]:
    """Delete what is no folder in it; the names of the folders."""
    folders = []
    for name in os.listdir(folder):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            folders.append(name)
        else:
            os.unlink(name, dir_fd=folder)
    return folders


def _take_up(name: str, top: int) -> None:
    """Delete a folder at the top; the folders in it are at the top from now on."""
    with _opened(name, top) as folder:
        for inner in _cleared(folder):
            with _opened(inner, folder):  # who moves a folder has to be able to write in it
                os.rename(inner, secrets.token_hex(16), src_dir_fd=folder, dst_dir_fd=top)
    os.rmdir(name, dir_fd=top)
