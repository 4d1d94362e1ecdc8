"""Explain access: choose a user or key and a server, and see the result of each rule."""

from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, g, request, url_for

from portal.domain.errors import InvalidInput, NotFound
from portal.services.access import explain, pickers
from portal.services.access.explain import Explanation, NextStep
from portal.web.context import only_with_admin_view, reads_only
from portal.web.forms.pickers import is_search
from portal.web.pages.pickers import key_options, one_server_options, person_options
from portal.web.rendering import page, see_other

bp = Blueprint("explain", __name__, url_prefix="/admin/access")
_FIELDS = ("user_id", "key_id", "server_id", "tool", "address")
_RULES = {
    "identity": "Caller",
    "active": "Active",
    "address": "Address",
    "owner": "Key owner",
    "open_to_all": "Open to everyone",
    "admin_view": "Administrator",
    "grants": "Grants",
    "view_all": "Visible to everyone",
    "allowed_tools": "Allowed tools",
    "tool_permissions": "Tool permissions",
    "allowed_routes": "Key routes",
}


bp.before_request(only_with_admin_view)


@bp.get("")
def index() -> Response:
    """Show the form and, when it is complete, the explanation. The URL can be shared."""
    asked = {name: request.args.get(name, "").strip()[:320] for name in _FIELDS}
    errors: dict[str, list[str]] = {}
    answer = None
    if asked["user_id"] or asked["key_id"] or "ask" in request.args:
        try:
            answer = explain.explain_access(g.session, g.principal, **asked)
        except (InvalidInput, NotFound) as error:
            errors[error.field or "server_id"] = [error.message]
    return _page(asked, answer, errors)


@bp.post("")
@reads_only
def ask() -> Response:
    """Search for a user, key or server, or redirect to the explanation."""
    asked = {name: request.form.get(name, "").strip()[:320] for name in _FIELDS}
    if is_search():
        return _page(asked, None, {})
    query = {name: value for name, value in asked.items() if value} | {"ask": "yes"}
    return see_other(f"{url_for('explain.index')}?{urlencode(query)}")


def _page(
    asked: dict[str, str], answer: Explanation | None, errors: dict[str, list[str]]
) -> Response:
    server = pickers.name_servers(g.session, g.principal, [asked["server_id"]]).get(
        asked["server_id"]
    )
    return page(
        "explain/index.html",
        status=422 if errors else 200,
        nav="explain",
        asked=asked,
        answer=answer,
        errors=errors,
        rules=_RULES,
        server=server,
        step_url=_url_of(answer.next_step, asked) if answer and answer.next_step else "",
        people=person_options(asked["user_id"]),
        keys=key_options(asked["key_id"]),
        servers=one_server_options(asked["server_id"], url_for("pickers.find_server")),
    )


def _url_of(step: NextStep, asked: dict[str, str]) -> str:
    """Return the URL of the form for the step, with the server already searched for."""
    server = pickers.name_servers(g.session, g.principal, [asked["server_id"]]).get(
        asked["server_id"]
    )
    find: dict[str, Any] = {"find": server.text if server else None}
    places = {
        "open_team": ("teams.edit", {"team_id": step.target_id, **find}),
        "open_user": ("users.edit", {"user_id": step.target_id, **find}),
        "issue_key": ("keys.new_for_anybody", find),
        "open_server": ("servers.detail", {"server_id": step.target_id}),
        "change_reach": ("servers.edit", {"server_id": step.target_id}),
        "edit_server": ("servers.edit", {"server_id": step.target_id}),
        "open_toolset": ("toolsets.edit", {"toolset_id": step.target_id}),
    }
    endpoint, values = places[step.action]
    return url_for(endpoint, **values)
