"""Toolsets: named selections of tools across servers."""

from typing import Annotated

from flask import Blueprint, Response, g
from pydantic import Field, StringConstraints

from portal import authorization as authz
from portal.authorization import Action
from portal.services.tools import toolsets
from portal.services.tools.toolsets import ToolRef, ToolsetView
from portal.web.api.answers import answer, nothing
from portal.web.api.payloads import Payload, read
from portal.web.api.shapes import Id, Short, Text, Word
from portal.web.documented import documented

bp = Blueprint("api_toolsets", __name__, url_prefix="/v1/mcp/toolset")


class ToolsetEntry(Payload):
    """One tool of a toolset."""

    server_id: Word
    tool_name: Annotated[str, StringConstraints(min_length=1, max_length=300)]


ToolsetEntries = Annotated[list[ToolsetEntry], Field(max_length=500)]


class ToolsetBody(Payload):
    """A toolset to create."""

    toolset_name: Short
    description: Text | None = None
    tools: ToolsetEntries = Field(default_factory=list)


class ToolsetChange(Payload):
    """Changes to a toolset."""

    toolset_id: Id
    toolset_name: Short | None = None
    description: Text | None = None
    tools: ToolsetEntries | None = None


@bp.get("")
@documented(list[ToolsetView])
def list_toolsets() -> Response:
    """List the toolsets granted to the caller or, with admin view, all toolsets."""
    return answer(toolsets.list_toolsets(g.session, g.principal))


@bp.post("")
@documented(
    ToolsetView,
    takes=ToolsetBody,
    status=201,
    also=(409,),
    example={
        "toolset_name": "Reading",
        "tools": [{"server_id": "notes", "tool_name": "search_notes"}],
    },
)
def create_toolset() -> Response:
    """Create a toolset."""
    authz.require(g.principal, Action.TOOLSET_MANAGE)
    body = read(ToolsetBody)
    view = toolsets.create_toolset(
        g.session, g.principal, body.toolset_name, body.description, _refs(body.tools)
    )
    return answer(view, 201)


@bp.put("")
@documented(
    ToolsetView,
    takes=ToolsetChange,
    also=(404, 409),
    example={"toolset_id": "reading", "description": "Only reads"},
)
def change_toolset() -> Response:
    """Change the sent fields of a toolset. An explicit null removes the description."""
    authz.require(g.principal, Action.TOOLSET_MANAGE)
    body = read(ToolsetChange)
    sent = body.model_fields_set
    view = toolsets.change_toolset(
        g.session,
        g.principal,
        body.toolset_id,
        name=body.toolset_name,
        description=body.description or "" if "description" in sent else None,
        tools=_refs(body.tools) if body.tools is not None else None,
    )
    return answer(view)


@bp.get("/<toolset_id>")
@documented(ToolsetView)
def get_toolset(toolset_id: str) -> Response:
    """Get a toolset."""
    return answer(toolsets.get_toolset(g.session, g.principal, toolset_id))


@bp.delete("/<toolset_id>")
@documented(status=202)
def delete_toolset(toolset_id: str) -> Response:
    """Delete a toolset and the access that it granted."""
    toolsets.delete_toolset(g.session, g.principal, toolset_id)
    return nothing(202)


def _refs(entries: list[ToolsetEntry]) -> list[ToolRef]:
    return [ToolRef(entry.server_id, entry.tool_name) for entry in entries]
