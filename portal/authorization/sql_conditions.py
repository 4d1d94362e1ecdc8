"""Which servers lists show somebody, as conditions for the database.

`usable_servers` and `visible_servers` are the SQL twins of `may_use` and `may_see`.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

from sqlalchemy import ColumnElement, and_, exists, false, func, or_, true

from portal.authorization.predicates import has_admin_view
from portal.domain.principals import Principal, Reach
from portal.domain.servers import ApprovalStatus, AuthType, OAuthFlow
from portal.store.models import AccessGroupServer, Server

_ACTIVE = Server.approval_status == ApprovalStatus.ACTIVE.value
_OF_PEOPLE = and_(
    Server.auth_type == AuthType.OAUTH2.value,
    or_(Server.oauth2_flow.is_(None), Server.oauth2_flow != OAuthFlow.CLIENT_CREDENTIALS.value),
)


@dataclass(frozen=True)
class Horizon:
    """What of a principal decides which servers a list shows.

    All who share one are shown the same, so that the statements of lists can be kept by it: the
    members of a team ask with the same statement, and all Admins do.
    """

    admin_view: bool
    is_internal: bool
    sees_active: bool
    routes: tuple[tuple[tuple[frozenset[str], frozenset[str]], ...], ...] | None
    """For each route the servers and the groups that each of its levels names; None reaches every
    server."""
    only: frozenset[str] | None
    few: frozenset[str] | None
    owner: "Horizon | None" = None
    """Of a key that follows its owner: what decides for them. Administrators reach everything."""


def horizon(principal: Principal) -> Horizon:
    """What lists need to know of `principal`."""
    by_role = principal.role.has_admin_view
    routes = (
        ()
        if by_role
        else tuple(
            tuple((level.server_ids, level.access_group_ids) for level in route)
            for route in principal.routes_of_access
            if route
        )
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
    """The condition on `Server` that says what `may_use` says."""
    return usable_within(horizon(principal))


@lru_cache(maxsize=512)
def usable_within(seen: Horizon) -> ColumnElement[bool]:
    """`usable_servers` for all who share a horizon."""
    if seen.owner is not None:
        return and_(usable_within(replace(seen, owner=None)), usable_within(seen.owner))
    if seen.few is None:
        return and_(
            _ACTIVE, _address_condition(seen), or_(Server.allow_all_keys, _grant_condition(seen))
        )
    # The ids come first: databases would rather go through all active servers, in the order that is
    # asked for.
    active = func.coalesce(Server.approval_status, "") == ApprovalStatus.ACTIVE.value
    granted = or_(Server.allow_all_keys, _grant_condition(seen))
    return and_(Server.server_id.in_(sorted(seen.few)), active, _address_condition(seen), granted)


def visible_servers(principal: Principal) -> ColumnElement[bool]:
    """The condition on `Server` that says what `may_see` says of active servers, which are those
    that lists show."""
    return visible_within(horizon(principal))


def visible_within(seen: Horizon) -> ColumnElement[bool]:
    """`visible_servers` for all who share a horizon."""
    return and_(_ACTIVE, _address_condition(seen)) if seen.sees_active else usable_within(seen)


def reviewable_within(seen: Horizon) -> ColumnElement[bool]:
    """The condition on `Server` that says what `may_see` says, servers under review among them,
    with admin view."""
    if seen.only is not None:
        return usable_within(seen)
    under_review = and_(
        Server.approval_status != ApprovalStatus.ACTIVE.value, _address_condition(seen)
    )
    return or_(usable_within(seen), under_review)


def public_servers() -> ColumnElement[bool]:
    """The condition on `Server` for what strangers may know of: active, and listed publicly by an
    Admin."""
    return and_(_ACTIVE, Server.is_public)


def servers_of_team(reach: Reach) -> ColumnElement[bool]:
    """The condition on `Server` for what one team is granted."""
    return and_(_ACTIVE, _reach_condition(reach.server_ids, reach.access_group_ids))


def _address_condition(of: Principal | Horizon) -> ColumnElement[bool]:
    if of.is_internal:
        return true()
    return or_(Server.available_on_public_internet, Server.is_public)


def sign_in_servers(principal: Principal) -> ColumnElement[bool]:
    """The condition on `Server` for those that somebody who is known may sign in to by way of the
    portal."""
    return and_(_OF_PEOPLE, usable_servers(principal))


def open_servers(principal: Principal) -> ColumnElement[bool]:
    """The condition on `Server` for those whose sign-in is open to strangers: delegated, or passed
    through.

    Of these alone a caller without a credential may learn that they are there.
    """
    leaves_it = or_(Server.delegate_auth_to_upstream, Server.oauth_passthrough)
    return and_(_OF_PEOPLE, leaves_it, _ACTIVE, _address_condition(principal))


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
    # Asked server by server: a list with a limit stops early, where a list of all members would be
    # made first.
    is_member = exists().where(
        AccessGroupServer.server_id == Server.server_id,
        AccessGroupServer.access_group_id.in_(sorted(group_ids)),
    )
    return or_(named, is_member.correlate(Server))
