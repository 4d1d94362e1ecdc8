"""``make run`` and ``make test`` are all a newcomer needs: the build says what it does and leaves
nothing behind."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.peers import ROOT, Finished, accepts, bare_environment, run

BASH = shutil.which("bash") or "/bin/bash"
TARGETS = {
    "install",
    "run",
    "demo",
    "test",
    "lint",
    "types",
    "layers",
    "browser",
    "bench",
    "lock",
    "sbom",
    "clean",
    "docs",
    "screenshots",
}


def bash(script: str, **environment: str) -> Finished:
    """Run ``script`` as the Makefile does, in the checkout, with the services' functions at
    hand."""
    argv = [BASH, "-euo", "pipefail", "-c", f". .ci/services.sh; {script}"]
    return run(argv, env=bare_environment(**environment))


def test_make_alone_lists_the_targets() -> None:
    told = run(["make"])
    listed = set(re.findall(r"^make ([a-z-]+) +\S", told.stdout, re.MULTILINE))
    assert listed >= TARGETS


@pytest.mark.parametrize("script", [".ci/run", ".ci/services.sh"])
def test_a_script_is_sound_bash(script: str) -> None:
    told = run([BASH, "-n", script])
    assert (told.returncode, told.stderr) == (0, "")


def test_the_command_runs_the_portal_of_this_checkout(tmp_path: Path) -> None:
    # From another folder, where Python cannot find the package by accident.
    script = "import portal, portal.cli; print(portal.__file__)"
    told = run([sys.executable, "-c", script], cwd=tmp_path)
    assert told.stdout.strip() == str(ROOT / "portal" / "__init__.py"), told.stderr
    assert Path(sys.executable).with_name("portal").exists()


def test_the_services_start_and_are_gone_when_their_shell_ends() -> None:
    told = bash('start_services; echo "$TEST_PG_URL $TEST_REDIS_URL $SERVICES_DIR"')
    assert told.returncode == 0, told.stderr
    postgres, redis, folder = told.stdout.splitlines()[-1].split()
    ports = [int(found) for found in re.findall(r":(\d+)/", f"{postgres} {redis}")]
    assert len(ports) == 2
    assert not any(accepts(port) for port in ports)
    assert not Path(folder).exists()


def test_a_failing_run_ends_the_services_too_and_stays_failed() -> None:
    told = bash("start_services; echo $SERVICES_DIR; exit 3")
    assert told.returncode == 3
    assert not Path(told.stdout.splitlines()[-1]).exists()


def test_a_server_that_was_named_beforehand_is_not_started() -> None:
    told = bash(
        'start_services; echo "$TEST_PG_URL $(ls "$SERVICES_DIR" | wc -l)"',
        TEST_PG_URL="postgresql://elsewhere/portal",
        TEST_REDIS_URL="redis://elsewhere/0",
    )
    assert told.stdout.splitlines()[-1] == "postgresql://elsewhere/portal 0"


def test_a_missing_package_is_named_when_it_cannot_be_installed() -> None:
    told = bash("have() { [ $1 = node ]; }; install_packages")
    assert told.returncode != 0
    assert "npm" in told.stderr
    assert "redis-server" in told.stderr


def test_an_old_python_is_refused_by_name(tmp_path: Path) -> None:
    old = tmp_path / "python2"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    told = bash(f"make_venv {tmp_path}/venv {old}")
    assert told.returncode != 0
    assert f"{old} is older than Python 3.11" in told.stderr
