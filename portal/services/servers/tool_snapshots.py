"""Tool definitions of servers, compared with the accepted ones.

The first list of a server's tools is accepted (trust on first use), whether an Admin, a user or the
worker requested it. After that, a tool with another hash is a change that waits for an Admin. Only
lists requested by the portal itself and by Admins are compared; lists of Members' clients are not.

If users reach a server with their own values (variables, a key, a sign-in), lists can differ per
user. For such servers, a missing tool is no change, and a new tool counts only if an Admin saw it;
a changed definition always counts. A tool that the server's allow-list excludes is kept `aside`:
nobody can call it, so it needs no review.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, exists, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.domain import definition_diff
from portal.domain.principals import Principal
from portal.domain.servers import AuthType
from portal.domain.upstream import ToolDefinition
from portal.domain.variables import Scope
from portal.services import audit
from portal.store.database import read
from portal.store.models import AcceptedTool, Server, ToolSight, now

WAITING = ("added", "changed", "removed")
_MOST_BYTES = 2 * 1024 * 1024  # of one server's definitions, stored for display
_LONGEST_NAME = 300
_NAMED = 20
_OAUTH = (AuthType.OAUTH2, AuthType.OAUTH2_TOKEN_EXCHANGE)


@dataclass(frozen=True)
class SeenTool:
    """A tool as it was seen: its name, the hash of its definition, and the stored part of it."""

    name: str
    sha256: str
    kept: dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """The state of a server when its tools are requested.

    An answer that arrives after an edit is discarded.
    """

    server_id: str
    incarnation: str
    version: int
    is_personal: bool
    allowed: frozenset[str]

    def is_unchanged(self) -> Any:
        """Return the condition that the server is unchanged."""
        return exists().where(
            Server.server_id == self.server_id,
            Server.incarnation == self.incarnation,
            Server.version == self.version,
        )


def subject_of(row: Server) -> Subject:
    """Return what a comparison needs to know of a server. Call it before asking the upstream."""
    personal = (
        row.is_byok or row.auth_type in _OAUTH or any(v.scope == Scope.USER for v in row.variables)
    )
    return Subject(
        row.server_id, row.incarnation, row.version, personal, frozenset(row.allowed_tools)
    )


def known_names(session: Session, server_id: str) -> frozenset[str]:
    """Return the names of a server's tools, as they were last seen; none if they never were."""
    query = select(AcceptedTool.tool_name).where(
        AcceptedTool.server_id == server_id, AcceptedTool.state != "removed"
    )
    return frozenset(session.scalars(query))


def entries_of(tools: Sequence[ToolDefinition]) -> dict[str, SeenTool]:
    """Return the tools of a list by their stored names; repeated names get a number."""
    found: dict[str, SeenTool] = {}
    left = _MOST_BYTES
    for tool in tools:
        definition = definition_diff.definition_of(tool.wire)
        kept = definition_diff.kept_of(definition, left)
        left -= len(definition_diff.canonical_json(kept))
        key = _key_of(tool.name)
        number = 1
        while key in found:
            number += 1
            key = f"{_key_of(tool.name)} ({number})"
        found[key] = SeenTool(tool.name, definition_diff.definition_hash(definition), kept)
    return found


def is_news(
    session: Session, subject: Subject, entries: Mapping[str, SeenTool], *, by_admin: bool
) -> bool:
    """Return whether `compare_tools` would write anything. Only reads."""
    first_at = session.scalar(
        select(ToolSight.first_at).where(ToolSight.server_id == subject.server_id)
    )
    return (
        first_at is None
        or next(_news(_rows(session, subject), entries, subject, by_admin), None) is not None
    )


def compare_tools(
    session: Session,
    principal: Principal,
    subject: Subject,
    entries: Mapping[str, SeenTool],
    *,
    by_admin: bool,
) -> None:
    """Record the differences from the accepted tools; the first time, accept all of them.

    First updates a row that all callers share, so that two comparisons run one after the other.
    """
    sight = _claim(session, subject)
    if sight is None:
        return
    if sight.first_at is None:
        sight.first_at, sight.first_by = now(), principal.signature
        _take_over(session, principal, subject.server_id, entries)
        audit.record(
            session,
            principal,
            "tool definitions first seen",
            "server",
            subject.server_id,
            tools=len(entries),
        )
    else:
        _note(session, principal, subject, entries, by_admin)
    session.flush()


def count_changes(session: Session, ids: Collection[str]) -> dict[str, int]:
    """Count the waiting changes of each server; servers without any are left out."""
    return dict(read(session, _COUNTS, ids=list(ids)).all())


_COUNTS = (
    select(AcceptedTool.server_id, func.count())
    .where(
        AcceptedTool.state.in_(WAITING),
        AcceptedTool.server_id.in_(bindparam("ids", expanding=True)),
    )
    .group_by(AcceptedTool.server_id)
)


def claim_look(session: Session, subject: Subject, not_since: datetime) -> bool:
    """Record that the server is being asked for its tools now, whatever the result.

    Returns False if it was asked after `not_since`, or was edited or deleted in the meantime.
    """
    return (
        _claim(
            session,
            subject,
            or_(ToolSight.compared_at.is_(None), ToolSight.compared_at < not_since),
        )
        is not None
    )


