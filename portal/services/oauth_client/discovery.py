"""Which authorization server stands before a server, and as which client the portal speaks to it.

What an Admin typed goes before what was discovered. All of it is bound to one issuer and to the
origins of its endpoints: where discovery finds others nothing is sent there until an Admin has
looked at it. These functions ask other machines, so they end the transaction at hand; nothing may
have been written before.
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
    "Nobody is sent there until an Admin has looked at it: on the server’s page, Users’"
    " credentials, Sign-in provider."
)
_NOT_FOUND = (
    "The server’s sign-in provider was not found, or its metadata cannot be used. An Admin has to"
    " look at it."
)


def authorization_of(session: Session, row: Server, *, afresh: bool = False) -> Discovery:
    """The authorization of a server: typed, remembered, or discovered now; `afresh` asks again
    after an hour.

    Raises `UpstreamFailure` where discovery fails, `Conflict` (`issuer_changed`) where it leads
    elsewhere than before, and `InvalidRequest` for an endpoint that is not https, or that is typed
    and belongs to another provider than the one that was discovered (`mixed_providers`).
    """
    urls = opened(session, row).urls
    if urls.get("token_url") and (urls.get("authorization_url") or is_machine(row)):
        return _checked(Discovery(_typed(urls), _resource(urls), ()))
    known = _known(session, row, afresh)
    if known is not None:
        return _with_typed(read_back(known), urls)
    if not urls.get("url"):
        raise InvalidRequest(
            "Nobody can tell where to sign in to this server: it needs an authorization URL and a"
            " token URL.",
            code="no_authorization_server",
        )
    return _with_typed(_discovered(session, row, urls["url"]), urls)


def identity_of(server: AuthorizationServer) -> str:
    """What clients and tokens are bound to: the issuer, or, where an Admin typed the URLs, the
    token URL's origin."""
    return server.issuer or origin_of(server.token_endpoint) or ""


def pinned(session: Session, row: Server) -> AuthorizationServer | None:
    """The authorization server to which the stored secrets of a server belong; None where none was
    found yet."""
    if held_definitions.is_temporary(row):
        found: Mapping[str, Any] | None = held_definitions.recall(session, row, "pin")
        return read_back(found).server if found else None
    known = session.get(ServerAuthorization, row.server_id)
    return _server_of(known) if known is not None else None


def pin_of(session: Session, row: Server, stored: Server) -> dict[str, Any] | None:
    """The same as JSON, for the definition under test `row` that goes out from a stored server and
    leads to the same place."""
    if route_of(session, stored).key(TOKEN) != route_of(session, row).key(TOKEN):
        return None
    server = pinned(session, stored)
    return written(Discovery(server, "")) if server is not None else None


def check_pinned(known: AuthorizationServer | None, found: AuthorizationServer) -> None:
    """Raise `Conflict` (`issuer_changed`) where discovery found another issuer, or endpoints at
    other origins."""
    if known is None:
        return
    if identity_of(known) != identity_of(found):
        raise Conflict(
            f"The server sends people to another sign-in provider than before. {_LOOK}",
            code="issuer_changed",
        )
    moved = moved_endpoint(known, found)
    if moved is not None:
        _, before, after = moved
        raise Conflict(
            f"The server’s sign-in provider names the host {after} now, where {before} stood"
            f" before. {_LOOK}",
            code="issuer_changed",
        )


def remembered(known: ServerAuthorization | None) -> Mapping[str, Any] | None:
    """What was discovered and may be used as it is; None where discovery has to be asked again, and
    is held to it."""
    return known.found if known is not None and known.found and not known.found.get(STALE) else None


def keep_authorization(session: Session, row: Server, found: Mapping[str, Any]) -> None:
    """Store what was discovered of a definition under test for the server that it became.

    Raises `Conflict` (`issuer_changed`) where that one led elsewhere before.
    """
    server = read_back(found).server
    check_pinned(pinned(session, row), server)
    known = session.get(ServerAuthorization, row.server_id)
    known = known or ServerAuthorization(server_id=row.server_id, issuer=identity_of(server))
    known.found, known.discovered_at = dict(found), now()
    session.add(known)
    session.flush()


def written(found: Discovery) -> dict[str, Any]:
    """What was discovered, to be stored as JSON."""
    return {
        "server": asdict(found.server),
        "resource": found.resource,
        "scopes": list(found.scopes),
    }


def read_back(stored: Mapping[str, Any]) -> Discovery:
    """What `written` wrote."""
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
    """What was discovered, with the single URLs that an Admin typed in their place.

    Those have to be of the same provider: the code or the secret of one would go to another.
    """
    foreign = foreign_address(urls, found.server)
    if foreign is not None:
        field, called, origin = foreign
        raise InvalidRequest(
            f"The {called} is at {origin}, but the server’s own sign-in provider is at"
            f" {identity_of(found.server)}. Codes and secrets of one are not sent to the other."
            " Type the authorization URL, the token URL and, where there is one, the registration"
            " URL, or none of them.",
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
                "A sign-in URL of this server is not https, so nothing secret is sent there. An"
                " Admin has to mend it.",
                code="insecure_authorization_server",
            )
    return found


def _known(session: Session, row: Server, afresh: bool) -> Mapping[str, Any] | None:
    """What was discovered before; for a definition under test that is minutes ago at most."""
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
        # Its message may name the server's host, which is not for everybody; the OAuth check tells
        # an Admin all.
        log.warning(
            "no authorization server was found for server %s: %s", server_id, failure.message
        )
        raise UpstreamFailure(_NOT_FOUND, reason=failure.reason) from None
    if held_definitions.is_temporary(row):
        check_pinned(pinned(session, row), found.server)
        held_definitions.remember(session, row, authorization=written(found))
        return found
    # Writing comes first (SQLite), and tells whether the definition is still the one that was asked
    # about.
    unchanged = (
        Server.server_id == server_id,
        Server.incarnation == incarnation,
        Server.version == version,
    )
    if not _touches(session, update(Server).where(*unchanged).values(server_id=Server.server_id)):
        raise Conflict("The server was changed meanwhile. Try again.")
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
