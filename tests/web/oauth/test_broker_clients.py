"""Real MCP clients sign in to a server by way of the portal, unchanged."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx2
import pytest

from tests.conftest import KEYS, Portal, Write
from tests.support.factories import PASSWORD, make_server
from tests.support.oauth.asking import ASKED, VERIFIER
from tests.support.oauth.brokered import gateway_to, portal_on_a_port
from tests.support.oauth.browsing import Arrival, HttpBrowser
from tests.support.oauth.clients import CLIENT_REDIRECT, call_with_mcp_remote, call_with_sdk
from tests.support.oauth_peers import ProtectedServer
from tests.support.peers import TRUST


@dataclass(frozen=True)
class Place:
    """The portal, and the endpoint of the server `guarded` at the gateway."""

    portal: str
    endpoint: str


@pytest.fixture
def instances() -> int:
    """How many portals share the database and answer at random."""
    return 1


@pytest.fixture
def place(
    portal: Portal, write: Write, protected_mcp_server: ProtectedServer, instances: int
) -> Iterator[Place]:
    upstream = protected_mcp_server.url
    with write() as session:
        make_server(
            session, "guarded", url=upstream, auth_type="oauth2", delegate_auth_to_upstream=True
        )
    with (
        gateway_to(upstream) as (gateway, where),
        portal_on_a_port(
            portal.settings.database_url, instances=instances, gateway_url=gateway
        ) as public,
    ):
        where["portal"] = public
        yield Place(public, f"{gateway}/guarded/mcp")


def allowed(browser: HttpBrowser, url: str, until: str | None = None) -> Arrival:
    """Open an authorization request, allow it on the consent page, and go on by the link that
    follows."""
    page = browser.visit(url)
    assert "Not verified" in page.text, page.text
    onward = browser.submit(page, "Allow")
    link = onward.soup.find("a", string=re.compile("Continue to"))
    assert link is not None, onward.text
    return browser.visit(str(link["href"]), until=until)


def test_the_python_sdk_signs_in_through_the_portal(
    place: Place, protected_mcp_server: ProtectedServer
) -> None:
    """Its own discovery, registration, PKCE, resource and issuer checks, against a server that
    checks them, too."""
    protected_mcp_server.configure(response_iss=True)
    with HttpBrowser() as browser:
        outcome = call_with_sdk(
            place.endpoint, lambda url: allowed(browser, url, CLIENT_REDIRECT).url
        )
    assert '"subject": "alice"' in outcome.text
    assert (outcome.client.client_id or "").startswith("mcp-")
    counts = protected_mcp_server.counters()
    assert (counts.register, counts.code_grants, counts.refused_grants) == (1, 1, 0)
    assert ("POST", "/guarded/register", 201) in outcome.requests


def test_mcp_remote_signs_in_through_the_portal(place: Place) -> None:
    with HttpBrowser() as browser:
        assert '"subject": "alice"' in call_with_mcp_remote(
            place.endpoint, lambda url: allowed(browser, url)
        )


@pytest.mark.parametrize("instances", [2])
def test_two_portals_on_one_database_are_one_broker(place: Place) -> None:
    for _ in range(3):
        with HttpBrowser() as browser:
            outcome = call_with_sdk(
                place.endpoint, lambda url: allowed(browser, url, CLIENT_REDIRECT).url
            )
        assert '"subject": "alice"' in outcome.text


@pytest.mark.parametrize("instances", [2])
def test_of_many_who_spend_a_code_at_once_one_gets_the_token(
    place: Place, protected_mcp_server: ProtectedServer
) -> None:
    """R-OAUTH-14: whichever portal they ask."""
    base = f"{place.portal}/v1/mcp/server/oauth/id-guarded"
    headers = {"Authorization": f"Bearer {KEYS['ada']}"}
    asked = {
        **ASKED,
        "client_id": "https://racing.example/client.json",
        "redirect_uri": CLIENT_REDIRECT,
    }
    away = httpx2.get(
        f"{base}/authorize", params=asked, headers=headers, follow_redirects=False, verify=TRUST
    )
    with HttpBrowser() as browser:
        signing_in = browser.visit(f"{place.portal}/login")
        browser.submit(signing_in, "Sign in", email="ada@example.com", password=PASSWORD)
        asked_for_consent = browser.visit(away.headers["location"])
        code = browser.submit(asked_for_consent, "Allow", until=CLIENT_REDIRECT).query["code"]
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "code_verifier": VERIFIER,
        "client_id": "https://racing.example/client.json",
    }

    def spend(_: int) -> int:
        return httpx2.post(
            f"{base}/token", data=form, headers=headers, timeout=30, verify=TRUST
        ).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(spend, range(8)))
    assert statuses == [200] + [400] * 7
    counts = protected_mcp_server.counters()
    assert (counts.code_grants, counts.refused_grants) == (1, 0)
