"""The audit hash chain: each event contains a hash of itself and of the previous event.

The hash is an HMAC-SHA-256 under a key derived from the newest key of the key ring. The row stores
that key's id, so write access to the database without the ring is not enough to forge an event.
Each derived key is also stored sealed, so that events of keys removed from the ring still verify.
Events of older versions have a plain SHA-256; one keyed event, the anchor, seals them.

The head of the chain (the last sequence number and its hash) is stored among the settings with its
own HMAC, and also outside the tables: on SQLite in the file beside the revocation journal, on
PostgreSQL in the schema `portal_journal`. The outside head only advances from a state that the
events still contain.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from typing import Any

from sqlalchemy import event, func, select, text
from sqlalchemy.orm import Session

from portal.services.runtime import runtime_of
from portal.store.database import take_turn
from portal.store.journal import FileJournal, OutsideHead
from portal.store.models import AuditEvent, ChainKey, Preference, Revocation, new_id, now
from portal.store.vault import Place
from portal.store.watching import SCHEMA

HEAD = "audit_head"
ANCHOR = "audit chain keyed"
UPGRADE_LASTS = timedelta(days=7)
"""How long after the anchor an older version may still write events without a key."""
_LOCK = 7_241_883_001  # any number, the same in every process
JOURNAL_BEGINS = "start"
"""The `op` of the entry that starts and identifies this database's revocation journal."""
_LEAVE = "leave the head outside"
_OUTSIDE = "head of the audit's chain to note outside"


@dataclass(frozen=True)
class Hidden:
    """A secret in a comparison, equal if the stored bytes are; never shown or written."""

    mark: object = field(repr=False)


@dataclass(frozen=True)
class Head:
    """The end of the chain; `fault` describes what is wrong with the stored head.

    `position` is the position of the revocation journal, if the outside head contains it.
    """

    sequence: int
    event_hash: str | None
    is_keyed: bool = False
    fault: str | None = None
    position: int = 0


def append(session: Session, rows: Sequence[AuditEvent]) -> None:
    """Append flushed `rows` to the chain; holds a lock until the transaction ends."""
    take_turn(session, _LOCK)
    noted = session.get(Preference, HEAD, populate_existing=True)
    head = _head_in(session, noted) or _last(session)
    if head.fault and head.event_hash is None:  # unreadable
        head = _last(session)
    key_id, key = _newest_key(session)
    if not head.is_keyed and (anchor := _anchor(session, head, rows)) is not None:
        session.add(anchor)
        rows = (anchor, *rows)
    before = head
    for row in rows:
        row.sequence, row.previous_hash, row.hash_key = (
            _free_after(session, head.sequence),
            head.event_hash,
            key_id,
        )
        row.event_hash = hash_event(row, key)
        head = Head(row.sequence, row.event_hash)
    noted = noted or Preference(name=HEAD)
    value = {"sequence": head.sequence, "hash": head.event_hash, "key": key_id}
    noted.value = {**value, "mac": _mac(key, value)}
    session.add(noted)
    if not session.info.pop(_LEAVE, False):
        after = OutsideHead(head.sequence, str(head.event_hash))
        session.info[_OUTSIDE] = (before, after)
        _announce(session, before, after)


def _free_after(session: Session, sequence: int) -> int:
    """Return the next free sequence number.

    An event inserted by hand keeps its number, and no event links to it; `portal audit verify`
    reports that.
    """
    query = (
        select(AuditEvent.sequence)
        .where(AuditEvent.sequence > sequence)
        .order_by(AuditEvent.sequence)
    )
    with session.no_autoflush:
        for taken in session.scalars(query.execution_options(yield_per=100)):
            if taken != sequence + 1:
                break
            sequence = taken
    return sequence + 1


def leave_outside(session: Session) -> None:
    """Leave the outside head unchanged in this transaction, so that its fault stays visible."""
    session.info[_LEAVE] = True


def read_head(session: Session) -> Head | None:
    """Return the stored head; None before the first event, or if it was removed."""
    return _head_in(session, session.get(Preference, HEAD, populate_existing=True))


