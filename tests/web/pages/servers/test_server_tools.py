"""The Tools tab, by the numbers of the behaviours: which tools are enabled, and what they are
called."""

from collections.abc import Callable
from typing import Any

import pytest

from portal.domain.tool_groups import group_of
from tests.conftest import Client, Write
from tests.support.browsing import text_of
from tests.support.factories import make_server
from tests.support.html import filled, parse

SignedIn = Callable[[str], Client]
As = Callable[[str | None], Client]
TAB = "/servers/id-s/tools"
NOW = f"{TAB}?now=1"
ALL = {"show_headers", "whoami", "add", "search_notes", "slow"}


@pytest.fixture
def make(write: Write, echo_server: str) -> Callable[..., None]:
    def making(**fields: Any) -> None:
        with write() as session:
            make_server(session, "s", url=echo_server, allow_all_keys=True, **fields)

    return making


def states(page: Any) -> dict[str, str]:
    """Enabled or Disabled, by tool."""
    rows = page.select("tr[data-item]")
    return {r.find("code").text: "Disabled" if "Disabled" in r.text else "Enabled" for r in rows}


def save(client: Client, status: int = 303, path: str = NOW, **typed: Any) -> Any:
    form = parse(client.get(path)).find("form", action=TAB)
    return (
        client.post(TAB, data=filled(form, **typed))
        if status == 303
        else parse(client.post(TAB, data=filled(form, **typed)), status)
    )


def callable_for(client: Client) -> set[str]:
    return {
        tool["name"].removeprefix("s-") for tool in client.get("/v1/mcp/tools").get_json()["tools"]
    } & ALL


@pytest.mark.parametrize(
    ("info", "listed", "enabled"),
    [
        (None, [], ALL),
        ({"tool_allowlist_enforced": False}, [], ALL),
        ({"tool_allowlist_enforced": True}, [], set()),
        ({"tool_allowlist_enforced": True}, ["add"], {"add"}),
        (None, ["add", "gone"], {"add"}),
    ],
)
def test_ui_37_an_empty_list_is_all_unless_it_is_enforced(
    signed_in: SignedIn,
    client: As,
    make: Callable[..., None],
    info: Any,
    listed: list[str],
    enabled: set[str],
) -> None:
    make(mcp_info=info, allowed_tools=listed)
    page = parse(signed_in("ada").get(NOW))
    assert {name for name, state in states(page).items() if state == "Enabled"} == enabled
    assert f"{len(enabled)} of 5 tools enabled for users" in text_of(page.find(id="tools"))
    assert callable_for(client("otto")) == enabled
    for tool in ("add", "whoami"):
        call = {
            "server_id": "id-s",
            "name": tool,
            "arguments": {"a": 1, "b": 2} if tool == "add" else {},
        }
        assert client("otto").post("/v1/mcp/tools/call", call).status_code == (
            200 if tool in enabled else 403
        )


def test_ui_39_tools_are_enabled_and_disabled(
    signed_in: SignedIn, client: As, make: Callable[..., None]
) -> None:
    make()
    ada = signed_in("ada")
    assert save(ada, enabled=["add", "slow"], later=None).status_code == 303
    assert states(parse(ada.get(NOW))) == {
        n: "Enabled" if n in ("add", "slow") else "Disabled" for n in ALL
    }
    assert callable_for(client("otto")) == {"add", "slow"}
    save(ada, enabled=None)
    assert callable_for(client("otto")) == set()
    save(ada, enabled=sorted(ALL), later="yes")
    view = client("ada").get("/v1/mcp/server/id-s").get_json()
    assert (view["allowed_tools"], (view["mcp_info"] or {}).get("tool_allowlist_enforced")) == (
        [],
        None,
    )
    assert callable_for(client("otto")) == ALL


def test_ui_39_a_stored_selection_is_shown_and_survives(
    signed_in: SignedIn, client: As, make: Callable[..., None], changes: Callable[[], list[str]]
) -> None:
    """Also that of a tool which the server does not offer today; loading the page changes
    nothing."""
    make(allowed_tools=["add", "gone"])
    ada = signed_in("ada")
    form = parse(ada.get(NOW)).find("form", action=TAB)
    assert [box["value"] for box in form.select("input[name=enabled][checked]")] == ["add"]
    assert not form.find(id="later").has_attr("checked")
    index = [field["value"] for field in form.select("input[name=tool]")].index("add")
    save(ada, **{f"name-{index}": "Plus"})
    assert changes() == ["tool_name_to_display_name"]
    assert client("ada").get("/v1/mcp/server/id-s").get_json()["allowed_tools"] == ["add", "gone"]


