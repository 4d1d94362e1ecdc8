"""Reading the audit log: lists, single events and export."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, or_, select, tuple_
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import InvalidInput, NotFound
from portal.domain.principals import Principal
from portal.services.audit import Outcome, call_batches
from portal.services.paging import MOST, Page
from portal.store.models import AuditEvent, User

_BATCH = 500
_DELETED = "Deleted user"


@dataclass(frozen=True)
class EventView:
    """An event as Admins read it. Times are UTC; `sequence` is None before the chain began."""

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
    """Which events to list.

    `actor` matches part of a name or id, `action` part of an action, `target` a kind or id.
    """

    actor: str = ""
    action: str = ""
    target: str = ""
    outcome: str = ""
    since: datetime | None = None
    until: datetime | None = None
    kind: str = ""


FILTER_NAMES = ("actor", "action", "target", "outcome", "since", "until")


def filter_of(given: Mapping[str, str]) -> EventFilter:
    """Parse a filter. Raises `InvalidInput`.

    Days and times are ISO 8601; a day as `until` includes the whole day.
    """
    outcome = given.get("outcome", "")
    if outcome and outcome not in tuple(Outcome):
        raise InvalidInput(f"Choose one of: {', '.join(Outcome)}.", field="outcome")
    texts = {name: given.get(name, "").strip()[:320] for name in ("actor", "action", "target")}
    return EventFilter(
        **texts,
        outcome=outcome,
        since=_time(given.get("since", ""), "since"),
        until=_time(given.get("until", ""), "until", ends_day=True),
    )


def list_events(
    session: Session,
    principal: Principal,
    wanted: EventFilter,
    *,
    cursor: str = "",
    limit: int = 50,
) -> Page[EventView]:
    """Return a page of events, newest first.

    The digests of logged calls, up to one a minute of each gateway process, are only listed if the
    filter asks for an action or a target.
    """
    authz.require(principal, Action.AUDIT_READ)
    limit = max(1, min(limit, MOST))
    query = _query(session, wanted)
    if not (wanted.action or wanted.target):
        query = query.where(AuditEvent.action != call_batches.LOGGED)
    rows = session.scalars(_after(query, cursor).limit(limit + 1)).all()
    shown = _views(session, rows[:limit])
    return Page(tuple(shown), _place(shown[-1]) if len(rows) > limit else None)


def server_events(
    session: Session, principal: Principal, server_id: str, *, cursor: str = ""
) -> Page[EventView]:
    """Return a page of events about one server, newest first."""
    return list_events(
        session, principal, EventFilter(kind="server", target=server_id), cursor=cursor
    )


def get_event(session: Session, principal: Principal, event_id: str) -> EventView:
    """Return one event. Raises `NotFound`."""
    authz.require(principal, Action.AUDIT_READ)
    row = session.get(AuditEvent, event_id)
    if row is None:
        raise NotFound(f"Event not found: {event_id[:64]}")
    return _views(session, [row])[0]


def export_events(
    session: Session, principal: Principal, wanted: EventFilter
) -> Iterator[EventView]:
    """Yield all events that match a filter, newest first, read in batches."""
    authz.require(principal, Action.AUDIT_READ)
    return _batches(session, wanted)


def _query(session: Session, wanted: EventFilter) -> Select[AuditEvent]:
    query = select(AuditEvent)
    if wanted.actor:
        query = query.where(_by(session, wanted.actor))
    if wanted.action:
        query = query.where(AuditEvent.action.icontains(wanted.action, autoescape=True))
    if wanted.kind:
        query = query.where(
            AuditEvent.target_kind == wanted.kind, AuditEvent.target_id == wanted.target
        )
    elif wanted.target:
        query = query.where(
            or_(AuditEvent.target_id == wanted.target, AuditEvent.target_kind == wanted.target)
        )
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
        raise InvalidInput("This cursor is not valid.", field="cursor")
    return query.where(tuple_(AuditEvent.at, AuditEvent.event_id) < (place, event_id))


def _place(view: EventView) -> str:
    return f"{view.at.isoformat()}~{view.event_id}"


def _batches(session: Session, wanted: EventFilter) -> Iterator[EventView]:
    cursor = ""
    while True:
        rows = session.scalars(_after(_query(session, wanted), cursor).limit(_BATCH)).all()
        views = _views(session, rows)
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
        raise InvalidInput(
            "Enter a day as 2026-12-31 or a time as 2026-12-31T23:59:59Z.", field=field
        ) from None


def _by(session: Session, actor: str) -> ColumnElement[bool]:
    """Match events by the actor's name, email, id or key; a pseudonym matches its deleted user."""
    named = or_(
        User.email.icontains(actor, autoescape=True),
        User.display_name.icontains(actor, autoescape=True),
    )
    by_person = AuditEvent.actor_id.in_(select(User.user_id).where(named))
    exact = or_(AuditEvent.actor_id == actor, AuditEvent.key_id == actor)
    found = or_(AuditEvent.actor.icontains(actor, autoescape=True), exact, by_person)
    if actor.lower().startswith(_DELETED.lower()):
        gone = (
            select(AuditEvent.actor_id)
            .where(AuditEvent.actor_id.not_in(select(User.user_id)))
            .distinct()
        )
        meant = [
            user_id
            for user_id in session.scalars(gone)
            if user_id and _pseudonym(user_id).lower() == actor.lower()
        ]
        found = or_(found, AuditEvent.actor_id.in_(meant))
    return found


def _pseudonym(user_id: str) -> str:
    """Return the stable pseudonym of a deleted user."""
    return f"{_DELETED} {hashlib.sha256(user_id.encode()).hexdigest()[:4]}"


def _views(session: Session, rows: Sequence[AuditEvent]) -> list[EventView]:
    """Return events with users' current names; older events without a key keep the stored names."""
    targets = {row.target_id for row in rows if row.target_kind == "user" and row.target_id}
    ids = {row.actor_id for row in rows if row.actor_id} | targets
    found = session.execute(
        select(User.user_id, User.email, User.display_name).where(User.user_id.in_(ids))
    )
    names = (
        {row.user_id: row.email or row.display_name or row.user_id for row in found} if ids else {}
    )
    return [_view(row, names) for row in rows]


def _view(row: AuditEvent, names: Mapping[str, str]) -> EventView:
    actor = row.actor
    details = row.details
    if row.actor_id and row.hash_key is not None:
        actor = names.get(row.actor_id) or _pseudonym(row.actor_id)
    if row.target_kind == "user" and row.target_id and "name" not in details:
        details = {"name": names.get(row.target_id) or _pseudonym(row.target_id), **details}
    return EventView(
        row.event_id,
        row.sequence,
        row.at,
        actor,
        row.actor_id,
        row.key_id,
        row.address,
        row.action,
        row.target_kind,
        row.target_id,
        row.outcome,
        details,
        row.event_hash,
    )
