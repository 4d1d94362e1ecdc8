"""Imports only go down (the layers of ``pyproject.toml``): the same check as ``make layers``."""

import sys
from pathlib import Path

from tests.support.peers import run

LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def test_imports_only_go_down() -> None:
    told = run([LINT_IMPORTS, "--no-logo", "--no-cache"])
    assert told.returncode == 0, told.stdout + told.stderr
