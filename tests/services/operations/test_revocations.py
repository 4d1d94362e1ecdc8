"""What has ended stays ended after a restore, on both databases; where that cannot be known
everything is dormant."""

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import delete, func, select, text, update

from portal.app import create_app
from portal.cli import base, main
from portal.cli.checks import journal as journal_checks
from portal.cli.checks.findings import Surroundings
from portal.domain.principals import OPERATOR, Role
from portal.services import audit
from portal.services.access import access_groups, keys, principals, teams, users
from portal.services.audit import trail, verification
from portal.services.operations import revocations
from portal.services.servers import crud
from portal.services.servers.grants import ObjectPermission, replace_grants
from portal.store import schema, watching
from portal.store.database import Database
from portal.store.journal import FileJournal
from portal.store.models import (
    AccessGroupServer,
    ApiKey,
    AuditEvent,
    Base,
    BrowserSession,
    Grant,
    Preference,
    Revocation,
    Server,
    TeamMember,
    Toolset,
    ToolsetTool,
    User,
    UserCredential,
    UserVariable,
    new_id,
    now,
)
from portal.store.oauth_tables import Consent, McpClient
from portal.store.watching import UNWATCHED, WATCHED
from tests.conftest import CREW, KEYS, NOTES, add_people, make_settings, open_quickly
from tests.support.factories import (
    PASSWORD,
    make_group,
    make_key,
    make_server,
    make_team,
    make_user,
)

BOTH = pytest.mark.parametrize(
    "kind",
    [os.environ["TEST_DATABASE"]] if "TEST_DATABASE" in os.environ else ["sqlite", "postgresql"],
)
RING = make_settings("sqlite:///x").encryption_keys.get_secret_value()
K2 = "k2:U0VDUkVULW5ldy1rZXktb2YtMzItYnl0ZXMtdGVzdHM="


