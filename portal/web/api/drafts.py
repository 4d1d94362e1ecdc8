"""Temporary servers: definitions to test with OAuth before they are saved."""

from typing import cast

from flask import Blueprint, Response, g

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.servers import ServerFields
from portal.services.drafts import temporary_servers
from portal.services.servers.views import ServerView
from portal.web.api.answers import answer
from portal.web.api.payloads import read
from portal.web.api.shapes import ServerBody
from portal.web.documented import documented

bp = Blueprint("api_drafts", __name__, url_prefix="/v1/mcp")


@bp.post("/server/oauth/session")
@documented(
    ServerView,
    takes=ServerBody,
    also=(409,),
    example={"transport": "http", "url": "https://tools.example.com/mcp", "auth_type": "oauth2"},
)
def hold_server() -> Response:
    """Store a definition for 300 seconds. It does not appear in lists."""
    authz.require(g.principal, Action.SERVER_CREATE)
    fields = cast(ServerFields, read(ServerBody).sent())
    return answer(temporary_servers.hold_server(g.session, g.principal, fields))
