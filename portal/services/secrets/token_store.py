"""A person's OAuth tokens for one server as they are stored: sealed together, with what their
renewal needs to know."""

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

from sqlalchemy.orm import Session

from portal.domain.oauth import TokenSet, pause_after
from portal.domain.servers import AuthType, OAuthFlow
from portal.services.runtime import runtime_of
from portal.services.secrets import bindings
from portal.store.models import Server, UserCredential, now
from portal.store.vault import Place

KIND = "oauth2"
MORE_RIGHTS = "more_rights"
"""The one `reconnect_because` with which a token is still used: it lacks rights for some of the
server's tools."""


@dataclass(frozen=True)
class HeldTokens:
    """What is sealed. `wanted` are scopes that the upstream asked for in vain; `failures` and
    `retry_at` (seconds since 1970) hold renewing back after an authorization server did not answer,
    or sent tokens that had expired at once."""

    access_token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)
    token_type: str = "Bearer"  # noqa: S105 - a word of RFC 6750
    client_id: str = ""
    wanted: tuple[str, ...] = ()
    failures: int = 0
    retry_at: float = 0.0


def is_machine(row: Server) -> bool:
    """Whether the portal signs in to the server by itself, with client credentials, for everybody
    alike."""
    return row.auth_type == AuthType.OAUTH2 and row.oauth2_flow == OAuthFlow.CLIENT_CREDENTIALS


def is_exchange(row: Server) -> bool:
    """Whether each person's token is exchanged for another one before it is sent upstream (RFC
    8693)."""
    return row.auth_type == AuthType.OAUTH2_TOKEN_EXCHANGE


def needs_a_person(row: Server) -> bool:
    """Whether each person has to connect to the server."""
    return is_exchange(row) or (row.auth_type == AuthType.OAUTH2 and not is_machine(row))


def opened(session: Session, place: Place, sealed: bytes | None) -> HeldTokens | None:
    """The tokens in the clear, None where there are none that can be read."""
    try:
        stored = json.loads(runtime_of(session).vault.open(sealed, place) or "null")
        held = HeldTokens(**{**stored, "wanted": tuple(stored.get("wanted") or ())})
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return held if isinstance(held.access_token, str) and held.access_token else None


def sealed(session: Session, place: Place, held: HeldTokens) -> bytes:
    """The tokens as they are stored."""
    return runtime_of(session).vault.seal(json.dumps(asdict(held)), place)


def place_of(row: Server, user_id: str) -> Place:
    """Where a person's tokens for a server stand."""
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
    """Store what a person got in place of any earlier tokens; whoever renews those meanwhile finds
    theirs outdated.

    `issuer` is the authorization server that the tokens belong to. Where it is None they are not
    renewed, nor revoked upstream: nobody knows where.
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
    """Whether a call may be made with it, maybe after renewing it."""
    if credential.reconnect_because not in (None, MORE_RIGHTS):
        return False
    return credential.renewable or credential.expires_at is None or credential.expires_at > at


def after_renewal(held: HeldTokens, tokens: TokenSet) -> HeldTokens:
    """The tokens once they were renewed: an authorization server that sends no new refresh token
    lets the old live.

    Those that are due at once are not renewed again before a pause is over.
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
