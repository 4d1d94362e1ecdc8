"""Access groups: named sets of servers."""

from flask import Blueprint, Response, g

from portal.authorization import Action
from portal.services.access import access_groups
from portal.services.access.access_groups import AccessGroupView
from portal.web.api.answers import answer, nothing, page_of, to_json
from portal.web.api.guarding import guard
from portal.web.api.payloads import list_place, read
from portal.web.api.shapes import GroupBody, GroupChange
from portal.web.documented import PAGED, documented, listed

bp = Blueprint("api_access_groups", __name__, url_prefix="/v1/access-groups")
guard(bp, read=Action.ACCESS_GROUP_READ, write=Action.ACCESS_GROUP_MANAGE)


@bp.get("")
@documented(listed(AccessGroupView), query=PAGED)
def list_groups() -> Response:
    """List access groups."""
    return page_of(access_groups.list_groups(g.session, g.principal, **list_place()), to_json)


@bp.post("")
@documented(AccessGroupView, takes=GroupBody, status=201, also=(409,), example={"name": "research"})
def create_group() -> Response:
    """Create an access group."""
    payload = read(GroupBody)
    view = access_groups.create_group(
        g.session, g.principal, payload.name, payload.description, payload.mcp_server_ids
    )
    return answer(view, 201)


@bp.get("/<group_id>")
@documented(AccessGroupView)
def get_group(group_id: str) -> Response:
    """Get an access group."""
    return answer(access_groups.get_group(g.session, g.principal, group_id))


@bp.patch("/<group_id>")
@documented(AccessGroupView, takes=GroupChange, also=(409,), example={"mcp_server_ids": ["notes"]})
def change_group(group_id: str) -> Response:
    """Change the sent fields of an access group."""
    sent = read(GroupChange).sent()
    view = access_groups.change_group(
        g.session,
        g.principal,
        group_id,
        name=sent.get("name"),
        servers=sent.get("mcp_server_ids"),
        description=sent["description"] or "" if "description" in sent else None,
    )
    return answer(view)


@bp.delete("/<group_id>")
@documented(status=204)
def delete_group(group_id: str) -> Response:
    """Delete an access group and the access that it granted."""
    access_groups.delete_group(g.session, g.principal, group_id)
    return nothing(204)
