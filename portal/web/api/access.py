"""Explain access: each rule with its verdict, for one person or key and one server."""

from flask import Blueprint, Response, g, request

from portal.authorization import Action
from portal.services import explain
from portal.web.api.answers import answer
from portal.web.api.guarding import guard

bp = Blueprint("api_access", __name__, url_prefix="/v1/access")
guard(bp, read=Action.USER_READ, write=Action.USER_READ)


@bp.get("/explain")
def explain_access() -> Response:
    """`?user_id=` or `?key_id=`, `&server_id=`, and where one tool is meant `&tool=`; `&address=` is from where."""
    asked = {name: request.args.get(name, "")[:320] for name in ("user_id", "key_id", "server_id", "tool", "address")}
    return answer(explain.explain_access(g.session, g.principal, **asked))
