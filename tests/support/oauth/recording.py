"""An authorization server with an MCP endpoint that checks nothing, records everything and answers
as it is told."""

import contextlib
import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from flask import Flask, Response, jsonify, request

from tests.support.oauth.serving import Answer, Recorded, serving

PATHS = {
    "authorize": "/authorize",
    "token": "/token",
    "register": "/register",
    "revoke": "/revoke",
    "introspect": "/introspect",
    "userinfo": "/userinfo",
    "jwks": "/jwks",
    "metadata": "/.well-known/oauth-authorization-server",
    "openid_metadata": "/.well-known/openid-configuration",
    "resource_metadata": "/.well-known/oauth-protected-resource/mcp",
    "mcp": "/mcp",
}
KINDS = {path: kind for kind, path in PATHS.items()}
WHOAMI = {
    "name": "whoami",
    "description": "Say whose token this is",
    "inputSchema": {"type": "object"},
}


@dataclass
class RecordingServer:
    """What a test sees of it: requests to read, and attributes to set for what comes next."""

    issuer: str = ""
    requests: list[Recorded] = field(default_factory=list)
    metadata: dict[str, Any] | None = None
    openid_metadata: dict[str, Any] | None = None
    resource_metadata: dict[str, Any] | None = None
    challenge: str | None = None
    response_iss: str | None = None
    authorize_error: str | None = None
    registration_secret: bool = True
    token_fields: dict[str, Any] = field(default_factory=dict)
    valid_tokens: set[str] = field(default_factory=set)
    over: threading.Event = field(default_factory=threading.Event)
    _answers: dict[str, list[tuple[Answer, int | None]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """The MCP endpoint."""
        return self.endpoint("mcp")

    def endpoint(self, kind: str) -> str:
        """Return the address of the endpoint of that kind."""
        return self.issuer + PATHS[kind]

    def seen(self, kind: str) -> list[Recorded]:
        """Return the requests of that kind, oldest first."""
        with self._lock:
            return [recorded for recorded in self.requests if recorded.kind == kind]

    def last(self, kind: str) -> Recorded:
        """Return the newest request of that kind; AssertionError where there was none."""
        seen = self.seen(kind)
        assert seen, (
            f"nobody asked for {kind}; only {[recorded.path for recorded in self.requests]}"
        )
        return seen[-1]

    def answer(self, kind: str, answer: Answer | None, times: int | None = None) -> None:
        """Answer so from now on, or only `times` times; None brings the server's own answer
        back."""
        with self._lock:
            self._answers[kind] = [] if answer is None else [(answer, times)]

    def begin(self, issuer: str) -> None:
        """Take the address on which it is served, and describe itself honestly."""
        self.issuer = issuer
        self.metadata = {
            "issuer": issuer,
            "token_endpoint": self.endpoint("token"),
            "authorization_endpoint": self.endpoint("authorize"),
            "registration_endpoint": self.endpoint("register"),
            "revocation_endpoint": self.endpoint("revoke"),
            "introspection_endpoint": self.endpoint("introspect"),
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": [
                "client_secret_basic",
                "client_secret_post",
                "none",
            ],
        }
        self.resource_metadata = {"resource": self.url, "authorization_servers": [issuer]}
        self.challenge = f'Bearer resource_metadata="{self.endpoint("resource_metadata")}"'

    def record(self, recorded: Recorded) -> Answer | None:
        """Note a request; return what the test wants answered, if anything."""
        with self._lock:
            self.requests.append(recorded)
            if not self._answers[recorded.kind]:
                return None
            answer, times = self._answers[recorded.kind].pop()
            if times is None or times > 1:
                self._answers[recorded.kind].append((answer, None if times is None else times - 1))
            return answer

    def tokens(self, scope: str | None) -> dict[str, Any]:
        """Make the next pair of tokens, as the token endpoint answers it."""
        with self._lock:
            number = next(self._numbers)
            fields = {
                "access_token": f"at-{number}",
                "token_type": "Bearer",
                "expires_in": 3600,
                "refresh_token": f"rt-{number}",
                "scope": scope,
                **self.token_fields,
            }
            self.valid_tokens.add(str(fields["access_token"]))
        return {name: value for name, value in fields.items() if value is not None}

    def client(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Make the next client, as the registration endpoint answers it."""
        with self._lock:
            number = next(self._numbers)
        secret = {"client_secret": f"registered-secret-{number}", "client_secret_expires_at": 0}
        return {
            **asked,
            "client_id": f"registered-{number}",
            **(secret if self.registration_secret else {}),
        }


@contextlib.contextmanager
def recording_server() -> Iterator[RecordingServer]:
    """Run one on a free loopback port for the block."""
    server = RecordingServer()
    with serving(_app(server), server.over) as issuer:
        server.begin(issuer)
        yield server


def _app(server: RecordingServer) -> Flask:
    app = Flask(__name__, static_folder=None)
    own: dict[str, Callable[[], Response]] = {
        "authorize": lambda: _authorize(server),
        "token": lambda: jsonify(server.tokens(request.form.get("scope"))),
        "register": lambda: _created(server.client(request.get_json())),
        "revoke": lambda: _revoke(server),
        "introspect": lambda: jsonify(active=request.form.get("token") in server.valid_tokens),
        "userinfo": lambda: jsonify(sub="alice", email="alice@example.com", name="Alice"),
        "jwks": lambda: jsonify(keys=[]),
        "metadata": lambda: _document(server.metadata),
        "openid_metadata": lambda: _document(server.openid_metadata),
        "resource_metadata": lambda: _document(server.resource_metadata),
        "mcp": lambda: _mcp(server),
    }

    @app.route("/", defaults={"path": ""}, methods=["GET", "POST", "DELETE"])
    @app.route("/<path:path>", methods=["GET", "POST", "DELETE"])
    def anything(path: str) -> Response:
        kind = KINDS.get(f"/{path}", "other")
        told = server.record(Recorded.of(kind, request))
        if told is not None:
            return told.response(server.over)
        return own[kind]() if kind in own else Response("nothing here", 404)

    return app


def _document(document: dict[str, Any] | None) -> Response:
    return Response("none here", 404) if document is None else jsonify(document)


def _created(client: dict[str, Any]) -> Response:
    answer = jsonify(client)
    answer.status_code = 201
    return answer


def _authorize(server: RecordingServer) -> Response:
    answer = (
        {"error": server.authorize_error}
        if server.authorize_error
        else {"code": f"code-{len(server.requests)}"}
    )
    answer |= {"state": request.args["state"]} if "state" in request.args else {}
    answer |= {"iss": server.response_iss} if server.response_iss else {}
    target = request.args["redirect_uri"]
    joint = "&" if "?" in target else "?"
    return Response(status=302, headers={"Location": f"{target}{joint}{urlencode(answer)}"})


def _revoke(server: RecordingServer) -> Response:
    server.valid_tokens.discard(request.form.get("token", ""))
    return Response(status=200)


def _mcp(server: RecordingServer) -> Response:
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if token not in server.valid_tokens:
        return Response(
            status=401, headers={"WWW-Authenticate": server.challenge} if server.challenge else {}
        )
    asked = request.get_json(silent=True)
    if request.method != "POST" or not isinstance(asked, dict):
        return Response(status=405)
    if "id" not in asked:
        return Response(status=202)
    results: dict[str, Any] = {
        "initialize": {
            "protocolVersion": asked.get("params", {}).get("protocolVersion"),
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "recording", "version": "1"},
        },
        "ping": {},
        "tools/list": {"tools": [WHOAMI]},
        "tools/call": {"content": [{"type": "text", "text": f"the bearer of {token}"}]},
    }
    answer: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
    if asked.get("method") not in results:
        return jsonify(answer | {"error": {"code": -32601, "message": "Method not found"}})
    return jsonify(answer | {"result": results[asked["method"]]})
