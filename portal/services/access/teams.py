"""Teams: groups of users who share grants."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Conflict, InvalidInput, InvalidRequest, NotFound
from portal.domain.principals import Principal, TeamRole
from portal.services import audit
from portal.services.paging import Page, paged
from portal.services.servers.grants import (
    ObjectPermission,
    holdings,
    remove_grants,
    remove_grants_of_keys,
    replace_grants,
)
from portal.services.unique import flush_unique
from portal.store.models import ApiKey, Team, TeamMember, User

_TAKEN = "A team with this name already exists."


@dataclass(frozen=True)
class MemberView:
    """A member of a team."""

    user_id: str
    role: str
    name: str


@dataclass(frozen=True)
class TeamView:
    """A team with its members and grants."""

    team_id: str
    team_alias: str
    members_with_roles: tuple[MemberView, ...]
    object_permission: ObjectPermission
    access_group_ids: tuple[str, ...]
    metadata: Mapping[str, Any]


def list_teams(
    session: Session, principal: Principal, *, cursor: str = "", limit: int = 50, q: str = ""
) -> Page[TeamView]:
    """Return teams, filtered by part of their name."""
    authz.require(principal, Action.TEAM_READ)
    query = select(Team)
    if q:
        query = query.where(func.lower(Team.team_alias).contains(q.lower(), autoescape=True))
    rows, next_cursor = paged(session, query, Team.team_alias, cursor, limit)
    return Page(tuple(_views(session, rows)), next_cursor)


def list_own_teams(session: Session, principal: Principal) -> list[TeamView]:
    """Return the caller's teams."""
    rows = session.scalars(
        select(Team).where(Team.team_id.in_(principal.team_ids)).order_by(Team.team_alias)
    ).all()
    return _views(session, rows)


def get_team(session: Session, principal: Principal, team_id: str) -> TeamView:
    """Return one team. Raises `NotFound`."""
    authz.require(principal, Action.TEAM_READ)
    return _views(session, [_find(session, team_id)])[0]


def create_team(
    session: Session,
    principal: Principal,
    fields: Mapping[str, Any],
    permission: ObjectPermission | None = None,
    access_group_ids: Collection[str] | None = None,
    members: Sequence[tuple[str, str]] = (),
) -> TeamView:
    """Add a team. Raises `Conflict` for a taken name.

    `fields` are `team_id`, `team_alias` and `metadata`; members are pairs of user id and role.
    """
    authz.require(principal, Action.TEAM_MANAGE)
    team = Team(
        team_alias=_name(fields.get("team_alias")), details=dict(fields.get("metadata") or {})
    )
    if fields.get("team_id"):
        team.team_id = str(fields["team_id"])
        if session.get(Team, team.team_id) is not None:
            raise Conflict("A team with this ID already exists.", field="team_id")
    session.add(team)
    flush_unique(session, _TAKEN, "team_alias")
    for user_id, role in members:
        _put_member(session, team, user_id, role)
    replace_grants(session, ("team", team.team_id), permission, access_group_ids)
    view = _views(session, [team])[0]
    changes = audit.changed(None, view)
    audit.record(
        session,
        principal,
        "team created",
        "team",
        team.team_id,
        name=team.team_alias,
        changes=changes,
    )
    session.flush()
    return view


