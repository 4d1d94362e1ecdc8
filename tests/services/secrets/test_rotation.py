"""The key ring in use: everything moves to the newest key while others write, and nothing is lost
or left out (R-SEC-09 to R-SEC-12)."""

import ast
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import LargeBinary, select
from sqlalchemy.exc import OperationalError

from portal.app import create_app, open_database
from portal.cli import base, main, ring
from portal.domain.errors import Forbidden
from portal.domain.principals import OPERATOR
from portal.services.audit import trail
from portal.services.credentials import self_service
from portal.services.runtime import runtime_of
from portal.services.secrets import bindings, inventory, rotation, user_values
from portal.services.secrets.inventory import KINDS
from portal.store.database import Database
from portal.store.models import Base, ServerSecret, User, UserVariable
from portal.store.vault import Place, Vault
from tests.conftest import Client, Portal, make_settings
from tests.support.factories import make_server
from tests.support.oauth.recording import RecordingServer
from tests.support.planted import opened, person, plant, row_of

K1 = "k1:" + "U0VDUkVULWtleS1yaW5nLW9mLTMyLWJ5dGVzLXRlc3Q="
K2 = "k2:" + "U0VDUkVULW5ldy1rZXktb2YtMzItYnl0ZXMtdGVzdHM="
SERVICES = Path(__file__).resolve().parents[3] / "portal" / "services"
WRITERS = 20
MANY = 120
WITH_BOTH = pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"])


