"""The tools of the servers that the caller may use."""

from flask import Blueprint, Response, g

from portal.services import tools
from portal.web.api.answers import answer
from portal.web.api.payloads import read
from portal.web.api.shapes import ToolCall
from portal.web.context import caller_headers, reads_only

bp = Blueprint("api_tools", __name__, url_prefix="/v1/mcp")


@bp.get("/tools")
def list_tools() -> Response:
    """The tools in MCP's own spelling, as `{prefix}-{tool}`; servers get those headers of the caller that they list."""
    return answer({"tools": tools.list_all_tools(g.session, g.principal, caller_headers())})


@bp.post("/tools/call")
@reads_only
def call_tool() -> Response:
    """Call a tool as the caller: MCP's own result, a tool's error (`isError`) included."""
    call = read(ToolCall)
    given = (call.server_id, call.name, call.arguments)
    return answer(tools.call_tool(g.session, g.principal, *given, passed=caller_headers()).wire)
