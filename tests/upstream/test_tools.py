"""Listing and calling tools, with the upstream's own JSON and the faults of the wire
(spec/3-security.md, 8)."""

import logging
import socket
import time
from typing import Any

import pytest

from portal.domain.errors import UpstreamFailure, UpstreamTimeout
from portal.domain.upstream import OutboundPolicy, Target, ToolDefinition
from portal.upstream.mcp_client import UpstreamClient
from tests.support.upstream.raw import (
    PROMPT,
    RawServer,
    Seen,
    always,
    hang,
    older,
    raw_server,
    reply,
    speaking,
    tool_page,
)


def texts(outcome: Any) -> list[str]:
    return [part["text"] for part in outcome.wire["content"]]


def names(tools: tuple[ToolDefinition, ...]) -> list[str]:
    return [tool.name for tool in tools]


def test_the_tools_of_the_echo_server_come_as_it_sent_them(
    client: UpstreamClient, echo_server: str
) -> None:
    tools = {tool.name: tool for tool in client.list_tools(Target("http", echo_server))}
    assert set(tools) == {"whoami", "show_headers", "add", "search_notes", "slow"}
    add = tools["add"]
    assert add.description == "Add two whole numbers."
    assert add.input_schema["required"] == ["a", "b"]
    assert add.wire["annotations"]["readOnlyHint"] is True
    assert add.wire["title"] == "Add"
    assert add.wire["outputSchema"]["type"] == "object"


@pytest.mark.parametrize(
    ("fixture", "transport"), [("everything_server", "http"), ("everything_sse", "sse")]
)
def test_a_server_of_the_older_generation_lists_and_calls(
    fixture: str, transport: Any, client: UpstreamClient, request: pytest.FixtureRequest
) -> None:
    target = Target(transport, request.getfixturevalue(fixture))
    assert {"echo", "get-sum"} <= set(names(client.list_tools(target)))
    assert texts(client.call_tool(target, "get-sum", {"a": 2, "b": 3})) == [
        "The sum of 2 and 3 is 5."
    ]
    assert client.call_tool(target, "nothing-of-this-name", {}).is_error


@pytest.mark.parametrize(("fixture", "transport"), [("echo_server", "http"), ("echo_sse", "sse")])
def test_a_call_gives_the_wire_result(
    fixture: str, transport: Any, client: UpstreamClient, request: pytest.FixtureRequest
) -> None:
    outcome = client.call_tool(
        Target(transport, request.getfixturevalue(fixture)), "add", {"a": 2, "b": 3}
    )
    assert (outcome.wire["structuredContent"], texts(outcome), outcome.is_error) == (
        {"result": 5},
        ["5"],
        False,
    )
    assert outcome.duration_ms >= 0


def test_the_targets_headers_arrive_and_nothing_else_of_ours(
    client: UpstreamClient, echo_server: str
) -> None:
    target = Target(
        "http", echo_server, headers={"X-Api-Key": "mine", "Authorization": "Bearer theirs"}
    )
    seen = client.call_tool(target, "show_headers", {}).wire["structuredContent"]
    assert (seen["x-api-key"], seen["authorization"]) == ("mine", "Bearer theirs")
    assert "cookie" not in seen
    assert seen["user-agent"] == "mcp-portal"


def test_a_tool_that_fails_is_an_outcome(client: UpstreamClient, echo_server: str) -> None:
    target = Target("http", echo_server)
    for name, arguments in (("add", {"a": "x"}), ("no_such_tool", {})):
        outcome = client.call_tool(target, name, arguments)
        assert outcome.is_error
        assert texts(outcome)[0]


def test_a_json_rpc_error_is_an_outcome_with_its_message(client: UpstreamClient) -> None:
    error = {"error": {"code": -32602, "message": "m" * 5000}}
    with raw_server(speaking(lambda method, params: error)) as server:
        outcome = client.call_tool(Target("http", server.url()), "any", {})
    assert outcome.wire == {"content": [{"type": "text", "text": "m" * 2000}], "isError": True}


def test_arguments_are_sent_as_they_are(client: UpstreamClient) -> None:
    arguments = {"null": None, "deep": {"null": None, "list": [1.5, "ü", None]}, "_meta": {"x": 1}}
    result = {"resultType": "complete", "content": []}
    with raw_server(speaking(lambda method, params: result)) as server:
        client.call_tool(Target("http", server.url()), "any", arguments)
        assert server.seen[-1].json["params"]["arguments"] == arguments
        assert server.methods() == ["server/discover", "tools/call"]


