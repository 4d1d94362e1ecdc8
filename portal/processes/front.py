"""The front of embedded mode: one port for MCP clients, pages and the API.

It is a process of its own: a stream takes no thread of the web processes, and a slow page does not
hold up a stream. It serves MCP clients itself and forwards everything else to the web processes
over a Unix socket.
"""

import asyncio
import gc
import logging
import os
import select
import shutil
import signal
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from gunicorn.arbiter import Arbiter

from portal import telemetry
from portal.app import create_gateway, open_database
from portal.gateway.front import Front
from portal.gateway.pages import PEER, Pages
from portal.processes import gateway
from portal.settings import Settings
from portal.telemetry import metrics

log = logging.getLogger("portal.front")
NAME = "portal-front"
"""The name of the process, for operators."""

_BACKLOG = 2048
_GRACE = 25  # seconds; the server itself waits for 20
_HANDED_OVER = "FRONT_HANDED_OVER"
"""The variable with the listening socket's descriptor and the folder of the Unix socket."""


class FrontBeside:
    """The front of this process: listens at once, and is restarted if it dies."""

    def __init__(self, settings: Settings, host: str, port: int) -> None:
        """Listen on `port`, or take over from the process that this one replaces (SIGUSR2).

        Raises `OSError` if the port is in use.
        """
        self._settings = settings
        handed = os.environ.pop(_HANDED_OVER, None)
        if handed is None:
            self._listener = _listener(host, port)
            self._folder = Path(tempfile.mkdtemp(prefix="portal-"))
        else:
            descriptor, _, folder = handed.partition(" ")
            self._listener = socket.socket(fileno=int(descriptor))
            self._folder = Path(folder)
        self._pid = -1
        self._handle = -1

    @property
    def pages(self) -> Path:
        """Return the path of the Unix socket that the web processes listen on."""
        return self._folder / "pages"

    def look_after(self) -> None:
        """Start the front, unless it is running."""
        if self._handle >= 0:
            if not select.select([self._handle], [], [], 0)[0]:
                return
            log.warning("the front ended; starting it again")
            self._forget()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            self._run(parent)
        self._handle = os.pidfd_open(self._pid)

    def hand_over(self, variables: dict[str, str]) -> None:
        """Add both sockets to the `variables` of a following `exec` of the portal."""
        self._listener.set_inheritable(True)
        variables[_HANDED_OVER] = f"{self._listener.fileno()} {self._folder}"

    def release(self) -> None:
        """Close what the web processes have inherited and do not need."""
        self._listener.close()

    def end(self) -> None:
        """Stop the front gracefully: running requests and calls can finish."""
        self._listener.close()
        if self._handle >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGTERM)
                if not select.select([self._handle], [], [], _GRACE)[0]:
                    signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            self._forget()

    def remove_socket(self) -> None:
        """Remove the Unix socket. Call this last, and not if another process has taken over."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _forget(self) -> None:
        with suppress(ChildProcessError):  # gunicorn's master may have been first
            os.waitpid(self._pid, 0)
        metrics.forget_process(self._pid)
        os.close(self._handle)
        self._pid = self._handle = -1

    def _run(self, parent: int) -> None:
        """Serve in this child process until stopped. Does not return."""
        code = 1
        try:
            for name in Arbiter.SIGNALS:
                signal.signal(name, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            with suppress(OSError):  # Linux: the name that `ps` shows
                Path("/proc/self/comm").write_text(NAME)
            gc.freeze()
            telemetry.begin(self._settings)
            application = Front(
                create_gateway(self._settings, open_database(self._settings)), Pages(self.pages)
            )
            server = uvicorn.Server(gateway.config_of(application))
            asyncio.run(_serve(server, self._listener, parent))
            code = 0
        except BaseException:
            log.exception("the front ended")
        finally:
            os._exit(code)


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
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


class PeerOfFront:
    """WSGI middleware that takes the client's address from the front."""

    def __init__(self, application: Any) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        environ["REMOTE_ADDR"] = environ.pop(_PEER, "")
        environ.pop("REMOTE_PORT", None)
        return self._application(environ, start_response)


_PEER = "HTTP_" + PEER.upper().replace("-", "_")
