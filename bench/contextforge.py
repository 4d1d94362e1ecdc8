"""IBM ContextForge from PyPI, in its own environment, with the sample servers on SQLite.

It is a peer for comparison, and no part of the portal depends on it: `make bench-peers` installs it
on demand.
"""

import asyncio
import contextlib
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.running import Running, environment, free_port, serving
from bench.wire import Request, ask_once

HOME = Path("var/peers/contextforge")
_PYTHON = HOME / "bin" / "python"
_ADMIN = "bench@example.com"
_SECRET = "bench-jwt-secret-0123456789-abcdefghij-ABCDEFGHIJ"
# The benchmark sends more requests per minute than it allows.
_NO_LIMITS = {"RATE_LIMITING_ENABLED": "false", "VALIDATION_MAX_REQUESTS_PER_MINUTE": "1000000"}
_COLUMNS = (
    "id",
    "name",
    "slug",
    "url",
    "description",
    "transport",
    "capabilities",
    "created_at",
    "updated_at",
    "enabled",
    "reachable",
    "tags",
    "created_by",
    "owner_email",
    "visibility",
)


class ContextForge:
    """An installation with a database in `folder` and `servers` sample gateways."""

    def __init__(self, folder: Path, servers: int) -> None:
        if not _PYTHON.exists():
            raise SystemExit("ContextForge is not installed: run make bench-peers")
        self._folder = folder
        self._environment = environment(
            DATABASE_URL=f"sqlite:///{folder}/contextforge.db",
            JWT_SECRET_KEY=_SECRET,
            MCPGATEWAY_UI_ENABLED="true",
            AUTH_ENCRYPTION_SECRET=_SECRET[::-1],
            MCPGATEWAY_ADMIN_API_ENABLED="true",
            SECURE_COOKIES="false",
            PLATFORM_ADMIN_EMAIL=_ADMIN,
            PLATFORM_ADMIN_PASSWORD="Bench-passw0rd-of-one",
            LOG_LEVEL="ERROR",
            HEALTH_CHECK_INTERVAL="3600",
            TMPDIR=str(folder),
            **_NO_LIMITS,
        )
        with self.running():  # creates its tables
            pass
        self._fill(servers)
        self.token = self._make_token()

    @contextlib.contextmanager
    def running(self) -> Iterator[Running]:
        """Run it with one worker, like its own command; yield once it responds."""
        port = free_port()
        argv = [
            (HOME / "bin" / "mcpgateway").absolute(),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        ]
        with serving(argv, self._environment, port, self._folder) as running:
            assert asyncio.run(ask_once(port, Request("/health"))).status == 200
            yield running

    @property
    def headers(self) -> dict[str, str]:
        """The request headers of its Admin."""
        return {"Authorization": f"Bearer {self.token}", "Accept": "text/html,application/json"}

    def _make_token(self) -> str:
        argv = [
            _PYTHON.absolute(),
            "-m",
            "mcpgateway.utils.create_jwt_token",
            "--username",
            _ADMIN,
            "--admin",
        ]
        made = subprocess.run(
            [*argv, "--exp", "600", "--secret", _SECRET],
            cwd=self._folder,
            env=self._environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return made.stdout.split()[-1]

    def _fill(self, servers: int) -> None:
        database = sqlite3.connect(self._folder / "contextforge.db", timeout=30)
        with database:
            database.execute("update email_users set password_change_required = 0")
            marks = ", ".join("?" * len(_COLUMNS))
            database.executemany(
                f"insert into gateways ({', '.join(_COLUMNS)}) values ({marks})",
                map(_gateway, range(servers)),
            )
        database.close()


def version() -> str:
    """Return the installed version."""
    argv = [
        _PYTHON.absolute(),
        "-c",
        "import importlib.metadata as m; print(m.version('mcp-contextforge-gateway'))",
    ]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def _gateway(number: int) -> tuple[object, ...]:
    name = f"server_{number:05}"
    at = f"2026-01-01 {number // 60 % 24:02}:{number % 60:02}:00.000000"
    about = (
        f"Sample {number:05}, with a line of text such as people write about what a server can do."
    )
    return (
        f"{number:032x}",
        name,
        name.replace("_", "-"),
        f"https://s{number:05}.example/mcp",
        about,
        "STREAMABLEHTTP",
        "{}",
        at,
        at,
        1,
        1,
        f'["group {number % 20:02}"]',
        _ADMIN,
        _ADMIN,
        "public",
    )
