"""Verification of the audit log: the whole hash chain, and the gaps that operators accept."""

import time
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import InvalidInput
from portal.domain.principals import Principal
from portal.services import audit
from portal.services.audit import call_batches, hash_chain
from portal.store.models import AuditEvent, Preference, now

_BATCH = 500
_PATIENCE = 1.0
_VERIFIED = "audit_verified"
OLDER = "older database noticed"
MISSING = "journal missing"
ACCEPTED = "missing events accepted"


@dataclass(frozen=True)
class Verification:
    """The result of a verification: verified events, events from before the chain, the first fault.

    `notes` are not faults but worth knowing: events without a key, and places where an older
    database was restored. `unaccepted` are the sequence numbers of those that no operator has
    accepted.
    """

    holds: int
    earlier: int
    fault: str | None
    at: datetime
    notes: tuple[str, ...] = ()
    unaccepted: tuple[int, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the chain has no fault."""
        return self.fault is None


def verify(
    session: Session, principal: Principal, *, without_keys: bool = False, is_copy: bool = False
) -> Verification:
    """Verify the whole chain, and store the result for `last_verification`.

    `without_keys`: events whose key is lost only need to be linked. `is_copy`: the log is that of a
    backup, which has no outside head.
    """
    authz.require(principal, Action.AUDIT_VERIFY)
    found = _Walk(session, without_keys=without_keys, is_copy=is_copy).result()
    session.merge(
        Preference(
            name=_VERIFIED,
            value={
                "holds": found.holds,
                "earlier": found.earlier,
                "fault": found.fault,
                "at": found.at.isoformat(),
                "notes": list(found.notes),
                "unaccepted": list(found.unaccepted),
            },
        )
    )
    audit.record(
        session, principal, "audit verified", "audit", None, events=found.holds, fault=found.fault
    )
    if found.fault:
        hash_chain.leave_outside(session)
    session.flush()
    return found


def last_verification(session: Session, principal: Principal) -> Verification | None:
    """Return the result of the last verification; None if there was none."""
    authz.require(principal, Action.AUDIT_READ)
    row = session.get(Preference, _VERIFIED)
    if row is None:
        return None
    kept = row.value
    at = datetime.fromisoformat(kept["at"])
    notes = tuple(kept.get("notes", ()))
    unaccepted = tuple(kept.get("unaccepted", ()))
    return Verification(kept["holds"], kept["earlier"], kept["fault"], at, notes, unaccepted)


def accept_gap(session: Session, principal: Principal, number: int) -> None:
    """Record that the operator knows why events are missing at event `number`.

    Raises `InvalidInput` if that event is not waiting for this.
    """
    authz.require(principal, Action.VAULT_MANAGE)
    if number not in {sequence for sequence, _ in list_unaccepted(session, principal)}:
        raise InvalidInput(f"Event {number} is not waiting to be accepted.", field="event")
    audit.record(session, principal, ACCEPTED, "audit", None, event=number)
    session.flush()


def list_unaccepted(session: Session, principal: Principal) -> list[tuple[int, str]]:
    """Return the number and the note of each event that no operator has accepted.

    These are events at which an older database was found.
    """
    authz.require(principal, Action.VAULT_MANAGE)
    query = (
        select(AuditEvent)
        .where(AuditEvent.action.in_((OLDER, MISSING, ACCEPTED)))
        .order_by(AuditEvent.sequence)
    )
    gaps = _Gaps()
    for row in session.scalars(query.where(AuditEvent.sequence.is_not(None))):
        gaps.see(row)
    return [(number, gaps.note(number)) for number in gaps.unaccepted]


class _Gaps:
    """The places in a chain where an older database or a missing journal was found."""

    def __init__(self) -> None:
        self._found: dict[int, AuditEvent] = {}
        self._accepted: dict[int, int] = {}

    def see(self, row: AuditEvent) -> None:
        """Process an event."""
        if row.action in (OLDER, MISSING):
            self._found[row.sequence or 0] = row
        elif row.action == ACCEPTED:
            self._accepted.setdefault(int(row.details.get("event", 0)), row.sequence or 0)

    @property
    def notes(self) -> list[str]:
        """The notes, in the order of the events."""
        return [self.note(number) for number in self._found]

    @property
    def unaccepted(self) -> tuple[int, ...]:
        """Where events may be missing, except after `portal restore` or if accepted."""
        return tuple(
            n for n, row in self._found.items() if n not in self._accepted and _has_lost_events(row)
        )

    def note(self, number: int) -> str:
        """Describe what an event found, which events are missing, and how it was resolved."""
        row = self._found[number]
        outside = row.details.get("head_outside")
        here = row.details.get("head_here") or 0
        said = (
            f"At event {number} the revocation journal or the chain head outside the database was"
            " incomplete"
        )
        if row.action == OLDER:
            said = f"At event {number} an older database had replaced a newer one"
        if isinstance(outside, int) and outside > here:
            said += f": events {here + 1} to {outside} are missing from this database"
        elif outside is None and row.action == MISSING:
            said += ": it is unknown whether events are missing"
        if row.details.get("restored"):
            return f"{said}. This was done by “portal restore”."
        if number in self._accepted:
            return f"{said}. An operator accepted this at event {self._accepted[number]}."
        if number in self.unaccepted:
            return f"{said}. Find out why, then run: portal audit accept --event {number}"
        return f"{said}."


def _has_lost_events(row: AuditEvent) -> bool:
    """Return whether events may be missing at this event, other than by `portal restore`."""
    outside = row.details.get("head_outside")
    here = row.details.get("head_here") or 0
    return not row.details.get("restored") and (
        row.action == OLDER or outside is None or outside > here
    )


class _Walk:
    """One verification of the chain, from the first event to the last."""

    def __init__(self, session: Session, *, without_keys: bool, is_copy: bool) -> None:
        self._session, self._without_keys, self._is_copy = session, without_keys, is_copy
        self._keys = hash_chain.keys_of(session)
        self._noted, self._outside = hash_chain.read_head(session), hash_chain.read_outside(session)
        self._last = hash_chain.Head(0, None)
        self._anchor: AuditEvent | None = None
        self._keyed_since: datetime | None = None
        self._unkeyed: list[int] = []
        self._gaps = _Gaps()
        self._calls = call_batches.BatchCheck(session)

    def result(self) -> Verification:
        """Verify the integrity of the audit log and return the result."""
        fault = self._along() or self._at_the_end()
        earlier = hash_chain.count_earlier(self._session)
        notes = [*self._gaps.notes, *self._calls.notes()]
        if self._unkeyed:
            notes.append(
                f"{len(self._unkeyed)} events from {self._unkeyed[0]} to {self._unkeyed[-1]} have"
                " no key: an older version wrote them during the upgrade. If no older version"
                " was running, they are forged."
            )
        return Verification(
            self._last.sequence, earlier, fault, now(), tuple(notes), self._gaps.unaccepted
        )

    def _along(self) -> str | None:
        try:
            return self._walked()
        except (ValueError, TypeError, AttributeError, LookupError):  # not written by the portal
            return (
                f"An event after {self._last.sequence} cannot be read: the portal did not write it."
            )

    def _walked(self) -> str | None:
        while True:
            query = (
                select(AuditEvent)
                .where(AuditEvent.sequence > self._last.sequence)
                .order_by(AuditEvent.sequence)
            )
            rows = self._session.scalars(
                query.limit(_BATCH).execution_options(populate_existing=True)
            ).all()
            if not rows:
                return None
            for row in rows:
                faults = [self._fault(row)]
                faults += [self._calls.fault(row)] if faults == [None] else []
                faults += [_head_fault(row, head) for head in self._heads()]
                fault = next(filter(None, faults), None)
                if fault:
                    return fault
                self._last = hash_chain.Head(
                    row.sequence or 0, row.event_hash, row.hash_key is not None
                )
            self._session.expunge_all()

    def _heads(self) -> list[hash_chain.Head]:
        return [head for head in (self._noted, self._outside) if head is not None]

    def _fault(self, row: AuditEvent) -> str | None:
        last = self._last
        number = row.sequence
        if number != last.sequence + 1:
            return f"Event {last.sequence + 1} is missing."
        if row.previous_hash != last.event_hash:
            return f"Event {number} is not linked to the previous event."
        if row.hash_key is None:
            return self._fault_without_key(row)
        key = self._keys.get(row.hash_key)
        if key is None and not self._without_keys:
            return (
                f"Event {number} cannot be verified: its key {row.hash_key[:32]} is neither in"
                " PORTAL_ENCRYPTION_KEYS nor stored."
            )
        if key is not None and row.event_hash != hash_chain.hash_event(row, key):
            return f"Event {number} was modified."
        if self._keyed_since is None:
            self._keyed_since = row.at
            if last.sequence and row.action != hash_chain.ANCHOR:
                return f"Event {number} has a key, but no anchor seals the events before it."
            self._anchor = row if row.action == hash_chain.ANCHOR else None
        self._gaps.see(row)
        return None

    def _fault_without_key(self, row: AuditEvent) -> str | None:
        if row.event_hash != hash_chain.hash_event(row):
            return f"Event {row.sequence} was modified."
        if self._keyed_since is None:
            return None
        if not self._keyed_since <= row.at <= self._keyed_since + hash_chain.UPGRADE_LASTS:
            return f"Event {row.sequence} has no key, although earlier events do."
        self._unkeyed.append(row.sequence or 0)
        return None

    def _at_the_end(self) -> str | None:
        last = self._last
        noted = self._noted
        lacks_outside = self._outside is None and last.sequence and not self._is_copy
        if lacks_outside and hash_chain.is_due_outside(self._session):
            return "The chain head outside the database is missing."
        for head in self._heads():
            if head.fault:
                return head.fault
            if last.sequence < head.sequence:
                return f"Events {last.sequence + 1} to {head.sequence} are missing at the end."
        if noted is not None and self._outside is not None and self._stays_behind(noted):
            return (
                "The chain head outside the database is older: it does not include event"
                f" {noted.sequence}."
            )
        now_noted = hash_chain.read_head(self._session)
        if last.sequence > (now_noted.sequence if now_noted else 0):
            return f"The chain head does not include event {last.sequence}."
        is_at_end = noted is not None and last.sequence == noted.sequence
        if noted is not None and is_at_end and last.is_keyed and not noted.is_keyed:
            return "The chain head has no key, although its event does."
        return self._fault_of_earlier()

    def _stays_behind(self, noted: hash_chain.Head) -> bool:
        """Return whether the outside head lags behind; on SQLite it is written after the commit."""
        patience = time.monotonic() + _PATIENCE
        while (
            outside := hash_chain.read_outside(self._session)
        ) is None or outside.sequence < noted.sequence:
            if time.monotonic() > patience:
                return True
            time.sleep(0.05)
        return False

    def _fault_of_earlier(self) -> str | None:
        """Check events from before the chain against the anchor; without one there are none."""
        if self._keyed_since is None:
            return None
        count, digest = hash_chain.earlier_digest(self._session)
        sealed = (
            self._anchor.details if self._anchor is not None else {"earlier": 0, "digest": digest}
        )
        if count != sealed.get("earlier"):
            return (
                f"There are {count} events from before the chain, but {sealed.get('earlier')}"
                " were sealed."
            )
        if digest != sealed.get("digest"):
            return "An event from before the chain was modified."
        return None


def _head_fault(row: AuditEvent, noted: hash_chain.Head) -> str | None:
    if row.sequence != noted.sequence or row.event_hash == noted.event_hash or noted.fault:
        return None
    return f"Event {row.sequence} does not match the stored chain head."
