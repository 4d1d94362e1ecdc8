"""On SQLite, appending to the revocation journal what a commit has ended, before the response.

The entries are written to the database in the transaction of the change. If a process is killed
before it appends them, the next commit, worker cycle or start does it. PostgreSQL uses triggers
(`store/watching.py`).
"""

import logging
from collections.abc import Sequence

from sqlalchemy import Engine, event, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from portal.services.audit.hash_chain import journal_in
from portal.store.journal import FileJournal, JournalEntry
from portal.store.models import Preference, Revocation
from portal.telemetry import metrics

log = logging.getLogger("portal.journal")
NOTED = "journal_noted"
"""The setting with the last position that the database knows to be in the journal."""
_DUE = "entries for the journal"


def entry_of(row: Revocation) -> JournalEntry:
    """Return a row as a journal entry."""
    return JournalEntry(
        row.position, row.entry_id, row.at.isoformat(), row.op, row.kind, row.subject, row.facts
    )


def catch_up(engine: Engine, journal: FileJournal) -> None:
    """Append the missing entries to the journal.

    A failure to write is logged and counted, and the next commit tries again.
    """

    def behind(position: int) -> Sequence[JournalEntry]:
        with Session(engine.execution_options(portal_writes=False, portal_brief=False)) as own:
            query = (
                select(Revocation)
                .where(Revocation.position > position)
                .order_by(Revocation.position)
            )
            return [entry_of(row) for row in own.scalars(query)]

    try:
        journal.catch_up(behind)
    except (OSError, ValueError, SQLAlchemyError) as error:
        metrics.security("journal_failed")
        log.error("the revocation journal cannot be written (%s: %s)", type(error).__name__, error)


@event.listens_for(Session, "before_commit")
def _look(session: Session) -> None:
    journal = journal_in(session)
    if journal is None or session.in_nested_transaction():
        return
    options = session.get_bind().get_execution_options()
    if not options.get("portal_writes") or options.get("portal_brief") or not journal.exists():
        return
    session.flush()
    written = journal.position()
    last = session.scalar(select(func.max(Revocation.position))) or 0
    if written is None or last <= written:
        return
    session.info[_DUE] = True
    noted = session.get(Preference, NOTED) or Preference(name=NOTED)
    noted.value = {"position": written}
    session.add(noted)
    session.flush()


@event.listens_for(Session, "after_commit")
def _append(session: Session) -> None:
    journal = journal_in(session)
    if session.in_nested_transaction():
        return
    if journal is not None and session.info.pop(_DUE, False):
        catch_up(session.get_bind().engine, journal)


@event.listens_for(Session, "after_rollback")
def _forget(session: Session) -> None:
    session.info.pop(_DUE, None)
