"""Tools, listed and called over the API (ACC-25)."""

from collections.abc import Callable

import pytest

from tests.conftest import CREW, Client, Write
from tests.support.factories import make_key, make_server
from tests.support.peers import free_port

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
