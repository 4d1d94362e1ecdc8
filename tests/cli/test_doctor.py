"""`portal doctor`: each thing that can be wrong is made wrong, and the line says what to do."""

import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask
from sqlalchemy import select

from portal.app import create_app, open_database
from portal.cli import main
from portal.cli.checks import commands, files, keys, network
from portal.cli.checks import database as database_checks
from portal.cli.checks.findings import Level, Surroundings
from portal.cli.doctor import examine
from portal.domain.principals import OPERATOR
from portal.services import instance_settings
from portal.services.access import keys as issued
from portal.services.access import teams, users
from portal.services.access.principals import hash_key
from portal.services.operations import bootstrap
from portal.store import schema
from portal.store.models import ApiKey, Server, UserVariable, now
from portal.upstream.sandbox import Sandbox
from tests.conftest import make_settings
from tests.support.factories import make_key, make_server, make_team, make_user
from tests.support.oauth.serving import serving
from tests.support.peers import free_port, need_sandbox

K2 = "k2:U0VDUkVULW5ldy1rZXktb2YtMzItYnl0ZXMtdGVzdHM="
K1 = "k1:U0VDUkVULWtleS1yaW5nLW9mLTMyLWJ5dGVzLXRlc3Q="
OTHER_K1 = f"k1:{K2.partition(':')[2]}"
Make = Callable[..., Surroundings]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """`make(redis_url=…)`: a portal on SQLite with one secret, and these settings."""
    mask = os.umask(0o077)
    opened = []

    def surroundings(
        url: str = f"sqlite:///{tmp_path}/var/portal.db", **changes: Any
    ) -> Surroundings:
        settings = make_settings(url, **changes)
        opened.append(open_database(settings))
        return Surroundings(settings, opened[-1])

    first = surroundings()
    schema.upgrade(first.database.engine)
    with first.database.session(writes=True) as session:
        make_server(session, "one")
        session.commit()
    first.database.engine.dispose()
    yield surroundings
    for database in opened:
        database.engine.dispose()
    os.umask(mask)


def told(around: Surroundings, level: Level) -> list[str]:
    """The lines of that level."""
    return [str(finding) for finding in examine(around) if finding.level is level]


def the_bad_one(around: Surroundings) -> str:
    """The only line that is BAD; it says what to do."""
    [line] = told(around, Level.BAD)
    assert " · " in line
    return line


