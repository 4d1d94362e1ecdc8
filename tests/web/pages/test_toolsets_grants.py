"""Toolsets are granted on the pages of teams, people and keys, seen there and on the toolset, and
connected to."""

from collections.abc import Callable

import pytest

from portal.domain.principals import OPERATOR
from portal.services.tools import toolsets
from portal.services.tools.toolsets import ToolRef
from tests.conftest import CREW, NOTES, Client, Write
from tests.support.browsing import CHANGED, Browser, look_at, text_of

Browsing = Callable[[str], Browser]
As = Callable[[str], Client]
TEAM = f"/admin/teams/{CREW}"
USER = "/admin/users/otto"
KEY = "/admin/keys/new"


@pytest.fixture
def papers(write: Write) -> str:
    """A toolset, besides another that nobody gets."""
    with write() as session:
        toolsets.create_toolset(session, OPERATOR, "other", None, [])
        return toolsets.create_toolset(
            session, OPERATOR, "papers", None, [ToolRef(NOTES, "find")]
        ).toolset_id


def granted(client: As, path: str) -> list[str]:
    found: list[str] = client("ada").get(path).get_json()["object_permission"]["mcp_toolsets"]
    return found


@pytest.mark.parametrize(("page", "api"), [(TEAM, f"/v1/teams/{CREW}"), (USER, "/v1/users/otto")])
def test_tls_06_a_ticked_toolset_is_granted_and_an_unticked_one_taken_back(
    browser: Browsing, client: As, papers: str, page: str, api: str
) -> None:
    ada = browser("ada")
    before = client("ada").get(api).get_json()["object_permission"]
    assert ada.send(page, toolsets=[papers]).status_code == CHANGED
    assert client("ada").get(api).get_json()["object_permission"] == {
        **before,
        "mcp_toolsets": [papers],
    }
    ticked = ada.open(page).select("input[name=toolsets][checked]")
    assert [box["value"] for box in ticked] == [papers]
    assert ada.send(page).status_code == CHANGED
    assert granted(client, api) == [papers], "saving something else keeps it"
    assert ada.send(page, toolsets=None).status_code == CHANGED
    assert granted(client, api) == []


def test_a_granted_toolset_opens_for_the_people_of_the_team(browser: Browsing, papers: str) -> None:
    browser("mel").open(f"/toolsets/{papers}", 404)
    browser("ada").send(TEAM, toolsets=[papers])
    assert "papers" in text_of(browser("mel").open("/toolsets"))
    assert "other" not in text_of(browser("mel").open("/toolsets").select_one("main"))
    page = browser("vera").open(f"/toolsets/{papers}")
    assert "crew" in text_of(page.select_one('section[aria-labelledby="reach"]'))


@pytest.mark.parametrize("page", [TEAM, USER])
def test_a_read_only_admin_sees_what_is_granted_and_cannot_change_it(
    browser: Browsing, client: As, papers: str, page: str
) -> None:
    assert "Toolsets None" in text_of(browser("vera").open(page).select_one("main"))
    browser("ada").send(page, toolsets=[papers])
    shown = browser("vera").open(page)
    assert shown.select_one(f'main a[href="/toolsets/{papers}"]')
    assert not shown.select("input[name=toolsets]")
    assert browser("vera").post(page, toolsets="").status_code == 403
    browser("mel").open(page, 404)


def test_a_toolset_that_is_gone_is_told_on_its_field(browser: Browsing) -> None:
    page = look_at(browser("ada").send(TEAM, toolsets=["nothing"]), 422)
    assert "There is no toolset called nothing" in text_of(page.select_one("#toolsets-error"))


def test_tls_06_a_key_is_issued_with_toolsets(browser: Browsing, client: As, papers: str) -> None:
    ada = browser("ada")
    answer = ada.send(KEY, key_alias="reader", user_id="otto", toolsets=[papers])
    assert answer.status_code == 200
    (key,) = (
        k for k in client("ada").get("/v1/keys").get_json()["items"] if k["key_alias"] == "reader"
    )
    assert key["object_permission"]["mcp_toolsets"] == [papers]
    row = next(
        row for row in ada.open("/admin/keys").select("tbody tr") if "reader" in text_of(row)
    )
    assert "1 toolset" in text_of(row)
    assert "API keys 1" in text_of(browser("vera").open(f"/toolsets/{papers}"))
    assert not browser("mel").open("/keys/new").select("input[name=toolsets]"), (
        "only an Admin grants them"
    )


def test_a_toolset_has_an_address_of_its_own_for_clients(browser: Browsing, papers: str) -> None:
    path = f"/toolsets/{papers}/connect"
    browser("mel").open(path, 404)
    browser("ada").send(TEAM, toolsets=[papers])
    for name in ("ada", "vera", "mel"):
        page = browser(name).open(path)
        assert (
            text_of(page.select_one("#connect-url")) == "http://127.0.0.1:8000/toolset/papers/mcp"
        )
        assert "does not serve toolsets to clients yet" in text_of(page)
        assert "claude mcp add --transport http papers" in text_of(page)
        assert browser(name).open(f"/toolsets/{papers}").find("a", href=path)
    assert "sk-" not in browser("mel").client.get(path).get_data(as_text=True)
