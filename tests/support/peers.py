"""The real peers that the tests talk to, as a pytest plugin: MCP servers, PostgreSQL, Redis and
Chromium.

Each is started once for a pytest process and ended by its process id. Where one cannot be had the
test is skipped with the reason; under ``make test`` (``PORTAL_REQUIRE_ALL=1``) it fails instead, so
that a green run hides nothing.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx2
import psycopg
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, sync_playwright
from psycopg import sql

from portal.upstream.sandbox import Sandbox

pytest_plugins = ["tests.support.compiled"]

ROOT = Path(__file__).resolve().parents[2]
NODE_MODULES = ROOT / "tests" / "npm" / "node_modules"
EVERYTHING = NODE_MODULES / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
AXE = NODE_MODULES / "axe-core" / "axe.min.js"
CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
Finished = subprocess.CompletedProcess[str]
START_SECONDS = 60.0
STOP_SECONDS = 20.0
# For `verify=`: without it httpx2 reads the certificates of the machine for each client and each
# single request, which takes longer than what most requests are about.
TRUST = httpx2.create_ssl_context()


def unavailable(what: str, cure: str = "run `make test`, which installs and starts it") -> NoReturn:
    """End the test: failed when everything is required, skipped otherwise."""
    message = f"{what} is missing: {cure}"
    if os.environ.get("PORTAL_REQUIRE_ALL") == "1" or os.environ.get("CI") == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def need_sandbox(sandbox: Sandbox) -> None:
    """End the test where no command can be started: a container, say, in which no namespace can be
    made.

    It fails when everything is required and this machine could do it, else it is skipped with the
    reason.
    """
    if not (refusal := sandbox.refusal()):
        return
    if shutil.which("bwrap") and not _makes_namespaces():
        pytest.skip(f"This machine makes no namespaces: {refusal}")
    unavailable(f"The sandbox for commands ({refusal})", "run `make packages`")


def _makes_namespaces() -> bool:
    """Whether the kernel lets this process make the namespaces that a sandbox consists of."""
    return (
        run(
            ["unshare", *(() if os.geteuid() == 0 else ("-r",)), "-m", "-p", "-f", "true"]
        ).returncode
        == 0
    )


def free_port() -> int:
    """Return a TCP port that nobody listens on, on any interface.

    It is taken from below the range for outgoing connections, so that none of these can occupy it
    before the server that it is meant for does.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port


def accepts(port: int) -> bool:
    """Say whether something on loopback accepts a connection on ``port``."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@dataclass(frozen=True)
class StartedProcess:
    """A process that a test started, in a group of its own, with its output in a file."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """The process id, which is the id of its group too."""
        return self.process.pid

    def output(self) -> str:
        """Return what it has written to stdout and stderr so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_until(self, is_ready: Callable[[], bool], seconds: float) -> None:
        """Wait until the question is answered yes. Raises AssertionError, with the output, when it
        dies first."""
        deadline = time.monotonic() + seconds
        while not is_ready():
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self.process.wait(
                    0.02
                )  # the pause between two looks, cut short by its death
                raise AssertionError(f"{self.process.args!r} ended with {code}:\n{self.output()}")
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{self.process.args!r} was not ready in {seconds:g} s:\n{self.output()}"
                )

    def stop(self) -> int:
        """End it with its children, kindly and then by force; return its exit code."""
        for kind in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, kind)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
                break
        with contextlib.suppress(ProcessLookupError):  # children that outlived it
            os.killpg(self.pid, signal.SIGKILL)
        return self.process.wait()


@contextlib.contextmanager
def start_process(
    argv: Sequence[str | Path],
    env: Mapping[str, str],
    wait_for: int | Callable[[], bool],
    *,
    cwd: Path = ROOT,
    seconds: float = START_SECONDS,
) -> Iterator[StartedProcess]:
    """Run ``argv`` with exactly ``env`` and yield it when it is ready; end it afterwards.

    ``wait_for`` is a loopback port that must accept, or a question that must be answered yes,
    within ``seconds``. Raises AssertionError with the process's output when it dies before that, or
    is not ready in time.
    """
    ready = wait_for if callable(wait_for) else lambda: accepts(wait_for)
    with tempfile.TemporaryDirectory(prefix="portal-peer-") as folder:
        log = Path(folder) / "output.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(part) for part in argv],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started = StartedProcess(process, log)
        try:
            started.wait_until(ready, seconds)
            yield started
        finally:
            started.stop()


