"""MCP servers: list, get, create, change, delete, publish, and check their health."""

from typing import cast

from flask import Blueprint, Response, g, request

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Forbidden
from portal.domain.servers import ServerFields
from portal.services.access import access_groups
from portal.services.servers import crud
from portal.services.servers.views import ServerView
from portal.services.upstreams import health
from portal.services.upstreams.health import HealthRow
from portal.web.api.answer_shapes import ChangedServer, ClientAddress, GroupNames, Published
from portal.web.api.answers import answer, next_link, nothing, to_json, unless_held
from portal.web.api.payloads import cursor_of, limit_of, read
from portal.web.api.shapes import PublicServers, ServerBody, ServerChange
from portal.web.documented import PAGED, Query, documented

bp = Blueprint("api_servers", __name__, url_prefix="/v1/mcp")
_EXAMPLE = {
    "server_name": "notes",
    "description": "Notes",
    "transport": "http",
    "url": "https://notes.example.com/mcp",
}


@bp.get("/server")
@documented(
    list[ServerView],
    query=(Query("team_id", "Only servers that this team can use."), *PAGED),
    also=(304, 404),
)
def list_servers() -> Response:
    """List the servers that the caller may see.

    With `limit`, the response is a page with a `Link` header to the next one.
    """
    after = cast(tuple[str, str] | None, cursor_of(2))
    limit = limit_of(usual=None)
    page = crud.list_servers(
        g.session, g.principal, team_id=request.args.get("team_id"), limit=limit, after=after
    )
    response = answer(page.items)
    if page.next_cursor is not None:
        response.headers["Link"] = next_link(page.next_cursor)
    return unless_held(response)


@bp.post("/server")
@documented(ServerView, takes=ServerBody, status=201, also=(409,), example=_EXAMPLE)
def create_server() -> Response:
    """Create a server, which is active immediately."""
    authz.require(g.principal, Action.SERVER_CREATE)
    fields = cast(ServerFields, read(ServerBody).sent())
    return answer(crud.create_server(g.session, g.principal, fields), 201)


@bp.put("/server")
@documented(
    ServerView | ChangedServer,
    takes=ServerChange,
    status=202,
    also=(404, 409),
    example={"server_id": "notes", "description": "Read and change notes"},
)
def update_server() -> Response:
    """Change the sent fields of the server named in the body."""
    _require_admin("call PUT /v1/mcp/server")
    fields = read(ServerChange).sent()
    server_id = fields.pop("server_id")
    view, settled = crud.change_server(
        g.session, g.principal, server_id, cast(ServerFields, fields)
    )
    return answer({**to_json(view), "settled": settled.wire} if settled.wire else view, 202)


@bp.get("/server/<server_id>")
@documented(ServerView)
def get_server(server_id: str) -> Response:
    """Get a server by ID, name or alias, with a new health check."""
    return answer(health.get_checked_server(g.session, g.principal, server_id))


@bp.delete("/server/<server_id>")
@documented(status=202)
def delete_server(server_id: str) -> Response:
    """Delete a server with its credentials and grants."""
    crud.delete_server(g.session, g.principal, server_id)
    return nothing(202)


@bp.get("/server/health")
@documented(
    list[HealthRow], query=(Query("server_ids", "Only these servers. May be repeated.", list[str]),)
)
def check_servers() -> Response:
    """Check the health of the servers that the caller can use."""
    wanted = [server_id for server_id in request.args.getlist("server_ids") if server_id.strip()]
    return answer(health.check_servers(g.session, g.principal, wanted or None))


@bp.post("/make_public")
@documented(
    Published, takes=PublicServers, status=202, also=(404,), example={"mcp_server_ids": ["notes"]}
)
def make_public() -> Response:
    """Replace the list of public servers."""
    authz.require(g.principal, Action.PREFERENCE_MANAGE)
    public = crud.publish_servers(g.session, g.principal, read(PublicServers).mcp_server_ids)
    message = (
        "1 MCP server is now public."
        if len(public) == 1
        else f"{len(public)} MCP servers are now public."
    )
    return answer(
        {"message": message, "public_mcp_servers": public, "updated_by": g.principal.signature}, 202
    )


@bp.get("/access_groups")
@documented(GroupNames)
def list_access_groups() -> Response:
    """List the names of the access groups."""
    return answer({"access_groups": access_groups.list_names(g.session, g.principal)})


@bp.get("/network/client-ip")
@documented(ClientAddress)
def client_address() -> Response:
    """Get the caller's IP address, as used by the address rule."""
    return answer({"ip": g.principal.address})


def _require_admin(what: str) -> None:
    if not authz.is_admin(g.principal):
        raise Forbidden(f"Only an Admin (PROXY_ADMIN) may {what}.")
