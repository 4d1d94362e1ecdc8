"""Toolsets over the API (TLS-01 to TLS-12, ACC-27), and what a grant of one opens."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import CREW, NOTES, Client, Write
from tests.support.factories import make_key, make_server, make_user

As = Callable[[str | None], Client]
PATH = "/v1/mcp/toolset"
CALL = "/v1/mcp/tools/call"
NOTE = {"server_id": NOTES, "tool_name": "find"}


def made(client: As, name: str, *tools: dict[str, str], **more: Any) -> dict[str, Any]:
    answer = client("ada").post(PATH, {"toolset_name": name, "tools": list(tools), **more})
    assert answer.status_code == 201, answer.get_json()
    found: dict[str, Any] = answer.get_json()
    return found


def listed(asking: Client) -> list[str]:
    answer = asking.get(PATH)
    assert answer.status_code == 200
    return [toolset["toolset_name"] for toolset in answer.get_json()]


def test_tls_01_an_admin_adds_a_toolset(client: As) -> None:
    toolset = made(client, "research", NOTE, {**NOTE}, description="For papers")
    assert toolset["tools"] == [NOTE]
    assert (toolset["toolset_name"], toolset["description"]) == ("research", "For papers")
    assert toolset["created_by"] == toolset["updated_by"] == "ada"
    assert client("ada").get(f"{PATH}/{toolset['toolset_id']}").get_json() == toolset


@pytest.mark.parametrize("name", ["vera", "mel", "vic", "otto", "kit"])
def test_only_admins_change_toolsets(client: As, name: str) -> None:
    toolset_id = made(client, "research", NOTE)["toolset_id"]
    for method, path, body in (
        ("POST", PATH, {"toolset_name": "x"}),
        ("PUT", PATH, {"toolset_id": toolset_id, "toolset_name": "x"}),
        ("POST", PATH, {"toolset_name": 7}),
        ("DELETE", f"{PATH}/{toolset_id}", None),
        ("DELETE", f"{PATH}/nowhere", None),
    ):
        assert client(name).ask(method, path, json=body).status_code == 403, (method, path)


def test_tls_03_a_name_is_taken_once(client: As) -> None:
    made(client, "research")
    other = made(client, "writing")["toolset_id"]
    for answer in (
        client("ada").post(PATH, {"toolset_name": " research "}),
        client("ada").put(PATH, {"toolset_id": other, "toolset_name": "research"}),
    ):
        detail = answer.get_json()["detail"]
        assert (answer.status_code, detail["error"], detail["field"]) == (
            409,
            "conflict",
            "toolset_name",
        )
        assert "research" in detail["message"]
    assert listed(client("ada")) == ["research", "writing"]


def test_tls_04_admin_view_lists_all(client: As, write: Write) -> None:
    made(client, "writing", NOTE)
    made(client, "Research", NOTE)
    with write() as session:
        empty = make_key(session, user_id="ada", mcp_toolsets=())
    for name in ("ada", "vera", empty):
        assert listed(client(name)) == ["Research", "writing"]


def test_tls_06_others_list_exactly_what_is_granted(client: As, write: Write) -> None:
    for name in ("one", "two", "three"):
        made(client, name, NOTE)
    with write() as session:
        key = make_key(session, user_id="mel", team_id=CREW, mcp_toolsets=("one", "two"))
    assert listed(client(key)) == ["one", "two"]
    assert listed(client("otto")) == []
    assert listed(client("mel")) == []


def test_a_grant_to_a_person_or_their_team_counts_in_the_browser(
    client: As, signed_in: Any
) -> None:
    one = made(client, "one", NOTE)["toolset_id"]
    two = made(client, "two", NOTE)["toolset_id"]
    client("ada").patch("/v1/users/mel", {"object_permission": {"mcp_toolsets": ["one"]}})
    client("ada").patch(
        f"/v1/teams/{CREW}", {"object_permission": {"mcp_servers": [NOTES], "mcp_toolsets": [two]}}
    )
    assert client("ada").get("/v1/users/mel").get_json()["object_permission"]["mcp_toolsets"] == [
        one
    ]
    answer = signed_in("mel").get(PATH)
    assert [toolset["toolset_name"] for toolset in answer.get_json()] == ["one", "two"]


def test_acc_27_a_key_that_names_toolsets_narrows_admins_too(client: As, write: Write) -> None:
    made(client, "one", NOTE)
    other = made(client, "two", NOTE)["toolset_id"]
    with write() as session:
        narrow = [
            make_key(session, user_id=name, mcp_toolsets=("one",)) for name in ("ada", "vera")
        ]
    for key in narrow:
        assert listed(client(key)) == ["one"]
        assert client(key).get(f"{PATH}/{other}").status_code == 404


def test_what_is_not_granted_and_what_does_not_exist_answer_alike(client: As) -> None:
    toolset_id = made(client, "one", NOTE)["toolset_id"]
    hidden = client("mel").get(f"{PATH}/{toolset_id}")
    missing = client("mel").get(f"{PATH}/nowhere")
    assert hidden.status_code == missing.status_code == 403
    assert hidden.get_json() == missing.get_json()
    assert client("vera").get(f"{PATH}/nowhere").status_code == 404


def test_tls_08_a_change_leaves_the_rest(client: As) -> None:
    toolset = made(client, "research", NOTE, description="old")
    ada = client("ada")
    toolset_id = toolset["toolset_id"]
    changed = ada.put(PATH, {"toolset_id": toolset_id, "description": "new"})
    assert changed.status_code == 200
    kept = {"toolset_name": "research", "tools": [NOTE], "description": "new"}
    assert {name: changed.get_json()[name] for name in kept} == kept
    assert (
        ada.put(PATH, {"toolset_id": toolset_id, "description": None}).get_json()["description"]
        is None
    )
    assert ada.put(PATH, {"toolset_id": toolset_id, "tools": []}).get_json()["tools"] == []
    assert ada.put(PATH, {"toolset_id": "nowhere", "description": "x"}).status_code == 404
    assert ada.delete(f"{PATH}/{toolset_id}").status_code == 202
    assert ada.delete(f"{PATH}/{toolset_id}").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "toolset_name"),
        ({"toolset_name": "  "}, 400, "toolset_name"),
        ({"toolset_name": "x" * 201}, 422, "toolset_name"),
        ({"toolset_name": "x", "tools": [{"server_id": NOTES}]}, 422, "tools.tool_name"),
        (
            {"toolset_name": "x", "tools": [{"server_id": "nowhere", "tool_name": "t"}]},
            400,
            "tools",
        ),
        ({"toolset_name": "x", "tools": [NOTE] * 501}, 422, "tools"),
    ],
)
def test_a_body_that_is_wrong_names_its_field(
    client: As, body: object, status: int, field: str
) -> None:
    answer = client("ada").post(PATH, body)
    assert (answer.status_code, answer.get_json()["detail"]["field"]) == (status, field)


def test_an_unknown_toolset_cannot_be_granted(client: As) -> None:
    answer = client("ada").post(
        "/v1/keys", {"user_id": "mel", "object_permission": {"mcp_toolsets": ["nowhere"]}}
    )
    assert answer.status_code == 400
    assert answer.get_json()["detail"]["field"] == "object_permission.mcp_toolsets"


@pytest.fixture
def echo(write: Write, echo_server: str) -> None:
    with write() as session:
        make_server(session, "echo", url=echo_server)
        make_server(session, "other", url=echo_server)


def names_for(asking: Client) -> set[str]:
    return {tool["name"] for tool in asking.get("/v1/mcp/tools").get_json()["tools"]}


@pytest.mark.usefixtures("echo")
def test_tls_09_a_toolset_grants_its_tools_and_no_more(client: As, write: Write) -> None:
    """One computation for listing and calling: also where the key is granted the whole server
    besides."""
    made(client, "adding", {"server_id": "echo", "tool_name": "add"})
    with write() as session:
        only = make_key(session, user_id="otto", mcp_toolsets=("adding",))
        both = make_key(session, user_id="otto", mcp_toolsets=("adding",), mcp_servers=("id-echo",))
    for key in (only, both):
        assert names_for(client(key)) == {"echo-add"}
        assert client(key).get("/v1/me").get_json()["server_ids"] == ["id-echo"]
        call = {"server_id": "id-echo", "name": "add", "arguments": {"a": 1, "b": 2}}
        assert client(key).post(CALL, call).status_code == 200
        assert client(key).post(CALL, {**call, "name": "whoami"}).status_code == 403
        assert client(key).post(CALL, {**call, "server_id": "id-other"}).status_code == 403


@pytest.mark.usefixtures("echo")
def test_a_toolset_that_is_gone_still_limits_its_key(client: As, write: Write) -> None:
    toolset_id = made(client, "adding", {"server_id": "echo", "tool_name": "add"})["toolset_id"]
    with write() as session:
        key = make_key(session, user_id="mel", team_id=CREW, mcp_toolsets=("adding",))
    client("ada").delete(f"{PATH}/{toolset_id}")
    assert client(key).get("/v1/me").get_json()["server_ids"] == []
    assert names_for(client(key)) == set()


@pytest.mark.usefixtures("echo")
def test_tls_12_a_tool_is_matched_as_it_is_written(client: As, write: Write) -> None:
    """`echo-add` names a tool of that very name, and not the tool `add` that is published as
    `echo-add`."""
    made(client, "odd", {"server_id": "echo", "tool_name": "echo-add"})
    with write() as session:
        key = make_key(session, user_id="otto", mcp_toolsets=("odd",))
    assert names_for(client(key)) == set()
    assert client(key).post(CALL, {"server_id": "echo", "name": "add"}).status_code == 403
    as_written = client(key).post(CALL, {"server_id": "echo", "name": "echo-add"})
    assert as_written.status_code != 403, (
        "it is allowed; that the server has no such tool is the server's to say"
    )
    assert "3" not in str(as_written.get_json().get("content"))


def test_a_server_that_goes_takes_its_tools_along(client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "doomed")
    toolset = made(client, "mixed", NOTE, {"server_id": "doomed", "tool_name": "x"})
    client("ada").delete("/v1/mcp/server/id-doomed")
    assert client("ada").get(f"{PATH}/{toolset['toolset_id']}").get_json()["tools"] == [NOTE]


def test_tools_of_servers_that_one_may_not_see_are_left_out(client: As, write: Write) -> None:
    """Rule 7: an internal server does not exist for a caller from outside, in a toolset neither."""
    with write() as session:
        make_server(session, "inside", available_on_public_internet=False)
        make_user(session, "eve")
        made_key = make_key(session, user_id="eve")
    toolset = made(client, "mixed", NOTE, {"server_id": "inside", "tool_name": "x"})
    key_id = client(made_key).get("/v1/me").get_json()["key"]["key_id"]
    client("ada").patch(f"/v1/keys/{key_id}", {"object_permission": {"mcp_toolsets": ["mixed"]}})
    path = f"{PATH}/{toolset['toolset_id']}"
    outside = client(made_key).get(path, environ_base={"REMOTE_ADDR": "203.0.113.7"})
    assert outside.get_json()["tools"] == [NOTE]
    assert len(client(made_key).get(path).get_json()["tools"]) == 2