@pytest.fixture
def under(portal: Portal) -> Iterator[Callable[[str], Database]]:
    """`under("k2:…,k1:…")`: the database as a process with that key ring has it."""
    made: list[Database] = []

    def open_with(keys: str) -> Database:
        made.append(
            open_database(make_settings(portal.settings.database_url, encryption_keys=keys))
        )
        return made[-1]

    yield open_with
    for database in made:
        database.engine.dispose()


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "_BATCH", 10)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`run(database, "rotate")`: a command of `portal keys` on that database."""

    def command(database: Database, *arguments: str) -> Result:
        monkeypatch.setattr(base, "load", lambda: None)
        monkeypatch.setattr(base, "connect", lambda _: database)
        return CliRunner().invoke(main, ["keys", *arguments], catch_exceptions=False)

    return command


def counts(database: Database) -> dict[str, int]:
    """How many values each key has sealed."""
    with database.session() as session:
        return {
            use.key_id: use.total for use in rotation.count_values(session, OPERATOR) if use.total
        }


def everything(database: Database) -> dict[str, Any]:
    with database.session() as session:
        return opened(session)


@WITH_BOTH
def test_every_kind_is_re_encrypted_and_opens_under_the_new_key_alone(
    portal: Portal, under: Any, run: Any, echo_server: str, recording_as: RecordingServer
) -> None:
    """R-SEC-11, R-SEC-12."""
    with portal.database.session(writes=True) as session:
        plant(session, echo_server, recording_as)
        session.commit()
    before = everything(portal.database)
    rows = times(portal.database)
    with portal.database.session() as session:
        [held] = rotation.count_values(session, OPERATOR)
    assert set(held.values) == {kind.name for kind in KINDS}
    both = under(f"{K2},{K1}")
    due = run(both, "rotate", "--dry-run")
    assert (due.exit_code, counts(both)) == (0, {"k1": held.total})
    assert run(both, "status").exit_code == ring.OUTSTANDING
    done = run(both, "rotate")
    # The rotation's own events are the first under k2, and so its key of the audit's chain is kept,
    # too.
    assert (done.exit_code, counts(both)) == (0, {"k2": held.total + 1}), done.output
    assert f"{held.total} values were re-encrypted (k1: {held.total})." in done.output
    assert "SECRET" not in done.output
    status = run(both, "status", "--verify")
    assert status.exit_code == 0
    assert "k1  0 values; can be removed" in status.output
    alone = under(K2)
    asked = len(recording_as.seen("token"))
    assert everything(alone) == before
    assert len(recording_as.seen("token")) == asked, "the kept token is used, none is asked for"
    assert times(alone) == rows, "nobody set these values anew"
    assert "0 values were re-encrypted." in run(alone, "rotate").output
    with alone.session() as session:
        said = [
            (e.actor, e.action, e.details)
            for e in trail.list_events(
                session, OPERATOR, trail.EventFilter(kind="keys", target="k2")
            ).items
        ]
    assert ("operator", "keys rotated", {"resealed": {"k1": held.total}, "unreadable": 0}) in said


def times(database: Database) -> list[Any]:
    """When values were last set."""
    with database.session() as session:
        secrets = select(ServerSecret.updated_at).order_by(*ServerSecret.__table__.primary_key)
        return [*session.execute(select(UserVariable.updated_at)), *session.execute(secrets)]


def test_a_call_sends_the_same_headers_afterwards(
    portal: Portal,
    under: Any,
    run: Any,
    echo_server: str,
    recording_as: RecordingServer,
    client: Callable[[str], Client],
) -> None:
    with portal.database.session(writes=True) as session:
        plant(session, echo_server, recording_as)
    assert run(under(f"{K2},{K1}"), "rotate").exit_code == 0
    alone = under(K2)
    app = create_app(
        make_settings(portal.settings.database_url, encryption_keys=K2), database=alone
    )
    headers = {"Authorization": "Bearer sk-SECRET-key-of-mel-0123456789"}
    sent = {}
    for name in ("echo", "own"):
        body = {"server_id": f"id-{name}", "name": "show_headers"}
        answer = app.test_client().post("/v1/mcp/tools/call", json=body, headers=headers)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        sent[name] = answer.get_json()["structuredContent"]
    assert sent["echo"]["x-corp"] == "SECRET-header SECRET-region SECRET-value"
    assert sent["echo"]["x-api-key"] == "SECRET-credential"
    assert sent["own"]["x-api-key"] == "SECRET-key"


def test_no_column_and_no_seal_is_left_out() -> None:
    columns = {
        column
        for table in Base.metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, LargeBinary)
    }
    assert columns == {
        k.model.__table__.c[k.field] for k in KINDS if k.field in k.model.__table__.c
    }
    makes_places = set()
    seals = set()
    for path in SERVICES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                makes_places |= {path.name} if name == "Place" else set()
                seals |= {ast.unparse(node.args[1]).split("(")[0]} if name == "seal" else set()
    assert makes_places == {"bindings.py", "hash_chain.py"}
    assert {s for s in seals if not s.startswith(("bindings.of_", "place_of_key"))} <= {
        "place",
        "bound",
    }


def add_values(database: Database, number: int) -> None:
    """A server with a variable for which `number` people have a value."""
    with database.session(writes=True) as session:
        make_server(session, "many", allow_all_keys=True, env_vars=[{"name": "V", "scope": "user"}])
        row = row_of(session, "id-many")
        vault = runtime_of(session).vault
        for name in (f"u{n:04}" for n in range(number)):
            sealed = vault.seal(f"SECRET-{name}", bindings.of_user_variable(row, name, "V"))
            session.add(User(user_id=name, role="internal_user"))
            session.add(UserVariable(user_id=name, server_id="id-many", name="V", sealed=sealed))
        session.commit()


def values(database: Database) -> dict[str, str | None]:
    """What everybody has stored, in the clear."""
    with database.session() as session:
        row = row_of(session, "id-many")
        people = session.scalars(
            select(UserVariable.user_id).where(UserVariable.server_id == "id-many")
        )
        return {name: user_values.opened_values(session, row, name).get("V") for name in people}


@WITH_BOTH
@pytest.mark.usefixtures("small_batches")
def test_a_rotation_that_is_stopped_anywhere_goes_on_where_it_was(
    portal: Portal, under: Any, run: Any, monkeypatch: Any
) -> None:
    """R-SEC-11: idempotent; what is done is passed over."""
    add_values(portal.database, MANY)
    both = under(f"{K2},{K1}")
    before = counts(portal.database)["k1"]
    chance = random.Random(7)
    real = Vault.reseal
    opened_again = Counter[bytes]()

    def counted(vault: Vault, ciphertext: bytes, place: Any) -> bytes | None:
        opened_again[ciphertext] += 1
        return real(vault, ciphertext, place)

    def told_to_stop(*arguments: Any) -> rotation.Batch:
        if chance.random() < 0.2:
            signal.raise_signal(signal.SIGTERM)
        return resealing(*arguments)

    resealing = rotation.reseal_some
    monkeypatch.setattr(Vault, "reseal", counted)
    monkeypatch.setattr(rotation, "reseal_some", told_to_stop)
    ends = []
    while not ends or ends[-1].exit_code == ring.OUTSTANDING:
        ends.append(run(both, "rotate"))
        assert len(ends) < 60
    assert len(ends) > 1
    assert "to continue, run: portal keys rotate" in ends[0].output
    assert ends[-1].exit_code == 0
    assert counts(both) == {
        "k2": before + 1
    }  # and the key of the audit's chain that the rotation began
    assert set(opened_again.values()) == {1}
    assert values(under(K2)) == {f"u{n:04}": f"SECRET-u{n:04}" for n in range(MANY)}


@WITH_BOTH
@pytest.mark.usefixtures("small_batches")
def test_no_value_that_is_written_meanwhile_is_lost(portal: Portal, under: Any, run: Any) -> None:
    """R-SEC-11: twenty writers, and each finds at the end what was acknowledged to it."""
    add_values(portal.database, MANY)
    both = under(f"{K2},{K1}")
    writing = under(f"{K2},{K1}")
    begun = threading.Barrier(WRITERS + 1)
    over = threading.Event()

    def write(number: int) -> dict[str, str]:
        written: dict[str, str] = {}
        chance = random.Random(number)
        begun.wait(30)
        while not over.is_set() or not written:
            name = f"u{chance.randrange(number, MANY, WRITERS):04}"
            value = f"SECRET-{chance.random()}"
            with suppress(OperationalError), writing.session(writes=True) as session:
                self_service.save_variables(session, person(session, name), "id-many", {"V": value})
                session.commit()
                written[name] = value
            over.wait(0.05)  # a person thinks longer
        return written

    with ThreadPoolExecutor(WRITERS) as pool:
        working = [pool.submit(write, number) for number in range(WRITERS)]
        begun.wait(30)
        try:
            ended = [run(both, "rotate") for _ in range(3)]
        finally:
            over.set()
        acknowledged = {
            name: value for future in working for name, value in future.result(60).items()
        }
    assert ended[0].exit_code in (0, ring.OUTSTANDING), ended[0].output
    assert run(both, "rotate").exit_code == 0
    assert values(under(K2)) == {f"u{n:04}": f"SECRET-u{n:04}" for n in range(MANY)} | acknowledged


@WITH_BOTH
def test_a_value_that_changes_between_reading_and_writing_is_left_alone(
    portal: Portal, under: Any
) -> None:
    add_values(portal.database, 1)
    [kind] = [kind for kind in KINDS if kind.model is UserVariable]
    both = under(f"{K2},{K1}")
    with both.session() as session:
        [read] = kind.batch(session, None)
    with both.session(writes=True) as session:
        self_service.save_variables(
            session, person(session, "u0000"), "id-many", {"V": "SECRET-newer"}
        )
        session.commit()
    with both.session(writes=True) as session:
        assert not kind.replace(session, read, b"older")
        session.commit()
    assert values(both) == {"u0000": "SECRET-newer"}


def test_what_cannot_be_read_is_skipped_and_named(portal: Portal, under: Any, run: Any) -> None:
    add_values(portal.database, 5)
    gone = Vault({"k0": b"0" * 32})
    with portal.database.session(writes=True) as session:
        [first, second, third] = session.scalars(
            select(UserVariable).order_by(UserVariable.user_id).limit(3)
        )
        first.sealed = gone.seal("SECRET-gone", Place("any", "", "", ""))
        second.sealed, third.sealed = (
            b"\x07rubbish",
            session.get(UserVariable, ("u0004", "id-many", "V")).sealed,
        )
        kept = {row.user_id: row.sealed for row in (first, second, third)}
        session.commit()
    both = under(f"{K2},{K1}")
    ended = run(both, "rotate")
    assert ended.exit_code == ring.UNREADABLE
    lines = [line for line in ended.output.splitlines() if line.startswith("cannot be decrypted: ")]
    assert [line.split(", ")[0] for line in lines] == [
        f"cannot be decrypted: user_variables u000{n} / id-many / V" for n in range(3)
    ]
    assert "k0 is not in the ring" in lines[0]
    assert "data is corrupt" in lines[1]
    assert "moved" in lines[2]
    assert "SECRET" not in ended.output
    with both.session() as session:
        assert {
            name: session.get(UserVariable, (name, "id-many", "V")).sealed for name in kept
        } == kept
    status = run(both, "status")
    assert status.exit_code == ring.UNREADABLE
    assert (
        "k0  1 values cannot be decrypted, because the key is not in the ring: user variables 1"
        in status.output
    )
    assert "(corrupt)  1 values" in status.output
    assert "k1  1 values to re-encrypt" in status.output
    assert (
        sum(
            line.startswith("cannot be decrypted: ")
            for line in run(both, "status", "--verify").output.splitlines()
        )
        == 3
    )


def test_nobody_but_the_operator_touches_the_keys(portal: Portal) -> None:
    with portal.database.session() as session:
        ada = person(session, "ada")
        for ask in (
            lambda: rotation.count_values(session, ada),
            lambda: rotation.reseal_some(session, ada, rotation.Position()),
        ):
            with pytest.raises(Forbidden):
                ask()


@pytest.mark.parametrize(
    ("keys", "opens"), [(K1, True), (f"{K2},{K1}", True), (K2, False), ("k1:" + K2[3:], False)]
)
def test_a_ring_that_opens_nothing_is_told(
    portal: Portal, under: Any, keys: str, opens: bool
) -> None:
    """R-SEC-09."""
    add_values(portal.database, 2)
    with under(keys).session() as session:
        assert rotation.opens_something(session, OPERATOR) is opens
