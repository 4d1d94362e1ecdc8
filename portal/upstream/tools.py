"""Listing and calling of tools in a session, with the upstream's JSON unchanged."""

from typing import TYPE_CHECKING, Any

from portal.domain.upstream import HealthReason, ToolDefinition
from portal.upstream.conversation import WireWitness, cleaned
from portal.upstream.faults import Fault

if TYPE_CHECKING:
    from mcp import Client, MCPError

MAX_TOOLS = 2000
MAX_PAGES = 200
MAX_ERROR_TEXT = 2000  # characters


async def listed(client: "Client", witness: WireWitness) -> tuple[ToolDefinition, ...]:
    """Return all tools of a server, at most 2,000, from all pages."""
    from mcp import MCPError
    from mcp_types import METHOD_NOT_FOUND

    tools: list[ToolDefinition] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        try:
            page, cursor = await _page(client, cursor)
        except MCPError as error:
            speaks_mcp = not witness.answer or witness.answer.speaks_mcp
            if error.code == METHOD_NOT_FOUND and not tools and speaks_mcp:
                return ()
            raise
        tools.extend(page)
        if cursor is None or len(tools) >= MAX_TOOLS:
            break
    return tuple(tools[:MAX_TOOLS])


async def _page(client: "Client", cursor: str | None) -> tuple[list[ToolDefinition], str | None]:
    from mcp.shared.inbound import find_invalid_x_mcp_header
    from mcp_types.version import MODERN_PROTOCOL_VERSIONS

    raw = await ask(client, "tools/list", {} if cursor is None else {"cursor": cursor})
    sent = raw.get("tools")
    if not isinstance(sent, list):
        raise ValueError("the result of tools/list has no tools")
    tools = [ToolDefinition(tool) for tool in map(_usable, sent) if tool is not None]
    if sent and not tools:
        raise ValueError("no tool of the list has a valid definition")
    if client.protocol_version in MODERN_PROTOCOL_VERSIONS:
        # MCP 2026-07-28 (SEP-2243): a client MUST drop tools whose header annotations are invalid.
        tools = [tool for tool in tools if find_invalid_x_mcp_header(tool.input_schema) is None]
    return tools, raw.get("nextCursor")


def _usable(tool: Any) -> dict[str, Any] | None:
    """Return a tool with an object as its input schema, or None if its definition is not valid.

    One invalid tool must not hide the others. A missing schema, or one without a type, is that of
    an object.
    """
    from mcp_types import Tool
    from pydantic import ValidationError

    if not isinstance(tool, dict):
        return None
    schema = tool.get("inputSchema")
    if schema is None or (isinstance(schema, dict) and "type" not in schema):
        tool = {**tool, "inputSchema": {"type": "object", **(schema or {})}}
    try:
        Tool.model_validate(tool, by_name=False)
    except ValidationError:
        return None
    return tool if tool["inputSchema"]["type"] == "object" else None


async def ask(client: "Client", method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Send a request, and return the result as the server sent it. Raises `MCPError`.

    The SDK's `send_request` refuses a whole result if any part of it does not fit its models.
    """
    message: dict[str, Any] = {"method": method, "params": dict(params)}
    options: Any = {}
    session = client.session
    session._stamp(message, options)
    result = await session._dispatcher.send_raw_request(method, message["params"], options)
    if not isinstance(result, dict):
        raise ValueError("the result is not an object")
    found: dict[str, Any] = cleaned(result)
    return found


async def call(
    client: "Client", witness: WireWitness, *, name: str, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Call a tool, and return the CallToolResult, or one with the upstream's JSON-RPC error."""
    from mcp import MCPError
    from mcp_types import HEADER_MISMATCH

    try:
        try:
            result = await _call_once(client, name, arguments)
        except MCPError as error:
            if error.code != HEADER_MISMATCH:
                raise
            await client.list_tools()  # from the list, the SDK knows which arguments are headers
            result = await _call_once(client, name, arguments)
    except MCPError as error:
        if not is_an_answer(error, witness):
            raise
        return {
            "content": [{"type": "text", "text": error.message[:MAX_ERROR_TEXT]}],
            "isError": True,
        }
    if result.get("resultType") == "input_required":
        raise Fault(
            HealthReason.NOT_MCP,
            "The tool requests further input, which the portal does not support.",
        )
    return result


async def _call_once(client: "Client", name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    from mcp_types import CallToolRequest, CallToolRequestParams
    from pydantic import TypeAdapter

    request = CallToolRequest(params=CallToolRequestParams(name=name, arguments=arguments))
    result: dict[str, Any] = cleaned(
        await client.session.send_request(request, TypeAdapter(dict[str, Any]))
    )
    return result


def is_an_answer(error: "MCPError", witness: WireWitness) -> bool:
    """Return whether the upstream sent this error. The SDK raises others for transport errors."""
    from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, PARSE_ERROR

    if error.code in (CONNECTION_CLOSED, PARSE_ERROR) or witness.fault:
        return False
    answer = witness.answer
    if answer is None or answer.speaks_mcp:
        return True
    return answer.is_json and answer.status in (400, 404) and error.code != INTERNAL_ERROR
