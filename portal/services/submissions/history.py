"""The history of submissions, similar servers, and who may approve."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.domain.principals import Principal
from portal.domain.submissions import DECISIONS, Step
from portal.services.admins import other_admins
from portal.services.secrets.server_definition import opened
from portal.services.servers import queries
from portal.services.submissions.facts import Facts
from portal.store.models import Review, Server, Team, User, now

_MOST_CANDIDATES = 500
_AUTHORS_KEY = (
    "The author of this submission issued this API key, so it cannot approve the submission."
    " Approve in the browser, or use a key that you created yourself."
)
_MOST_ADMINS = 3


@dataclass(frozen=True)
class Duplicate:
    """Another server that may be the same, and why."""

    server_id: str
    name: str
    why: str
    approval_status: str


@dataclass(frozen=True)
class HistoryStep:
    """A step of a submission's history, for display."""

    at: datetime
    label: str
    actor: str
    notes: str | None


def note_step(
    session: Session, row: Server, actor: str, step: Step, facts: Facts, notes: str | None = None
) -> None:
    """Add a step with the current facts."""
    session.add(
        Review(
            server_id=row.server_id,
            at=now(),
            actor=actor,
            verdict=step.value,
            notes=notes,
            facts=facts,
        )
    )


def last_decided(session: Session, ids: Collection[str]) -> dict[str, Facts]:
    """Return the facts at the last decision about each server, in one query.

    A declined change does not count, because it left the server unchanged.
    """
    verdicts = [step.value for step in DECISIONS if step is not Step.DECLINED]
    latest = (
        select(Review.server_id, func.max(Review.at).label("at"))
        .where(Review.server_id.in_(ids), Review.verdict.in_(verdicts))
        .group_by(Review.server_id)
        .subquery()
    )
    rows = session.execute(
        select(Review.server_id, Review.facts)
        .join(latest, (latest.c.server_id == Review.server_id) & (latest.c.at == Review.at))
        .where(Review.verdict.in_(verdicts))
    )
    return dict(rows.all())


def history_of(session: Session, server_id: str) -> tuple[HistoryStep, ...]:
    """Return all steps, newest first; at most 200."""
    rows = session.scalars(
        select(Review)
        .where(Review.server_id == server_id)
        .order_by(Review.at.desc(), Review.review_id)
        .limit(200)
    ).all()
    names = names_by_id(session, {row.actor for row in rows})
    return tuple(
        HistoryStep(row.at, Step(row.verdict).label, names.get(row.actor, row.actor), row.notes)
        for row in rows
    )


def names_by_id(session: Session, ids: Iterable[str | None]) -> dict[str, str]:
    """Return the names of users and teams by id; unknown ids are left out."""
    known = [found for found in ids if found]
    people = select(User.user_id, func.coalesce(User.display_name, User.email, User.user_id))
    teams = select(Team.team_id, Team.team_alias)
    names = dict(session.execute(teams.where(Team.team_id.in_(known))).all())
    return names | dict(session.execute(people.where(User.user_id.in_(known))).all())


def duplicates_of(session: Session, rows: Sequence[Server]) -> dict[str, tuple[Duplicate, ...]]:
    """Return servers with the same address or a similar name.

    Similar names differ only in case, `_`, `.` and “mcp”. Runs a fixed number of queries, each with
    at most 500 candidates.
    """
    found: dict[str, dict[str, Duplicate]] = defaultdict(dict)
    _add_same_address(session, rows, found)
    keys = {row.server_id: _name_key(row) for row in rows}
    named = (
        select(Server)
        .where(_name_key_column().in_({key for key in keys.values() if key}))
        .limit(_MOST_CANDIDATES)
    )
    for other in session.scalars(named):
        for row in rows:
            if row.server_id != other.server_id and keys[row.server_id] == _name_key(other):
                found[row.server_id].setdefault(
                    other.server_id, _duplicate(other, "a similar name")
                )
    return {row.server_id: tuple(found[row.server_id].values()) for row in rows}


def _add_same_address(
    session: Session, rows: Sequence[Server], found: dict[str, dict[str, Duplicate]]
) -> None:
    hosts = {row.address for row in rows if row.address}
    query = (
        select(Server)
        .where(Server.address.in_(hosts))
        .options(*queries.PARTS)
        .limit(_MOST_CANDIDATES)
    )
    others = session.scalars(query).all()
    urls = {row.server_id: _url(session, row) for row in (*others, *rows)}
    for row in rows:
        for other in others:
            same = urls[row.server_id] and urls[row.server_id] == urls[other.server_id]
            if same and row.server_id != other.server_id:
                found[row.server_id][other.server_id] = _duplicate(other, "the same address")


def _url(session: Session, row: Server) -> str:
    urls = opened(session, row).urls
    return (urls.get("url") or urls.get("spec_path") or "").rstrip("/")


def _duplicate(row: Server, why: str) -> Duplicate:
    return Duplicate(
        row.server_id, row.server_name or row.alias or row.server_id, why, row.approval_status
    )


def _name_key(row: Server) -> str:
    key = (row.server_name or row.alias or "").lower()
    for part in ("_", ".", "mcp"):
        key = key.replace(part, "")
    return key


def _name_key_column() -> ColumnElement[str]:
    column: ColumnElement[str] = func.lower(func.coalesce(Server.server_name, Server.alias, ""))
    for part in ("_", ".", "mcp"):
        column = func.replace(column, part, "")
    return column


def why_not_approve(session: Session, principal: Principal, author: str | None) -> str:
    """Return why the caller may not approve what `author` proposed, and who can; blank if they may.

    Admins may not approve their own submissions, unless there is no other Admin. Keys that the
    author issued for someone else may not approve them either.
    """
    if authz.has_key_issued_by(principal, author):
        return _AUTHORS_KEY
    if principal.user_id is None or principal.user_id != author:
        return ""
    others = other_admins(session, principal.user_id)
    if authz.may_approve_of(principal, author, has_other_admin=bool(others)):
        return ""
    names = ", ".join(others[:_MOST_ADMINS]) + (
        f" or {len(others) - _MOST_ADMINS} more" if others[_MOST_ADMINS:] else ""
    )
    return f"You submitted this yourself, so another Admin has to approve it: {names}."
