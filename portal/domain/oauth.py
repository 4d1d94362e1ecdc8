"""The words of OAuth that need no row and no network: servers' endpoints, tokens and when they run
out, addresses.

The roles are the standard's: the *resource owner* is the signed-in person, the portal is the
*client*, the upstream's *authorization server* issues tokens for its *resource server*, the MCP
server.
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
"""How long the key lives that an MCP client gets for a server to which a person brought their own
key."""
REFRESH_MARGIN = timedelta(seconds=60)
AT_ONCE = timedelta(seconds=5)
"""A token that lives no longer than this has expired when it arrives, for all that it is good
for."""
LONGEST_EARLY_PAUSE = 300.0
_FIRST_EARLY_PAUSE = 5.0


@dataclass(frozen=True)
class AuthorizationServer:
    """An authorization server's endpoints and abilities (RFC 8414); those that an Admin typed have
    no issuer of theirs.

    `pkce` is None where the metadata say nothing about PKCE.
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
    """What asking an upstream for its authorization found: where to sign in, what for, with which
    scopes."""

    server: AuthorizationServer
    resource: str
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Client:
    """The portal as a client of one authorization server."""

    client_id: str
    client_secret: str = field(default="", repr=False)
    auth_method: str = ""
    """How it authenticates at the token endpoint; "" leaves it to what the server supports."""


@dataclass(frozen=True)
class TokenSet:
    """What a token endpoint gave. Times are UTC; without `expires_at` it never counts as
    expired."""

    access_token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)
    expires_at: datetime | None = None
    scopes: tuple[str, ...] = ()
    token_type: str = "Bearer"  # noqa: S105 - a word of RFC 6750

    def is_due(self, at: datetime) -> bool:
        """Whether it has to be refreshed before use: it runs out within the margin of 60 s."""
        return self.expires_at is not None and self.expires_at - REFRESH_MARGIN <= at


def read_token_set(answer: Mapping[str, Any], at: datetime, asked: Iterable[str] = ()) -> TokenSet:
    """The token set of a token endpoint's JSON (RFC 6749, 5.1), received at `at`.

    An absent scope means the scopes that were asked for, an empty one none. Raises ValueError where
    there is no access token that may stand in a header.
    """
    token = answer.get("access_token")
    if not isinstance(token, str) or not 0 < len(token) <= _MOST_TOKEN or not _is_sendable(token):
        raise ValueError("no usable access token")
    refresh = answer.get("refresh_token")
    scope = answer.get("scope")
    kind = answer.get("token_type")
    return TokenSet(
        access_token=token,
        refresh_token=refresh
        if isinstance(refresh, str) and len(refresh) <= _MOST_TOKEN and _is_sendable(refresh)
        else "",
        expires_at=expiry(answer.get("expires_in"), at),
        scopes=tuple(scope.split()) if isinstance(scope, str) else tuple(asked),
        token_type=kind
        if isinstance(kind, str) and 0 < len(kind) <= _MOST_KIND and _is_sendable(kind)
        else "Bearer",
    )


def pause_after(expires_at: datetime | None, at: datetime, early: int) -> tuple[int, float]:
    """How long to wait before a token that came at `at` is renewed, and how many in a row had
    expired at once, `early` of them before it.

    Seconds: none for a token that lives longer than `REFRESH_MARGIN`; half the life of a shorter
    one; and for one that lives `AT_ONCE` or less, a pause that doubles each time, up to
    `LONGEST_EARLY_PAUSE`.
    """
    if expires_at is None or expires_at - at > REFRESH_MARGIN:
        return 0, 0.0
    if expires_at - at > AT_ONCE:
        return 0, (expires_at - at).total_seconds() / 2
    return min(early + 1, 10), min(_FIRST_EARLY_PAUSE * 2**early, LONGEST_EARLY_PAUSE)


def expiry(expires_in: object, at: datetime) -> datetime | None:
    """When something that lives `expires_in` seconds from `at` runs out; None for what is no
    sensible number."""
    if (
        isinstance(expires_in, str)
        and expires_in.isascii()
        and expires_in.isdigit()
        and len(expires_in) < 12
    ):
        expires_in = int(expires_in)
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        return None
    if isinstance(expires_in, float) and not math.isfinite(expires_in):
        return None
    return at + timedelta(seconds=min(expires_in, _MOST_SECONDS)) if expires_in >= 0 else None


def with_parameters(url: str, parameters: Mapping[str, str]) -> str:
    """`url` with `parameters` in its query: those it had stay as they were written, the same names
    are replaced."""
    parts = urlsplit(url)
    pieces = [piece for piece in parts.query.split("&") if piece]
    kept = [piece for piece in pieces if unquote_plus(piece.partition("=")[0]) not in parameters]
    added = [urlencode(parameters)] if parameters else []
    return urlunsplit(parts._replace(query="&".join([*kept, *added])))


def canonical_resource(url: str) -> str:
    """The resource indicator of an MCP server (RFC 8707; MCP authorization, "canonical server
    URI")."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}.get(parts.scheme)
    port = f":{parts.port}" if parts.port and parts.port != default else ""
    return f"{parts.scheme.lower()}://{host}{port}{parts.path.rstrip('/')}"


def _is_sendable(token: str) -> bool:
    return all("!" <= character <= "~" for character in token)
