"""Servers of every transport through `portal gateway`: commands, HTTP+SSE and OpenAPI services."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from portal.store.database import Database
from portal.upstream.sandbox import Sandbox
from tests.conftest import make_settings, open_quickly
from tests.gateway.conftest import Running
from tests.support.factories import make_server
from tests.support.peers import (
    ROOT,
    bare_environment,
    free_port,
    need_sandbox,
    start_process,
)

ECHO = ROOT / "examples" / "echo_server.py"
PROGRAMS = ROOT / "tests" / "programs"
OWN_PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@contextmanager
def process_on(url: str) -> Iterator[Running]:
    """Run `portal gateway` on a database, with commands enabled."""
    need_sandbox(Sandbox())
    port = free_port()
    settings = make_settings(url)
    environment = bare_environment(
        PATH=OWN_PATH,
        PORTAL_DATABASE_URL=url,
        PORTAL_SECRET_KEY=settings.secret_key.get_secret_value(),
        PORTAL_ENCRYPTION_KEYS=settings.encryption_keys.get_secret_value(),
        PORTAL_ALLOW_PRIVATE_UPSTREAMS="true",
        PORTAL_ENABLE_STDIO="true",
        PORTAL_STDIO_PATHS=f"{ECHO.parent},{PROGRAMS}",
        PORTAL_PUBLIC_URL="http://127.0.0.1:8000",
        PORTAL_GATEWAY_URL=f"http://127.0.0.1:{port}",
    )
    argv = [sys.executable, "-m", "portal.cli", "gateway", "--port", str(port)]
    with start_process(argv, environment, port):
        yield Running(f"http://127.0.0.1:{port}")


@pytest.fixture
def stored(started: Callable[[str], str], database_kind: str) -> Iterator[tuple[str, Database]]:
    """A new database of a portal with commands enabled, by its URL."""
    url = started(database_kind)
    database = open_quickly(make_settings(url, enable_stdio=True))
    yield url, database
    database.engine.dispose()


def add(database: Database, name: str, **fields: Any) -> None:
    with database.session(writes=True) as session:
        make_server(session, name, allow_all_keys=True, **fields)
        session.commit()


def command(program: Path, *arguments: str, **fields: Any) -> dict[str, Any]:
    """The fields of a server that is a Python program."""
    args = [str(program), *arguments]
    return {"transport": "stdio", "url": None, "command": "python", "args": args, **fields}


async def add_two_numbers(client: Client) -> Any:
    names = {tool.name for tool in (await client.list_tools()).tools}
    return names, await client.call_tool("add", {"a": 2, "b": 3})


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_client_lists_and_calls_the_tools_of_a_command(
    stored: tuple[str, Database], mode: str
) -> None:
    url, database = stored
    add(database, "echo", **command(ECHO, "--transport", "stdio"))
    with process_on(url) as gateway:
        names, result = gateway.talk("echo", "mel", add_two_numbers, mode=mode)
    assert names == {"show_headers", "whoami", "add", "search_notes", "slow"}
    assert result.structured_content == {"result": 5}
