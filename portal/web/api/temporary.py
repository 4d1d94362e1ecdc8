"""Temporary servers: definitions that are tried with OAuth before they are saved."""

from typing import cast

from flask import Blueprint, Response, g

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.servers import ServerFields
from portal.services import temporary
from portal.web.api.answers import answer
from portal.web.api.payloads import read
from portal.web.api.shapes import ServerBody

bp = Blueprint("api_temporary", __name__, url_prefix="/v1/mcp")


@bp.post("/server/oauth/session")
def hold_server() -> Response:
    """Hold a definition for 300 s; it is in no list."""
    authz.require(g.principal, Action.SERVER_CREATE)
    fields = cast(ServerFields, read(ServerBody).sent())
    return answer(temporary.hold_server(g.session, g.principal, fields))
