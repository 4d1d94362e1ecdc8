"""Folders that something hostile wrote in are deleted to the end, as root and as an ordinary
user."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from portal.upstream import folders
from portal.upstream.sandbox import Sandbox
from tests.security.test_commands import NOBODY, as_nobody
from tests.support.peers import ROOT, need_sandbox

PLANT = """
import os, pathlib, sys
from portal.upstream import folders

own, mode = sys.argv[1], int(sys.argv[2], 8)
home, outside = f"{own}/home", f"{own}/outside"
os.makedirs(f"{home}/a/b/c")
os.mkdir(outside)
for path in (f"{outside}/kept", *(f"{home}/{name}/mine" for name in ("a", "a/b", "a/b/c"))):
    open(path, "w").close()
os.chmod(outside, 0o500)
for link in (f"{home}/link", f"{home}/a/b/link"):
    os.symlink(outside, link)
os.mkfifo(f"{home}/a/pipe")
os.mkdir(os.fsencode(home) + b"/no-\\xfftext")
os.chdir(home)
for _ in range(3000):
    os.mkdir("d")
    os.chdir("d")
os.chdir("/")
for name, rights in (("/a/b/c", 0), ("/a/b", 0o500), ("/a", 0o100), ("", mode)):
    os.chmod(f"{home}{name}", rights)
folders.remove(pathlib.Path(home))
assert sorted(os.listdir(own)) == ["outside"], os.listdir(own)
assert os.listdir(outside) == ["kept"]
assert os.stat(outside).st_mode & 0o777 == 0o500
"""
# A command of a server that leaves what it will run at its next start, where deleting does not get
# to.
COMMAND = ("/bin/sh", "-c", "cat d/planted; mkdir -p d; echo planted > d/planted; chmod 500 d")
OTHER = ("/bin/true",)
AGAIN = f"""
import pathlib, subprocess, sys
from portal.upstream.sandbox import Sandbox

sandbox = Sandbox(homes=pathlib.Path(sys.argv[1]) / "homes")
def run(argv, name="one"):
    launch = sandbox.launch(argv, {{}}, home=name)
    return subprocess.run(launch.argv, env=launch.env, capture_output=True, text=True).stdout
assert [run({COMMAND!r}), run({COMMAND!r})] == ["", "planted\\n"]
run({OTHER!r})
assert run({COMMAND!r}) == "", "after another command"
assert sandbox.left_homes() == []
assert sandbox.forget_homes(["two"]) == 1
assert list((pathlib.Path(sys.argv[1]) / "homes").iterdir()) == []
"""


@pytest.fixture(params=["root", "ordinary"])
def run(request: pytest.FixtureRequest) -> Iterator[tuple[list[str], Path]]:
    """What a Python as that user begins with, and a folder of theirs."""
    is_root = request.param == "root"
    if is_root and os.geteuid() != 0:
        pytest.skip("only root can try what holds as root")
    own = Path(tempfile.mkdtemp(prefix="portal-folders-", dir="/var/tmp"))
    if not is_root and os.geteuid() == 0:
        os.chown(own, NOBODY, NOBODY)
    yield [*([] if is_root else as_nobody()), sys.executable, "-c"], own
    subprocess.run(["chmod", "-R", "u+rwX", str(own)], check=False, capture_output=True)
    shutil.rmtree(own, ignore_errors=True)


@pytest.mark.parametrize("mode", ["700", "500", "0"])
def test_a_folder_goes_whatever_rights_and_depth_its_folders_have(
    run: tuple[list[str], Path], mode: str
) -> None:
    python, own = run
    done = subprocess.run(
        [*python, PLANT, str(own), mode], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_home_folder_is_never_used_again_by_another_definition(
    run: tuple[list[str], Path],
) -> None:
    need_sandbox(Sandbox())
    python, own = run
    done = subprocess.run(
        [*python, AGAIN, str(own)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_deleted_is_not_used_again_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    need_sandbox(Sandbox())
    sandbox = Sandbox(homes=tmp_path / "homes")

    def seen(argv: tuple[str, ...]) -> str:
        launch = sandbox.launch(argv, {}, home="one")
        return subprocess.run(
            launch.argv, env=launch.env, capture_output=True, text=True, check=False
        ).stdout

    def in_vain(path: Path) -> None:
        raise PermissionError(13, "not permitted", str(path))

    assert [seen(COMMAND), seen(COMMAND)] == ["", "planted\n"]
    with monkeypatch.context() as patched:
        patched.setattr(folders, "remove", in_vain)
        seen(OTHER)
        assert seen(COMMAND) == ""
        assert len(sandbox.left_homes()) == 2
        assert "could not delete the unused home folder" in caplog.text
        assert "(not permitted)" in caplog.text
        assert sandbox.forget_homes([]) == 0
        assert len(sandbox.left_homes()) == 3
    assert sandbox.forget_homes([]) == 1
    assert sandbox.left_homes() == []
    assert list((tmp_path / "homes").iterdir()) == []
