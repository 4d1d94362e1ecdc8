"""Applying entries of the revocation journal again; each only removes access, and is idempotent."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from portal.authorization import SetBy
from portal.domain.principals import Role
from portal.domain.servers import ApprovalStatus
from portal.services.operations.limit_again import Granted, limit_again
from portal.services.servers.grants import remove_grants, remove_grants_of_keys
from portal.store.models import ApiKey, Base, Grant, Server, TeamMember, User, now
from portal.store.watching import WATCHED

_RANKS = (Role.VIEWER, Role.MEMBER, Role.ADMIN_VIEWER, Role.ADMIN)
_SWITCHES = (
    "is_public",
    "allow_all_keys",
    "available_on_public_internet",
    "delegate_auth_to_upstream",
    "oauth_passthrough",
)
_ENFORCED = "tool_allowlist_enforced"
_ENDED = "ended"
_LIMITED = "limited"
_RETURNED = "returned"


@dataclass(frozen=True)
class Ended:
    """A journal entry: the operation, the row (a JSON list of its ids), and its state after."""

    op: str
    kind: str
    subject: str
    facts: str


@dataclass
class _State:
    """The state of one subject after all its entries; `is_made`: a row was created."""

    is_gone: bool
    facts: dict[str, Any]
    marked: set[str]
    is_made: bool = False


def apply(session: Session, entries: Iterable[Ended]) -> Counter[str]:
    """Apply the entries, and return how much was ended, by kind."""
    told: Counter[str] = Counter()
    states = _states(entries)
    for (kind, subject), state in states.items():
        ids = json.loads(subject)
        name, work = _WORK.get(kind, (kind.replace("_", " "), _gone))
        told[name] += work(session, kind, ids, state)
        session.flush()
    session.expire_all()
    made = {key: state for key, state in states.items() if state.is_made and not state.is_gone}
    told["limits"] += limit_again(
        session,
        [
            replace(Granted(*json.loads(of)), tools=state.facts.get("tools") or ())
            for (kind, of), state in made.items()
            if kind == "grants"
        ],
        [tuple(json.loads(of)) for kind, of in made if kind == "toolset_tools"],
    )
    return +told


def _states(entries: Iterable[Ended]) -> dict[tuple[str, str], _State]:
    watched = {of.table: of for of in WATCHED}
    found: dict[tuple[str, str], _State] = {}
    for entry in entries:
        if entry.kind not in watched:
            continue  # the first entry of a journal, or a kind of a newer version
        state = found.setdefault((entry.kind, entry.subject), _State(False, {}, set()))
        facts = _plain(json.loads(entry.facts))
        state.marked |= {name for name in watched[entry.kind].marks if facts.pop(name, False)}
        if entry.op == _ENDED:
            state.is_gone = True
        elif entry.op == _RETURNED:
            state.is_gone, state.is_made = False, True
        state.facts = facts if entry.op != _ENDED else {}
    return found


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Parse nested JSON, which SQLite stores as text."""
    return {
        k: json.loads(v) if isinstance(v, str) and v[:1] in "[{" else v for k, v in facts.items()
    }


def _gone(session: Session, kind: str, ids: list[Any], state: _State) -> int:
    """Delete the row with these ids."""
    if not state.is_gone:
        return 0
    table = Base.metadata.tables[kind]
    subject = next(of.subject for of in WATCHED if of.table == kind)
    where = (table.columns[name] == value for name, value in zip(subject, ids, strict=True))
    return int(getattr(session.execute(delete(table).where(*where)), "rowcount", 0))


def _key(session: Session, kind: str, ids: list[Any], state: _State) -> int:
    row = session.get(ApiKey, ids[0], populate_existing=True)
    if row is None:
        return 0
    before = (row.revoked_at, row.expires_at, list(row.allowed_routes), row.set_by)
    if (state.is_gone or state.facts.get("revoked_at")) and row.revoked_at is None:
        row.revoked_at = now()
    ends = _time(state.facts.get("expires_at"))
    if ends is not None and (row.expires_at is None or ends < row.expires_at):
        row.expires_at = ends
    routes = state.facts.get("allowed_routes")
    if routes:
        row.allowed_routes = _both(row.allowed_routes, routes)
        if not row.allowed_routes:  # an empty list would allow every route
            row.revoked_at = row.revoked_at or now()
    follows = state.facts.get("set_by") == SetBy.OWNER and row.user_id
    if follows and _is_narrower_with_owner(session, row):
        row.set_by = SetBy.OWNER
    return int(before != (row.revoked_at, row.expires_at, list(row.allowed_routes), row.set_by))


def _is_narrower_with_owner(session: Session, row: ApiKey) -> bool:
    """Return whether a key reaches less when it follows its owner.

    A key without a team or grants has no access of its own, or that of its owner's role, and would
    gain all of its owner's access.
    """
    of_key = select(Grant.grant_id).where(Grant.holder_kind == "key", Grant.holder_id == row.key_id)
    return row.team_id is not None or session.scalar(of_key.limit(1)) is not None


