"""A portal on a port of its own as MCP clients meet it, with a small gateway that asks them to sign
in there first."""

import contextlib
import random
import threading
from collections.abc import Iterator
from typing import Any, cast

import httpx2
from flask import Flask, Response, request

from portal.app import create_app, open_database
from tests.conftest import make_settings
from tests.support.oauth.serving import serving
from tests.support.peers import TRUST

_PASSED_ON = (
    "authorization",
    "content-type",
    "accept",
    "mcp-protocol-version",
    "mcp-session-id",
    "mcp-method",
    "mcp-name",
)


@contextlib.contextmanager
def portal_on_a_port(database_url: str, *, instances: int = 1, **overrides: Any) -> Iterator[str]:
    """Serve a portal on this database; yield its public URL. Of several instances any one answers
    each request."""
    apps: list[Flask] = []

    def late(environ: Any, start: Any) -> Any:
        return random.choice(apps)(environ, start)  # made later: a portal has to know its address

    with serving(cast(Flask, late), threading.Event()) as url:
        settings = make_settings(database_url, **{"public_url": url, **overrides})
        databases = [open_database(settings) for _ in range(instances)]
        apps += [create_app(settings, database=database) for database in databases]
        try:
            yield url
        finally:
            for database in databases:
                database.engine.dispose()


@contextlib.contextmanager
def gateway_to(upstream: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Serve `/{prefix}/mcp` as a gateway does: without a token it names the portal's metadata, with
    one it passes the call on to `upstream`. Yields its address and a dict whose `portal` has to be
    set to the portal's URL."""
    app = Flask(__name__, static_folder=None)
    where = {"portal": ""}

    @app.route("/<prefix>/mcp", methods=["GET", "POST", "DELETE"])
    def mcp(prefix: str) -> Response:
        if "Authorization" not in request.headers:
            metadata = f"{where['portal']}/.well-known/oauth-protected-resource/{prefix}/mcp"
            return Response(
                status=401, headers={"WWW-Authenticate": f'Bearer resource_metadata="{metadata}"'}
            )
        headers = {
            name: value for name, value in request.headers.items() if name.lower() in _PASSED_ON
        }
        sent = request.get_data()
        answer = httpx2.request(
            request.method, upstream, headers=headers, content=sent, timeout=20, verify=TRUST
        )
        kept = {
            n: v
            for n, v in answer.headers.items()
            if n in ("content-type", "mcp-session-id", "www-authenticate")
        }
        return Response(answer.content, answer.status_code, kept)

    with serving(app, threading.Event()) as url:
        yield url, where
