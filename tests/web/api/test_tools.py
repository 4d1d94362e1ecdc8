"""Tools, listed and called over the API (ACC-25)."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import CREW, Client, Write
from tests.support.factories import make_key, make_server, see_tools
from tests.support.peers import free_port
from tests.support.upstream.raw import Handler, raw_server, speaking, tool_page

As = Callable[[str | None], Client]
CALL = "/v1/mcp/tools/call"
ALL_TOOLS = {"show_headers", "whoami", "add", "search_notes", "slow"}


@pytest.fixture(autouse=True)
def _echo(write: Write, echo_server: str) -> None:
    with write() as session:
        make_server(session, "echo", url=echo_server, allow_all_keys=True)


def names_for(asking: Client) -> set[str]:
    answer = asking.get("/v1/mcp/tools")
    assert answer.status_code == 200
    return {tool["name"] for tool in answer.get_json()["tools"]}


def test_acc_25_tools_come_in_the_spelling_of_mcp(client: As) -> None:
    tools = {tool["name"]: tool for tool in client("otto").get("/v1/mcp/tools").get_json()["tools"]}
    assert set(tools) == {f"echo-{name}" for name in ALL_TOOLS}
    assert tools["echo-add"]["inputSchema"]["required"] == ["a", "b"]
    assert not {"input_schema", "output_schema", "meta"} & set(tools["echo-add"])


def test_a_server_that_does_not_answer_costs_the_others_nothing(client: As, write: Write) -> None:
    with write() as session:
        make_server(
            session, "silent", url=f"http://127.0.0.1:{free_port()}/mcp", allow_all_keys=True
        )
    assert names_for(client("otto")) == {f"echo-{name}" for name in ALL_TOOLS}


def test_the_allow_list_of_the_server_and_the_permissions_of_the_key_narrow(
    client: As, write: Write
) -> None:
    with write() as session:
        key = make_key(session, user_id="mel", mcp_tool_permissions={"echo": ("add", "slow")})
    assert names_for(client(key)) == {"echo-add", "echo-slow"}
    client("ada").put(
        "/v1/mcp/server", {"server_id": "id-echo", "allowed_tools": ["add", "whoami"]}
    )
    assert names_for(client(key)) == {"echo-add"}
    assert names_for(client("otto")) == {"echo-add", "echo-whoami"}
    for tool, status in (("add", 200), ("whoami", 403), ("slow", 403)):
        call = {
            "server_id": "id-echo",
            "name": tool,
            "arguments": {"a": 1, "b": 2} if tool == "add" else {},
        }
        assert client(key).post(CALL, call).status_code == status


@pytest.mark.parametrize("name", ["add", "echo-add"])
def test_a_tool_is_called_by_its_own_or_its_published_name(client: As, name: str) -> None:
    answer = client("otto").post(
        CALL, {"server_id": "echo", "name": name, "arguments": {"a": 2, "b": 3}}
    )
    assert answer.status_code == 200
    assert answer.get_json()["content"][0]["text"] == "5"


def test_an_error_of_the_tool_itself_is_a_result(client: As) -> None:
    answer = client("otto").post(
        CALL, {"server_id": "echo", "name": "add", "arguments": {"a": "x"}}
    )
    assert (answer.status_code, answer.get_json()["isError"]) == (200, True)


def test_an_upstream_that_fails_is_502_without_its_host_or_words(client: As) -> None:
    answer = client("mel").post(CALL, {"server_id": "id-notes", "name": "anything"})
    detail = answer.get_json()["detail"]
    assert (answer.status_code, detail["error"], detail["reason"]) == (
        502,
        "upstream_failed",
        "refused",
    )


def test_an_upstream_that_is_too_slow_is_504(client: As) -> None:
    client("ada").put("/v1/mcp/server", {"server_id": "id-echo", "timeout": 1})
    answer = client("otto").post(
        CALL, {"server_id": "echo", "name": "slow", "arguments": {"seconds": 30}}
    )
    assert (answer.status_code, answer.get_json()["detail"]["error"]) == (504, "upstream_timeout")


def test_who_may_not_use_a_server_calls_nothing(client: As) -> None:
    call = {"server_id": "id-notes", "name": "anything"}
    hidden = client("otto").post(CALL, call)
    missing = client("otto").post(CALL, {**call, "server_id": "nowhere"})
    assert hidden.status_code == missing.status_code == 403
    assert hidden.get_json() == missing.get_json()
    assert client("ada").post(CALL, {**call, "server_id": "nowhere"}).status_code == 404


def test_a_server_that_needs_a_sign_in_says_where(client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "signed", auth_type="oauth2", allow_all_keys=True)
    answer = client("otto").post(CALL, {"server_id": "signed", "name": "x"})
    detail = answer.get_json()["detail"]
    assert (answer.status_code, detail["error"], detail["server_id"]) == (
        401,
        "sign_in_needed",
        "id-signed",
    )
    assert detail["connect_url"] == "http://127.0.0.1:8000/credentials/id-signed"


def test_a_tool_permission_whose_server_is_gone_opens_nothing_else(
    client: As, write: Write
) -> None:
    with write() as session:
        make_server(session, "doomed")
        key = make_key(session, team_id=CREW, mcp_tool_permissions={"doomed": ("x",)})
    client("ada").delete("/v1/mcp/server/id-doomed")
    assert [r["server_id"] for r in client(key).get("/v1/mcp/server").get_json()] == ["id-echo"]


def test_what_aws_signing_cannot_do_is_said(client: As, write: Write) -> None:
    credentials = {
        "aws_access_key_id": "SECRET-id",
        "aws_secret_access_key": "SECRET-key",
        "aws_role_name": "arn:x",
    }
    with write() as session:
        make_server(session, "aws", auth_type="aws_sigv4", credentials=credentials)
    answer = client("ada").post(CALL, {"server_id": "aws", "name": "x"})
    assert (answer.status_code, answer.get_json()["detail"]["reason"]) == (502, "disabled")
    assert "AWS roles are not supported" in answer.get_json()["detail"]["message"]


def own_names(*names: str) -> Handler:
    """A server with tools of these names, each of which returns its own."""

    def answers(method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "tools/list":
            return tool_page(*names)
        return {
            "resultType": "complete",
            "content": [],
            "structuredContent": {"ran": params["name"]},
        }

    return speaking(answers)


@pytest.mark.parametrize(
    ("tools", "allowed", "name", "ran"),
    [
        (("notion-search", "notion-fetch"), [], "notion-search", "notion-search"),
        (("notion-search", "notion-fetch"), [], "notion-notion-search", "notion-search"),
        (("x", "notion-x"), [], "notion-x", "notion-x"),
        (("x", "notion-x"), [], "x", "x"),
        (("x", "notion-x"), [], "notion-notion-x", "notion-x"),
        (("x",), [], "notion-x", "x"),
        (("x",), ["x"], "notion-x", "x"),
        (("x", "notion-x"), ["notion-x"], "notion-x", "notion-x"),
        (("x", "notion-x"), ["x"], "notion-x", None),
        (("x", "notion-x"), ["x"], "notion-notion-x", None),
    ],
)
def test_a_tools_own_name_wins_over_a_published_one(
    client: As, write: Write, tools: tuple[str, ...], allowed: list[str], name: str, ran: str | None
) -> None:
    with raw_server(own_names(*tools)) as server:
        with write() as session:
            make_server(
                session, "notion", url=server.url(), allow_all_keys=True, allowed_tools=allowed
            )
        answer = client("otto").post(CALL, {"server_id": "notion", "name": name})
        called = "tools/call" in server.methods()
    if ran is None:
        assert (answer.status_code, called) == (403, False)
    else:
        assert answer.get_json()["structuredContent"] == {"ran": ran}


def test_a_name_that_was_seen_before_costs_no_list(client: As, write: Write) -> None:
    with raw_server(own_names("notion-search")) as server:
        with write() as session:
            make_server(session, "notion", url=server.url(), allow_all_keys=True)
            see_tools(session, "id-notion", "notion-search")
        answer = client("otto").post(CALL, {"server_id": "notion", "name": "notion-search"})
        assert answer.get_json()["structuredContent"] == {"ran": "notion-search"}
        assert "tools/list" not in server.methods()
