"""Whether the endpoints of an authorization server belong together, and whether they are where they
were before.

Metadata are what a server says of itself: they may name any host. Client secrets, codes and refresh
tokens go to the hosts that were known when they were stored, and what belongs to one provider goes
to no other.
"""

from collections.abc import Mapping

from portal.domain.destinations import canonical
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
    """The origins of an authorization server: its issuer's and its endpoints'."""
    addresses = (server.issuer, *(getattr(server, name) for name in _ENDPOINTS))
    return frozenset(filter(None, map(canonical, addresses)))


def moved_endpoint(
    known: AuthorizationServer, found: AuthorizationServer
) -> tuple[str, str, str] | None:
    """The first endpoint that has another origin than before: its name, both origins; None where
    there is none.

    An endpoint that is new may be at any origin that is known. Where no endpoint is known, nothing
    can be compared.
    """
    if not known.token_endpoint:
        return None
    for name in _ENDPOINTS:
        before = canonical(getattr(known, name))
        after = canonical(getattr(found, name))
        if after and (after != before if before else after not in origins_of(known)):
            return name, before or canonical(known.token_endpoint), after
    return None


def foreign_address(
    typed: Mapping[str, str], found: AuthorizationServer
) -> tuple[str, str, str] | None:
    """The first typed address that is at none of a provider's origins: its field, what it is
    called, its origin."""
    known = origins_of(found)
    for name, called in _TYPED.items():
        origin = canonical(typed.get(name))
        if origin and origin not in known:
            return name, called, origin
    return None


def split_at(
    server: AuthorizationServer, token_endpoint: str = "", *, is_typed: bool = False
) -> tuple[str, str, str] | None:
    """Where a client that registers itself would hand to one host what it got of another: the field
    of the address at fault, what it is called, its origin; None where it hands nothing on.

    Its secret goes to the token endpoint (`token_endpoint` is one for exchanging, in its place).
    Where the registration address `is_typed`, the code has to come from there, too: no provider
    says that the addresses belong together.
    """
    where = canonical(server.registration_endpoint)
    used = canonical(token_endpoint or server.token_endpoint)
    if where and used and where != used:
        return (
            ("credentials", "token exchange endpoint", used)
            if token_endpoint
            else ("token_url", "token URL", used)
        )
    asked = canonical(server.authorization_endpoint)
    if is_typed and where and asked and asked != where:
        return "authorization_url", "authorization URL", asked
    return None


def keeps_codes(server: AuthorizationServer) -> bool:
    """Whether a code cannot come from another provider than the one it is sent to: both at one
    origin, or the provider promises to name itself with the code (RFC 9207)."""
    return server.sends_iss or canonical(server.authorization_endpoint) == canonical(
        server.token_endpoint
    )
