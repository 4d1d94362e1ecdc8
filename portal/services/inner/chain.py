"""The chain of the audit: each event carries the hash of the one before it, so that none can be changed unseen.

The chain's head (the last sequence number and its hash) is also kept beside the events, so that cutting off the tail
shows. Whoever can write the whole database can forge both; compare a head that was noted elsewhere against that.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.store.database import take_turn
from portal.store.models import AuditEvent, Preference

HEAD = "audit_head"
_LOCK = 7_241_883_001  # any number, the same in every process


@dataclass(frozen=True)
class Hidden:
    """Stands for a secret in a comparison of two states: equal where the stored bytes are; never shown or written."""

    mark: object = field(repr=False)


@dataclass(frozen=True)
class Head:
    """The end of the chain."""

    sequence: int
    event_hash: str | None


def append(session: Session, rows: Sequence[AuditEvent]) -> None:
    """Give `rows`, which are flushed, the next places. One transaction at a time does this, until it ends."""
    take_turn(session, _LOCK)
    noted = session.get(Preference, HEAD, populate_existing=True)
    head = _head_in(noted) or _last(session)
    for row in rows:
        row.sequence, row.previous_hash = head.sequence + 1, head.event_hash
        row.event_hash = hash_of(row)
        head = Head(row.sequence, row.event_hash)
    noted = noted or Preference(name=HEAD)
    noted.value = {"sequence": head.sequence, "hash": head.event_hash}
    session.add(noted)


def read_head(session: Session) -> Head | None:
    """The head as it was noted; None before the first event, or where somebody removed it."""
    return _head_in(session.get(Preference, HEAD, populate_existing=True))


def hash_of(row: AuditEvent) -> str:
    """The SHA-256, in hex, over all of an event and the hash before it, as JSON with sorted keys."""
    facts = {
        "sequence": row.sequence, "previous_hash": row.previous_hash, "event_id": row.event_id,
        "at": row.at.astimezone(UTC).isoformat(timespec="microseconds"), "actor": row.actor,
        "actor_id": row.actor_id, "key_id": row.key_id, "address": row.address, "action": row.action,
        "target_kind": row.target_kind, "target_id": row.target_id, "outcome": row.outcome, "details": row.details,
    }  # fmt: skip
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _head_in(noted: Preference | None) -> Head | None:
    return Head(int(noted.value["sequence"]), noted.value["hash"]) if noted is not None else None


def _last(session: Session) -> Head:
    query = select(AuditEvent.sequence, AuditEvent.event_hash).where(AuditEvent.sequence.is_not(None))
    found = session.execute(query.order_by(AuditEvent.sequence.desc()).limit(1)).first()
    return Head(found.sequence or 0, found.event_hash) if found else Head(0, None)