def change(around: Surroundings, *statements: str) -> None:
    around.database.engine.dispose()
    assert around.file is not None
    with closing(sqlite3.connect(around.file)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_where_all_is_well_it_says_so(make: Make, tmp_path: Path, redis_url: str) -> None:
    config = tmp_path / "portal.yaml"
    config.write_text("mcp_servers: {}\n")
    with serving(create_app(make().settings), threading.Event()) as address:
        around = make(public_url=address, redis_url=redis_url, config=config)
        found = list(examine(around))
    assert [str(finding) for finding in found if finding.level is not Level.OK] == []
    assert {finding.name for finding in found} == {
        "settings",
        "database",
        "database file",
        "disk",
        "migrations",
        "file rights",
        "config file",
        "Redis",
        "clock",
        "public URL",
        "key ring",
        "proxies",
        "commands",
        "API keys",
        "revocation journal",
    }


def test_every_bad_setting_has_its_line(tmp_path: Path) -> None:
    environment = {
        "PORTAL_DATABASE_URL": f"sqlite:///{tmp_path}/var/portal.db",
        "PORTAL_SESSION_IDLE_MINUTES": "1",
        "PORTAL_PUBLIC_URL": "portal",
        "PORTAL_SECRET_KEY": "s" * 40,
        "PORTAL_ENCRYPTION_KEYS": "k1:SECRET",
    }
    ended = CliRunner(env=environment).invoke(main, ["doctor"])
    assert ended.exit_code == 1
    assert [line.split(": ")[1] for line in ended.output.splitlines()] == [
        "PORTAL_ENCRYPTION_KEYS",
        "PORTAL_PUBLIC_URL",
        "PORTAL_SESSION_IDLE_MINUTES",
    ]
    assert "SECRET" not in ended.output


def test_a_database_that_is_not_there_is_not_made(make: Make, tmp_path: Path) -> None:
    around = make(f"sqlite:///{tmp_path}/other/portal.db")
    assert "does not exist · Start portal serve" in the_bad_one(around)
    assert not (tmp_path / "other" / "portal.db").exists()


def test_a_database_that_does_not_answer(make: Make) -> None:
    around = make(f"postgresql://portal:SECRET@127.0.0.1:{free_port()}/portal")
    line = the_bad_one(around)
    assert "BAD  database: does not respond · Check PORTAL_DATABASE_URL" in line
    assert "SECRET" not in line


def test_a_file_that_is_no_database(make: Make) -> None:
    around = make()
    change(around)
    around.file.write_bytes(b"no database " * 1000)  # type: ignore[union-attr]
    assert "restore FILE" in the_bad_one(around)


def test_pages_that_do_not_fit_together(make: Make) -> None:
    around = make()
    change(around)
    with around.file.open("r+b") as stream:  # type: ignore[union-attr]
        for page in range(10, 40):
            stream.seek(page * 4096)
            stream.write(b"\x99" * 2000)
    [line] = [str(finding) for finding in database_checks.whole(around)]
    assert "damaged" in line
    assert "restore FILE" in line


def test_a_place_without_a_write_ahead_log(make: Make) -> None:
    around = make()
    change(around, "pragma journal_mode=delete")
    assert "write-ahead log" in str(list(database_checks.whole(around))[-1])


def test_a_disk_without_room(make: Make) -> None:
    around = make()
    disk = os.statvfs(around.file.parent)  # type: ignore[arg-type]
    os.truncate(around.file, disk.f_frsize * disk.f_blocks)  # type: ignore[arg-type] # a hole: it takes no room
    [line] = [str(finding) for finding in database_checks.has_room(around)]
    assert line.startswith("BAD  disk: ")
    assert "Free disk space" in line


def test_a_schema_that_is_older_or_newer(make: Make) -> None:
    around = make()
    change(around, "update alembic_version set version_num = '9999'")
    assert "a newer version of the portal · Install that version" in the_bad_one(around)
    change(around, "update alembic_version set version_num = '0004'")
    schema.downgrade(around.database.engine, "-1")
    assert the_bad_one(around) == "BAD  migrations: not up to date · Run: portal db upgrade"


def test_a_clock_behind_what_is_on_record(make: Make) -> None:
    around = make()
    early = Surroundings(around.settings, around.database, lambda: now() - timedelta(hours=1))
    assert "behind the newest event of the audit log · Set this host's clock" in the_bad_one(early)


def test_clocks_of_the_database_and_of_redis_that_differ(
    make: Make, postgres_url: str, redis_url: str
) -> None:
    around = make(postgres_url, redis_url=redis_url)
    schema.upgrade(around.database.engine)
    late = Surroundings(around.settings, around.database, lambda: now() + timedelta(seconds=90))
    found = [*database_checks.clock(late), *network.redis_answers(late)]
    apart = [str(finding) for finding in found if finding.level is Level.BAD]
    assert [("the database" in line, "Redis" in line) for line in apart] == [
        (True, False),
        (False, True),
    ]
    assert all("NTP" in line for line in apart)


def test_keys_that_are_missing_wrong_old_or_unused(make: Make) -> None:
    assert "cannot decrypt any stored secret" in the_bad_one(make(encryption_keys=K2))
    assert "cannot decrypt any stored secret" in the_bad_one(make(encryption_keys=OTHER_K1))
    both = make(encryption_keys=f"{K2},{K1}")
    [line] = [line for line in told(both, Level.WARN) if "key ring" in line]
    assert "3 values are under the older key k1 · Run: portal keys rotate" in line
    with both.database.session(writes=True) as session:
        make_server(session, "two")
        session.commit()
    assert "3 values need the key k1, which it lacks" in the_bad_one(make(encryption_keys=K2))
    change(both, "delete from chain_keys where chain_key_id = 'k1'")
    change(
        both, "update server_secrets set sealed = x'07', bound = x'07' where server_id = 'id-one'"
    )
    assert "2 values are damaged" in the_bad_one(make(encryption_keys=K2))
    change(both, "delete from server_secrets where server_id = 'id-one'")
    assert "k1 is no longer used" in [str(f) for f in keys.opens(both)][-1]


def test_redis_that_is_set_and_does_not_answer(make: Make) -> None:
    line = the_bad_one(make(redis_url=f"redis://:SECRET@127.0.0.1:{free_port()}/0"))
    assert "each process counts rate limits for itself" in line
    assert "SECRET" not in line


def test_a_public_address_that_leads_elsewhere_nowhere_or_is_not_safe(make: Make) -> None:
    another = Flask("another", static_folder=None)
    another.add_url_rule("/healthz", view_func=lambda: "fine")
    with serving(another, threading.Event()) as address:
        assert "another server responds" in the_bad_one(make(public_url=address))
    nowhere = make(public_url=f"http://127.0.0.1:{free_port()}")
    assert any(
        "cannot be reached from this host" in line and "DNS" in line
        for line in told(nowhere, Level.WARN)
    )
    plain = make("postgresql://db.invalid/portal", public_url="http://portal.invalid")
    assert any("not https" in str(f) and f.level is Level.BAD for f in network.public_url(plain))
    plain_at_home = make(public_url="http://portal.invalid")
    assert any(
        "not https" in str(f) and f.level is Level.WARN for f in network.public_url(plain_at_home)
    )


def test_commands_say_where_they_run_and_why_not(make: Make, tmp_path: Path) -> None:
    assert [str(f) for f in commands.sandboxed(make())] == [
        "ok   commands: disabled (PORTAL_ENABLE_STDIO)"
    ]
    need_sandbox(Sandbox())
    found = [str(finding) for finding in commands.sandboxed(make(enable_stdio=True))]
    assert {line[:4] for line in found} == {"ok  "}
    assert "(uid " in found[0]
    for said in (
        "cannot see processes of the portal",
        "cannot see files of the portal",
        "its own persistent home folder",
        "loopback",
    ):
        assert any(said in line for line in found), said
    refused = make(enable_stdio=True, stdio_user="no-such-user")
    [line] = [str(finding) for finding in commands.sandboxed(refused)]
    assert line.startswith("BAD  commands: they cannot run: ")
    assert "PORTAL_STDIO_USER" in line.partition(" · ")[2] or "PORTAL_STDIO_USER" in line
    (tmp_path / "file").touch()
    in_memory = make(enable_stdio=True, stdio_homes=tmp_path / "file" / "homes")
    assert any(
        line.startswith("warn") and "PORTAL_STDIO_HOMES" in line
        for line in map(str, commands.sandboxed(in_memory))
    )


def test_home_folders_that_could_not_be_deleted_are_named(make: Make, tmp_path: Path) -> None:
    need_sandbox(Sandbox())
    left = tmp_path / "homes" / "gone-0123"
    left.mkdir(parents=True)
    found = [
        str(finding)
        for finding in commands.sandboxed(make(enable_stdio=True, stdio_homes=tmp_path / "homes"))
    ]
    [line] = [line for line in found if "could not be removed" in line]
    assert line.startswith("warn")
    assert str(left) in line


def test_https_without_a_trusted_proxy(make: Make) -> None:
    around = make(public_url="https://portal.invalid")
    assert any("PORTAL_TRUSTED_PROXIES" in line for line in told(around, Level.WARN))
    with around.database.session(writes=True) as session:
        instance_settings.update_preferences(session, OPERATOR, {"trusted_proxies": ["10.0.0.0/8"]})
        session.commit()
    assert [str(f) for f in network.proxies(around)] == ["ok   proxies: trusted: 10.0.0.0/8"]


def test_files_that_others_read_or_change(make: Make, tmp_path: Path) -> None:
    config = tmp_path / "etc" / "portal.yaml"
    config.parent.mkdir()
    config.write_text("general_settings: {}\n")
    around = make(config=config)
    assert around.file is not None
    keys_file = around.file.parent / "portal.env"
    keys_file.touch()
    for path, mode, cure in (
        (around.file, 0o640, "chmod 600"),
        (keys_file, 0o604, "chmod 600"),
        (config, 0o644, "chmod 640"),
        (around.file.parent, 0o777, "chmod go-w"),
        (config.parent, 0o770, "chmod go-w"),
    ):
        before = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode)
        [line] = map(str, files.rights(around))
        assert line.endswith(f"Run: {cure} {path}")
        path.chmod(before)
    assert [finding.level for finding in files.rights(around)] == [Level.OK]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [", "is not valid YAML, line"),
        ("- a list", "has no mcp_servers:"),
        (None, "cannot be read (FileNotFoundError)"),
    ],
)
def test_a_config_file_that_is_none(
    make: Make, tmp_path: Path, content: str | None, said: str
) -> None:
    config = tmp_path / "portal.yaml"
    if content is not None:
        config.write_text(content)
    assert said in str(next(files.config(make(config=config))))


