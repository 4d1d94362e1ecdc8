"""The picker of well-known servers: who sees it, its filters, what is added already, and the form
that it fills in."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from portal.app import create_app, open_database
from portal.services.catalog import discover
from portal.settings import Settings
from portal.store.database import Database
from portal.upstream.sandbox import Sandbox
from tests.conftest import Client, Portal, Write
from tests.support.browsing import CHANGED, Browser, look_at, text_of
from tests.support.counting import counted
from tests.support.factories import make_server
from tests.support.peers import need_sandbox

Browsing = Callable[[str], Browser]
PATH = "/servers/discover"


def cards(page: Any) -> list[str]:
    return [card["id"].removeprefix("entry-") for card in page.select("li.card")]


def test_dis_01_admins_add_readers_look_and_others_find_nothing(browser: Browsing) -> None:
    ada = browser("ada").open(PATH)
    vera = browser("vera").open(PATH)
    assert cards(ada) == cards(vera)
    assert len(cards(ada)) == 31
    assert ada.find("a", href="/servers/new?from=discover:github")
    assert not vera.select('a[href^="/servers/new"]')
    assert ada.select_one(f'nav a[href="{PATH}"][aria-current="page"]')
    for name in ("mel", "vic", "otto"):
        browser(name).open(PATH, 404)
        assert not browser(name).open("/servers").select(f'a[href="{PATH}"]')


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("?q=jira", ["atlassian"]),
        ("?category=Cloud", ["aws", "cloudflare"]),
        ("?category=Cloud&transport=stdio", ["aws"]),
        ("?transport=sse", ["cloudflare", "notion"]),
        ("?q=jira&category=Cloud", []),
        ("?category=nonsense&transport=fax", []),
    ],
)
def test_dis_03_the_filters_are_in_the_address_and_work_without_a_script(
    browser: Browsing, asked: str, names: list[str]
) -> None:
    ada = browser("ada")
    page = ada.open(PATH + asked)
    assert cards(page) == names
    assert ("No matching servers" in text_of(page)) is (not names)
    form = page.select_one("main form[method=get]")
    assert form
    assert form["action"] == PATH
    assert form.select_one("button.no-js-only")
    piece = ada.open(PATH + asked, headers={"HX-Request": "true"})
    assert not piece.html
    assert cards(piece) == names


def test_nothing_on_the_page_comes_from_another_host(browser: Browsing) -> None:
    page = browser("ada").open(PATH)
    sources = [tag.get("src") or tag.get("href") for tag in page.select("img, script, link, use")]
    assert [source for source in sources if not source.startswith("/static/")] == []
    assert page.select("li.card .logo svg")


def test_what_is_in_the_catalogue_is_marked_and_leads_there(
    browser: Browsing, write: Write
) -> None:
    with write() as session:
        make_server(session, "our_linear", url="https://mcp.linear.app/mcp/")
        make_server(session, "else", url="https://mcp.exa.ai/another-path")
    page = browser("vera").open(PATH)
    linear = page.select_one("#entry-linear")
    assert "Already added" in text_of(linear)
    assert linear is not None
    assert linear.find("a", href="/servers/id-our_linear")
    ada = browser("ada").open(PATH)
    assert not ada.find("a", href="/servers/new?from=discover:linear")
    assert ada.find("a", href="/servers/new?from=discover:exa"), (
        "the same host is not the same address"
    )


def test_the_page_costs_as_many_queries_however_many_servers_there_are(
    browser: Browsing, write: Write, database: Database
) -> None:
    vera = browser("vera")
    with write() as session:
        make_server(session, "first", url="https://mcp.linear.app/mcp")
    vera.open(PATH)
    with counted(database) as few:
        vera.open(PATH)
    with write() as session:
        for number in range(20):
            make_server(session, f"s{number}", url="https://mcp.exa.ai/mcp")
    with counted(database) as many:
        vera.open(PATH)
    assert len(many) == len(few)


def test_add_fills_in_the_form_and_saves_nothing(
    browser: Browsing, client: Callable[[str], Client]
) -> None:
    ada = browser("ada")
    page = ada.open("/servers/new?from=discover:github")
    form = page.select_one("form[data-guard]")
    assert form
    assert form.select_one("#url")["value"] == "https://api.githubcopilot.com/mcp/"
    assert form.select_one("#server_name")["value"] == "github"
    assert form.select_one("input[name=transport][checked]")["value"] == "http"
    assert form.select_one("#auth_type option[selected]")["value"] == "bearer_token"
    assert "GITHUB_PERSONAL_ACCESS_TOKEN" in text_of(page.select_one("#form .alert"))
    assert not client("ada").get("/v1/mcp/server/github").get_json().get("server_id")
    answer = ada.send("/servers/new?from=discover:github", auth_value="SECRET-token")
    assert answer.status_code == CHANGED
    saved = client("ada").get("/v1/mcp/server/github").get_json()
    assert (saved["url"], saved["auth_type"]) == (
        "https://api.githubcopilot.com/mcp/",
        "bearer_token",
    )


def test_what_was_filled_in_survives_a_failed_save_and_what_was_typed_over_it_does_not(
    browser: Browsing,
) -> None:
    path = "/servers/new?from=discover:linear"
    ada = browser("ada")
    again = look_at(ada.send(path, server_name=""), 422)
    assert again.select_one("#url")["value"] == "https://mcp.linear.app/mcp"
    assert again.select_one("form[data-guard]")["action"] == path, (
        "it still knows where it came from"
    )
    changed = look_at(ada.send(path, server_name="", url="https://own.example/SECRET-path"), 422)
    assert not changed.select_one("#url").get("value")


@pytest.mark.parametrize(
    "source", ["discover:nothing", "elsewhere:github", "github", "", "discover:", "a" * 999]
)
def test_only_our_own_lists_fill_in_the_form(browser: Browsing, source: str) -> None:
    page = browser("ada").open(
        f"/servers/new?from={source}&url=https://evil.example&server_name=evil"
    )
    assert not page.select_one("#url").get("value")
    assert not page.select_one("#server_name").get("value")
    assert "Filled in from" not in page.text
    browser("mel").open(f"/servers/new?from={source}", 404)


def test_programs_are_explained_where_they_may_not_run(browser: Browsing) -> None:
    ada = browser("ada")
    page = ada.open(PATH + "?q=redis")
    assert "PORTAL_ENABLE_STDIO" in text_of(page.select_one(".alert"))
    assert "Not allowed" in text_of(page.select_one("#entry-redis"))
    assert not page.select('li a[href^="/servers/new"]')
    form = ada.open("/servers/new?from=discover:redis")
    assert "PORTAL_ENABLE_STDIO" in text_of(form.select_one("#form .alert"))
    assert form.select_one("#server_name")["value"] == "redis"
    assert not form.select("#env-rows > *")


@pytest.fixture
def with_programs(portal: Portal, settings: Settings) -> Iterator[Browser]:
    """Ada in front of a portal in which programs may be run."""
    need_sandbox(Sandbox())
    allowing = settings.model_copy(update={"enable_stdio": True})
    database = open_database(allowing)
    client = create_app(allowing, database=database).test_client()
    ada = Browser(Client(client, {}))
    form = {"email": "ada@example.com", "password": "correct horse SECRET staple"}
    token = ada.open("/login").select_one("input[name=csrf_token]")
    assert token
    assert client.post("/login", data={**form, "csrf_token": token["value"]}).status_code == CHANGED
    yield ada
    database.engine.dispose()


def test_a_program_fills_in_command_arguments_and_the_names_of_its_values(
    with_programs: Browser,
) -> None:
    path = "/servers/new?from=discover:slack"
    form = with_programs.form("/servers/new?from=discover:slack")
    assert form.select_one("input[name=transport][checked]")["value"] == "stdio"
    assert form.select_one("#command")["value"] == "npx"
    assert form.select_one("#args").text.split() == ["-y", "@modelcontextprotocol/server-slack"]
    names = [box["value"] for box in form.select('#env-rows input[name$="-name"]')]
    assert names == ["SLACK_BOT_TOKEN", "SLACK_TEAM_ID"]
    again = look_at(with_programs.send(path, press="add"))
    assert again.select_one("#args").text.split() == ["-y", "@modelcontextprotocol/server-slack"]
    values = {"env-0-value": "SECRET-token", "env-1-value": "T1"}
    assert with_programs.send(path, **values).status_code == CHANGED
    assert "Already added" in text_of(with_programs.open(PATH).select_one("#entry-slack"))
    assert "Already added" not in text_of(with_programs.open(PATH).select_one("#entry-filesystem"))


def test_dis_05_without_its_file_the_page_says_so(
    browser: Browsing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discover, "FILE", tmp_path / "missing.json")
    assert "could not be read" in text_of(browser("ada").open(PATH))
    assert (
        not browser("ada").open("/servers/new?from=discover:github").select_one("#url").get("value")
    )
