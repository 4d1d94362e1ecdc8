"""What clients read before they sign in: RFC 9728 of a server's resource, RFC 8414 of the portal as
its middle.

Strangers ask, so the answer is made of the name that they ask for and of nothing that is stored: it
is the same for a server that is there, for one that is hidden, under review or rejected, and for a
name that nobody uses. Only of a server that strangers may sign in to (its sign-in is delegated or
passed through) do they learn the scopes and the title, and that they sign in anew where others
renew. Whether a name stands for a server shows once somebody has signed in.
"""

from typing import Any
from urllib.parse import quote

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.domain.errors import NotFound, Unauthenticated
from portal.domain.principals import Principal
from portal.domain.snippets import endpoint
from portal.services.oauth_broker.common import configured_scopes, issuer_named
from portal.services.oauth_broker.subjects import find_open_server
from portal.services.runtime import runtime_of
from portal.services.servers.queries import prefix_of
from portal.store.models import Server


def describe_resource(
    session: Session, principal: Principal, prefix: str | None, *, below_mcp: bool = False
) -> dict[str, Any]:
    """The protected resource metadata of the address of a server, or (`prefix` None) of the portal.

    `below_mcp` says that the address is `/mcp/{prefix}` and not `/{prefix}/mcp`. The `resource` is
    the address that was asked for: clients compare it with the one they use (RFC 9728, 3.3).
    """
    runtime = runtime_of(session)
    row = find_open_server(session, principal, prefix) if prefix is not None else None
    resource = runtime.public_url
    if prefix is not None:
        gateway = runtime.gateway_url.rstrip("/")
        resource = (
            f"{gateway}/mcp/{quote(prefix, safe='')}" if below_mcp else endpoint(gateway, prefix)
        )
    return {
        "resource": resource,
        "authorization_servers": [issuer_named(session, prefix)],
        "scopes_supported": _scopes(session, row),
        "bearer_methods_supported": ["header"],
        **({"resource_name": row.server_name or prefix_of(row)} if row is not None else {}),
    }


def describe_authorization_server(
    session: Session, principal: Principal, prefix: str | None
) -> dict[str, Any]:
    """The portal as the authorization server for the server that a client calls `prefix`, or (None)
    for whichever."""
    row = find_open_server(session, principal, prefix) if prefix is not None else None
    issuer = issuer_named(session, prefix)
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "registration_endpoint": f"{issuer}/register",
        "scopes_supported": _scopes(session, row),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        # Who is let in without an account gets no refresh token: the portal could not say whose it
        # is.
        "grant_types_supported": [
            "authorization_code",
            *(["refresh_token"] if row is None else []),
        ],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_post"],
        "authorization_response_iss_parameter_supported": True,
    }


def only_server(session: Session, principal: Principal) -> str:
    """The one server that the caller may sign in to by way of the portal.

    Raises `NotFound` where it is none or several, and for strangers `Unauthenticated`, which is
    what they are told of every server that does not let them in.
    """
    known = authz.is_known(principal)
    condition = authz.sign_in_servers(principal) if known else authz.open_servers(principal)
    found = session.scalars(select(Server.server_id).where(condition).limit(2)).all()
    if len(found) == 1:
        return found[0]
    if not known:
        raise Unauthenticated("Sign in, or send an API key.")
    raise NotFound("Say which server you mean: use the addresses of its own metadata.")


def _scopes(session: Session, row: Server | None) -> list[str]:
    return list(configured_scopes(session, row)) if row is not None else []
