"""Checks that the endpoints of an authorization server belong together and have not moved.

A server's metadata can name any host. Client secrets, codes and refresh tokens are sent only to the
hosts that were known when they were stored, and never from one provider to another.
"""

from collections.abc import Mapping

from portal.domain.destinations import canonical_origin
from portal.domain.oauth import AuthorizationServer

_ENDPOINTS = (
    "token_endpoint",
    "revocation_endpoint",
    "registration_endpoint",
    "authorization_endpoint",
)
_TYPED = {
    "authorization_url": "authorization URL",
    "token_url": "token URL",
    "registration_url": "registration URL",
}


def origins_of(server: AuthorizationServer) -> frozenset[str]:
    """Return the origins of an authorization server: those of its issuer and endpoints."""
    addresses = (server.issuer, *(getattr(server, name) for name in _ENDPOINTS))
    return frozenset(filter(None, map(canonical_origin, addresses)))


def moved_endpoint(
    known: AuthorizationServer, found: AuthorizationServer
) -> tuple[str, str, str] | None:
    """Return the name, old and new origin of the first endpoint that moved, or None.

    A new endpoint may be at any known origin. Without known endpoints, there is no comparison.
    """
    if not known.token_endpoint:
        return None
    for name in _ENDPOINTS:
        before = canonical_origin(getattr(known, name))
        after = canonical_origin(getattr(found, name))
        has_moved = after != before if before else after not in origins_of(known)
        if after and has_moved:
            return name, before or canonical_origin(known.token_endpoint), after
    return None


def foreign_address(
    typed: Mapping[str, str], found: AuthorizationServer
) -> tuple[str, str, str] | None:
    """Return field, label and origin of the first typed URL outside the provider's origins."""
    known = origins_of(found)
    for name, called in _TYPED.items():
        origin = canonical_origin(typed.get(name))
        if origin and origin not in known:
            return name, called, origin
    return None


def split_at(
    server: AuthorizationServer, token_endpoint: str = "", *, is_typed: bool = False
) -> tuple[str, str, str] | None:
    """Return field, label and origin of a URL where a registered client would leak data, or None.

    A leak means that one host receives a secret of another. The client secret goes to the token
    endpoint, or to `token_endpoint` for token exchange. If the registration URL `is_typed`, the
    code must also come from its origin, since no provider confirms that the URLs belong together.
    """
    where = canonical_origin(server.registration_endpoint)
    used = canonical_origin(token_endpoint or server.token_endpoint)
    if where and used and where != used:
        if token_endpoint:
            return "credentials", "token exchange endpoint", used
        return "token_url", "token URL", used
    asked = canonical_origin(server.authorization_endpoint)
    if is_typed and where and asked and asked != where:
        return "authorization_url", "authorization URL", asked
    return None


def keeps_codes(server: AuthorizationServer) -> bool:
    """Return whether a code is certain to come from the provider that receives it.

    That is so if both endpoints have the same origin, or responses contain the issuer (RFC 9207).
    """
    return server.sends_iss or canonical_origin(server.authorization_endpoint) == canonical_origin(
        server.token_endpoint
    )
