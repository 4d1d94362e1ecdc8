"""Servers made of bare sockets, for all that a well-behaved one never does."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

# Seconds. Work that does not wait for who hangs is done long before, also on a slow machine; `hang`
# lasts far longer.
PROMPT = 25.0


@dataclass
class Seen:
    """One request as it came over the wire."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class RawServer:
    """What a test may know of a running server; `stop` is set when the test is over."""

    port: int
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str = "/mcp", scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def methods(self) -> list[str]:
        """The JSON-RPC methods that were asked, in order."""
        return [request.json["method"] for request in self.seen if request.method == "POST"]


Handler = Callable[[socket.socket, Seen, RawServer], None]


def _read(stream: Any) -> Seen | None:
    first = stream.readline().decode("latin-1").split()
    if len(first) < 2:
        return None
    headers: dict[str, str] = {}
    while line := stream.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Seen(first[0], first[1], headers, stream.read(int(headers.get("content-length", 0))))


@contextlib.contextmanager
def raw_server(
    handler: Handler, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[RawServer]:
    """Serve on loopback, a thread for each connection; `handler` writes the answer to each request
    that it reads."""
    listener = socket.create_server((host, 0))
    server = RawServer(listener.getsockname()[1])
    opened: list[socket.socket] = []

    def talk(connection: socket.socket) -> None:
        # A peer that gives up is what half of these tests are about.
        with contextlib.suppress(OSError, ValueError), connection:
            if tls:
                connection = tls.wrap_socket(connection, server_side=True)
            stream = connection.makefile("rb")
            while not server.stop.is_set() and (request := _read(stream)):
                server.seen.append(request)
                handler(connection, request, server)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                server.connections += 1
                opened.append(connection)
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        server.stop.set()
        for one in (listener, *opened):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def reply(status: int, body: bytes = b"", content_type: str = "text/html", **headers: str) -> bytes:
    """The bytes of a whole response; `headers` with underscores for hyphens."""
    lines = [
        f"HTTP/1.1 {status} Whatever",
        f"Content-Length: {len(body)}",
        f"Content-Type: {content_type}",
    ]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def always(
    status: int, body: bytes = b"", content_type: str = "text/html", **headers: str
) -> Handler:
    """A handler with one answer to everything."""
    answer = reply(status, body, content_type, **headers)
    return lambda connection, request, server: connection.sendall(answer)


def hang(connection: socket.socket, request: Seen, server: RawServer) -> None:
    """Never answer."""
    server.stop.wait(60)


def speaking(answers: Callable[[str, dict[str, Any]], dict[str, Any]]) -> Handler:
    """A handler that speaks MCP 2026-07-28: `answers(method, params)` gives a result, or `{"error":
    ...}`."""

    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        message = request.json
        if message["method"] == "server/discover":
            outcome: dict[str, Any] = {"result": DISCOVERED}
        else:
            given = answers(message["method"], message.get("params", {}))
            outcome = given if "error" in given else {"result": given}
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], **outcome}).encode()
        connection.sendall(reply(200, body, "application/json"))

    return handle


def older(**special: Handler) -> Handler:
    """A handler that speaks MCP 2025-11-25 with a session, has no tools and no stream.

    `special` has other handlers for an HTTP method or a JSON-RPC method.
    """

    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        method = request.json["method"] if request.method == "POST" else request.method
        result: dict[str, Any] = {"tools": []}
        if method in special:
            special[method](connection, request, server)
        elif method in ("DELETE", "GET", "server/discover") or method.startswith("notifications/"):
            connection.sendall(
                reply({"DELETE": 200, "GET": 405, "server/discover": 400}.get(method, 202))
            )
        else:
            if method == "initialize":
                info = {"name": "old\0\x1b[31m", "version": "9" * 999}
                result = {
                    "protocolVersion": "2025-11-25",
                    "capabilities": {"tools": {}},
                    "serverInfo": info,
                }
            body = json.dumps(
                {"jsonrpc": "2.0", "id": request.json["id"], "result": result}
            ).encode()
            connection.sendall(reply(200, body, "application/json", Mcp_Session_Id="s-1"))

    return handle


DISCOVERED = {
    "resultType": "complete",
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}},
    "ttlMs": 0,
    "cacheScope": "private",
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "raw", "version": "0.1"}},
}


def tool_page(*names: str, cursor: str | None = None, **more: Any) -> dict[str, Any]:
    """The result of tools/list with tools of these names."""
    tools = [{"name": name, "inputSchema": {"type": "object"}, **more} for name in names]
    page = {"resultType": "complete", "tools": tools, "ttlMs": 0, "cacheScope": "private"}
    return page | ({"nextCursor": cursor} if cursor else {})
