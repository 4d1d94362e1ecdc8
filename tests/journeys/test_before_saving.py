"""In a real browser: a server is signed in to before it is saved, and a key is brought in the flow
of an MCP client."""

import base64
import hashlib
import json
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.journeys.conftest import ADMIN, Portal, SignIn
from tests.journeys.test_accessibility import LOOKS, serious
from tests.support.oauth_peers import ProtectedServer
from tests.support.peers import free_port

VERIFIER = "a-verifier-that-has-at-least-forty-three-characters"
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
)


class Listener:
    """An MCP client's own redirect URI: it keeps what the browser brings."""

    def __init__(self) -> None:
        self.brought: list[dict[str, str]] = []
        heard = self.brought

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = urlsplit(self.path)
                if asked.path == "/callback":  # and not the icon
                    heard.append({name: found[0] for name, found in parse_qs(asked.query).items()})
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(b"<!doctype html><title>Done</title><h1>Back in the app</h1>")

            def log_message(self, *_words: object) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/callback"


@pytest.fixture
def listener() -> Iterator[Listener]:
    listening = Listener()
    thread = threading.Thread(target=listening.server.serve_forever)
    thread.start()
    yield listening
    listening.server.shutdown()
    thread.join()
    listening.server.server_close()


@pytest.fixture
def own(portal: Portal) -> str:
    """A key server."""
    server_id = f"own{free_port()}"
    body = {
        "server_id": server_id,
        "server_name": server_id,
        "transport": "http",
        "url": "http://127.0.0.1:9/mcp",
        "auth_type": "bearer_token",
        "is_byok": True,
        "byok_description": ["Read your notes", "Write new ones"],
        "byok_api_key_help_url": "https://notes.example/keys",
    }
    assert portal.api("POST", "/v1/mcp/server", body)[0] == 201
    return server_id


def address(portal: Portal, listener: Listener, server_id: str) -> str:
    """What a client opens in the browser."""
    query = {
        "response_type": "code",
        "redirect_uri": listener.url,
        "code_challenge": CHALLENGE,
        "state": "s1",
        "code_challenge_method": "S256",
        "client_id": "https://claude.example/client.json",
        "server_id": server_id,
    }
    return f"{portal.url}/oauth/authorize?{urlencode(query)}"


def redeemed(portal: Portal, listener: Listener, code: str) -> dict[str, Any]:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": listener.url,
        "client_id": "https://claude.example/client.json",
        "code_verifier": VERIFIER,
    }
    with urllib.request.urlopen(
        f"{portal.url}/oauth/token", urlencode(form).encode(), timeout=20
    ) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


@pytest.mark.parametrize(("viewport", "scheme"), LOOKS, ids=["wide-light", "narrow-dark"])
def test_a_key_is_brought_in_the_flow_of_a_client(
    portal: Portal,
    sign_in: SignIn,
    listener: Listener,
    own: str,
    viewport: dict[str, int],
    scheme: str,
) -> None:
    """Signed in first, the page, the way back over the form's policy (ui.md, O2), and the token
    that lists tools."""
    page: Page = sign_in(viewport=viewport, color_scheme=scheme)
    page.context.clear_cookies()
    page.goto(address(portal, listener, own))
    page.get_by_label("Email").fill(ADMIN[0])
    page.get_by_label("Password").fill(ADMIN[1])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name=f"Enter your key for {own}")).to_be_visible()
    assert serious(page) == []
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    page.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("alert")).to_contain_text("Enter a value.")
    page.get_by_label("API key", exact=True).fill("a key of my own")
    page.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("heading", name="Back in the app")).to_be_visible()
    brought = listener.brought[0]
    assert (brought["state"], brought["iss"]) == ("s1", f"{portal.url}/{own}")
    token = redeemed(portal, listener, brought["code"])["access_token"]
    assert portal.api("GET", "/v1/mcp/tools", key=token)[0] == 200
    assert portal.api("GET", "/v1/mcp/server", key=token)[0] == 403
    page.goto(address(portal, listener, own))
    expect(page.get_by_text("Leave this field empty to keep it.")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="Back in the app")).to_be_visible()
    assert listener.brought[-1]["error"] == "access_denied"


@pytest.mark.parametrize(("viewport", "scheme"), LOOKS, ids=["wide-light", "narrow-dark"])
def test_tools_are_listed_before_a_server_is_saved(
    portal: Portal,
    sign_in: SignIn,
    protected_mcp_server: ProtectedServer,
    viewport: dict[str, int],
    scheme: str,
) -> None:
    """Out of the form, through the provider's page, back to what was typed with the tools, saved,
    connected."""
    protected_mcp_server.configure(consent="form")
    name = f"early{free_port()}"
    page: Page = sign_in(viewport=viewport, color_scheme=scheme)
    page.goto(f"{portal.url}/servers/new")
    page.get_by_label("Name", exact=True).first.fill(name)
    page.get_by_label("Description", exact=False).first.fill("Typed before")
    page.get_by_label("Address").fill(protected_mcp_server.url)
    button = page.get_by_role("button", name="Sign in and list tools")
    expect(button).to_be_hidden()
    page.get_by_label("Authentication", exact=True).select_option("oauth2")
    button.click()
    page.locator("input[name=user]").fill("carol")
    page.get_by_role("button", name="Allow").click()
    expect(page.get_by_text("Signed in")).to_be_visible()
    expect(page.locator("#sign-in-result")).to_contain_text("whoami")
    expect(page.get_by_text("Kept for 5 minutes, but not shown: Address.")).to_be_visible()
    expect(page.get_by_label("Name", exact=True).first).to_have_value(name)
    assert serious(page) == []
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    page.get_by_role("button", name="Add server").click()
    expect(page.get_by_text(f"{name} added. You are connected to it.").first).to_be_visible()
    page.goto(f"{portal.url}/credentials")
    expect(page.locator("main")).to_contain_text(name)
