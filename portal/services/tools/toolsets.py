"""Toolsets: named selections of tools across servers."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Forbidden, InvalidRequest, NotFound
from portal.domain.principals import Principal
from portal.services import audit
from portal.services.servers.grants import resolve_servers
from portal.services.unique import flush_unique
from portal.store.models import Grant, Server, Toolset, ToolsetTool, now

MOST_TOOLSETS = 200
MOST_TOOLS = 500


@dataclass(frozen=True)
class ToolRef:
    """A tool, by its server's id and its own name there."""

    server_id: str
    tool_name: str


@dataclass(frozen=True)
class ToolsetView:
    """A toolset, with the tools of servers that the viewer may see. Times are UTC."""

    toolset_id: str
    toolset_name: str
    description: str | None
    tools: tuple[ToolRef, ...]
    created_at: datetime
    created_by: str | None
    updated_at: datetime
    updated_by: str | None

    @property
    def server_ids(self) -> tuple[str, ...]:
        """The servers of its tools, in the order of the tools."""
        return tuple(dict.fromkeys(ref.server_id for ref in self.tools))


def list_toolsets(session: Session, principal: Principal, *, q: str = "") -> list[ToolsetView]:
    """Return the toolsets granted to the caller, or all with admin view, by name; at most 200."""
    query = select(Toolset)
    granted = authz.granted_toolsets(principal)
    if granted is not None:
        query = query.where(Toolset.toolset_id.in_(granted))
    if q:
        query = query.where(func.lower(Toolset.toolset_name).contains(q.lower(), autoescape=True))
    rows = session.scalars(
        query.order_by(func.lower(Toolset.toolset_name), Toolset.toolset_id)
    ).all()
    return _views(session, principal, rows)


def get_toolset(session: Session, principal: Principal, toolset_id: str) -> ToolsetView:
    """Return one toolset.

    Raises `Forbidden` for one that is not granted, existing or not; with admin view `NotFound`.
    """
    granted = authz.granted_toolsets(principal)
    row = session.get(Toolset, toolset_id) if granted is None or toolset_id in granted else None
    if row is None:
        if authz.may(principal, Action.TOOLSET_READ):
            raise NotFound(f"Toolset not found: {toolset_id[:64]}")
        raise Forbidden("Toolset not found, or you do not have access to it.")
    return _views(session, principal, [row])[0]


def create_toolset(
    session: Session,
    principal: Principal,
    name: str,
    description: str | None,
    tools: Sequence[ToolRef],
) -> ToolsetView:
    """Add a toolset of tools, with servers by id, name or alias.

    Raises `Conflict` for a taken name.
    """
    authz.require(principal, Action.TOOLSET_MANAGE)
    if (session.scalar(select(func.count()).select_from(Toolset)) or 0) >= MOST_TOOLSETS:
        raise InvalidRequest(
            f"The limit of {MOST_TOOLSETS} toolsets is reached. Delete one that is not used."
        )
    row = Toolset(
        toolset_name=_checked(name), description=description or None, created_by=principal.signature
    )
    row.updated_by = principal.signature
    session.add(row)
    flush_unique(
        session, f"A toolset called {row.toolset_name[:64]} already exists.", "toolset_name"
    )
    added, _ = _set_tools(session, row.toolset_id, tools)
    audit.record(
        session,
        principal,
        "toolset created",
        "toolset",
        row.toolset_id,
        name=row.toolset_name,
        added=_words(added),
    )
    session.flush()
    return _views(session, principal, [row])[0]


def change_toolset(
    session: Session,
    principal: Principal,
    toolset_id: str,
    *,
    name: str | None = None,
    description: str | None = None,
    tools: Sequence[ToolRef] | None = None,
) -> ToolsetView:
    """Change the given fields; a blank description removes it.

    Raises `Conflict` for a taken name.
    """
    authz.require(principal, Action.TOOLSET_MANAGE)
    row = _find(session, toolset_id, lock=True)
    before = {"toolset_name": row.toolset_name, "description": row.description}
    if name is not None:
        row.toolset_name = _checked(name)
    if description is not None:
        row.description = description or None
    flush_unique(
        session, f"A toolset called {row.toolset_name[:64]} already exists.", "toolset_name"
    )
    added, removed = _set_tools(session, toolset_id, tools) if tools is not None else ((), ())
    row.updated_at, row.updated_by = now(), principal.signature
    audit.record(
        session,
        principal,
        "toolset changed",
        "toolset",
        toolset_id,
        name=row.toolset_name,
        added=_words(added),
        removed=_words(removed),
        changes=audit.changed(
            before, {"toolset_name": row.toolset_name, "description": row.description}
        ),
    )
    session.flush()
    return _views(session, principal, [row])[0]


