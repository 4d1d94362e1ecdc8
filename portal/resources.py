"""Find the files that are not Python modules: templates, static files, migrations and the sample
MCP server."""

from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).resolve().parent
_BUNDLED = _PACKAGE / "bundled"  # only in an installed wheel; setup.py copies the folders there

Folder = Literal["templates", "static", "migrations", "examples"]


def folder(name: Folder) -> Path:
    """Return the folder `name`: inside the package in an installed wheel, beside it in a
    checkout."""
    return (_BUNDLED if _BUNDLED.is_dir() else _PACKAGE.parent) / name


@cache
def portal_version() -> str:
    """Return the version of the installed package, which pyproject.toml alone states, such as
    `0.1.0`.

    Raises `importlib.metadata.PackageNotFoundError` when the package is not installed, not even as
    editable.
    """
    return version("mcp-portal")
