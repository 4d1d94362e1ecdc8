"""Tokens that the portal requests itself: with its own credentials (RFC 6749, 4.4) or in exchange.

An exchange (RFC 8693) uses the token that the user got by connecting; an API caller's portal key is
never sent anywhere. Tokens are stored sealed until they expire. Two processes that both find none
may each request one, because unlike a refresh token, such a grant can be used repeatedly.
"""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import delete, or_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.domain.discovery import is_secure
from portal.domain.errors import Conflict, InvalidRequest, UpstreamFailure, UpstreamTimeout
from portal.domain.oauth import (
    LONGEST_EARLY_PAUSE,
    REFRESH_MARGIN,
    AuthorizationServer,
    Client,
    TokenSet,
    canonical_resource,
    pause_after,
    read_token_set,
)
from portal.domain.upstream import HealthReason
from portal.services.oauth_client.discovery import authorization_of, check_pinned
from portal.services.oauth_client.registration import known_client
from portal.services.runtime import runtime_of
from portal.services.secrets import bindings
from portal.services.secrets.server_definition import Definition, opened
from portal.store.database import release
from portal.store.models import Server, now
from portal.store.oauth_tables import SharedToken
from portal.store.vault import Place
from portal.upstream.oauth_client import OAuthRefused

_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a word of RFC 8693
_PATIENCE = 15.0
_asking: dict[tuple[int, str, str, str], Future[str]] = {}
_asking_lock = threading.Lock()


def machine_token(session: Session, row: Server, *, refused: str = "") -> str:
    """Return the portal's own token for a server, other than `refused` by the upstream.

    Uses the client credentials grant. Raises `UpstreamFailure` if there is none.
    """
    return _kept_or_fetched(
        session,
        row,
        "",
        refused,
        lambda: _fetched(
            session,
            row,
            "",
            _own_grant(opened(session, row, credentials=True).credentials.get("scopes")),
        ),
    )


def typed_token(
    session: Session, definition: Definition, *, known: AuthorizationServer | None = None
) -> str:
    """Return a client credentials token for a definition under test, without storing it.

    `known` is the server discovered before; stored credentials are sent to no other. Raises
    `UpstreamFailure` if there is none; ends the transaction.
    """
    credentials = definition.credentials
    oauth = runtime_of(session).oauth
    client = Client(
        str(credentials.get("client_id") or ""), str(credentials.get("client_secret") or "")
    )
    if not client.client_id:
        raise _no_client()
    typed = definition.urls.get("token_url")
    url = definition.urls.get("url", "")
    release(session)
    server = (
        AuthorizationServer(issuer="", token_endpoint=typed)
        if typed
        else oauth.discover(url).server
    )
    try:
        check_pinned(None if typed else known, server)
    except Conflict as conflict:
        raise UpstreamFailure(conflict.message, reason=HealthReason.BLOCKED) from None
    if not is_secure(server.token_endpoint):
        raise UpstreamFailure("The token URL is not https.", reason=HealthReason.BLOCKED)
    form = _own_grant(credentials.get("scopes"))
    resource = canonical_resource(url) if url else ""
    return _asked(
        session, server, client, {**form, **({"resource": resource} if resource else {})}
    ).access_token


def exchanged_token(
    session: Session, row: Server, user_id: str, subject: str, *, refused: str = ""
) -> str:
    """Return a token for the server in exchange for the user's token `subject` (RFC 8693, 2.1)."""
    holder = subject_key(user_id)
    return _kept_or_fetched(
        session, row, holder, refused, lambda: _exchanged(session, row, holder, subject)
    )


def _exchanged(session: Session, row: Server, holder: str, subject: str) -> str:
    credentials = opened(session, row, credentials=True).credentials
    form = {
        "grant_type": _EXCHANGE,
        "subject_token": subject,
        "subject_token_type": str(credentials.get("subject_token_type") or _ACCESS_TOKEN),
        "requested_token_type": _ACCESS_TOKEN,
    }
    if credentials.get("audience"):
        form["audience"] = str(credentials["audience"])
    if scopes := _words(credentials.get("scopes")):
        form["scope"] = " ".join(scopes)
    return _fetched(
        session, row, holder, form, endpoint=str(credentials.get("token_exchange_endpoint") or "")
    )


def forget_exchanged(session: Session, server_id: str, user_id: str) -> None:
    """Delete the token exchanged for a user's token that was removed or replaced."""
    session.execute(
        delete(SharedToken).where(
            SharedToken.server_id == server_id, SharedToken.subject == subject_key(user_id)
        )
    )


def delete_expired_tokens(session: Session) -> None:
    """Delete expired tokens."""
    waits_no_more = or_(SharedToken.wait_until.is_(None), SharedToken.wait_until <= now())
    session.execute(delete(SharedToken).where(SharedToken.expires_at <= now(), waits_no_more))


