"""Metadata that clients read before sign-in: RFC 9728 for servers, RFC 8414 for the portal.

Anyone may read it, so it contains only the requested name and nothing stored. It is the same for
existing, hidden, submitted and rejected servers and for unknown names. Only for servers that
strangers may sign in to (with delegated or passed-through sign-in) does it include the scopes and
the title, and it does not offer refresh tokens. Only signing in reveals whether a server exists.
"""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.domain.errors import NotFound, Unauthenticated
from portal.domain.gateway_addresses import GatewayAddress, Names
from portal.domain.principals import Principal
from portal.services.oauth_broker.common import configured_scopes, issuer_named
from portal.services.oauth_broker.subjects import find_open_server
from portal.services.runtime import runtime_of
from portal.services.servers.queries import prefix_of
from portal.store.models import Server


def describe_resource(
    session: Session, principal: Principal, address: GatewayAddress | None
) -> dict[str, Any]:
    """Return the protected resource metadata of a gateway address, or of the portal (None).

    `resource` is the requested address, because clients compare it with the one they use (RFC 9728,
    3.3). The authorization server is the portal: for a server that delegates or passes through its
    sign-in, the OAuth broker under the server's name.
    """
    runtime = runtime_of(session)
    named = address.name if address is not None and address.names is Names.SERVER else None
    row = find_open_server(session, principal, named) if named is not None else None
    gateway = runtime.gateway_url.rstrip("/")
    return {
        "resource": runtime.public_url if address is None else f"{gateway}{address.path}",
        "authorization_servers": [issuer_named(session, named if row is not None else None)],
        "scopes_supported": _scopes(session, row),
        "bearer_methods_supported": ["header"],
        **({"resource_name": row.server_name or prefix_of(row)} if row is not None else {}),
    }


def describe_authorization_server(
    session: Session, principal: Principal, prefix: str | None
) -> dict[str, Any]:
    """Return the metadata of the OAuth broker for a server's name, or of the gateway (None)."""
    row = find_open_server(session, principal, prefix) if prefix is not None else None
    issuer = issuer_named(session, prefix)
    base = f"{issuer}/oauth" if prefix is None else issuer
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{base}/authorize",
        "token_endpoint": f"{base}/token",
        "registration_endpoint": f"{base}/register",
        **(_own_abilities(base) if prefix is None else {}),
        "scopes_supported": _scopes(session, row),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        # Clients without an account get no refresh token, because the portal could not tell whose
        # it is.
        "grant_types_supported": [
            "authorization_code",
            *(["refresh_token"] if row is None else []),
        ],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"]
        if prefix is None
        else ["none", "client_secret_post"],
        "authorization_response_iss_parameter_supported": True,
    }


def only_server(session: Session, principal: Principal) -> str:
    """Return the only server that the caller may sign in to through the portal.

    Raises `NotFound` if there are none or several, and for strangers `Unauthenticated`, as for
    every server that does not admit them.
    """
    known = authz.is_known(principal)
    condition = authz.sign_in_servers(principal) if known else authz.open_servers(principal)
    found = session.scalars(select(Server.server_id).where(condition).limit(2)).all()
    if len(found) == 1:
        return found[0]
    if not known:
        raise Unauthenticated("Sign in, or send an API key.")
    raise NotFound("The server is ambiguous. Use the addresses in the server’s own metadata.")


def _own_abilities(base: str) -> dict[str, Any]:
    return {
        "revocation_endpoint": f"{base}/revoke",
        "revocation_endpoint_auth_methods_supported": ["none"],
        "client_id_metadata_document_supported": True,
    }


def _scopes(session: Session, row: Server | None) -> list[str]:
    return list(configured_scopes(session, row)) if row is not None else []
