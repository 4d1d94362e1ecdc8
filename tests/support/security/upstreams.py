"""An upstream that gives back all it was sent, in every place where an error may be read."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Parrot(BaseHTTPRequestHandler):
    """The first part of the path says how to fail: `/401/…`, `/500/…`, `/302/…`, `/html/…`,
    `/rpc/…`, `/cut/…`."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        asked = self.rfile.read(length)
        heard = f"{self.path} {dict(self.headers)} ".encode() + asked
        how = self.path.split("/")[1]
        said = " ".join(heard.decode("latin-1").split())
        if how == "cut":
            self.wfile.write(b"HTTP/1.1 2")
            self.close_connection = True
        elif how == "rpc":
            number = json.loads(asked or b"{}").get("id")
            body = {
                "jsonrpc": "2.0",
                "id": number,
                "error": {"code": -32000, "message": said, "data": said},
            }
            self._answer(200, json.dumps(body).encode(), "application/json")
        elif how.isdigit():
            self._answer(int(how), heard, "text/plain", said)
        else:
            self._answer(200, b"<h1>" + heard + b"</h1>", "text/html")

    do_GET = do_DELETE = do_POST

    def _answer(self, status: int, body: bytes, kind: str, said: str = "") -> None:
        self.send_response(status, said[:500] or None)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 401:
            self.send_header("WWW-Authenticate", f'Bearer realm="{said[:500]}"'.replace("'", ""))
        if 300 <= status < 400:
            self.send_header("Location", f"{self.server.elsewhere}{self.path}")  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """It is the portal's log that is looked through."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A portal that has heard enough hangs up."""


@contextmanager
def parrot(elsewhere: str = "http://elsewhere.invalid") -> Iterator[str]:
    """Serve on loopback: its origin. Its redirects lead to the origin `elsewhere`."""
    server = _Server(("127.0.0.1", 0), _Parrot)
    server.elsewhere = elsewhere  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
