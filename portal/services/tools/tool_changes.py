"""Tool definitions that differ from the accepted ones: shown side by side, accepted one by one.

A changed tool can still be called: the portal only shows and records the change. To block it, an
Admin disables the tool for the server. `servers/tool_snapshots.py` defines what is compared, and
when.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.definition_diff import FieldDiff, Warning, diff_definitions, warnings_of
from portal.domain.errors import (
    Conflict,
    CredentialNeeded,
    InvalidRequest,
    NotFound,
    UpstreamFailure,
)
from portal.domain.principals import OPERATOR, Principal
from portal.domain.servers import ApprovalStatus
from portal.domain.upstream import HealthReason, HealthStatus, Target, ToolDefinition
from portal.services import audit
from portal.services.runtime import runtime_of
from portal.services.servers import crud, queries, tool_snapshots
from portal.services.servers.tool_snapshots import WAITING
from portal.services.submissions.history import names_by_id
from portal.services.upstreams.resolve import ask_upstream, authorize_to_list, target_to_probe
from portal.store.database import release
from portal.store.models import AcceptedTool, Server, ToolSight, now

PAGE_SIZE = 20
_COMPARE_AGAIN_AFTER = timedelta(minutes=30)
_BATCH = 8
_DEADLINE = 15.0


@dataclass(frozen=True)
class ToolChange:
    """A tool that differs.

    `sha256` is the hash last seen, None for a removed tool; accept it with that.

    `accepted` and `seen` are the stored parts of the definitions; `warnings` are about `seen`.
    """

    tool_name: str
    change: str
    sha256: str | None
    accepted_sha256: str | None
    seen_at: datetime | None
    accepted_at: datetime | None
    accepted_by: str | None
    accepted: Mapping[str, Any] | None
    seen: Mapping[str, Any] | None
    warnings: tuple[Warning, ...]

    @property
    def fields(self) -> tuple[FieldDiff, ...]:
        """The differences, part by part."""
        return diff_definitions(self.accepted, self.seen)


@dataclass(frozen=True)
class ToolChanges:
    """A server's waiting changes by name; `items` are the first 20 of `total`. Times are UTC.

    `first_by` is None if the portal's worker listed the tools first.
    """

    server_id: str
    first_at: datetime | None
    first_by: str | None
    compared_at: datetime | None
    accepted: int
    total: int
    items: tuple[ToolChange, ...]


def list_changes(session: Session, principal: Principal, server_id: str) -> ToolChanges:
    """Return the tool changes of a server that wait to be accepted; contacts no upstream."""
    row = queries.find_server(session, principal, server_id, Action.SERVER_INSPECT).row
    mine = AcceptedTool.server_id == row.server_id
    waiting = (
        select(AcceptedTool)
        .where(mine, AcceptedTool.state.in_(WAITING))
        .order_by(AcceptedTool.tool_name)
    )
    rows = session.scalars(waiting.limit(PAGE_SIZE)).all()
    counts = select(func.count(AcceptedTool.accepted_hash)).where(mine)
    total = (
        select(func.count()).select_from(AcceptedTool).where(mine, AcceptedTool.state.in_(WAITING))
    )
    sight = session.get(ToolSight, row.server_id)
    people = names_by_id(
        session, {*(r.accepted_by for r in rows), sight.first_by if sight else None}
    )
    first_by = sight.first_by if sight else None
    if first_by == OPERATOR.signature:
        first_by = None
    return ToolChanges(
        row.server_id,
        sight.first_at if sight else None,
        people.get(first_by, first_by) if first_by is not None else None,
        sight.compared_at if sight else None,
        session.scalar(counts) or 0,
        session.scalar(total) or 0,
        tuple(_change(r, people) for r in rows),
    )


def check_may_accept(session: Session, principal: Principal, server_id: str) -> None:
    """Raise what `accept` raises for callers without permission, and for an unknown server."""
    queries.find_server(session, principal, server_id, Action.SERVER_ACCEPT)


def accept(
    session: Session, principal: Principal, server_id: str, tool_name: str, sha256: str | None
) -> None:
    """Accept a changed tool as shown, by its hash; None accepts its removal.

    Raises `Conflict` (`stale_definition`) if the definition has changed again, and `NotFound` for
    an unknown tool.
    """
    row = queries.find_server(session, principal, server_id, Action.SERVER_ACCEPT, lock=True).row
    _accept(session, principal, row, tool_name, sha256)
    session.flush()


def accept_harmless(
    session: Session, principal: Principal, server_id: str, chosen: Sequence[tuple[str, str | None]]
) -> int:
    """Accept those of the chosen tools without warnings, and return their number.

    Raises what `accept` raises.
    """
    row = queries.find_server(session, principal, server_id, Action.SERVER_ACCEPT, lock=True).row
    done = 0
    for tool_name, sha256 in chosen:
        tool = _find(session, row, tool_name)
        if not warnings_of(tool.seen):
            _accept(session, principal, row, tool_name, sha256)
            done += 1
    session.flush()
    return done


def disable(session: Session, principal: Principal, server_id: str, tool_name: str) -> None:
    """Disable a tool for the server; its change needs no review until it is enabled again."""
    row = queries.find_server(session, principal, server_id, Action.SERVER_UPDATE, lock=True).row
    tool = _find(session, row, tool_name)
    known = select(AcceptedTool.tool_name).where(AcceptedTool.server_id == row.server_id)
    allowed = row.allowed_tools or session.scalars(known.order_by(AcceptedTool.tool_name)).all()
    left = [name for name in allowed if name != tool_name]
    if not left:
        raise InvalidRequest(
            "This is the server’s only tool. Delete the server, or remove access to it."
        )
    crud.update_server(session, principal, row.server_id, {"allowed_tools": left})
    tool.state = "aside"
    session.flush()


def look(session: Session, principal: Principal, server_id: str) -> None:
    """List a server's tools as the caller, and compare them. Raises `UpstreamFailure`."""
    row = queries.find_server(session, principal, server_id, Action.SERVER_ACCEPT).row
    subject = tool_snapshots.subject_of(row)
    authorized = authorize_to_list(session, principal, row)
    release(session)
    try:
        entries = tool_snapshots.entries_of(
            ask_upstream(session, principal, authorized, runtime_of(session).mcp.list_tools)
        )
    except CredentialNeeded as error:
        raise UpstreamFailure(error.message, reason=HealthReason.SIGN_IN_NEEDED) from None
    tool_snapshots.compare_tools(session, principal, subject, entries, by_admin=True)
    session.commit()