class Site:
    """A portal that was started once, on a database of its own, with the documented ways to back it
    up and restore."""

    def __init__(self, kind: str, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kind, self.folder, self._patch = kind, folder, monkeypatch
        self.settings = make_settings(url)
        self.database = open_quickly(self.settings)

    def start(self) -> revocations.Reconciled:
        """What every start of the portal does first."""
        with self.database.session(writes=True) as session:
            return revocations.reconcile(session, OPERATOR)

    def run(self, *arguments: str | Path) -> Result:
        """A command of the portal's, as a process of its own would run it."""
        self.database.engine.dispose()
        opened: list[Database] = []
        real = base.opened
        with self._patch.context() as patch:
            patch.setattr(base, "load", lambda: self.settings)
            patch.setattr(base, "opened", lambda given: opened.append(real(given)) or opened[-1])
            result = CliRunner().invoke(main, [str(part) for part in arguments])
        for database in opened:
            database.engine.dispose()
        return result

    def back_up(self, *, whole: bool = False) -> None:
        """As docs/backup-and-keys.md says; `whole` is what somebody does who did not read it."""
        if self.kind == "sqlite":
            assert self.run("backup", self.folder / "made.db").exit_code == 0
            return
        leaving_out = [] if whole else ["--exclude-schema=portal_journal"]
        self._tool("pg_dump", "--format=custom", f"--file={self.folder}/made.dump", *leaving_out)

    def restore(self, *options: str) -> Result:
        """As docs/backup-and-keys.md says."""
        if self.kind == "sqlite":
            return self.run("restore", self.folder / "made.db", "--force", *options)
        self.database.engine.dispose()
        self._tool(
            "pg_restore",
            "--clean",
            "--if-exists",
            "--single-transaction",
            f"{self.folder}/made.dump",
        )
        return self.run("db", "upgrade")

    def write(self, work: Callable[[Any], object]) -> Any:
        with self.database.session(writes=True) as session:
            result = work(session)
            session.commit()
        return result

    def status(self, key: str) -> tuple[int, str]:
        app = create_app(self.settings, database=self.database)
        answer = app.test_client().get("/v1/me", headers={"Authorization": f"Bearer {key}"})
        return answer.status_code, answer.get_data(as_text=True)

    def _tool(self, name: str, *arguments: str) -> None:
        url = self.settings.database_url.replace("postgresql+psycopg", "postgresql")
        subprocess.run(
            [_program(name), *arguments, f"--dbname={url}"],
            check=True,
            capture_output=True,
            timeout=120,
        )

    @property
    def journal(self) -> Path:
        return Path(f"{self.settings.database_url.removeprefix('sqlite:///')}.revocations")


def _program(name: str) -> str:
    found = shutil.which(name) or next(
        (str(p) for p in Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), None
    )
    if found is None:
        pytest.skip(f"{name} is missing")
    return found


@pytest.fixture
def site(
    kind: str, started: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    made = Site(kind, started(kind), tmp_path, monkeypatch)
    yield made
    made.database.engine.dispose()


def test_every_table_either_is_watched_or_says_why_not() -> None:
    watched = {of.table for of in WATCHED}
    assert watched.isdisjoint(UNWATCHED)
    assert watched | set(UNWATCHED) == set(Base.metadata.tables)
    for of in WATCHED:
        columns = set(Base.metadata.tables[of.table].columns.keys())
        limits = {name.partition(".")[0] for name in of.limits}
        assert {*of.subject, *limits, *of.marks, *of.facts} <= columns


def fill(session: Any) -> None:
    """One of everything that gives access, and its twin that stays."""
    for name in ("one", "two"):
        make_server(session, name, allow_all_keys=True)
        make_user(session, f"user-{name}")
        make_team(session, f"team-{name}", members=(f"user-{name}", "otto"))
        make_group(session, f"group-{name}", (f"id-{name}", NOTES))
        toolset = Toolset(toolset_id=f"set-{name}", toolset_name=name)
        session.add(toolset)
        session.flush()
        session.add(ToolsetTool(toolset_id=toolset.toolset_id, server_id=NOTES, tool_name=name))
        session.add(UserCredential(user_id="mel", server_id=f"id-{name}", kind="byok", sealed=b"x"))
        session.add(UserVariable(user_id="mel", server_id=f"id-{name}", name="V", sealed=b"x"))
        session.add(McpClient(registration_id=f"client-{name}", client_id=name))
        session.add(
            Consent(
                user_id="mel",
                server_id=f"id-{name}",
                client_hash=name,
                client_id=name,
                redirect_uri="http://x",
            )
        )
        make_key(session, user_id="otto", secret=f"sk-key-{name}")
        make_key(session, user_id="otto", secret=f"sk-narrow-{name}")
        make_key(session, user_id="otto", secret=f"sk-follow-{name}", mcp_servers=(NOTES,))
    for person in ("lower", "off", "word", "kept"):
        make_user(session, person, Role.ADMIN)
    users.change_user(
        session,
        OPERATOR,
        "otto",
        {},
        ObjectPermission(
            mcp_servers=(NOTES, "id-one", "id-two"),
            mcp_tool_permissions={NOTES: ("a", "b")},
        ),
    )


def key_id(session: Any, secret: str) -> str:
    return str(
        session.scalar(select(ApiKey.key_id).where(ApiKey.key_hash == keys.hash_key(secret)))
    )


def end(session: Any) -> None:
    """End the one of everything, by the use cases where they are short; triggers do not know the
    difference."""
    keys.revoke_key(session, OPERATOR, key_id(session, "sk-key-one"))
    narrow = key_id(session, "sk-narrow-one")
    keys.change_key(session, OPERATOR, narrow, {"allowed_routes": ["/v1/mcp"]}, None, None)
    keys.change_key(
        session, OPERATOR, key_id(session, "sk-follow-one"), {"follows_owner": True}, None, None
    )
    users.delete_user(session, OPERATOR, "user-one")
    users.change_user(session, OPERATOR, "lower", {"role": Role.VIEWER.value})
    users.change_user(session, OPERATOR, "off", {"is_active": False})
    users.change_user(session, OPERATOR, "word", {"password": "violet harbor seven lamps"})
    users.change_user(
        session,
        OPERATOR,
        "otto",
        {},
        ObjectPermission(
            mcp_servers=(NOTES, "id-two"),
            mcp_tool_permissions={NOTES: ("a",)},
        ),
    )
    teams.remove_member(session, OPERATOR, "team-team-two", "otto")
    teams.delete_team(session, OPERATOR, "team-team-one")
    session.execute(
        delete(AccessGroupServer).where(
            AccessGroupServer.access_group_id == group_id(session, "group-two"),
            AccessGroupServer.server_id == NOTES,
        )
    )
    access_groups.delete_group(session, OPERATOR, group_id(session, "group-one"))
    session.execute(delete(ToolsetTool).where(ToolsetTool.toolset_id == "set-two"))
    session.execute(delete(Toolset).where(Toolset.toolset_id == "set-one"))
    for table, column in (
        (UserCredential, "server_id"),
        (UserVariable, "server_id"),
        (Consent, "server_id"),
    ):
        session.execute(delete(table).where(getattr(table, column) == "id-one"))
    session.execute(delete(McpClient).where(McpClient.client_id == "one"))
    crud.delete_server(session, OPERATOR, "id-one")
    crud.update_server(session, OPERATOR, "id-two", {"allow_all_keys": False})


def group_id(session: Any, name: str) -> str:
    from portal.store.models import AccessGroup

    return str(session.scalar(select(AccessGroup.access_group_id).where(AccessGroup.name == name)))


@BOTH
def test_what_was_ended_after_the_backup_is_ended_again(site: Site) -> None:
    site.write(fill)
    site.write(
        lambda session: session.add(
            BrowserSession(session_hash="h", user_id="mel", expires_at=now())
        )
    )
    site.back_up()
    before = site.write(
        lambda session: session.scalar(select(func.count()).select_from(Revocation))
    )
    site.write(end)
    site.write(lambda session: make_user(session, "later"))
    with site.database.session() as session:
        noted = set(session.scalars(select(Revocation.kind).where(Revocation.position > before)))
        assert noted == {of.table for of in WATCHED}, "each kind of access leaves an entry"
    done = site.restore()
    assert done.exit_code == 0, done.output
    assert "older than its revocation journal. Revoked again: " in done.output
    assert "API keys 3" in done.output
    assert "dormant" not in done.output
    with site.database.session() as session:
        assert session.get(User, "later") is None
        assert session.get(User, "user-one") is None
        assert session.get(User, "user-two") is not None
        assert (session.get(User, "lower").role, session.get(User, "kept").role) == (
            Role.VIEWER,
            Role.ADMIN,
        )
        assert (session.get(User, "off").is_active, session.get(User, "kept").is_active) == (
            False,
            True,
        )
        word = session.get(User, "word")
        assert (word.password_hash, word.must_change_password) == (None, True)
        assert session.get(User, "kept").password_hash
        assert session.get(ApiKey, key_id(session, "sk-key-one")).revoked_at
        assert session.get(ApiKey, key_id(session, "sk-key-two")).revoked_at is None
        assert session.get(ApiKey, key_id(session, "sk-narrow-one")).allowed_routes == ["/v1/mcp"]
        assert session.get(ApiKey, key_id(session, "sk-narrow-two")).allowed_routes == []
        assert session.get(ApiKey, key_id(session, "sk-follow-one")).set_by == "owner"
        assert session.get(ApiKey, key_id(session, "sk-follow-two")).set_by == "admin"
        members = set(session.execute(select(TeamMember.team_id, TeamMember.user_id)).tuples())
        assert not {m for m in members if m[0] == "team-team-one"}
        assert {u for t, u in members if t == "team-team-two"} == {"user-two"}
        granted = session.scalars(select(Grant).where(Grant.holder_id == "otto")).all()
        assert sorted((g.kind, g.server_id or "", tuple(g.tools)) for g in granted) == [
            ("server", "", ()),
            ("server", "id-notes", ()),
            ("server", "id-two", ()),
            ("tools", "id-notes", ("a",)),
        ]
        left = set(session.execute(select(AccessGroupServer.server_id)).scalars())
        assert left == {"id-two"}
        assert session.scalars(select(Toolset.toolset_id)).all() == ["set-two"]
        assert session.scalars(select(ToolsetTool.tool_name)).all() == []
        for table in (UserCredential, UserVariable, Consent):
            assert session.scalars(select(table.server_id)).all() == ["id-two"], table
        assert session.scalars(select(McpClient.client_id)).all() == ["two"]
        one = session.get(Server, "id-one")
        two = session.get(Server, "id-two")
        assert (one.approval_status, one.allow_all_keys) == ("pending_review", False)
        assert (two.approval_status, two.allow_all_keys) == ("active", False)
        assert session.scalars(select(BrowserSession)).all() == []
    assert site.status("sk-key-one")[0] == 401
    assert site.status("sk-key-two")[0] == 200
    assert not site.start().is_older, "a second start has nothing to do"
    with site.database.session(writes=True) as session:
        found = verification.verify(session, OPERATOR)
        assert found.fault is None
        assert "an older database had replaced a newer one" in found.notes[0]


@BOTH
def test_what_was_given_back_since_is_kept_and_a_change_that_was_given_up_ends_nothing(
    site: Site,
) -> None:
    site.write(lambda session: make_team(session, "team-two", members=("mel",)))
    site.back_up()
    site.write(lambda session: teams.remove_member(session, OPERATOR, CREW, "mel"))
    site.write(lambda session: teams.put_member(session, OPERATOR, CREW, "mel", "user"))
    site.write(
        lambda session: users.change_user(
            session, OPERATOR, "otto", {}, ObjectPermission(mcp_servers=(NOTES,))
        )
    )
    with site.database.session(writes=True) as session:
        users.delete_user(session, OPERATOR, "vic")
        session.flush()
        session.rollback()
    done = site.restore()
    assert done.exit_code == 0, done.output
    with site.database.session() as session:
        assert session.get(TeamMember, (CREW, "mel"))
        assert session.get(User, "vic")
    assert site.status(KEYS["mel"])[0] == 200


@BOTH
def test_who_decides_what_a_key_reaches_is_done_again_only_where_that_is_less(site: Site) -> None:
    """A key without grants and team reaches nothing of its own; following its owner it would reach
    all they do."""
    made: dict[str, dict[str, Any]] = {
        "sk-bare": {"user_id": "otto"}, "sk-team": {"user_id": "mel", "team_id": CREW},
        "sk-owned": {"user_id": "otto", "mcp_servers": (NOTES,)}, "sk-ownerless": {"team_id": CREW},
    }  # fmt: skip
    for secret, fields in made.items():
        site.write(lambda session: make_key(session, secret=secret, **fields))  # noqa: B023

    def put(session: Any, secret: str, set_by: str | None) -> None:
        session.execute(
            update(ApiKey).where(ApiKey.key_id == key_id(session, secret)).values(set_by=set_by)
        )

    site.write(lambda session: put(session, "sk-owned", "owner"))
    site.back_up()
    for secret in made:
        then = "admin" if secret == "sk-owned" else "owner"
        site.write(lambda session: put(session, secret, then))  # noqa: B023
    assert site.restore().exit_code == 0
    with site.database.session() as session:
        found = {secret: session.get(ApiKey, key_id(session, secret)).set_by for secret in made}
    assert found == {
        "sk-bare": "admin",
        "sk-team": "owner",
        "sk-owned": "owner",
        "sk-ownerless": "admin",
    }


@BOTH
def test_a_password_that_is_hashed_anew_is_no_other_password(site: Site) -> None:
    """Signing in after the parameters of Argon2 changed is on no journal, and ends nothing that is
    known."""

    def noted() -> list[dict[str, Any]]:
        with site.database.session() as session:
            return [
                json.loads(e.facts)
                for e in session.scalars(select(Revocation).where(Revocation.kind == "users"))
            ]

    def hashed() -> str:
        with site.database.session() as session:
            return str(session.get(User, "otto").password_hash)

    site.back_up()
    site.write(
        lambda session: principals.sign_in(
            session, "otto@example.com", PASSWORD, "127.0.0.1", "device"
        )
    )
    before = hashed()
    stronger = open_quickly(site.settings.model_copy(update={"cheap_hashing": False}))
    for _ in range(2):
        with stronger.session(writes=True) as session:
            principals.sign_in(session, "otto@example.com", PASSWORD, "127.0.0.1", "device-2")
            session.commit()
    stronger.engine.dispose()
    assert (before.split("$")[3], hashed().split("$")[3]) == ("m=64,t=1,p=1", "m=19456,t=2,p=1")
    assert noted() == []
    with site.database.session() as session:
        assert principals.known_from(session, "otto@example.com", "device", None) == "device"
    assert site.restore().exit_code == 0
    site.write(
        lambda session: principals.sign_in(
            session, "otto@example.com", PASSWORD, "127.0.0.1", "device"
        )
    )
    site.write(
        lambda session: users.change_user(
            session, OPERATOR, "otto", {"password": "violet harbor seven lamps"}
        )
    )
    [entry] = noted()
    assert entry["password_hash"] in (1, True)


@BOTH
def test_triggers_of_another_version_make_way(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they note would stand there twice."""
    with (
        site.database.engine.connect().execution_options(portal_writes=True) as connection,
        connection.begin(),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(watching, "_VERSION", 1)
            watching.install(connection)
        assert not watching.is_installed(connection)
    site.start()
    site.write(lambda session: keys.revoke_key(session, OPERATOR, key_id(session, KEYS["mel"])))
    with site.database.session() as session:
        assert watching.is_installed(session.connection())
        assert session.scalar(select(func.count()).where(Revocation.kind == "api_keys")) == 1


@BOTH
def test_without_its_journal_everything_is_dormant_until_an_admin_wakes_it(site: Site) -> None:
    site.back_up()
    site.write(lambda session: keys.revoke_key(session, OPERATOR, key_id(session, KEYS["mel"])))
    if site.kind == "sqlite":
        site.database.engine.dispose()
        site.journal.rename(site.journal.with_suffix(".away"))
        refused = site.restore()
        assert (refused.exit_code, "--without-journal" in refused.output) == (1, True)
    else:
        with site.database.engine.begin() as connection:
            connection.execute(text("drop schema portal_journal cascade"))
    done = site.restore(*(["--without-journal"] if site.kind == "sqlite" else []))
    assert done.exit_code == 0, done.output
    assert "API keys are dormant" in done.output
    assert "These Admins can reactivate it: Ada." in done.output
    for name in ("mel", "ada"):
        code, said = site.status(KEYS[name])
        assert (code, "API keys are dormant" in said) == (401, True)
    browser = create_app(site.settings, database=site.database).test_client()
    refused_page = sign_in(browser, "otto")
    assert "Only Admins can sign in until an Admin reactivates it" in refused_page.get_data(
        as_text=True
    )
    assert sign_in(browser, "ada").status_code == 303
    page = browser.get("/profile").get_data(as_text=True)
    assert "API keys are dormant, and only Admins can sign in" in page
    made = site.write(
        lambda session: keys.issue_key(
            session, OPERATOR, keys.KeyDraft(user_id="ada"), secret="sk-made-while-dormant"
        )
    )
    assert made
    assert site.status("sk-made-while-dormant")[0] == 200
    token = page.split('name="csrf_token" value="')[1].split('"')[0]
    assert browser.post("/admin/wake", data={"csrf_token": token}).status_code == 303
    assert site.status(KEYS["ada"])[0] == 200
    other = create_app(site.settings, database=site.database).test_client()
    assert sign_in(other, "otto").status_code == 303
    assert site.run("keys", "wake").output == "Nothing is dormant.\n"
    with site.database.session() as session:
        [woken] = trail.list_events(session, OPERATOR, trail.EventFilter(action="keys woken")).items
        assert woken.actor == "ada@example.com"


@BOTH
def test_the_operator_locks_out_who_is_an_admin_no_more_before_the_portal_starts(
    site: Site,
) -> None:
    site.write(lambda session: make_user(session, "demoted", Role.ADMIN))
    site.back_up()
    site.write(
        lambda session: users.change_user(session, OPERATOR, "demoted", {"role": Role.MEMBER.value})
    )
    if site.kind == "sqlite":
        site.database.engine.dispose()
        site.journal.rename(site.journal.with_suffix(".away"))
    else:
        with site.database.engine.begin() as connection:
            connection.execute(text("drop schema portal_journal cascade"))
    done = site.restore(*(["--without-journal"] if site.kind == "sqlite" else []))
    assert "These Admins can reactivate it: Ada, Demoted." in done.output
    assert site.run("users", "deactivate", "demoted@example.com").exit_code == 0
    assert site.run("users", "deactivate", "nobody@example.com").exit_code == 1
    browser = create_app(site.settings, database=site.database).test_client()
    assert sign_in(browser, "demoted").status_code != 303
    assert site.run("keys", "wake").exit_code == 0


def sign_in(browser: Any, name: str) -> Any:
    page = browser.get("/login").get_data(as_text=True)
    token = page.split('name="csrf_token" value="')[1].split('"')[0] if "csrf_token" in page else ""
    return browser.post(
        "/login", data={"email": f"{name}@example.com", "password": PASSWORD, "csrf_token": token}
    )


@pytest.mark.parametrize("kind", ["postgresql"])
def test_a_journal_that_was_dumped_and_restored_with_the_rest_is_noticed(site: Site) -> None:
    site.back_up(whole=True)
    site.write(lambda session: keys.revoke_key(session, OPERATOR, key_id(session, KEYS["mel"])))
    done = site.restore()
    assert done.exit_code == 0, done.output
    assert "was restored from a dump" in done.output
    assert site.status(KEYS["mel"])[0] == 401


@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_database_that_is_copied_back_by_hand_is_noticed_at_the_next_start(site: Site) -> None:
    file = Path(site.settings.database_url.removeprefix("sqlite:///"))
    site.database.engine.dispose()
    copied = file.read_bytes()
    site.write(lambda session: keys.revoke_key(session, OPERATOR, key_id(session, KEYS["mel"])))
    site.database.engine.dispose()
    file.write_bytes(copied)
    found = site.start()
    assert (found.is_older, found.because, found.ended) == (True, None, {"API keys": 1})
    assert site.status(KEYS["mel"])[0] == 401
    assert site.status(KEYS["otto"])[0] == 200


@BOTH
def test_an_older_database_without_any_revocation_since_loses_its_sessions(site: Site) -> None:
    site.write(
        lambda session: session.add(
            BrowserSession(session_hash="h", user_id="mel", expires_at=now().replace(year=2100))
        )
    )
    site.back_up()
    site.write(lambda session: audit.record(session, OPERATOR, "tried", "test", None))
    assert site.restore().exit_code == 0
    with site.database.session() as session:
        assert session.scalars(select(BrowserSession)).all() == []


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda lines: [*lines[:1], lines[1].replace(b'"start"', b'"ended"'), *lines[2:]],
            "line 2",
        ),
        (lambda lines: [*lines[:1], *lines[2:]], "line 2"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "line 2"),
        (lambda lines: lines[:-3], "lacks entries that this database knows"),
        (lambda lines: [], "is empty"),
        (lambda lines: [lines[0].replace(b'"key":"k1"', b'"key":"k9"'), *lines[1:]], "line 1"),
    ],
)
def test_a_journal_that_was_changed_or_cut_makes_everything_dormant(
    site: Site, spoil: Callable[[list[bytes]], list[bytes]], said: str
) -> None:
    for number in range(5):
        made = site.write(lambda session: make_key(session, user_id="mel", secret=f"sk-n{number}"))  # noqa: B023
        assert made
        name = f"sk-n{number}"
        site.write(lambda session: keys.revoke_key(session, OPERATOR, key_id(session, name)))  # noqa: B023
    site.database.engine.dispose()
    site.journal.write_bytes(b"".join(spoil(site.journal.read_bytes().splitlines(keepends=True))))
    assert said in (site.start().because or "")
    assert site.status(KEYS["ada"])[0] == 401
    assert site.run("keys", "wake").exit_code == 0
    assert site.start().because is None, "a new journal was begun"


@pytest.mark.parametrize("kind", ["sqlite"])
def test_what_a_killed_process_left_is_written_by_the_next(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry is in the database with the change; a torn line is what a process leaves that dies
    while it writes."""
    with monkeypatch.context() as patch:
        patch.setattr(FileJournal, "catch_up", lambda *_: 0)
        site.write(lambda session: keys.revoke_key(session, OPERATOR, key_id(session, KEYS["mel"])))
    with site.journal.open("ab") as stream:
        stream.write(b'{"entry":[3,"half')
    site.database.engine.dispose()
    before = site.journal.read_bytes().count(b"\n")
    fresh = open_quickly(site.settings)
    with fresh.session() as session:
        revocations.catch_up_due(session, OPERATOR)
    fresh.engine.dispose()
    journal = fresh._info["journal"]
    assert isinstance(journal, FileJournal)
    assert site.journal.read_bytes().count(b"\n") == before + 1
    assert journal.read().fault is None
    assert site.start().because is None
    assert stat.S_IMODE(site.journal.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["sqlite"])
def test_the_journal_moves_to_a_new_key_at_a_start_and_outlives_the_old_one(site: Site) -> None:
    site.write(lambda session: keys.revoke_key(session, OPERATOR, key_id(session, KEYS["mel"])))
    for ring in (f"{K2},{RING}", K2):
        site.database.engine.dispose()
        site.settings = make_settings(site.settings.database_url, encryption_keys=ring)
        site.database = open_quickly(site.settings)
        assert site.run("keys", "rotate").exit_code == 0
        assert site.start().because is None
        verified = site.run("audit", "verify")
        assert verified.exit_code == 0, verified.output


@BOTH
def test_a_new_portal_and_an_upgraded_one_are_not_dormant(
    kind: str, empty_database: Callable[[str], str]
) -> None:
    settings = make_settings(empty_database(kind))
    database = open_quickly(settings)
    schema.upgrade(database.engine)
    with database.session(writes=True) as session:
        add_people(session)  # as a version without a journal left it
        session.commit()
    for _ in range(2):
        with database.session(writes=True) as session:
            found = revocations.reconcile(session, OPERATOR)
        assert (found.is_older, found.because) == (False, None)
    database.engine.dispose()


# The head of the audit's chain, outside


@BOTH
@pytest.mark.parametrize("how", ["replayed", "gone", "rewritten"])
def test_a_cut_that_puts_back_an_older_head_is_found(site: Site, how: str) -> None:
    def head(session: Any) -> Any:
        return session.get(Preference, "audit_head").value

    older = site.write(head)
    site.write(lambda session: make_server(session, "later"))
    site.write(lambda session: make_server(session, "last"))

    def cut(session: Any) -> None:
        if how == "gone":
            session.execute(delete(AuditEvent))
            session.execute(delete(Preference).where(Preference.name == "audit_head"))
            return
        session.execute(delete(AuditEvent).where(AuditEvent.sequence > older["sequence"]))
        session.execute(
            update(Preference).where(Preference.name == "audit_head").values(value=older)
        )

    site.write(cut)
    if how == "rewritten":
        for name in ("a", "b", "c"):
            site.write(lambda session: make_server(session, f"new_{name}"))  # noqa: B023
    with site.database.session(writes=True) as session:
        fault = verification.verify(session, OPERATOR).fault or ""
    assert "missing at the end" in fault or "does not match the stored chain head" in fault


@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_head_outside_that_was_forged_or_removed_is_found(site: Site) -> None:
    file = site.journal.with_name(f"{site.journal.name}.head")
    whole = file.read_bytes()
    for content, said in (
        (whole.replace(b'"sequence": ', b'"sequence": 1'), "cannot be trusted"),
        (None, "missing"),
    ):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        with site.database.session(writes=True) as session:
            assert said in (verification.verify(session, OPERATOR).fault or "")


def accept_all(site: Site) -> None:
    """What an operator does who knows why events are missing."""
    with site.database.session() as session:
        numbers = [number for number, _ in verification.list_unaccepted(session, OPERATOR)]
    assert numbers
    for number in numbers:
        done = site.run("audit", "accept", "--event", str(number))
        assert done.exit_code == 0, done.output


@BOTH
def test_a_cut_with_an_older_head_put_back_is_told_until_an_operator_accepts_it(site: Site) -> None:
    def noted(session: Any) -> dict[str, Any]:
        return dict(session.get(Preference, "audit_head").value)

    older = site.write(noted)
    for name in ("a", "b", "c"):
        site.write(lambda session: make_server(session, f"new_{name}"))  # noqa: B023
    last = site.write(noted)["sequence"]

    def cut(session: Any) -> None:
        session.execute(
            text("delete from audit_events where sequence > :last"), {"last": older["sequence"]}
        )
        session.get(Preference, "audit_head").value = older

    site.write(cut)
    assert site.start().is_older
    said = f"events {older['sequence'] + 1} to {last} are missing from this database"
    number = older["sequence"] + 1
    for _ in range(2):
        verified = site.run("audit", "verify")
        assert verified.exit_code == 3, verified.output
        assert said in verified.output
        assert f"portal audit accept --event {number}" in verified.output
        site.write(lambda session: make_server(session, new_id()[:8]))  # life goes on
    around = Surroundings(site.settings, site.database)
    told = [str(finding) for finding in journal_checks.is_whole(around)]
    assert any(line.startswith("BAD") and said in line for line in told), told
    assert site.run("audit", "accept", "--event", str(number + 1)).exit_code == 1
    assert site.run("audit", "accept", "--event", str(number)).exit_code == 0
    assert site.run("audit", "accept", "--event", str(number)).exit_code == 1, (
        "it is accepted already"
    )
    verified = site.run("audit", "verify")
    assert verified.exit_code == 0, verified.output
    assert said in verified.output, "it stays on record"
    assert "An operator accepted this at event" in verified.output
    assert not any("audit log" in str(finding) for finding in journal_checks.is_whole(around))


@pytest.mark.parametrize("kind", ["sqlite"])
def test_what_portal_restore_did_itself_needs_no_more_words(site: Site) -> None:
    site.back_up()
    site.write(lambda session: make_server(session, "later"))
    assert site.restore().exit_code == 0
    verified = site.run("audit", "verify")
    assert verified.exit_code == 0, verified.output
    assert (
        "an older database had replaced a newer one. This was done by “portal restore”."
        in verified.output
    )


# The three files of SQLite, each at the time of the backup or now


def put_back(site: Site, **states: str) -> None:
    """Put the database, the journal and the head to what they were (`old`), leave them (`now`), or
    delete them."""
    site.database.engine.dispose()
    database = Path(site.settings.database_url.removeprefix("sqlite:///"))
    head = Path(f"{site.journal}.head")
    lines = site.journal.read_bytes().splitlines(keepends=True)
    earlier = (site.folder / "old" / site.journal.name).read_bytes().splitlines(keepends=True)
    half = b"".join(lines[: (len(lines) + len(earlier)) // 2])
    for name, path in {"database": database, "journal": site.journal, "head": head}.items():
        state = states.get(name, "now")
        if state == "old":
            shutil.copy(site.folder / "old" / path.name, path)
            for more in ("-wal", "-shm"):
                Path(f"{path}{more}").unlink(missing_ok=True)
        elif state == "gone":
            path.unlink()
        elif state == "half":
            path.write_bytes(half)
        elif state == "short":
            path.write_bytes(b"".join(lines[:-1]))
        elif state == "garbage":
            path.write_bytes(b"x" * 512)


@pytest.mark.parametrize(
    ("states", "is_dormant"),
    [
        ({}, False),
        ({"database": "old"}, False),
        ({"database": "old", "head": "old"}, False),
        ({"head": "old"}, False),
        *(
            ({"database": database, "journal": journal, "head": head}, True)
            for database in ("old", "now")
            for journal, head in [
                ("old", "now"),
                ("half", "now"),
                ("short", "now"),
                ("gone", "now"),
                ("now", "gone"),
                ("old", "gone"),
                ("gone", "gone"),
                ("now", "garbage"),
                ("old", "garbage"),
            ]
        ),
        ({"database": "now", "journal": "old", "head": "old"}, True),
    ],
)
def test_whatever_is_missing_or_older_outside_makes_everything_dormant(
    started: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    states: dict[str, str],
    is_dormant: bool,
) -> None:
    site = Site("sqlite", started("sqlite"), tmp_path, monkeypatch)
    site.write(lambda session: make_key(session, user_id="otto", secret="sk-later"))
    site.start()
    site.database.engine.dispose()
    (tmp_path / "old").mkdir()
    database = Path(site.settings.database_url.removeprefix("sqlite:///"))
    for path in (database, site.journal, Path(f"{site.journal}.head")):
        shutil.copy(path, tmp_path / "old" / path.name)
    site.write(lambda session: keys.revoke_key(session, OPERATOR, key_id(session, KEYS["mel"])))
    site.write(lambda session: users.change_user(session, OPERATOR, "otto", {"is_active": False}))
    site.write(
        lambda session: users.change_user(
            session, OPERATOR, "ada", {"password": "quite another long word"}
        )
    )
    put_back(site, **states)
    found = site.start()
    assert (found.because is not None) is is_dormant, found
    assert site.status(KEYS["mel"])[0] == 401
    assert site.status("sk-later")[0] == 401
    assert site.start().because is None, "a second start finds what the first has written"
    verified = site.run("audit", "verify")
    known = {"database": "now", "journal": "now", "head": "now"} | states
    may_be_lost = known["database"] == "old" or known["head"] in ("gone", "garbage")
    assert verified.exit_code == (3 if may_be_lost else 0), verified.output
    if may_be_lost:
        accept_all(site)
    assert site.run("audit", "verify").exit_code == 0, "it is on record"
    site.database.engine.dispose()


@BOTH
def test_a_change_writes_down_only_what_it_ended(site: Site) -> None:
    """A list that is sent whole again ends nothing of what stays in it."""

    def ends(session: Any) -> list[tuple[str, str]]:
        rows = session.scalars(
            select(Revocation).where(Revocation.op == "ended").order_by(Revocation.position)
        )
        return [(row.kind, row.subject) for row in rows]

    with site.database.session(writes=True) as session:
        for name in ("one", "two", "three"):
            make_server(session, name)
        group = make_group(session, "pair", ("one", "two"))
        team = ("team", CREW)
        permission = ObjectPermission(("one", "two"), ("pair",), {"one": ("echo", "add")})
        replace_grants(session, team, permission, ["pair"])
        before = ends(session)

        replace_grants(
            session, team, replace(permission, mcp_servers=("three", "one", "two")), ["pair"]
        )
        access_groups.change_group(session, OPERATOR, group, servers=["one", "two", "three"])
        crud.update_server(
            session, OPERATOR, "id-one", {"description": "new", "mcp_access_groups": ("pair",)}
        )
        assert ends(session) == before

        replace_grants(session, team, replace(permission, mcp_servers=("two",)), ["pair"])
        access_groups.change_group(session, OPERATOR, group, servers=["two", "three"])
        gone = ends(session)[len(before) :]
        assert sorted(kind for kind, _ in gone) == ["access_group_servers", "grants", "grants"]
        assert sorted("id-one" in subject for _, subject in gone) == [False, True, True]
        assert not any("id-two" in subject for _, subject in gone)
        session.commit()


@pytest.mark.parametrize(
    "kind", [kind for kind in ["postgresql"] if os.environ.get("TEST_DATABASE", kind) == kind]
)
def test_a_start_beside_others_that_write_waits_for_them_and_sees_all_they_wrote(
    site: Site,
) -> None:
    """Read at two times, the journal would look shorter than the database knows it to be, and all
    keys would sleep."""
    database = site.database
    with (
        database.session(writes=True) as other,
        database.session() as looking,
        ThreadPoolExecutor(1) as pool,
    ):
        make_key(other, user_id="mel")
        other.execute(delete(ApiKey))
        starting = pool.submit(site.start)
        while not looking.scalar(text("select count(*) from pg_locks where not granted")):
            assert not starting.done(), "it did not wait"
            looking.rollback()
        other.commit()
        assert starting.result(timeout=60).because is None
