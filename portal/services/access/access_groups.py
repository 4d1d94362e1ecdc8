"""Access groups: named sets of servers."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import InvalidInput, NotFound
from portal.domain.principals import Principal
from portal.services import audit
from portal.services.paging import Page, paged
from portal.services.servers.grants import resolve_servers
from portal.services.unique import flush_unique
from portal.store.models import AccessGroup, AccessGroupServer, Grant, Server

_TAKEN = "An access group with this name already exists."


@dataclass(frozen=True)
class AccessGroupView:
    """A group with the ids of its servers."""

    access_group_id: str
    name: str
    description: str | None
    mcp_server_ids: tuple[str, ...]


def list_names(session: Session, principal: Principal) -> list[str]:
    """Return the sorted names of groups with servers that the caller may see.

    With admin view, returns the names of all groups with servers.
    """
    query = select(AccessGroup.name).distinct().order_by(AccessGroup.name)
    if authz.may(principal, Action.ACCESS_GROUP_READ):
        return list(session.scalars(query))
    members = query.join(AccessGroupServer).join(Server).where(authz.visible_servers(principal))
    return list(session.scalars(members))


def list_groups(
    session: Session, principal: Principal, *, cursor: str = "", limit: int = 50, q: str = ""
) -> Page[AccessGroupView]:
    """Return groups, filtered by part of their name."""
    authz.require(principal, Action.ACCESS_GROUP_READ)
    query = select(AccessGroup)
    if q:
        query = query.where(func.lower(AccessGroup.name).contains(q.lower(), autoescape=True))
    rows, next_cursor = paged(session, query, AccessGroup.name, cursor, limit)
    return Page(tuple(_views(session, rows)), next_cursor)


def get_group(session: Session, principal: Principal, group_id: str) -> AccessGroupView:
    """Return one group. Raises `NotFound`."""
    authz.require(principal, Action.ACCESS_GROUP_READ)
    return _views(session, [_find(session, group_id)])[0]


def create_group(
    session: Session,
    principal: Principal,
    name: str,
    description: str | None,
    servers: Sequence[str],
) -> AccessGroupView:
    """Add a group of servers, given by id, name or alias. Raises `Conflict` for a taken name."""
    authz.require(principal, Action.ACCESS_GROUP_MANAGE)
    group = AccessGroup(name=_checked(name), description=description)
    session.add(group)
    flush_unique(session, _TAKEN, "name")
    _set_servers(session, group, servers)
    view = _views(session, [group])[0]
    _record(session, principal, "access group created", group, audit.changed(None, view))
    return view


def change_group(
    session: Session,
    principal: Principal,
    group_id: str,
    *,
    name: str | None = None,
    description: str | None = None,
    servers: Sequence[str] | None = None,
) -> AccessGroupView:
    """Change the given fields; None leaves a field unchanged."""
    authz.require(principal, Action.ACCESS_GROUP_MANAGE)
    group = _find(session, group_id)
    before = _views(session, [group])[0]
    if name is not None:
        group.name = _checked(name)
    if description is not None:
        group.description = description or None
    flush_unique(session, _TAKEN, "name")
    if servers is not None:
        _set_servers(session, group, servers)
    after = _views(session, [group])[0]
    _record(session, principal, "access group changed", group, audit.changed(before, after))
    return after


def delete_group(session: Session, principal: Principal, group_id: str) -> None:
    """Delete a group, and with it the access granted through it."""
    authz.require(principal, Action.ACCESS_GROUP_MANAGE)
    group = _find(session, group_id)
    changes = audit.changed(_views(session, [group])[0], None)
    # Grants stay as rows without a group: they grant nothing, but still limit their holders.
    session.execute(
        update(Grant).where(Grant.access_group_id == group_id).values(access_group_id=None)
    )
    session.delete(group)
    _record(session, principal, "access group deleted", group, changes)


def _record(
    session: Session,
    principal: Principal,
    action: str,
    group: AccessGroup,
    changes: dict[str, object],
) -> None:
    audit.record(
        session,
        principal,
        action,
        "access_group",
        group.access_group_id,
        name=group.name,
        changes=changes,
    )
    session.flush()


def _set_servers(session: Session, group: AccessGroup, servers: Sequence[str]) -> None:
    ids = dict.fromkeys(resolve_servers(session, servers, "mcp_server_ids").values())
    mine = AccessGroupServer.access_group_id == group.access_group_id
    # Unchanged rows are not touched, because each deleted row is logged as the end of access.
    session.execute(delete(AccessGroupServer).where(mine, AccessGroupServer.server_id.not_in(ids)))
    there = set(session.scalars(select(AccessGroupServer.server_id).where(mine)))
    session.add_all(
        AccessGroupServer(access_group_id=group.access_group_id, server_id=server_id)
        for server_id in ids
        if server_id not in there
    )
    session.flush()


def _checked(name: str) -> str:
    if not name.strip():
        raise InvalidInput("Enter a name for the access group.", field="name")
    return name.strip()


def _find(session: Session, group_id: str) -> AccessGroup:
    group = session.get(AccessGroup, group_id)
    if group is None:
        raise NotFound(f"Access group not found: {group_id[:64]}")
    return group


def _views(session: Session, rows: Sequence[AccessGroup]) -> list[AccessGroupView]:
    ids = [row.access_group_id for row in rows]
    members: dict[str, list[str]] = defaultdict(list)
    query = select(AccessGroupServer).where(AccessGroupServer.access_group_id.in_(ids))
    for entry in session.scalars(query.order_by(AccessGroupServer.server_id)):
        members[entry.access_group_id].append(entry.server_id)
    return [
        AccessGroupView(
            row.access_group_id, row.name, row.description, tuple(members[row.access_group_id])
        )
        for row in rows
    ]
