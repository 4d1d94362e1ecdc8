"""The audit log: chained, and told of in the same transaction."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import event, func, select, text

from portal.app import open_database
from portal.cli import base, main
from portal.domain.errors import Forbidden
from portal.domain.principals import OPERATOR
from portal.services import audit
from portal.services.access import keys
from portal.services.audit import hash_chain, trail, verification
from portal.services.audit.hash_chain import ANCHOR, HEAD, hash_event
from portal.services.audit.trail import EventFilter
from portal.services.operations import revocations
from portal.services.runtime import runtime_of
from portal.store import schema
from portal.store.database import Database
from portal.store.models import AuditEvent, Preference, new_id, now
from tests.conftest import CREW, Client, Write, make_settings
from tests.support.factories import make_server, make_user

As = Callable[[str | None], Client]


def events(database: Database, **wanted: Any) -> list[trail.EventView]:
    """What is on record, oldest first."""
    with database.session() as session:
        return list(trail.export_events(session, OPERATOR, EventFilter(**wanted)))[::-1]


def fault(database: Database) -> str | None:
    with database.session(writes=True) as session:
        return verification.verify(session, OPERATOR).fault


def change(database: Database, sql: str, **values: object) -> None:
    """Somebody with the database in their hands."""
    with database.session(writes=True) as session:
        session.execute(text(sql), values)
        session.commit()


def last_sequence(database: Database) -> int:
    return max(e.sequence or 0 for e in events(database))


# The chain


def test_each_event_follows_the_one_before_it(database: Database, write: Write) -> None:
    with write() as session:
        make_server(session, "s")
        make_user(session, "new")
    with database.session() as session:
        rows = session.scalars(select(AuditEvent).order_by(AuditEvent.sequence)).all()
        assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
        assert [row.previous_hash for row in rows] == [None, *(row.event_hash for row in rows[:-1])]
        keys = runtime_of(session).chain_keys
        assert [row.event_hash for row in rows] == [
            hash_event(row, keys[row.hash_key or ""]) for row in rows
        ]
    assert fault(database) is None


def test_a_change_that_is_given_up_leaves_no_event_and_no_gap(
    database: Database, write: Write
) -> None:
    before = len(events(database))
    with database.session(writes=True) as session:
        make_server(session, "undone")
        session.rollback()
        make_server(session, "done")
        half = session.begin_nested()
        make_server(session, "half")
        half.rollback()
        session.commit()
    found = events(database)[before:]
    assert [e.details["name"] for e in found] == ["done"]
    assert fault(database) is None


def test_writers_side_by_side_make_one_chain(database: Database) -> None:
    before = last_sequence(database)

    def work(number: int) -> None:
        for step in range(5):
            with database.session(writes=True) as session:
                audit.record(session, OPERATOR, "tried", "test", f"{number}-{step}")
                session.commit()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert last_sequence(database) == before + 20
    assert fault(database) is None


@pytest.mark.parametrize(
    "column",
    ["actor", "actor_id", "key_id", "address", "action", "target_kind", "target_id", "outcome"],
)
def test_a_changed_word_is_found(database: Database, column: str) -> None:
    change(database, f"update audit_events set {column} = 'forged' where sequence = 3")
    assert fault(database) == "Event 3 was modified."


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        (
            'update audit_events set details = \'{"name": "forged"}\' where sequence = 3',
            "Event 3 was modified.",
        ),
        (
            "update audit_events set at = '2026-01-01 00:00:00.000000' where sequence = 3",
            "Event 3 was modified.",
        ),
        (
            "update audit_events set event_hash = 'forged' where sequence = 3",
            "Event 3 was modified.",
        ),
        (
            "update audit_events set previous_hash = 'x' where sequence = 3",
            "Event 3 is not linked to the previous event",
        ),
        ("delete from audit_events where sequence = 3", "Event 3 is missing."),
        ("delete from audit_events where sequence = 1", "Event 1 is missing."),
        ("update audit_events set sequence = null where sequence = 3", "Event 3 is missing."),
        ("delete from audit_events where sequence > 3", "are missing at the end."),
        ("delete from audit_events", "are missing at the end."),
        (
            "delete from preferences where name = 'audit_head'",
            "The chain head does not include event",
        ),
    ],
)
def test_every_way_to_tamper_is_found(database: Database, sql: str, found: str) -> None:
    change(database, sql)
    assert found in (fault(database) or "")


def test_two_events_that_change_places_are_found(database: Database) -> None:
    for old, new in ((3, 9_999), (4, 3), (9_999, 4)):
        change(
            database,
            "update audit_events set sequence = :new where sequence = :old",
            old=old,
            new=new,
        )
    assert fault(database) == "Event 3 is not linked to the previous event."


def test_a_tail_that_was_cut_off_shows_also_when_the_record_went_on(
    database: Database, write: Write
) -> None:
    end = last_sequence(database)
    change(database, "delete from audit_events where sequence > :last", last=end - 2)
    with write() as session:
        make_server(session, "later")
    assert fault(database) == f"Event {end - 1} is missing."


def test_a_last_event_that_was_replaced_by_one_with_a_right_hash_is_found(
    database: Database,
) -> None:
    end = last_sequence(database)
    with database.session(writes=True) as session:
        row = session.scalar(select(AuditEvent).where(AuditEvent.sequence == end))
        assert row is not None
        row.actor, row.hash_key = "forged", None  # as if an older version had written it
        row.event_hash = hash_event(row)
        session.commit()
    assert fault(database) == f"Event {end} does not match the stored chain head."


OLD_EVENT = (
    "insert into audit_events (event_id, at, actor, action, target_kind, details)"
    f" values ('{new_id()}', '2025-01-01 00:00:00.000000', 'old', 'old', 'test', '{{}}')"
)


def as_before_keyed_events(database: Database) -> int:
    """The record as versions before keyed events left it, with an event from before the chain; how
    many are chained."""
    change(database, OLD_EVENT)
    with database.session(writes=True) as session:
        previous = None
        rows = session.scalars(
            select(AuditEvent).where(AuditEvent.sequence.is_not(None)).order_by(AuditEvent.sequence)
        ).all()
        for row in rows:
            row.hash_key, row.previous_hash = None, previous
            row.event_hash = previous = hash_event(row)
        noted = session.get(Preference, HEAD)
        assert noted is not None
        noted.value = {"sequence": len(rows), "hash": previous}
        session.commit()
    return len(rows)


def test_older_events_keep_their_hashes_and_are_sealed_by_one_anchor(
    database: Database, write: Write
) -> None:
    older = as_before_keyed_events(database)
    assert fault(database) is None
    with write() as session:
        make_server(session, "s")
        make_server(session, "t")
    with database.session(writes=True) as session:
        found = verification.verify(session, OPERATOR)
        session.commit()
    assert (found.earlier, found.fault, found.holds) == (1, None, older + 3)
    anchors = [e for e in events(database) if e.action == ANCHOR]
    assert [(e.sequence, e.details["earlier"], e.details["sealed_up_to"]) for e in anchors] == [
        (older + 1, 1, older)
    ]
    with database.session() as session:
        assert verification.last_verification(session, OPERATOR) == found


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        (
            "update audit_events set actor = 'x' where action = 'old'",
            "An event from before the chain was modified.",
        ),
        (
            "delete from audit_events where action = 'old'",
            "There are 0 events from before the chain, but 1 were sealed.",
        ),
        (
            OLD_EVENT.replace(OLD_EVENT.split("'")[1], new_id()),
            "There are 2 events from before the chain, but 1 were",
        ),
    ],
)
def test_what_the_anchor_sealed_is_not_changed_unseen(
    database: Database, write: Write, sql: str, found: str
) -> None:
    as_before_keyed_events(database)
    with write() as session:
        make_server(session, "s")
    assert fault(database) is None
    change(database, sql)
    assert found in (fault(database) or "")


def test_older_events_that_are_hashed_anew_do_not_fit_the_anchor(
    database: Database, write: Write
) -> None:
    older = as_before_keyed_events(database)
    with write() as session:
        make_server(session, "s")
    change(database, "update audit_events set actor = 'forged' where sequence = 3")
    rehash(database, 3, older)
    assert fault(database) == f"Event {older + 1} is not linked to the previous event."


def rehash(database: Database, first: int, last: int, **changes: Any) -> None:
    """What somebody without the key can do: plain hashes from `first` to `last`."""
    with database.session(writes=True) as session:
        rows = session.scalars(
            select(AuditEvent)
            .where(AuditEvent.sequence.between(first, last))
            .order_by(AuditEvent.sequence)
        ).all()
        previous = rows[0].previous_hash
        for row in rows:
            row.hash_key, row.previous_hash = None, previous
            for name, value in changes.items():
                setattr(row, name, value)
            row.event_hash = previous = hash_event(row)
        session.commit()


def test_an_event_that_claims_to_be_older_than_the_chain_is_found(database: Database) -> None:
    change(database, OLD_EVENT)
    assert fault(database) == "There are 1 events from before the chain, but 0 were sealed."


def test_a_tail_that_was_hashed_anew_without_the_key_is_found(database: Database) -> None:
    end = last_sequence(database)
    rehash(database, end - 1, end, actor="forged")
    assert fault(database) == f"Event {end} does not match the stored chain head."
    with database.session() as session:
        last = session.scalar(select(AuditEvent.event_hash).where(AuditEvent.sequence == end))
    head = json.dumps({"sequence": end, "hash": last})
    change(database, "update preferences set value = :head where name = 'audit_head'", head=head)
    with database.session(writes=True) as session:
        found = verification.verify(session, OPERATOR)
    # Within a week of the first keyed event this may be an older version's doing: it is told. See
    # the outside head.
    assert [f"2 events from {end - 1} to {end} have no key" in note for note in found.notes] == [
        True
    ]


def test_without_a_key_nothing_is_written_a_week_after_the_first_keyed_event(
    database: Database,
) -> None:
    end = last_sequence(database)
    rehash(database, end, end, at=now() + timedelta(days=8))
    assert fault(database) == f"Event {end} has no key, although earlier events do."


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("update audit_events set hash_key = null where sequence = 3", "Event 3 was modified."),
        (
            "update audit_events set hash_key = 'k9' where sequence = 3",
            "Event 3 cannot be verified: its key k9 is",
        ),
    ],
)
def test_another_key_for_an_event_is_found(database: Database, sql: str, found: str) -> None:
    change(database, sql)
    assert found in (fault(database) or "")


def test_a_head_that_is_put_back_with_a_cut_is_found(database: Database, write: Write) -> None:
    """Where it is told outside, too; `test_revocations.py` has that. Here: one that was made up."""
    end = last_sequence(database)
    change(database, "delete from audit_events where sequence > :last", last=end - 2)
    with database.session() as session:
        noted = session.get(Preference, HEAD)
        last = session.scalar(select(AuditEvent.event_hash).where(AuditEvent.sequence == end - 2))
        assert noted is not None
        forged = json.dumps({**noted.value, "sequence": end - 2, "hash": last})
    change(database, "update preferences set value = :head where name = 'audit_head'", head=forged)
    assert fault(database) == "The chain head was modified."
    with database.session() as session:
        plain = json.dumps({"sequence": end - 2, "hash": last})
    change(database, "update preferences set value = :head where name = 'audit_head'", head=plain)
    assert fault(database) == "The chain head has no key, although its event does."


def test_people_stand_in_events_by_their_ids_alone(
    database: Database, client: As, signed_in: Any
) -> None:
    ada = client("ada")
    browser = signed_in("ada")
    made = ada.post(
        "/v1/users",
        {"email": "new@example.com", "display_name": "Nelly New", "password": "a longer word"},
    )
    user_id = made.get_json()["user_id"]
    key = ada.post("/v1/keys", {"user_id": user_id}).get_json()["key"]
    assert client(key).post("/v1/teams", {"team_alias": "mine"}).status_code == 403
    assert ada.patch(f"/v1/users/{user_id}", {"email": "other@example.com"}).status_code == 200
    assert ada.patch(f"/v1/teams/{CREW}", {"team_alias": "band"}).status_code == 200
    shown = ada.get(f"/v1/audit?target={user_id}").get_json()["items"]
    assert {e["actor"] for e in shown} == {"ada@example.com"}
    assert {e["details"]["name"] for e in shown} == {"other@example.com"}
    assert [
        e["actor_id"] for e in ada.get("/v1/audit?actor=OTHER@example.com").get_json()["items"]
    ] == [user_id]
    assert ada.delete(f"/v1/users/{user_id}").status_code in (200, 204)
    gone = ada.get(f"/v1/audit?target={user_id}").get_json()["items"]
    assert {e["details"]["name"] for e in gone} == {trail._pseudonym(user_id)}
    [refused] = ada.get(f"/v1/audit?actor={user_id}").get_json()["items"]
    assert re.fullmatch(r"Deleted user [0-9a-f]{4}", refused["actor"])
    by_pseudonym = ada.get("/v1/audit", query_string={"actor": refused["actor"]}).get_json()[
        "items"
    ]
    assert [e["event_id"] for e in by_pseudonym] == [refused["event_id"]]
    assert trail._pseudonym(user_id) in browser.get(f"/admin/audit.csv?actor={user_id}").get_data(
        as_text=True
    )
    with database.session() as session:
        rows = (
            session.execute(text("select * from audit_events where hash_key is not null"))
            .mappings()
            .all()
        )
    told = json.dumps([dict(row) for row in rows], default=str)
    assert re.findall(r"[\w.]+@example\.com|Nelly", told) == []
    assert fault(database) is None


def test_a_walk_reads_in_batches(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "_BATCH", 2)
    monkeypatch.setattr(verification, "_BATCH", 2)
    whole = len(events(database))
    assert whole > 4
    assert fault(database) is None
    change(database, "delete from audit_events where sequence = 5")
    assert fault(database) == "Event 5 is missing."


def test_the_command_names_what_is_broken(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "load", lambda: None)
    monkeypatch.setattr(base, "connect", lambda _: database)
    whole = CliRunner().invoke(main, ["audit", "verify"])
    assert (whole.exit_code, whole.output) == (
        0,
        f"{last_sequence(database) - 1} events verified.\n",
    )
    change(database, "update audit_events set actor = 'forged' where sequence = 3")
    broken = CliRunner().invoke(main, ["audit", "verify"])
    assert broken.exit_code == 1
    assert broken.output == "2 events verified.\nEvent 3 was modified.\n"


def test_a_command_that_is_refused_is_on_record(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Forbidden("Not this one.")

    monkeypatch.setattr(base, "load", lambda: None)
    monkeypatch.setattr(base, "connect", lambda _: database)
    monkeypatch.setattr(keys, "revoke_key", refuse)
    assert CliRunner().invoke(main, ["keys", "revoke", "any"]).exit_code == 1
    last = events(database)[-1]
    assert (last.actor, last.outcome, last.details) == (
        "operator",
        "refused",
        {"because": "Not this one."},
    )


def test_only_admin_view_reads_and_only_an_admin_verifies(database: Database) -> None:
    from portal.services.access.principals import principal_for_user

    with database.session() as session:
        for name, reads, verifies in (("vera", True, False), ("mel", False, False)):
            principal = principal_for_user(session, name, "127.0.0.1")
            for ask, allowed in (
                (verification.last_verification, reads),
                (verification.verify, verifies),
            ):
                if not allowed:
                    with pytest.raises(Forbidden):
                        ask(session, principal)
            if reads:
                assert trail.list_events(session, principal, EventFilter()).items


# What `portal audit verify` says of a record that somebody changed by hand


class Kept:
    """A record of some events on SQLite, and what it was before the last of them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file, self._patch = folder / "portal.db", monkeypatch
        self.settings = make_settings(f"sqlite:///{self.file}")
        self.database = open_database(self.settings)
        schema.upgrade(self.database.engine)
        with self.database.session(writes=True) as session:
            revocations.reconcile(session, OPERATOR)
        self.note(6)
        with self.database.session() as session:
            self.head = session.get_one(Preference, "audit_head").value
        self.early_head = self.head_file.read_bytes()
        self.note(4)
        self.database.engine.dispose()

    @property
    def head_file(self) -> Path:
        return self.file.with_name("portal.db.revocations.head")

    def note(self, count: int) -> None:
        for number in range(count):
            with self.database.session(writes=True) as session:
                audit.record(session, OPERATOR, "noted", "server", str(number))
                session.commit()

    def run(self, sql: str, **values: object) -> None:
        with sqlite3.connect(self.file) as connection:
            connection.execute(sql, values)

    def cut(self) -> None:
        self.run("delete from audit_events where sequence > :last", last=self.head["sequence"])
        self.run(
            "update preferences set value = :head where name = 'audit_head'",
            head=json.dumps(self.head),
        )

    def verify(self) -> tuple[int, str]:
        self.database.engine.dispose()
        with self._patch.context() as patch:
            patch.setattr(base, "load", lambda: self.settings)
            result = CliRunner().invoke(main, ["audit", "verify"])
        assert result.exception is None or isinstance(result.exception, SystemExit), (
            result.exception
        )
        return result.exit_code, result.output


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    made = Kept(tmp_path, monkeypatch)
    yield made
    made.database.engine.dispose()


