"""One address for MCP clients, pages and the API, as embedded mode has it."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from portal.domain.gateway_addresses import read_path
from portal.gateway.pages import Pages

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Front:
    """An ASGI application: requests of MCP clients go to the gateway, all others to the pages."""

    def __init__(self, gateway: Application, pages: Pages) -> None:
        self._gateway, self._pages = gateway, pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._gateway(scope, receive, send)
            await self._pages.aclose()
        elif scope["type"] == "http":
            is_for_clients = read_path(path_of(scope)) is not None
            await (self._gateway if is_for_clients else self._pages)(scope, receive, send)


def path_of(scope: Scope) -> str:
    """Return the path of a request as it was sent, without decoding and without the query."""
    raw: bytes = scope["raw_path"]
    return raw.partition(b"?")[0].decode("latin-1")
