"""The front of embedded mode: one port for MCP clients, pages and the API.

It is a process of its own: a stream takes no thread of the web processes, and a slow page does not
hold up a stream. It serves MCP clients itself and forwards everything else to the web processes
over a Unix socket.
"""

import asyncio
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import uvicorn

from portal import telemetry
from portal.app import create_gateway, open_database
from portal.gateway.front import Front
from portal.gateway.pages import PEER, Pages
from portal.processes import gateway
from portal.processes.beside import Beside
from portal.settings import Settings

NAME = "portal-front"
"""The name of the process, for operators."""

_BACKLOG = 2048
_HANDED_OVER = "FRONT_HANDED_OVER"
"""The variable with the listening socket's descriptor and the folder of the Unix socket."""


class FrontBeside(Beside):
    """The front of this process, which listens at once."""

    def __init__(self, settings: Settings, host: str, port: int) -> None:
        """Listen on `port`, or take over from the process that this one replaces (SIGUSR2).

        Raises `OSError` if the port is in use.
        """
        super().__init__(NAME, self._serve)
        self._settings = settings
        handed = os.environ.pop(_HANDED_OVER, None)
        if handed is None:
            self._listener = _listener(host, port)
            self._folder = Path(tempfile.mkdtemp(prefix="portal-"))
        else:
            descriptor, _, folder = handed.partition(" ")
            self._listener = socket.socket(fileno=int(descriptor))
            self._folder = Path(folder)

    @property
    def pages(self) -> Path:
        """Return the path of the Unix socket that the web processes listen on."""
        return self._folder / "pages"

    def hand_over(self, variables: dict[str, str]) -> None:
        """Add both sockets to the `variables` of a following `exec` of the portal."""
        self._listener.set_inheritable(True)
        variables[_HANDED_OVER] = f"{self._listener.fileno()} {self._folder}"

    def release(self) -> None:
        """Close the port that the other child processes have inherited and do not need."""
        self._listener.close()

    def end(self) -> None:
        """Stop to listen, and stop the process gracefully: running requests and calls can
        finish."""
        self._listener.close()
        super().end()

    def remove_socket(self) -> None:
        """Remove the Unix socket. Call this last, and not if another process has taken over."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _serve(self) -> None:
        parent = os.getppid()
        telemetry.begin(self._settings)
        ours = create_gateway(self._settings, open_database(self._settings))
        config = gateway.config_of(Front(ours, Pages(self.pages)))
        server = gateway.Server(config, ours)
        asyncio.run(_serve(server, self._listener, parent))


async def _serve(server: uvicorn.Server, listener: socket.socket, parent: int) -> None:
    """Serve until stopped or until `parent` is no longer the parent process."""

    async def watch() -> None:
        while os.getppid() == parent:
            await asyncio.sleep(1)
        server.should_exit = True

    watching = asyncio.ensure_future(watch())
    await server.serve(sockets=[listener])
    watching.cancel()


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    # Connections inherit this. Otherwise the end of a response waits for the client, about 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class PeerOfFront:
    """WSGI middleware that takes the client's address from the front."""

    def __init__(self, application: Any) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        environ["REMOTE_ADDR"] = environ.pop(_PEER, "")
        environ.pop("REMOTE_PORT", None)
        return self._application(environ, start_response)


_PEER = "HTTP_" + PEER.upper().replace("-", "_")
