"""Users' access tokens, renewed in time: one process renews, the others wait for its result.

A process renews a credential after it takes a lease, with a statement that only one can win. Each
lease increments `version`, and the result is written only if the version is unchanged. So neither a
process that stalled nor a user who connects again meanwhile is overwritten. Renewing ends the
transaction.
"""

import logging
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NoReturn

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import ObjectDeletedError

from portal.domain.credentials import setup_url
from portal.domain.errors import Busy, CredentialNeeded, NotFound, UpstreamFailure, UpstreamTimeout
from portal.domain.oauth import (
    REFRESH_MARGIN,
    AuthorizationServer,
    Client,
    TokenSet,
    read_token_set,
)
from portal.domain.upstream import HealthReason
from portal.services.oauth_client.discovery import authorization_of, identity_of
from portal.services.oauth_client.registration import known_client
from portal.services.runtime import runtime_of
from portal.services.secrets import token_store
from portal.services.secrets.token_store import KIND, MORE_RIGHTS, HeldTokens
from portal.store.database import release
from portal.store.models import Server, UserCredential, now
from portal.store.vault import Place
from portal.telemetry import metrics
from portal.upstream.oauth_client import OAuthRefused

log = logging.getLogger("portal.oauth")
_LEASE = timedelta(seconds=20)  # longer than the time-out of an authorization server
_PATIENCE = 15.0
_LOOK_AGAIN = 0.1
_FIRST_PAUSE = 5.0
_LONGEST_PAUSE = 720.0  # five tries an hour
_SAID = {
    "revoked": "The sign-in provider no longer accepts your connection.",
    "refused": "The server no longer accepts your connection.",
    "expired": "Your connection has expired.",
    "issuer_changed": "This server now uses another sign-in provider.",
    "client_changed": "The portal is now registered at the sign-in provider as another client.",
}


@dataclass(frozen=True)
class _Stored:
    """A user's credential as it was read; it does not change."""

    user_id: str
    server_id: str
    name: str
    version: int
    expires_at: datetime | None
    scopes: tuple[str, ...]
    issuer: str | None
    because: str | None
    held: HeldTokens
    place: Place

    @property
    def is_blocked(self) -> bool:
        return self.because not in (None, MORE_RIGHTS)

    def is_fresh(self) -> bool:
        return not self.is_blocked and (
            self.expires_at is None or self.expires_at - REFRESH_MARGIN > now()
        )

    @property
    def mark(self) -> tuple[str, str, datetime | None]:
        """What another renewal or a new connection changes."""
        return self.held.access_token, self.held.refresh_token, self.expires_at

    def waits(self) -> bool:
        """Return whether renewal is paused; a pause that is too long comes from a wrong clock."""
        return 0 < self.held.retry_at - now().timestamp() <= _LONGEST_PAUSE * 1.2

    def lasts(self, refused: str) -> bool:
        """Return whether the token may still be sent, even if it is due for renewal."""
        return self.held.access_token != refused and (
            self.expires_at is None or self.expires_at > now()
        )


def fresh_tokens(session: Session, user_id: str | None, rows: Iterable[Server]) -> dict[str, str]:
    """Return the user's access tokens that need no renewal, by server, in one query."""
    stored = _load(session, user_id, list(rows))
    return {server_id: one.held.access_token for server_id, one in stored.items() if one.is_fresh()}


def own_token(session: Session, row: Server, user_id: str | None, *, refused: str = "") -> str:
    """Return the user's access token for a server, renewed if due or `refused` by the upstream.

    Raises `CredentialNeeded` (`sign_in_needed`) if they have to connect again, and
    `UpstreamFailure` if the authorization server cannot be reached now; the token is kept then.
    """
    try:
        return _own_token(session, row, user_id, refused)
    except ObjectDeletedError:
        raise NotFound("The server was deleted in the meantime.") from None


def note_refusal(session: Session, row: Server, user_id: str | None, token: str) -> None:
    """Record that the upstream refused a fresh token, so that the user must connect again.

    Ends the transaction.
    """
    stored = _load(session, user_id, [row]).get(row.server_id)
    if stored is not None and stored.held.access_token == token:
        _write(session, stored, stored.version, reconnect_because="refused")


