"""Which authorization server stands before a server, and as which client the portal speaks to it.

What an Admin typed goes before what was discovered. All of it is bound to one issuer: where discovery finds another one
nothing is sent there until an Admin has looked at it (R-OAUTH-22). These functions ask other machines, so they end the
transaction at hand; nothing may have been written before.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from portal.domain.discovery import is_secure
from portal.domain.errors import Conflict, InvalidRequest, UpstreamFailure
from portal.domain.oauth import AuthorizationServer, Discovery, canonical_resource
from portal.domain.servers import origin_of
from portal.services.inner import temporary
from portal.services.inner.definitions import opened
from portal.services.inner.held_tokens import is_machine
from portal.services.inner.house import house_of
from portal.store.database import release
from portal.store.models import Server, now
from portal.store.oauth_tables import ServerAuthorization

log = logging.getLogger("portal.oauth")
_FRESH = timedelta(hours=1)
_TUPLES = ("scopes_supported", "token_endpoint_auth_methods", "pkce")
_NOT_FOUND = "The server’s sign-in provider was not found, or its metadata cannot be used. An Admin has to look at it."


def authorization_of(session: Session, row: Server, *, afresh: bool = False) -> Discovery:
    """The authorization of a server: typed, remembered, or discovered now; `afresh` asks again after an hour.

    Raises `UpstreamFailure` where discovery fails, `Conflict` (`issuer_changed`) where it leads elsewhere than before,
    and `InvalidRequest` for an endpoint that is not https.
    """
    urls = opened(session, row).urls
    if urls.get("token_url") and (urls.get("authorization_url") or is_machine(row)):
        return _checked(Discovery(_typed(urls), _resource(urls), ()))
    known = _known(session, row, afresh)
    if known is not None:
        return _with_typed(read_back(known), urls)
    if not urls.get("url"):
        raise InvalidRequest(
            "Nobody can tell where to sign in to this server: it needs an authorization URL and a token URL.",
            code="no_authorization_server",
        )
    return _with_typed(_discovered(session, row, urls["url"]), urls)


def identity_of(server: AuthorizationServer) -> str:
    """What clients and tokens are bound to: the issuer, or, where an Admin typed the URLs, the token URL's origin."""
    return server.issuer or origin_of(server.token_endpoint) or ""


def keep_authorization(session: Session, row: Server, found: Mapping[str, Any]) -> None:
    """Store what was discovered of a definition under test for the server that it became.

    Raises `Conflict` (`issuer_changed`) where that one led to another issuer before.
    """
    issuer = identity_of(read_back(found).server)
    known = session.get(ServerAuthorization, row.server_id)
    if known is not None and known.issuer != issuer:
        raise Conflict("The server sent people to another sign-in provider before.", code="issuer_changed")
    known = known or ServerAuthorization(server_id=row.server_id, issuer=issuer)
    known.found, known.discovered_at = dict(found), now()
    session.add(known)
    session.flush()


def written(found: Discovery) -> dict[str, Any]:
    """What was discovered, to be stored as JSON."""
    return {"server": asdict(found.server), "resource": found.resource, "scopes": list(found.scopes)}


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


def _with_typed(found: Discovery, urls: Mapping[str, str]) -> Discovery:
    """What was discovered, with the single URLs that an Admin typed in their place."""
    server = replace(
        found.server,
        authorization_endpoint=urls.get("authorization_url") or found.server.authorization_endpoint,
        token_endpoint=urls.get("token_url") or found.server.token_endpoint,
        registration_endpoint=urls.get("registration_url") or found.server.registration_endpoint,
    )
    return _checked(replace(found, server=server))


def _checked(found: Discovery) -> Discovery:
    server = found.server
    for address in (server.authorization_endpoint, server.token_endpoint, server.registration_endpoint):
        if address and not is_secure(address):
            raise InvalidRequest(
                "A sign-in URL of this server is not https, so nothing secret is sent there. An Admin has to mend it.",
                code="insecure_authorization_server",
            )
    return found


def _known(session: Session, row: Server, afresh: bool) -> Mapping[str, Any] | None:
    """What was discovered before; for a definition under test that is minutes ago at most."""
    if temporary.is_temporary(row):
        found: Mapping[str, Any] | None = temporary.recall(session, row, "authorization")
        return found
    known = session.get(ServerAuthorization, row.server_id)
    if known is None or not known.found:  # only the issuer is known: discovery is asked again, and held to it
        return None
    return known.found if (not afresh or known.discovered_at > now() - _FRESH) else None


def _resource(urls: Mapping[str, str]) -> str:
    return canonical_resource(urls["url"]) if urls.get("url") else ""


def _discovered(session: Session, row: Server, url: str) -> Discovery:
    server_id, incarnation, version = row.server_id, row.incarnation, row.version
    release(session)
    try:
        found = house_of(session).oauth.discover(url)
    except UpstreamFailure as failure:
        # Its message may name the server's host, which is not for everybody; the OAuth check tells an Admin all.
        log.warning("no authorization server was found for server %s: %s", server_id, failure.message)
        raise UpstreamFailure(_NOT_FOUND, reason=failure.reason) from None
    if temporary.is_temporary(row):
        temporary.remember(session, row, authorization=written(found))
        return found
    # Writing comes first (SQLite), and tells whether the definition is still the one that was asked about.
    unchanged = (Server.server_id == server_id, Server.incarnation == incarnation, Server.version == version)
    if not _touches(session, update(Server).where(*unchanged).values(server_id=Server.server_id)):
        raise Conflict("The server was changed meanwhile. Try again.")
    known = session.get(ServerAuthorization, server_id, populate_existing=True)
    if known is not None and known.issuer != identity_of(found.server):
        session.rollback()
        raise Conflict(
            "The server sends people to another sign-in provider than before. Nobody is sent there until an Admin "
            "has looked at it: on the server’s page, Users’ credentials, Sign-in provider.",
            code="issuer_changed",
        )
    if known is None:
        known = ServerAuthorization(server_id=server_id, issuer=identity_of(found.server))
        session.add(known)
    known.found, known.discovered_at = written(found), now()
    session.commit()
    return found


def _touches(session: Session, statement: Any) -> bool:
    return bool(getattr(session.execute(statement.execution_options(synchronize_session=False)), "rowcount", 0))
