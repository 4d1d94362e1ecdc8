"""Reconciling the database with the revocation journal, so that revoked access stays revoked.

The journal is outside the database and its backup. `reconcile` runs at every start of the portal,
after a restore and after `portal db upgrade`:

- If the database lacks entries of the journal, an older one was restored. The entries are applied
  again, and all sessions end.
- If the journal is missing, broken, of another database, or lacks entries that the database or the
  outside head of the audit log knows, or if that head is missing, later revocations are unknown.
  All keys become dormant and only Admins can sign in, until one of them reactivates the portal.

Applying entries again only removes access: a role is lowered, never raised, and a grant becomes one
that grants nothing.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.principals import Principal
from portal.services import audit
from portal.services.access import dormancy
from portal.services.admins import other_admins
from portal.services.audit import hash_chain, verification
from portal.services.operations import revoke_again
from portal.services.operations.journaling import NOTED, catch_up, entry_of
from portal.services.operations.restoring import end_short_lived
from portal.services.operations.revoke_again import Ended
from portal.store import watching
from portal.store.database import hold_writers, take_turn
from portal.store.journal import Contents, FileJournal, JournalEntry
from portal.store.models import AuditEvent, Preference, Revocation, User, new_id, now

_LOCK = 7_241_883_002
_START = hash_chain.JOURNAL_BEGINS


@dataclass(frozen=True)
class Reconciled:
    """What `reconcile` found and did.

    `because` is why everything has become dormant, None if it has not. `ended` counts what was
    ended again, by kind; `since` is when the journal begins.
    """

    is_older: bool = False
    ended: Mapping[str, int] = field(default_factory=dict)
    because: str | None = None
    since: datetime | None = None
    admins: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """The same, as lines for the operator."""
        told = []
        if self.is_older:
            counts = ", ".join(f"{what} {count}" for what, count in self.ended.items()) or "nothing"
            told.append(
                f"This database is older than its revocation journal. Revoked again: {counts}."
            )
        if self.because:
            told.append(
                f"{self.because} API keys are dormant, and only Admins can sign in, until an"
                " Admin reactivates the portal:"
            )
            told.append("  portal keys wake     (or use the button that Admins see on every page)")
            told.append(
                f"These Admins can reactivate it: {', '.join(self.admins) or 'none'}. They may"
                " include users who were demoted or removed since the backup: before you start"
                " the portal, run “portal users deactivate EMAIL” for each of those."
            )
        return told


def reconcile(
    session: Session,
    principal: Principal,
    *,
    is_restored: bool = False,
    journal: FileJournal | None = None,
) -> Reconciled:
    """Reconcile the database with the journal, and create the journal if there is none. Commits.

    `is_restored`: the database was just restored, so one without a journal is not treated as new.
    """
    authz.require(principal, Action.VAULT_MANAGE)
    take_turn(session, _LOCK)
    outside = _outside(session, journal)
    watching.install(session.connection())
    hold_writers(session, Revocation.__tablename__)  # other processes may still be serving
    found = outside.read()
    mine = {
        row.entry_id: row
        for row in session.scalars(select(Revocation).order_by(Revocation.position))
    }
    missing = [entry for entry in found.entries if entry.entry_id not in mine]
    because = _why_dormant(session, outside, found, list(mine.values()), is_restored=is_restored)
    is_older = bool(mine or session.scalar(select(User.user_id).limit(1))) and (
        bool(missing) or _is_behind(session) or is_restored
    )
    ended: Counter[str] = Counter()
    outside_ids = {entry.entry_id for entry in found.entries}
    _take_in(session, missing, [row for row in mine.values() if row.entry_id not in outside_ids])
    if is_older:
        ended = revoke_again.apply(
            session, [Ended(e.op, e.kind, e.subject, e.facts) for e in missing]
        )
    if is_older or because:
        end_short_lived(session)
        lost = hash_chain.read_outside(session)
        head = hash_chain.read_head(session)
        audit.record(
            session,
            principal,
            verification.OLDER if is_older else verification.MISSING,
            "database",
            None,
            ended=dict(ended),
            dormant=because,
            head_outside=lost.sequence if lost and not lost.fault else None,
            head_here=head.sequence if head else None,
            restored=is_restored,
        )
    if because:
        dormancy.make_dormant(session, because)
    start = _start(session, found)
    session.flush()
    session.commit()
    outside.write(session, start, found)
    lost = hash_chain.read_outside(session)
    head = hash_chain.read_head(session)
    is_late = (
        lost is not None
        and head is not None
        and lost.sequence < head.sequence
        and hash_chain.holds(session, lost)
    )
    if is_older or because or lost is None or is_late:
        hash_chain.note_outside(session)
    session.commit()
    admins = tuple(other_admins(session, None)) if because else ()
    return Reconciled(is_older, dict(ended), because, start.at, admins)


def is_begun(session: Session, principal: Principal) -> bool:
    """Return whether the portal was started on this database, so that it has a journal."""
    authz.require(principal, Action.VAULT_MANAGE)
    return (
        session.scalar(select(Revocation.position).where(Revocation.op == _START).limit(1))
        is not None
    )


def catch_up_due(session: Session, principal: Principal) -> None:
    """On SQLite, append what a killed process or an older version did not."""
    authz.require(principal, Action.VAULT_MANAGE)
    journal = hash_chain.journal_in(session)
    if journal is None or not journal.exists():
        return
    last = session.scalar(select(func.max(Revocation.position))) or 0
    written = journal.position()
    if written is None or last > written:
        catch_up(session.get_bind().engine, journal)


def wake(session: Session, principal: Principal) -> bool:
    """End dormancy, so that keys work and all users can sign in.

    Returns False if there was none.
    """
    authz.require(principal, Action.KEY_MANAGE)
    state = dormancy.read_dormancy(session)
    if state is None:
        return False
    dormancy.end_dormancy(session)
    audit.record(session, principal, "keys woken", "database", None, dormant_since=state["since"])
    session.flush()
    return True


def dormant_because(session: Session, principal: Principal) -> str | None:
    """Return why everything is dormant; None if it is not."""
    authz.require(principal, Action.KEY_READ)
    state = dormancy.read_dormancy(session)
    return str(state["because"]) if state else None


def fault_of_journal(session: Session, principal: Principal) -> str | None:
    """Return why the next start would make everything dormant, if it would. Writes nothing."""
    authz.require(principal, Action.VAULT_MANAGE)
    outside = _outside(session, None)
    mine = list(session.scalars(select(Revocation).order_by(Revocation.position)))
    fault = _why_dormant(session, outside, outside.read(), mine, is_restored=False)
    session.rollback()
    return fault


def _why_dormant(
    session: Session,
    outside: "_Outside",
    found: Contents,
    mine: Sequence[Revocation],
    *,
    is_restored: bool,
) -> str | None:
    start = next((row for row in mine if row.op == _START), None)
    if start is None:
        if not is_restored and not outside.exists():
            return None  # a new database, or one of a version that had no journal
        if not session.scalar(select(User.user_id).limit(1)):
            return None
        return (
            "This database is older than the start of its revocation journal, so earlier"
            " revocations are unknown."
        )
    if not outside.exists():
        return f"The revocation journal is missing ({outside.name})."
    if found.fault:
        return f"The revocation journal is not valid: {found.fault}."
    if found.journal_id != start.subject:
        return f"The revocation journal belongs to another database ({outside.name})."
    there = {entry.entry_id for entry in found.entries}
    noted = session.get(Preference, NOTED)
    sure = outside.sure_up_to(int(noted.value["position"]) if noted else 0)
    if any(row.entry_id not in there and row.position <= sure for row in mine):
        return "The revocation journal lacks entries that this database knows."
    head = hash_chain.read_outside(session)
    if head is None and session.scalar(
        select(AuditEvent.event_id).where(AuditEvent.sequence.is_not(None)).limit(1)
    ):
        return (
            "The audit chain head outside the database, which records the end of the revocation"
            " journal, is missing."
        )
    if head is not None and head.fault:
        return f"The end of the revocation journal is unknown. {head.fault}"
    if head is not None and head.position > found.position:
        return (
            "The revocation journal ends earlier than the audit chain head outside the database"
            " says."
        )
    return None


def _is_behind(session: Session) -> bool:
    """Return whether the audit chain ends before the outside head, or has another event there."""
    lost = hash_chain.read_outside(session)
    if lost is None or lost.fault or not lost.sequence:
        return False
    row = session.execute(
        text("select event_hash from audit_events where sequence = :sequence"),
        {"sequence": lost.sequence},
    ).first()
    return row is None or row.event_hash != lost.event_hash


def _take_in(
    session: Session, missing: Sequence[JournalEntry], extra: Sequence[Revocation]
) -> None:
    """Insert the journal's entries into the database; the database's own extra entries follow."""
    if not missing:
        return
    last = missing[-1].position
    moved = [row for row in extra if row.position <= last and row.op != _START]
    facts = [
        {name: getattr(row, name) for name in ("entry_id", "at", "op", "kind", "subject", "facts")}
        for row in moved
    ]
    taken = {row.position for row in moved}
    session.execute(delete(Revocation).where(Revocation.position.in_(taken)))
    session.expire_all()
    held = set(session.scalars(select(Revocation.position)))
    rows = [_row(entry, keeps_position=entry.position not in held) for entry in missing]
    for row in rows:
        session.execute(insert(Revocation).values(row))
    _set_sequence(session)
    for row in facts:
        session.execute(insert(Revocation).values(row))


def _row(entry: JournalEntry, *, keeps_position: bool) -> dict[str, Any]:
    at = datetime.fromisoformat(entry.at)
    row = {
        "entry_id": entry.entry_id,
        "at": at if at.tzinfo else at.replace(tzinfo=UTC),
        "op": entry.op,
        "kind": entry.kind,
        "subject": entry.subject,
        "facts": entry.facts,
    }
    return {**row, "position": entry.position} if keeps_position else row


def _set_sequence(session: Session) -> None:
    if session.get_bind().dialect.name == "postgresql":
        session.execute(
            text(
                "select setval(pg_get_serial_sequence('revocations', 'position'),"
                " (select coalesce(max(position), 0) + 1 from revocations), false)"
            )
        )


def _start(session: Session, found: Contents) -> Revocation:
    """Return the first entry of the journal, which identifies it."""
    start = session.scalar(
        select(Revocation).where(Revocation.op == _START).order_by(Revocation.position).limit(1)
    )
    if start is None:
        _set_sequence(session)
        start = Revocation(
            entry_id=new_id(),
            at=now(),
            op=_START,
            kind="journal",
            subject=found.journal_id or new_id(),
            facts="{}",
        )
        session.add(start)
        session.flush()
    return start


class _Outside(ABC):
    """The place of this database's journal."""

    name = ""

    @abstractmethod
    def exists(self) -> bool:
        """Return whether there is a journal."""

    @abstractmethod
    def read(self) -> Contents:
        """Return its contents."""

    @abstractmethod
    def write(self, session: Session, start: Revocation, found: Contents) -> None:
        """Update the journal from the database, or create it if it is missing or not valid."""

    @abstractmethod
    def sure_up_to(self, noted: int) -> int:
        """Return the position up to which it must contain all entries of the database."""


