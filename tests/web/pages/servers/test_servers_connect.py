"""The Connect tab: what each client needs, for those who may use the server, and never a key."""

import base64
import json
from collections.abc import Callable
from urllib.parse import parse_qs, unquote, urlsplit

from portal.domain.snippets import endpoint, snippets
from tests.conftest import Client, Portal, Write
from tests.support.browsing import Browser, look_at, text_of
from tests.support.factories import PASSWORD, make_server

Browsing = Callable[[str], Browser]
URL = "https://gateway.example/github/mcp"


def test_every_client_is_told_the_address_and_none_a_key() -> None:
    found = {snippet.client: snippet for snippet in snippets("github", URL)}
    assert list(found) == ["claude-code", "claude-desktop", "cursor", "vs-code", "curl"]
    assert all(URL in snippet.text for snippet in found.values())
    expected = (
        f'claude mcp add --transport http github {URL} --header "Authorization: Bearer'
        ' ${PORTAL_KEY}"'
    )
    assert found["claude-code"].text == expected
    assert json.loads(found["cursor"].text)["mcpServers"]["github"]["url"] == URL
    vs_code = json.loads(found["vs-code"].text)
    assert vs_code["inputs"][0]["password"] is True
    assert vs_code["servers"]["github"]["headers"]["Authorization"] == "Bearer ${input:portal-key}"
    assert "mcp-remote" in json.loads(found["claude-desktop"].text)["mcpServers"]["github"]["args"]


def test_deep_links_carry_what_the_files_say() -> None:
    found = {snippet.client: snippet for snippet in snippets("git hub&x", URL)}
    cursor = urlsplit(found["cursor"].link)
    given = parse_qs(cursor.query)
    assert (cursor.scheme, cursor.netloc, cursor.path) == (
        "cursor",
        "anysphere.cursor-deeplink",
        "/mcp/install",
    )
    assert given["name"] == ["git hub&x"]
    config = json.loads(base64.b64decode(given["config"][0]))
    assert config == json.loads(found["cursor"].text)["mcpServers"]["git hub&x"]
    link = found["vs-code"].link
    assert link.startswith("vscode:mcp/install?")
    assert json.loads(unquote(link.split("?", 1)[1]))["name"] == "git hub&x"


def test_names_and_addresses_are_quoted() -> None:
    assert endpoint("https://g.example/", "a/b c") == "https://g.example/a%2Fb%20c/mcp"
    command = snippets("x; rm -rf $HOME", "https://g.example/x/mcp")[0].text
    assert "'x; rm -rf $HOME'" in command


def test_it_points_to_the_portals_own_address(browser: Browsing) -> None:
    page = browser("mel").open("/servers/id-notes/connect")
    assert "http://127.0.0.1:8000/notes/mcp" in text_of(page)
    assert len(page.select('a[href^="cursor:"], a[href^="vscode:"]')) == 2
    assert page.select("[data-copy]")


def test_with_a_gateway_elsewhere_it_points_there(
    portal_with: Callable[..., Portal], write: Write
) -> None:
    app = portal_with(gateway_url="https://gateway.example").app
    with write() as session:
        make_server(session, "github", alias="gh", allow_all_keys=True)
    browser = app.test_client()
    token = look_at(browser.get("/login")).select_one("input[name=csrf_token]")["value"]
    browser.post(
        "/login", data={"email": "otto@example.com", "password": PASSWORD, "csrf_token": token}
    )
    page = Browser(Client(browser, {})).open("/servers/id-github/connect")
    assert "https://gateway.example/gh/mcp" in text_of(page)
    schemes = {urlsplit(link["href"]).scheme for link in page.select("main a[href]")}
    assert schemes == {"", "cursor", "vscode"}


def test_the_tab_is_for_those_who_may_use_the_server(browser: Browsing) -> None:
    browser("otto").open("/servers/id-notes/connect", 404)
    assert browser("mel").open("/servers/id-notes").find("a", href="/servers/id-notes/connect")
