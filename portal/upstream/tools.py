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
    from mcp_types import ListToolsRequest, PaginatedRequestParams
    from mcp_types.version import MODERN_PROTOCOL_VERSIONS
    from pydantic import TypeAdapter

    request = ListToolsRequest(params=PaginatedRequestParams(cursor=cursor))
    # A plain dict, since the SDK's model would drop unknown keys.
    raw = cleaned(await client.session.send_request(request, TypeAdapter(dict[str, Any])))
    tools = [ToolDefinition(tool) for tool in raw["tools"]]
    if client.protocol_version in MODERN_PROTOCOL_VERSIONS:
        # MCP 2026-07-28 (SEP-2243): a client MUST drop tools whose header annotations are invalid.
        tools = [tool for tool in tools if find_invalid_x_mcp_header(tool.input_schema) is None]
    return tools, raw.get("nextCursor")


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
        if not _is_an_answer(error, witness):
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


def _is_an_answer(error: "MCPError", witness: WireWitness) -> bool:
    """Return whether the upstream sent this error. The SDK raises others for transport errors."""
    from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, PARSE_ERROR

    if error.code in (CONNECTION_CLOSED, PARSE_ERROR) or witness.fault:
        return False
    answer = witness.answer
    if answer is None or answer.speaks_mcp:
        return True
    return answer.is_json and answer.status in (400, 404) and error.code != INTERNAL_ERROR
