"""A person's AI client uses a server through the portal: the official Python and TypeScript SDK
clients, with a real browser, on one address with the pages."""

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from tests.journeys.conftest import Portal, SignIn
from tests.support.oauth.clients import (
    CLIENT_REDIRECT,
    Browse,
    call_with_mcp_remote,
    call_with_sdk,
)
from tests.support.peers import NODE_MODULES, ROOT, bare_environment, unavailable

PASSWORD = "a member's long password"
PROGRAM = ROOT / "tests" / "programs" / "ts_client.mjs"
TS_REDIRECT = "http://127.0.0.1:3031/callback"

Client = Callable[[str, Browse], dict[str, Any]]


@pytest.fixture(scope="module")
def desk(portal: Portal, echo_server: str) -> str:
    """The address of a server that needs a value of each person."""
    body = {
        "server_id": "desk",
        "server_name": "desk",
        "transport": "http",
        "url": echo_server,
        "static_headers": {"X-Corp-Token": "${CORP_TOKEN}"},
        "env_vars": [{"name": "CORP_TOKEN", "scope": "user"}],
        "allow_all_keys": True,
    }
    assert portal.api("POST", "/v1/mcp/server", body)[0] == 201
    return f"{portal.url}/desk/mcp"


def make_person(portal: Portal, name: str) -> None:
    """A Member with a password."""
    person = {
        "user_id": name,
        "email": f"{name}@example.com",
        "display_name": name.title(),
        "password": PASSWORD,
    }
    assert portal.api("POST", "/v1/users", person)[0] == 201


def python_client(url: str, browse: Browse) -> dict[str, Any]:
    outcome = call_with_sdk(url, browse, tool="show_headers", lists=True)
    return {"tools": sorted(outcome.tools), "seen": json.loads(outcome.text)}


def typescript_client(url: str, browse: Browse) -> dict[str, Any]:
    return _seen(_typescript(url, browse))


def _seen(told: dict[str, Any]) -> dict[str, Any]:
    seen = json.loads(told["result"]["content"][0]["text"])
    return {"tools": sorted(told["tools"]), "seen": seen}


def _typescript(url: str, browse: Browse, key: str | None = None) -> dict[str, Any]:
    node = shutil.which("node")
    if node is None or not (NODE_MODULES / "@modelcontextprotocol" / "sdk").exists():
        unavailable("The TypeScript SDK", "run `make peers`")
    argv = [node, str(PROGRAM), url, "show_headers", *([key] if key else [])]
    with subprocess.Popen(
        argv,
        env=bare_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            told: dict[str, Any] = json.loads(line)
            if "authorize" not in told:
                return told
            process.stdin.write(browse(told["authorize"]) + "\n")
            process.stdin.flush()
        raise AssertionError(process.stderr.read())


class Away:
    """A client that works in a thread of its own, whose browser is this thread's."""

    def __init__(self, client: Client, url: str) -> None:
        self._asked: queue.Queue[str] = queue.Queue()
        self._landed: queue.Queue[str] = queue.Queue()
        self._outcome: queue.Queue[Any] = queue.Queue()
        self._thread = threading.Thread(target=self._work, args=(client, url), daemon=True)
        self._thread.start()

    def _work(self, client: Client, url: str) -> None:
        try:
            self._outcome.put(client(url, self._browse))
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - the test raises it
            self._outcome.put(error)
            self._asked.put("")

    def _browse(self, address: str) -> str:
        self._asked.put(address)
        return self._landed.get(timeout=60)

    def address(self) -> str:
        """The page that the client opens."""
        found = self._asked.get(timeout=60)
        assert found, self.outcome()
        return found

    def land(self, address: str) -> None:
        """Bring the browser back to the client."""
        self._landed.put(address)

    def outcome(self) -> dict[str, Any]:
        """What the client got."""
        found = self._outcome.get(timeout=60)
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, dict)
        return found


