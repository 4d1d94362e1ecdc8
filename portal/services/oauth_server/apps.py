"""The apps that a user allowed to use servers, with tokens of the portal or of an upstream: listing
and removing them."""

from collections.abc import Iterator
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, case, delete, select, true
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.domain.principals import Principal
from portal.domain.redirects import shown_destination
from portal.services import audit
from portal.services.oauth_broker import consents
from portal.services.oauth_broker.consents import AllowedApp
from portal.services.oauth_client.flows import forget_flows
from portal.services.oauth_server import families
from portal.services.runtime import runtime_of
from portal.services.servers import queries
from portal.store.models import Server, Toolset, now
from portal.store.oauth_tables import AppGrant, AppToken

_OURS = "portal "
_ALL = "All servers"


def list_signed_in_apps(session: Session, principal: Principal) -> list[AllowedApp]:
    """Return the apps that the caller allowed, newest first.

    Servers and toolsets that the caller may no longer see are listed by ID.
    """
    apps = [*_own_grants(session, principal), *consents.list_own_apps(session, principal)]
    return sorted(apps, key=lambda app: app.given_at, reverse=True)


def sign_out_app(session: Session, principal: Principal, handle: str) -> None:
    """Remove an app, so that it has to ask again. Raises `NotFound`.

    Tokens of the portal end at once. Those of an upstream do not: only the upstream can revoke
    them.
    """
    grant_id = handle.removeprefix(_OURS) if handle.startswith(_OURS) else None
    grant = session.get(AppGrant, grant_id) if grant_id else None
    if grant is None or grant.user_id != principal.user_id:
        consents.remove_own_app(session, principal, handle)
        return
    session.execute(delete(AppGrant).where(_same_app(grant)))
    kind = "toolset" if grant.toolset_id else "server"
    of = grant.server_id or grant.toolset_id
    audit.record(session, principal, "app removed", kind, of, client_id=grant.client_id)
    forget_flows(session, user_id=principal.user_id)  # one may hold a code of this app
    session.flush()


def delete_expired_apps(session: Session, _principal: Principal) -> None:
    """Delete expired tokens, and the grants of apps that must ask again."""
    at = now()
    longest = timedelta(hours=runtime_of(session).session_max_hours)
    session.execute(delete(AppToken).where(AppToken.expires_at <= at))
    session.execute(delete(AppGrant).where(AppGrant.given_at <= at - longest))


def _own_grants(session: Session, principal: Principal) -> Iterator[AllowedApp]:
    """Yield each app with live tokens once for each server, as of its first sign-in."""
    granted = authz.granted_toolsets(principal)
    is_seen = Toolset.toolset_id.in_(granted) if granted is not None else true()
    query = (
        select(AppGrant, *queries.names_known_to(principal), case((is_seen, Toolset.toolset_name)))
        .outerjoin(Server, Server.server_id == AppGrant.server_id)
        .outerjoin(Toolset, Toolset.toolset_id == AppGrant.toolset_id)
        .where(AppGrant.user_id == principal.user_id)
        .order_by(AppGrant.given_at, AppGrant.grant_id)
    )
    found: dict[tuple[str | None, ...], AllowedApp] = {}
    for grant, name, alias, toolset in session.execute(query):
        if now() >= families.end_of(session, grant):
            continue
        key = (grant.client_hash, grant.server_id, grant.toolset_id)
        first = found.get(key)
        used = [grant.last_used_at, first.last_used_at if first else None]
        found[key] = AllowedApp(
            f"{_OURS}{grant.grant_id}",
            grant.client_name,
            grant.client_id,
            shown_destination(grant.redirect_uri),
            name or alias or grant.server_id or toolset or grant.toolset_id or _ALL,
            (),
            first.given_at if first else grant.given_at,
            max(filter(None, used), default=None),
            is_ours=True,
        )
    yield from found.values()


def _same_app(grant: AppGrant) -> ColumnElement[bool]:
    return and_(
        AppGrant.user_id == grant.user_id,
        AppGrant.client_hash == grant.client_hash,
        AppGrant.server_id.is_not_distinct_from(grant.server_id),
        AppGrant.toolset_id.is_not_distinct_from(grant.toolset_id),
    )
