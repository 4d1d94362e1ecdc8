"""Two portal processes behind one address, as a load balancer without any memory sees them."""

import base64
import contextlib
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
from flask import Flask, Response, request

from tests.oauth.serving import serving
from tests.peers import bare_environment, free_port, start_process

_OF_ONE_HOP = {"connection", "content-length", "transfer-encoding", "keep-alive", "content-encoding", "host"}


@contextlib.contextmanager
def two_processes(database_url: str, **settings: str) -> Iterator[str]:
    """Two `portal serve` on one database; the address at which each request is answered by one of them at random.

    `settings` are further `PORTAL_…` variables; `{public}` in them stands for that address.
    """
    ports: list[int] = []
    balancer = Flask(__name__, static_folder=None)

    @balancer.route("/", defaults={"path": ""}, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    @balancer.route("/<path:path>", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def passed_on(path: str) -> Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OF_ONE_HOP}
        target = f"http://127.0.0.1:{random.choice(ports)}{request.full_path.rstrip('?')}"
        host = {"Host": request.host}
        answer = httpx2.request(
            request.method, target, headers={**headers, **host}, content=request.get_data(), timeout=40
        )
        kept = [(name, value) for name, value in answer.headers.multi_items() if name.lower() not in _OF_ONE_HOP]
        return Response(answer.content, answer.status_code, kept)

    with serving(balancer, threading.Event()) as public, ExitStack() as running:
        environment = bare_environment(
            PORTAL_DATABASE_URL=database_url,
            PORTAL_PUBLIC_URL=public,
            PORTAL_ENCRYPTION_KEYS="j1:" + base64.b64encode(b"j" * 32).decode(),
            PORTAL_SECRET_KEY="processes" * 8,
            PORTAL_ALLOW_PRIVATE_UPSTREAMS="true",
            **{name: value.replace("{public}", public) for name, value in settings.items()},
        )
        for _ in range(2):
            port = free_port()
            argv = [sys.executable, "-m", "portal.cli", "serve", "--port", str(port)]
            running.enter_context(start_process(argv, environment, port, seconds=60))
            ports.append(port)
        yield public
