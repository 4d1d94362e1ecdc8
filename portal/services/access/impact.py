"""Who loses access when a user, team, group or key is deleted, for the confirmation pages."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import NotFound
from portal.domain.principals import Principal
from portal.store.models import (
    AccessGroupServer,
    ApiKey,
    Grant,
    Team,
    TeamMember,
    ToolsetTool,
    User,
    UserCredential,
    UserVariable,
    now,
)


@dataclass(frozen=True)
class Impact:
    """What depends on a user, team, access group or toolset.

    `teams` and `people` are names; at most 20 people are named.
    """

    teams: tuple[str, ...]
    people: tuple[str, ...]
    people_count: int
    live_keys: int
    servers: int


@dataclass(frozen=True)
class RevocableKey:
    """A key that the caller may revoke, with what they need to recognize it."""

    key_id: str
    key_alias: str | None
    key_prefix: str
    is_revoked: bool


_MOST_NAMES = 20
_NAME = func.coalesce(User.display_name, User.email, User.user_id)


def of_team(session: Session, principal: Principal, team_id: str) -> Impact:
    """Return the members of a team, its keys, and its members' personal keys.

    Keys of the team are deleted with it; personal keys lose the access they have through it.
    """
    authz.require(principal, Action.TEAM_READ)
    members = (
        select(User)
        .join(TeamMember, TeamMember.user_id == User.user_id)
        .where(TeamMember.team_id == team_id)
    )
    names = session.scalars(members.with_only_columns(_NAME).order_by(_NAME).limit(_MOST_NAMES))
    return Impact(
        teams=(),
        people=tuple(names),
        people_count=_count(session, TeamMember.user_id, TeamMember.team_id == team_id),
        live_keys=_live_keys(
            session, _of_teams(TeamMember.team_id == team_id, ApiKey.team_id == team_id)
        ),
        servers=_count(
            session, Grant.server_id, Grant.holder_kind == "team", Grant.holder_id == team_id
        ),
    )


def of_user(session: Session, principal: Principal, user_id: str) -> Impact:
    """Return a user's teams and keys, and the servers they stored something for."""
    authz.require(principal, Action.USER_READ)
    teams = select(Team.team_alias).join(TeamMember, TeamMember.team_id == Team.team_id)
    stored = select(UserCredential.server_id).where(UserCredential.user_id == user_id)
    stored_for = stored.union(
        select(UserVariable.server_id).where(UserVariable.user_id == user_id)
    ).subquery()
    return Impact(
        teams=tuple(
            session.scalars(teams.where(TeamMember.user_id == user_id).order_by(Team.team_alias))
        ),
        people=(),
        people_count=0,
        live_keys=_live_keys(session, ApiKey.user_id == user_id),
        servers=session.scalar(select(func.count()).select_from(stored_for)) or 0,
    )


def of_group(session: Session, principal: Principal, group_id: str) -> Impact:
    """Return the teams, users and keys that reach servers through an access group."""
    authz.require(principal, Action.ACCESS_GROUP_READ)
    servers = _count(
        session, AccessGroupServer.server_id, AccessGroupServer.access_group_id == group_id
    )
    return _of_holders(session, Grant.access_group_id == group_id, servers)


def of_toolset(session: Session, principal: Principal, toolset_id: str) -> Impact:
    """Return the teams, users and keys that are granted a toolset."""
    authz.require(principal, Action.TOOLSET_READ)
    servers = _count(session, ToolsetTool.server_id, ToolsetTool.toolset_id == toolset_id)
    return _of_holders(session, Grant.toolset_id == toolset_id, servers)


def _of_holders(session: Session, mine: ColumnElement[bool], servers: int) -> Impact:
    teams = select(Team.team_alias).join(
        Grant, (Grant.holder_kind == "team") & (Grant.holder_id == Team.team_id)
    )
    people = select(_NAME).join(
        Grant, (Grant.holder_kind == "user") & (Grant.holder_id == User.user_id)
    )
    keys, of_teams, of_people = (
        select(Grant.holder_id).where(mine, Grant.holder_kind == kind)
        for kind in ("key", "team", "user")
    )
    through = or_(
        ApiKey.key_id.in_(keys),
        and_(authz.personal_keys(), ApiKey.user_id.in_(of_people)),
        _of_teams(TeamMember.team_id.in_(of_teams), ApiKey.team_id.in_(of_teams)),
    )
    return Impact(
        teams=tuple(session.scalars(teams.where(mine).distinct().order_by(Team.team_alias))),
        people=tuple(
            session.scalars(people.where(mine).distinct().order_by(_NAME).limit(_MOST_NAMES))
        ),
        people_count=_count(session, Grant.holder_id, mine, Grant.holder_kind == "user"),
        live_keys=_live_keys(session, through),
        servers=servers,
    )


def of_own_key(session: Session, principal: Principal, key_id: str) -> RevocableKey:
    """Return one of the caller's keys. Raises `NotFound` for any other, existing or not."""
    authz.require(principal, Action.KEY_OWN)
    return _key(session, key_id, ApiKey.user_id == principal.user_id)


def of_key(session: Session, principal: Principal, key_id: str) -> RevocableKey:
    """Return any user's key. Raises `NotFound`."""
    authz.require(principal, Action.KEY_MANAGE)
    return _key(session, key_id)


def _key(session: Session, key_id: str, *conditions: ColumnElement[bool]) -> RevocableKey:
    row = session.scalar(select(ApiKey).where(ApiKey.key_id == key_id, *conditions))
    if row is None:
        raise NotFound(f"API key not found: {key_id[:64]}")
    return RevocableKey(row.key_id, row.key_alias, row.key_prefix, row.revoked_at is not None)


def _live_keys(session: Session, condition: ColumnElement[bool]) -> int:
    return _count(session, ApiKey.key_id, condition, authz.working_keys(now()))


def _of_teams(members: ColumnElement[bool], keys: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return the condition for keys of teams, and for keys that follow a member of one."""
    return or_(
        keys,
        and_(authz.personal_keys(), ApiKey.user_id.in_(select(TeamMember.user_id).where(members))),
    )


def _count(
    session: Session, column: InstrumentedAttribute[Any], *conditions: ColumnElement[bool]
) -> int:
    return session.scalar(select(func.count(column.distinct())).where(*conditions)) or 0
