"""What the parts of the broker share: where sign-in happens, as which client, whose word of a
redirect is taken, and who may still go on."""

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

ENDED = "The person may not use this server any more."
FLOW = "broker"
CONSENT = "broker_consent"
CODE = "broker_code"
PLACEHOLDER = "placeholder"
"""The id of a client that registered at the root without redirect URIs."""
NO_AUTHORIZATION = (
    "Nobody can tell where to sign in to this server. An Admin can set its authorization URL and"
    " token URL in its form; where it has a URL, discovery failed, and the portal’s log says how."
)


def person_may_use(session: Session, user_id: str, address: str | None, row: Server) -> bool:
    """Whether a person for whom something was begun has an account still, and may use the server
    now."""
    try:
        person = principal_for_user(session, user_id, address)
    except Unauthenticated:
        return False
    return authz.may(person, Action.SERVER_RENEW, queries.facts(session, row))


def consent_key(client_id: str, back: str) -> str:
    """What names an app in a person's consent: the SHA-256 of its id and its redirect URI."""
    return hashlib.sha256(f"{client_id}\n{back}".encode()).hexdigest()


def names_of(row: Server) -> frozenset[str]:
    """All that clients may call a server by."""
    return frozenset(name for name in (row.server_id, row.alias, row.server_name) if name)


def issuer_of(session: Session, row: Server | None) -> str:
    """The portal as an authorization server, for one server or (None) for whichever a client
    means."""
    return issuer_named(session, None if row is None else prefix_of(row))


def issuer_named(session: Session, name: str | None) -> str:
    """As `issuer_of`, for the name that a client uses; whether there is such a server is not
    asked."""
    public = runtime_of(session).public_url
    return public if name is None else f"{public}/{quote(name, safe='')}"


def require_oauth(row: Server) -> None:
    """Raise `InvalidRequest` for a server that people do not sign in to."""
    if row.auth_type != "oauth2" or is_machine(row):
        raise InvalidRequest("This server does not use OAuth for people.", code="not_oauth")


def configured_scopes(session: Session, row: Server) -> tuple[str, ...]:
    """The scopes that an Admin entered."""
    typed = opened(session, row, credentials=True).credentials.get("scopes")
    words = typed.split() if isinstance(typed, str) else typed if isinstance(typed, list) else []
    return tuple(dict.fromkeys(str(word) for word in words))


def authorization(session: Session, row: Server) -> Discovery:
    """Where people sign in; may ask other machines and ends the transaction. Raises
    `InvalidRequest`."""
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
    """The client to speak to the token endpoint as: the stored one wins over the caller's.

    `known_as` is the one that a code was asked for with, "" where that is not known. Raises
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
    """What somebody is told where there is no client id, stored or sent."""
    return InvalidRequest(
        "This server has no client ID stored, and the request names none.",
        code="missing_client_id",
        field="client_id",
    )


def check_redirect(session: Session, uri: str) -> None:
    """Raise `InvalidRequest` for a redirect URI that codes may not be sent to, as the settings are
    now."""
    trusted = load_preferences(session).trusted_redirect_origins
    check_redirect_uri(uri, public_url=runtime_of(session).public_url, trusted=trusted)


def known_client_of(session: Session, row: Server | None, client_id: str) -> McpClient | None:
    """The registration of a client that asks for this server, or (None) for the gateway; None where
    it names no id, is known by the address of its metadata, or registered without redirect URIs.

    Raises `InvalidRequest` (`invalid_client`) for every other id, as for one that registered for
    another server: nobody is sent anywhere in the name of a client that made itself known nowhere.
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
    """Raise what `known_client_of` raises, where it is not known yet for which server a client
    asks."""
    if client_id and not is_metadata_document(client_id, may_be_local=_is_embedded(session)):
        known = select(McpClient.registration_id).where(McpClient.client_id == client_id)
        if not client_id.isprintable() or session.scalar(known.limit(1)) is None:
            raise unknown_client()


def registered_client(
    session: Session, row: Server | None, client_id: str, redirect_uri: str
) -> McpClient | None:
    """As `known_client_of`, for a client that wants to be sent back to a redirect URI: one that it
    registered.

    Raises `InvalidRequest` where it named others, or none, which allows our own origin alone.
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
    """What somebody is told who names a client id that is not known here (RFC 6749, 5.2)."""
    return InvalidRequest(
        "This client_id is not known here, or not any more. The app has to register anew, at the"
        " registration address in the portal’s metadata; or its client_id has to be the https"
        " address of its metadata document.",
        code="invalid_client",
        field="client_id",
    )


def note_client_seen(session: Session, client_id: str) -> None:
    """Remember that a client that registered itself is about to be used, so that it makes no room
    for others now."""
    if client_id:
        session.execute(
            update(McpClient).where(McpClient.client_id == client_id).values(seen_at=now())
        )


def note_client_use(session: Session, client_id: str) -> None:
    """Remember that a client that registered itself was used."""
    if client_id:
        session.execute(
            update(McpClient).where(McpClient.client_id == client_id).values(last_used_at=now())
        )


def _is_of(row: Server) -> ColumnElement[bool]:
    return McpClient.server_id == row.server_id


def _is_embedded(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"
