"""Explain access: each rule with its verdict, for one person or key and one server."""

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
        Query("user_id", "The person; give this or `key_id`."),
        Query("key_id", "The API key."),
        Query("server_id", "The MCP server; it has to be there."),
        Query("tool", "One of its tools."),
        Query("address", "Where they would ask from; the address of this request where left out."),
    ),
)
def explain_access() -> Response:
    """`?user_id=` or `?key_id=`, `&server_id=`, and where one tool is meant `&tool=`; `&address=`
    is from where."""
    asked = {
        name: request.args.get(name, "")[:320]
        for name in ("user_id", "key_id", "server_id", "tool", "address")
    }
    return answer(explain.explain_access(g.session, g.principal, **asked))
