"""OAuth data types and rules without storage or network: endpoints, tokens, expiry and URLs.

The roles are those of the standard: the *resource owner* is the signed-in user, the portal is the
*client*, and the upstream's *authorization server* issues tokens for its *resource server*, which
is the MCP server.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote_plus, urlencode, urlsplit, urlunsplit

_MOST_SECONDS = 10 * 365 * 24 * 3600
_MOST_TOKEN = 16_384
_MOST_KIND = 64
BYOK_TOKEN_LIFETIME = timedelta(hours=1)
"""Lifetime of the token that an MCP client gets for a server with a user's own key."""
REFRESH_MARGIN = timedelta(seconds=60)
AT_ONCE = timedelta(seconds=5)
"""A token with at most this lifetime counts as expired on arrival."""
LONGEST_EARLY_PAUSE = 300.0
_FIRST_EARLY_PAUSE = 5.0


@dataclass(frozen=True)
class AuthorizationServer:
    """The endpoints and features of an authorization server (RFC 8414).

    One configured by an Admin has no issuer. `pkce` is None if the metadata do not mention PKCE.
    """

    issuer: str
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    registration_endpoint: str = ""
    revocation_endpoint: str = ""
    scopes_supported: tuple[str, ...] = ()
    token_endpoint_auth_methods: tuple[str, ...] = ()
    pkce: tuple[str, ...] | None = None
    sends_iss: bool = False
    takes_metadata_documents: bool = False


@dataclass(frozen=True)
class Discovery:
    """The result of discovery: authorization server, resource and scopes."""

    server: AuthorizationServer
    resource: str
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Client:
    """The portal as a client of one authorization server."""

    client_id: str
    client_secret: str = field(default="", repr=False)
    auth_method: str = ""
    """Authentication method at the token endpoint; "" chooses one that the server supports."""


@dataclass(frozen=True)
class TokenSet:
    """A token response. Times are UTC. Without `expires_at`, the token does not expire."""

    access_token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)
    expires_at: datetime | None = None
    scopes: tuple[str, ...] = ()
    token_type: str = "Bearer"  # noqa: S105 - a word of RFC 6750

    def is_due(self, at: datetime) -> bool:
        """Return whether it must be refreshed before use: it expires within 60 seconds."""
        return self.expires_at is not None and self.expires_at - REFRESH_MARGIN <= at


def read_token_set(answer: Mapping[str, Any], at: datetime, asked: Iterable[str] = ()) -> TokenSet:
    """Return the token set of a token response (RFC 6749, section 5.1) received at `at`.

    A missing scope means the requested scopes, an empty one means none. Raises `ValueError` without
    an access token that is valid in a header.
    """
    token = answer.get("access_token")
    if not isinstance(token, str) or not 0 < len(token) <= _MOST_TOKEN or not _is_sendable(token):
        raise ValueError("no usable access token")
    refresh = answer.get("refresh_token")
    scope = answer.get("scope")
    kind = answer.get("token_type")
    return TokenSet(
        access_token=token,
        refresh_token=_usable_text(refresh, _MOST_TOKEN),
        expires_at=expiry(answer.get("expires_in"), at),
        scopes=tuple(scope.split()) if isinstance(scope, str) else tuple(asked),
        token_type=_usable_text(kind, _MOST_KIND) or "Bearer",
    )


def pause_after(expires_at: datetime | None, at: datetime, early: int) -> tuple[int, float]:
    """Return the new count of tokens that expired on arrival, and the wait before the next refresh.

    `at` is when the token arrived, `early` the previous count. The wait in seconds is 0 for a
    lifetime above `REFRESH_MARGIN`, and half of a shorter lifetime. For a lifetime of at most
    `AT_ONCE`, it doubles each time, up to `LONGEST_EARLY_PAUSE`.
    """
    if expires_at is None or expires_at - at > REFRESH_MARGIN:
        return 0, 0.0
    if expires_at - at > AT_ONCE:
        return 0, (expires_at - at).total_seconds() / 2
    return min(early + 1, 10), min(_FIRST_EARLY_PAUSE * 2**early, LONGEST_EARLY_PAUSE)


def expiry(expires_in: object, at: datetime) -> datetime | None:
    """Return the time `expires_in` seconds after `at`, or None for an invalid number."""
    if isinstance(expires_in, str) and len(expires_in) < 12:
        is_number = expires_in.isascii() and expires_in.isdigit()
        expires_in = int(expires_in) if is_number else None
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        return None
    if isinstance(expires_in, float) and not math.isfinite(expires_in):
        return None
    return at + timedelta(seconds=min(expires_in, _MOST_SECONDS)) if expires_in >= 0 else None


def with_parameters(url: str, parameters: Mapping[str, str]) -> str:
    """Return `url` with `parameters` in its query. Existing ones stay, same names are replaced."""
    parts = urlsplit(url)
    pieces = [piece for piece in parts.query.split("&") if piece]
    kept = [piece for piece in pieces if unquote_plus(piece.partition("=")[0]) not in parameters]
    added = [urlencode(parameters)] if parameters else []
    return urlunsplit(parts._replace(query="&".join([*kept, *added])))


def canonical_resource(url: str) -> str:
    """Return the resource indicator of an MCP server (RFC 8707; MCP "canonical server URI")."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}.get(parts.scheme)
    port = f":{parts.port}" if parts.port and parts.port != default else ""
    return f"{parts.scheme.lower()}://{host}{port}{parts.path.rstrip('/')}"


def _usable_text(value: object, most: int) -> str:
    return value if isinstance(value, str) and len(value) <= most and _is_sendable(value) else ""


def _is_sendable(token: str) -> bool:
    return all("!" <= character <= "~" for character in token)
