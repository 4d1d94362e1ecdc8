"""The grants of users, teams and keys: the wire format's object permissions, stored as rows."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, delete, or_, select, union_all
from sqlalchemy.orm import Session

from portal.domain.errors import InvalidRequest
from portal.domain.principals import Reach
from portal.store.database import read
from portal.store.models import (
    AccessGroup,
    AccessGroupServer,
    ApiKey,
    Grant,
    Server,
    Toolset,
    ToolsetTool,
)

Holder = tuple[str, str]
"""A holder of grants: its kind (`user`, `team`, `key`) and its id."""


@dataclass(frozen=True)
class ObjectPermission:
    """Grants as sent and returned: servers by id, name or alias; the others by name or id."""

    mcp_servers: tuple[str, ...] = ()
    mcp_access_groups: tuple[str, ...] = ()
    mcp_tool_permissions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mcp_toolsets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Holdings:
    """One holder's object permission, its `access_group_ids`, and the resulting reach."""

    permission: ObjectPermission = field(default_factory=ObjectPermission)
    access_group_ids: tuple[str, ...] = ()
    reach: Reach = field(default_factory=Reach)
    has_own_groups: bool = False
    """True even after the groups were deleted: every limit outlives what it names."""

    def with_own_groups(self) -> Reach:
        """Return the reach including the `access_group_ids`, as for a team."""
        return replace(
            self.reach,
            access_group_ids=self.reach.access_group_ids | frozenset(self.access_group_ids),
            names_anything=self.reach.names_anything or self.has_own_groups,
        )


def holdings(session: Session, holders: Iterable[Holder]) -> dict[Holder, Holdings]:
    """Return the holdings of every given holder, in at most two queries."""
    asked = list(holders)
    rows: dict[Holder, list[Any]] = {holder: [] for holder in asked}
    if not rows:
        return {}
    ids = {kind: [holder_id for of, holder_id in asked if of == kind] for kind in _KINDS}
    for row in read(session, _GRANTS, **ids):
        rows[(row.holder_kind, row.holder_id)].append(row)
    toolset_ids = {
        row.toolset_id
        for found in rows.values()
        for row in found
        if row.kind == "toolset" and row.toolset_id
    }
    toolsets = _tools_of(session, toolset_ids)
    return {holder: _holdings(holder, found, toolsets) for holder, found in rows.items()}


def few_servers(session: Session, levels: Iterable[Reach]) -> frozenset[str] | None:
    """Return the servers that the levels name or that are open to all; None for more than 200."""
    levels = list(levels)
    named = frozenset[str]().union(*(level.server_ids for level in levels))
    groups = frozenset[str]().union(*(level.access_group_ids for level in levels))
    found = read(session, _WITHIN_REACH, groups=sorted(groups)).scalars().all()
    return None if len(found) + len(named) > _FEW else named.union(found)


def servers_in(session: Session, groups: Collection[str]) -> frozenset[str]:
    """Return the servers of these access groups."""
    query = select(AccessGroupServer.server_id).where(
        AccessGroupServer.access_group_id.in_(sorted(groups))
    )
    return frozenset(session.scalars(query)) if groups else frozenset()


_FEW = 200
_WITHIN_REACH = union_all(
    select(AccessGroupServer.server_id).where(
        AccessGroupServer.access_group_id.in_(bindparam("groups", expanding=True))
    ),
    select(Server.server_id).where(Server.allow_all_keys),
).limit(_FEW + 1)
_KINDS = ("user", "team", "key")
_GRANTS = (
    select(
        Grant.holder_kind,
        Grant.holder_id,
        Grant.kind,
        Grant.server_id,
        Grant.access_group_id,
        Grant.toolset_id,
        Grant.tools,
        AccessGroup.name.label("group_name"),
    )
    .outerjoin(AccessGroup, AccessGroup.access_group_id == Grant.access_group_id)
    .where(
        or_(
            *(
                and_(
                    Grant.holder_kind == kind, Grant.holder_id.in_(bindparam(kind, expanding=True))
                )
                for kind in _KINDS
            )
        )
    )
)


