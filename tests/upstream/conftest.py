"""The client under test, and the echo server in each of its modes, started once for the session."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from portal.domain.upstream import OutboundPolicy, Target
from portal.upstream.mcp_client import UpstreamClient
from portal.upstream.sandbox import Sandbox
from tests.support.peers import ROOT, bare_environment, free_port, need_sandbox, start_process

ECHO = ROOT / "examples" / "echo_server.py"


def _echo(*more: str) -> Iterator[int]:
    port = free_port()
    with start_process(
        [sys.executable, ECHO, "--port", str(port), *more], bare_environment(), port
    ):
        yield port


@pytest.fixture(scope="session")
def echo_sse() -> Iterator[str]:
    """The echo server over HTTP+SSE: its URL."""
    for port in _echo("--transport", "sse"):
        yield f"http://127.0.0.1:{port}/sse"


@pytest.fixture(scope="session")
def locked_echo() -> Iterator[str]:
    """The echo server that answers 401 without an Authorization header: its URL."""
    for port in _echo("--require-header", "Authorization"):
        yield f"http://127.0.0.1:{port}/mcp"


@pytest.fixture(scope="session")
def locked_sse() -> Iterator[str]:
    """The same over HTTP+SSE."""
    for port in _echo("--transport", "sse", "--require-header", "Authorization"):
        yield f"http://127.0.0.1:{port}/sse"


@pytest.fixture
def echo_stdio(monkeypatch: pytest.MonkeyPatch) -> Target:
    """The echo server as a command, found on PATH as the operator's would be."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return Target("stdio", command="python", args=(str(ECHO), "--transport", "stdio"))


@pytest.fixture(scope="session")
def client() -> UpstreamClient:
    """A client that may reach this machine."""
    return UpstreamClient(OutboundPolicy(allow_private=("127.0.0.0/8", "::1/128")))


@pytest.fixture(scope="session")
def stdio_client() -> UpstreamClient:
    """A client that may start commands, which may read the repository."""
    sandbox = Sandbox(
        readable=[str(ROOT / "examples"), str(ROOT / "tests" / "npm" / "node_modules")]
    )
    need_sandbox(sandbox)
    return UpstreamClient(OutboundPolicy(), stdio_enabled=True, sandbox=sandbox)
