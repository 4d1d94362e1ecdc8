"""The Connect tab: what each client needs, for those who may use the server, and never a key."""

import base64
import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import pytest
from sqlalchemy import select

from portal.domain.principals import OPERATOR
from portal.domain.snippets import Snippet, endpoint, key_snippets, sign_in_snippets
from portal.services.access import users
from portal.services.gateway import calls
from portal.services.gateway.calls import Caller, Use
from portal.services.servers import crud
from portal.store.call_tables import McpUse
from portal.store.models import now
from tests.conftest import Client, Portal, Write
from tests.support.browsing import Browser, look_at, text_of
from tests.support.factories import PASSWORD, make_server

Browsing = Callable[[str], Browser]
URL = "https://gateway.example/github/mcp"


def test_every_client_is_told_the_address_and_none_a_key() -> None:
    found = {snippet.client: snippet for snippet in key_snippets("github", URL)}
    clients = ["claude-code-key", "claude-desktop-key", "cursor-key", "vs-code-key", "curl"]
    assert list(found) == clients
    assert all(URL in snippet.text for snippet in found.values())
    expected = (
        f'claude mcp add --transport http github {URL} --header "Authorization: Bearer'
        ' ${PORTAL_KEY}"'
    )
    assert found["claude-code-key"].text == expected
    assert json.loads(found["cursor-key"].text)["mcpServers"]["github"]["url"] == URL
    vs_code = json.loads(found["vs-code-key"].text)
    assert vs_code["inputs"][0]["password"] is True
    assert vs_code["servers"]["github"]["headers"]["Authorization"] == "Bearer ${input:portal-key}"
    desktop = json.loads(found["claude-desktop-key"].text)["mcpServers"]["github"]
    assert "mcp-remote" in desktop["args"]


def test_clients_that_sign_in_need_the_address_alone() -> None:
    found = {snippet.client: snippet for snippet in sign_in_snippets("github", URL)}
    assert list(found) == ["claude-code", "claude-desktop", "cursor", "vs-code"]
    assert found["claude-code"].text == f"claude mcp add --transport http github {URL}"
    desktop = json.loads(found["claude-desktop"].text)["mcpServers"]["github"]
    assert desktop == {"command": "npx", "args": ["-y", "mcp-remote", URL]}
    assert json.loads(found["cursor"].text) == {"mcpServers": {"github": {"url": URL}}}
    assert json.loads(found["vs-code"].text) == {
        "servers": {"github": {"type": "http", "url": URL}}
    }
    for snippet in found.values():
        assert not re.search("header|key|bearer", snippet.text, re.I)


@pytest.mark.parametrize(("snippets", "end"), [(sign_in_snippets, ""), (key_snippets, "-key")])
def test_deep_links_carry_what_the_files_say(
    snippets: Callable[[str, str], tuple[Snippet, ...]], end: str
) -> None:
    found = {snippet.client: snippet for snippet in snippets("git hub&x", URL)}
    cursor = urlsplit(found[f"cursor{end}"].link)
    given = parse_qs(cursor.query)
    assert (cursor.scheme, cursor.netloc, cursor.path) == (
        "cursor",
        "anysphere.cursor-deeplink",
        "/mcp/install",
    )
    assert given["name"] == ["git hub&x"]
    config = json.loads(base64.b64decode(given["config"][0]))
    assert config == json.loads(found[f"cursor{end}"].text)["mcpServers"]["git hub&x"]
    link = found[f"vs-code{end}"].link
    assert link.startswith("vscode:mcp/install?")
    told = json.loads(unquote(link.split("?", 1)[1]))
    name, inputs = told.pop("name"), told.pop("inputs", None)
    file = json.loads(found[f"vs-code{end}"].text)
    assert (name, told, inputs) == ("git hub&x", file["servers"]["git hub&x"], file.get("inputs"))


def test_names_and_addresses_are_quoted() -> None:
    assert endpoint("https://g.example/", "a/b c") == "https://g.example/a%2Fb%20c/mcp"
    command = key_snippets("x; rm -rf $HOME", "https://g.example/x/mcp")[0].text
    assert "'x; rm -rf $HOME'" in command


def test_it_points_to_the_portals_own_address(browser: Browsing) -> None:
    page = browser("mel").open("/servers/id-notes/connect")
    assert "http://127.0.0.1:8000/notes/mcp" in text_of(page)
    assert len(page.select('a[href^="cursor:"], a[href^="vscode:"]')) == 4
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


