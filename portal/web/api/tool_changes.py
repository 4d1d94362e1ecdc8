"""Tool definitions that differ from the accepted ones."""

from typing import Annotated, Any

from flask import Blueprint, Response, g
from pydantic import StringConstraints

from portal.services.tools import tool_changes
from portal.services.tools.tool_changes import ToolChange
from portal.web.api.answer_shapes import ToolChangesAnswer
from portal.web.api.answers import answer, to_json
from portal.web.api.payloads import Payload, read_if
from portal.web.documented import documented

bp = Blueprint("api_tool_changes", __name__, url_prefix="/v1/mcp/server/<server_id>/tool-changes")


class Acceptance(Payload):
    """A tool and the hash of the definition to accept; null accepts that the tool was removed."""

    tool_name: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None


@bp.get("")
@documented(ToolChangesAnswer)
def list_changes(server_id: str) -> Response:
    """List the first 20 pending changes by name, with both definitions and warnings."""
    found = tool_changes.list_changes(g.session, g.principal, server_id)
    return answer(
        {**to_json(found, without=("items",)), "items": [_item(change) for change in found.items]}
    )


@bp.post("/accept")
@documented(
    ToolChangesAnswer,
    takes=Acceptance,
    also=(409,),
    example={"tool_name": "search", "sha256": "0" * 64},
)
def accept(server_id: str) -> Response:
    """Accept a tool definition. Returns 409 if it changed since it was shown."""
    sent = read_if(
        lambda: tool_changes.check_may_accept(g.session, g.principal, server_id), Acceptance
    )
    tool_changes.accept(g.session, g.principal, server_id, sent.tool_name, sent.sha256)
    return list_changes(server_id)


def _item(change: ToolChange) -> dict[str, Any]:
    return {
        **to_json(change, without=("warnings",)),
        "warnings": [to_json(warning) for warning in change.warnings],
    }