def test_keys_that_no_specification_knows_are_kept(client: UpstreamClient) -> None:
    def answers(method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "tools/list":
            return tool_page("one", vendorKey={"kept": None})
        return {
            "resultType": "complete",
            "content": [],
            "structuredContent": {"a": None},
            "_meta": {"vendor/x": 1},
        }

    with raw_server(speaking(answers)) as server:
        target = Target("http", server.url())
        assert client.list_tools(target)[0].wire["vendorKey"] == {"kept": None}
        wire = client.call_tool(target, "one", {}).wire
    assert (wire["structuredContent"], wire["_meta"]) == ({"a": None}, {"vendor/x": 1})


def test_all_pages_are_read(client: UpstreamClient) -> None:
    def answers(method: str, params: dict[str, Any]) -> dict[str, Any]:
        page = int(params.get("cursor", "0"))
        return tool_page(f"t{page}", cursor=str(page + 1) if page < 2 else None)

    with raw_server(speaking(answers)) as server:
        assert names(client.list_tools(Target("http", server.url()))) == ["t0", "t1", "t2"]


def test_no_more_than_2000_tools_are_taken_from_endless_pages(client: UpstreamClient) -> None:
    full = tool_page(*(f"t{number}" for number in range(900)), cursor="again")
    with raw_server(speaking(lambda method, params: full)) as server:
        assert len(client.list_tools(Target("http", server.url()))) == 2000
        assert server.methods().count("tools/list") == 3


def test_endless_empty_pages_end(client: UpstreamClient) -> None:
    with raw_server(speaking(lambda method, params: tool_page(cursor="again"))) as server:
        assert client.list_tools(Target("http", server.url())) == ()
        assert server.methods().count("tools/list") == 200


def test_a_server_without_tools_has_none(client: UpstreamClient) -> None:
    missing = {"error": {"code": -32601, "message": "Method not found"}}
    with raw_server(speaking(lambda method, params: missing)) as server:
        assert client.list_tools(Target("http", server.url())) == ()


def test_a_tool_with_an_invalid_header_annotation_is_dropped(client: UpstreamClient) -> None:
    """MCP 2026-07-28 (SEP-2243) makes this a MUST for clients."""
    bad = {"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": "no token"}}}
    page = tool_page("good")
    page["tools"].append({"name": "bad", "inputSchema": bad})
    with raw_server(speaking(lambda method, params: page)) as server:
        assert names(client.list_tools(Target("http", server.url()))) == ["good"]


def test_an_argument_that_belongs_into_a_header_is_put_there_when_the_server_asks(
    client: UpstreamClient,
) -> None:
    schema = {
        "type": "object",
        "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
    }

    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        def answers(method: str, params: dict[str, Any]) -> dict[str, Any]:
            if method == "tools/list":
                return tool_page("one") | {"tools": [{"name": "one", "inputSchema": schema}]}
            if "mcp-param-region" not in request.headers:
                return {"error": {"code": -32020, "message": "header mismatch"}}
            return {
                "resultType": "complete",
                "content": [],
                "_meta": {"got": request.headers["mcp-param-region"]},
            }

        speaking(answers)(connection, request, server)

    with raw_server(handle) as server:
        outcome = client.call_tool(Target("http", server.url()), "one", {"region": "eu"})
    assert outcome.wire["_meta"] == {"got": "eu"}


def test_nul_is_replaced_and_what_is_no_json_is_refused(client: UpstreamClient) -> None:
    answer: dict[str, Any] = {
        "resultType": "complete",
        "content": [],
        "structuredContent": {"a\0": ["b\0", "\\u0000"]},
    }
    with raw_server(speaking(lambda method, params: answer)) as server:
        target = Target("http", server.url())
        wire = client.call_tool(target, "any", {}).wire
        assert wire["structuredContent"] == {"a\ufffd": ["b\ufffd", "\\u0000"]}
        answer["structuredContent"] = {"x": float("nan")}
        with pytest.raises(UpstreamFailure) as caught:
            client.call_tool(target, "any", {})
    assert caught.value.reason == "not_mcp"


def test_a_tool_list_in_a_wrong_shape_is_a_failure(client: UpstreamClient) -> None:
    for page in (
        {"resultType": "complete", "tools": "SECRET"},
        tool_page("x") | {"tools": [{"inputSchema": {}}]},
        {},
    ):
        with raw_server(speaking(lambda method, params, page=page: page)) as server:  # type: ignore[misc]
            with pytest.raises(UpstreamFailure) as caught:
                client.list_tools(Target("http", server.url()))
            assert caught.value.reason == "not_mcp"
            assert "SECRET" not in caught.value.message


def test_a_tool_that_asks_back_is_a_failure(client: UpstreamClient) -> None:
    asking = {
        "resultType": "input_required",
        "inputRequests": {
            "q": {
                "method": "elicitation/create",
                "params": {
                    "mode": "form",
                    "message": "?",
                    "requestedSchema": {"type": "object", "properties": {}},
                },
            }
        },
    }
    with (
        raw_server(speaking(lambda method, params: asking)) as server,
        pytest.raises(UpstreamFailure) as caught,
    ):
        client.call_tool(Target("http", server.url()), "any", {})
    assert (
        caught.value.message
        == "The tool requests further input, which the portal does not support."
    )


