"""What MCP clients and the people before them ask of the portal's broker, step by step."""

import base64
import hashlib
from typing import Any
from urllib.parse import parse_qs, urlsplit

from flask.testing import FlaskClient

from tests.conftest import Client
from tests.support.factories import PASSWORD
from tests.support.html import parse
from tests.support.oauth.browsing import HttpBrowser
from tests.support.security.callers import token_in

PUBLIC = "http://127.0.0.1:8000"
CALLBACK = f"{PUBLIC}/oauth/callback"
BACK = "http://localhost:3000/cb"
VERIFIER = "v" * 64
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
)
BASE = "/v1/mcp/server/oauth/id-guarded"
ASKED = {
    "redirect_uri": BACK,
    "state": "client-state",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
    "response_type": "code",
    "client_id": "https://client.example/mcp.json",
}
STORED = {"client_id": "stored-id", "client_secret": "SECRET-stored"}


def query_of(address: str) -> dict[str, str]:
    return {
        name: values[-1]
        for name, values in parse_qs(urlsplit(address).query, keep_blank_values=True).items()
    }


def authorize(asking: Client, base: str = BASE, **changed: str | None) -> Any:
    asked = {name: value for name, value in {**ASKED, **changed}.items() if value is not None}
    return asking.get(f"{base}/authorize", query_string=asked)


def departed(asking: Client, base: str = BASE, **changed: str | None) -> dict[str, str]:
    """The query with which the upstream is asked."""
    answer = authorize(asking, base, **changed)
    assert answer.status_code == 307, answer.get_data(as_text=True)
    return query_of(answer.location)


def browser_of(asking: Client) -> FlaskClient:
    """A browser in which the owner of the caller's API key has signed in."""
    browser = asking._client.application.test_client()
    email = asking.get("/v1/me").get_json()["user"]["email"]
    fields = {"email": email, "password": PASSWORD, "csrf_token": token_in(browser.get("/login"))}
    assert browser.post("/login", data=fields).status_code == 303
    return browser


def landed_in(browser: FlaskClient, path: str, decision: str = "allow") -> Any:
    """What becomes of an authorization that began with an API key, in the browser that comes back
    from the upstream."""
    answer = browser.get(path)
    assert answer.status_code == 302, answer.get_data(as_text=True)
    return decided(browser, answer.location, decision)


def came_back(address: str) -> str:
    """What the upstream, which asks nothing, sends the browser back to: a path of ours."""
    with HttpBrowser() as outside:
        return outside.visit(address, until=CALLBACK).url.removeprefix(PUBLIC)


def code_for(asking: Client, base: str = BASE, **changed: str | None) -> str:
    """A code that came through the portal for a caller with an API key."""
    answer = authorize(asking, base, **changed)
    assert answer.status_code == 307, answer.get_data(as_text=True)
    landed = landed_in(browser_of(asking), came_back(answer.location))
    assert landed.status_code == 303, landed.get_data(as_text=True)
    return query_of(landed.location)["code"]


def redeem(asking: Client, code: str, base: str = BASE, **changed: str | None) -> Any:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "code_verifier": VERIFIER,
        "client_id": "https://client.example/mcp.json",
        "redirect_uri": BACK,
        **changed,
    }
    return asking.ask(
        "POST",
        f"{base}/token",
        data={name: value for name, value in form.items() if value is not None},
    )


def asked_on(browser: FlaskClient, location: str) -> Any:
    """The consent page that an authorize led to."""
    assert location.startswith("/oauth/consent/"), location
    page = browser.get(location)
    assert page.status_code == 200, page.get_data(as_text=True)
    return page


def decided(browser: FlaskClient, location: str, decision: str = "allow") -> Any:
    page = asked_on(browser, location)
    return browser.post(location, data={"csrf_token": token_in(page), "decision": decision})


def onward(answer: Any) -> str:
    """Where the page after the consent leads to."""
    link = parse(answer).select_one("a.primary")
    assert link is not None, answer.get_data(as_text=True)
    return str(link["href"])