@pytest.mark.parametrize("head", ["now", "older", "gone", "garbage"])
@pytest.mark.parametrize("events", ["now", "cut"])
def test_a_missing_or_older_head_outside_is_a_finding_and_stays_one(
    kept: Kept, head: str, events: str
) -> None:
    if events == "cut":
        kept.cut()
    if head == "older":
        kept.head_file.write_bytes(kept.early_head)
    elif head == "gone":
        kept.head_file.unlink()
    elif head == "garbage":
        kept.head_file.write_bytes(b"x" * 512)
    wanted = int(
        (events, head) not in (("now", "now"), ("cut", "older"))
    )  # all of it put back: nothing tells
    for _ in range(2):
        code, said = kept.verify()
        assert code == wanted, said
        assert ("missing" in said or "older" in said or "cannot be trusted" in said) is bool(
            wanted
        ), said


@pytest.mark.parametrize("events", [1, 3])
@pytest.mark.parametrize("ends", ["committed", "not committed"])
def test_a_process_that_is_killed_around_a_commit_leaves_a_head_outside_that_is_true(
    kept: Kept, events: int, ends: str
) -> None:
    left = []
    for number in range(events):
        with kept.database.session(writes=True) as session:
            audit.record(session, OPERATOR, "noted", "server", str(number))
            event.listen(
                session.get_bind().engine,
                "commit",
                lambda _: left.append(kept.head_file.read_bytes()),
            )
            if ends == "committed" or number < events - 1:
                session.commit()
            else:
                event.listen(session.get_bind().engine, "commit", _interrupted)
                with pytest.raises(KeyboardInterrupt):
                    session.commit()
    kept.database.engine.dispose()
    kept.head_file.write_bytes(left[-1])  # what was to be written after the commit never was
    for _ in range(2):
        assert kept.verify()[0] == 0