def test_a_refused_entry_of_the_config_file_until_a_start_takes_it(make: Make) -> None:
    around = make()
    entry = {
        "url": "http://127.0.0.1:9/mcp",
        "static_headers": {"X-Own": "${OWN}"},
        "env_vars": [{"name": "OWN", "scope": "user"}],
    }
    moved = {**entry, "url": "http://127.0.0.1:10/mcp"}

    def start(**servers: object) -> None:
        with around.database.session(writes=True) as session:
            bootstrap.apply_config(session, OPERATOR, {"mcp_servers": servers})
            session.commit()

    start(conf=entry)
    with around.database.session(writes=True) as session:
        [server_id] = session.scalars(select(Server.server_id).where(Server.origin == "config"))
        make_user(session, "mel")
        session.flush()
        session.add(UserVariable(user_id="mel", server_id=server_id, name="OWN", sealed=b"x"))
        session.commit()
    start(conf=moved, broken={"transport": "carrier-pigeon"})
    first, second = [line for line in told(around, Level.BAD) if "config file" in line]
    assert "config file: mcp_servers.conf was refused at the start of " in first
    assert (
        "the values of 1 person (from http://127.0.0.1:9 to http://127.0.0.1:10); the server stays"
        " unchanged" in first
    )
    assert "keep_credentials: true to the entry to send them to the new host" in first
    assert "mcp_servers.broken was refused" in second
    assert "carrier-pigeon" in second
    start(conf={**moved, "keep_credentials": False})
    assert not any("config file" in line for line in told(around, Level.BAD))


