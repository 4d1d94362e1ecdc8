"""A hostile command of a real portal, as root and as an ordinary user: what it can get of the
portal and of others."""

import base64
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from portal.upstream.sandbox import Sandbox
from tests.security.test_process import Running
from tests.support.peers import ROOT, bare_environment, free_port, need_sandbox, start_process
from tests.support.security.marks import NEVER, Marks

HOSTILE = (ROOT / "tests" / "programs" / "hostile.py").read_text(encoding="utf-8")
STUB = Marks().new(NEVER, "to see how markers begin")[:-20]
NOBODY = 65534
WAIT = 30.0
# Holds its secret for long enough to be looked for, and answers then.
VICTIM = """
import json, os, sys, time
for line in sys.stdin:
    message = json.loads(line)
    result = {"supportedVersions": ["2026-07-28"], "capabilities": {}, "resultType": "complete",
              "ttlMs": 0, "cacheScope": "private"}
    if message["method"] == "tools/call":
        time.sleep(5)
        result = {"resultType": "complete", "content": [], "structuredContent": {"done": True}}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""
# Runs a program as nobody, with the folder of this Python where nobody gets to it.
_WITH_PYTHON = """
set -eu
way=$(mktemp -d); mkdir -p "$way$2"; mount --bind "$1$2" "$way$2"
chmod 755 "$way"; mount --rbind "$way" "$1"
shift 2; exec setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"
"""


@dataclass
class Attacked(Running):
    """A portal with a hostile server and another one."""

    uid: int

    def processes(self) -> list[int]:
        """Its own processes: the master, the web process and the worker."""
        return [self.started.pid, *_children(self.started.pid)]


def _children(pid: int) -> list[int]:
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in found.stdout.split()]


def as_nobody() -> list[str]:
    """What a command line begins with that is to run as an ordinary user; nothing where the tests
    are run as one."""
    if os.geteuid() != 0:
        return []
    plain = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    if (
        subprocess.run(
            [*plain, sys.executable, "-c", "import redis"], capture_output=True, check=False
        ).returncode
        == 0
    ):
        return plain
    base = Path(sys.base_prefix)
    closed = next(
        (path for path in reversed(base.parents) if not path.stat().st_mode & 1), base.parent
    )
    script = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        _WITH_PYTHON,
        "sh",
        str(closed),
        f"/{base.relative_to(closed)}",
    ]
    return script


@pytest.fixture(scope="module", params=["root", "ordinary"])
def attacked(request: pytest.FixtureRequest) -> Iterator[Attacked]:
    is_root = request.param == "root"
    if is_root and os.geteuid() != 0:
        pytest.skip("only root can try what holds as root")
    need_sandbox(Sandbox())
    marks = Marks()
    port = free_port()
    own = Path(tempfile.mkdtemp(prefix="portal-attacked-", dir="/var/tmp"))
    uid = 0 if is_root else NOBODY if os.geteuid() == 0 else os.geteuid()
    key = f"sk-0123456789{marks.new(NEVER, 'bootstrap key')}"
    config = own / "portal.yaml"
    config.write_text(
        "mcp_servers:\n  declared:\n    url: http://127.0.0.1:9/mcp\n    transport: http\n   "
        " auth_type: bearer_token\n    auth_value: os.environ/DECLARED_TOKEN\n    description:"
        f" {marks.new(NEVER, 'config file')}\n"
    )
    config.chmod(0o600)
    environment = bare_environment(
        PORTAL_DATABASE_URL=f"sqlite:///{own / 'var' / 'portal.db'}",
        PORTAL_SECRET_KEY=marks.new(NEVER, "secret key") + "x" * 16,
        PORTAL_ENCRYPTION_KEYS=(
            f"k1:{marks.known(base64.b64encode(secrets.token_bytes(32)).decode(), NEVER, 'ring')}"
        ),
        PORTAL_BOOTSTRAP_API_KEY=key,
        PORTAL_BOOTSTRAP_ADMIN_PASSWORD=marks.new(NEVER, "bootstrap password"),
        PORTAL_PUBLIC_URL=f"http://127.0.0.1:{port}",
        PORTAL_ENABLE_STDIO="true",
        PORTAL_CONFIG=str(config),
        DECLARED_TOKEN=marks.new(NEVER, "variable that the config file names"),
        UNRELATED_TOKEN=marks.new(NEVER, "variable of somebody else's"),
        HOME=str(own),
    )
    environment["PATH"] = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
    program = [sys.executable, str(Path(sys.executable).parent / "portal")]
    argv = [
        *([] if is_root else as_nobody()),
        *program,
        "serve",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    if uid != os.geteuid():
        for path in (own, config):
            os.chown(path, uid, uid)
    try:
        with start_process(argv, environment, port, cwd=own) as started:
            yield Attacked(started, port, own, marks, key, uid)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def add(
    portal: Attacked, name: str, code: str, *arguments: str, env: dict[str, str] | None = None
) -> None:
    body = {"server_id": name, "server_name": name, "transport": "stdio", "command": "python3",
            "args": ["-c", code, *arguments], "env": env or {}, "timeout": 30}  # fmt: skip
    status, answer = portal.ask("POST", "/v1/mcp/server", body)
    assert status == 201, answer


def call(portal: Attacked, name: str) -> dict[str, Any]:
    status, answer = portal.ask(
        "POST", "/v1/mcp/tools/call", {"server_id": name, "name": "any", "arguments": {}}
    )
    assert status == 200, answer
    taken = answer["structuredContent"]
    assert isinstance(taken, dict)
    return taken


def eventually(attacked: Attacked, is_so: Callable[[], bool], what: str) -> None:
    """Look until it is so, with pauses that leave the processor to those who are waited for."""
    try:
        attacked.started.wait_until(is_so, WAIT)
    except AssertionError as late:
        raise AssertionError(what) from late


def _runs(mark: str) -> bool:
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and mark.encode() in (folder / "cmdline").read_bytes():
                return True
    return False


def test_a_hostile_command_gets_nothing(attacked: Attacked) -> None:
    var = attacked.folder / "var"
    mark = f"victim-{secrets.token_hex(6)}"
    add(
        attacked,
        "victim",
        VICTIM,
        mark,
        env={"API_TOKEN": attacked.marks.new(NEVER, "another command's variable")},
    )
    paths = [
        var,
        *sorted(var.iterdir()),
        attacked.folder / "portal.yaml",
        "/etc/shadow",
        "/root",
        "/run/systemd",
        "/var",
        "/sys",
        attacked.folder,
        Path(sys.executable).parent.parent,
    ]
    pids = [*attacked.processes(), os.getpid(), os.getppid()]
    add(
        attacked,
        "hostile",
        HOSTILE,
        STUB,
        *map(str, paths),
        "--",
        *map(str, pids),
        env={"API_TOKEN": "its own"},
    )
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, attacked, "victim")
        eventually(attacked, lambda: _runs(mark), "the other command runs")
        loot = call(attacked, "hostile")
        assert waiting.result() == {"done": True}  # nothing killed it, nor the portal
    attacked.marks.look(repr(loot).encode(), "what the command got")
    assert attacked.marks.report() == []
    assert loot["uid"] == (NOBODY if attacked.uid == 0 else attacked.uid)
    assert len(loot["others"]) <= 2, loot["cmdlines"]
    assert loot["fds"] in ([0, 1, 2], [0, 1, 2, 3])  # 3 is that of the listing itself
    assert {what for path, what in loot["files"].items()} <= {"FileNotFoundError", ""}, loot[
        "files"
    ]
    assert {path for path, how in loot["written"].items() if how == "written"} == {"kept", "/tmp/x"}
    assert loot["run"] == "FileNotFoundError"
    assert (loot["homes"], loot["tmp"]) == ("command", "")
    assert (loot["became_root"], loot["mounted"], loot["traced"]) == (False, False, [])
    assert set(loot.get("killed", [])) <= {1, loot["ppid"]}
    assert loot["limits"]["CORE"] == 0
    assert all(limit > 0 for name, limit in loot["limits"].items() if name != "CORE"), (
        "-1 is no limit"
    )
    assert loot["status"].pop("NoNewPrivs") == "1"
    assert set(loot["status"].values()) == {"0" * 16}
    assert not loot["kept_before"]
    assert call(attacked, "hostile")["kept_before"], "a saved server keeps its home folder"
    assert attacked.ask("GET", "/v1/me")[0] == 200


def test_the_processes_of_a_portal_show_no_environment(attacked: Attacked) -> None:
    """Neither do those that are made anew at SIGHUP, nor those of a master that takes over at
    SIGUSR2."""
    marks = attacked.marks
    first = attacked.processes()
    eventually(
        attacked,
        lambda: len(attacked.processes()) == 4,
        "a master, a front, a web process and a worker",
    )

    def look(when: str) -> None:
        for pid in attacked.processes():
            # A process that was just started has the environment that it is given until its first
            # line runs.
            eventually(attacked, partial(_shows_nothing, pid), f"process {pid} {when} shows it")
            if attacked.uid and os.geteuid() == 0:
                for file in ("environ", "mem", "maps"):
                    told = subprocess.run(
                        [
                            "setpriv",
                            f"--reuid={attacked.uid}",
                            "--clear-groups",
                            f"--regid={attacked.uid}",
                            "--",
                            "cat",
                            f"/proc/{pid}/{file}",
                        ],
                        capture_output=True,
                        check=False,
                    )
                    assert (told.returncode, b"denied" in told.stderr) == (1, True), (
                        when,
                        file,
                        told,
                    )

    look("after the start")
    os.kill(attacked.started.pid, signal.SIGHUP)
    eventually(
        attacked,
        lambda: len(set(attacked.processes()) - set(first)) == 1,
        "a web process is made anew",
    )
    look("after SIGHUP")
    assert attacked.ask("GET", "/v1/me")[0] == 200
    old = attacked.processes()
    os.kill(attacked.started.pid, signal.SIGUSR2)
    eventually(
        attacked,
        lambda: any(_children(pid) for pid in set(attacked.processes()) - set(old)),
        "a second master serves",
    )
    newer = [pid for pid in attacked.processes() if pid not in old and _children(pid)]
    for pid in [*newer, *_children(newer[0])]:
        eventually(attacked, partial(_shows_nothing, pid), f"process {pid} after SIGUSR2 shows it")
    look("after SIGUSR2")
    assert marks.report() == []


def _shows_nothing(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return not Path(f"/proc/{pid}/environ").read_bytes().strip(b"\0")
    return True
