"""Small web servers in a thread of the test process, which remember each request."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Request, Response
from werkzeug.serving import WSGIRequestHandler, make_server


@dataclass(frozen=True)
class Recorded:
    """One request as it arrived. `headers` have lower-case names; of a repeated parameter the last
    one is kept."""

    kind: str
    method: str
    path: str
    query: dict[str, str]
    form: dict[str, str]
    json: Any
    headers: dict[str, str]

    @classmethod
    def of(cls, kind: str, request: Request) -> "Recorded":
        """Return what `request` holds, filed under `kind`."""
        return cls(
            kind,
            request.method,
            request.path,
            {name: values[-1] for name, values in request.args.lists()},
            {name: values[-1] for name, values in request.form.lists()},
            request.get_json(silent=True),
            {name.lower(): value for name, value in request.headers.items()},
        )


@dataclass
class Answer:
    """What a server is told to answer in place of its own answer: `json`, or else the bytes `body`.

    It waits `delay_seconds` first, or until the test is over.
    """

    status: int = 200
    json: Any = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0

    @classmethod
    def html(cls, status: int = 200) -> "Answer":
        """A page for people where JSON belongs, as proxies and sign-in walls send it."""
        return cls(
            status,
            body=b"<!doctype html><h1>Please sign in</h1>",
            headers={"Content-Type": "text/html"},
        )

    @classmethod
    def garbage(cls) -> "Answer":
        """Bytes that call themselves JSON and are none."""
        return cls(body=b'\xff\xfe{"access_token": ', headers={"Content-Type": "application/json"})

    @classmethod
    def oversized(cls, megabytes: int = 20) -> "Answer":
        """Well-formed JSON that is far too long."""
        return cls(json={"access_token": "a" * (megabytes << 20), "token_type": "Bearer"})

    @classmethod
    def redirect(cls, url: str, status: int = 302) -> "Answer":
        """A redirect to `url`."""
        return cls(status, headers={"Location": url})

    def response(self, over: threading.Event) -> Response:
        """Return it as Flask's response, after the delay; `over` cuts that short."""
        over.wait(self.delay_seconds)
        body = self.body if self.json is None else json.dumps(self.json).encode()
        headers = {"Content-Type": "application/json", **self.headers}
        return Response(body, self.status, headers)


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing: the requests are in the test's list."""


class _Over(Exception):
    """Ends the loop of a server."""


@contextlib.contextmanager
def serving(app: Flask, over: threading.Event) -> Iterator[str]:
    """Serve `app` on a free loopback port, a thread a request; yield its address; set `over` and
    end it afterwards."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    ending = threading.Event()

    def end_when_told() -> None:
        if ending.is_set():
            raise _Over

    def serve() -> None:
        with contextlib.suppress(_Over):
            server.serve_forever()

    server.service_actions = end_when_told  # type: ignore[method-assign]
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        over.set()
        ending.set()
        # The loop looks after each connection: with this one at once, and not when it polls next.
        with contextlib.suppress(ConnectionRefusedError):  # it has just polled
            socket.create_connection(("127.0.0.1", server.port)).close()
        thread.join()
        server.server_close()
