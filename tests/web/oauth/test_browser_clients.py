"""MCP clients that run in a browser, as pages of another origin, read metadata and get tokens."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Client, Portal

APP = "https://app.example.com"
DOCUMENTS = (
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-protected-resource/mcp",
    "/.well-known/oauth-protected-resource/notes/mcp",
    "/.well-known/oauth-protected-resource/mcp/nobody-knows",
    "/.well-known/oauth-protected-resource/toolset/any/mcp",
    "/.well-known/oauth-authorization-server",
)
ENDS = ("/oauth/token", "/oauth/register", "/oauth/revoke", "/notes/token", "/notes/register")
As = Callable[[str | None], Client]


@pytest.fixture
def opened(portal_with: Callable[..., Portal]) -> Client:
    """A stranger at a portal whose gateway one origin may use."""
    return Client(portal_with(gateway_origins=(APP,)).app.test_client(), {})


def ask(client: Client, method: str, path: str, origin: str, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.ask(method, path, headers={"Origin": origin, **named})


def preflight(client: Client, method: str, path: str, origin: str) -> Any:
    return ask(
        client,
        "OPTIONS",
        path,
        origin,
        Access_Control_Request_Method=method,
        Access_Control_Request_Headers="content-type, mcp-protocol-version, x-other",
    )


@pytest.mark.parametrize("path", DOCUMENTS)
@pytest.mark.parametrize("origin", [APP, "https://elsewhere.example", "null"])
def test_every_origin_may_read_metadata(client: As, path: str, origin: str) -> None:
    answer = ask(client(None), "GET", path, origin)
    assert answer.status_code == 200
    asked = preflight(client(None), "GET", path, origin)
    assert asked.status_code == 200
    for found in (answer, asked):
        assert found.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in found.headers
    assert asked.headers["Access-Control-Allow-Methods"] == "GET"
    assert asked.headers["Access-Control-Allow-Headers"] == "content-type, mcp-protocol-version"


@pytest.mark.parametrize("path", ENDS)
def test_a_listed_origin_may_get_tokens(opened: Client, path: str) -> None:
    asked = preflight(opened, "POST", path, APP)
    assert asked.status_code == 200
    assert asked.headers["Access-Control-Allow-Methods"] == "POST"
    assert asked.headers["Access-Control-Allow-Headers"] == "content-type, mcp-protocol-version"
    answer = ask(opened, "POST", path, APP)
    assert answer.status_code >= 400, "an error is for the script to read, too"
    for found in (answer, asked):
        assert found.headers["Access-Control-Allow-Origin"] == APP
        assert "Origin" in found.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in found.headers


@pytest.mark.parametrize("path", [*ENDS, "/v1/me", "/login", "/oauth/authorize", "/v1/keys"])
@pytest.mark.parametrize("method", ["POST", "OPTIONS", "GET"])
@pytest.mark.parametrize(
    ("origin", "is_set"),
    [("https://elsewhere.example", True), ("null", True), (APP, False)],
)
def test_nobody_else_may(
    opened: Client, client: As, path: str, method: str, origin: str, is_set: bool
) -> None:
    answer = ask(
        opened if is_set else client(None),
        method,
        path,
        origin,
        Access_Control_Request_Method="POST",
    )
    assert not any(name.lower().startswith("access-control-") for name, _ in answer.headers)


@pytest.mark.parametrize("path", ["/v1/me", "/login", "/oauth/authorize", "/v1/keys", "/servers"])
def test_a_listed_origin_reads_nothing_else(opened: Client, path: str) -> None:
    for found in (ask(opened, "GET", path, APP), preflight(opened, "POST", path, APP)):
        assert not any(name.lower().startswith("access-control-") for name, _ in found.headers)
