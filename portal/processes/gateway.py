"""The process of the gateway, which MCP clients connect to."""

import signal
import socket
import sys
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from portal import telemetry
from portal.app import create_gateway
from portal.gateway.app import Gateway
from portal.settings import Settings
from portal.store.database import Database

_KEEP_ALIVE = 15  # seconds; longer than proxies keep idle connections
_GRACE = 20  # seconds; the gateway ends calls before
MOST_HEAD_BYTES = 64 * 1024


def serve(settings: Settings, database: Database, *, host: str, port: int) -> None:
    """Serve until stopped; running calls can finish."""
    for name in (signal.SIGTERM, signal.SIGINT):  # uvicorn sends the signal again when it is done
        signal.signal(name, lambda *_: sys.exit(0))
    telemetry.begin(settings)
    gateway = create_gateway(settings, database)
    Server(config_of(gateway, host=host, port=port), gateway).run()


def config_of(application: Any, **more: Any) -> uvicorn.Config:
    """Return the configuration of a server for `application`, with `more` options."""
    return uvicorn.Config(
        application,
        http=LimitedHeads,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
        **more,
    )


class Server(uvicorn.Server):
    """The server, which tells the gateway when it stops."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting connections, and wait for the ones that are open."""
        self._gateway.stop()
        await super().shutdown(sockets)


class LimitedHeads(HttpToolsProtocol):
    """uvicorn's protocol with a limit for the request line and headers, 64 KiB together."""

    _is_in_head = True
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Read a part of a request, or refuse it and close the connection."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > MOST_HEAD_BYTES:
            self._refuse()

    def on_message_begin(self) -> None:
        """Begin to count."""
        self._is_in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop counting."""
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Count from here: the next request may follow in the same part."""
        self._is_in_head = True
        self._head_bytes = 0
        super().on_message_complete()

    def _refuse(self) -> None:
        if self.transport.is_closing():
            return
        head = (
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
            b"content-length: 0\r\n\r\n"
        )
        self.transport.write(head)
        self.transport.close()
