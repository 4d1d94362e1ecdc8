"""What clients read before they sign in: RFC 9728 of a server's resource, RFC 8414 of the portal as its middle.

Strangers ask. They learn that a server that people sign in to is there, where its endpoint is and which scopes it has;
every other name answers alike.
"""

from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.domain.errors import NotFound
from portal.domain.oauth import byok_metadata
from portal.domain.principals import Principal
from portal.domain.snippets import endpoint
from portal.services.inner.brokered import configured_scopes, issuer_of, prefix_of
from portal.services.inner.house import house_of
from portal.services.inner.loading import PARTS
from portal.services.inner.oauth_subjects import by_reference
from portal.store.models import Server

_NOTHING = "There is nothing to sign in to here."


def describe_resource(session: Session, principal: Principal, prefix: str | None) -> dict[str, Any]:
    """The protected resource metadata of a server, or (None) of the portal. Raises `NotFound`."""
    row = _find(session, principal, prefix) if prefix is not None else None
    house = house_of(session)
    return {
        "resource": house.public_url if row is None else endpoint(house.gateway_url, prefix_of(row)),
        "authorization_servers": [issuer_of(session, row)],
        "scopes_supported": _scopes(session, row or _only(session, principal)),
        "bearer_methods_supported": ["header"],
        **({"resource_name": row.server_name or prefix_of(row)} if row is not None else {}),
    }


def describe_authorization_server(session: Session, principal: Principal, prefix: str | None) -> dict[str, Any]:
    """The portal as the authorization server of one server, or (None) of whichever is the only one (OAU-64)."""
    row = _find(session, principal, prefix) if prefix is not None else None
    if row is not None and row.is_byok:
        return byok_metadata(house_of(session).public_url, issuer_of(session, row))
    only = _only(session, principal) if row is None else None
    issuer = issuer_of(session, row)
    # At the root the addresses differ, so that the answer can name the issuer that the client began with (RFC 9207).
    base = issuer if only is None else issuer_of(session, only).replace(issuer, f"{issuer}/mcp", 1)
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{base}/authorize",
        "token_endpoint": f"{base}/token",
        "registration_endpoint": f"{base}/register",
        "scopes_supported": _scopes(session, row or only),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_post"],
        "authorization_response_iss_parameter_supported": True,
    }


def only_server(session: Session, principal: Principal) -> str:
    """The one server that the caller may sign in to by way of the portal (OAU-62). Raises `NotFound`."""
    row = _only(session, principal)
    if row is None:
        raise NotFound("Say which server you mean: use the addresses of its own metadata.")
    return row.server_id


def _only(session: Session, principal: Principal) -> Server | None:
    query = select(Server).where(authz.sign_in_servers(principal)).limit(2).options(*PARTS)
    found = session.scalars(query).all()
    return found[0] if len(found) == 1 else None


def _find(session: Session, principal: Principal, prefix: str) -> Server:
    row = by_reference(session, prefix)
    known = select(Server.server_id).where(or_(authz.sign_in_servers(principal), authz.key_servers(principal)))
    if row is None or session.scalar(known.where(Server.server_id == row.server_id)) is None:
        raise NotFound(_NOTHING)
    return row


def _scopes(session: Session, row: Server | None) -> list[str]:
    return list(configured_scopes(session, row)) if row is not None else []
