"""Reading the record: lists, one event, an export, and whether the chain holds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from sqlalchemy import Select, func, or_, select, tuple_
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import InvalidInput, NotFound
from portal.domain.principals import Principal
from portal.services import audit
from portal.services.audit import Outcome
from portal.services.inner import chain
from portal.services.inner.paging import MOST, Page
from portal.store.models import AuditEvent, Preference, now

_BATCH = 500
_VERIFIED = "audit_verified"


@dataclass(frozen=True)
class EventView:
    """An event as admins read it. Times are UTC; `sequence` is None for one from before the chain."""

    event_id: str
    sequence: int | None
    at: datetime
    actor: str
    actor_id: str | None
    key_id: str | None
    address: str | None
    action: str
    target_kind: str
    target_id: str | None
    outcome: str
    details: Mapping[str, Any]
    event_hash: str | None


@dataclass(frozen=True)
class EventFilter:
    """Which events: parts of the actor's name or id and of the action, a target's kind or id, an outcome, a span."""

    actor: str = ""
    action: str = ""
    target: str = ""
    outcome: str = ""
    since: datetime | None = None
    until: datetime | None = None
    kind: str = ""


FILTER_NAMES = ("actor", "action", "target", "outcome", "since", "until")


@dataclass(frozen=True)
class Verification:
    """What a walk along the chain found: how many events hold, how many are older than it, and the first fault."""

    holds: int
    earlier: int
    fault: str | None
    at: datetime

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return self.fault is None


def filter_of(given: Mapping[str, str]) -> EventFilter:
    """A filter out of texts; days and times as ISO 8601, a day as `until` counts to its end. Raises `InvalidInput`."""
    outcome = given.get("outcome", "")
    if outcome and outcome not in tuple(Outcome):
        raise InvalidInput(f"Choose one of: {', '.join(Outcome)}.", field="outcome")
    texts = {name: given.get(name, "").strip()[:320] for name in ("actor", "action", "target")}
    return EventFilter(
        **texts, outcome=outcome, since=_time(given.get("since", ""), "since"),
        until=_time(given.get("until", ""), "until", ends_day=True),
    )  # fmt: skip


def list_events(
    session: Session, principal: Principal, wanted: EventFilter, *, cursor: str = "", limit: int = 50
) -> Page[EventView]:
    """A page of events, newest first."""
    authz.require(principal, Action.AUDIT_READ)
    limit = max(1, min(limit, MOST))
    rows = session.scalars(_after(_query(wanted), cursor).limit(limit + 1)).all()
    shown = [_view(row) for row in rows[:limit]]
    return Page(tuple(shown), _place(shown[-1]) if len(rows) > limit else None)


def server_events(session: Session, principal: Principal, server_id: str, *, cursor: str = "") -> Page[EventView]:
    """A page of what was done to one server, newest first."""
    return list_events(session, principal, EventFilter(kind="server", target=server_id), cursor=cursor)


def get_event(session: Session, principal: Principal, event_id: str) -> EventView:
    """One event. Raises `NotFound`."""
    authz.require(principal, Action.AUDIT_READ)
    row = session.get(AuditEvent, event_id)
    if row is None:
        raise NotFound(f"There is no event {event_id[:64]}.")
    return _view(row)


def export_events(session: Session, principal: Principal, wanted: EventFilter) -> Iterator[EventView]:
    """All events of a filter, newest first, read in batches while they are taken."""
    authz.require(principal, Action.AUDIT_READ)
    return _batches(session, wanted)


def verify(session: Session, principal: Principal) -> Verification:
    """Walk along the whole chain, and keep what was found for `last_verification`."""
    authz.require(principal, Action.AUDIT_VERIFY)
    found = _walk(session)
    session.merge(
        Preference(
            name=_VERIFIED,
            value={"holds": found.holds, "earlier": found.earlier, "fault": found.fault, "at": found.at.isoformat()},
        )
    )
    audit.record(session, principal, "audit verified", "audit", None, events=found.holds, fault=found.fault)
    session.flush()
    return found


def last_verification(session: Session, principal: Principal) -> Verification | None:
    """What the last walk found; None where there was none."""
    authz.require(principal, Action.AUDIT_READ)
    row = session.get(Preference, _VERIFIED)
    if row is None:
        return None
    kept = row.value
    return Verification(kept["holds"], kept["earlier"], kept["fault"], datetime.fromisoformat(kept["at"]))


def _walk(session: Session) -> Verification:
    noted, last = chain.read_head(session), chain.Head(0, None)
    fault = None
    while fault is None:
        query = select(AuditEvent).where(AuditEvent.sequence > last.sequence).order_by(AuditEvent.sequence)
        rows = session.scalars(query.limit(_BATCH).execution_options(populate_existing=True)).all()
        if not rows:
            break
        for row in rows:
            fault = _fault(row, last) or (_head_fault(row, noted) if noted else None)
            if fault:
                break
            last = chain.Head(row.sequence or 0, row.event_hash)
        session.expunge_all()
    if fault is None and noted is not None and last.sequence < noted.sequence:
        fault = f"The events from {last.sequence + 1} to {noted.sequence} are missing at the end."
    now_noted = chain.read_head(session)
    if fault is None and last.sequence > (now_noted.sequence if now_noted else 0):
        fault = f"The head of the chain does not know event {last.sequence}."
    earlier = session.scalar(select(func.count()).select_from(AuditEvent).where(AuditEvent.sequence.is_(None))) or 0
    return Verification(last.sequence, earlier, fault, now())


def _fault(row: AuditEvent, last: chain.Head) -> str | None:
    if row.sequence != last.sequence + 1:
        return f"Event {last.sequence + 1} is missing."
    if row.previous_hash != last.event_hash:
        return f"Event {row.sequence} does not follow the event before it."
    return None if row.event_hash == chain.hash_of(row) else f"Event {row.sequence} was changed."


def _head_fault(row: AuditEvent, noted: chain.Head) -> str | None:
    if row.sequence != noted.sequence or row.event_hash == noted.event_hash:
        return None
    return f"Event {row.sequence} is not the one that was noted as the last."


def _query(wanted: EventFilter) -> Select[AuditEvent]:
    query = select(AuditEvent)
    if wanted.actor:
        exact = or_(AuditEvent.actor_id == wanted.actor, AuditEvent.key_id == wanted.actor)
        query = query.where(or_(AuditEvent.actor.icontains(wanted.actor, autoescape=True), exact))
    if wanted.action:
        query = query.where(AuditEvent.action.icontains(wanted.action, autoescape=True))
    if wanted.kind:
        query = query.where(AuditEvent.target_kind == wanted.kind, AuditEvent.target_id == wanted.target)
    elif wanted.target:
        query = query.where(or_(AuditEvent.target_id == wanted.target, AuditEvent.target_kind == wanted.target))
    if wanted.outcome:
        query = query.where(AuditEvent.outcome == wanted.outcome)
    if wanted.since:
        query = query.where(AuditEvent.at >= wanted.since)
    if wanted.until:
        query = query.where(AuditEvent.at < wanted.until)
    return query.order_by(AuditEvent.at.desc(), AuditEvent.event_id.desc())


def _after(query: Select[AuditEvent], cursor: str) -> Select[AuditEvent]:
    if not cursor:
        return query
    at, _, event_id = cursor.partition("~")
    place = _time(at, "cursor")
    if place is None:
        raise InvalidInput("This cursor is not one of ours.", field="cursor")
    return query.where(tuple_(AuditEvent.at, AuditEvent.event_id) < (place, event_id))


def _place(view: EventView) -> str:
    return f"{view.at.isoformat()}~{view.event_id}"


def _batches(session: Session, wanted: EventFilter) -> Iterator[EventView]:
    cursor = ""
    while True:
        rows = session.scalars(_after(_query(wanted), cursor).limit(_BATCH)).all()
        views = [_view(row) for row in rows]
        session.expunge_all()
        yield from views
        if len(views) < _BATCH:
            return
        cursor = _place(views[-1])


def _time(text: str, field: str, *, ends_day: bool = False) -> datetime | None:
    text = text.strip()
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
        if len(text) == len("2026-12-31"):
            found = datetime.combine(found.date() + timedelta(days=int(ends_day)), time())
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput("Write a day as 2026-12-31 or a time as 2026-12-31T23:59:59Z.", field=field) from None


def _view(row: AuditEvent) -> EventView:
    return EventView(
        row.event_id, row.sequence, row.at, row.actor, row.actor_id, row.key_id, row.address, row.action,
        row.target_kind, row.target_id, row.outcome, row.details, row.event_hash,
    )  # fmt: skip
