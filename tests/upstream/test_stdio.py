"""Commands on this host: off by default, allow-listed, in a clean environment, and ended with their
children."""

import asyncio
import contextlib
import os
import secrets
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from portal.domain.errors import UpstreamFailure
from portal.domain.upstream import OutboundPolicy, Target
from portal.upstream.mcp_client import UpstreamClient
from portal.upstream.sandbox import Sandbox
from tests.support.peers import EVERYTHING, need_sandbox, unavailable
from tests.support.upstream.raw import PROMPT

# A command with a child in a session of its own, both deaf to polite requests and known by their
# first argument.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", code, sys.argv[1]], start_new_session=True)
time.sleep(60)
"""
CERTIFICATES = (
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "UV_SYSTEM_CERTS",
)
WAYS = ("HTTPS_PROXY",)
SHOW_ITSELF = """
import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    result = {"supportedVersions": ["2026-07-28"], "capabilities": {}, "resultType": "complete",
              "ttlMs": 0, "cacheScope": "private"}
    if message["method"] == "tools/call":
        ways = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        held = [os.readlink(way) for way in ways if os.path.lexists(way)]
        shown = {"environment": dict(os.environ), "descriptors": held}
        result = {"resultType": "complete", "content": [], "structuredContent": shown}
    print("a banner, as careless servers print one")
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


def python(code: str, *more: str, timeout: float = 10, env: dict[str, str] | None = None) -> Target:
    return Target(
        "stdio", command="python", args=("-c", code, *more), timeout=timeout, env=env or {}
    )


@pytest.fixture(autouse=True)
def _own_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def test_the_echo_server_answers_over_stdio(
    stdio_client: UpstreamClient, echo_stdio: Target
) -> None:
    result = stdio_client.probe(echo_stdio, with_tools=True, timeout=20)
    assert (result.status, result.server_name, len(result.tools or ())) == ("healthy", "echo", 5)
    assert stdio_client.call_tool(echo_stdio, "add", {"a": 2, "b": 3}).wire[
        "structuredContent"
    ] == {"result": 5}


def test_a_server_of_the_older_generation_answers_over_stdio(stdio_client: UpstreamClient) -> None:
    if not EVERYTHING.exists():
        unavailable("The MCP server server-everything", "run `make peers`")
    target = Target("stdio", command="node", args=(str(EVERYTHING), "stdio"))
    assert stdio_client.probe(target, timeout=20).protocol_version == "2025-11-25"


def test_stdio_is_off_unless_the_operator_switched_it_on(tmp_path: Path) -> None:
    mark = tmp_path / "started"
    off = UpstreamClient(OutboundPolicy(), stdio_commands=frozenset({"python"}))
    target = python(f"open({str(mark)!r}, 'w')")
    result = off.probe(target)
    assert (result.status, result.reason) == ("unknown", "disabled")
    with pytest.raises(UpstreamFailure) as caught:
        off.call_tool(target, "any", {})
    assert caught.value.reason == "disabled"
    assert not mark.exists()


@pytest.mark.parametrize(
    "command",
    [
        "bash",
        "sh",
        "env",
        "/usr/bin/python3",
        "./python",
        "../python3",
        "python3 ",
        "bin\\python",
        "",
    ],
)
def test_only_bare_names_on_the_list_are_started(
    command: str, stdio_client: UpstreamClient
) -> None:
    result = stdio_client.probe(Target("stdio", command=command, args=("-c", "print(1)")))
    assert (result.reason, result.message) == (
        "blocked",
        "The operator does not allow this command.",
    )


def test_the_operator_adds_a_command_by_its_bare_name() -> None:
    client = UpstreamClient(
        OutboundPolicy(), stdio_enabled=True, stdio_commands=frozenset({"true", "/bin/true"})
    )
    assert (
        client.probe(Target("stdio", command="true")).message
        == "The command true exited before it responded."
    )
    assert client.probe(Target("stdio", command="/bin/true")).reason == "blocked"


