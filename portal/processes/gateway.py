"""The process of the gateway, which MCP clients connect to."""

import signal
import socket
import sys

import uvicorn

from portal import telemetry
from portal.app import create_gateway
from portal.gateway.app import Gateway
from portal.settings import Settings
from portal.store.database import Database

_KEEP_ALIVE = 15  # seconds; longer than proxies keep idle connections
_GRACE = 20  # seconds; the gateway ends calls before


def serve(settings: Settings, database: Database, *, host: str, port: int) -> None:
    """Serve until stopped; running calls can finish."""
    for name in (signal.SIGTERM, signal.SIGINT):  # uvicorn sends the signal again when it is done
        signal.signal(name, lambda *_: sys.exit(0))
    telemetry.begin(settings)
    gateway = create_gateway(settings, database)
    config = uvicorn.Config(
        gateway,
        host=host,
        port=port,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
    )
    _Server(config, gateway).run()


class _Server(uvicorn.Server):
    """The server, which tells the gateway when it stops."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting connections, and wait for the ones that are open."""
        self._gateway.stop()
        await super().shutdown(sockets)
