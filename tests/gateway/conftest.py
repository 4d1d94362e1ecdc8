"""A gateway in a thread of the test process, on the test's database, and clients for it."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from portal.app import create_gateway
from portal.settings import Settings
from tests.conftest import KEYS, Portal
from tests.support.peers import (
    TRUST,
    StartedProcess,
    bare_environment,
    free_port,
    start_process,
)

Work = Callable[[Client], Any]


@dataclass(frozen=True)
class Running:
    """A gateway that answers at `url`. `stop` prepares the end of one in this process, with seconds
    for its calls."""

    url: str
    stop: Callable[[float], None] | None = None

    def at(self, name: str) -> str:
        """The address of one server."""
        return f"{self.url}/{name}/mcp"

    def headers(self, as_: str | None) -> dict[str, str]:
        """The headers of every request of somebody."""
        return {"Accept": "application/json, text/event-stream", **_key(as_)}

    def ask(
        self, method: str, path: str, as_: str | None = None, **options: Any
    ) -> httpx2.Response:
        """Send one request as somebody; `headers` are added to those that say who asks."""
        headers = self.headers(as_)
        headers |= options.pop("headers", {})
        return httpx2.request(
            method, f"{self.url}{path}", headers=headers, verify=TRUST, timeout=30, **options
        )

    def post(
        self, name: str, as_: str | None, rpc: str, params: Any = None, **headers: str
    ) -> httpx2.Response:
        """Send one JSON-RPC request to a server's address."""
        message = {"jsonrpc": "2.0", "id": 1, "method": rpc, "params": params or {}}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", f"/{name}/mcp", as_, json=message, headers=named)

    def talk(self, name: str, as_: str, work: Work, **options: Any) -> Any:
        """What `work` gives, done with the official SDK's client at a server's address."""

        async def talking() -> Any:
            async with (
                httpx2.AsyncClient(headers=_key(as_), timeout=30, verify=TRUST) as http,
                Client(
                    streamable_http_client(self.at(name), http_client=http), **options
                ) as client,
            ):
                return await work(client)

        return asyncio.run(talking())


def _key(as_: str | None) -> dict[str, str]:
    return {} if as_ is None else {"Authorization": f"Bearer {KEYS.get(as_, as_)}"}


@contextmanager
def running(portal: Portal) -> Iterator[Running]:
    """Serve the gateway of a portal until the context ends."""
    port = free_port()
    app = create_gateway(portal.settings, portal.database)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, ws="none", log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    started = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    def stop(seconds: float) -> None:
        loops[0].call_soon_threadsafe(lambda: app.stop(seconds=seconds))

    async def serving() -> None:
        loops.append(asyncio.get_running_loop())
        work = asyncio.ensure_future(server.serve())
        while not server.started and not work.done():
            await asyncio.sleep(0.01)
        started.set()
        await work

    thread = threading.Thread(target=lambda: asyncio.run(serving()), daemon=True)
    thread.start()
    assert started.wait(20)
    try:
        yield Running(f"http://127.0.0.1:{port}", stop)
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def gateway(portal: Portal) -> Iterator[Running]:
    """The gateway of `portal`."""
    with running(portal) as found:
        yield found


@contextmanager
def gateway_process(settings: Settings, port: int, **more: str) -> Iterator[StartedProcess]:
    """Run `portal gateway` on a port, with the database and keys of `settings`."""
    environment = bare_environment(
        PORTAL_DATABASE_URL=settings.database_url,
        PORTAL_SECRET_KEY=settings.secret_key.get_secret_value(),
        PORTAL_ENCRYPTION_KEYS=settings.encryption_keys.get_secret_value(),
        PORTAL_ALLOW_PRIVATE_UPSTREAMS="true",
        PORTAL_PUBLIC_URL=settings.public_url,
        PORTAL_GATEWAY_URL=f"http://127.0.0.1:{port}",
        **more,
    )
    argv = [sys.executable, "-m", "portal.cli", "gateway", "--port", str(port)]
    with start_process(argv, environment, port, seconds=60) as process:
        yield process
