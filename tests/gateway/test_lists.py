"""Lists of tools, and calls held to the same rules."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Write
from tests.gateway.conftest import Running
from tests.support.factories import make_key, make_server, see_tools
from tests.support.upstream.raw import RawServer, Seen, raw_server, reply

TOOLS = (
    b'{"jsonrpc": "2.0" , "id":1,"result":{"tools":['
    b'{"name":"raw-add","description":"d","inputSchema":{"maximum":1e400,"big":9007199254740993,'
    b'"n":1.50},"x-own":null} , {"name":"add","inputSchema":{}},{"name":"drop"},'
    b'{"name":7},"odd"],"cacheScope":"public","ttlMs":5}, "more":"\\u00e9"}'
)


@pytest.fixture
def upstream() -> Iterator[RawServer]:
    """An upstream that answers every list with the same bytes, and tells every other message."""

    def answer(connection: Any, request: Seen, _server: RawServer) -> None:
        asked = request.json
        body = TOOLS
        if asked["method"] != "tools/list":
            text = json.dumps(asked["params"])
            result = {"content": [{"type": "text", "text": text}]}
            body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}).encode()
        connection.sendall(reply(200, body, "application/json"))

    with raw_server(answer) as server:
        yield server


def serve(write: Write, upstream: RawServer, **fields: Any) -> None:
    with write() as session:
        make_server(session, "raw", url=upstream.url(), allow_all_keys=True, **fields)


def call(gateway: Running, as_: str, name: str) -> tuple[bool, str]:
    """Whether a call was refused, and its text: what the upstream was asked, or why not."""
    answer = gateway.post("raw", as_, "tools/call", {"name": name, "arguments": {}})
    assert answer.status_code == 200
    result = answer.json()["result"]
    return result.get("isError", False), result["content"][0]["text"]


def test_bytes_pass_untouched_where_nothing_is_filtered(
    gateway: Running, write: Write, upstream: RawServer
) -> None:
    serve(write, upstream)
    assert gateway.post("raw", "mel", "tools/list").content == TOOLS


def test_a_filtered_list_keeps_the_bytes_of_what_is_left(
    gateway: Running, write: Write, upstream: RawServer
) -> None:
    serve(write, upstream, allowed_tools=["raw-add", "add"])
    told = gateway.post("raw", "mel", "tools/list").content
    assert told == (
        b'{"jsonrpc": "2.0" , "id":1,"result":{"tools":['
        b'{"name":"raw-add","description":"d","inputSchema":{"maximum":1e400,"big":'
        b'9007199254740993,"n":1.50},"x-own":null},{"name":"add","inputSchema":{}}],'
        b'"cacheScope":"private","ttlMs":5}, "more":"\\u00e9"}'
    )


def test_calls_are_held_to_the_allow_list_and_the_permissions_of_the_key(
    gateway: Running, write: Write, upstream: RawServer
) -> None:
    serve(write, upstream, allowed_tools=["raw-add", "add"])
    with write() as session:
        key = make_key(session, user_id="mel", mcp_tool_permissions={"raw": ("add", "drop")})
    names = {
        tool["name"] for tool in gateway.post("raw", key, "tools/list").json()["result"]["tools"]
    }
    assert names == {"add"}
    assert [call(gateway, key, name)[0] for name in ("add", "raw-add", "drop")] == [
        False,
        True,
        True,
    ]
    assert [call(gateway, "mel", name)[0] for name in ("add", "raw-add", "drop")] == [
        False,
        False,
        True,
    ]


def test_a_tools_own_name_is_never_cut(gateway: Running, write: Write, upstream: RawServer) -> None:
    serve(write, upstream)
    for name in ("raw-add", "add", "raw-raw-add"):
        assert json.loads(call(gateway, "mel", name)[1])["name"] == name


def test_a_renamed_tool_is_listed_and_called_by_its_new_name(
    gateway: Running, write: Write, upstream: RawServer
) -> None:
    shown = {"add": "plus", "drop": "raw-add"}
    described = {"add": "Adds “two” numbers"}
    serve(
        write,
        upstream,
        allowed_tools=["raw-add", "add", "drop"],
        tool_name_to_display_name=shown,
        tool_name_to_description=described,
    )
    tools = gateway.post("raw", "mel", "tools/list").json()["result"]["tools"]
    assert [tool["name"] for tool in tools] == ["raw-add", "plus", "drop"]
    assert tools[1]["description"] == "Adds “two” numbers"
    assert json.loads(call(gateway, "mel", "plus")[1])["name"] == "add"
    assert json.loads(call(gateway, "mel", "raw-add")[1])["name"] == "raw-add"
    answer = gateway.post(
        "raw", "mel", "tools/call", {"name": "plus"}, mcp_name="plus", mcp_method="tools/call"
    )
    assert answer.status_code == 200
    assert upstream.seen[-1].headers["mcp-name"] == "add"


def test_a_published_name_never_hides_the_tool_that_really_has_it(
    gateway: Running, write: Write, upstream: RawServer
) -> None:
    serve(write, upstream, tool_name_to_display_name={"drop": "add", "raw-add": "plus"})
    for is_known in (False, True):
        if is_known:
            with write() as session:
                see_tools(session, "id-raw", "raw-add", "add", "drop")
        tools = gateway.post("raw", "mel", "tools/list").json()["result"]["tools"]
        names = [tool["name"] for tool in tools if isinstance(tool, dict)]
        assert names == ["plus", "add", "drop", 7]
    for name, asked in (("add", "add"), ("drop", "drop"), ("plus", "raw-add")):
        assert json.loads(call(gateway, "mel", name)[1])["name"] == asked


@pytest.mark.parametrize(
    "body",
    [
        '{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"drop"}}',
        '{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call","params":{"name":"drop"}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","name":"drop"}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","Name":"drop"}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","naMe":"drop"}}',
        '{"jsonrpc":"2.0","id":1,"\\u004dethod":"tools/call","params":{"name":"drop"}}',
        '[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"drop"}}]',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":["drop"]}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["drop"]}',
        '{"jsonrpc":"2.0","id":NaN,"method":"tools/call","params":{"name":"drop"}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call"}{"params":{"name":"drop"}}',
        "\ufeff{}",
        "",
    ],
)
def test_a_message_that_can_be_read_in_two_ways_is_not_passed_on(
    gateway: Running, write: Write, upstream: RawServer, body: str
) -> None:
    serve(write, upstream, allowed_tools=["add"])
    headers = {"Content-Type": "application/json"}
    answer = gateway.ask("POST", "/raw/mcp", "mel", content=body.encode(), headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] in (-32700, -32600, -32602)
    assert upstream.seen == []


@pytest.mark.parametrize(
    "headers",
    [
        {"mcp_method": "ping"},
        {"mcp_method": "tools/call", "mcp_name": "add"},
        {"mcp_name": "=?base64?YWRk?="},
        {"mcp_name": "=?base64?!?="},
    ],
)
def test_a_header_that_names_something_else_than_the_body_is_refused(
    gateway: Running, write: Write, upstream: RawServer, headers: dict[str, str]
) -> None:
    serve(write, upstream)
    answer = gateway.post("raw", "mel", "tools/call", {"name": "drop"}, **headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)
    assert answer.json()["id"] == 1
    assert upstream.seen == []
