"""Toolsets in the browser: who sees which, the editor that picks across servers, and what is no
longer offered."""

from collections.abc import Callable

import pytest

from portal.domain.principals import OPERATOR
from portal.services.tools import toolsets
from portal.services.tools.toolsets import ToolRef
from portal.store.database import Database
from tests.conftest import NOTES, Client, Write
from tests.support.browsing import CHANGED, Browser, look_at, text_of
from tests.support.counting import counted
from tests.support.factories import make_server

Browsing = Callable[[str], Browser]
As = Callable[[str | None], Client]


@pytest.fixture
def adding(write: Write, echo_server: str) -> str:
    """A toolset of two tools of a server that answers; one of them is not there any more."""
    with write() as session:
        make_server(session, "echo", url=echo_server)
        refs = [ToolRef("echo", "add"), ToolRef("echo", "long_gone")]
        return toolsets.create_toolset(session, OPERATOR, "adding", "For sums", refs).toolset_id


def test_tls_06_each_sees_what_is_granted(browser: Browsing, client: As, adding: str) -> None:
    assert "No toolsets yet" in text_of(browser("mel").open("/toolsets"))
    browser("mel").open(f"/toolsets/{adding}", 404)
    client("ada").patch("/v1/users/mel", {"object_permission": {"mcp_toolsets": ["adding"]}})
    for name in ("ada", "vera", "mel"):
        listed = browser(name).open("/toolsets")
        assert listed.find("a", href=f"/toolsets/{adding}")
        assert bool(listed.find("a", href="/toolsets/new")) is (name == "ada")
    page = browser("mel").open(f"/toolsets/{adding}")
    assert not page.find("a", href=f"/toolsets/{adding}/edit")
    assert "Used by" not in text_of(page)


def test_stale_tools_and_tokens_are_shown_once_the_servers_were_asked(
    browser: Browsing, adding: str
) -> None:
    vera = browser("vera")
    before = text_of(vera.open(f"/toolsets/{adding}"))
    assert "No longer offered" not in before
    assert "Not checked" in before
    after = vera.open(f"/toolsets/{adding}?now=1")
    rows = {text_of(row.select_one("code")): text_of(row) for row in after.select("tbody tr")}
    assert "No longer offered" in rows["long_gone"]
    assert "No longer offered" not in rows["add"]
    assert "1 tool no longer offered" in text_of(after)
    assert "tokens of a model’s context" in text_of(after)


def test_a_server_that_does_not_answer_makes_no_tool_stale(
    browser: Browsing, client: As, write: Write
) -> None:
    with write() as session:
        made = toolsets.create_toolset(
            session, OPERATOR, "notes", None, [ToolRef(NOTES, "find")]
        ).toolset_id
    client("ada").patch("/v1/users/mel", {"object_permission": {"mcp_toolsets": [made]}})
    for name in ("ada", "mel"):
        page = text_of(browser(name).open(f"/toolsets/{made}?now=1"))
        assert "could not be listed" in page
        assert "No longer offered" not in page
        assert ("127.0.0.1" in page) is (name == "ada"), "hosts are for those with admin view"


def test_an_admin_picks_tools_across_servers_without_a_script(
    browser: Browsing, adding: str, write: Write
) -> None:
    ada = browser("ada")
    shown = look_at(
        ada.post(
            "/toolsets/new",
            toolset_name="mixed",
            server_id="id-echo",
            look="tools",
            find_tool="sum",
            tools=[f'["{NOTES}","find"]'],
        )
    )
    assert shown.select_one("input[name=toolset_name]")["value"] == "mixed"
    ticked = [box["value"] for box in shown.select("input[name=tools][checked]")]
    offered = [box["value"] for box in shown.select("input[name=tools]:not([checked])")]
    assert ticked == [f'["{NOTES}","find"]']
    assert offered == [], "no tool of the echo server mentions sums"
    wider = look_at(
        ada.post(
            "/toolsets/new",
            toolset_name="mixed",
            server_id="id-echo",
            look="tools",
            tools=[f'["{NOTES}","find"]'],
        )
    )
    assert '["id-echo","add"]' in [
        box["value"] for box in wider.select("input[name=tools]:not([checked])")
    ]
    saved = ada.post(
        "/toolsets/new",
        toolset_name="mixed",
        save="yes",
        tools=[f'["{NOTES}","find"]', '["id-echo","add"]'],
    )
    assert saved.status_code == CHANGED
    page = text_of(ada.open(saved.location))
    assert "2 tools of 2 servers" in page


def test_the_editor_marks_what_is_gone_and_unticking_removes(
    browser: Browsing, adding: str
) -> None:
    ada = browser("ada")
    path = f"/toolsets/{adding}/edit"
    both = ['["id-echo","add"]', '["id-echo","long_gone"]']
    looked = look_at(
        ada.post(path, toolset_name="adding", tools=both, server_id="id-echo", look="tools")
    )
    gone = looked.select_one("""input[value='["id-echo","long_gone"]']""").find_parent("label")
    assert "No longer offered" in text_of(gone)
    assert ada.send(path, tools=both[:1]).status_code == CHANGED
    assert "long_gone" not in text_of(ada.open(f"/toolsets/{adding}"))


def test_tls_03_what_is_wrong_is_said_at_its_field(browser: Browsing, adding: str) -> None:
    ada = browser("ada")
    for fields, words in (
        ({"toolset_name": ""}, "Enter a name"),
        ({"toolset_name": "adding"}, "called adding already"),
        ({"toolset_name": "x", "tools": "nonsense"}, "Select tools from the list"),
        ({"toolset_name": "x", "tools": '["nowhere","t"]'}, "no MCP server"),
    ):
        page = look_at(ada.post("/toolsets/new", save="yes", **fields), 422)
        assert words in text_of(page.select_one("[data-error-summary]"))


def test_deleting_says_who_has_it_first(browser: Browsing, client: As, adding: str) -> None:
    client("ada").patch("/v1/users/mel", {"object_permission": {"mcp_toolsets": ["adding"]}})
    ada = browser("ada")
    path = f"/toolsets/{adding}/delete"
    assert "Mel" in text_of(ada.open(path))
    assert ada.send(path).status_code == CHANGED
    ada.open(f"/toolsets/{adding}", 404)


def test_the_list_costs_as_many_queries_for_fifty_as_for_two(
    browser: Browsing, database: Database, write: Write
) -> None:
    counts = []
    for start, end in ((0, 2), (2, 50)):
        with write() as session:
            for number in range(start, end):
                toolsets.create_toolset(
                    session, OPERATOR, f"set {number}", None, [ToolRef(NOTES, "find")]
                )
        ada = browser("ada")
        with counted(database) as statements:
            ada.open("/toolsets")
        counts.append(len(statements))
    assert counts[0] == counts[1]
