"""What the sandbox of commands shows and keeps back, each for real; and why it is refused where it
cannot be made."""

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from portal.upstream.sandbox import HOME, LIMITS, TMP_BYTES, NoSandbox, Sandbox
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


def test_the_portal_s_data_is_covered_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "app" / "var"
    tools = tmp_path / "app" / "var" / "tools"
    config = tmp_path / "app" / "c.yaml"
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
    assert (seen.stdout, "portal.db: No such file" in seen.stderr) == (
        "SECRET",
        True,
    )  # the tool, and it alone
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
    [
        ("/bin/ls", "-A"),
        ("/bin/sh", "-c", "ls", "--", "kept"),
        ("/bin/sh", "-c", "ls "),
        ("/bin/sh", "-c ls"),
    ],
)
def test_another_command_gets_a_home_of_its_own(tmp_path: Path, other: tuple[str, ...]) -> None:
    sandbox = Sandbox(homes=tmp_path / "homes", hidden=[tmp_path])
    command = ("/bin/sh", "-c", "ls; echo SECRET > kept")
    assert [run(sandbox, *command, home="one").stdout for _ in range(2)] == ["", "kept\n"]
    assert "kept" not in run(sandbox, *other, home="one").stdout
    assert run(sandbox, *command, home="one").stdout == "", (
        "the folder before is gone, also for whoever changes back"
    )
    assert len(list((tmp_path / "homes").rglob("kept"))) == 1


def test_processes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = run(Sandbox(), "/usr/bin/python3", "-c", FORKS)
    assert 0 < int(seen.stdout.splitlines()[-1]) < LIMITS["nproc"] + 1


def test_no_descriptor_is_inherited(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        launch = Sandbox().launch(["/bin/ls", "-l", "/proc/self/fd"], {})
        listed = subprocess.run(
            launch.argv, env=launch.env, capture_output=True, text=True, check=False
        ).stdout
    assert str(tmp_path) not in listed


def test_a_program_in_a_closed_folder_can_be_started(tmp_path: Path) -> None:
    """As a Python that lies in root's home folder does: what PATH names is shown, and not what is
    beside it."""
    folder = tmp_path / "closed" / "bin"
    folder.mkdir(parents=True)
    (folder / "tool").write_text("#!/bin/sh\nls -a $(dirname $0)/..\n")
    (folder / "tool").chmod(0o755)
    (tmp_path / "closed" / "secret").write_text("SECRET")
    (tmp_path / "closed").chmod(0o700)
    seen = run(Sandbox(), str(folder / "tool"))
    assert seen.stdout.split() == [".", "..", "bin"], (seen, sys.executable)


INSIDE = """
import json, os
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in ("pid", "ipc", "uts", "mnt", "user")},
    "held": int(status["CapPrm"], 16) | int(status["CapInh"], 16),
    "gains none": status["NoNewPrivs"].strip(), "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
    "session": os.getsid(0), "home": os.path.expanduser("~"), "here": os.getcwd(), "dev": sorted(os.listdir("/dev")),
    "etc": sorted(os.listdir("/etc")), "sizes": {path: os.statvfs(path).f_blocks * os.statvfs(path).f_frsize
                                                 for path in ("/tmp", "/dev/shm", os.path.expanduser("~"))},
    "environment": dict(os.environ),
}))
"""


def inside(**options: Any) -> dict[str, Any]:
    launch = Sandbox().launch(["/usr/bin/python3", "-c", INSIDE], {"API_TOKEN": "its own"})
    ended = subprocess.run(
        launch.argv, env=launch.env, capture_output=True, text=True, check=True, **options
    )
    return dict(json.loads(ended.stdout))


def test_a_command_is_apart_from_the_host_in_every_way() -> None:
    as_root = os.geteuid() == 0
    seen = inside(start_new_session=True, **({"extra_groups": [4242]} if as_root else {}))
    shared = {"user"} if as_root else set()
    same = {
        name
        for name, link in seen["namespaces"].items()
        if os.readlink(f"/proc/self/ns/{name}") == link
    }
    assert same == shared
    assert (seen["held"], seen["gains none"]) == (0, "1")
    if as_root:
        assert seen["uid"] != 0
        assert seen["gid"] != 0
        assert seen["groups"] in ([], [seen["gid"]])
    assert seen["session"] not in (
        os.getsid(0),
        0,
    ), "it has a session of its own, and so no terminal"
    assert (seen["home"], seen["here"]) == (HOME, HOME)
    assert set(seen["dev"]) <= {
        "console",
        "core",
        "fd",
        "full",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
    }
    assert not {"shadow", "gshadow", "ssh", "sudoers", "hostname", "machine-id"} & set(seen["etc"])
    assert all(0 < size <= TMP_BYTES for size in seen["sizes"].values())


def test_the_environment_is_an_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTAL_SECRET_KEY", "SECRET")
    monkeypatch.setenv("SOMEBODY_S", "SECRET")
    monkeypatch.setenv("HOME", "/root")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:SECRET@proxy.example")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example")
    found = inside()["environment"]
    assert "SECRET" not in str(found)
    assert (found["HOME"], found["HTTP_PROXY"], found["API_TOKEN"]) == (
        HOME,
        "http://proxy.example",
        "its own",
    )


