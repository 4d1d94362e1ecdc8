"""Discovery of a server's authorization server.

URLs that an Admin entered override discovered ones. Everything is bound to one issuer and the
origins of its endpoints: if discovery finds others, nothing is sent there until an Admin has
reviewed the change. These functions make outgoing requests, which end the transaction; call them
before any write.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from portal.domain.destinations import TOKEN
from portal.domain.discovery import is_secure
from portal.domain.errors import Conflict, InvalidRequest, UpstreamFailure
from portal.domain.oauth import AuthorizationServer, Discovery, canonical_resource
from portal.domain.oauth_origins import foreign_address, moved_endpoint
from portal.domain.servers import origin_of
from portal.services.oauth_client import held_definitions
from portal.services.runtime import runtime_of
from portal.services.secrets.server_definition import opened, route_of
from portal.services.secrets.token_store import is_machine
from portal.store.database import release
from portal.store.models import Server, now
from portal.store.oauth_tables import STALE, ServerAuthorization

log = logging.getLogger("portal.oauth")
_FRESH = timedelta(hours=1)
_TUPLES = ("scopes_supported", "token_endpoint_auth_methods", "pkce")
_LOOK = (
    "The portal will not use it until an Admin reviews it: on the server’s page, Users’"
    " credentials, Sign-in provider."
)
_NOT_FOUND = (
    "The server’s sign-in provider was not found, or its metadata is not usable. Ask an Admin to"
    " check it."
)


def authorization_of(session: Session, row: Server, *, afresh: bool = False) -> Discovery:
    """Return the authorization server of a server: entered, remembered, or discovered now.

    `afresh` repeats discovery after an hour. Raises `UpstreamFailure` if discovery fails,
    `Conflict` (`issuer_changed`) if it leads elsewhere than before, and `InvalidRequest` for an
    endpoint without https or an entered one that belongs to another provider than the discovered
    one (`mixed_providers`).
    """
    urls = opened(session, row).urls
    if urls.get("token_url") and (urls.get("authorization_url") or is_machine(row)):
        return _checked(Discovery(_typed(urls), _resource(urls), ()))
    known = _known(session, row, afresh)
    if known is not None:
        return _with_typed(read_back(known), urls)
    if not urls.get("url"):
        raise InvalidRequest(
            "The sign-in provider of this server is unknown: it needs an authorization URL and a"
            " token URL.",
            code="no_authorization_server",
        )
    return _with_typed(_discovered(session, row, urls["url"]), urls)


def identity_of(server: AuthorizationServer) -> str:
    """Return what clients and tokens are bound to.

    That is the issuer, or the origin of the token URL if an Admin entered the URLs.
    """
    return server.issuer or origin_of(server.token_endpoint) or ""


def pinned(session: Session, row: Server) -> AuthorizationServer | None:
    """Return the authorization server of a server's stored secrets; None before discovery."""
    if held_definitions.is_temporary(row):
        found: Mapping[str, Any] | None = held_definitions.recall(session, row, "pin")
        return read_back(found).server if found else None
    known = session.get(ServerAuthorization, row.server_id)
    return _server_of(known) if known is not None else None


def pin_of(session: Session, row: Server, stored: Server) -> dict[str, Any] | None:
    """Return `pinned` as JSON, for a definition under test based on a stored server.

    Returns None if the definition leads to another place.
    """
    if route_of(session, stored).key(TOKEN) != route_of(session, row).key(TOKEN):
        return None
    server = pinned(session, stored)
    return written(Discovery(server, "")) if server is not None else None


def check_pinned(known: AuthorizationServer | None, found: AuthorizationServer) -> None:
    """Raise `Conflict` (`issuer_changed`) if the issuer or the origin of an endpoint changed."""
    if known is None:
        return
    if identity_of(known) != identity_of(found):
        raise Conflict(
            f"The server now uses another sign-in provider. {_LOOK}",
            code="issuer_changed",
        )
    moved = moved_endpoint(known, found)
    if moved is not None:
        _, before, after = moved
        raise Conflict(
            f"The server’s sign-in provider now uses the host {after} instead of {before}. {_LOOK}",
            code="issuer_changed",
        )


def remembered(known: ServerAuthorization | None) -> Mapping[str, Any] | None:
    """Return the stored discovery result; None if discovery has to be repeated."""
    return known.found if known is not None and known.found and not known.found.get(STALE) else None


def keep_authorization(session: Session, row: Server, found: Mapping[str, Any]) -> None:
    """Store what was discovered for a definition under test, for the server created from it.

    Raises `Conflict` (`issuer_changed`) if that server led elsewhere before.
    """
    server = read_back(found).server
    check_pinned(pinned(session, row), server)
    known = session.get(ServerAuthorization, row.server_id)
    known = known or ServerAuthorization(server_id=row.server_id, issuer=identity_of(server))
    known.found, known.discovered_at = dict(found), now()
    session.add(known)
    session.flush()


