"""The hooks of pre-commit run what `make test` runs before the tests, and need nothing from
elsewhere."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.peers import ROOT, run

PRE_COMMIT = Path(sys.executable).with_name("pre-commit")
CONFIG: dict[str, Any] = yaml.safe_load(
    (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
)
HOOKS = [hook for repo in CONFIG["repos"] for hook in repo["hooks"]]


def test_hooks_are_local_commands() -> None:
    assert {repo["repo"] for repo in CONFIG["repos"]} == {"local"}
    assert {hook["language"] for hook in HOOKS} == {"system"}


def test_hooks_are_the_checks_that_make_test_begins_with() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    [first] = re.findall(r"^test: ([a-z ]+?) ##", makefile, re.MULTILINE)
    checks = [name for name in first.split() if name not in ("dev", "peers")]
    assert [hook["entry"] for hook in HOOKS] == [f"make {name}" for name in checks]


def test_pre_commit_accepts_the_file_and_its_lint_hook_passes(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("pre-commit works in a Git checkout only")
    environment = {**os.environ, "PRE_COMMIT_HOME": str(tmp_path)}
    valid = run([PRE_COMMIT, "validate-config", ROOT / ".pre-commit-config.yaml"], env=environment)
    assert valid.returncode == 0, valid.stdout + valid.stderr
    done = run([PRE_COMMIT, "run", "--all-files", "lint"], env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
