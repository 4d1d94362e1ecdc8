"""Reapplying limits of grants that are newer than a restored database.

A grant gives access and also limits it: the first grant of a key narrows what its team and owner
reach, the first grant of a team narrows what its keys reach, and a grant of tools excludes the
server's other tools. Only the limits are reapplied: if the grant itself would give access, a row
that grants nothing takes its place.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.authorization import SetBy
from portal.domain.principals import Role
from portal.services.servers.grants import Holder, holdings, servers_in
from portal.store.models import AccessGroup, ApiKey, Grant, Server, Team, Toolset, ToolsetTool, User

_Tools = dict[str, dict[str, set[str]]]


@dataclass(frozen=True)
class Granted:
    """A grant made since the backup that still existed when the journal ended."""

    holder_kind: str
    holder_id: str
    kind: str
    server_id: str | None
    access_group_id: str | None
    toolset_id: str | None
    tools: Collection[str] = ()

    @property
    def holder(self) -> Holder:
        """Its holder."""
        return self.holder_kind, self.holder_id


def limit_again(
    session: Session, grants: Collection[Granted], in_toolsets: Iterable[tuple[str, str, str]]
) -> int:
    """Limit the holders of newer grants and of toolsets with newer tools; count the rows.

    `in_toolsets` are tuples of toolset, server and tool.
    """
    toolsets: _Tools = defaultdict(lambda: defaultdict(set))
    changed: set[str] = set()
    for toolset_id, server_id, tool in in_toolsets:
        toolsets[toolset_id][server_id].add(tool)
        changed.add(toolset_id)
    asked = changed | {grant.toolset_id for grant in grants if grant.toolset_id}
    for row in session.scalars(select(ToolsetTool).where(ToolsetTool.toolset_id.in_(asked))):
        toolsets[row.toolset_id][row.server_id].add(row.tool_name)
    of_holders: dict[Holder, list[Granted]] = defaultdict(list)
    for grant in grants:
        of_holders[grant.holder].append(grant)
    done = 0
    for holder, made in of_holders.items():
        if _is_there(session, holder):
            done += _limited(session, holder, made, toolsets)
    held = select(Grant).where(Grant.kind == "toolset", Grant.toolset_id.in_(changed))
    for grant_row in session.scalars(held).all():
        holder = (grant_row.holder_kind, grant_row.holder_id)
        for server_id, tools in toolsets[str(grant_row.toolset_id)].items():
            done += _limit_tools(session, holder, server_id, tools)
    return done


def _is_there(session: Session, holder: Holder) -> bool:
    table = {"user": User, "team": Team, "key": ApiKey}[holder[0]]
    return session.get(table, holder[1]) is not None


def _limited(session: Session, holder: Holder, made: Collection[Granted], toolsets: _Tools) -> int:
    held = holdings(session, [holder])[holder]
    named = held.reach.names_anything or (held.has_own_groups and holder[0] == "team")
    if holder[0] == "key" and not named and not held.has_own_groups:
        row = session.get_one(ApiKey, holder[1])
        return sum(
            _put(session, grant, gives=not _is_wide(session, row))
            for grant in made
            if _narrows(row, grant)
        )
    done = 0
    if holder[0] != "user" and not named:
        done += sum(_put(session, grant, gives=True) for grant in made if _counts(holder, grant))
    elif holder[0] != "user" and held.reach.explicit_toolsets is None:
        done += sum(_put(session, grant, gives=True) for grant in made if grant.kind == "toolset")
    for grant in made:
        if grant.kind == "tools" and grant.server_id:
            done += _limit_tools(session, holder, grant.server_id, grant.tools)
        if grant.kind == "toolset" and grant.toolset_id:
            of_toolset = toolsets[grant.toolset_id]
            done += sum(
                _limit_tools(session, holder, server, tools) for server, tools in of_toolset.items()
            )
    return done


def _counts(holder: Holder, grant: Granted) -> bool:
    """Return whether the grant limits its holder; groups added to a key do not."""
    return holder[0] == "team" or grant.kind != "own_group"


def _is_wide(session: Session, row: ApiKey) -> bool:
    """Return whether a key without grants depends on others' access.

    Its own grants then only narrow that access.
    """
    owner = session.get(User, row.user_id) if row.user_id else None
    has_admin_view = owner is not None and Role(owner.role).has_admin_view
    return row.team_id is not None or row.set_by == SetBy.OWNER or has_admin_view


def _narrows(row: ApiKey, grant: Granted) -> bool:
    """Return whether the grant narrows a key; added access groups do so only for personal keys."""
    return grant.kind != "own_group" or (row.team_id is None and row.set_by == SetBy.OWNER)


def _put(session: Session, grant: Granted, *, gives: bool) -> int:
    """Recreate the grant, without content if it would give access or its object is missing."""
    names: dict[str, str] = {}
    if not gives:
        tables = {"server_id": Server, "access_group_id": AccessGroup, "toolset_id": Toolset}
        found = {name: getattr(grant, name) for name in tables}
        names = {
            name: value
            for name, value in found.items()
            if value and session.get(tables[name], value)
        }
    tools = list(grant.tools) if names and grant.kind == "tools" else []
    row = Grant(
        holder_kind=grant.holder_kind,
        holder_id=grant.holder_id,
        kind=grant.kind,
        tools=tools,
        **names,
    )
    session.add(row)
    session.flush()
    return 1


def _limit_tools(session: Session, holder: Holder, server_id: str, tools: Iterable[str]) -> int:
    """Limit the holder to these tools of a server, if its tools are not limited yet."""
    reach = holdings(session, [holder])[holder].with_own_groups()
    is_covered = server_id in reach.server_ids or server_id in servers_in(
        session, reach.access_group_ids
    )
    if not is_covered or server_id in reach.tools:
        return 0
    session.add(
        Grant(
            holder_kind=holder[0],
            holder_id=holder[1],
            kind="tools",
            server_id=server_id,
            tools=sorted(tools),
        )
    )
    session.flush()
    return 1
