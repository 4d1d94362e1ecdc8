"""The review queue: all submissions, newest first, with what a reviewer needs to know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select, true, union_all
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action, Horizon
from portal.domain.errors import NotFound, PortalError
from portal.domain.principals import Principal
from portal.domain.servers import ApprovalStatus, AuthType
from portal.domain.submissions import label_of
from portal.services.instance_settings import load_preferences
from portal.services.servers import destinations, queries, secret_moves
from portal.services.servers.secret_moves import Address, Going
from portal.services.servers.views import ServerView, view_servers
from portal.services.submissions import change_requests
from portal.services.submissions.facts import (
    Change,
    Check,
    changes_between,
    checks_of,
    review_facts_of,
)
from portal.services.submissions.history import (
    Duplicate,
    HistoryStep,
    duplicates_of,
    history_of,
    last_decided,
    names_by_id,
    why_not_approve,
)
from portal.store.database import read
from portal.store.models import Proposal, Server

PAGE_SIZE = 20
MOST = 200
_SUBMITTED = Server.submitted_at.is_not(None)
_CHANGE_WAITS = Server.server_id.in_(select(Proposal.server_id))
_PENDING = and_(_SUBMITTED, Server.approval_status == ApprovalStatus.PENDING_REVIEW.value)
_IS_LIVE = Server.approval_status == ApprovalStatus.ACTIVE.value
WAITS = or_(_PENDING, and_(_CHANGE_WAITS, _IS_LIVE))


@dataclass(frozen=True)
class Counts:
    """The number of submissions by status; `changes` counts live servers with a waiting change."""

    total: int
    pending_review: int
    active: int
    rejected: int
    changes: int


@dataclass(frozen=True)
class Submission:
    """A submission as the API returns it: the server, and the reviewer's information."""

    view: ServerView
    submitted_team_id: str | None
    wishes: Mapping[str, Any]
    checks: tuple[Check, ...]
    change_waits: bool
    destinations: tuple[Going, ...] = ()
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True)
class SubmissionList:
    """Submissions, newest first; `next_cursor` is None on the last page."""

    counts: Counts
    items: tuple[Submission, ...]
    next_cursor: tuple[str, str] | None


