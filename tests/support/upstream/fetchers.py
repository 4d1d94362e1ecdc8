"""Every way on which the portal fetches something, each as a function of the server that
answers."""

import json
import socket
from collections.abc import Callable

import pytest

from portal.domain.errors import UpstreamFailure
from portal.domain.oauth import AuthorizationServer, Client
from portal.domain.sign_in import SignInProvider
from portal.domain.upstream import OutboundPolicy, Target
from portal.upstream.fetching import fetch
from portal.upstream.mcp_client import UpstreamClient
from portal.upstream.oauth_client import OAuthClient
from portal.upstream.openid import OpenIdClient
from tests.support.described import document
from tests.support.upstream.raw import Handler, RawServer, Seen, raw_server, reply, speaking

HERE = OutboundPolicy(("127.0.0.0/8", "::1/128"))
TIMEOUT = 20.0
Fetcher = Callable[[Handler, float], str]
_mcp = UpstreamClient(HERE)
_oauth = OAuthClient(HERE)


def _failure(work: Callable[[], object]) -> str:
    with pytest.raises(UpstreamFailure) as caught:
        work()
    return caught.value.message


def mcp(hostile: Handler, timeout: float) -> str:
    """The handshake over streamable HTTP."""
    with raw_server(hostile) as server:
        return _mcp.probe(Target("http", server.url(), timeout=timeout)).message


def mcp_call(hostile: Handler, timeout: float) -> str:
    """A tool call, after a sound handshake."""

    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        sound = request.json["method"] == "server/discover"
        (speaking(lambda method, params: {}) if sound else hostile)(connection, request, server)

    with raw_server(handle) as server:
        return _failure(
            lambda: _mcp.call_tool(Target("http", server.url(), timeout=timeout), "x", {})
        )


def mcp_sse(hostile: Handler, timeout: float) -> str:
    """The stream of HTTP+SSE."""
    with raw_server(hostile) as server:
        return _mcp.probe(Target("sse", server.url("/sse"), timeout=timeout)).message


def openapi(hostile: Handler, timeout: float) -> str:
    """An OpenAPI document that is only looked at."""
    with raw_server(hostile) as server:
        return _mcp.probe(Target("http", spec_url=server.url("/spec"), timeout=timeout)).message


def openapi_tools(hostile: Handler, timeout: float) -> str:
    """An OpenAPI document that is read."""
    with raw_server(hostile) as server:
        return _failure(
            lambda: _mcp.list_tools(Target("http", spec_url=server.url("/spec"), timeout=timeout))
        )


def openapi_call(hostile: Handler, timeout: float) -> str:
    """A call to a service that a sound document describes."""

    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        if request.path == "/spec":
            connection.sendall(reply(200, json.dumps(document()).encode(), "application/json"))
        else:
            hostile(connection, request, server)

    with raw_server(handle) as server:
        target = Target("http", spec_url=server.url("/spec"), timeout=timeout)
        return _failure(lambda: _mcp.call_tool(target, "getPet", {"id": "7"}))


def token(hostile: Handler, timeout: float) -> str:
    """A token endpoint, of servers and of sign-in providers."""
    with raw_server(hostile) as server:
        there = AuthorizationServer(server.url(""), token_endpoint=server.url("/token"))
        form = {"grant_type": "refresh_token"}
        return _failure(lambda: _oauth.ask_for_token(there, Client("id"), form, timeout=timeout))


def registration(hostile: Handler, timeout: float) -> str:
    """A registration endpoint."""
    with raw_server(hostile) as server:
        there = AuthorizationServer(server.url(""), registration_endpoint=server.url("/register"))
        return _failure(lambda: _oauth.register(there, {"client_name": "MCP Portal"}))


def revocation(hostile: Handler, timeout: float) -> str:
    """A revocation endpoint."""
    with raw_server(hostile) as server:
        there = AuthorizationServer(server.url(""), revocation_endpoint=server.url("/revoke"))
        return _failure(lambda: _oauth.revoke(there, Client("id"), "t", hint="access_token"))


def metadata(hostile: Handler, timeout: float) -> str:
    """An authorization server's metadata."""
    with raw_server(hostile) as server:
        issuer = server.url("")
        with pytest.raises(UpstreamFailure):
            _oauth.read_issuer(issuer)
        return " ".join(step.said for step in _oauth.walk(issuer).steps)


def resource(hostile: Handler, timeout: float) -> str:
    """A resource's metadata, after a sound challenge."""

    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        if request.method == "POST":
            connection.sendall(reply(401, WWW_Authenticate="Bearer"))
        else:
            hostile(connection, request, server)

    with raw_server(handle) as server:
        return " ".join(step.said for step in _oauth.walk(server.url()).steps)


def own_documents(hostile: Handler, timeout: float) -> str:
    """The portal's own documents, as the OAuth check reads them."""
    with raw_server(hostile) as server:
        return _oauth.read_own({"One": server.url("/one")})[0][0].said


def provider_metadata(hostile: Handler, timeout: float) -> str:
    """A sign-in provider's metadata."""
    with raw_server(hostile) as server:
        provider = SignInProvider("corp", "Corp", server.url(""), Client("id"))
        return _failure(lambda: OpenIdClient().meet(provider))


def provider_keys(hostile: Handler, timeout: float) -> str:
    """A sign-in provider's keys (JWKS), after sound metadata."""

    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        if request.path != "/keys":
            found = {"issuer": server.url("")} | {
                name: server.url("/keys")
                for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")
            }
            connection.sendall(reply(200, json.dumps(found).encode(), "application/json"))
        else:
            hostile(connection, request, server)

    return provider_metadata(handle, timeout)


def public_url(hostile: Handler, timeout: float) -> str:
    """The portal's own address, as `portal doctor` looks at it."""
    with raw_server(hostile) as server:
        return _failure(
            lambda: fetch(
                HERE,
                server.url("/healthz"),
                timeout=timeout,
                max_bytes=65536,
                follow_redirects=False,
            )
        )


FETCHERS: tuple[Fetcher, ...] = (
    mcp,
    mcp_call,
    mcp_sse,
    openapi,
    openapi_tools,
    openapi_call,
    token,
    registration,
    revocation,
    resource,
    own_documents,
    provider_metadata,
    provider_keys,
    public_url,
)