def test_a_head_outside_that_announced_an_event_does_not_hide_that_another_was_put_in_its_place(
    kept: Kept,
) -> None:
    left = []
    with kept.database.session(writes=True) as session:
        audit.record(session, OPERATOR, "noted", "server", "last")
        event.listen(
            session.get_bind().engine, "commit", lambda _: left.append(kept.head_file.read_bytes())
        )
        session.commit()
    kept.cut()
    kept.head_file.write_bytes(left[-1])
    code, said = kept.verify()
    assert (code, "missing" in said) == (1, True), said


def _interrupted(_: object) -> None:
    raise KeyboardInterrupt


NOT_OURS = (
    "insert into audit_events (event_id, at, actor, action, target_kind, details, sequence, outcome"
)


@pytest.mark.parametrize("place", [1, 2, 3, 1_000, 2**62])
@pytest.mark.parametrize("event_hash", [None, "0" * 64, "plain"])
def test_events_that_were_put_in_by_hand_are_reported_and_never_continued(
    kept: Kept, place: int, event_hash: str | None
) -> None:
    with kept.database.session() as session:
        last = session.scalar(select(func.max(AuditEvent.sequence))) or 0
        previous = session.scalar(select(AuditEvent.event_hash).where(AuditEvent.sequence == last))
    kept.database.engine.dispose()
    plain = event_hash == "plain"
    for number in range(1, place + 1) if place < 4 else [place]:
        if plain:
            row = AuditEvent(
                event_id=f"zz{number}",
                at=datetime(2026, 12, 1, tzinfo=UTC),
                actor="x",
                action="signed in",
                target_kind="user",
                details={},
                sequence=last + number,
                outcome="done",
                previous_hash=previous,
            )
            event_hash = hash_chain.hash_event(row)
        kept.run(
            f"{NOT_OURS}, event_hash, previous_hash) values (:id, '2026-12-01 00:00:00.000000',"
            " 'x', 'signed in', 'user', '{}', :n, 'done', :hash, :previous)",
            id=f"zz{number}",
            n=last + number,
            hash=event_hash,
            previous=previous if event_hash else None,
        )
    kept.note(2)
    for _ in range(2):
        code, said = kept.verify()
        assert (code, "Event " in said) == (1, True), said
    with kept.database.session() as session:
        ours = (AuditEvent.event_id.not_like("zz%"), AuditEvent.sequence > 1)
        assert (
            session.scalars(
                select(AuditEvent).where(AuditEvent.previous_hash == event_hash, *ours)
            ).all()
            == []
        )


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("update audit_events set details = 'not json' where sequence = 3", "cannot be read"),
        ("update audit_events set at = 'yesterday' where sequence = 3", "cannot be read"),
        ("update audit_events set sequence = -5 where sequence = 3", "Event 3 is missing"),
        ("update audit_events set hash_key = null where sequence = 3", "Event 3"),
        (
            "update audit_events set hash_key = 'other' where sequence = 3",
            "Event 3 cannot be verified",
        ),
        ("update preferences set value = '[]' where name = 'audit_head'", "chain head"),
        (
            "update preferences set value = '{\"sequence\": \"x\"}' where name = 'audit_head'",
            "chain head",
        ),
        ("delete from preferences where name = 'audit_head'", "chain head"),
    ],
)
def test_rows_that_nobody_can_read_are_a_finding_and_no_traceback(
    kept: Kept, sql: str, says: str
) -> None:
    kept.run(sql)
    code, said = kept.verify()
    assert (code, says in said) == (1, True), said