def read_outside(session: Session) -> Head | None:
    """Return the head stored outside the tables; None if there is none."""
    journal = journal_in(session)
    if journal is not None:
        try:
            found = journal.head()
        except (ValueError, OSError) as error:
            return Head(
                0,
                None,
                fault=f"The chain head stored outside the database cannot be trusted: {error}.",
            )
        if found is None:
            return None
        if found.announced:
            announced = Head(*found.announced, position=found.position)
            if holds(session, announced):
                return announced
        return Head(found.sequence, found.event_hash, position=found.position)
    if not is_kept_outside(session):
        return None
    row = session.execute(text(f"select sequence, event_hash from {SCHEMA}.head")).first()  # noqa: S608 - no input
    return Head(row.sequence, row.event_hash) if row else None


def is_kept_outside(session: Session) -> bool:
    """Return whether the head is stored outside, as after every first start of the portal."""
    journal = journal_in(session)
    if journal is not None:
        return journal.exists()
    if session.get_bind().dialect.name != "postgresql":
        return False
    return bool(
        session.scalar(text("select to_regclass(:name) is not null"), {"name": f"{SCHEMA}.head"})
    )


def is_due_outside(session: Session) -> bool:
    """Return whether the head must be stored outside: after the first event and first start."""
    if journal_in(session) is None and session.get_bind().dialect.name != "postgresql":
        return False
    begun = select(Revocation.position).where(Revocation.op == JOURNAL_BEGINS).limit(1)
    return is_kept_outside(session) or session.scalar(begun) is not None


def holds(session: Session, head: Head) -> bool:
    """Return whether the event of `head` exists unchanged."""
    query = select(AuditEvent.event_hash).where(AuditEvent.sequence == head.sequence)
    return not head.sequence or session.scalar(query) == head.event_hash


def note_outside(session: Session) -> None:
    """Overwrite the outside head with the current one, after a restore, which is audited."""
    head = read_head(session) or _last(session)
    if journal_in(session) is not None:
        if head.event_hash is not None:
            session.info[_OUTSIDE] = (None, OutsideHead(head.sequence, head.event_hash))
    elif session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"delete from {SCHEMA}.head"))  # noqa: S608 - no input
        session.execute(
            text(f"insert into {SCHEMA}.head (sequence, event_hash) values (:sequence, :hash)"),  # noqa: S608
            {"sequence": head.sequence, "hash": head.event_hash or ""},
        )


def journal_in(session: Session) -> FileJournal | None:
    """Return the journal of an SQLite database."""
    found = session.info.get("journal")
    return found if isinstance(found, FileJournal) else None


def hash_event(row: AuditEvent, key: bytes | None = None) -> str:
    """Return the HMAC-SHA-256 under `key`, in hex, of an event and the previous hash.

    The input is JSON with sorted keys. Without a key, returns the plain SHA-256 of older events.
    """
    facts = {
        "sequence": row.sequence,
        "previous_hash": row.previous_hash,
        "event_id": row.event_id,
        "at": row.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "actor": row.actor,
        "actor_id": row.actor_id,
        "key_id": row.key_id,
        "address": row.address,
        "action": row.action,
        "target_kind": row.target_kind,
        "target_id": row.target_id,
        "outcome": row.outcome,
        "details": row.details,
    }
    if key is None:
        return hashlib.sha256(_canonical(facts)).hexdigest()
    return _mac(key, {**facts, "hash_key": row.hash_key})


def place_of_key(chain_key_id: str) -> Place:
    """Return the vault place of a chain key, stored to verify older events."""
    return Place("audit chain key", "", "", chain_key_id)


def keys_of(session: Session) -> Mapping[str, bytes]:
    """Return all keys that verify events: derived from the ring, and stored from earlier rings."""
    found = {}
    for row in session.scalars(select(ChainKey)):
        opened = runtime_of(session).vault.open(row.sealed, place_of_key(row.chain_key_id))
        if opened is not None:
            found[row.chain_key_id] = bytes.fromhex(opened)
    return {**found, **runtime_of(session).chain_keys}


def earlier_digest(session: Session, *, without: frozenset[str] = frozenset()) -> tuple[int, str]:
    """Count the events from before the chain, except those in `without`, and hash them all."""
    count = 0
    digest = hashlib.sha256()
    query = select(AuditEvent).where(AuditEvent.sequence.is_(None)).order_by(AuditEvent.event_id)
    for row in session.scalars(query.execution_options(yield_per=500, populate_existing=True)):
        if row.event_id not in without:
            count += 1
            digest.update(hash_event(row).encode())
    return count, digest.hexdigest()