@dataclass(frozen=True)
class ReviewView:
    """A submission as a reviewer sees it: origins instead of addresses, and no values."""

    server_id: str
    version: int
    name: str
    alias: str | None
    description: str | None
    address: str | None
    transport_label: str
    auth_label: str
    headers: tuple[str, ...]
    approval_status: str
    submitter: str
    team: str | None
    submitted_at: datetime
    reviewer: str | None
    reviewed_at: datetime | None
    review_notes: str | None
    wishes: tuple[tuple[str, str], ...]
    checks: tuple[Check, ...]
    duplicates: tuple[Duplicate, ...]
    changes: tuple[Change, ...] | None
    change_waits: datetime | None
    why_not_approve: str = ""
    """Why the reader may not approve it, and who can; blank if they may."""
    destinations: tuple[Going, ...] = ()
    addresses: tuple[Address, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether approving would send a stored secret to another host, which needs a decision."""
        return any(going.before for going in self.destinations)

    @property
    def failed(self) -> int:
        """The number of missing required fields."""
        return sum(not check.passes for check in self.checks)


@dataclass(frozen=True)
class QueuePage:
    """A page of the queue; `next_cursor` is blank on the last page."""

    counts: Counts
    reviews: tuple[ReviewView, ...]
    next_cursor: str


def list_submissions(
    session: Session,
    principal: Principal,
    *,
    limit: int | None = None,
    after: tuple[str, str] | None = None,
) -> SubmissionList:
    """Return all submissions, or a page of `limit` (1 to 200), newest first."""
    authz.require(principal, Action.SUBMISSION_READ)
    most = None if limit is None else min(limit, MOST)
    rows, more = _rows(session, _seen(authz.horizon(principal)), after, most)
    changes = _proposals(session, rows)
    required = load_preferences(session).mcp_required_fields
    items = tuple(
        Submission(
            view,
            row.submitted_team_id,
            row.wishes or {},
            checks_of(required, row),
            row.server_id in changes,
            *_destinations(session, row, changes.get(row.server_id)),
        )
        for view, row in zip(view_servers(session, principal, rows), rows, strict=True)
    )
    return SubmissionList(_counts(session, principal), items, _cursor(rows[-1]) if more else None)


def get_queue(
    session: Session, principal: Principal, *, q: str = "", status: str = "", cursor: str = ""
) -> QueuePage:
    """Return a page of the queue.

    `q` is part of a name or host; `status` is blank, `waiting`, `active` or `rejected`.
    """
    authz.require(principal, Action.SUBMISSION_READ)
    condition = and_(_seen(authz.horizon(principal)), _status_condition(status))
    if q.strip():
        columns = (Server.server_name, Server.alias, Server.address)
        condition &= or_(
            *(func.lower(column).contains(q.strip().lower(), autoescape=True) for column in columns)
        )
    at, _, server_id = cursor.partition("~")
    rows, more = _rows(session, condition, (at, server_id) if server_id else None, PAGE_SIZE)
    next_cursor = "~".join(_cursor(rows[-1])) if more else ""
    return QueuePage(_counts(session, principal), _reviews(session, principal, rows), next_cursor)


def get_review(
    session: Session, principal: Principal, server_id: str
) -> tuple[ReviewView, tuple[HistoryStep, ...]]:
    """Return a submission and its history. Raises `NotFound` if it was never submitted."""
    authz.require(principal, Action.SUBMISSION_READ)
    row = queries.find_server(session, principal, server_id, Action.SUBMISSION_READ).row
    if row.submitted_at is None:
        raise NotFound("This server was not submitted for review.", field="server_id")
    return _reviews(session, principal, [row])[0], history_of(session, row.server_id)


def list_reviews(
    session: Session, principal: Principal, ids: Sequence[str]
) -> tuple[ReviewView, ...]:
    """Return the submissions among `ids`, by name; at most 200."""
    authz.require(principal, Action.SUBMISSION_READ)
    query = (
        select(Server)
        .where(_seen(authz.horizon(principal)), Server.server_id.in_(ids[:MOST]))
        .order_by(Server.sort_key)
    )
    return _reviews(session, principal, session.scalars(query.options(*queries.PARTS)).all())


def waiting_count(session: Session, principal: Principal) -> int:
    """Count the submissions and changes that wait for a review, up to 100."""
    authz.require(principal, Action.SUBMISSION_READ)
    return min(100, read(session, _waiting(authz.horizon(principal))).scalar_one())


@lru_cache(maxsize=64)
def _waiting(horizon: Horizon) -> Select[int]:
    """Return the statement that counts submissions and live servers with a change.

    It counts them separately rather than with an `OR`, so that an index is used for each.
    """
    seen = _seen(horizon)
    pending = select(Server.server_id).where(seen, _PENDING).limit(100).subquery()
    changes = select(Proposal.server_id).where(
        exists().where(Server.server_id == Proposal.server_id, seen, _IS_LIVE)
    )
    some = union_all(select(pending), select(changes.limit(100).subquery()))
    return select(func.count()).select_from(some.subquery())


def _seen(horizon: Horizon) -> ColumnElement[bool]:
    return and_(_SUBMITTED, authz.reviewable_within(horizon))


def _rows(
    session: Session,
    condition: ColumnElement[bool],
    after: tuple[str, str] | None,
    limit: int | None,
) -> tuple[list[Server], bool]:
    query = select(Server).where(condition, _behind(after)).options(*queries.PARTS)
    query = query.order_by(Server.submitted_at.desc(), Server.server_id)
    rows = list(session.scalars(query if limit is None else query.limit(limit + 1)))
    return rows[:limit], limit is not None and len(rows) > limit


def _behind(after: tuple[str, str] | None) -> ColumnElement[bool]:
    try:
        at = datetime.fromisoformat(after[0]) if after else None
    except ValueError:
        at = None
    if at is None or after is None:
        return true()
    return or_(
        Server.submitted_at < at, and_(Server.submitted_at == at, Server.server_id > after[1])
    )


def _cursor(row: Server) -> tuple[str, str]:
    assert row.submitted_at is not None
    return row.submitted_at.isoformat(), row.server_id


def _status_condition(status: str) -> ColumnElement[bool]:
    if status in ("waiting", ApprovalStatus.PENDING_REVIEW):
        return WAITS
    return Server.approval_status == status if status else true()


def _counts(session: Session, principal: Principal) -> Counts:
    by_status = (
        select(Server.approval_status, func.count())
        .where(_seen(authz.horizon(principal)))
        .group_by(Server.approval_status)
    )
    found = dict(session.execute(by_status).all())
    proposed = (
        select(func.count())
        .select_from(Server)
        .where(_seen(authz.horizon(principal)), _CHANGE_WAITS)
    )
    changes = session.scalar(proposed) or 0
    pending, active, rejected = (found.get(status.value, 0) for status in _ORDER)
    return Counts(sum(found.values()), pending, active, rejected, changes)


_ORDER = (ApprovalStatus.PENDING_REVIEW, ApprovalStatus.ACTIVE, ApprovalStatus.REJECTED)


def _proposals(session: Session, rows: Sequence[Server]) -> dict[str, Proposal]:
    ids = [row.server_id for row in rows if row.approval_status == ApprovalStatus.ACTIVE]
    found = session.scalars(select(Proposal).where(Proposal.server_id.in_(ids))) if ids else ()
    return {proposal.server_id: proposal for proposal in found}


def _reviews(
    session: Session, principal: Principal, rows: Sequence[Server]
) -> tuple[ReviewView, ...]:
    ids = [row.server_id for row in rows]
    proposals = _proposals(session, rows)
    before = last_decided(session, ids)
    twins = duplicates_of(session, rows)
    required = load_preferences(session).mcp_required_fields
    people = (row.submitted_by for row in rows), (row.reviewed_by for row in rows)
    names = names_by_id(session, {*people[0], *people[1], *(row.submitted_team_id for row in rows)})
    return tuple(
        _review(
            row,
            names,
            checks_of(required, row),
            twins[row.server_id],
            _changes(session, row, before.get(row.server_id), proposals.get(row.server_id)),
            proposals.get(row.server_id),
            _why_not(session, principal, row, proposals.get(row.server_id)),
            *_destinations(session, row, proposals.get(row.server_id)),
        )
        for row in rows
    )


def _why_not(session: Session, principal: Principal, row: Server, proposal: Proposal | None) -> str:
    return why_not_approve(
        session, principal, proposal.submitted_by if proposal is not None else row.submitted_by
    )


def _destinations(
    session: Session, row: Server, proposal: Proposal | None
) -> tuple[tuple[Going, ...], tuple[Address, ...]]:
    """Return where each secret and each address would lead after approval."""
    if proposal is None:
        return secret_moves.going(session, row), secret_moves.addresses(session, row)
    copy = destinations.copy_of(row)
    try:
        fields = destinations.copied(change_requests.proposed_fields(session, row, proposal))
        settled = destinations.write_definition(session, copy, fields, destinations.Said(keep=True))
    except PortalError:
        return (), ()  # the approval reports the error
    return secret_moves.going(session, copy, settled.moved), secret_moves.addresses(session, copy)


def _changes(
    session: Session, row: Server, before: Mapping[str, Any] | None, proposal: Proposal | None
) -> tuple[Change, ...] | None:
    """Return the differences between the live server and a proposal, or since the last decision.

    Returns None for the first submission.
    """
    now = review_facts_of(session, row)
    if proposal is not None:
        return changes_between(now, proposal.summary.get("facts", {}))
    return changes_between(before, now) if before is not None else None


def _review(
    row: Server,
    names: Mapping[str, str],
    checks: tuple[Check, ...],
    duplicates: tuple[Duplicate, ...],
    changes: tuple[Change, ...] | None,
    proposal: Proposal | None,
    why_not: str,
    goes: tuple[Going, ...],
    addresses: tuple[Address, ...],
) -> ReviewView:
    assert row.submitted_at is not None
    is_openapi = row.has_spec and row.transport != "stdio"
    return ReviewView(
        server_id=row.server_id,
        version=row.version,
        name=row.server_name or row.alias or row.server_id,
        alias=row.alias if row.alias != row.server_name else None,
        description=row.description,
        address=row.address,
        transport_label="OPENAPI" if is_openapi else row.transport.upper(),
        auth_label=(AuthType(row.auth_type) if row.auth_type else AuthType.NONE).label,
        headers=tuple(s.name for s in row.secrets if s.field == "static_headers"),
        approval_status=row.approval_status,
        submitter=names.get(row.submitted_by or "", row.submitted_by or "Unknown"),
        team=names.get(row.submitted_team_id or ""),
        submitted_at=row.submitted_at,
        reviewer=names.get(row.reviewed_by or "", row.reviewed_by),
        reviewed_at=row.reviewed_at,
        review_notes=row.review_notes,
        wishes=tuple((label_of(name), _wish(value)) for name, value in (row.wishes or {}).items()),
        checks=checks,
        duplicates=duplicates,
        changes=changes,
        change_waits=proposal.submitted_at if proposal else None,
        why_not_approve=why_not,
        destinations=goes,
        addresses=addresses,
    )


def _wish(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
