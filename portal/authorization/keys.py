"""What an API key reaches when it is used: its own grants, its team's, and its owner's access.

None of this is stored, so it follows every change of the owner's role, teams and grants.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, exists, or_, select

from portal.domain.principals import Principal, Reach
from portal.store.models import ApiKey, TeamMember, User

_CLOCKS_DIFFER = timedelta(minutes=5)


class SetBy(StrEnum):
    """Who set what a key reaches; older keys have no value, and use their own grants."""

    OWNER = "owner"
    ADMIN = "admin"


class KeyFault(StrEnum):
    """Why a key does not work."""

    REVOKED = "revoked"
    EXPIRED = "expired"
    OWNER_INACTIVE = "owner_inactive"
    LEFT_TEAM = "left_team"


@dataclass(frozen=True)
class KeyFacts:
    """The facts that decide whether a key works. Times are UTC.

    `owner_is_member` refers to the key's team.
    """

    revoked_at: datetime | None
    expires_at: datetime | None
    has_owner: bool
    owner_is_active: bool
    has_team: bool
    owner_is_member: bool


def key_fault(key: KeyFacts, at: datetime) -> KeyFault | None:
    """Return why the key does not work at the time `at`; None if it works.

    A key of a user and a team works only while the user is a member of the team.
    """
    if key.revoked_at is not None:
        return KeyFault.REVOKED
    if key.has_owner and not key.owner_is_active:
        return KeyFault.OWNER_INACTIVE
    if key.expires_at is not None and key.expires_at <= at:
        return KeyFault.EXPIRED
    if key.has_owner and key.has_team and not key.owner_is_member:
        return KeyFault.LEFT_TEAM
    return None


def key_complies(most_days: int | None, created_at: datetime, ends: datetime | None) -> bool:
    """Return whether a key expires within the days that the settings allow; None allows any key."""
    if most_days is None:
        return True
    return ends is not None and ends <= created_at + timedelta(days=most_days) + _CLOCKS_DIFFER


def working_keys(at: datetime) -> ColumnElement[bool]:
    """Return the condition on `ApiKey` that is equivalent to `key_fault` returning None."""
    owner = exists().where(User.user_id == ApiKey.user_id, User.is_active).correlate(ApiKey)
    return and_(
        ApiKey.revoked_at.is_(None),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > at),
        or_(ApiKey.user_id.is_(None), owner),
        or_(ApiKey.user_id.is_(None), ApiKey.team_id.is_(None), owner_is_member()),
    )


def owner_is_member() -> ColumnElement[bool]:
    """Return the condition on `ApiKey` that its owner is a member of its team."""
    member = select(TeamMember.user_id).where(
        TeamMember.team_id == ApiKey.team_id, TeamMember.user_id == ApiKey.user_id
    )
    return member.correlate(ApiKey).exists()


def personal_keys() -> ColumnElement[bool]:
    """Return the condition on `ApiKey` for keys that follow their owner and have no team."""
    return and_(ApiKey.set_by == SetBy.OWNER.value, ApiKey.team_id.is_(None))


def reach_of_key(
    key: Principal,
    *,
    own: Reach,
    own_groups: frozenset[str] | None,
    team: Reach | None,
    owner: Principal | None,
    in_groups: frozenset[str] = frozenset(),
) -> Principal:
    """Return `key` with what it reaches.

    `own` is what the key itself names, `own_groups` its added access groups (None if it never had
    any), `team` what its team is granted. `owner` is the principal of the owner in a browser, only
    for a key that follows them: without team and grants the key reaches exactly what the owner
    reaches, otherwise never more. `in_groups` are the servers of all its groups, which narrow an
    administrator's key.
    """
    has_own_grants = own.names_anything or own_groups is not None
    if owner is not None and team is None and not has_own_grants:
        return replace(
            key,
            team_ids=owner.team_ids,
            routes_of_access=owner.routes_of_access,
            few_servers=owner.few_servers,
            is_personal=True,
        )
    levels = tuple(level for level in (own, team) if level is not None and level.names_anything)
    routes = [levels] if levels else []
    if own_groups:
        routes.append((Reach(access_group_ids=own_groups, names_anything=True, holder=own.holder),))
    only = (
        own.server_ids | in_groups if owner is not None and has_own_grants else own.explicit_servers
    )
    return replace(
        key,
        routes_of_access=tuple(routes),
        only_servers=only,
        only_toolsets=own.explicit_toolsets,
        owner=owner,
    )
