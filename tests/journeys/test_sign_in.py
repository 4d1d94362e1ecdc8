"""Signing in by SSO in a real browser: through a certified OpenID provider, and past one that
lies."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Request, expect

from tests.journeys.conftest import Portal, path_of, started_portal
from tests.support.oauth.forging import ForgingProvider, forging_server
from tests.support.oauth_peers import OidcOptions, OidcProvider, started_oidc_provider
from tests.support.peers import free_port

Peers = tuple[Portal, OidcProvider, ForgingProvider]


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    """A portal with two providers: `corp` is npm's oidc-provider, on another site than ours, `odd`
    is the forger."""
    port = free_port()
    public = f"http://127.0.0.1:{port}"
    options = OidcOptions(
        redirect_uris=[f"{public}/login/corp/callback"],
        post_logout_redirect_uris=[f"{public}/login"],
        host="localhost",
    )
    with started_oidc_provider(options) as corp, forging_server() as odd:
        given = [
            {
                "name": name,
                "label": name.title(),
                "issuer": peer.issuer,
                "client_id": peer.client_id,
                "client_secret": peer.client_secret,
                "roles": {"mcp-admins": "proxy_admin"},
            }
            for name, peer in (("corp", corp), ("odd", odd))
        ]
        folder = tmp_path_factory.mktemp("sso")
        with started_portal(folder, port, PORTAL_SIGN_IN_PROVIDERS=json.dumps(given)) as portal:
            yield portal, corp, odd


def sign_in(page: Page, portal: Portal, login: str, going_to: str) -> None:
    page.goto(portal.url + going_to)
    page.get_by_role("link", name="Continue with Corp").click()
    page.locator("input[name=login]").fill(login)
    page.get_by_role("button", name="Sign in").click()


def test_an_admin_by_group_and_a_member_sign_in_and_out(
    peers: Peers, browser_page_factory: Callable[..., Page]
) -> None:
    portal, _, _ = peers
    ada = browser_page_factory()
    answers = list[str]()

    def note(request: Request) -> None:
        if "/login/corp/callback?" in request.url:
            answers.append(request.url)

    ada.on("request", note)
    sign_in(ada, portal, "ada", "/admin/audit")
    expect(ada.get_by_role("heading", name="Audit", exact=False).first).to_be_visible()
    assert path_of(ada) == "/admin/audit"  # the deep link, by way of the mapped role

    ada.goto(answers[0])  # the same answer again
    expect(ada.get_by_role("heading", name="Sign-in failed")).to_be_visible()
    expect(ada.get_by_text("already used")).to_be_visible()

    bob = browser_page_factory(viewport={"width": 390, "height": 844})
    sign_in(bob, portal, "bob", "/servers")
    expect(bob.get_by_role("heading", name="Servers", exact=True)).to_be_visible()
    bob.goto(f"{portal.url}/admin/audit")
    expect(bob.get_by_text("404")).to_be_visible()

    ada.goto(f"{portal.url}/profile")
    expect(ada.get_by_text("signs in with Corp")).to_be_visible()
    ada.get_by_role("button", name="Account: Ada").click()
    ada.get_by_role("button", name="Sign out").click()
    ada.wait_for_url("**/session/end**")  # the provider asks whether its own session shall end
    ada.goto(f"{portal.url}/servers")
    expect(ada.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_session_that_ran_out_leads_back_to_the_same_page(
    peers: Peers, browser_page_factory: Callable[..., Page]
) -> None:
    portal, _, _ = peers
    page = browser_page_factory()
    sign_in(page, portal, "bob", "/credentials")
    expect(page.get_by_role("heading", name="My credentials")).to_be_visible()
    _end_all_sessions(portal.folder / "portal.db")
    page.goto(f"{portal.url}/credentials")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_text("Sign in to continue to /credentials")).to_be_visible()
    page.get_by_role("link", name="Continue with Corp").click()  # the provider still knows them
    expect(page.get_by_role("heading", name="My credentials")).to_be_visible()


@pytest.mark.parametrize("fault", ["nonce", "issuer", "expired", "response_issuer"])
def test_a_lie_ends_on_a_page_that_helps(
    peers: Peers, browser_page_factory: Callable[..., Page], fault: str
) -> None:
    portal, _, odd = peers
    odd.claims |= {"sub": "sub-of-dana", "email": "dana@example.com"}
    odd.fault = fault
    page = browser_page_factory()
    page.goto(f"{portal.url}/login")
    page.get_by_role("link", name="Continue with Odd").click()
    expect(page.get_by_role("heading", name="Sign-in failed")).to_be_visible()
    odd.fault = None
    page.get_by_role("link", name="Try again").click()
    expect(page.get_by_role("heading", name="Servers", exact=True)).to_be_visible()


def _end_all_sessions(database: Path) -> None:
    with sqlite3.connect(database, timeout=10) as connection:
        connection.execute("UPDATE sessions SET expires_at = '2020-01-01 00:00:00'")
