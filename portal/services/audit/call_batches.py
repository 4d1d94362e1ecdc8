"""Batches of logged calls: each has a digest in the audit chain, which shows later changes.

A batch contains the calls that one process of the gateway logged within a minute. Calls are stored
within a second, and the event with the digest follows at the end of the minute. If the process is
killed before, the worker adds that event from the stored calls. Old batches are deleted as a whole,
and an event records up to when.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from portal.domain.principals import Principal
from portal.services.audit import events
from portal.services.runtime import runtime_of
from portal.store.call_tables import McpCall, McpCallBatch
from portal.store.models import AuditEvent, new_id, now

if TYPE_CHECKING:
    from hashlib import _Hash

LOGGED = "calls logged"
EXPIRED = "calls expired"
KIND = "calls"
LASTS = timedelta(seconds=60)
_ABANDONED_AFTER = timedelta(minutes=5)
_PIECE = 1_000
_COLUMNS = tuple(column for column in McpCall.__table__.columns if column.name != "batch_id")


@dataclass(frozen=True)
class CallBatch:
    """A batch that is being written: its first calls, and the digest of them."""

    batch_id: str
    began_at: datetime
    calls: int
    hashed: "_Hash" = field(repr=False)

    @property
    def is_over(self) -> bool:
        """Return whether the batch has lasted as long as it may."""
        return not timedelta(0) <= now() - self.began_at < LASTS


def add(session: Session, batch: CallBatch | None, rows: Sequence[dict[str, Any]]) -> CallBatch:
    """Store calls in a batch, or in a new one; return the batch with these calls.

    Commit before using the result.
    """
    if batch is None:
        batch = CallBatch(new_id(), now(), 0, hashlib.sha256())
        session.add(McpCallBatch(batch_id=batch.batch_id, began_at=batch.began_at))
        session.flush()
    numbered = [
        {**row, "batch_id": batch.batch_id, "number": number}
        for number, row in enumerate(rows, batch.calls)
    ]
    session.execute(insert(McpCall), numbered)
    hashed = batch.hashed.copy()
    _feed(hashed, numbered)
    return CallBatch(batch.batch_id, batch.began_at, batch.calls + len(rows), hashed)


def record_digest(
    session: Session, principal: Principal, batch: CallBatch, *, unlogged: int = 0
) -> None:
    """Add the digest of a batch to the audit chain. `unlogged` counts calls that are not stored."""
    _record(session, principal, batch, {"unlogged": unlogged} if unlogged else {})


def record_abandoned(session: Session, principal: Principal) -> None:
    """Seal the batches of processes that ended before they could do so."""
    query = select(McpCallBatch).where(
        McpCallBatch.chained_at.is_(None), McpCallBatch.began_at < now() - _ABANDONED_AFTER
    )
    for row in session.scalars(query.with_for_update(skip_locked=True)).all():
        hashed = hashlib.sha256()
        calls = _feed(hashed, _stored(session, row.batch_id))
        batch = CallBatch(row.batch_id, row.began_at, calls, hashed)
        _record(session, principal, batch, {"late": True})


def forget_old(session: Session, principal: Principal) -> None:
    """Delete the calls that are older than the setting allows, once a day."""
    days = timedelta(days=runtime_of(session).call_log_days)
    until = (now() - days).replace(hour=0, minute=0, second=0, microsecond=0)
    old = select(McpCallBatch.batch_id).where(
        McpCallBatch.began_at < until, McpCallBatch.chained_at.is_not(None)
    )
    if session.scalar(old.limit(1)) is None:
        return
    gone = session.execute(delete(McpCall).where(McpCall.batch_id.in_(old)))
    session.execute(delete(McpCallBatch).where(McpCallBatch.batch_id.in_(old)))
    calls = getattr(gone, "rowcount", 0)
    events.record(session, principal, EXPIRED, KIND, None, until=until.isoformat(), calls=calls)


class BatchCheck:
    """Compares the stored calls with the digests in the chain, during one verification."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._expired = self._expired_until()
        self._late = 0

    def fault(self, row: AuditEvent) -> str | None:
        """Return what is wrong with the calls of an event, or None."""
        if row.action != LOGGED:
            return None
        began = datetime.fromisoformat(row.details["began"])
        if began < self._expired:
            return None
        self._late += bool(row.details.get("late"))
        hashed = hashlib.sha256()
        calls = _feed(hashed, _stored(self._session, str(row.target_id)))
        said = row.details["calls"]
        if calls < said:
            self._expired = self._expired_until()  # they may have been deleted just now
            if began < self._expired:
                return None
            return f"{said - calls} of {said} calls that event {row.sequence} covers are missing."
        if calls > said or hashed.hexdigest() != row.details["digest"]:
            return f"The calls that event {row.sequence} covers were modified."
        return None

    def notes(self) -> list[str]:
        """Return what is no fault but worth knowing: calls that no event covered in time."""
        told = []
        if self._late:
            told.append(
                f"{self._late} batches of calls were added to the chain late, because a process of"
                " the gateway was killed. Changes before that cannot be seen."
            )
        covered = select(AuditEvent.target_id).where(
            AuditEvent.action == LOGGED, AuditEvent.target_id == McpCallBatch.batch_id
        )
        open_calls = (
            select(func.count())
            .select_from(McpCall)
            .join(McpCallBatch, McpCallBatch.batch_id == McpCall.batch_id)
            .where(~covered.exists())
        )
        if count := self._session.scalar(open_calls):
            told.append(f"{count} calls are not covered by an event yet.")
        return told

    def _expired_until(self) -> datetime:
        query = select(AuditEvent.details).where(
            AuditEvent.action == EXPIRED, AuditEvent.target_kind == KIND
        )
        found = self._session.scalars(query)
        ends = (datetime.fromisoformat(details["until"]) for details in found)
        return max(ends, default=datetime.min.replace(tzinfo=UTC))


def _record(session: Session, principal: Principal, batch: CallBatch, more: dict[str, Any]) -> None:
    session.execute(
        update(McpCallBatch).where(McpCallBatch.batch_id == batch.batch_id).values(chained_at=now())
    )
    events.record(
        session,
        principal,
        LOGGED,
        KIND,
        batch.batch_id,
        calls=batch.calls,
        digest=batch.hashed.hexdigest(),
        began=batch.began_at.isoformat(),
        **more,
    )


def _stored(session: Session, batch_id: str) -> Iterable[dict[str, Any]]:
    query = select(*_COLUMNS).where(McpCall.batch_id == batch_id).order_by(McpCall.number)
    for row in session.execute(query.execution_options(yield_per=_PIECE)).mappings():
        yield dict(row)


def _feed(hashed: "_Hash", rows: Iterable[dict[str, Any]]) -> int:
    """Add calls to a digest as lines of JSON; return their number."""
    count = 0
    for row in rows:
        count += 1
        line = [_plain(row[column.name]) for column in _COLUMNS]
        hashed.update(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    return count


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return value
