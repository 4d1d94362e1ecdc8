"""Backups: whole though others write meanwhile, without a secret in the clear, and put back only
where all of it holds (R-BR-01 to R-BR-05)."""

import json
import os
import re
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from portal.app import open_database
from portal.cli import base, main
from portal.domain.principals import OPERATOR
from portal.services.access.keys import KeyDraft, issue_key
from portal.services.audit import trail, verification
from portal.settings import Settings
from portal.store import schema
from portal.store.copying import file_digest
from portal.store.database import Database
from portal.store.models import ApiKey, BrowserSession, User, now
from portal.store.oauth_tables import OAuthFlow
from tests.conftest import add_people, make_settings
from tests.support.factories import make_user
from tests.support.oauth.recording import RecordingServer
from tests.support.planted import lasting, plant

KEY = b"SECRET-key-ring-of-32-bytes-test"
K2 = "k2:U0VDUkVULW5ldy1rZXktb2YtMzItYnl0ZXMtdGVzdHM="
Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Settings]:
    """A portal on SQLite in a folder of its own."""
    mask = os.umask(0o022)
    yield make_settings(f"sqlite:///{tmp_path}/var/portal.db")
    os.umask(mask)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, home: Settings) -> Run:
    """`run("backup", file)`: a command, on the portal at home or with other `settings`."""

    connect = base.connect

    def command(*arguments: str | Path, settings: Settings = home) -> Result:
        connected: list[Database] = []
        monkeypatch.setattr(base, "load", lambda: settings)
        monkeypatch.setattr(
            base, "connect", lambda given: connected.append(connect(given)) or connected[-1]
        )
        try:
            return CliRunner().invoke(main, [str(part) for part in arguments])
        finally:
            for database in connected:  # as the end of the command's process does
                database.engine.dispose()

    return command


@pytest.fixture
def database(home: Settings, echo_server: str, recording_as: RecordingServer) -> Iterator[Database]:
    """It holds the people, and a secret of each kind."""
    database = open_database(home)
    schema.upgrade(database.engine)
    with database.session(writes=True) as session:
        add_people(session)
        plant(session, echo_server, recording_as)
    yield database
    database.engine.dispose()


@pytest.fixture
def made(run: Run, database: Database, tmp_path: Path) -> Path:
    """A backup."""
    done = run("backup", tmp_path / "made.db")
    assert done.exit_code == 0, done.output
    return tmp_path / "made.db"


def manifest(file: Path) -> dict[str, Any]:
    return json.loads(Path(f"{file}.manifest.json").read_text())  # type: ignore[no-any-return]


def elsewhere(folder: Path, **changes: Any) -> Settings:
    return make_settings(f"sqlite:///{folder}/new/portal.db", **changes)