def subject_key(user_id: str) -> str:
    """Return the key under which a user's exchanged token is stored."""
    return hashlib.sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest()


def _kept(session: Session, row: Server, subject: str, refused: str) -> str | None:
    """Return the stored token; None to request another. Raises `UpstreamFailure` during a pause."""
    kept = session.get(SharedToken, (row.server_id, subject), populate_existing=True)
    at = now()
    if kept is None:
        return None
    token = runtime_of(session).vault.open(kept.sealed, bindings.of_shared_token(row, subject))
    is_good = bool(token) and token != refused
    if is_good and (kept.expires_at is None or kept.expires_at - REFRESH_MARGIN > at):
        return token
    pause = (kept.wait_until - at).total_seconds() if kept.wait_until else 0
    if not 0 < pause <= LONGEST_EARLY_PAUSE:
        return None
    if is_good and kept.expires_at is not None and kept.expires_at > at:
        return token
    raise UpstreamFailure(
        "The sign-in provider’s tokens expire immediately. Try again in a few minutes.",
        reason=HealthReason.REFUSED,
    )


def _kept_or_fetched(
    session: Session, row: Server, subject: str, refused: str, fetch: Callable[[], str]
) -> str:
    """Return the stored token, or the result of `fetch`, called once for concurrent requests."""
    kept = _kept(session, row, subject, refused)
    if kept is not None:
        return kept
    key = (id(runtime_of(session)), row.server_id, subject, refused)
    release(session)  # sees tokens stored in the meantime; holds no transaction while waiting
    with _asking_lock:
        future = _asking.get(key)
        is_mine = key not in _asking
        if future is None:
            future = _asking[key] = Future()
    if is_mine:
        try:
            future.set_result(_kept(session, row, subject, refused) or fetch())
        except BaseException as error:
            future.set_exception(error)
            raise
        finally:
            with _asking_lock:
                del _asking[key]
    try:
        return future.result(timeout=_PATIENCE)
    except TimeoutError:
        raise UpstreamTimeout(
            "A token for the server is being requested. Try again in a moment."
        ) from None


def _fetched(
    session: Session, row: Server, subject: str, form: dict[str, str], *, endpoint: str = ""
) -> str:
    """Request a token and store it. Ends the transaction."""
    found = authorization_of(session, row)
    client = known_client(session, row, found.server, "", used_at=endpoint)
    if client is None:
        raise _no_client()
    if endpoint and not is_secure(endpoint):
        raise InvalidRequest(
            "The token exchange endpoint is not https. Ask an Admin to correct it."
        )
    server = replace(found.server, token_endpoint=endpoint) if endpoint else found.server
    if found.resource and "audience" not in form:
        form = {**form, "resource": found.resource}
    server_id = row.server_id
    place = bindings.of_shared_token(row, subject)
    release(session)
    tokens = _asked(session, server, client, form)
    _keep(session, server_id, subject, place, tokens)
    return tokens.access_token


def _no_client() -> UpstreamFailure:
    return UpstreamFailure(
        "An Admin has to enter the client ID and the client secret of this server.",
        reason=HealthReason.SIGN_IN_NEEDED,
    )


def _own_grant(scopes: object) -> dict[str, str]:
    words = _words(scopes)
    return {"grant_type": "client_credentials", **({"scope": " ".join(words)} if words else {})}


def _asked(
    session: Session, server: AuthorizationServer, client: Client, form: dict[str, str]
) -> TokenSet:
    try:
        return read_token_set(runtime_of(session).oauth.ask_for_token(server, client, form), now())
    except OAuthRefused as refusal:
        raise UpstreamFailure(
            f"The sign-in provider refused the portal ({refusal.error}).",
            reason=HealthReason.SIGN_IN_NEEDED,
        ) from None
    except ValueError:
        raise UpstreamFailure(
            "The sign-in provider returned no usable token.", reason=HealthReason.NOT_MCP
        ) from None


def _keep(session: Session, server_id: str, subject: str, place: Place, tokens: TokenSet) -> None:
    sealed = runtime_of(session).vault.seal(tokens.access_token, place)
    try:
        # Delete first: on SQLite a transaction that has read cannot write after another process
        # has.
        mine = delete(SharedToken).where(
            SharedToken.server_id == server_id, SharedToken.subject == subject
        )
        before = session.scalar(mine.returning(SharedToken.early))
        at = now()
        early, pause = pause_after(tokens.expires_at, at, before or 0)
        session.add(
            SharedToken(
                server_id=server_id,
                subject=subject,
                sealed=sealed,
                expires_at=tokens.expires_at,
                early=early,
                wait_until=at + timedelta(seconds=pause) if pause else None,
            )
        )
        session.commit()
    except IntegrityError:  # another process stored one, or the server was deleted
        session.rollback()


def _words(value: object) -> list[str]:
    if isinstance(value, str):
        return value.split()
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []
