"""What clients read before they sign in: RFC 9728 of a server's resource, RFC 8414 of the portal as
its middle.

Strangers ask, so the answer is made of the name that they ask for and of nothing that is stored: it
is the same for a server that is there, for one that is hidden, under review or rejected, and for a
name that nobody uses. Only of a server that strangers may sign in to (its sign-in is delegated or
passed through) do they learn the scopes and the title, and that they sign in anew where others
renew. Whether a name stands for a server shows once somebody has signed in.
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
    """The protected resource metadata of an address of the gateway, or (None) of the portal.

    The `resource` is the address that was asked for: clients compare it with the one they use
    (RFC 9728, 3.3). The portal is the authorization server; of a server that leaves signing in to
    its upstream it is in the middle, under a name of its own.
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
    """The portal as an authorization server: in the middle for the server that a client calls
    `prefix`, or (None) of its own gateway."""
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
        # Who is let in without an account gets no refresh token: the portal could not say whose it
        # is.
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


def _own_abilities(base: str) -> dict[str, Any]:
    return {
        "revocation_endpoint": f"{base}/revoke",
        "revocation_endpoint_auth_methods_supported": ["none"],
        "client_id_metadata_document_supported": True,
    }


def _scopes(session: Session, row: Server | None) -> list[str]:
    return list(configured_scopes(session, row)) if row is not None else []
