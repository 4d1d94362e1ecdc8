"""An MCP client signs in to `portal gateway` with OAuth: the user signs in, allows the app and
enters a value in the browser, and the client lists and calls tools."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx2
import pytest
from sqlalchemy import Executable, delete, update

from portal.settings import Settings
from portal.store.database import Database
from portal.store.models import User
from portal.store.oauth_tables import AppGrant
from tests.conftest import make_settings, open_quickly
from tests.gateway.conftest import gateway_process
from tests.gateway.test_app import ALL_TOOLS
from tests.support.factories import PASSWORD, make_server
from tests.support.oauth.brokered import portal_on_a_port
from tests.support.oauth.browsing import Arrival, HttpBrowser
from tests.support.oauth.clients import (
    CLIENT_REDIRECT,
    Browse,
    ClientMemory,
    Outcome,
    call_with_sdk,
)
from tests.support.peers import free_port


@dataclass(frozen=True)
class Site:
    """A portal, its gateway on another port, and the database of both."""

    portal: str
    gateway: str
    database: Database

    def at(self, name: str) -> str:
        """Return the gateway's address of a server."""
        return f"{self.gateway}/{name}/mcp"

    def write(self, statement: Executable) -> None:
        """Execute a statement in the database."""
        with self.database.session(writes=True) as session:
            session.execute(statement)
            session.commit()


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Database]:
    """Open the database until the context ends."""
    database = open_quickly(settings)
    try:
        yield database
    finally:
        database.engine.dispose()


@pytest.fixture
def site(started: Callable[[str], str], database_kind: str, echo_server: str) -> Iterator[Site]:
    """The portal's pages, and `portal gateway` as a process of its own, on a new database."""
    port = free_port()
    gateway = f"http://127.0.0.1:{port}"
    settings = make_settings(started(database_kind), gateway_url=gateway)
    with (
        opened(settings) as database,
        portal_on_a_port(settings.database_url, gateway_url=gateway) as portal,
    ):
        add_servers(database, echo_server)
        with gateway_process(settings.model_copy(update={"public_url": portal}), port):
            yield Site(portal, gateway, database)


def add_servers(database: Database, url: str) -> None:
    """Add two servers at `url`, which get a value of each user."""
    with database.session(writes=True) as session:
        for name in ("echo", "other"):
            make_server(
                session,
                name,
                url=url,
                allow_all_keys=True,
                static_headers={"X-Corp-Token": "${CORP_TOKEN}"},
                env_vars=[{"name": "CORP_TOKEN", "scope": "user", "description": "yours"}],
            )
        session.commit()


def browse_as(who: str, value: str | None) -> Browse:
    """Return a browser that signs in, enters `value` if it is not None, and allows the app."""

    def browse(url: str) -> str:
        entered = {} if value is None else {"value-CORP_TOKEN": value}
        with HttpBrowser() as browser:
            page = browser.visit(url)
            page = browser.submit(page, "Sign in", email=f"{who}@example.com", password=PASSWORD)
            assert "SDK client" in page.text
            assert ("value-CORP_TOKEN" in page.text) is (value is not None)
            return browser.submit(page, "Allow", until=CLIENT_REDIRECT, **entered).url

    return browse


def no_browser(url: str) -> str:
    raise AssertionError(f"the client opened a browser again: {url}")


def call(
    url: str, browse: Browse, memory: ClientMemory | None = None, mode: str = "auto"
) -> Outcome:
    return call_with_sdk(url, browse, tool="show_headers", memory=memory, mode=mode, lists=True)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_client_signs_in_and_calls_with_the_value_that_its_user_entered_on_the_way(
    site: Site, mode: str
) -> None:
    for who in ("mel", "otto"):
        memory = ClientMemory()
        outcome = call(site.at("echo"), browse_as(who, f"SECRET-of-{who}"), memory, mode)
        assert outcome.tools == ALL_TOOLS
        assert not outcome.is_error
        seen = json.loads(outcome.text)
        assert seen["x-corp-token"] == f"SECRET-of-{who}"
        assert "authorization" not in seen
        assert outcome.tokens.access_token not in outcome.text
        again = call(site.at("echo"), no_browser, memory, mode)
        assert json.loads(again.text)["x-corp-token"] == f"SECRET-of-{who}"