def has_unknown_tools(
    session: Session, principal: Principal, server_id: str, wires: Sequence[Mapping[str, Any]]
) -> bool:
    """Return whether a list shown to an Admin contains unknown definitions. Only reads."""
    row = queries.find_server(session, principal, server_id, Action.SERVER_INSPECT).row
    if not authz.may(principal, Action.SERVER_ACCEPT, queries.facts(session, row)):
        return False
    return tool_snapshots.is_news(
        session, tool_snapshots.subject_of(row), _entries(wires), by_admin=True
    )


def note_tools(
    session: Session,
    principal: Principal,
    server_id: str,
    version: int,
    wires: Sequence[Mapping[str, Any]],
) -> None:
    """Compare a list shown to an Admin, of the server as it was at `version`."""
    row = queries.find_server(session, principal, server_id, Action.SERVER_ACCEPT).row
    if row.version == version:
        tool_snapshots.compare_tools(
            session, principal, tool_snapshots.subject_of(row), _entries(wires), by_admin=True
        )


def compare_due(session: Session, principal: Principal) -> int:
    """Compare tools of healthy servers not compared for 30 minutes, and return how many."""
    authz.require(principal, Action.PREFERENCE_MANAGE)
    not_since = now() - _COMPARE_AGAIN_AFTER
    long_ago = or_(ToolSight.compared_at.is_(None), ToolSight.compared_at < not_since)
    rows = session.scalars(
        select(Server)
        .outerjoin(ToolSight, ToolSight.server_id == Server.server_id)
        .where(
            Server.approval_status == ApprovalStatus.ACTIVE.value,
            Server.health_status == HealthStatus.HEALTHY.value,
            ~Server.has_spec,
            long_ago,
        )
        .order_by(ToolSight.compared_at)
        .limit(_BATCH)
        .options(*queries.PARTS)
    ).all()
    seen = [(tool_snapshots.subject_of(row), target_to_probe(session, row)) for row in rows]
    seen.sort(key=lambda found: found[0].server_id)  # the same order in all workers: no deadlocks
    plan = [
        (subject, target)
        for subject, target in seen
        if tool_snapshots.claim_look(session, subject, not_since)
    ]
    session.commit()
    asked = [(subject, target) for subject, target in plan if isinstance(target, Target)]
    answers = runtime_of(session).mcp.list_tools_many(
        [target for _, target in asked], deadline=_DEADLINE
    )
    for (subject, _), answer in zip(asked, answers, strict=True):
        if not isinstance(answer, UpstreamFailure):
            tool_snapshots.compare_tools(
                session, principal, subject, tool_snapshots.entries_of(answer), by_admin=False
            )
            session.commit()
    return len(plan)


def _entries(wires: Sequence[Mapping[str, Any]]) -> dict[str, tool_snapshots.SeenTool]:
    return tool_snapshots.entries_of([ToolDefinition(wire) for wire in wires])


def _find(session: Session, row: Server, tool_name: str) -> AcceptedTool:
    found = session.get(
        AcceptedTool, (row.server_id, tool_name), with_for_update=True, populate_existing=True
    )
    if found is None:
        raise NotFound(f"This server has no known tool called {tool_name[:64]}.", field="tool_name")
    return found


def _accept(
    session: Session, principal: Principal, row: Server, tool_name: str, sha256: str | None
) -> None:
    tool = _find(session, row, tool_name)
    if tool.state == "same" or tool.seen_hash != sha256:
        raise Conflict(
            f"{tool_name[:64]} has changed since it was shown to you. Review it again before you"
            " accept it.",
            code="stale_definition",
            field="sha256",
            current_sha256=tool.seen_hash,
        )
    audit.record(
        session,
        principal,
        "tool definition accepted",
        "server",
        row.server_id,
        name=row.server_name,
        tool=tool_name,
        changes=audit.changed({"sha256": tool.accepted_hash}, {"sha256": tool.seen_hash}),
    )
    if tool.seen_hash is None:
        session.delete(tool)
        return
    tool.accepted_hash, tool.accepted = tool.seen_hash, tool.seen
    tool.accepted_by, tool.accepted_at = principal.signature, now()
    tool.state, tool.seen_hash, tool.seen = "same", None, None


def _change(row: AcceptedTool, people: Mapping[str, str]) -> ToolChange:
    by = row.accepted_by or ""
    return ToolChange(
        row.tool_name,
        row.state,
        row.seen_hash,
        row.accepted_hash,
        row.seen_at,
        row.accepted_at,
        "the portal (first seen)" if by == OPERATOR.signature else people.get(by, by) or None,
        row.accepted,
        row.seen,
        warnings_of(row.seen),
    )
