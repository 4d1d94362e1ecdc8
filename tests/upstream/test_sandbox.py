"""What the sandbox of commands shows and keeps back, each for real; and why it is refused where it
cannot be made."""

import errno
import json
import os
import resource
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from portal.upstream.sandbox import HOME, LIMITS, NoSandbox, Sandbox
from tests.security.test_commands import as_nobody
from tests.support.peers import ROOT, need_sandbox

MIB = 1024 * 1024
PLAIN = "/usr/local/bin:/usr/bin:/bin"
FORKS = """
import os, time
made = 0
try:
    while made < 2000:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
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
import json, os, resource
def status(pid):
    return dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
def rights(pid):
    return int(status(pid)["CapPrm"], 16) | int(status(pid)["CapInh"], 16)
own = os.path.expanduser("~")
print(json.dumps({
    "namespaces": {name: os.readlink(f"/proc/self/ns/{name}")
                   for name in os.listdir("/proc/self/ns")},
    "held": rights("self"), "held by the first": rights(1),
    "cgroups": open("/proc/self/cgroup").read().split(),
    "gains none": status("self")["NoNewPrivs"].strip(), "uid": os.getuid(), "gid": os.getgid(),
    "groups": os.getgroups(), "session": os.getsid(0), "home": own, "here": os.getcwd(),
    "dev": sorted(os.listdir("/dev")), "etc": sorted(os.listdir("/etc")),
    "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
    "sizes": {path: os.statvfs(path).f_blocks * os.statvfs(path).f_frsize
              for path in ("/tmp", "/dev/shm", own)},
    "limits": {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name.upper()))
               for name in ("core", "nproc", "nofile", "fsize", "data")},
    "environment": dict(os.environ),
}))
"""
# A portal of another user's, as far as it starts a command.
STARTS = """
import os, sys
from portal.upstream.sandbox import Sandbox
launch = Sandbox().launch(sys.argv[1:], {"API_TOKEN": "its own"})
os.execve(launch.argv[0], launch.argv, launch.env)
"""
SETUID = 1 << 7
SETGID = 1 << 6


def inside(*, whose: str = "root", **options: Any) -> dict[str, Any]:
    """What a command sees of itself, started by the user of the tests (`root`) or an ordinary
    one."""
    argv = [*as_nobody()] if whose == "ordinary" else []
    argv += [sys.executable, "-c", STARTS, "/usr/bin/python3", "-c", INSIDE]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, **options)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


@pytest.fixture(params=["root", "ordinary"])
def whose(request: pytest.FixtureRequest) -> str:
    """Who starts the command."""
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("only root can try what holds as root")
    return str(request.param)


def test_a_command_is_apart_from_the_host_in_every_way(whose: str) -> None:
    as_root = whose == "root"
    seen = inside(
        whose=whose, start_new_session=True, **({"extra_groups": [4242]} if as_root else {})
    )
    same = {
        name
        for name, link in seen["namespaces"].items()
        if os.readlink(f"/proc/self/ns/{name}") == link
    }
    # The network is the host's, and nothing here changes its clock.
    assert same - {"time", "time_for_children"} == ({"net", "user"} if as_root else {"net"})
    assert {"pid", "ipc", "uts", "mnt"} <= set(seen["namespaces"])
    assert (seen["held"], seen["gains none"]) == (0, "1")
    assert seen["held by the first"] == 0, "of the sandbox, which remains root's"
    assert {line.rpartition(":")[2] for line in seen["cgroups"]} == {"/"}, "of no group by name"
    assert seen["uid"] != 0
    assert seen["gid"] != 0
    assert seen["groups"] in ([], [seen["gid"]])
    assert seen["processes"][0] == 1
    assert len(seen["processes"]) <= 3
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
    assert all(0 < size <= 512 * MIB for size in seen["sizes"].values())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try what holds as root")
def test_what_makes_root_another_user_has_no_rights_but_those(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a start whose secure bits keep rights over a change of user would hand on all of them."""
    instead = tmp_path / "setpriv"
    instead.write_text("#!/bin/sh\nexec grep CapPrm /proc/self/status\n")
    instead.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{PLAIN}")
    held = run(Sandbox(), "/bin/true").stdout
    assert int(held.split(":")[1], 16) == SETUID | SETGID


def test_a_command_cannot_lift_its_limits(whose: str) -> None:
    """Both limits are the same number, so that none can be raised again."""
    wanted = {"core": 0, "nproc": 512, "nofile": 4096, "fsize": 1024 * MIB, "data": 4096 * MIB}
    for name, limits in inside(whose=whose)["limits"].items():
        most = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
        least = wanted[name] if most == resource.RLIM_INFINITY else min(wanted[name], most)
        assert limits == [least, least], name


TAKES = {
    "nofile": (
        "held = []\n"
        "try:\n"
        "    while len(held) < 5_000: held.append(open('/dev/null'))\n"
        "except OSError as error: print(error.errno)\n"
    ),
    "fsize": (
        "import os, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try: os.truncate(os.open('big', os.O_CREAT | os.O_RDWR), 1025 << 20)\n"
        "except OSError as error: print(error.errno)\n"
    ),
    "core": (
        "import resource\n"
        "try: resource.setrlimit(resource.RLIMIT_CORE, (1, 1))\n"
        "except (OSError, ValueError): print('refused')\n"
    ),
    "data": (
        "import mmap\n"
        "flags = mmap.MAP_PRIVATE | 0x4000  # of no memory that there is: MAP_NORESERVE\n"
        "try:\n"
        "    held = [mmap.mmap(-1, 64 << 20, flags=flags) for _ in range(80)]\n"
        "except OSError as error: print(error.errno)\n"
    ),
}


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("nofile", errno.EMFILE),
        ("fsize", errno.EFBIG),
        ("core", "refused"),
        ("data", errno.ENOMEM),
    ],
)
def test_a_command_that_takes_more_than_it_may_gets_no_more(limit: str, told: object) -> None:
    seen = run(Sandbox(), "/usr/bin/python3", "-c", TAKES[limit])
    assert seen.stdout == f"{told}\n", seen.stderr


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


ADDRESSES = (
    "HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy https_proxy all_proxy npm_config_registry"
    " NPM_CONFIG_REGISTRY PIP_INDEX_URL UV_INDEX_URL UV_DEFAULT_INDEX"
).split()


@pytest.mark.parametrize(
    "address",
    [
        "http://user:SECRET@proxy.example:3128",
        "http://SECRET@proxy.example:3128",
        "http://:SECRET@proxy.example:3128",
        "user:SECRET@proxy.example:3128",
        "socks5://user:SECRET@[::1]:1080",
        "http://user:SECRET@[",
    ],
)
def test_an_address_with_a_password_is_not_passed_on(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    for name in ADDRESSES:
        monkeypatch.setenv(name, address)
    launch = Sandbox().launch(["/usr/bin/env"], {})
    seen = subprocess.run(launch.argv, env=launch.env, capture_output=True, text=True, check=True)
    assert "SECRET" not in seen.stdout
    for name in ADDRESSES:
        monkeypatch.setenv(name, "http://proxy.example:3128")
    assert {name for name in ADDRESSES if name in Sandbox().launch(["/usr/bin/env"], {}).env} == {
        *ADDRESSES
    }


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
