"""What the sandbox of commands shows and keeps back, each for real; and why it is refused where it cannot be made."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from portal.upstream.sandbox import LIMITS, NoSandbox, Sandbox
from tests.peers import need_sandbox

PLAIN = "/usr/local/bin:/usr/bin:/bin"
FORKS = """
import os, time
made = 0
try:
    while made < 2000:
        if os.fork() == 0:
            time.sleep(60)
        made += 1
except BlockingIOError:
    pass
print(made)
"""


@pytest.fixture(autouse=True)
def _plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", PLAIN)
    need_sandbox(Sandbox())


def run(sandbox: Sandbox, *argv: str, home: str = "") -> subprocess.CompletedProcess[str]:
    launch = sandbox.launch(argv, {}, home=home)
    return subprocess.run(launch.argv, env=launch.env, capture_output=True, text=True, check=False)


def test_the_portal_s_data_is_covered_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, tools, config = tmp_path / "app" / "var", tmp_path / "app" / "var" / "tools", tmp_path / "app" / "c.yaml"
    tools.mkdir(parents=True)
    for path in (tmp_path, tmp_path / "app", data):
        path.chmod(0o755)
    for path in (data / "portal.db", tools / "tool", config):
        path.write_text("SECRET")
        path.chmod(0o644)
    monkeypatch.setenv("PATH", f"{PLAIN}:{tools}")
    sandbox = Sandbox(readable=[str(tmp_path / "app")], hidden=[data, config])
    assert sandbox.refusal() == ""
    seen = run(sandbox, "/bin/cat", str(data / "portal.db"), str(config), str(tools / "tool"))
    assert (seen.stdout, "portal.db: No such file" in seen.stderr) == ("SECRET", True)  # the tool, and it alone
    (tmp_path / "link").symlink_to(tmp_path / "app")
    for shown, hidden in (("link", "app/var"), ("app", "link/var"), ("link", "link/var")):
        linked = Sandbox(readable=[str(tmp_path / shown)], hidden=[tmp_path / hidden])
        assert linked.refusal() == ""
        for way in ("link", "app"):
            assert run(linked, "/bin/cat", str(tmp_path / way / "var" / "portal.db")).stdout == ""
    open_one = Sandbox(readable=[str(tmp_path / "app")])
    assert run(open_one, "/bin/cat", str(data / "portal.db")).stdout == "SECRET"


def test_a_setting_that_would_show_the_data_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "in"):
        path.mkdir(exist_ok=True)
        assert "PORTAL_STDIO_PATHS" in Sandbox(readable=[str(path)], hidden=[tmp_path]).refusal()


def test_what_a_refusal_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "PORTAL_STDIO_USER" in Sandbox(user="no-such-user").refusal()
    if os.geteuid() == 0:
        assert "is root" in Sandbox(user="root").refusal()
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{PLAIN}")
    said = Sandbox().refusal()
    assert "No permissions to create new namespace" in said
    assert "docs/deployment.md" in said
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(os, "defpath", "/nowhere")
    assert "apt-get install bubblewrap" in Sandbox().refusal()
    with pytest.raises(NoSandbox):
        Sandbox().launch(["/bin/true"], {})


def test_it_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox()
    assert sandbox.refusal() == ""
    monkeypatch.setenv("PATH", "/nowhere")
    assert sandbox.refusal() == ""


def test_saved_servers_keep_homes_apart_and_lose_them_when_they_are_gone(tmp_path: Path) -> None:
    sandbox = Sandbox(homes=tmp_path / "homes", hidden=[tmp_path])
    command = ("/bin/sh", "-c", "cat mine; date +%N > mine")
    first = {name: run(sandbox, *command, home=name).stdout for name in ("one", "two")}
    assert first == {"one": "", "two": ""}
    kept = {name: run(sandbox, *command, home=name).stdout for name in ("one", "two")}
    assert all(kept.values())
    assert run(sandbox, *command).stdout == ""
    assert sandbox.forget_homes(["two"]) == 1
    assert run(sandbox, *command, home="two").stdout not in ("", kept["two"])
    assert run(sandbox, *command, home="one").stdout == ""


@pytest.mark.parametrize(
    "other",
    [("/bin/ls", "-A"), ("/bin/sh", "-c", "ls", "--", "kept"), ("/bin/sh", "-c", "ls "), ("/bin/sh", "-c ls")],
)
def test_another_command_gets_a_home_of_its_own(tmp_path: Path, other: tuple[str, ...]) -> None:
    sandbox = Sandbox(homes=tmp_path / "homes", hidden=[tmp_path])
    command = ("/bin/sh", "-c", "ls; echo SECRET > kept")
    assert [run(sandbox, *command, home="one").stdout for _ in range(2)] == ["", "kept\n"]
    assert "kept" not in run(sandbox, *other, home="one").stdout
    assert run(sandbox, *command, home="one").stdout == "", "the folder before is gone, also for whoever changes back"
    assert len(list((tmp_path / "homes").rglob("kept"))) == 1


def test_processes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = run(Sandbox(), "/usr/bin/python3", "-c", FORKS)
    assert 0 < int(seen.stdout.splitlines()[-1]) < LIMITS["nproc"] + 1


def test_no_descriptor_is_inherited(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        launch = Sandbox().launch(["/bin/ls", "-l", "/proc/self/fd"], {})
        listed = subprocess.run(launch.argv, env=launch.env, capture_output=True, text=True, check=False).stdout
    assert str(tmp_path) not in listed


def test_a_program_in_a_closed_folder_can_be_started(tmp_path: Path) -> None:
    """As a Python that lies in root's home folder does: what PATH names is shown, and not what is beside it."""
    folder = tmp_path / "closed" / "bin"
    folder.mkdir(parents=True)
    (folder / "tool").write_text("#!/bin/sh\nls -a $(dirname $0)/..\n")
    (folder / "tool").chmod(0o755)
    (tmp_path / "closed" / "secret").write_text("SECRET")
    (tmp_path / "closed").chmod(0o700)
    seen = run(Sandbox(), str(folder / "tool"))
    assert seen.stdout.split() == [".", "..", "bin"], (seen, sys.executable)