def change_team(
    session: Session,
    principal: Principal,
    team_id: str,
    fields: Mapping[str, Any],
    permission: ObjectPermission | None = None,
    access_group_ids: Collection[str] | None = None,
    members: Sequence[tuple[str, str]] | None = None,
) -> TeamView:
    """Change the given fields; given grants and members replace the existing ones."""
    authz.require(principal, Action.TEAM_MANAGE)
    team = _find(session, team_id)
    before = _views(session, [team])[0]
    if "team_alias" in fields:
        team.team_alias = _name(fields["team_alias"])
    if "metadata" in fields:
        team.details = dict(fields["metadata"] or {})
    flush_unique(session, _TAKEN, "team_alias")
    if members is not None:
        kept = {user_id for user_id, _ in members}
        for member in session.scalars(select(TeamMember).where(TeamMember.team_id == team_id)):
            if member.user_id not in kept:
                session.delete(member)
        for user_id, role in members:
            _put_member(session, team, user_id, role)
    replace_grants(session, ("team", team_id), permission, access_group_ids)
    session.flush()
    after = _views(session, [team])[0]
    changes = audit.changed(before, after)
    audit.record(
        session, principal, "team changed", "team", team_id, name=team.team_alias, changes=changes
    )
    session.flush()
    return after


def delete_team(session: Session, principal: Principal, team_id: str) -> None:
    """Delete a team with its grants and its keys."""
    authz.require(principal, Action.TEAM_MANAGE)
    team = _find(session, team_id)
    changes = audit.changed(_views(session, [team])[0], None)
    remove_grants(session, ("team", team_id))
    remove_grants_of_keys(session, ApiKey.team_id == team_id)
    session.delete(team)
    audit.record(
        session, principal, "team deleted", "team", team_id, name=team.team_alias, changes=changes
    )
    session.flush()


def put_member(
    session: Session, principal: Principal, team_id: str, user_id: str, role: str
) -> TeamView:
    """Add a user to a team, or change their role in it."""
    authz.require(principal, Action.TEAM_MANAGE)
    team = _find(session, team_id)
    _put_member(session, team, user_id, role)
    audit.record(
        session,
        principal,
        "member added",
        "team",
        team_id,
        name=team.team_alias,
        user_id=user_id,
        role=role,
    )
    session.flush()
    return _views(session, [team])[0]


def remove_member(session: Session, principal: Principal, team_id: str, user_id: str) -> None:
    """Remove a user from a team. Raises `NotFound` if they are not a member."""
    authz.require(principal, Action.TEAM_MANAGE)
    member = session.get(TeamMember, (_find(session, team_id).team_id, user_id))
    if member is None:
        raise NotFound("This user is not a member of the team.")
    session.delete(member)
    audit.record(session, principal, "member removed", "team", team_id, user_id=user_id)
    session.flush()


def _put_member(session: Session, team: Team, user_id: str, role: str) -> None:
    if role not in tuple(TeamRole):
        raise InvalidInput("Choose the role admin or user.", field="role")
    if session.get(User, user_id) is None:
        raise InvalidRequest(f"User not found: {user_id[:64]}", field="user_id")
    session.merge(TeamMember(team_id=team.team_id, user_id=user_id, role=role))


def _name(value: object) -> str:
    name = value.strip() if isinstance(value, str) else ""
    if not name:
        raise InvalidInput("Enter a name for the team.", field="team_alias")
    return name


def _find(session: Session, team_id: str) -> Team:
    team = session.get(Team, team_id)
    if team is None:
        raise NotFound(f"Team not found: {team_id[:64]}")
    return team


def _views(session: Session, rows: Sequence[Team]) -> list[TeamView]:
    ids = [row.team_id for row in rows]
    members: dict[str, list[MemberView]] = defaultdict(list)
    people = (
        select(TeamMember, User.display_name, User.email)
        .join(User, User.user_id == TeamMember.user_id)
        .where(TeamMember.team_id.in_(ids))
        .order_by(TeamMember.user_id)
    )
    for member, display_name, email in session.execute(people):
        name = display_name or email or member.user_id
        members[member.team_id].append(MemberView(member.user_id, member.role, name))
    held = holdings(session, [("team", team_id) for team_id in ids])
    return [
        TeamView(
            row.team_id,
            row.team_alias,
            tuple(members[row.team_id]),
            held[("team", row.team_id)].permission,
            held[("team", row.team_id)].access_group_ids,
            row.details,
        )
        for row in rows
    ]