def test_a_user_who_signs_in_again_enters_nothing_again(site: Site) -> None:
    call(site.at("echo"), browse_as("mel", "SECRET-of-mel"))
    outcome = call(site.at("echo"), browse_as("mel", None))
    assert json.loads(outcome.text)["x-corp-token"] == "SECRET-of-mel"


def test_a_renewed_token_works_at_the_gateway(site: Site) -> None:
    outcome = call(site.at("echo"), browse_as("mel", "SECRET-of-mel"))
    form = {
        "grant_type": "refresh_token",
        "refresh_token": outcome.tokens.refresh_token,
        "client_id": outcome.client.client_id,
        "resource": site.at("echo"),
    }
    renewed = httpx2.post(f"{site.portal}/oauth/token", data=form)
    assert renewed.status_code == 200, renewed.text
    assert post(site, "/echo/mcp", renewed.json()["access_token"]).status_code != 401


def post(site: Site, path: str, token: str) -> httpx2.Response:
    """Send `tools/list` with a bearer token."""
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json, text/event-stream",
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    return httpx2.post(f"{site.gateway}{path}", headers=headers, json=message)


def test_a_token_works_at_every_address_of_its_server_and_at_no_other(site: Site) -> None:
    token = call(site.at("echo"), browse_as("mel", "SECRET-of-mel")).tokens.access_token
    for path in ("/echo/mcp", "/mcp/echo", "/id-echo/mcp"):
        assert post(site, path, token).status_code != 401, path
    for path in ("/other/mcp", "/mcp/other", "/nowhere/mcp", "/mcp", "/toolset/echo/mcp"):
        answer = post(site, path, token)
        assert answer.status_code == 401, path
        metadata = f"{site.portal}/.well-known/oauth-protected-resource{path}"
        expected = f'Bearer error="invalid_token", resource_metadata="{metadata}"'
        assert answer.headers["www-authenticate"] == expected
        document = httpx2.get(metadata)
        assert document.status_code == 200
        assert document.json()["resource"] == f"{site.gateway}{path}"
        assert document.json()["authorization_servers"] == [site.portal]


@pytest.mark.parametrize(
    "ending",
    [delete(AppGrant), update(User).where(User.user_id == "mel").values(is_active=False)],
    ids=["consent", "user"],
)
def test_a_token_ends_with_the_consent_and_with_the_user(site: Site, ending: Executable) -> None:
    token = call(site.at("echo"), browse_as("mel", "SECRET-of-mel")).tokens.access_token
    assert post(site, "/echo/mcp", token).status_code != 401
    site.write(ending)
    assert post(site, "/echo/mcp", token).status_code == 401


def profile_of(site: Site, who: str) -> tuple[HttpBrowser, Arrival]:
    """Return a signed-in browser and the profile."""
    browser = HttpBrowser()
    page = browser.visit(f"{site.portal}/profile")
    return browser, browser.submit(page, "Sign in", email=f"{who}@example.com", password=PASSWORD)


def test_a_person_sees_and_removes_the_app_whose_next_request_is_401(site: Site) -> None:
    first = call(site.at("echo"), browse_as("mel", "SECRET-of-mel")).tokens
    again = call(site.at("echo"), browse_as("mel", None)).tokens
    other = call(site.at("other"), browse_as("mel", "SECRET-of-mel")).tokens
    ottos = call(site.at("echo"), browse_as("otto", "SECRET-of-otto")).tokens
    browser, page = profile_of(site, "mel")
    with browser:
        shown = page.soup.select_one('table:has(form[action="/profile/apps/remove"])')
        assert shown is not None
        found = [
            [" ".join(cell.text.split()) for cell in row.select("th, td")]
            for row in shown.select("tbody tr")
        ]
        assert [row[:2] for row in found] == [
            ["SDK client returns to an app on this computer (127.0.0.1:3030)", name]
            for name in ("other", "echo")
        ]
        assert all("ago" in text or "just now" in text for row in found for text in row[2:4])
        handle = str(shown.select("input[name=app]")[1]["value"])
        gone = browser.submit(page, "Remove SDK client for echo", app=handle)
        assert "App removed" in gone.text
        for bearer in (first.access_token, again.access_token):
            assert post(site, "/echo/mcp", bearer).status_code == 401
        assert post(site, "/other/mcp", other.access_token).status_code != 401
        assert post(site, "/echo/mcp", ottos.access_token).status_code != 401
        assert handle not in browser.visit(f"{site.portal}/profile").text
