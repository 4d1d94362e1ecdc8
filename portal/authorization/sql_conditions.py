"""Which servers lists show to a caller, as database conditions.

`usable_servers` and `visible_servers` are the SQL equivalents of `may_use` and `may_see`.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

from sqlalchemy import ColumnElement, and_, exists, false, func, or_, true

from portal.authorization.predicates import has_admin_view
from portal.domain.principals import Principal, Reach
from portal.domain.servers import ApprovalStatus, AuthType, OAuthGrantType
from portal.store.call_tables import McpUse
from portal.store.models import AccessGroupServer, Server

_ACTIVE = Server.approval_status == ApprovalStatus.ACTIVE.value
_OF_PEOPLE = and_(
    Server.auth_type == AuthType.OAUTH2.value,
    or_(
        Server.oauth2_flow.is_(None), Server.oauth2_flow != OAuthGrantType.CLIENT_CREDENTIALS.value
    ),
)


@dataclass(frozen=True)
class Horizon:
    """The parts of a principal that decide which servers lists show.

    Callers with equal horizons see the same servers, so statements are cached by it: the members of
    a team share one, and so do all Admins.
    """

    admin_view: bool
    is_internal: bool
    sees_active: bool
    routes: tuple[tuple[tuple[frozenset[str], frozenset[str]], ...], ...] | None
    """For each route, the servers and groups of each of its levels; None reaches every server."""
    only: frozenset[str] | None
    few: frozenset[str] | None
    owner: "Horizon | None" = None
    """For a key that follows its owner: the owner's horizon. Administrators reach everything."""


def horizon(principal: Principal) -> Horizon:
    """Return what lists need to know of `principal`."""
    by_role = principal.role.has_admin_view
    routes = tuple(
        tuple((level.server_ids, level.access_group_ids) for level in route)
        for route in principal.routes_of_access
        if route and not by_role
    )
    return Horizon(
        admin_view=has_admin_view(principal),
        is_internal=principal.is_internal,
        sees_active=principal.view_all and not principal.is_restricted_key,
        routes=None if by_role and principal.only_servers is None else routes,
        only=principal.only_servers if by_role else None,
        few=None if by_role else principal.few_servers,
        owner=None if by_role or principal.owner is None else horizon(principal.owner),
    )


def usable_servers(principal: Principal) -> ColumnElement[bool]:
    """Return the condition on `Server` that is equivalent to `may_use`."""
    return usable_within(horizon(principal))


@lru_cache(maxsize=512)
def usable_within(seen: Horizon) -> ColumnElement[bool]:
    """Return `usable_servers` for a horizon."""
    if seen.owner is not None:
        return and_(usable_within(replace(seen, owner=None)), usable_within(seen.owner))
    if seen.few is None:
        return and_(
            _ACTIVE, _address_condition(seen), or_(Server.allow_all_keys, _grant_condition(seen))
        )
    # Put the ids first; otherwise databases scan all active servers in the requested order.
    active = func.coalesce(Server.approval_status, "") == ApprovalStatus.ACTIVE.value
    granted = or_(Server.allow_all_keys, _grant_condition(seen))
    return and_(Server.server_id.in_(sorted(seen.few)), active, _address_condition(seen), granted)


def visible_servers(principal: Principal) -> ColumnElement[bool]:
    """Return the condition on `Server` that is equivalent to `may_see` for active servers."""
    return visible_within(horizon(principal))


def visible_within(seen: Horizon) -> ColumnElement[bool]:
    """Return `visible_servers` for a horizon."""
    return and_(_ACTIVE, _address_condition(seen)) if seen.sees_active else usable_within(seen)


def reviewable_within(seen: Horizon) -> ColumnElement[bool]:
    """Return the condition equivalent to `may_see` with admin view, including submissions."""
    if seen.only is not None:
        return usable_within(seen)
    under_review = and_(
        Server.approval_status != ApprovalStatus.ACTIVE.value, _address_condition(seen)
    )
    return or_(usable_within(seen), under_review)


def public_servers() -> ColumnElement[bool]:
    """Return the condition for servers that strangers may see: active and listed publicly."""
    return and_(_ACTIVE, Server.is_public)


def servers_of_team(reach: Reach) -> ColumnElement[bool]:
    """Return the condition on `Server` for what a team is granted."""
    return and_(_ACTIVE, _reach_condition(reach.server_ids, reach.access_group_ids))


def _address_condition(of: Principal | Horizon) -> ColumnElement[bool]:
    if of.is_internal:
        return true()
    return or_(Server.available_on_public_internet, Server.is_public)


def sign_in_servers(principal: Principal) -> ColumnElement[bool]:
    """Return the condition for servers that an authenticated caller may sign in to."""
    return and_(_OF_PEOPLE, usable_servers(principal))


def open_servers(principal: Principal) -> ColumnElement[bool]:
    """Return the condition for servers with sign-in open to strangers: delegated or passed through.

    These are the only servers whose existence an unauthenticated caller may learn.
    """
    leaves_it = or_(Server.delegate_auth_to_upstream, Server.oauth_passthrough)
    return and_(_OF_PEOPLE, leaves_it, _ACTIVE, _address_condition(principal))


def own_uses(principal: Principal) -> ColumnElement[bool]:
    """Return the condition for the caller's own uses of servers through the gateway."""
    return McpUse.user_id == principal.user_id if principal.user_id else false()


def _grant_condition(seen: Horizon) -> ColumnElement[bool]:
    if seen.routes is None:
        return true()
    if seen.only is not None:
        return Server.server_id.in_(sorted(seen.only))
    return or_(
        false(), *(and_(*(_reach_condition(*level) for level in route)) for route in seen.routes)
    )


def _reach_condition(server_ids: frozenset[str], group_ids: frozenset[str]) -> ColumnElement[bool]:
    named = Server.server_id.in_(sorted(server_ids)) if server_ids else false()
    if not group_ids:
        return named
    # Evaluated server by server, so that a list with a limit stops early instead of first listing
    # all members.
    is_member = exists().where(
        AccessGroupServer.server_id == Server.server_id,
        AccessGroupServer.access_group_id.in_(sorted(group_ids)),
    )
    return or_(named, is_member.correlate(Server))
