"""A portal of real processes that a test may hurt: kill one, start it again on the same data and
the same port."""

import base64
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2

from portal.processes import front, web
from tests.support.html import filled
from tests.support.oauth.browsing import HttpBrowser
from tests.support.peers import (
    TRUST,
    Finished,
    StartedProcess,
    accepts,
    bare_environment,
    free_port,
    run,
    start_process,
)

KEY = "sk-faults-bootstrap-key-0001"
BY_KEY = {"Authorization": f"Bearer {KEY}"}
PASSWORD = "a password for the faults"
PORTAL = (sys.executable, "-m", "portal.cli")
# `make faults` takes its time; under `make test` the same faults are caused less often, or for less
# long.
IN_FULL = os.environ.get("FAULTS_IN_FULL") == "1"
# Against hangs only: ten times what a slow machine needs.
PATIENCE = 60.0


def until(question: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Ask again and again until the answer is yes, and return it. Raises AssertionError with `what`
    after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := question()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return found


class Site:
    """A portal in a folder of its own, on SQLite there or on the PostgreSQL of `database_url`."""

    def __init__(self, folder: Path, database_url: str = "", **settings: str) -> None:
        self.folder, self.port = folder, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.embedded = not database_url
        self.environment = bare_environment(
            PORTAL_DATABASE_URL=database_url or f"sqlite:///{folder}/portal.db",
            PORTAL_ENCRYPTION_KEYS="f1:" + base64.b64encode(b"f" * 32).decode(),
            PORTAL_SECRET_KEY="faults" * 8,
            PORTAL_PUBLIC_URL=self.address,
            PORTAL_CHEAP_HASHING="true",
            PORTAL_BOOTSTRAP_API_KEY=KEY,
            PORTAL_BOOTSTRAP_ADMIN_PASSWORD=PASSWORD,
            PYTHONUNBUFFERED="1",
            **{"PORTAL_ALLOW_PRIVATE_UPSTREAMS": "true", **settings},
        )
        self._running: dict[str, ExitStack] = {}
        self.processes: dict[str, StartedProcess] = {}
        if not self.embedded:
            upgraded = self.portal("db", "upgrade")
            assert upgraded.returncode == 0, upgraded.stderr

    def portal(self, *arguments: str) -> Finished:
        """Run a command to its end."""
        return run([*PORTAL, *arguments], env=self.environment, cwd=self.folder)

    def start(
        self, command: str = "serve", *, ready: Callable[[], bool] | None = None, **settings: str
    ) -> None:
        """Start `serve` or `worker`, and wait until it is ready."""
        more = ["--port", str(self.port)] if command == "serve" else []
        ready = ready or (self.is_ready if command == "serve" else lambda: True)
        with ExitStack() as stack:
            argv = [*PORTAL, command, *more]
            environment = {**self.environment, **settings}
            process = start_process(argv, environment, ready, cwd=self.folder, seconds=PATIENCE)
            self.processes[command] = stack.enter_context(process)
            self._running[command] = stack.pop_all()

    def stop(self, command: str = "serve") -> None:
        """End a process, with what it started."""
        self._running.pop(command).close()

    def close(self) -> None:
        """End all of it."""
        for command in list(self._running):
            self.stop(command)

    def is_ready(self) -> bool:
        """Whether /readyz says that requests may come. The port is looked at first: it costs
        nothing to do that often while the portal starts."""
        if not accepts(self.port):
            return False
        with contextlib.suppress(httpx2.HTTPError):
            return httpx2.get(f"{self.address}/readyz", timeout=5, verify=TRUST).status_code == 200
        return False

    def web_pids(self) -> list[int]:
        """The web processes that the master started, without the front and worker beside them."""
        return [
            pid
            for pid in children(self.processes["serve"].pid)
            if name_of(pid) not in (front.NAME, web.WORKER)
        ]

    def front_pid(self) -> int | None:
        """The front of embedded mode, which has the port."""
        found = children(self.processes["serve"].pid)
        return next((pid for pid in found if name_of(pid) == front.NAME), None)

    def worker_pid(self) -> int | None:
        """The background worker: a process of its own, or in embedded mode a child of the
        master."""
        if not self.embedded:
            return self.processes["worker"].pid
        return next(
            (p for p in children(self.processes["serve"].pid) if name_of(p) == web.WORKER),
            None,
        )

    def api(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """A request as the Admin, by key."""
        headers = {**BY_KEY, **options.pop("headers", {})}
        url = f"{self.address}{path}"
        return httpx2.request(
            method, url, headers=headers, timeout=PATIENCE, verify=TRUST, **options
        )

    @contextlib.contextmanager
    def signed_in(self) -> Iterator[HttpBrowser]:
        """The Admin's browser."""
        with HttpBrowser(timeout=PATIENCE) as browser:
            page = browser.visit(f"{self.address}/login")
            arrived = browser.submit(page, "Sign in", email="admin@portal.local", password=PASSWORD)
            assert arrived.status == 200, arrived.text
            assert not arrived.url.endswith("/login"), arrived.text
            yield browser

    def typed(self, browser: HttpBrowser, name: str) -> Any:
        """The form that adds a server, as a browser would send it."""
        form = browser.visit(f"{self.address}/servers/new").soup.find(
            "form", attrs={"data-guard": True}
        )
        return filled(
            form, save="yes", transport="http", url="http://127.0.0.1:9/mcp", server_name=name
        )

    def names(self) -> list[str]:
        """The servers that the Admin sees, which an answer without an error has."""
        answer = self.api("GET", "/v1/mcp/server")
        assert answer.status_code == 200, answer.text
        return sorted(server["server_name"] for server in answer.json())

    def verified(self) -> None:
        """Hold that the chain of the audit is whole."""
        found = self.portal("audit", "verify")
        assert found.returncode == 0, found.stdout + found.stderr


def children(pid: int) -> list[int]:
    """The ids of the processes that `pid` started and that run."""
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []


def name_of(pid: int) -> str:
    """The name of a process; nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def command_line(pid: int) -> str:
    """What a process was started with; nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    """Whether a process runs, and is not just waiting to be reaped."""
    return bool(command_line(pid))


def kill(pid: int) -> None:
    """End a process at once: no handler of it runs."""
    os.kill(pid, signal.SIGKILL)