@pytest.mark.parametrize("fixture", ["locked_echo", "locked_sse"])
def test_a_401_needs_a_sign_in(
    fixture: str, client: UpstreamClient, request: pytest.FixtureRequest
) -> None:
    target = Target("sse" if fixture == "locked_sse" else "http", request.getfixturevalue(fixture))
    for work in (
        lambda: client.list_tools(target),
        lambda: client.call_tool(target, "add", {"a": 1, "b": 2}),
    ):
        with pytest.raises(UpstreamFailure) as caught:
            work()
        assert caught.value.reason == "sign_in_needed"


@pytest.mark.parametrize("status", [401, 500, 503])
def test_a_status_in_the_middle_of_a_conversation_is_a_failure(
    status: int, client: UpstreamClient
) -> None:
    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        if request.json["method"] == "server/discover":
            speaking(lambda method, params: {})(connection, request, server)
        else:
            connection.sendall(reply(status, b'{"error": "SECRET"}', "application/json"))

    with raw_server(handle) as server:
        for work in ("list_tools", "call_tool"):
            more: tuple[Any, ...] = ("any", {}) if work == "call_tool" else ()
            with pytest.raises(UpstreamFailure) as caught:
                getattr(client, work)(Target("http", server.url()), *more)
            assert caught.value.reason == ("sign_in_needed" if status == 401 else "http_status")
            assert "SECRET" not in caught.value.message


def test_the_end_of_a_session_does_not_hide_why_its_work_failed(client: UpstreamClient) -> None:
    with (
        raw_server(older(**{"tools/list": always(503)})) as server,
        pytest.raises(UpstreamFailure) as caught,
    ):
        client.list_tools(Target("http", server.url()))
    assert caught.value.message == "127.0.0.1 returned HTTP 503."
    assert server.seen[-1].method == "DELETE"


def test_a_slow_tool_is_given_up_after_the_targets_time(
    client: UpstreamClient, echo_server: str
) -> None:
    began = time.monotonic()
    with pytest.raises(UpstreamTimeout, match=r"did not respond within 0\.5 s"):
        client.call_tool(Target("http", echo_server, timeout=0.5), "slow", {"seconds": 60})
    assert time.monotonic() - began < PROMPT


def test_a_closed_port_and_a_hanging_server_are_failures(client: UpstreamClient) -> None:
    with pytest.raises(UpstreamFailure) as caught:
        client.list_tools(Target("http", "http://127.0.0.1:1/mcp"))
    assert caught.value.reason == "refused"
    with raw_server(hang) as server, pytest.raises(UpstreamTimeout):
        client.list_tools(Target("http", server.url(), timeout=0.3))


def test_a_header_that_cannot_be_sent_is_a_failure(client: UpstreamClient) -> None:
    with pytest.raises(UpstreamFailure) as caught:
        client.list_tools(Target("http", "http://127.0.0.1:1/mcp", headers={"X-Key": "SECRET\n"}))
    assert (
        caught.value.message
        == "The value of the header X-Key contains characters that are not allowed."
    )


def test_a_forbidden_address_is_blocked(echo_server: str) -> None:
    with pytest.raises(UpstreamFailure) as caught:
        UpstreamClient(OutboundPolicy()).call_tool(
            Target("http", echo_server), "add", {"a": 1, "b": 2}
        )
    assert caught.value.reason == "blocked"


def test_nothing_secret_is_logged(client: UpstreamClient, caplog: pytest.LogCaptureFixture) -> None:
    """httpx2 logs whole addresses, the SDK addresses and what an upstream sent."""
    caplog.set_level(logging.DEBUG)
    answers = [
        always(200, b'{"SECRET": 1}', "application/json"),
        always(200, b"data: SECRET\n\n", "text/event-stream"),
        always(307, Location="http://127.0.0.1:1/SECRET"),
        speaking(lambda method, params: tool_page("SECRET")),
    ]
    for answer in answers:
        with raw_server(answer) as server:
            client.probe(
                Target("http", server.url("/SECRET?key=SECRET"), headers={"X": "SECRET"}),
                with_tools=True,
            )
            client.probe(
                Target(
                    "sse", server.url("/SECRET?key=SECRET"), headers={"X": "SECRET"}, timeout=0.3
                )
            )
    assert "SECRET" not in caplog.text


def test_neither_a_target_nor_a_tool_shows_a_secret() -> None:
    target = Target(
        "http",
        "https://user:SECRET@mcp.example.com/SECRET?key=SECRET",
        command="/SECRET/npx",
        args=("SECRET",),
        env={"A": "SECRET"},
        headers={"Authorization": "SECRET"},
        spec_url="https://api.example.com/SECRET",
    )
    assert repr(target) == "Target(transport='http', label='mcp.example.com', timeout=20.0)"
    assert "SECRET" not in repr(Target("stdio", command="/SECRET/npx", args=("SECRET",)))
