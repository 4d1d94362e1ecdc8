"""The OAuth-protected MCP server and the real clients do what they say."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from authlib.integrations.requests_client import OAuth2Session  # type: ignore[import-untyped]
from playwright.sync_api import Page

from tests.support.oauth.browsing import HttpBrowser
from tests.support.oauth.clients import (
    CLIENT_REDIRECT,
    ClientMemory,
    call_with_mcp_remote,
    call_with_sdk,
)
from tests.support.oauth.recording import RecordingServer
from tests.support.oauth.serving import Answer
from tests.support.oauth_peers import ProtectedServer, started_protected_mcp_server

VERIFIER = "v" * 48


def follow(url: str) -> str:
    """Play the browser of a client whose person is asked nothing."""
    with HttpBrowser() as browser:
        return browser.visit(url, until=CLIENT_REDIRECT).url


def authorize_url(
    server: ProtectedServer, resource: str | None = None, client_id: str = "by-hand"
) -> str:
    """Return an authorization request of a client; its challenge is that of `VERIFIER`."""
    session = OAuth2Session(
        client_id, redirect_uri=CLIENT_REDIRECT, scope="mcp", code_challenge_method="S256"
    )
    url, _ = session.create_authorization_url(
        f"{server.issuer}/authorize", code_verifier=VERIFIER, resource=resource or server.url
    )
    return str(url)


def add_client(server: ProtectedServer) -> None:
    server.add_client("by-hand", "SECRET-by-hand", redirect_uris=[CLIENT_REDIRECT])


def code_grant(
    server: ProtectedServer,
    *,
    resource: str | None = None,
    client_id: str = "by-hand",
    client_secret: str = "SECRET-by-hand",
) -> dict[str, Any]:
    """Go through a whole code grant by plain HTTP; return the token answer."""
    if client_id == "by-hand":
        add_client(server)
    back = HttpBrowser().visit(authorize_url(server, resource, client_id), until=CLIENT_REDIRECT)
    form = {
        "grant_type": "authorization_code",
        "code": back.query["code"],
        "redirect_uri": CLIENT_REDIRECT,
    }
    form |= {"client_id": client_id, "client_secret": client_secret, "code_verifier": VERIFIER}
    answer = httpx2.post(f"{server.issuer}/token", data=form)
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


def refresh(server: ProtectedServer, token: str) -> httpx2.Response:
    form = {"grant_type": "refresh_token", "refresh_token": token}
    return httpx2.post(
        f"{server.issuer}/token",
        data=form | {"client_id": "by-hand", "client_secret": "SECRET-by-hand"},
    )


def call_tool(server: ProtectedServer, token: str, tool: str) -> httpx2.Response:
    asked = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": {}},
    }
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
    return httpx2.post(server.url, json=asked, headers=headers)


def mcp_status(server: ProtectedServer, token: str) -> int:
    params = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "tests", "version": "0"},
    }
    asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
    return httpx2.post(server.url, json=asked, headers=headers).status_code


def test_the_sdk_client_gets_through_to_the_protected_server(
    protected_mcp_server: ProtectedServer,
) -> None:
    outcome = call_with_sdk(protected_mcp_server.url, follow)
    assert json.loads(outcome.text) == {
        "subject": "alice",
        "client_id": outcome.client.client_id,
        "scopes": ["mcp"],
    }
    counters = protected_mcp_server.counters()
    assert (counters.register, counters.authorize, counters.code_grants, counters.tool_calls) == (
        1,
        1,
        1,
        1,
    )
    assert (counters.live_access, counters.live_refresh, counters.clients) == (1, 1, 1)
    assert counters.unauthorized >= 1


def test_mcp_remote_gets_through_to_the_protected_server(
    protected_mcp_server: ProtectedServer,
) -> None:
    def follow_to_the_end(url: str) -> None:
        with HttpBrowser() as browser:
            assert browser.visit(f"{url}&user=bob").status == 200

    text = call_with_mcp_remote(protected_mcp_server.url, follow_to_the_end)
    assert json.loads(text)["subject"] == "bob"


def test_an_expired_token_is_refreshed_and_rotates(protected_mcp_server: ProtectedServer) -> None:
    memory = ClientMemory()
    first = call_with_sdk(protected_mcp_server.url, follow, memory=memory).tokens
    protected_mcp_server.expire_access_tokens()
    assert protected_mcp_server.counters().live_access == 0
    memory.expire()
    second = call_with_sdk(protected_mcp_server.url, follow, memory=memory).tokens
    assert first.access_token != second.access_token
    assert first.refresh_token != second.refresh_token
    counters = protected_mcp_server.counters()
    assert (counters.refresh_grants, counters.authorize, counters.live_access) == (1, 1, 1)


def test_a_token_expires_by_itself(protected_mcp_server: ProtectedServer) -> None:
    protected_mcp_server.configure(access_seconds=0.2)
    token = code_grant(protected_mcp_server)["access_token"]
    deadline = time.monotonic() + 30
    while protected_mcp_server.counters().live_access:
        assert time.monotonic() < deadline
    assert mcp_status(protected_mcp_server, token) == 401


def test_a_refresh_token_used_twice_ends_the_grant(protected_mcp_server: ProtectedServer) -> None:
    first = code_grant(protected_mcp_server)
    second = refresh(protected_mcp_server, first["refresh_token"])
    assert second.status_code == 200
    assert refresh(protected_mcp_server, first["refresh_token"]).json()["error"] == "invalid_grant"
    assert refresh(protected_mcp_server, second.json()["refresh_token"]).status_code == 400
    counters = protected_mcp_server.counters()
    assert (counters.refresh_grants, counters.reused_refresh, counters.refused_grants) == (1, 1, 2)
    assert counters.live_access == 0


def test_two_refreshes_at_one_moment_are_seen_as_two(protected_mcp_server: ProtectedServer) -> None:
    token = code_grant(protected_mcp_server)["refresh_token"]
    protected_mcp_server.configure(token_delay_seconds=0.3)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: refresh(protected_mcp_server, token), range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 400]
    assert protected_mcp_server.counters().reused_refresh == 1


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_revoking_either_token_ends_both(protected_mcp_server: ProtectedServer, kind: str) -> None:
    tokens = code_grant(protected_mcp_server)
    assert mcp_status(protected_mcp_server, tokens["access_token"]) == 200
    form = {
        "token": tokens[kind],
        "token_type_hint": kind,
        "client_id": "by-hand",
        "client_secret": "SECRET-by-hand",
    }
    assert httpx2.post(f"{protected_mcp_server.issuer}/revoke", data=form).status_code == 200
    assert mcp_status(protected_mcp_server, tokens["access_token"]) == 401
    counters = protected_mcp_server.counters()
    assert (counters.revocations, counters.revoked_grants) == (1, 1)
    assert (counters.live_access, counters.live_refresh) == (0, 0)


def test_the_further_scope_is_asked_for_and_then_enough(
    protected_mcp_server: ProtectedServer,
) -> None:
    memory = ClientMemory()
    call_with_sdk(protected_mcp_server.url, follow, memory=memory)
    outcome = call_with_sdk(protected_mcp_server.url, follow, memory=memory, tool="admin_note")
    assert outcome.text == "for administrators"
    assert protected_mcp_server.counters().insufficient_scope == 1
    assert set((outcome.tokens.scope or "").split()) == {"mcp", "admin"}


def test_the_challenge_names_the_further_scope(protected_mcp_server: ProtectedServer) -> None:
    token = code_grant(protected_mcp_server)["access_token"]
    answer = call_tool(protected_mcp_server, token, "admin_note")
    assert answer.status_code == 403
    assert 'error="insufficient_scope", scope="mcp admin"' in answer.headers["www-authenticate"]


def test_a_token_for_another_resource_is_refused(protected_mcp_server: ProtectedServer) -> None:
    token = code_grant(protected_mcp_server, resource="http://127.0.0.1:1/mcp")["access_token"]
    assert mcp_status(protected_mcp_server, token) == 401


def test_registration_refresh_tokens_and_issuer_are_switches(
    protected_mcp_server: ProtectedServer,
) -> None:
    protected_mcp_server.configure(
        registration=False, refresh_tokens=False, response_iss=True, client_documents=True
    )
    document = httpx2.get(
        f"{protected_mcp_server.issuer}/.well-known/oauth-authorization-server"
    ).json()
    assert "registration_endpoint" not in document
    assert document["authorization_response_iss_parameter_supported"] is True
    assert document["client_id_metadata_document_supported"] is True
    assert httpx2.post(f"{protected_mcp_server.issuer}/register", json={}).status_code == 404
    assert "refresh_token" not in code_grant(protected_mcp_server)
    back = HttpBrowser().visit(authorize_url(protected_mcp_server), until=CLIENT_REDIRECT)
    assert back.query["iss"] == protected_mcp_server.issuer


def test_a_client_may_be_known_by_its_document(
    protected_mcp_server: ProtectedServer, recording_as: RecordingServer
) -> None:
    protected_mcp_server.configure(client_documents=True)
    client_id = f"{recording_as.issuer}/client.json"
    document = {
        "client_id": client_id,
        "redirect_uris": [CLIENT_REDIRECT],
        "token_endpoint_auth_method": "none",
    }
    recording_as.answer("other", Answer(json=document))
    tokens = code_grant(protected_mcp_server, client_id=client_id, client_secret="")
    assert mcp_status(protected_mcp_server, tokens["access_token"]) == 200
    assert protected_mcp_server.counters().client_documents == 1


def test_consent_by_form_in_chromium(
    protected_mcp_server: ProtectedServer, browser_page_factory: Callable[..., Page]
) -> None:
    protected_mcp_server.configure(consent="form", user="carol")
    page = browser_page_factory()
    page.route(f"{CLIENT_REDIRECT}*", lambda route: route.fulfill(body="arrived"))

    def browse(url: str) -> str:
        with HttpBrowser() as browser:
            return browser.submit(browser.visit(url), "Allow", until=CLIENT_REDIRECT).url

    assert json.loads(call_with_sdk(protected_mcp_server.url, browse).text)["subject"] == "carol"
    add_client(protected_mcp_server)
    page.goto(authorize_url(protected_mcp_server))
    page.get_by_role("button", name="Deny").click()
    page.wait_for_url(f"{CLIENT_REDIRECT}?*")
    assert "error=access_denied" in page.url


def test_a_reset_forgets_and_another_server_is_another(
    protected_mcp_server: ProtectedServer,
) -> None:
    token = code_grant(protected_mcp_server)["access_token"]
    with started_protected_mcp_server() as second:
        assert second.counters().code_grants == 0
        assert mcp_status(second, token) == 401
    protected_mcp_server.reset()
    assert protected_mcp_server.counters().clients == 0
    assert mcp_status(protected_mcp_server, token) == 401


def test_an_unknown_setting_is_refused(protected_mcp_server: ProtectedServer) -> None:
    with pytest.raises(httpx2.HTTPStatusError):
        protected_mcp_server.configure(colour="blue")


def test_a_refusal_and_a_cookie_decide_who_consents(protected_mcp_server: ProtectedServer) -> None:
    add_client(protected_mcp_server)
    with HttpBrowser({"peer_user": "dora"}) as browser:
        outcome = call_with_sdk(
            protected_mcp_server.url,
            lambda url: browser.visit(url, until=CLIENT_REDIRECT).url,
            mode="legacy",
        )
        assert json.loads(outcome.text)["subject"] == "dora"
        protected_mcp_server.configure(consent="deny")
        back = browser.visit(authorize_url(protected_mcp_server), until=CLIENT_REDIRECT)
    assert back.query["error"] == "access_denied"
