"""A person connects to an OAuth-protected MCP server in a real browser, uses it, and leaves it
again."""

import threading
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.journeys.conftest import Portal, SignIn, started_portal
from tests.support.oauth_peers import ProtectedServer
from tests.support.peers import free_port


@pytest.fixture
def guarded(portal: Portal, protected_mcp_server: ProtectedServer) -> str:
    """A server behind the official SDK's authorization server, which asks for consent on a page."""
    protected_mcp_server.configure(consent="form")
    server_id = f"guarded{free_port()}"
    body = {
        "server_id": server_id,
        "server_name": server_id,
        "transport": "http",
        "url": protected_mcp_server.url,
        "auth_type": "oauth2",
        "allow_all_keys": True,
    }
    assert portal.api("POST", "/v1/mcp/server", body)[0] == 201
    return server_id


def allow(page: Page, user: str) -> None:
    """At the provider: say who one is, and yes."""
    page.locator("input[name=user]").fill(user)
    page.get_by_role("button", name="Allow").click()


def connected(page: Page, server_id: str) -> None:
    """The result page says so, and its address holds nothing of the answer."""
    expect(page.get_by_role("heading", name=f"Connected to {server_id}")).to_be_visible()
    assert "code=" not in page.url
    assert "state=" not in page.url


def call_whoami(page: Page) -> None:
    """In the playground, with the server chosen."""
    page.get_by_role("link", name="whoami").click()
    page.get_by_role("button", name="Call the tool").click()


def called_at_once(portals: list[Portal], server_id: str, times: int) -> list[tuple[int, Any]]:
    """The answers to as many calls of a tool, which begin at the same moment at all processes."""
    answers: list[tuple[int, Any]] = []
    gate = threading.Barrier(times * len(portals))
    body = {"server_id": server_id, "name": "whoami", "arguments": {}}

    def one(portal: Portal) -> None:
        gate.wait()
        answers.append(portal.api("POST", "/v1/mcp/tools/call", body))

    threads = [
        threading.Thread(target=one, args=(portal,)) for portal in portals for _ in range(times)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_connect_use_renew_and_disconnect(
    portal: Portal, sign_in: SignIn, guarded: str, protected_mcp_server: ProtectedServer
) -> None:
    """Issue 4, 2: connect, call as that person, expire, renewed once for two processes, disconnect,
    revoked."""
    page = sign_in()
    card = page.locator(f"#server-{guarded}")
    expect(card).to_contain_text("Sign-in needed")
    card.get_by_role("link", name="Connect").click()
    page.locator("#dialog").get_by_role("button", name="Connect").click()
    expect(page.get_by_role("button", name="Deny")).to_be_visible()
    allow(page, "carol")
    connected(page, guarded)
    page.get_by_role("link", name="Try the tools").click()
    call_whoami(page)
    expect(page.locator("#result")).to_contain_text('"carol"')

    protected_mcp_server.expire_access_tokens()
    protected_mcp_server.configure(token_delay_seconds=0.3)
    with started_portal(portal.folder, free_port()) as second:
        answers = called_at_once([portal, second], guarded, 4)
    assert [status for status, _ in answers] == [200] * 8, answers
    assert all('"carol"' in str(answer) for _, answer in answers)
    counters = protected_mcp_server.counters()
    assert (counters.refresh_grants, counters.reused_refresh, counters.refused_grants) == (1, 0, 0)

    page.goto(f"{portal.url}/credentials/{guarded}")
    page.get_by_role("button", name="Disconnect").click()
    expect(page.locator("#toasts")).to_contain_text("The provider revoked it as well.")
    expect(page.get_by_role("main")).to_contain_text("Sign-in needed")
    counters = protected_mcp_server.counters()
    assert (counters.live_access, counters.live_refresh) == (0, 0)


def test_whoever_is_cut_off_upstream_connects_again_in_place(
    portal: Portal, sign_in: SignIn, guarded: str, protected_mcp_server: ProtectedServer
) -> None:
    """The playground asks for the sign-in where the call failed, and one goes on there."""
    page = sign_in()
    page.goto(f"{portal.url}/playground?server={guarded}")
    page.get_by_role("main").get_by_role("button", name="Connect").click()
    allow(page, "dora")
    connected(page, guarded)
    page.get_by_role("link", name="Continue").click()
    call_whoami(page)
    expect(page.locator("#result")).to_contain_text('"dora"')
    page.get_by_role("link", name="admin_note").click()
    page.get_by_role("button", name="Call the tool").click()
    page.locator("#result").get_by_role(
        "button", name="Connect again with more permissions"
    ).click()
    allow(page, "dora")
    connected(page, guarded)
    page.get_by_role("link", name="Continue").click()
    page.get_by_role("button", name="Call the tool").click()
    expect(page.locator("#result")).to_contain_text("Success")
    protected_mcp_server.revoke_all()
    page.get_by_role("button", name="Call the tool").click()
    page.get_by_role("main").get_by_role("button", name="Connect again").click()
    page.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("heading", name="Access declined")).to_be_visible()


def test_connecting_works_without_javascript(portal: Portal, sign_in: SignIn, guarded: str) -> None:
    """ui.md, O2: the page in between leads on by itself; form-action stops nothing."""
    page = sign_in(java_script_enabled=False)
    page.goto(f"{portal.url}/credentials/{guarded}/connect")
    page.get_by_role("button", name="Connect").click()
    allow(page, "emil")
    connected(page, guarded)