def replace_grants(
    session: Session,
    holder: Holder,
    permission: ObjectPermission | None,
    access_group_ids: Collection[str] | None,
) -> None:
    """Replace the stored grants with the given ones; None leaves that part unchanged.

    Raises `InvalidRequest` naming the field if a server or group does not exist.
    """
    wanted: list[_Entry] = []
    kinds = []
    if permission is not None:
        kinds.append(Grant.kind != "own_group")
        wanted += _entries_of(session, permission)
    if access_group_ids is not None:
        kinds.append(Grant.kind == "own_group")
        known = resolve_groups(session, access_group_ids, "access_group_ids")
        wanted += [
            _Entry("own_group", access_group_id=group_id)
            for group_id in dict.fromkeys(known.values())
        ]
    if kinds:
        _write_difference(session, holder, or_(*kinds), wanted)


def remove_grants(session: Session, holder: Holder) -> None:
    """Delete all grants of a holder that is being deleted."""
    session.execute(
        delete(Grant).where(Grant.holder_kind == holder[0], Grant.holder_id == holder[1])
    )


def remove_grants_of_keys(session: Session, owned: ColumnElement[bool]) -> None:
    """Delete the grants of keys that meet a condition on `ApiKey`, when their owner is deleted."""
    keys = select(ApiKey.key_id).where(owned)
    session.execute(delete(Grant).where(Grant.holder_kind == "key", Grant.holder_id.in_(keys)))


def resolve_servers(
    session: Session, references: Collection[str], field_name: str
) -> dict[str, str]:
    """Return the ids for ids, names or aliases; ids take precedence.

    Raises `InvalidRequest` for an unknown one.
    """
    if not references:
        return {}
    found: dict[str, str] = {}
    rows = session.execute(
        select(Server.server_id, Server.server_name, Server.alias).where(
            or_(
                Server.server_id.in_(references),
                Server.server_name.in_(references),
                Server.alias.in_(references),
            )
        )
    ).all()
    for server_id, name, alias in rows:
        for reference in (alias, name):
            if reference is not None:
                found.setdefault(reference, server_id)
    found.update({server_id: server_id for server_id, _, _ in rows})
    return _known(references, found, "MCP server", field_name)


def resolve_groups(
    session: Session, references: Collection[str], field_name: str
) -> dict[str, str]:
    """Return the ids for ids or names of access groups.

    Raises `InvalidRequest` for an unknown one.
    """
    if not references:
        return {}
    rows = session.execute(
        select(AccessGroup.access_group_id, AccessGroup.name).where(
            or_(AccessGroup.access_group_id.in_(references), AccessGroup.name.in_(references))
        )
    ).all()
    found = {name: group_id for group_id, name in rows} | {
        group_id: group_id for group_id, _ in rows
    }
    return _known(references, found, "access group", field_name)


def resolve_toolsets(
    session: Session, references: Collection[str], field_name: str
) -> dict[str, str]:
    """Return the ids for ids or names of toolsets; ids take precedence.

    Raises `InvalidRequest` for an unknown one.
    """
    if not references:
        return {}
    rows = session.execute(
        select(Toolset.toolset_id, Toolset.toolset_name).where(
            or_(Toolset.toolset_id.in_(references), Toolset.toolset_name.in_(references))
        )
    ).all()
    found = {name: toolset_id for toolset_id, name in rows} | {
        toolset_id: toolset_id for toolset_id, _ in rows
    }
    return _known(references, found, "toolset", field_name)


def _known(
    references: Collection[str], found: Mapping[str, str], what: str, field_name: str
) -> dict[str, str]:
    for reference in references:
        if reference not in found:
            raise InvalidRequest(f"There is no {what} called {reference[:64]}.", field=field_name)
    return {reference: found[reference] for reference in references}


@dataclass(frozen=True)
class _Entry:
    """What one row of `grants` grants, without its holder."""

    kind: str
    server_id: str | None = None
    access_group_id: str | None = None
    toolset_id: str | None = None
    tools: tuple[str, ...] = ()


def _write_difference(
    session: Session, holder: Holder, part: ColumnElement[bool], wanted: Sequence[_Entry]
) -> None:
    """Delete grants that are no longer wanted, and add new ones.

    Unchanged rows are not touched, because each deleted row is logged as the end of access.
    """
    missing = Counter(wanted)
    mine = select(Grant).where(Grant.holder_kind == holder[0], Grant.holder_id == holder[1], part)
    for row in session.scalars(mine):
        entry = _Entry(
            row.kind, row.server_id, row.access_group_id, row.toolset_id, tuple(row.tools)
        )
        if missing[entry] > 0:
            missing[entry] -= 1
        else:
            session.delete(row)
    session.flush()
    for entry in missing.elements():
        session.add(
            Grant(
                holder_kind=holder[0],
                holder_id=holder[1],
                kind=entry.kind,
                server_id=entry.server_id,
                access_group_id=entry.access_group_id,
                toolset_id=entry.toolset_id,
                tools=list(entry.tools),
            )
        )
    session.flush()


