"""Paths of files that are not Python modules: templates, static files, migrations, examples."""

from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).resolve().parent
_BUNDLED = _PACKAGE / "bundled"  # only in an installed wheel, created by setup.py

Folder = Literal["templates", "static", "migrations", "examples"]


def folder(name: Folder) -> Path:
    """Return the path of folder `name`, in the installed package or in the checkout."""
    return (_BUNDLED if _BUNDLED.is_dir() else _PACKAGE.parent) / name


@cache
def portal_version() -> str:
    """Return the version of the installed package from pyproject.toml, such as `0.1.0`.

    Raises `importlib.metadata.PackageNotFoundError` if the package is not installed.
    """
    return version("mcp-portal")