def note_wanted(session: Session, row: Server, user_id: str | None, scopes: Iterable[str]) -> None:
    """Record that the upstream needs more rights (`insufficient_scope`). Ends the transaction."""
    stored = _load(session, user_id, [row]).get(row.server_id)
    if stored is not None:
        wanted = tuple(dict.fromkeys((*stored.held.wanted, *scopes)))
        sealed = token_store.sealed(session, stored.place, replace(stored.held, wanted=wanted))
        _write(session, stored, stored.version, reconnect_because=MORE_RIGHTS, sealed=sealed)


def wanted_scopes(session: Session, row: Server, user_id: str | None) -> tuple[str, ...]:
    """Return the extra scopes to request: those granted and those the upstream asked for."""
    stored = _load(session, user_id, [row]).get(row.server_id)
    return (
        (*stored.scopes, *stored.held.wanted) if stored is not None and stored.held.wanted else ()
    )


def needed(
    session: Session,
    server_id: str,
    name: str,
    because: str | None = None,
    scopes: Iterable[str] = (),
) -> CredentialNeeded:
    """Return the error that tells a user to connect, with the link."""
    link = setup_url(runtime_of(session).public_url, server_id)
    wanted = " ".join(scopes)
    if wanted:
        why = f"{name} needs more rights than you gave it ({wanted})."
        what = "Connect again"
    elif because:
        why = _SAID.get(because, "Your connection has ended.")
        what = f"Connect to {name} again"
    else:
        why = f"{name} needs you to sign in."
        what = "Connect"
    return CredentialNeeded(
        f"{why} {what} at {link} and try again.", server_id=server_id, connect_url=link
    )


def name_of(row: Server) -> str:
    """Return the display name of a server."""
    return row.server_name or row.alias or row.server_id


def _own_token(session: Session, row: Server, user_id: str | None, refused: str) -> str:
    patience = time.monotonic() + _PATIENCE
    first = None
    while True:
        stored = _load(session, user_id, [row]).get(row.server_id)
        if stored is None or stored.is_blocked:
            raise needed(session, row.server_id, name_of(row), stored.because if stored else None)
        token = stored.held.access_token
        first = first or stored.mark
        # Use a token renewed in the meantime, whatever its lifetime: all waiting calls share one
        # renewal.
        if stored.mark != first or (token != refused and stored.is_fresh()):
            return token
        # A refresh token without a known issuer is sent to nobody.
        if not stored.held.refresh_token or stored.issuer is None:
            _give_up(session, stored, stored.version, "refused" if token == refused else "expired")
        if stored.waits():
            if stored.lasts(refused):
                return token
            raise _unrenewed("does not respond, or its tokens expire immediately")
        renewed = _renewed(session, row, stored, refused)
        if renewed is not None:
            return renewed
        if time.monotonic() > patience:
            raise UpstreamTimeout("Your connection is being renewed. Try again in a moment.")
        time.sleep(_LOOK_AGAIN)


def _load(session: Session, user_id: str | None, rows: list[Server]) -> dict[str, _Stored]:
    """Return the user's readable credentials for `rows`, by server."""
    of = {row.server_id: row for row in rows}
    if user_id is None or not of:
        return {}
    columns = (
        UserCredential.server_id,
        UserCredential.sealed,
        UserCredential.version,
        UserCredential.expires_at,
        UserCredential.scopes,
        UserCredential.issuer,
        UserCredential.reconnect_because,
    )
    mine = (
        UserCredential.user_id == user_id,
        UserCredential.kind == KIND,
        UserCredential.server_id.in_(of),
    )
    found = {}
    for server_id, sealed, version, expires_at, scopes, issuer, because in session.execute(
        select(*columns).where(*mine)
    ):
        place = token_store.place_of(of[server_id], user_id)
        if (held := token_store.opened_tokens(session, place, sealed)) is not None:
            found[server_id] = _Stored(
                user_id,
                server_id,
                name_of(of[server_id]),
                version,
                expires_at,
                tuple(scopes),
                issuer,
                because,
                held,
                place,
            )
    return found


