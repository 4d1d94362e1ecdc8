"""Shared parts of the broker: sign-in provider, client, trusted redirects, continued access."""

import hashlib
from urllib.parse import quote

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Conflict, InvalidRequest, Unauthenticated, UpstreamFailure
from portal.domain.oauth import AuthorizationServer, Client, Discovery
from portal.domain.oauth_requests import is_metadata_document
from portal.domain.redirects import check_redirect_uri, same_registered_uri
from portal.services.access.principals import principal_for_user
from portal.services.instance_settings import load_preferences
from portal.services.oauth_client.discovery import authorization_of
from portal.services.oauth_client.registration import document_url, known_client
from portal.services.runtime import runtime_of
from portal.services.secrets.server_definition import opened
from portal.services.secrets.token_store import is_machine
from portal.services.servers import queries
from portal.services.servers.queries import prefix_of
from portal.store.models import Server, now
from portal.store.oauth_tables import McpClient

ENDED = "The user no longer has access to this server."
FLOW = "broker"
CONSENT = "broker_consent"
CODE = "broker_code"
PLACEHOLDER = "placeholder"
"""The id of a client that registered at the root without redirect URIs."""
NO_AUTHORIZATION = (
    "The sign-in provider of this server is unknown. An Admin can enter its authorization URL and"
    " token URL. If the server has a URL, discovery failed, and the portal’s log has the details."
)


def person_may_use(session: Session, user_id: str, address: str | None, row: Server) -> bool:
    """Return whether the user who started a flow still has an account and access to the server."""
    try:
        person = principal_for_user(session, user_id, address)
    except Unauthenticated:
        return False
    return authz.may(person, Action.SERVER_RENEW, queries.facts(session, row))


def consent_key(client_id: str, back: str) -> str:
    """Return the key of an app in a user's consents: the SHA-256 of its id and redirect URI."""
    return hashlib.sha256(f"{client_id}\n{back}".encode()).hexdigest()


def names_of(row: Server) -> frozenset[str]:
    """Return all names that clients may use for a server."""
    return frozenset(name for name in (row.server_id, row.alias, row.server_name) if name)


def issuer_of(session: Session, row: Server | None) -> str:
    """Return the portal's issuer for one server, or for the portal as a whole (None)."""
    return issuer_named(session, None if row is None else prefix_of(row))


def issuer_named(session: Session, name: str | None) -> str:
    """Return the issuer for a server name that a client uses; the server need not exist."""
    public = runtime_of(session).public_url
    return public if name is None else f"{public}/{quote(name, safe='')}"


def require_oauth(row: Server) -> None:
    """Raise `InvalidRequest` for a server without user sign-in."""
    if row.auth_type != "oauth2" or is_machine(row):
        raise InvalidRequest("This server does not use OAuth sign-in for users.", code="not_oauth")


def configured_scopes(session: Session, row: Server) -> tuple[str, ...]:
    """Return the scopes that an Admin entered."""
    typed = opened(session, row, credentials=True).credentials.get("scopes")
    if isinstance(typed, str):
        typed = typed.split()
    words = typed if isinstance(typed, list) else []
    return tuple(dict.fromkeys(str(word) for word in words))


def authorization(session: Session, row: Server) -> Discovery:
    """Return where users sign in. Raises `InvalidRequest`.

    May make outgoing requests, and ends the transaction.
    """
    try:
        return authorization_of(session, row)
    except UpstreamFailure:
        raise InvalidRequest(NO_AUTHORIZATION, code="no_authorization_server") from None
    except Conflict as conflict:
        raise InvalidRequest(conflict.message, code=conflict.code) from None