def delete_toolset(session: Session, principal: Principal, toolset_id: str) -> None:
    """Delete a toolset, and with it the access granted through it."""
    authz.require(principal, Action.TOOLSET_MANAGE)
    row = _find(session, toolset_id, lock=True)
    # Grants stay as rows without a toolset: they grant nothing, but still limit their holders.
    session.execute(update(Grant).where(Grant.toolset_id == toolset_id).values(toolset_id=None))
    session.execute(delete(ToolsetTool).where(ToolsetTool.toolset_id == toolset_id))
    session.delete(row)
    audit.record(
        session, principal, "toolset deleted", "toolset", toolset_id, name=row.toolset_name
    )
    session.flush()


def _set_tools(
    session: Session, toolset_id: str, tools: Sequence[ToolRef]
) -> tuple[list[ToolRef], list[ToolRef]]:
    """Write the tools in order; return the added and the removed ones."""
    if len(tools) > MOST_TOOLS:
        raise InvalidRequest(f"A toolset can have at most {MOST_TOOLS} tools.", field="tools")
    ids = resolve_servers(session, {ref.server_id for ref in tools}, "tools")
    wanted = list(dict.fromkeys(ToolRef(ids[ref.server_id], ref.tool_name) for ref in tools))
    stored = select(ToolsetTool.server_id, ToolsetTool.tool_name).where(
        ToolsetTool.toolset_id == toolset_id
    )
    before = [ToolRef(*row) for row in session.execute(stored.order_by(ToolsetTool.position))]
    if wanted != before:
        session.execute(delete(ToolsetTool).where(ToolsetTool.toolset_id == toolset_id))
        session.add_all(
            ToolsetTool(
                toolset_id=toolset_id,
                server_id=ref.server_id,
                tool_name=ref.tool_name,
                position=position,
            )
            for position, ref in enumerate(wanted)
        )
        session.flush()
    return [ref for ref in wanted if ref not in before], [
        ref for ref in before if ref not in wanted
    ]


def _words(refs: Iterable[ToolRef]) -> list[str]:
    return [f"{ref.server_id}/{ref.tool_name}" for ref in refs]


def _checked(name: str) -> str:
    if not name.strip():
        raise InvalidRequest("Enter a name for the toolset.", field="toolset_name")
    return name.strip()


def _find(session: Session, toolset_id: str, *, lock: bool = False) -> Toolset:
    query = select(Toolset).where(Toolset.toolset_id == toolset_id)
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(f"Toolset not found: {toolset_id[:64]}", field="toolset_id")
    return row


def _views(session: Session, principal: Principal, rows: Collection[Toolset]) -> list[ToolsetView]:
    """Return the views of `rows`, in one query."""
    query = select(ToolsetTool).where(ToolsetTool.toolset_id.in_([row.toolset_id for row in rows]))
    if not authz.may(principal, Action.TOOLSET_READ):
        # Servers that the viewer may not see are hidden here as well (rules 1, 7 and 9).
        seen = select(Server.server_id).where(authz.visible_servers(principal))
        query = query.where(ToolsetTool.server_id.in_(seen))
    tools: dict[str, list[ToolRef]] = defaultdict(list)
    for entry in session.scalars(query.order_by(ToolsetTool.position)):
        tools[entry.toolset_id].append(ToolRef(entry.server_id, entry.tool_name))
    return [
        ToolsetView(
            row.toolset_id,
            row.toolset_name,
            row.description,
            tuple(tools[row.toolset_id]),
            row.created_at,
            row.created_by,
            row.updated_at,
            row.updated_by,
        )
        for row in rows
    ]