def _renewed(session: Session, row: Server, stored: _Stored, refused: str) -> str | None:
    """Renew once and return the access token; None if another process renews or has renewed it."""
    found = authorization_of(session, row)
    if stored.issuer != identity_of(found.server):
        _give_up(session, stored, stored.version, "issuer_changed")
    client = known_client(session, row, found.server, stored.held.client_id)
    if client is None:
        _give_up(session, stored, stored.version, "client_changed")
    if not _take_lease(session, stored):
        return None
    leased = stored.version + 1
    try:
        tokens = _ask(session, stored, found.server, found.resource, client)
    except Busy:
        _write(session, stored, leased)
        raise
    except UpstreamFailure as failure:
        error = failure.error if isinstance(failure, OAuthRefused) else ""
        _tell(stored, error or failure.reason)
        if error == "invalid_grant":
            _give_up(session, stored, leased, "revoked")
        _pause(session, stored, leased)
        if not stored.lasts(refused):
            raise _unrenewed(f"refused it ({error})" if error else "does not respond") from None
        return stored.held.access_token
    renewed = token_store.after_renewal(stored.held, tokens)
    is_kept = _write(
        session,
        stored,
        leased,
        sealed=token_store.sealed(session, stored.place, renewed),
        expires_at=tokens.expires_at,
        scopes=list(tokens.scopes),
    )
    _tell(stored, "ok")
    return tokens.access_token if is_kept else None


def _tell(stored: _Stored, outcome: str) -> None:
    log.info(
        "a sign-in was renewed" if outcome == "ok" else "a sign-in was not renewed",
        extra={"server_id": stored.server_id, "user_id": stored.user_id, "outcome": outcome},
    )
    known = outcome if outcome in ("ok", "invalid_grant") else "failed"
    metrics.count("portal_token_refreshes_total", known)


def _ask(
    session: Session, stored: _Stored, server: AuthorizationServer, resource: str, client: Client
) -> TokenSet:
    """Use the refresh token."""
    form = {"grant_type": "refresh_token", "refresh_token": stored.held.refresh_token}
    if resource:
        form["resource"] = resource
    answer = runtime_of(session).oauth.ask_for_token(server, client, form)
    try:
        return read_token_set(answer, now(), stored.scopes)
    except ValueError:
        raise UpstreamFailure(
            "The response contained no usable token.", reason=HealthReason.NOT_MCP
        ) from None


def _unrenewed(why: str) -> UpstreamFailure:
    return UpstreamFailure(
        f"Your connection could not be renewed: the sign-in provider {why}. Try again in a few"
        " minutes.",
        reason=HealthReason.REFUSED,
    )


def _take_lease(session: Session, stored: _Stored) -> bool:
    """Try to take the lease for renewing, and return whether it worked."""
    at = now()
    is_free = or_(
        UserCredential.refresh_lease_until.is_(None), UserCredential.refresh_lease_until < at
    )
    return _change(session, stored, stored.version, is_free, refresh_lease_until=at + _LEASE)


def _give_up(session: Session, stored: _Stored, version: int, because: str) -> NoReturn:
    _write(session, stored, version, reconnect_because=because)
    raise needed(session, stored.server_id, stored.name, because)


def _pause(session: Session, stored: _Stored, version: int) -> None:
    """Keep the tokens, and pause renewal for a time that grows with each failure."""
    failures = stored.held.failures
    pause = min(_FIRST_PAUSE * 2**failures, _LONGEST_PAUSE) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
    waiting = replace(
        stored.held, failures=min(failures + 1, 10), retry_at=now().timestamp() + pause
    )
    _write(session, stored, version, sealed=token_store.sealed(session, stored.place, waiting))


def _write(session: Session, stored: _Stored, version: int, **values: Any) -> bool:
    """Change the credential if its version is unchanged, and release the lease."""
    return _change(session, stored, version, refresh_lease_until=None, **values)


def _change(
    session: Session, stored: _Stored, version: int, *conditions: Any, **values: Any
) -> bool:
    release(session)  # SQLite: a transaction that has read cannot write after another process has
    changed = session.execute(
        update(UserCredential)
        .where(
            UserCredential.user_id == stored.user_id,
            UserCredential.server_id == stored.server_id,
            UserCredential.kind == KIND,
            UserCredential.version == version,
            *conditions,
        )
        .values(**values, version=version + 1)
        .execution_options(synchronize_session=False)
    )
    session.commit()
    return bool(getattr(changed, "rowcount", 0))
