"""Tokens that the portal gets by itself: with its own credentials, or in exchange for a person's
(RFC 6749, 4.4; 8693).

They are kept, sealed, until they are due. Two processes that both find none may each ask once: such
a grant spends nothing, unlike a refresh token. Whose token is exchanged: the one that the person
got by connecting. What a caller of the API sends is a key of ours, which is never sent anywhere.
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
    """The portal's own token for a server (client credentials), not the one that the upstream
    `refused`.

    Raises `UpstreamFailure` where none can be had.
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
    """A token for a definition that is only tried out (client credentials); nothing of it is kept.

    `known` is the server that discovery found before: stored credentials go to no other. Raises
    `UpstreamFailure` where none can be had; ends the transaction at hand.
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
    """The token that the server takes, for the person's own token `subject` (RFC 8693, 2.1)."""
    holder = subject_of(user_id)
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
    """Forget what was got for a person's token that they gave up or replaced."""
    session.execute(
        delete(SharedToken).where(
            SharedToken.server_id == server_id, SharedToken.subject == subject_of(user_id)
        )
    )


def sweep(session: Session) -> None:
    """Delete tokens that have run out."""
    waits_no_more = or_(SharedToken.wait_until.is_(None), SharedToken.wait_until <= now())
    session.execute(delete(SharedToken).where(SharedToken.expires_at <= now(), waits_no_more))


def subject_of(user_id: str) -> str:
    """Under what a person's exchanged token is kept."""
    return hashlib.sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest()


def _kept(session: Session, row: Server, subject: str, refused: str) -> str | None:
    """The token that is kept, None where another one is to be asked for. Raises `UpstreamFailure`
    where that waits."""
    kept = session.get(SharedToken, (row.server_id, subject), populate_existing=True)
    at = now()
    if kept is None:
        return None
    token = runtime_of(session).vault.open(kept.sealed, bindings.of_shared_token(row, subject))
    is_good = bool(token) and token != refused
    if is_good and (kept.expires_at is None or kept.expires_at - REFRESH_MARGIN > at):
        return token
    if (
        kept.wait_until is None
        or not 0 < (kept.wait_until - at).total_seconds() <= LONGEST_EARLY_PAUSE
    ):
        return None
    if is_good and kept.expires_at is not None and kept.expires_at > at:
        return token
    raise UpstreamFailure(
        "The sign-in provider’s tokens expire at once. Try again in a few minutes.",
        reason=HealthReason.REFUSED,
    )


def _kept_or_fetched(
    session: Session, row: Server, subject: str, refused: str, fetch: Callable[[], str]
) -> str:
    """The token that is kept, or what `fetch` gets: of those who want it at once in this process,
    one asks for all."""
    kept = _kept(session, row, subject, refused)
    if kept is not None:
        return kept
    key = (id(runtime_of(session)), row.server_id, subject, refused)
    release(
        session
        # so that what another one kept meanwhile is seen, and nobody holds a transaction while waiting
    )
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
            "A token for the server is being asked for. Try again in a moment."
        ) from None


def _fetched(
    session: Session, row: Server, subject: str, form: dict[str, str], *, endpoint: str = ""
) -> str:
    """Ask for a token and keep it. Ends the transaction at hand."""
    found = authorization_of(session, row)
    client = known_client(session, row, found.server, "", used_at=endpoint)
    if client is None:
        raise _no_client()
    if endpoint and not is_secure(endpoint):
        raise InvalidRequest("The token exchange endpoint is not https. An Admin has to mend it.")
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
            "The sign-in provider gave no usable token.", reason=HealthReason.NOT_MCP
        ) from None


def _keep(session: Session, server_id: str, subject: str, place: Place, tokens: TokenSet) -> None:
    sealed = runtime_of(session).vault.seal(tokens.access_token, place)
    try:
        # Deleting comes first: on SQLite a transaction that has read cannot write once another
        # process has.
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
    except IntegrityError:  # another process kept one at the same moment, or the server is gone
        session.rollback()


def _words(value: object) -> list[str]:
    if isinstance(value, str):
        return value.split()
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []
