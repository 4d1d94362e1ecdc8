"""A user's stored OAuth tokens for one server, sealed together with data for their renewal."""

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

from sqlalchemy.orm import Session

from portal.domain.oauth import TokenSet, pause_after
from portal.domain.servers import AuthType, OAuthGrantType
from portal.services.runtime import runtime_of
from portal.services.secrets import bindings
from portal.store.models import Server, UserCredential, now
from portal.store.vault import Place

KIND = "oauth2"
MORE_RIGHTS = "more_rights"
"""The only `reconnect_because` with which a token is still used: it lacks rights for some tools."""


@dataclass(frozen=True)
class HeldTokens:
    """The sealed data.

    `wanted` are scopes that the upstream asked for. `failures` and `retry_at` (seconds since 1970)
    pause renewal after an authorization server did not respond or sent expired tokens.
    """

    access_token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)
    token_type: str = "Bearer"  # noqa: S105 - a word of RFC 6750
    client_id: str = ""
    wanted: tuple[str, ...] = ()
    failures: int = 0
    retry_at: float = 0.0


def is_machine(row: Server) -> bool:
    """Return whether the portal signs in itself with client credentials, the same for all users."""
    return row.auth_type == AuthType.OAUTH2 and row.oauth2_flow == OAuthGrantType.CLIENT_CREDENTIALS


def is_exchange(row: Server) -> bool:
    """Return whether each user's token is exchanged before it is sent upstream (RFC 8693)."""
    return row.auth_type == AuthType.OAUTH2_TOKEN_EXCHANGE


def needs_a_person(row: Server) -> bool:
    """Return whether each user has to connect to the server."""
    return is_exchange(row) or (row.auth_type == AuthType.OAUTH2 and not is_machine(row))


def opened_tokens(session: Session, place: Place, sealed: bytes | None) -> HeldTokens | None:
    """Return the unsealed tokens; None if there are none or they are unreadable."""
    try:
        stored = json.loads(runtime_of(session).vault.open(sealed, place) or "null")
        held = HeldTokens(**{**stored, "wanted": tuple(stored.get("wanted") or ())})
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return held if isinstance(held.access_token, str) and held.access_token else None


def sealed(session: Session, place: Place, held: HeldTokens) -> bytes:
    """Return the tokens sealed for storage."""
    return runtime_of(session).vault.seal(json.dumps(asdict(held)), place)


def place_of(row: Server, user_id: str) -> Place:
    """Return the place of a user's tokens for a server."""
    return bindings.of_user_credential(row, user_id, KIND)


def keep(
    session: Session,
    row: Server,
    user_id: str,
    tokens: TokenSet,
    *,
    issuer: str | None,
    client_id: str = "",
    account: str | None = None,
) -> UserCredential:
    """Store a user's tokens, replacing earlier ones; a concurrent renewal of those is discarded.

    `issuer` is the authorization server of the tokens. If it is None, they are neither renewed nor
    revoked upstream.
    """
    credential = session.get(UserCredential, (user_id, row.server_id, KIND), with_for_update=True)
    if credential is None:
        credential = UserCredential(user_id=user_id, server_id=row.server_id, kind=KIND, version=0)
        session.add(credential)
    held = HeldTokens(tokens.access_token, tokens.refresh_token, tokens.token_type, client_id)
    credential.sealed = sealed(session, place_of(row, user_id), held)
    credential.expires_at, credential.scopes = tokens.expires_at, list(tokens.scopes)
    credential.renewable, credential.connected_at = bool(tokens.refresh_token and issuer), now()
    credential.issuer, credential.account = issuer, account
    credential.version += 1
    credential.refresh_lease_until = credential.reconnect_because = None
    session.flush()
    return credential


def is_usable(credential: UserCredential, at: datetime) -> bool:
    """Return whether a call can use the credential, possibly after renewal."""
    if credential.reconnect_because not in (None, MORE_RIGHTS):
        return False
    return credential.renewable or credential.expires_at is None or credential.expires_at > at


def after_renewal(held: HeldTokens, tokens: TokenSet) -> HeldTokens:
    """Return the tokens after renewal; without a new refresh token, the old one is kept.

    Tokens that are due immediately are not renewed again until a pause is over.
    """
    at = now()
    early, pause = pause_after(tokens.expires_at, at, held.failures)
    return replace(
        held,
        access_token=tokens.access_token,
        refresh_token=tokens.refresh_token or held.refresh_token,
        token_type=tokens.token_type,
        failures=early,
        retry_at=at.timestamp() + pause if pause else 0.0,
    )
