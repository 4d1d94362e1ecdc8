"""An AI client uses one server through the portal, by key."""

from typing import Any

import pytest
from mcp import Client

from tests.conftest import Write
from tests.gateway.conftest import Running
from tests.support.factories import make_server

ALL_TOOLS = {"show_headers", "whoami", "add", "search_notes", "slow"}


@pytest.fixture(autouse=True)
def _echo(write: Write, echo_server: str) -> None:
    with write() as session:
        make_server(
            session,
            "echo",
            url=echo_server,
            allow_all_keys=True,
            static_headers={"X-Corp-Token": "${CORP_TOKEN}"},
            env_vars=[{"name": "CORP_TOKEN", "scope": "user", "description": "yours"}],
        )


async def names(client: Client) -> set[str]:
    return {tool.name for tool in (await client.list_tools()).tools}


async def headers_seen(client: Client) -> dict[str, str]:
    result = await client.call_tool("show_headers", {})
    assert not result.is_error
    assert result.structured_content is not None
    return dict(result.structured_content)


def store(client: Any, who: str, value: str) -> None:
    path = "/v1/mcp/server/id-echo/user-env-vars"
    answer = client(who).post(path, {"values": {"CORP_TOKEN": value}})
    assert answer.status_code == 200, answer.get_data(as_text=True)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_client_lists_and_calls_with_the_values_of_its_person(
    gateway: Running, client: Any, mode: str
) -> None:
    store(client, "mel", "SECRET-of-mel")
    store(client, "otto", "SECRET-of-otto")
    assert gateway.talk("echo", "mel", names, mode=mode) == ALL_TOOLS
    for who in ("mel", "otto"):
        seen = gateway.talk("echo", who, headers_seen, mode=mode)
        assert seen["x-corp-token"] == f"SECRET-of-{who}"
        assert "authorization" not in seen
        assert not any("sk-" in value for value in seen.values())


def test_what_is_missing_is_told_in_a_result_with_the_link(gateway: Running) -> None:
    async def calling(client: Client) -> Any:
        return await client.call_tool("add", {"a": 1, "b": 2})

    assert gateway.talk("echo", "mel", names) == ALL_TOOLS
    result = gateway.talk("echo", "mel", calling)
    link = "http://127.0.0.1:8000/credentials/id-echo"
    assert result.is_error
    assert "CORP_TOKEN" in result.content[0].text
    assert link in result.content[0].text
    assert result.meta["mcp-portal/missing"] == {
        "code": "missing_user_env_vars",
        "missing": ["CORP_TOKEN"],
        "setup_url": link,
    }