@pytest.fixture
def fresh(browser_page_factory: Callable[..., Page]) -> Callable[[], Page]:
    """Makes a page of a browser in which nobody has signed in; it stays at the client's address."""

    def make() -> Page:
        page = browser_page_factory()

        def landed(route: Route) -> None:
            route.fulfill(body="You can close this window.", content_type="text/plain")

        for redirect in (CLIENT_REDIRECT, TS_REDIRECT):
            page.route(f"{redirect}**", landed)
        return page

    return make


def sign_in_and_allow(page: Page, away: Away, who: str, value: str) -> None:
    """In the browser: sign in, enter what is missing, and allow the app."""
    page.goto(away.address())
    page.get_by_label("Email").fill(f"{who}@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Allow this app to use desk?")).to_be_visible()
    page.get_by_role("textbox", name="CORP_TOKEN").fill(value)
    page.get_by_role("button", name="Allow", exact=True).click()
    page.wait_for_url(lambda url: urlsplit(url).path.endswith("/callback"))
    away.land(page.url)


@pytest.mark.parametrize(
    ("client", "people"), [(python_client, ("una", "ugo")), (typescript_client, ("ula", "uwe"))]
)
def test_members_connect_a_client_and_enter_their_value_on_the_way(
    portal: Portal,
    desk: str,
    sign_in: SignIn,
    fresh: Callable[[], Page],
    client: Client,
    people: tuple[str, str],
) -> None:
    for who in people:
        make_person(portal, who)
        waiting = sign_in(f"{who}@example.com", PASSWORD)
        waiting.goto(f"{portal.url}/servers/desk/connect")
        expect(waiting.get_by_text("Waiting for your client…")).to_be_visible()
        expect(waiting.locator("#connect-url")).to_have_text(desk)
        away = Away(client, desk)
        sign_in_and_allow(fresh(), away, who, f"{who}-word")
        outcome = away.outcome()
        assert "show_headers" in outcome["tools"]
        assert outcome["seen"]["x-corp-token"] == f"{who}-word"
        assert "authorization" not in outcome["seen"]
        expect(waiting.get_by_text("Client seen")).to_be_visible()


def mcp_remote(url: str, browse: Browse) -> dict[str, Any]:
    return {"seen": json.loads(call_with_mcp_remote(url, browse, tool="show_headers"))}


def test_a_desktop_client_signs_in_through_a_bridge(
    portal: Portal, desk: str, fresh: Callable[[], Page]
) -> None:
    """npm's mcp-remote, which waits for the browser itself."""
    make_person(portal, "ute")
    away = Away(mcp_remote, desk)
    sign_in_and_allow(fresh(), away, "ute", "ute-word")
    assert away.outcome()["seen"]["x-corp-token"] == "ute-word"


def test_with_a_key_the_client_is_told_what_is_missing_and_where(
    portal: Portal, desk: str, fresh: Callable[[], Page]
) -> None:
    """The same server with an API key: a plain result with the link, until the value is there."""
    make_person(portal, "uma")
    status, made = portal.api("POST", "/v1/keys", {"user_id": "uma"})
    assert status == 201, made
    told = _typescript(desk, no_browser, made["key"])
    assert told["result"]["isError"] is True
    text = told["result"]["content"][0]["text"]
    assert "CORP_TOKEN" in text
    link = told["result"]["_meta"]["mcp-portal/missing"]["setup_url"]
    assert link in text
    page = fresh()
    page.goto(link)
    page.get_by_label("Email").fill("uma@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("textbox", name="CORP_TOKEN").fill("uma-word")
    page.get_by_role("button", name="Save").first.click()
    expect(page.get_by_text("Return to your client and send the request again.")).to_be_visible()
    told = _typescript(desk, no_browser, made["key"])
    assert _seen(told)["seen"]["x-corp-token"] == "uma-word"


def no_browser(url: str) -> str:
    raise AssertionError(f"the client opened a browser: {url}")
