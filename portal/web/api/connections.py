"""The caller's OAuth connections to servers. Tokens are written, never read back."""

from typing import Any

from flask import Blueprint, Response, g

from portal.services import connections
from portal.services.connections import ConnectionState
from portal.web.api.answers import answer
from portal.web.api.payloads import read_if
from portal.web.api.shapes import OwnToken

bp = Blueprint("api_connections", __name__, url_prefix="/v1/mcp")


@bp.post("/server/<server_id>/oauth-user-credential")
def save_token(server_id: str) -> Response:
    """Store tokens that the caller got elsewhere."""
    sent = read_if(lambda: connections.require_own_place(g.session, g.principal, server_id), OwnToken)
    state = connections.save_token(
        g.session, g.principal, server_id, access_token=sent.access_token, refresh_token=sent.refresh_token or "",
        expires_in=sent.expires_in, scopes=sent.scopes or (),
    )  # fmt: skip
    return answer(_state(state))


@bp.delete("/server/<server_id>/oauth-user-credential")
def disconnect(server_id: str) -> Response:
    """Forget the caller's tokens, here and where they come from."""
    connections.disconnect(g.session, g.principal, server_id)
    return answer(_state(connections.get_state(g.session, g.principal, server_id)))


@bp.get("/server/<server_id>/oauth-user-credential/status")
def status(server_id: str) -> Response:
    """Whether the caller is connected."""
    return answer(_state(connections.get_state(g.session, g.principal, server_id)))


@bp.get("/user-credentials")
def list_own() -> Response:
    """The caller's connections."""
    return answer(
        [
            {**_state(state), "server_name": name, "alias": alias, "credential_type": "oauth2"}
            for state, name, alias in connections.list_own(g.session, g.principal)
        ]
    )


def _state(state: ConnectionState) -> dict[str, Any]:
    names = ("server_id", "has_credential", "expires_at", "is_expired", "connected_at")
    return {name: getattr(state, name) for name in names}
