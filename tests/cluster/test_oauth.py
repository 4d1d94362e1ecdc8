"""SSO, Connect, the broker and temporary servers where each request goes to the next member in
turn."""

import re
from collections.abc import Iterator

import httpx2
import pytest

from tests.cluster.conftest import ADMIN_KEY
from tests.support.cluster.topology import Cluster
from tests.support.oauth.asking import ASKED, VERIFIER
from tests.support.oauth.browsing import Arrival, HttpBrowser
from tests.support.oauth.clients import CLIENT_REDIRECT
from tests.support.oauth_peers import ProtectedServer

BY_KEY = {"Authorization": f"Bearer {ADMIN_KEY}"}
ROUNDS = 3


@pytest.fixture
def public(running: Cluster) -> str:
    """The address of all members."""
    return running.url


@pytest.fixture
def dana(public: str) -> Iterator[HttpBrowser]:
    """Dana's browser, signed in."""
    with HttpBrowser() as browser:
        assert "dana@example.com" in browser.visit(f"{public}/login/corp?next=/profile").text
        yield browser


def added(public: str, name: str, upstream: ProtectedServer) -> str:
    body = {
        "server_id": name,
        "server_name": name,
        "transport": "http",
        "url": upstream.url,
        "auth_type": "oauth2",
    }
    answer = httpx2.post(f"{public}/v1/mcp/server", json=body, headers=BY_KEY)
    assert answer.status_code == 201, answer.text
    return name


def onward(browser: HttpBrowser, page: Arrival, until: str | None = None) -> Arrival:
    """Go on by the link of a page that leads to another site."""
    link = page.soup.find("a", string=re.compile("Continue to"))
    assert link is not None, page.text
    return browser.visit(str(link["href"]), until=until)


def call_whoami(browser: HttpBrowser, public: str, server_id: str) -> str:
    page = browser.visit(f"{public}/playground?server={server_id}&tool=whoami")
    return browser.submit(page, "Call the tool").text


def test_people_sign_in_and_stay_signed_in(public: str) -> None:
    for _ in range(ROUNDS):
        with HttpBrowser() as browser:
            assert (
                browser.visit(f"{public}/login/corp?next=/admin/users").url
                == f"{public}/admin/users"
            )
            assert all(
                browser.visit(f"{public}/profile").url.endswith("/profile") for _ in range(4)
            )


def test_people_connect_call_renew_and_leave(
    public: str, dana: HttpBrowser, protected_mcp_server: ProtectedServer
) -> None:
    for number in range(ROUNDS):
        protected_mcp_server.reset()
        server_id = added(public, f"guarded{number}", protected_mcp_server)
        page = dana.submit(
            dana.visit(f"{public}/credentials/{server_id}/connect"), f"Connect to {server_id}"
        )
        assert f"Connected to {server_id}" in onward(dana, page).text
        assert "alice" in call_whoami(dana, public, server_id)
        protected_mcp_server.expire_access_tokens()
        assert "alice" in call_whoami(dana, public, server_id)
        assert "alice" in call_whoami(dana, public, server_id)
        assert protected_mcp_server.counters().refresh_grants == 1
        dana.submit(dana.visit(f"{public}/credentials/{server_id}"), "Disconnect")
        assert protected_mcp_server.counters().live_refresh == 0


def test_clients_get_tokens_through_the_broker(
    public: str, dana: HttpBrowser, protected_mcp_server: ProtectedServer
) -> None:
    """A program begins with Dana's key, and Dana allows it in her browser."""
    server_id = added(public, "brokered", protected_mcp_server)
    people = httpx2.get(f"{public}/v1/users", headers=BY_KEY).json()["items"]
    owner = next(person["user_id"] for person in people if person["email"] == "dana@example.com")
    made = httpx2.post(f"{public}/v1/keys", json={"user_id": owner}, headers=BY_KEY).json()
    by_her_key = {"Authorization": f"Bearer {made['key']}"}
    base = f"{public}/v1/mcp/server/oauth/{server_id}"
    for number in range(ROUNDS):
        asked = {
            **ASKED,
            "client_id": f"https://client.example/{number}",
            "redirect_uri": CLIENT_REDIRECT,
        }
        away = httpx2.get(
            f"{base}/authorize", params=asked, headers=by_her_key, follow_redirects=False
        )
        assert away.status_code == 307, away.text
        page = dana.visit(away.headers["location"])
        code = dana.submit(page, "Allow", until=CLIENT_REDIRECT).query["code"]
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": VERIFIER,
            "client_id": f"https://client.example/{number}",
        }
        answer = httpx2.post(f"{base}/token", data=form, headers=by_her_key)
        assert answer.status_code == 200, answer.text
        assert httpx2.post(f"{base}/token", data=form, headers=by_her_key).status_code == 400


def test_tmp_07_a_definition_that_one_holds_the_other_knows(
    public: str, protected_mcp_server: ProtectedServer
) -> None:
    body = {
        "server_id": "trial",
        "server_name": "trial",
        "transport": "http",
        "url": protected_mcp_server.url,
        "auth_type": "oauth2",
    }
    assert (
        httpx2.post(f"{public}/v1/mcp/server/oauth/session", json=body, headers=BY_KEY).status_code
        == 200
    )
    asked = {**ASKED, "redirect_uri": CLIENT_REDIRECT}
    for _ in range(6):
        url = f"{public}/v1/mcp/server/oauth/trial/authorize"
        assert (
            httpx2.get(url, params=asked, headers=BY_KEY, follow_redirects=False).status_code == 307
        )


def test_a_key_brought_in_a_clients_flow_is_known_to_both(public: str, dana: HttpBrowser) -> None:
    body = {"server_id": "keyed", "server_name": "keyed", "transport": "http", "url": "http://127.0.0.1:9/mcp",
            "auth_type": "bearer_token", "is_byok": True}  # fmt: skip
    assert httpx2.post(f"{public}/v1/mcp/server", json=body, headers=BY_KEY).status_code == 201
    asked = {**ASKED, "redirect_uri": CLIENT_REDIRECT, "server_id": "keyed"}
    for _ in range(ROUNDS):
        page = dana.visit(str(httpx2.URL(f"{public}/oauth/authorize", params=asked)))
        code = dana.submit(page, "Allow", until=CLIENT_REDIRECT, key="the-key-of-dana").query[
            "code"
        ]
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": VERIFIER,
            "client_id": ASKED["client_id"],
            "redirect_uri": CLIENT_REDIRECT,
        }
        answers = [httpx2.post(f"{public}/oauth/token", data=form).status_code for _ in range(2)]
        assert answers == [200, 400]
