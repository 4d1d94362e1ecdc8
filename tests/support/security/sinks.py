"""Sinks: small servers on loopback that write down all that reaches them, and answer as an
authorization server."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Sink:
    """One origin, and what it heard.

    `issuer` is the authorization server that it names; blank for itself. `redirects` are the
    beginnings of paths that are answered with a status and a location; `endpoint` is where an SSE
    stream at `/sse` sends messages. `metadata` are members of its metadata that are not as usual,
    and `says` are whole answers by path.
    """

    origin: str
    issuer: str = ""
    redirects: dict[str, tuple[int, str]] = field(default_factory=dict)
    endpoint: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    says: dict[str, object] = field(default_factory=dict)
    heard: list[bytes] = field(default_factory=list)

    def holds(self, mark: str) -> bool:
        """Whether a text reached it."""
        return any(mark.encode() in found for found in self.heard)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        sink = self.server.sink  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        sink.heard.append(f"{self.path} {dict(self.headers)} ".encode() + body)
        if sink.endpoint and self.path.startswith("/sse"):
            self._say(
                200, f"event: endpoint\ndata: {sink.endpoint}\n\n".encode(), "text/event-stream"
            )
            return
        redirect = next(
            (to for path, to in sink.redirects.items() if self.path.startswith(path)), None
        )
        status, said = _answer(sink, self.path) if redirect is None else (redirect[0], None)
        self._say(
            status, json.dumps(said).encode(), "application/json", redirect[1] if redirect else ""
        )

    def _say(self, status: int, data: bytes, kind: str, location: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_DELETE = do_POST

    def log_message(self, format: str, *args: object) -> None:
        """What was heard is kept apart."""


def _answer(sink: Sink, path: str) -> tuple[int, object]:
    origin = sink.origin
    if path in sink.says:
        return 200, sink.says[path]
    if path.startswith("/.well-known/oauth-protected-resource"):
        resource = path.removeprefix("/.well-known/oauth-protected-resource")
        return 200, {
            "resource": f"{origin}{resource}",
            "authorization_servers": [sink.issuer or origin],
        }
    if path.startswith("/.well-known/oauth-authorization-server"):
        return 200, {
            "issuer": origin,
            "authorization_endpoint": f"{origin}/authorize",
            "token_endpoint": f"{origin}/token",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            **sink.metadata,
        }
    if path.startswith(("/token", "/exchange")):
        return 200, {"access_token": "TOKEN", "token_type": "Bearer", "issued_token_type": "x"}
    return 404, {"error": "not_found"}


@contextmanager
def sink() -> Iterator[Sink]:
    """Serve on a loopback port of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    found = Sink(f"http://127.0.0.1:{server.server_port}")
    server.sink = found  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