def upstream_client(
    session: Session,
    row: Server,
    server: AuthorizationServer,
    known_as: str,
    *,
    callers_id: str,
    callers_secret: str,
) -> Client:
    """Return the client for the token endpoint; a stored client overrides the caller's.

    `known_as` is the client id that the code was requested with, "" if unknown. Raises
    `InvalidRequest` (`missing_client_id`).
    """
    ours = known_client(session, row, server, known_as)
    if ours is not None:
        return ours
    if not known_as and server.takes_metadata_documents:
        return Client(document_url(runtime_of(session).public_url), auth_method="none")
    if callers_id and known_as in ("", callers_id):
        return Client(callers_id, callers_secret)
    raise missing_client()


def missing_client() -> InvalidRequest:
    """Return the error for a missing client id."""
    return InvalidRequest(
        "No client ID is stored for this server, and the request contains none.",
        code="missing_client_id",
        field="client_id",
    )


def check_redirect(session: Session, uri: str) -> None:
    """Raise `InvalidRequest` for a redirect URI that the current settings do not trust."""
    trusted = load_preferences(session).trusted_redirect_origins
    check_redirect_uri(uri, public_url=runtime_of(session).public_url, trusted=trusted)


def known_client_of(session: Session, row: Server | None, client_id: str) -> McpClient | None:
    """Return the registration of a client that requests this server, or the gateway (None).

    Returns None for no client id, a metadata document's address, or a registration without redirect
    URIs. Raises `InvalidRequest` (`invalid_client`) for any other id, including one registered for
    another server: no redirect happens for an unregistered client.
    """
    if not client_id or (row is not None and client_id in (prefix_of(row), PLACEHOLDER)):
        return None
    of_all = McpClient.server_id.is_(None)
    known = session.scalar(
        select(McpClient)
        .where(
            McpClient.client_id == client_id, of_all if row is None else or_(of_all, _is_of(row))
        )
        .order_by(of_all)
    )
    if known is None and not is_metadata_document(client_id, may_be_local=_is_embedded(session)):
        raise unknown_client()
    return known


def require_known_anywhere(session: Session, client_id: str) -> None:
    """Raise what `known_client_of` raises, before the requested server is known."""
    if client_id and not is_metadata_document(client_id, may_be_local=_is_embedded(session)):
        known = select(McpClient.registration_id).where(McpClient.client_id == client_id)
        if not client_id.isprintable() or session.scalar(known.limit(1)) is None:
            raise unknown_client()


def registered_client(
    session: Session, row: Server | None, client_id: str, redirect_uri: str
) -> McpClient | None:
    """Return `known_client_of` for a client that registered this redirect URI.

    Raises `InvalidRequest` if it registered others; without any, only the portal's own origin is
    allowed.
    """
    known = known_client_of(session, row, client_id)
    if known is not None:
        fits = any(
            same_registered_uri(redirect_uri, registered) for registered in known.redirect_uris
        )
    else:
        is_placeholder = row is not None and client_id in (prefix_of(row), PLACEHOLDER)
        fits = not is_placeholder or redirect_uri.startswith(f"{runtime_of(session).public_url}/")
    if not fits:
        raise InvalidRequest("This client registered other redirect URIs.", field="redirect_uri")
    return known


def unknown_client() -> InvalidRequest:
    """Return the error for an unknown client id (RFC 6749, 5.2)."""
    return InvalidRequest(
        "This client_id is unknown or no longer registered. The app must register again at the"
        " registration endpoint in the portal’s metadata, or use the https address of its"
        " metadata document as client_id.",
        code="invalid_client",
        field="client_id",
    )


def note_client_seen(session: Session, client_id: str) -> None:
    """Record that a self-registered client starts a sign-in, so that it is not pruned."""
    if client_id:
        session.execute(
            update(McpClient).where(McpClient.client_id == client_id).values(seen_at=now())
        )


def note_client_use(session: Session, client_id: str) -> None:
    """Record that a self-registered client was used."""
    if client_id:
        session.execute(
            update(McpClient).where(McpClient.client_id == client_id).values(last_used_at=now())
        )


def _is_of(row: Server) -> ColumnElement[bool]:
    return McpClient.server_id == row.server_id


def _is_embedded(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"