def rewrite(file: Path, *statements: str) -> None:
    """Change a backup, and its manifest with it, as somebody who knows how."""
    with closing(sqlite3.connect(file)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    Path(f"{file}.manifest.json").write_text(
        json.dumps({**manifest(file), "sha256": file_digest(file)})
    )


def test_a_backup_under_writes_is_whole_and_holds_no_secret_in_the_clear(
    run: Run, database: Database, tmp_path: Path
) -> None:
    """R-BR-01, R-BR-02, R-BR-03."""
    over = threading.Event()
    begun = threading.Barrier(5)

    with database.session() as session:
        before = lasting(session)

    def write(number: int) -> int:
        begun.wait(30)
        count = 0
        while not over.is_set():
            with database.session(writes=True) as session:
                make_user(session, f"writer-{number}-{count}")
                session.commit()
            count += 1
            over.wait(0.02)
        return count

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, number) for number in range(4)]
        begun.wait(30)
        try:
            done = run("backup", tmp_path / "b.db")
        finally:
            over.set()
        assert done.exit_code == 0, done.output
        assert sum(writer.result(30) for writer in writers) > 0
    file = tmp_path / "b.db"
    said = manifest(tmp_path / "b.db")
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("b.db*")} == {0o600}
    for path in tmp_path.glob("b.db*"):
        content = path.read_bytes()
        assert KEY not in content
        # How an API key begins is told to its owner.
        assert re.search(rb"(?<!sk-)SECRET|correct horse", content) is None
    assert set(said["keys"]) == {"k1"}
    new = elsewhere(tmp_path)
    restored = run("restore", file, "--without-journal", settings=new)
    assert restored.exit_code == 0, restored.output
    there = open_database(new)
    with there.session(writes=True) as session:
        assert verification.verify(session, OPERATOR).fault is None
        assert len(session.scalars(select(User)).all()) == said["rows"]["users"]
        assert [*session.scalars(select(BrowserSession)), *session.scalars(select(OAuthFlow))] == []
        last = trail.list_events(
            session, OPERATOR, trail.EventFilter(action="backup restored")
        ).items
        assert [(event.actor, event.details["sha256"]) for event in last] == [
            ("operator", said["sha256"])
        ]
    with there.session() as session:
        assert lasting(session) == before
    there.engine.dispose()
    assert stat.S_IMODE((tmp_path / "new" / "portal.db").stat().st_mode) == 0o600
    with closing(sqlite3.connect(tmp_path / "new" / "portal.db")) as connection:
        assert connection.execute("pragma quick_check").fetchall() == [("ok",)]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-1] + b"x"), "SHA-256"),
        (lambda file: Path(f"{file}.manifest.json").unlink(), "must be next to the backup"),
        (
            lambda file: rewrite(file, "update alembic_version set version_num = '9999'"),
            "does not know the backup's schema",
        ),
        (
            lambda file: rewrite(file, "update audit_events set actor = 'x' where sequence = 2"),
            "Event 2 was modified",
        ),
        (
            lambda file: rewrite(file, "delete from audit_events where sequence > 5"),
            "are missing at the end",
        ),
    ],
)
def test_a_backup_that_does_not_hold_is_not_restored(
    run: Run, made: Path, tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    """R-BR-03, R-BR-04."""
    spoil(made)
    refused = run("restore", made, settings=elsewhere(tmp_path))
    assert (refused.exit_code, said in refused.output) == (1, True), refused.output
    assert [path.name for path in (tmp_path / "new").glob("*")] == []


def test_a_backup_whose_keys_are_not_in_the_ring_needs_a_word_more(
    run: Run, made: Path, tmp_path: Path
) -> None:
    """R-BR-02, R-SEC-12."""
    refused = run("restore", made, settings=elsewhere(tmp_path, encryption_keys=K2))
    assert "lacks keys that the backup needs: k1." in refused.output
    done = run(
        "restore",
        made,
        "--without-secrets",
        "--without-journal",
        settings=elsewhere(tmp_path, encryption_keys=K2),
    )
    assert done.exit_code == 0, done.output


def test_a_database_is_replaced_only_with_force_and_only_when_nobody_has_it_open(
    run: Run, made: Path, database: Database, home: Settings
) -> None:
    with database.session(writes=True) as session:
        make_user(session, "later")
        session.commit()
    assert "already exists" in run("restore", made).output
    in_use = run("restore", made, "--force")
    assert (in_use.exit_code, "Stop portal serve" in in_use.output) == (1, True)
    with database.session() as session:
        assert session.get(User, "later")
    database.engine.dispose()
    done = run("restore", made, "--force")
    assert done.exit_code == 0, done.output
    with database.session() as session:
        assert session.get(User, "later") is None
        assert session.get(User, "mel")
    assert (
        sorted(p.name for p in made.parent.joinpath("var").iterdir() if "restoring" in p.name) == []
    )


def test_a_broken_database_makes_room_for_a_whole_one(
    run: Run, made: Path, database: Database, home: Settings
) -> None:
    database.engine.dispose()
    file = Path(home.database_url.removeprefix("sqlite:///"))
    file.write_bytes(b"no database at all " * 1000)
    Path(f"{file}-wal").write_bytes(b"rest")
    assert run("restore", made, "--force").exit_code == 0
    with database.session() as session:
        assert session.get(User, "mel")


def test_keys_that_clients_got_for_an_hour_end_and_others_stay(
    run: Run, database: Database, tmp_path: Path
) -> None:
    """R-BR-05."""
    with database.session(writes=True) as session:
        for alias, lives in (("short", timedelta(minutes=59)), ("long", timedelta(days=9))):
            issue_key(
                session,
                OPERATOR,
                KeyDraft(key_alias=alias, user_id="mel", expires_at=now() + lives),
            )
        session.commit()
    assert run("backup", tmp_path / "b.db").exit_code == 0
    assert (
        run(
            "restore", tmp_path / "b.db", "--without-journal", settings=elsewhere(tmp_path)
        ).exit_code
        == 0
    )
    there = open_database(elsewhere(tmp_path))
    with there.session() as session:
        ended = {
            key.key_alias: key.revoked_at is not None for key in session.scalars(select(ApiKey))
        }
    there.engine.dispose()
    assert (ended["short"], ended["long"], ended[None]) == (True, False, False)


def test_a_file_that_is_there_is_not_overwritten(run: Run, made: Path) -> None:
    before = made.read_bytes()
    again = run("backup", made)
    assert (again.exit_code, "already exists" in again.output) == (1, True)
    assert made.read_bytes() == before


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_for_postgresql_the_commands_name_its_own_tools(
    run: Run, tmp_path: Path, command: str
) -> None:
    file = tmp_path / "b.dump"
    file.touch()
    said = run(
        command,
        file,
        settings=make_settings("postgresql://portal:SECRET-word@db.example:5433/portal"),
    )
    assert said.exit_code == 1
    assert "--dbname='postgresql://portal@db.example:5433/portal'" in said.output
    assert ("pg_dump" if command == "backup" else "pg_restore") in said.output
    assert "SECRET" not in said.output
