"""The caller's OAuth connections to servers. Tokens are write-only."""

from typing import Annotated, Any

from flask import Blueprint, Response, g
from pydantic import Field, StringConstraints

from portal.services.credentials import connections
from portal.services.credentials.states import ConnectionState
from portal.web.api.answer_shapes import Connection, NamedConnection
from portal.web.api.answers import answer
from portal.web.api.payloads import Payload, read_if
from portal.web.api.shapes import Word
from portal.web.documented import documented

bp = Blueprint("api_connections", __name__, url_prefix="/v1/mcp")


class OwnToken(Payload):
    """Tokens obtained outside the portal, in the characters that RFC 6750 allows."""

    access_token: Annotated[
        str, StringConstraints(min_length=1, max_length=16_384, pattern=r"^[\x21-\x7e]+$")
    ]
    refresh_token: Annotated[str, StringConstraints(max_length=16_384)] | None = None
    expires_in: Annotated[int, Field(ge=0, le=10 * 365 * 24 * 3600)] | None = None
    scopes: Annotated[list[Word], Field(max_length=100)] | None = None


@bp.post("/server/<server_id>/oauth-user-credential")
@documented(
    Connection,
    takes=OwnToken,
    example={"access_token": "token", "expires_in": 3600, "scopes": ["read"]},
)
def save_token(server_id: str) -> Response:
    """Store tokens that the caller obtained outside the portal.

    A refresh token is not stored if its provider cannot be found; `note` then says so.
    """
    sent = read_if(
        lambda: connections.require_own_place(g.session, g.principal, server_id), OwnToken
    )
    state = connections.save_token(
        g.session,
        g.principal,
        server_id,
        access_token=sent.access_token,
        refresh_token=sent.refresh_token or "",
        expires_in=sent.expires_in,
        scopes=sent.scopes or (),
    )
    return answer(_state(state))


@bp.delete("/server/<server_id>/oauth-user-credential")
@documented(Connection)
def disconnect(server_id: str) -> Response:
    """Delete the caller's tokens and revoke them at the provider."""
    gone = connections.disconnect(g.session, g.principal, server_id)
    return answer(_state(ConnectionState(gone.server_id, has_credential=False)))


@bp.get("/server/<server_id>/oauth-user-credential/status")
@documented(Connection)
def status(server_id: str) -> Response:
    """Get the state of the caller's connection."""
    return answer(_state(connections.get_state(g.session, g.principal, server_id)))


@bp.get("/user-credentials")
@documented(list[NamedConnection])
def list_own() -> Response:
    """List the caller's connections."""
    return answer(
        [
            {**_state(state), "server_name": name, "alias": alias, "credential_type": "oauth2"}
            for state, name, alias in connections.list_connections(g.session, g.principal)
        ]
    )


def _state(state: ConnectionState) -> dict[str, Any]:
    names = ("server_id", "has_credential", "expires_at", "is_expired", "connected_at")
    note = {"note": state.note} if state.note else {}
    return {name: getattr(state, name) for name in names} | note
