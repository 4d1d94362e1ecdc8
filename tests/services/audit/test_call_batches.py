"""The calls in the database are those whose digests are in the audit chain."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update

from portal.domain.principals import OPERATOR
from portal.services.access import sessions, users
from portal.services.audit import call_batches, trail, verification
from portal.services.audit.trail import EventFilter
from portal.services.gateway import calls
from portal.services.gateway.calls import Call, Caller, CallOutcome
from portal.store.call_tables import McpCall, McpCallBatch
from portal.store.database import Database
from portal.store.models import now

Log = Callable[..., None]


def call(number: int = 0, **changes: Any) -> Call:
    facts: dict[str, Any] = {
        "at": datetime(2026, 5, 4, 3, 2, 1, number, tzinfo=UTC),
        "duration_ms": 12,
        "caller": Caller("mel", "a-key", None, "Ω’ client", None),
        "server_id": "id-notes",
        "method": "tools/call",
        "tool": "add",
        "outcome": CallOutcome.OK,
        "bytes_in": 3_000_000_000,
        "bytes_out": 0,
    }
    return Call(**{**facts, **changes})


@pytest.fixture
def log(database: Database) -> Log:
    """`log(3, 2)` writes a batch in two steps and ends it, unless `ends=False`."""

    def logging(*steps: int, ends: bool = True) -> None:
        batch = None
        for step in steps:
            with database.session(writes=True) as session:
                rows = [call(number) for number in range(step)]
                batch = calls.log_calls(session, OPERATOR, batch, rows)
                session.commit()
        with database.session(writes=True) as session:
            assert calls.log_calls(session, OPERATOR, batch, [], ends=ends) is None or not ends
            session.commit()

    return logging


def verify(database: Database) -> verification.Verification:
    with database.session(writes=True) as session:
        found = verification.verify(session, OPERATOR)
        session.commit()
        return found


def change(database: Database, sql: str) -> None:
    with database.session(writes=True) as session:
        session.execute(text(sql))
        session.commit()


def sweep(database: Database) -> None:
    with database.session(writes=True) as session:
        sessions.sweep_sessions(session, OPERATOR)
        session.commit()


def age(database: Database, **by: float) -> None:
    """Let all batches be older; their events stay, so only those without one can be verified."""
    with database.session(writes=True) as session:
        session.execute(update(McpCallBatch).values(began_at=now() - timedelta(**by)))
        session.commit()


def test_calls_that_nobody_changed_verify(database: Database, log: Log) -> None:
    log(3, 2)
    log(1)
    found = verify(database)
    assert (found.fault, found.notes) == (None, ())


@pytest.mark.parametrize("column", [c.name for c in McpCall.__table__.columns])
def test_a_changed_column_is_found(database: Database, log: Log, column: str) -> None:
    log(2)
    value = {"at": "'2026-05-04 03:02:02+00:00'", "batch_id": "'other'"}.get(column, "7")
    if column == "batch_id":
        change(database, "insert into mcp_call_batches values ('other', CURRENT_TIMESTAMP, null)")
    change(database, f"update mcp_calls set {column} = {value} where number = 1")
    assert "event" in (verify(database).fault or "")


def test_missing_and_added_calls_are_found(database: Database, log: Log) -> None:
    log(3)
    change(database, "delete from mcp_calls where number = 1")
    assert "1 of 3 calls" in (verify(database).fault or "")
    change(database, "delete from mcp_call_batches")
    assert "3 of 3 calls" in (verify(database).fault or "")


def test_an_added_call_is_found(database: Database, log: Log) -> None:
    log(1)
    columns = ", ".join(c.name for c in McpCall.__table__.columns if c.name != "number")
    change(
        database,
        f"insert into mcp_calls (number, {columns}) select 1, {columns} from mcp_calls",
    )
    assert "were modified" in (verify(database).fault or "")


def test_a_call_changed_before_its_batch_ends_is_found(database: Database) -> None:
    with database.session(writes=True) as session:
        batch = calls.log_calls(session, OPERATOR, None, [call()])
        session.commit()
    change(database, "update mcp_calls set outcome = 'refused'")
    with database.session(writes=True) as session:
        calls.log_calls(session, OPERATOR, batch, [], ends=True)
        session.commit()
    assert "were modified" in (verify(database).fault or "")


def test_old_calls_are_deleted_and_told_as_expired_not_as_missing(
    database: Database, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(call_batches, "now", lambda: now() - timedelta(days=92))
        log(2)
    log(1)
    sweep(database)
    with database.session() as session:
        assert len(session.scalars(select(McpCall)).all()) == 1
        [event] = trail.export_events(session, OPERATOR, EventFilter(action=call_batches.EXPIRED))
    assert event.details["calls"] == 2
    assert verify(database).fault is None
    sweep(database)
    with database.session() as session:
        found = trail.export_events(session, OPERATOR, EventFilter(action=call_batches.EXPIRED))
        assert len(list(found)) == 1
    change(database, "delete from mcp_calls")
    assert "1 of 1 calls" in (verify(database).fault or "")


def test_calls_of_89_days_ago_are_kept(
    database: Database, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(call_batches, "now", lambda: now() - timedelta(days=89))
        log(2)
    sweep(database)
    with database.session() as session:
        assert len(session.scalars(select(McpCall)).all()) == 2


def test_the_batch_of_a_killed_process_is_sealed_by_the_worker(
    database: Database, log: Log
) -> None:
    log(2, ends=False)
    assert verify(database).notes == ("2 calls are not covered by an event yet.",)
    sweep(database)
    assert verify(database).notes == ("2 calls are not covered by an event yet.",)
    age(database, minutes=6)
    sweep(database)
    found = verify(database)
    assert found.fault is None
    [note] = found.notes
    assert "1 batches of calls were added to the chain late" in note
    change(database, "update mcp_calls set tool = 'other'")
    assert "were modified" in (verify(database).fault or "")


def test_a_call_outlives_its_user(database: Database, log: Log) -> None:
    log(1)
    with database.session(writes=True) as session:
        users.delete_user(session, OPERATOR, "mel")
        session.commit()
    with database.session() as session:
        assert [row.user_id for row in session.scalars(select(McpCall))] == ["mel"]
    assert verify(database).fault is None


def test_lists_of_events_are_not_full_of_digests(database: Database, log: Log) -> None:
    log(1)
    with database.session() as session:
        plain = trail.list_events(session, OPERATOR, EventFilter())
        asked = trail.list_events(session, OPERATOR, EventFilter(action="calls logged"))
        exported = list(trail.export_events(session, OPERATOR, EventFilter()))
    assert call_batches.LOGGED not in {event.action for event in plain.items}
    assert [event.details["calls"] for event in asked.items] == [1]
    assert call_batches.LOGGED in {event.action for event in exported}
