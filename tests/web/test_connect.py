"""Connecting to OAuth servers in the browser, with the official SDK's authorization server on the other side."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Client, Write
from tests.factories import make_server
from tests.oauth_peers import ProtectedServer
from tests.web.connecting import connect
from tests.web.html import parse

SignedIn = Callable[[str], Client]


@pytest.fixture
def guarded(write: Write, protected_mcp_server: ProtectedServer) -> str:
    """A server of the catalogue that everybody may use once they are connected."""
    with write() as session:
        return make_server(
            session, "guarded", url=protected_mcp_server.url, auth_type="oauth2", allow_all_keys=True
        )  # fmt: skip


def call(client: Client, server_id: str, tool: str = "whoami", **arguments: Any) -> Any:
    """Call a tool over the API."""
    return client.post("/v1/mcp/tools/call", {"server_id": server_id, "name": tool, "arguments": arguments})


def test_connect_and_call_a_tool_as_oneself(
    signed_in: SignedIn, client: Callable[[str], Client], guarded: str, protected_mcp_server: ProtectedServer
) -> None:
    """Discovery from the 401, registration, PKCE, the token stored: then tools answer as the person who connected."""
    refused = call(client("mel"), guarded)
    assert refused.status_code == 401
    assert refused.json["detail"]["error"] == "sign_in_needed"
    assert refused.json["detail"]["connect_url"].endswith(f"/credentials/{guarded}")
    protected_mcp_server.configure(user="melissa")
    page = connect(signed_in("mel"), guarded)
    assert "Connected to guarded" in page.h1.text, page.main.text
    assert "It works: 3 tools" in page.text
    assert '"melissa"' in str(call(client("mel"), guarded).json)
    assert call(client("otto"), guarded).status_code == 401, "nobody else is connected"