class _File(_Outside):
    def __init__(self, journal: FileJournal) -> None:
        self._journal, self.name = journal, journal.path.name

    def exists(self) -> bool:
        return self._journal.exists()

    def read(self) -> Contents:
        return self._journal.read() if self.exists() else Contents()

    def write(self, session: Session, start: Revocation, found: Contents) -> None:
        entries = [
            entry_of(row)
            for row in session.scalars(select(Revocation).order_by(Revocation.position))
        ]
        is_ours = self.exists() and not found.fault and found.journal_id == start.subject
        is_prefix = found.entries == tuple(entries[: len(found.entries)])
        if not is_ours or not found.is_under_newest or not is_prefix:
            self._journal.begin(start.subject, entries)
        else:
            catch_up(session.get_bind().engine, self._journal)

    def sure_up_to(self, noted: int) -> int:
        return noted


class _Schema(_Outside):
    """On PostgreSQL: the schema `portal_journal`, written by a trigger in the same transaction."""

    name = f"schema {watching.SCHEMA}"

    def __init__(self, session: Session) -> None:
        self._session = session
        table = f"{watching.SCHEMA}.identity"
        there = session.scalar(text("select to_regclass(:name) is not null"), {"name": table})
        self._identity = None
        if there:
            query = f"select journal_id, made_as from {table}"  # noqa: S608
            self._identity = session.execute(text(query)).first()
        watching.make_schema(session.connection())
        self._made_as = watching.made_as(session.connection())

    def exists(self) -> bool:
        return self._identity is not None

    def read(self) -> Contents:
        if self._identity is None:
            return Contents()
        columns = "position, entry_id, at, op, kind, subject, facts"
        query = f"select {columns} from {watching.SCHEMA}.revocations"  # noqa: S608
        rows = self._session.execute(text(f"{query} order by position, at"))
        entries = tuple(
            JournalEntry(r.position, r.entry_id, r.at.isoformat(), r.op, r.kind, r.subject, r.facts)
            for r in rows
        )
        copied = self._identity.made_as != self._made_as
        fault = "it was restored from a dump, so later entries may be missing" if copied else None
        return Contents(self._identity.journal_id, entries, fault)

    def write(self, session: Session, start: Revocation, found: Contents) -> None:
        columns = "position, entry_id, at, op, kind, subject, facts"
        session.execute(
            text(
                f"insert into {watching.SCHEMA}.revocations ({columns})"  # noqa: S608
                f" select {columns} from revocations on conflict (entry_id) do nothing"
            )
        )
        session.execute(text(f"delete from {watching.SCHEMA}.identity"))  # noqa: S608
        added = f"insert into {watching.SCHEMA}.identity (journal_id, made_as) values (:id, :as)"  # noqa: S608
        session.execute(text(added), {"id": start.subject, "as": self._made_as})

    def sure_up_to(self, noted: int) -> int:
        return 2**62  # the same transaction wrote both


def _outside(session: Session, journal: FileJournal | None) -> _Outside:
    if session.get_bind().dialect.name == "postgresql":
        return _Schema(session)
    journal = journal or hash_chain.journal_in(session)
    assert journal is not None
    return _File(journal)