def written(found: Discovery) -> dict[str, Any]:
    """Return a discovery result as JSON, for storage."""
    return {
        "server": asdict(found.server),
        "resource": found.resource,
        "scopes": list(found.scopes),
    }


def read_back(stored: Mapping[str, Any]) -> Discovery:
    """Parse a discovery result from `written`."""
    fields = dict(stored["server"])
    fields |= {name: tuple(fields[name]) for name in _TUPLES if fields[name] is not None}
    return Discovery(AuthorizationServer(**fields), stored["resource"], tuple(stored["scopes"]))


def _typed(urls: Mapping[str, str]) -> AuthorizationServer:
    return AuthorizationServer(
        issuer="",
        authorization_endpoint=urls.get("authorization_url", ""),
        token_endpoint=urls["token_url"],
        registration_endpoint=urls.get("registration_url", ""),
    )


def _server_of(known: ServerAuthorization) -> AuthorizationServer:
    server = read_back(known.found).server if known.found else AuthorizationServer(issuer="")
    return replace(server, issuer=known.issuer)


def _with_typed(found: Discovery, urls: Mapping[str, str]) -> Discovery:
    """Override a discovery result with the URLs that an Admin entered.

    They must belong to the same provider; otherwise a code or secret would be sent to another one.
    """
    foreign = foreign_address(urls, found.server)
    if foreign is not None:
        field, called, origin = foreign
        raise InvalidRequest(
            f"The {called} is at {origin}, but the server’s own sign-in provider is at"
            f" {identity_of(found.server)}. The portal does not send codes and secrets from one"
            " to the other. Enter the authorization URL, the token URL and, if there is one, the"
            " registration URL, or none of them.",
            code="mixed_providers",
            field=field,
        )
    server = replace(
        found.server,
        authorization_endpoint=urls.get("authorization_url") or found.server.authorization_endpoint,
        token_endpoint=urls.get("token_url") or found.server.token_endpoint,
        registration_endpoint=urls.get("registration_url") or found.server.registration_endpoint,
    )
    return _checked(replace(found, server=server))


def _checked(found: Discovery) -> Discovery:
    server = found.server
    for address in (
        server.authorization_endpoint,
        server.token_endpoint,
        server.registration_endpoint,
    ):
        if address and not is_secure(address):
            raise InvalidRequest(
                "A sign-in URL of this server is not https, so the portal sends no secrets there."
                " Ask an Admin to correct it.",
                code="insecure_authorization_server",
            )
    return found


def _known(session: Session, row: Server, afresh: bool) -> Mapping[str, Any] | None:
    """Return the stored discovery result; for a definition under test, at most minutes old."""
    if held_definitions.is_temporary(row):
        found: Mapping[str, Any] | None = held_definitions.recall(session, row, "authorization")
        return found
    known = session.get(ServerAuthorization, row.server_id)
    if known is None or (afresh and known.discovered_at <= now() - _FRESH):
        return None
    return remembered(known)


def _resource(urls: Mapping[str, str]) -> str:
    return canonical_resource(urls["url"]) if urls.get("url") else ""


def _discovered(session: Session, row: Server, url: str) -> Discovery:
    server_id = row.server_id
    incarnation = row.incarnation
    version = row.version
    release(session)
    try:
        found = runtime_of(session).oauth.discover(url)
    except UpstreamFailure as failure:
        # The message may contain the server's host, so do not show it to everyone. The OAuth check
        # shows it to Admins.
        log.warning(
            "no authorization server was found for server %s: %s", server_id, failure.message
        )
        raise UpstreamFailure(_NOT_FOUND, reason=failure.reason) from None
    if held_definitions.is_temporary(row):
        check_pinned(pinned(session, row), found.server)
        held_definitions.remember(session, row, authorization=written(found))
        return found
    # Write first (SQLite); this also detects whether the definition changed in the meantime.
    unchanged = (
        Server.server_id == server_id,
        Server.incarnation == incarnation,
        Server.version == version,
    )
    if not _touches(session, update(Server).where(*unchanged).values(server_id=Server.server_id)):
        raise Conflict("The server was changed in the meantime. Try again.")
    known = session.get(ServerAuthorization, server_id, populate_existing=True)
    try:
        check_pinned(_server_of(known) if known is not None else None, found.server)
    except Conflict:
        session.rollback()
        raise
    if known is None:
        known = ServerAuthorization(server_id=server_id, issuer=identity_of(found.server))
        session.add(known)
    known.found, known.discovered_at = written(found), now()
    session.commit()
    return found


def _touches(session: Session, statement: Any) -> bool:
    return bool(
        getattr(
            session.execute(statement.execution_options(synchronize_session=False)), "rowcount", 0
        )
    )
