"""The tools of the servers that the caller can use."""

from typing import Any

from flask import Blueprint, Response, g

from portal.services.tools import calls
from portal.web.api.answer_shapes import Tools
from portal.web.api.answers import answer
from portal.web.api.payloads import read
from portal.web.api.shapes import ToolCall
from portal.web.context import reads_only
from portal.web.documented import documented
from portal.web.request_auth import caller_headers

bp = Blueprint("api_tools", __name__, url_prefix="/v1/mcp")


@bp.get("/tools")
@documented(Tools)
def list_tools() -> Response:
    """List the tools in the format of MCP, named `{prefix}-{tool}`.

    Servers receive the caller's headers that they are configured to forward.
    """
    return answer({"tools": calls.list_all_tools(g.session, g.principal, caller_headers())})


@bp.post("/tools/call")
@documented(
    dict[str, Any],
    takes=ToolCall,
    also=(404, 409, 412, 502, 504),
    example={"server_id": "notes", "name": "search_notes", "arguments": {"query": "budget"}},
)
@reads_only
def call_tool() -> Response:
    """Call a tool as the caller.

    The response is the MCP result, which may be a tool error (`isError`).
    """
    call = read(ToolCall)
    given = (call.server_id, call.name, call.arguments)
    return answer(calls.call_tool(g.session, g.principal, *given, passed=caller_headers()).wire)