def test_nothing_of_the_system_can_be_written(tmp_path: Path) -> None:
    """Whoever owns it: as root another user could not, so it is the mounts that are asked."""
    seen = run(Sandbox(), "/bin/cat", "/proc/self/mounts").stdout.splitlines()
    mounts = {words[1]: words[3].split(",") for words in (line.split() for line in seen)}
    own = {path for path, options in mounts.items() if "rw" in options}
    assert own <= {
        "/tmp",
        "/dev/shm",
        "/dev/pts",
        "/dev",
        "/proc",
        HOME,
        *(p for p in own if p.startswith("/dev/")),
    }
    assert "ro" in mounts["/"]
    assert "ro" in mounts["/usr"]


def test_a_command_ends_with_who_started_it(tmp_path: Path) -> None:
    mark = f"ends-{tmp_path.name}-{os.getpid()}"
    launch = Sandbox().launch(["/bin/sh", "-c", "echo up; sleep 60; :", mark], {})
    starter = (
        "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], stdout=1).pid, flush=True);"
        " input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starter, *launch.argv],
        env=launch.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        assert started.stdout
        assert "up\n" in {started.stdout.readline(), started.stdout.readline()}
        assert _runs(mark)
        started.kill()
    deadline = time.monotonic() + 10
    while _runs(mark):
        assert time.monotonic() < deadline, "it lives on"


def _runs(mark: str) -> bool:
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return any(mark in line for line in found.splitlines())


def test_home_folders_are_closed_to_others(tmp_path: Path) -> None:
    run(Sandbox(homes=tmp_path / "homes"), "/bin/true", home="one")
    modes = {
        stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "homes").rglob("*")
        if path.is_dir()
    }
    assert modes | {stat.S_IMODE((tmp_path / "homes").stat().st_mode)} == {0o700}


def test_a_home_folder_holds_no_more_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal.upstream.sandbox.HOME_BYTES", 64 * 1024)
    monkeypatch.setattr("portal.upstream.sandbox.HOME_FILES", 20)
    sandbox = Sandbox(homes=tmp_path / "homes")

    def after(command: str) -> bool:
        launch = sandbox.launch(["/bin/sh", "-c", command], {}, home="one")
        subprocess.run(launch.argv, env=launch.env, check=True)
        return launch.overfills_home()

    assert not after(
        "mkdir a; head -c 30000 /dev/zero > a/b; ln -s / everything; truncate -s 1G sparse"
    )
    assert after("mkdir -p a/b; head -c 50000 /dev/zero > a/b/c; head -c 50000 /dev/zero > d")
    assert after("mkdir a; cd a; for n in 1 2 3 4 5 6 7 8 9 10 11; do mkdir $n; : > $n/x; done")


def test_a_file_is_no_larger_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "fsize", 4096)
    seen = run(Sandbox(), "/bin/sh", "-c", "head -c 10000 /dev/zero > big; wc -c < big")
    assert seen.stdout.split() == ["4096"]