def run(
    argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Finished:
    """Run ``argv`` to its end, with no input, in ``env`` (ours by default); return its exit code
    and what it said."""
    return subprocess.run(
        argv,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def bare_environment(**more: str) -> dict[str, str]:
    """Return an environment with nothing of ours but PATH: a peer may print what it is given."""
    return {"PATH": os.environ.get("PATH", os.defpath), **more}


@contextlib.contextmanager
def _everything(mode: str) -> Iterator[int]:
    node = shutil.which("node")
    if node is None or not EVERYTHING.exists():
        unavailable("The MCP server server-everything", "run `make peers`")
    port = free_port()
    # Debian 12's Node.js 18 hides the `crypto` that the server counts on; the newer ones need no
    # flag.
    old = int(run([node, "--version"]).stdout.lstrip("v").split(".")[0]) < 20
    flags = ["--experimental-global-webcrypto"] if old else []
    with start_process([node, *flags, EVERYTHING, mode], bare_environment(PORT=str(port)), port):
        yield port


@pytest.fixture(scope="session")
def everything_server() -> Iterator[str]:
    """The MCP project's own TypeScript server over streamable HTTP: its URL."""
    with _everything("streamableHttp") as port:
        yield f"http://127.0.0.1:{port}/mcp"


@pytest.fixture(scope="session")
def everything_sse() -> Iterator[str]:
    """The MCP project's own TypeScript server over HTTP+SSE: its URL."""
    with _everything("sse") as port:
        yield f"http://127.0.0.1:{port}/sse"


@pytest.fixture(scope="session")
def echo_server() -> Iterator[str]:
    """``examples/echo_server.py``, of the Python SDK, which tells the headers it received: its
    URL."""
    port = free_port()
    argv: list[str | Path] = [
        sys.executable,
        ROOT / "examples" / "echo_server.py",
        "--port",
        str(port),
    ]
    with start_process(argv, bare_environment(), port):
        yield f"http://127.0.0.1:{port}/mcp"


def _worker_number() -> int:
    """Return 0 without xdist, else 1 for its first worker, 2 for its second ..."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw-1").removeprefix("gw")) + 1


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """A database of this pytest process alone, on a real PostgreSQL, empty at first: its URL."""
    return new_database("shared")


@pytest.fixture(scope="module")
def own_postgres_url(request: pytest.FixtureRequest) -> str:
    """One of this module alone, for tests that clear it or leave something behind."""
    return new_database(request.module.__name__.rpartition(".")[2])


def new_database(purpose: str, like: str = "template1") -> str:
    """Make a database of this pytest process alone on a real PostgreSQL, return its URL.

    It is empty, or holds what the one named `like` does, where nobody is connected to that.
    """
    server = os.environ.get("TEST_PG_URL") or unavailable("PostgreSQL (TEST_PG_URL)")
    name = f"portal_{purpose}_{_worker_number()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(like)
            )
        )
    return urlsplit(server)._replace(path=f"/{name}").geturl()


@pytest.fixture(scope="session")
def redis_url() -> str:
    """A logical database of this pytest process alone, on a real Redis: its URL."""
    server = os.environ.get("TEST_REDIS_URL") or unavailable("Redis (TEST_REDIS_URL)")
    return urlsplit(server)._replace(path=f"/{_worker_number()}").geturl()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium, driven by Playwright.

    For one module, not the session: while Playwright's synchronous API is started its event loop
    counts as running in this thread, and ``asyncio.run`` in any other test would be refused.
    """
    if not CHROMIUM.exists():
        unavailable("Chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def browser_page_factory(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Make pages, each in a browser context of its own: ``make(**context)`` with Playwright's
    options for a context.

    The default is 1440 by 900 CSS pixels. The test fails at its end when a page had a script error
    or broke its own content security policy.
    """
    faults: list[str] = []
    contexts = []

    def note(message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            faults.append(message.text)

    def thrown(error: Error) -> None:
        faults.append(f"script error: {error}")

    def make(**options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", note)
        page.on("pageerror", thrown)
        return page

    yield make
    for context in contexts:
        context.close()
    assert not faults, "\n".join(faults)