def test_a_command_that_is_not_here_is_told(
    stdio_client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = stdio_client.probe(Target("stdio", command="npx"))
    assert (result.status, result.reason, result.message) == (
        "unhealthy",
        "refused",
        "The command npx is not installed on this host.",
    )


def test_arguments_pass_no_shell(stdio_client: UpstreamClient, tmp_path: Path) -> None:
    mark = tmp_path / "made-by-a-shell"
    stdio_client.probe(
        Target(
            "stdio", command="python", args=("-c", "pass", f"; touch {mark}", f"$(touch {mark})")
        )
    )
    assert not mark.exists()


def test_the_environment_is_clean(
    stdio_client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTAL_SECRET_KEY", "SECRET")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("HOME", "/root")
    for name in (*CERTIFICATES, *WAYS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://somebody:SECRET@proxy.example:3128")
    outcome = stdio_client.call_tool(python(SHOW_ITSELF, env={"API_TOKEN": "theirs"}), "show", {})
    environment = outcome.wire["structuredContent"]["environment"]
    # Python itself adds LC_CTYPE when it coerces the C locale, the shell where it is and was.
    assert set(environment) - {"LC_CTYPE", "PWD", "OLDPWD"} == {
        "PATH",
        "HOME",
        "LANG",
        "API_TOKEN",
        *WAYS,
    }
    assert environment["API_TOKEN"] == "theirs"
    assert environment["HOME"] == "/home/command"
    assert environment["HTTPS_PROXY"] == "http://proxy.example:3128"


def test_a_command_that_says_a_lot_on_stderr_is_not_held_up(stdio_client: UpstreamClient) -> None:
    says = "import sys; sys.stderr.write('x' * 30_000_000)\n"
    assert stdio_client.probe(python(says + SHOW_ITSELF), timeout=30).status == "healthy"


def test_no_descriptor_of_the_portal_is_inherited(
    stdio_client: UpstreamClient, tmp_path: Path
) -> None:
    with (tmp_path / "open").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        outcome = stdio_client.call_tool(python(SHOW_ITSELF), "show", {})
    found = outcome.wire["structuredContent"]["descriptors"]
    assert len(found) == 3, found
    assert str(tmp_path) not in str(found)


@pytest.mark.parametrize(
    "env",
    [
        {"LD_PRELOAD": "SECRET"},
        {"ld_preload": "SECRET"},
        {"DYLD_INSERT_LIBRARIES": "SECRET"},
        {"PYTHONPATH": "SECRET"},
        {"PYTHONSTARTUP": "SECRET"},
        {"NODE_OPTIONS": "SECRET"},
        {"npm_config_registry": "SECRET"},
        {"PATH": "SECRET"},
        {"BASH_ENV": "SECRET"},
        {"GIT_SSH_COMMAND": "SECRET"},
        {"SSL_CERT_FILE": "SECRET"},
        {"https_proxy": "SECRET"},
        {"A=B": "SECRET"},
        {"": "SECRET"},
        {"A": "SECRET\0"},
    ],
)
def test_variables_that_run_other_code_are_refused(
    env: dict[str, str], stdio_client: UpstreamClient
) -> None:
    result = stdio_client.probe(python("print(1)", env=env))
    assert result.reason == "blocked"
    assert "SECRET" not in result.message


def test_a_nul_in_an_argument_is_refused(stdio_client: UpstreamClient) -> None:
    assert stdio_client.probe(python("pass", "a\0b")).reason == "blocked"


def _running(mark: str) -> set[int]:
    """The processes of this host, in whatever namespace, that have `mark` in their command line."""
    found = set()
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and mark.encode() in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
    return found


def _seen(mark: str, wanted: Callable[[set[int]], bool]) -> bool:
    deadline = time.monotonic() + PROMPT
    while time.monotonic() < deadline:
        if wanted(_running(mark)):
            return True
    return False


def test_a_command_ends_with_its_caller_whenever_that_is(stdio_client: UpstreamClient) -> None:
    """Also while it is being started: then only the sandbox would be killed by asyncio."""
    mark = f"mark-{secrets.token_hex(8)}"
    target = python(STUBBORN, mark)

    async def given_up_after(seconds: float) -> None:
        asked = asyncio.ensure_future(stdio_client.acall_tool(target, "any", {}))
        await asyncio.wait([asked], timeout=seconds)
        asked.cancel()
        await asyncio.wait([asked])

    async def given_up() -> None:
        stdio_client.probe(target, timeout=0.1)  # loads what is loaded once
        for number in range(40):
            await given_up_after(number * 0.001)

    asyncio.run(given_up())
    assert _seen(mark, lambda pids: not pids)


def test_a_hanging_command_is_killed_with_its_children(stdio_client: UpstreamClient) -> None:
    mark = f"mark-{secrets.token_hex(8)}"
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(stdio_client.probe, python(STUBBORN, mark, timeout=2.5))
        assert _seen(
            mark, lambda pids: len(pids) >= 4
        )  # two of the sandbox, the command and its child
        result = asked.result()
    assert time.monotonic() - began < PROMPT
    assert (result.status, result.reason, result.message) == (
        "unhealthy",
        "timeout",
        "python did not respond within 2.5 s.",
    )
    assert _seen(mark, lambda pids: not pids)


def test_a_command_that_does_not_leave_is_ended_after_the_work(
    stdio_client: UpstreamClient,
) -> None:
    mark = f"mark-{secrets.token_hex(8)}"
    answering = SHOW_ITSELF + "time.sleep(60)\n"
    code = STUBBORN.removesuffix("time.sleep(60)\n") + answering
    began = time.monotonic()
    result = stdio_client.probe(python(code, mark, timeout=60), timeout=60)
    assert result.status == "healthy"
    assert time.monotonic() - began < PROMPT
    assert _seen(mark, lambda pids: not pids)


@pytest.mark.parametrize(
    ("code", "timeout", "message"),
    [
        ("raise SystemExit('SECRET')", 60, "The command python exited before it responded."),
        (
            "print('x' * 30_000_000, flush=True); import time; time.sleep(60)",
            60,
            "The command python exited before it responded.",
        ),
        (
            "print('no json at all', flush=True); import sys; sys.stdin.read()",
            1,
            "python did not respond within 1 s.",
        ),
    ],
)
def test_a_command_that_speaks_no_mcp_is_told(
    code: str, timeout: float, message: str, stdio_client: UpstreamClient
) -> None:
    result: Any = stdio_client.probe(python(code, timeout=timeout), timeout=timeout)
    assert result.message == message


FILLS = """
import itertools, json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "tools/call" and sys.argv[1] == "at once":
        open("large", "wb").write(b"x" * 3_000_000)
    elif message["method"] == "tools/call":
        for number in itertools.count():
            open(f"{number % 1000}", "wb").write(b"x" * 3_000)
    result = {"supportedVersions": ["2026-07-28"], "capabilities": {}, "resultType": "complete",
              "ttlMs": 0, "cacheScope": "private"}
    if message["method"] == "tools/call":
        result = {"resultType": "complete", "content": [], "structuredContent": {"done": True}}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


@pytest.mark.parametrize("how", ["at once", "without end"])
def test_a_home_folder_that_is_filled_is_deleted(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal.upstream.sandbox.HOME_BYTES", 2_000_000)
    sandbox = Sandbox(homes=tmp_path / "homes")
    need_sandbox(sandbox)
    target = replace(python(FILLS, how, timeout=60), home="one")
    client = UpstreamClient(OutboundPolicy(), stdio_enabled=True, sandbox=sandbox)
    began = time.monotonic()
    assert client.probe(target, timeout=30).status == "healthy"
    [home] = (tmp_path / "homes").glob("*/*")
    if how == "at once":
        assert client.call_tool(target, "any", {}).wire["structuredContent"] == {"done": True}
    else:
        with pytest.raises(UpstreamFailure):
            client.call_tool(target, "any", {})
    assert time.monotonic() - began < 55, "it is not its own time that ended it"
    assert not home.exists()
    assert client.probe(target, timeout=30).status == "healthy"
