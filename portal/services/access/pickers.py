"""Choices for forms: servers, users, teams and keys, found by text and named by id."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action, ServerFacts
from portal.domain.principals import Principal
from portal.services.servers import queries
from portal.store.models import AccessGroup, ApiKey, Server, Team, TeamMember, Toolset, User

MOST_SERVERS = 50
MOST_OTHERS = 20
_CHUNK = 500


@dataclass(frozen=True)
class Choice:
    """An option: its id, its name, and a note that distinguishes it from namesakes."""

    value: str
    text: str
    note: str = ""


@dataclass(frozen=True)
class Membership:
    """A user's team, and their role in it."""

    team_id: str
    team_alias: str
    role: str


def find_servers(session: Session, principal: Principal, text: str) -> list[Choice]:
    """Return up to 50 servers that the caller can use, by part of the name, alias or description.

    A blank text matches all.
    """
    query = select(Server.server_id, Server.server_name, Server.alias).where(
        authz.usable_servers(principal)
    )
    if text.strip():
        query = query.where(_holds(text, Server.server_name, Server.alias, Server.description))
    rows = session.execute(query.order_by(Server.sort_key, Server.server_id).limit(MOST_SERVERS))
    return [_server(server_id, name, alias) for server_id, name, alias in rows]


def name_servers(session: Session, principal: Principal, ids: Collection[str]) -> dict[str, Choice]:
    """Return the servers with these ids that the caller may see."""
    found: dict[str, Choice] = {}
    for part in _chunks(ids):
        rows = session.scalars(select(Server).where(Server.server_id.in_(part))).all()
        groups = queries.groups_of(session, rows)
        for row in rows:
            facts = ServerFacts(
                row, frozenset(group.access_group_id for group in groups[row.server_id])
            )
            if authz.may(principal, Action.SERVER_READ, facts):
                found[row.server_id] = _server(row.server_id, row.server_name, row.alias)
    return found


def find_people(session: Session, principal: Principal, text: str) -> list[Choice]:
    """Return up to 20 users by part of their email or name; a blank text matches all."""
    authz.require(principal, Action.USER_READ)
    query = select(User.user_id, User.display_name, User.email)
    if text.strip():
        query = query.where(_holds(text, User.email, User.display_name))
    rows = session.execute(
        query.order_by(func.coalesce(User.email, User.display_name), User.user_id).limit(
            MOST_OTHERS
        )
    )
    return [_person(*row) for row in rows]


def name_people(session: Session, principal: Principal, ids: Collection[str]) -> dict[str, Choice]:
    """Return the users with these ids; deleted ones are left out."""
    authz.require(principal, Action.USER_READ)
    query = select(User.user_id, User.display_name, User.email)
    return {
        row[0]: _person(*row)
        for part in _chunks(ids)
        for row in session.execute(query.where(User.user_id.in_(part)))
    }


def find_teams(session: Session, principal: Principal, text: str) -> list[Choice]:
    """Return up to 20 teams by part of their name; a blank text matches all."""
    authz.require(principal, Action.TEAM_READ)
    query = select(Team.team_id, Team.team_alias)
    if text.strip():
        query = query.where(_holds(text, Team.team_alias))
    return [
        Choice(*row) for row in session.execute(query.order_by(Team.team_alias).limit(MOST_OTHERS))
    ]


def name_teams(session: Session, principal: Principal, ids: Collection[str]) -> dict[str, Choice]:
    """Return the teams with these ids: any with admin view, else only the caller's."""
    known = set(ids) if authz.may(principal, Action.TEAM_READ) else set(ids) & principal.team_ids
    query = select(Team.team_id, Team.team_alias)
    return {
        row[0]: Choice(*row)
        for part in _chunks(known)
        for row in session.execute(query.where(Team.team_id.in_(part)))
    }


def find_keys(session: Session, principal: Principal, text: str) -> list[Choice]:
    """Return up to 20 API keys by part of their name, prefix or owner; a blank text matches all."""
    authz.require(principal, Action.KEY_READ)
    query = _keys()
    if text.strip():
        query = query.where(
            _holds(text, ApiKey.key_alias, ApiKey.key_prefix, User.email, User.display_name)
        )
    rows = session.execute(
        query.order_by(ApiKey.key_alias, ApiKey.key_prefix, ApiKey.key_id).limit(MOST_OTHERS)
    )
    return [_key(*row) for row in rows]


def name_keys(session: Session, principal: Principal, ids: Collection[str]) -> dict[str, Choice]:
    """Return the API keys with these ids."""
    authz.require(principal, Action.KEY_READ)
    return {
        row[0]: _key(*row)
        for part in _chunks(ids)
        for row in session.execute(_keys().where(ApiKey.key_id.in_(part)))
    }


def list_toolset_choices(session: Session, principal: Principal) -> list[Choice]:
    """Return all toolsets by name; there are at most a few hundred."""
    authz.require(principal, Action.TOOLSET_READ)
    query = select(Toolset.toolset_id, Toolset.toolset_name)
    rows = session.execute(query.order_by(func.lower(Toolset.toolset_name), Toolset.toolset_id))
    return [Choice(*row) for row in rows]


def name_groups(session: Session, principal: Principal, ids: Collection[str]) -> list[str]:
    """Return the sorted names of the access groups with these ids."""
    authz.require(principal, Action.ACCESS_GROUP_READ)
    query = (
        select(AccessGroup.name)
        .where(AccessGroup.access_group_id.in_(ids))
        .order_by(AccessGroup.name)
    )
    return list(session.scalars(query))


def list_memberships(session: Session, principal: Principal, user_id: str) -> list[Membership]:
    """Return a user's teams, by name."""
    authz.require(principal, Action.TEAM_READ)
    rows = session.execute(
        select(Team.team_id, Team.team_alias, TeamMember.role)
        .join(TeamMember, TeamMember.team_id == Team.team_id)
        .where(TeamMember.user_id == user_id)
        .order_by(Team.team_alias)
    )
    return [Membership(*row) for row in rows]


def _server(server_id: str, name: str | None, alias: str | None) -> Choice:
    return Choice(
        server_id, name or alias or server_id, alias if name and alias and alias != name else ""
    )


def _keys() -> Select[str, str | None, str, str | None, str | None]:
    columns = (ApiKey.key_id, ApiKey.key_alias, ApiKey.key_prefix, User.display_name, User.email)
    return select(*columns).outerjoin(User, User.user_id == ApiKey.user_id)


def _key(
    key_id: str, alias: str | None, prefix: str, name: str | None, email: str | None
) -> Choice:
    note = ", ".join(filter(None, (f"{prefix}…" if alias else "", name or email)))
    return Choice(key_id, alias or f"{prefix}…", note)


def _person(user_id: str, name: str | None, email: str | None) -> Choice:
    return Choice(user_id, name or email or user_id, email if name and email else "")


def _holds(text: str, *columns: Any) -> ColumnElement[bool]:
    """Match columns that contain `text`, ignoring case; `%` and `_` match literally."""
    return or_(
        *(func.lower(column).contains(text.strip().lower(), autoescape=True) for column in columns)
    )


def _chunks(ids: Iterable[str]) -> Iterable[list[str]]:
    """Split `ids` into parts that fit the parameter limit of every database."""
    every = list(dict.fromkeys(ids))
    return (every[start : start + _CHUNK] for start in range(0, len(every), _CHUNK))