def test_keys_of_leavers_and_keys_that_live_too_long(make: Make) -> None:
    around = make()
    with around.database.session(writes=True) as session:
        make_user(session, "mel")
        make_user(session, "off")
        make_team(session, "crew", members=("mel", "off"))
        for secret, team in (
            ("sk-stays", None),
            ("sk-leaves", "team-crew"),
            ("sk-revoked", "team-crew"),
        ):
            make_key(session, user_id="mel", team_id=team, secret=secret)
        make_key(session, user_id="off", team_id="team-crew", secret="sk-off")
        users.change_user(session, OPERATOR, "off", {"is_active": False})
        for user_id in ("mel", "off"):
            teams.remove_member(session, OPERATOR, "team-crew", user_id)
        ids = {
            secret: (
                session.scalars(
                    select(ApiKey.key_id).where(ApiKey.key_hash == hash_key(secret))
                ).one()
            )
            for secret in ("sk-stays", "sk-leaves", "sk-revoked")
        }
        issued.revoke_key(session, OPERATOR, ids["sk-revoked"])
        session.commit()
    [line] = [line for line in told(around, Level.WARN) if "API keys" in line]
    assert f"1 key ({ids['sk-leaves']}) of users who left the key's team · " in line
    assert "portal keys revoke KEY_ID" in line
    with around.database.session(writes=True) as session:
        instance_settings.update_preferences(session, OPERATOR, {"key_max_age_days": 30})
        soon = now() + timedelta(days=29)
        for number in range(6):
            make_key(session, user_id="mel", secret=f"sk-long-{number}")
        issued.issue_key(session, OPERATOR, issued.KeyDraft(user_id="mel", expires_at=soon))
        issued.revoke_key(session, OPERATOR, ids["sk-leaves"])
        session.commit()
    [line] = [line for line in told(around, Level.WARN) if "API keys" in line]
    assert f"7 keys ({ids['sk-stays']}, " in line
    assert (
        "and 2 more) without an expiry, or with one later than the 30 days of"
        " key_max_age_days" in line
    )
