"""Explain access: the result of each rule for one user or key and one server."""

from flask import Blueprint, Response, g, request

from portal.authorization import Action
from portal.services.access import explain
from portal.services.access.explain import Explanation
from portal.web.api.answers import answer
from portal.web.api.guarding import guard
from portal.web.documented import Query, documented

bp = Blueprint("api_explain", __name__, url_prefix="/v1/access")
guard(bp, read=Action.USER_READ, write=Action.USER_READ)


@bp.get("/explain")
@documented(
    Explanation,
    also=(404,),
    query=(
        Query("user_id", "User ID. Required unless `key_id` is given."),
        Query("key_id", "API key ID. Required unless `user_id` is given."),
        Query("server_id", "ID of an existing MCP server."),
        Query("tool", "Name of a tool of the server."),
        Query("address", "IP address of the caller. Defaults to that of this request."),
    ),
)
def explain_access() -> Response:
    """Explain whether a user or key has access to a server or tool, and why."""
    asked = {
        name: request.args.get(name, "")[:320]
        for name in ("user_id", "key_id", "server_id", "tool", "address")
    }
    return answer(explain.explain_access(g.session, g.principal, **asked))