def remember_probe(
    session: Session, principal: Principal, subject: Subject, entries: Mapping[str, SeenTool]
) -> None:
    """Store what a reviewer saw of a submission, until it is approved."""
    sight = _claim(session, subject)
    if sight is not None:
        tools = {
            key: {"name": e.name, "sha256": e.sha256, "kept": e.kept} for key, e in entries.items()
        }
        sight.probed = {"version": subject.version, "by": principal.signature, "tools": tools}
        session.flush()


def accept_probed(session: Session, principal: Principal, row: Server) -> dict[str, str]:
    """Accept the tools probed for this version of a submission; return their hashes, if any."""
    sight = session.get(ToolSight, row.server_id)
    if sight is None or sight.probed is None:
        return {}
    probed, sight.probed = sight.probed, None
    if probed["version"] != row.version:
        return {}
    entries = {
        key: SeenTool(e["name"], e["sha256"], e["kept"]) for key, e in probed["tools"].items()
    }
    if sight.first_at is None:
        sight.first_at, sight.first_by = now(), principal.signature
    session.execute(delete(AcceptedTool).where(AcceptedTool.server_id == row.server_id))
    _take_over(session, principal, row.server_id, entries)
    return {key: entry.sha256 for key, entry in entries.items()}


def _claim(
    session: Session, subject: Subject, *conditions: ColumnElement[bool]
) -> ToolSight | None:
    """Lock and return the row of the server's tool lists.

    Returns None if the server was edited or deleted, or if the row does not meet the conditions.
    """
    mine = ToolSight.server_id == subject.server_id
    touch = (
        update(ToolSight).where(mine, subject.is_unchanged(), *conditions).values(compared_at=now())
    )
    for _ in range(2):
        if session.scalar(touch.returning(ToolSight.server_id)) is not None:
            return session.get(ToolSight, subject.server_id, populate_existing=True)
        if not session.scalar(select(subject.is_unchanged())):
            return None
        try:
            with session.begin_nested():
                session.add(ToolSight(server_id=subject.server_id, compared_at=now()))
                session.flush()
        except IntegrityError:
            continue  # another process inserted the row first
        return session.get(ToolSight, subject.server_id)
    return None


def _rows(session: Session, subject: Subject, *, lock: bool = False) -> dict[str, AcceptedTool]:
    query = select(AcceptedTool).where(AcceptedTool.server_id == subject.server_id)
    if lock:  # in a fixed order, to prevent deadlocks
        query = (
            query.order_by(AcceptedTool.tool_name)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
    return {row.tool_name: row for row in session.scalars(query)}


def _take_over(
    session: Session, principal: Principal, server_id: str, entries: Mapping[str, SeenTool]
) -> None:
    at = now()
    session.add_all(
        AcceptedTool(
            server_id=server_id,
            tool_name=key,
            state="same",
            accepted_hash=entry.sha256,
            accepted=entry.kept,
            accepted_by=principal.signature,
            accepted_at=at,
        )
        for key, entry in entries.items()
    )


def _news(
    rows: Mapping[str, AcceptedTool],
    entries: Mapping[str, SeenTool],
    subject: Subject,
    by_admin: bool,
) -> Iterator[tuple[str, str]]:
    """Yield the tools to update, each with its new state; `gone` means added and removed again."""
    for key, entry in entries.items():
        row = rows.get(key)
        if row is None:
            if by_admin or not subject.is_personal:
                yield key, "added"
        elif row.accepted_hash == entry.sha256:
            if row.state != "same":
                yield key, "same"
        else:
            what = "added" if row.accepted_hash is None else "changed"
            if row.seen_hash != entry.sha256 or row.state != _state(subject, entry.name, what):
                yield key, what
    if subject.is_personal:
        return
    for key, row in rows.items():
        if key in entries:
            continue
        if row.accepted_hash is None:
            yield key, "gone"
        elif row.seen_hash is not None or row.state != _state(subject, key, "removed"):
            yield key, "removed"


def _state(subject: Subject, name: str, what: str) -> str:
    return what if not subject.allowed or name in subject.allowed else "aside"


def _note(
    session: Session,
    principal: Principal,
    subject: Subject,
    entries: Mapping[str, SeenTool],
    by_admin: bool,
) -> None:
    rows = _rows(session, subject, lock=True)
    told = dict[str, list[str]]()
    for key, what in list(_news(rows, entries, subject, by_admin)):
        entry = entries.get(key)
        row = rows.get(key)
        told.setdefault(what, []).append(key)
        if row is None:
            row = AcceptedTool(server_id=subject.server_id, tool_name=key)
            session.add(row)
        if what == "gone":
            session.delete(row)
            continue
        differs = entry is not None and what != "same"
        name = entry.name if entry else key
        row.state = what if what == "same" else _state(subject, name, what)
        row.seen_hash, row.seen = (entry.sha256, entry.kept) if entry and differs else (None, None)
        row.seen_at = now()
    if told:
        named = {
            what: [
                *keys[:_NAMED],
                *([f"and {len(keys) - _NAMED} more"] if len(keys) > _NAMED else []),
            ]
            for what, keys in told.items()
        }
        audit.record(
            session, principal, "tool definitions differ", "server", subject.server_id, tools=named
        )


def _key_of(name: str) -> str:
    """Return the name as it can be stored: valid characters, within the length of the column."""
    whole = name.encode("utf-8", "replace").decode()
    if len(whole) <= _LONGEST_NAME - 10:
        return whole
    return f"{whole[:200]}…{sha256(whole.encode()).hexdigest()[:32]}"