def _person(session: Session, kind: str, ids: list[Any], state: _State) -> int:
    row = session.get(User, ids[0], populate_existing=True)
    if row is None:
        return 0
    if state.is_gone:
        remove_grants(session, ("user", row.user_id))
        remove_grants_of_keys(session, ApiKey.user_id == row.user_id)
        session.delete(row)
        return 1
    before = (row.role, row.is_active, row.password_hash, row.sso_subject)
    role = state.facts.get("role")
    if role is not None and _rank(role) < _rank(row.role):
        row.role = role
    if not state.facts.get("is_active", True):
        row.is_active = False
    if "password_hash" in state.marked:
        row.password_hash, row.must_change_password = None, True
    if "sso_subject" in state.marked:
        row.sso_issuer = row.sso_subject = None
    return int(before != (row.role, row.is_active, row.password_hash, row.sso_subject))


def _team(session: Session, kind: str, ids: list[Any], state: _State) -> int:
    if not state.is_gone:
        return 0
    remove_grants(session, ("team", ids[0]))
    remove_grants_of_keys(session, ApiKey.team_id == ids[0])
    return _gone(session, kind, ids, state)


def _member(session: Session, kind: str, ids: list[Any], state: _State) -> int:
    if state.is_gone or state.facts.get("role", "admin") == "admin":
        return _gone(session, kind, ids, state)
    which = (TeamMember.team_id == ids[0], TeamMember.user_id == ids[1], TeamMember.role == "admin")
    changed = session.execute(update(TeamMember).where(*which).values(role=state.facts["role"]))
    return int(getattr(changed, "rowcount", 0))


def _grant(session: Session, kind: str, ids: list[Any], state: _State) -> int:
    """Turn an ended grant into one that grants nothing, so that the key stays limited."""
    holder_kind, holder_id, of, server_id, group_id, toolset_id = ids
    query = select(Grant).where(
        Grant.holder_kind == holder_kind,
        Grant.holder_id == holder_id,
        Grant.kind == of,
        *(
            column.is_(None) if value is None else column == value
            for column, value in (
                (Grant.server_id, server_id),
                (Grant.access_group_id, group_id),
                (Grant.toolset_id, toolset_id),
            )
        ),
    )
    if server_id is None and group_id is None and toolset_id is None:
        return 0  # it granted nothing
    done = 0
    for row in session.scalars(query.execution_options(populate_existing=True)):
        if state.is_gone:
            row.server_id = row.access_group_id = row.toolset_id = None
            row.tools = []
            done += 1
        elif of == "tools":
            left = [tool for tool in row.tools if tool in state.facts.get("tools", [])]
            if left != row.tools:
                row.tools = left
                done += 1
    return done


def _server(session: Session, kind: str, ids: list[Any], state: _State) -> int:
    """Return a deleted server to review, so that nobody can use it but its definition is kept."""
    row = session.get(Server, ids[0], populate_existing=True)
    if row is None:
        return 0
    names = ("approval_status", "allowed_tools", "mcp_info", *_SWITCHES)
    before = [getattr(row, name) for name in names]
    if state.is_gone:
        if row.origin == "config":
            return 0  # the config file decides whether it exists
        row.approval_status = ApprovalStatus.PENDING_REVIEW.value
        row.is_public = row.allow_all_keys = False
        row.submitted_at = row.submitted_at or now()
    else:
        status = state.facts.get("approval_status", ApprovalStatus.ACTIVE)
        if row.approval_status == ApprovalStatus.ACTIVE and status != ApprovalStatus.ACTIVE:
            row.approval_status = status
        for name in _SWITCHES:
            setattr(row, name, getattr(row, name) and bool(state.facts.get(name, True)))
        tools = state.facts.get("allowed_tools")
        if tools:
            row.allowed_tools = _both(row.allowed_tools, tools) or tools
        if state.facts.get(f"mcp_info.{_ENFORCED}") in (True, 1, "true"):
            row.mcp_info = {**(row.mcp_info or {}), _ENFORCED: True}
    changed = before != [getattr(row, name) for name in names]
    if changed:
        row.version += 1
    return int(changed)


def _both(one: Iterable[str], other: Iterable[str]) -> list[str]:
    """Return the intersection of two lists, in which an empty list means everything."""
    one = list(one)
    other = list(other)
    if not one or not other:
        return one or other
    return [part for part in one if part in other]


def _rank(role: str) -> int:
    return next((rank for rank, known in enumerate(_RANKS) if known.value == role), 0)


def _time(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


_WORK: Mapping[str, tuple[str, Callable[[Session, str, list[Any], _State], int]]] = {
    "api_keys": ("API keys", _key),
    "users": ("users", _person),
    "teams": ("teams", _team),
    "team_members": ("memberships", _member),
    "grants": ("grants", _grant),
    "access_groups": ("access groups", _gone),
    "access_group_servers": ("servers in access groups", _gone),
    "toolsets": ("toolsets", _gone),
    "toolset_tools": ("tools in toolsets", _gone),
    "servers": ("servers", _server),
    "consents": ("allowed apps", _gone),
    "mcp_clients": ("registered clients", _gone),
    "user_credentials": ("users' own keys and connections", _gone),
    "user_variables": ("users' own values", _gone),
}