# What the gateway saw of the person's client.


def seen_by_the_gateway(
    write: Write, at: datetime, who: str = "mel", server: str = "id-notes", *, is_call: bool = True
) -> None:
    caller = Caller(who, None, None, "Cursor", "1.2")
    with write() as session:
        calls.note_uses(session, OPERATOR, [Use(at, caller, server, is_call)])


def waiting_part(browser: Browser, address: str) -> Any:
    """What htmx gets when it asks again."""
    return browser.client.get(address, headers={"HX-Request": "true"})


def test_the_page_waits_and_turns_when_the_client_of_this_person_was_seen(
    browser: Browsing, write: Write
) -> None:
    mel = browser("mel")
    page = mel.open("/servers/id-notes/connect")
    section = page.select_one('[aria-live="polite"]')
    assert section is not None
    assert "Waiting for your client…" in text_of(section)
    assert "Last used" not in text_of(section)
    poll = section.select_one("[hx-get]")
    assert poll is not None
    assert poll["hx-trigger"] == "every 2s"
    address = str(poll["hx-get"])
    [reload] = section.select("a.no-js-only")
    assert (reload["href"], text_of(reload)) == (address, "Reload")
    make_otto_use_it(write)
    assert waiting_part(mel, address).status_code == 204
    seen_by_the_gateway(write, now(), is_call=False)
    part = waiting_part(mel, address).get_data(as_text=True)
    assert "Cursor 1.2" in part
    assert "listed what this server offers" in part
    assert "hx-get" not in part
    assert "html" not in part
    seen_by_the_gateway(write, now())
    assert "called this server" in text_of(mel.open(address))


def make_otto_use_it(write: Write) -> None:
    with write() as session:
        make_server(session, "another", allow_all_keys=True)
    seen_by_the_gateway(write, now(), "otto")
    seen_by_the_gateway(write, now(), "mel", "id-another")


def test_an_earlier_use_is_told_and_is_no_sign_of_the_client(
    browser: Browsing, write: Write
) -> None:
    seen_by_the_gateway(write, now() - timedelta(hours=3))
    page = browser("mel").open("/servers/id-notes/connect")
    assert "Waiting for your client…" in text_of(page)
    assert "Last used 3 h ago with Cursor 1.2." in text_of(page)


@pytest.mark.parametrize("use", [None, timedelta(minutes=5)], ids=["unused", "used meanwhile"])
def test_after_ten_minutes_it_asks_no_more(
    browser: Browsing, write: Write, use: timedelta | None
) -> None:
    since = now() - timedelta(minutes=10, seconds=1)
    if use is not None:
        seen_by_the_gateway(write, since + use)
    address = f"/servers/id-notes/connect?{urlencode({'since': since.isoformat()})}"
    answer = waiting_part(browser("mel"), address)
    assert answer.status_code == 200
    part = answer.get_data(as_text=True)
    assert "hx-get" not in part
    assert ("Wait again" in part) is (use is None)
    assert ("called this server" in part) is (use is not None)


@pytest.mark.parametrize("since", ["", "tomorrow", "9999-12-31T23:59:59-12:00", "2999-01-01"])
def test_a_time_that_is_none_counts_as_now(browser: Browsing, write: Write, since: str) -> None:
    seen_by_the_gateway(write, now() - timedelta(seconds=30))
    page = browser("mel").open(f"/servers/id-notes/connect?since={since}")
    assert "Waiting for your client…" in text_of(page)
    assert since[:5] not in str(page.select_one("[hx-get]")) or not since


def test_uses_end_with_the_person_and_the_server(write: Write) -> None:
    make_otto_use_it(write)
    with write() as session:
        users.delete_user(session, OPERATOR, "otto")
        crud.delete_server(session, OPERATOR, "id-another")
    with write() as session:
        assert session.scalars(select(McpUse)).all() == []
    too_late = [
        Use(now(), Caller(who, None, None, None, None), server, is_call=True)
        for who, server in (("otto", "id-notes"), ("mel", "id-another"))
    ]
    with write() as session:
        calls.note_uses(session, OPERATOR, too_late)
        assert session.scalars(select(McpUse)).all() == []
