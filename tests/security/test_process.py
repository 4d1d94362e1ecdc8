"""A real portal process: what it and its worker write to their output and leave in their folder
holds no secret."""

import base64
import http.client
import json
import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from portal.upstream.sandbox import Sandbox
from tests.support.peers import (
    START_SECONDS,
    StartedProcess,
    bare_environment,
    free_port,
    need_sandbox,
    start_process,
)
from tests.support.security.marks import NEVER, Marks
from tests.support.security.upstreams import parrot


@dataclass
class Running:
    """A portal on a port of its own, with its folder and the markers it was given."""

    started: StartedProcess
    port: int
    folder: Path
    marks: Marks
    key: str

    def ask(
        self, method: str, path: str, body: object = None, key: str | None = None
    ) -> tuple[int, Any]:
        """An API call; the status and the JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json"}
        text = body if isinstance(body, str) else json.dumps(body)
        connection.request(method, path, text if body is not None else None, headers)
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        return answer.status, json.loads(raw) if raw else None

    def get(self, path: str) -> bytes:
        """What anybody gets there."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path)
        text = connection.getresponse().read()
        connection.close()
        return text

    def wait_for_the_worker(self) -> None:
        """Until every server was looked at in the background."""

        def all_are_checked() -> bool:
            return all(
                server["last_health_check"] for server in self.ask("GET", "/v1/mcp/server")[1]
            )

        self.started.wait_until(all_are_checked, START_SECONDS)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    need_sandbox(Sandbox())
    marks = Marks()
    port = free_port()
    folder = tmp_path / "var"
    key = f"sk-0123456789{marks.new(NEVER, 'bootstrap key')}"
    password = marks.new(NEVER, "bootstrap password")
    ring = base64.b64encode(secrets.token_bytes(32)).decode()
    environment = bare_environment(
        PORTAL_DATABASE_URL=f"sqlite:///{folder / 'portal.db'}",
        PORTAL_SECRET_KEY=marks.new(NEVER, "secret key") + "x" * 16,
        PORTAL_ENCRYPTION_KEYS=f"k1:{marks.known(ring, NEVER, 'encryption key')}",
        PORTAL_BOOTSTRAP_API_KEY=key,
        PORTAL_BOOTSTRAP_ADMIN_PASSWORD=password,
        PORTAL_PUBLIC_URL=f"http://127.0.0.1:{port}",
        PORTAL_ENABLE_STDIO="true",
        PORTAL_LOG_FORMAT="json",
        PORTAL_LOG_LEVEL="debug",
        PORTAL_METRICS="true",
        HOME=str(tmp_path),
    )
    argv = [sys.executable, "-m", "portal.cli", "serve", "--port", str(port), "--workers", "1"]
    with start_process(argv, environment, port) as started:
        yield Running(started, port, folder, marks, key)


def plant(running: Running, upstream: str) -> list[str]:
    """Servers of which none answers; answers their ids."""
    new = running.marks.new
    ids = list[str]()
    places = {
        "refused": "http://127.0.0.1:9",
        "nameless": "http://no-such-host.invalid",
        "tls": f"https{upstream[4:]}",
        **{how: f"{upstream}/{how}" for how in ("401", "500", "302", "html", "rpc", "cut")},
    }
    for name, origin in places.items():
        body = {
            "server_id": f"id-{name}",
            "server_name": f"at_{name}",
            "transport": "http",
            "auth_type": "bearer_token",
            "url": f"{origin}/{new(NEVER, f'{name}: url')}/mcp",
            "timeout": 3,
            "credentials": {"auth_value": new(NEVER, f"{name}: auth")},
            "static_headers": {"X-Key": new(NEVER, f"{name}: header")},
        }
        status, answer = running.ask("POST", "/v1/mcp/server", body)
        assert status == 201, answer
        ids.append(f"id-{name}")
    loud = f"import os, sys; sys.exit('{new(NEVER, 'stdio: args')}' + os.environ['API_TOKEN'])"
    body = {
        "server_id": "id-stdio",
        "server_name": "at_stdio",
        "transport": "stdio",
        "command": "python3",
        "args": ["-c", loud],
        "env": {"API_TOKEN": new(NEVER, "stdio: env")},
    }
    assert running.ask("POST", "/v1/mcp/server", body)[0] == 201
    return [*ids, "id-stdio"]


def test_the_output_and_the_folder_of_a_portal_hold_no_secret(running: Running) -> None:
    marks = running.marks
    with parrot() as upstream:
        ids = plant(running, upstream)
        running.wait_for_the_worker()
        for server_id in ids:
            body = {
                "server_id": server_id,
                "name": "add",
                "arguments": {"a": marks.new(NEVER, "argument")},
            }
            status, answer = running.ask("POST", "/v1/mcp/tools/call", body)
            assert status in (401, 502, 504), (server_id, answer)
        assert running.ask("GET", "/v1/me", key=f"sk-{marks.new(NEVER, 'unknown key')}")[0] == 401
        assert (
            running.ask("POST", "/v1/users", f'{{"password": "{marks.new(NEVER, "broken JSON")}"')[
                0
            ]
            == 422
        )
        body = {
            "user_id": "new",
            "email": "new@example.com",
            "password": marks.new(NEVER, "password"),
        }
        assert running.ask("POST", "/v1/users", body)[0] == 201
        issued = running.ask("POST", "/v1/keys", {"user_id": "new"})
        marks.known(issued[1]["key"], NEVER, "issued key")
        marks.look(running.get("/metrics"), "metrics")
        for file in sorted(path for path in running.folder.rglob("*") if path.is_file()):
            marks.look(file.read_bytes(), f"file {file.name}")
    os.kill(running.started.pid, 15)
    running.started.process.wait(30)
    output = running.started.output()
    assert "Sign in at" in output
    assert "Traceback" not in output
    marks.look(output.encode(), "output")
    for file in sorted(path for path in running.folder.rglob("*") if path.is_file()):
        marks.look(file.read_bytes(), f"file {file.name} after the end")
    assert marks.report() == []