def test_ui_39_all_later_tools_without_all_present_ones_is_refused(
    signed_in: SignedIn, client: As, make: Callable[..., None]
) -> None:
    make(allowed_tools=["add"])
    page = save(signed_in("ada"), 422, enabled=["slow"], later="yes")
    assert "enable all tools" in text_of(page.find(id="later-error"))
    assert [box["value"] for box in page.select("input[name=enabled][checked]")] == ["slow"]
    assert callable_for(client("otto")) == {"add"}


def test_ui_39_40_the_list_is_flat_or_grouped(
    signed_in: SignedIn, make: Callable[..., None]
) -> None:
    make()
    ada = signed_in("ada")
    assert not parse(ada.get(NOW)).select("#tools h2")
    page = parse(ada.get(f"{NOW}&view=grouped"))
    assert [text_of(h) for h in page.select("#tools h2")] == ["Create (1)", "Read (3)", "Other (1)"]
    assert set(states(page)) == ALL
    assert save(ada, path=f"{NOW}&view=grouped", enabled=["add"], later=None).location.endswith(
        "view=grouped"
    )


@pytest.mark.parametrize(
    ("name", "description", "group"),
    [
        ("create_issue", "", "Create"),
        ("addComment", "", "Create"),
        ("GetUser", "", "Read"),
        ("LIST-IT", "", "Read"),
        ("repo.update", "", "Update"),
        ("issue_delete", "", "Delete"),
        ("purgeIt", "", "Delete"),
        ("ping", "", "Other"),
        ("x1", "DELETES a row", "Delete"),
        ("x1", "Gets it, then deletes it", "Read"),
        ("rename", "Creates", "Update"),
        ("", "", "Other"),
    ],
)
def test_ui_40_a_tool_is_grouped_by_its_name_then_its_description(
    name: str, description: str, group: str
) -> None:
    assert group_of(name, description) == group


def test_ui_41_a_display_name_is_saved_and_none_with_a_space(
    signed_in: SignedIn, client: As, make: Callable[..., None]
) -> None:
    make()
    ada = signed_in("ada")
    names = [
        f["value"] for f in parse(ada.get(NOW)).find("form", action=TAB).select("input[name=tool]")
    ]
    add, slow = (f"name-{names.index(tool)}" for tool in ("add", "slow"))
    page = save(ada, 422, **{add: "plus", slow: "two words"})
    assert "must not contain spaces" in page.find(attrs={"data-error-summary": True}).text
    assert page.find(id=slow)["value"] == "two words"
    assert not client("ada").get("/v1/mcp/server/id-s").get_json()["tool_name_to_display_name"]
    save(ada, **{add: "plus", f"text-{names.index('slow')}": "Takes its time."})
    view = client("ada").get("/v1/mcp/server/id-s").get_json()
    assert view["tool_name_to_display_name"] == {"add": "plus"}
    assert view["tool_name_to_description"] == {"slow": "Takes its time."}
    assert "plus" in parse(signed_in("otto").get(NOW)).text
    save(ada, **{add: ""})
    assert not client("ada").get("/v1/mcp/server/id-s").get_json()["tool_name_to_display_name"]


def test_only_admins_choose_and_an_old_version_is_told(
    signed_in: SignedIn, client: As, make: Callable[..., None]
) -> None:
    make()
    ada = signed_in("ada")
    for name in ("vera", "otto"):
        person = signed_in(name)
        page = parse(person.get(NOW))
        assert not page.find("form", action=TAB)
        token = page.find("input", attrs={"name": "csrf_token"})["value"]
        assert person.post(TAB, data={"csrf_token": token, "tool": "add"}).status_code in (403, 404)
    form = parse(ada.get(NOW)).find("form", action=TAB)
    save(ada, enabled=["add"], later=None)
    answer = ada.post(TAB, data=filled(form, enabled=["slow"], later=None))
    assert answer.status_code == 409
    assert callable_for(client("otto")) == {"add"}


def test_a_form_without_tools_changes_nothing(
    signed_in: SignedIn, client: As, make: Callable[..., None]
) -> None:
    """Else an empty list would be taken for "none of them"."""
    make()
    ada = signed_in("ada")
    token = parse(ada.get(NOW)).find("input", attrs={"name": "csrf_token"})["value"]
    assert "Reload the list" in parse(ada.post(TAB, data={"csrf_token": token}), 422).text
    assert callable_for(client("otto")) == ALL