def _entries_of(session: Session, permission: ObjectPermission) -> list[_Entry]:
    servers = resolve_servers(session, permission.mcp_servers, "object_permission.mcp_servers")
    tools = resolve_servers(
        session, tuple(permission.mcp_tool_permissions), "object_permission.mcp_tool_permissions"
    )
    groups = resolve_groups(
        session, permission.mcp_access_groups, "object_permission.mcp_access_groups"
    )
    toolsets = resolve_toolsets(session, permission.mcp_toolsets, "object_permission.mcp_toolsets")
    return [
        *(_Entry("server", server_id=server_id) for server_id in dict.fromkeys(servers.values())),
        *(
            _Entry("access_group", access_group_id=group_id)
            for group_id in dict.fromkeys(groups.values())
        ),
        *(
            _Entry("tools", server_id=tools[reference], tools=tuple(dict.fromkeys(names)))
            for reference, names in permission.mcp_tool_permissions.items()
        ),
        *(
            _Entry("toolset", toolset_id=toolset_id)
            for toolset_id in dict.fromkeys(toolsets.values())
        ),
    ]


_Tools = dict[str, set[str]]


def _tools_of(session: Session, toolset_ids: Collection[str]) -> dict[str, _Tools]:
    """Return the tools of each toolset by server, with their stored names."""
    found: dict[str, _Tools] = {toolset_id: {} for toolset_id in toolset_ids}
    if toolset_ids:
        for toolset_id, server_id, tool_name in read(session, _TOOLS, ids=sorted(toolset_ids)):
            found[toolset_id].setdefault(server_id, set()).add(tool_name)
    return found


_TOOLS = select(ToolsetTool.toolset_id, ToolsetTool.server_id, ToolsetTool.tool_name).where(
    ToolsetTool.toolset_id.in_(bindparam("ids", expanding=True))
)


def _holdings(holder: Holder, grants: Sequence[Any], toolsets: Mapping[str, _Tools]) -> Holdings:
    servers = [g.server_id for g in grants if g.kind == "server" and g.server_id]
    tools = {g.server_id: frozenset(g.tools) for g in grants if g.kind == "tools" and g.server_id}
    groups = {
        g.access_group_id: g.group_name or ""
        for g in grants
        if g.kind == "access_group" and g.access_group_id
    }
    toolset_ids = frozenset(g.toolset_id for g in grants if g.kind == "toolset" and g.toolset_id)
    kinds = {g.kind for g in grants}
    # The tools a level names and those of its toolsets are combined.
    callable_tools = _Tools({server_id: set(names) for server_id, names in tools.items()})
    for server_id, names in (part for i in toolset_ids for part in toolsets[i].items()):
        callable_tools.setdefault(server_id, set()).update(names)
    return Holdings(
        permission=ObjectPermission(
            mcp_servers=tuple(sorted(servers)),
            mcp_access_groups=tuple(sorted(groups.values())),
            mcp_tool_permissions={
                server_id: tuple(sorted(names)) for server_id, names in sorted(tools.items())
            },
            mcp_toolsets=tuple(sorted(toolset_ids)),
        ),
        access_group_ids=tuple(
            sorted(g.access_group_id for g in grants if g.kind == "own_group" and g.access_group_id)
        ),
        reach=Reach(
            server_ids=frozenset(servers) | frozenset(callable_tools),
            access_group_ids=frozenset(groups),
            tools={server_id: frozenset(names) for server_id, names in callable_tools.items()},
            names_anything=bool(kinds & {"server", "access_group", "tools", "toolset"}),
            explicit_servers=frozenset(servers) if "server" in kinds else None,
            toolset_ids=toolset_ids,
            explicit_toolsets=toolset_ids if "toolset" in kinds else None,
            holder=holder,
        ),
        has_own_groups="own_group" in kinds,
    )