@event.listens_for(Session, "after_commit")
def _note_outside(session: Session) -> None:
    """On SQLite, write the head beside the journal; on PostgreSQL, a trigger has done it."""
    if session.in_nested_transaction():
        return
    found = session.info.pop(_OUTSIDE, None)
    journal = journal_in(session)
    if found is None or journal is None or not journal.exists():
        return
    before, head = found
    try:
        if before is None:
            journal.note_head(head, force=True)
        elif _still_holds(session, journal, before):
            journal.note_head(head)
    except (OSError, ValueError):
        # a head that lags behind is no fault; the next verification reports an unreadable one
        return


@event.listens_for(Session, "after_rollback")
def _forget_outside(session: Session) -> None:
    session.info.pop(_OUTSIDE, None)


def _announce(session: Session, before: Head, after: OutsideHead) -> None:
    """On SQLite, announce the next head before the commit, in case the process is killed."""
    journal = journal_in(session)
    if journal is None or not journal.exists():
        return
    with suppress(OSError, ValueError):  # as in `_note_outside`
        noted = journal.head()
        if noted is None and before.sequence:
            return
        if noted is None or holds(session, Head(noted.sequence, noted.event_hash)):
            journal.announce(OutsideHead(before.sequence, before.event_hash or ""), after)


def _still_holds(session: Session, journal: FileJournal, before: Head) -> bool:
    """Return whether the events still match the outside head, so that missing ones stay visible."""
    noted = journal.head()
    if noted is None or noted.sequence == 0:
        return before.sequence == 0
    if (noted.sequence, noted.event_hash) == (before.sequence, before.event_hash):
        return True
    with session.get_bind().engine.execution_options(portal_writes=False).connect() as connection:
        query = select(AuditEvent.event_hash).where(AuditEvent.sequence == noted.sequence)
        return connection.scalar(query) == noted.event_hash


def _anchor(session: Session, head: Head, rows: Sequence[AuditEvent]) -> AuditEvent | None:
    """Return the anchor that seals events without a key, if this is the first keyed event."""
    keyed = select(AuditEvent.event_id).where(AuditEvent.hash_key.is_not(None)).limit(1)
    if session.scalar(keyed) is not None:
        return None
    earlier, digest = earlier_digest(session, without=frozenset(row.event_id for row in rows))
    if not earlier and not head.sequence:
        return None
    details: dict[str, Any] = {"earlier": earlier, "digest": digest, "sealed_up_to": head.sequence}
    return AuditEvent(
        event_id=new_id(),
        at=now(),
        actor="portal",
        action=ANCHOR,
        target_kind="audit",
        outcome="done",
        details=details,
    )


def _newest_key(session: Session) -> tuple[str, bytes]:
    keys = runtime_of(session).chain_keys
    key_id = next(iter(keys))
    if session.get(ChainKey, key_id) is None:
        sealed = runtime_of(session).vault.seal(keys[key_id].hex(), place_of_key(key_id))
        session.add(ChainKey(chain_key_id=key_id, sealed=sealed, created_at=now()))
    return key_id, keys[key_id]


def _mac(key: bytes, facts: Mapping[str, Any]) -> str:
    return hmac.new(key, _canonical(facts), hashlib.sha256).hexdigest()


def _canonical(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()


def _head_in(session: Session, noted: Preference | None) -> Head | None:
    if noted is None:
        return None
    try:
        value = dict(noted.value)
        sequence = int(value["sequence"])
        event_hash = str(value["hash"])
    except (ValueError, TypeError, KeyError):
        return Head(0, None, True, "The chain head cannot be read.")
    mac = value.pop("mac", None)
    key_id = str(value.get("key"))
    key = runtime_of(session).chain_keys.get(key_id) or keys_of(session).get(key_id)
    if mac is None:
        return Head(sequence, event_hash)
    if key is not None and not hmac.compare_digest(str(mac), _mac(key, value)):
        return Head(sequence, event_hash, True, "The chain head was modified.")
    return Head(sequence, event_hash, True)


def _last(session: Session) -> Head:
    query = select(AuditEvent.sequence, AuditEvent.event_hash, AuditEvent.hash_key).where(
        AuditEvent.sequence.is_not(None)
    )
    found = session.execute(query.order_by(AuditEvent.sequence.desc()).limit(1)).first()
    if not found:
        return Head(0, None)
    return Head(found.sequence or 0, found.event_hash, found.hash_key is not None)


def count_earlier(session: Session) -> int:
    """Count the events from before the chain."""
    return (
        session.scalar(
            select(func.count()).select_from(AuditEvent).where(AuditEvent.sequence.is_(None))
        )
        or 0
    )
