"""The portal under test: a real application on a real database, and the people who use it.

The people are always the same. Ada is Admin and Vera Read-only admin; Mel and the Viewer Vic are
members of the team `crew`, which is granted the server `notes`; Otto is a Member without grants;
Kit is a restricted key of Mel's. All but Kit can sign in.

A test that asks for the portal or a part of it runs twice, on SQLite and on PostgreSQL, because
`database_kind` says so; `TEST_DATABASE=sqlite` or `postgresql` keeps to one of them.
"""

import base64
import gc
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from flask import Flask
from flask.testing import FlaskClient
from jinja2.bccache import Bucket, BytecodeCache
from sqlalchemy import event, text
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from portal.app import create_app, open_database
from portal.domain.principals import OPERATOR, Role
from portal.services.operations import revocations
from portal.settings import Settings, read_settings
from portal.store import schema, watching
from portal.store.database import Database
from portal.web.limits import limiter
from tests.support import documents
from tests.support.factories import PASSWORD, make_key, make_server, make_team, make_user
from tests.support.kept import remember
from tests.support.peers import new_database

pytest_plugins = [
    "tests.support.peers",
    "tests.support.oauth_peers",
    "tests.support.oauth.adding",
    "tests.support.security.worlds",
]

KEYS = {
    name: f"sk-SECRET-key-of-{name}-0123456789"
    for name in ("ada", "vera", "mel", "vic", "otto", "kit")
}
NOTES = "id-notes"
CREW = "team-crew"
KINDS = [kind] if (kind := os.environ.get("TEST_DATABASE")) else ["sqlite", "postgresql"]
Write = Callable[[], AbstractContextManager[Session]]


class _Compiled(BytecodeCache):
    """Templates as code, for all applications of this process: each would compile those that it
    renders anew."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self._kept:
            bucket.bytecode_from_string(self._kept[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._kept[bucket.key] = bucket.bytecode_to_string()


# How long an example takes says how busy the machine is; what hangs has the time-out of its test.
# The first text, which takes a table of Unicode, may be slow, too.
hypothesis.settings.register_profile(
    "portal", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("portal")
Flask.jinja_options = {**Flask.jinja_options, "bytecode_cache": _Compiled()}


def pytest_collection_finish() -> None:
    """What was imported and collected stays; the garbage collector need not look through it again
    and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Keep the umask of the process: a command that a test runs in it sets another, as it would in
    its own process."""
    before = os.umask(0o022)
    yield
    os.umask(before)


class Client:
    """Asks the API as somebody: `client("mel").get("/v1/mcp/server")`; answers werkzeug's
    `TestResponse`."""

    def __init__(self, flask_client: FlaskClient, headers: dict[str, str]) -> None:
        self._client, self._headers = flask_client, headers

    def ask(self, method: str, path: str, **options: Any) -> TestResponse:
        """Send a request; `options` are werkzeug's, `headers` are added to those that say who
        asks."""
        headers = {**self._headers, **options.pop("headers", {})}
        answer = self._client.open(path, method=method, headers=headers, **options)
        documents.check(self._client.application, answer)
        return answer

    def with_csrf(self) -> "Client":
        """A signed-in client that also sends its session's CSRF token, as a page's script would."""
        token = _csrf_token(self.get("/profile"))
        return Client(self._client, {**self._headers, "X-CSRFToken": token})

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.ask("GET", path, **options)

    def post(self, path: str, json: object = None, **options: Any) -> TestResponse:
        return self.ask("POST", path, json=json, **options)

    def put(self, path: str, json: object = None, **options: Any) -> TestResponse:
        return self.ask("PUT", path, json=json, **options)

    def patch(self, path: str, json: object = None, **options: Any) -> TestResponse:
        return self.ask("PATCH", path, json=json, **options)

    def delete(self, path: str, **options: Any) -> TestResponse:
        return self.ask("DELETE", path, **options)


def _csrf_token(page: TestResponse) -> str:
    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.get_data(as_text=True))
    assert found, "the page has a form with a CSRF token"
    return found[1]


def make_settings(database_url: str, **overrides: Any) -> Settings:
    """Settings for tests: quick hashes, a known key ring, loopback upstreams allowed."""
    environment = {
        "PORTAL_DATABASE_URL": database_url,
        "PORTAL_SECRET_KEY": "SECRET" * 8,
        "PORTAL_ENCRYPTION_KEYS": "k1:"
        + base64.b64encode(b"SECRET-key-ring-of-32-bytes-test").decode(),
        "PORTAL_PUBLIC_URL": "http://127.0.0.1:8000",
        "PORTAL_ALLOW_PRIVATE_UPSTREAMS": "true",
    }
    return read_settings(environment, cheap_hashing=True, **overrides)


def open_quickly(settings: Settings) -> Database:
    """The database, waiting for no disk: nothing in it outlives the run. PostgreSQL is started
    so."""
    database = open_database(settings)
    if settings.embedded:
        event.listen(
            database.engine,
            "connect",
            lambda connection, _: connection.execute("PRAGMA synchronous=OFF"),
        )
    return database


def add_people(session: Session) -> None:
    """Write the people, their team, its server and their keys."""
    make_server(session, "notes")
    roles = {
        "ada": Role.ADMIN,
        "vera": Role.ADMIN_VIEWER,
        "mel": Role.MEMBER,
        "vic": Role.VIEWER,
        "otto": Role.MEMBER,
    }
    for name, role in roles.items():
        make_user(session, name, role)
    make_team(session, "crew", members=("mel", "vic"), mcp_servers=(NOTES,))
    for name in roles:
        make_key(
            session,
            user_id=name,
            team_id=CREW if name in ("mel", "vic") else None,
            secret=KEYS[name],
        )
    make_key(session, user_id="mel", team_id=CREW, secret=KEYS["kit"], routes=("/v1/mcp", "/v1/me"))


@dataclass(frozen=True)
class Portal:
    """An application on its database. It is made once for each kind of database; every test begins
    with fresh data."""

    settings: Settings
    database: Database
    app: Flask
    put_back: Callable[[], None]

    def begin_afresh(self) -> None:
        """Put back the data that every test begins with."""
        limiter.reset()
        self.put_back()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """`empty_database("sqlite")` or `empty_database("postgresql")`: the URL of a new one with
    nothing in it."""
    numbers = count(1)

    def making(kind: str) -> str:
        if kind == "postgresql":
            return new_database(f"new_{next(numbers)}")
        return f"sqlite:///{tmp_path_factory.mktemp(kind)}/portal.db"

    return making


@pytest.fixture(scope="session")
def copy_of(empty_database: Callable[[str], str]) -> Callable[[str], str]:
    """`copy_of(url)`: the URL of a new database that holds what the one at `url` does, with the
    files beside it, while nobody has that open. Its journal is its own, not one that was put
    back."""
    numbers = count(1)

    def copying(url: str) -> str:
        if not url.startswith("sqlite"):
            copied = new_database(f"copy_{next(numbers)}", like=url.rpartition("/")[2])
            engine = open_database(make_settings(copied)).engine
            with engine.begin() as connection:
                made_as = watching.made_as(connection)
                own = text(f"update {watching.SCHEMA}.identity set made_as = :made_as")
                connection.execute(own, {"made_as": made_as})
            engine.dispose()
            return copied
        original = Path(url.removeprefix("sqlite:///"))
        copied = empty_database("sqlite")
        for path in original.parent.glob(f"{original.name}*"):
            shutil.copy2(path, Path(copied.removeprefix("sqlite:///")).parent)
        return copied

    return copying


@pytest.fixture(scope="session")
def started(
    empty_database: Callable[[str], str], copy_of: Callable[[str], str]
) -> Callable[[str], str]:
    """`started("sqlite")` or `started("postgresql")`: the URL of a new database of a portal that
    was started once, with the people."""
    first: dict[str, str] = {}

    def making(kind: str) -> str:
        if kind not in first:
            url = empty_database(kind)
            database = open_quickly(make_settings(url))
            schema.upgrade(database.engine)
            with database.session(writes=True) as session:
                revocations.reconcile(session, OPERATOR)
            with database.session(writes=True) as session:
                add_people(session)
                session.commit()
            database.engine.dispose()
            first[kind] = url
        return copy_of(first[kind])

    return making


@pytest.fixture(scope="session")
def portal_on(empty_database: Callable[[str], str]) -> Iterator[Callable[[str], Portal]]:
    """`portal_on("sqlite")` or `portal_on("postgresql")`: the portal on such a database."""
    made: dict[str, Portal] = {}

    def on(kind: str) -> Portal:
        if kind not in made:
            settings = make_settings(empty_database(kind))
            database = open_quickly(settings)
            schema.upgrade(database.engine)
            with database.session(writes=True) as session:
                add_people(session)
                session.commit()
            made[kind] = Portal(
                settings, database, create_app(settings, database=database), remember(database)
            )
        return made[kind]

    yield on
    for portal in made.values():
        portal.database.engine.dispose()


@pytest.fixture(params=KINDS)
def database_kind(request: pytest.FixtureRequest) -> str:
    """`sqlite` and `postgresql`, one after the other; a test that wants but one may parametrize
    it."""
    return str(request.param)


@pytest.fixture
def portal(portal_on: Callable[[str], Portal], database_kind: str) -> Portal:
    """The portal as every test finds it: with the people, and nothing else."""
    portal = portal_on(database_kind)
    portal.begin_afresh()
    return portal


@pytest.fixture(scope="session")
def others() -> dict[Any, Portal]:
    """The applications with other settings that were made so far."""
    return {}


@pytest.fixture
def portal_with(portal: Portal, others: dict[Any, Portal]) -> Iterator[Callable[..., Portal]]:
    """`portal_with(enable_stdio=True)`: another application on the database of `portal`, with some
    settings changed.

    It is made once for all tests that ask for the same, and keeps no connection when a test is
    over.
    """
    asked: list[Portal] = []

    def having(**changes: Any) -> Portal:
        key = (portal.settings.database_url, *sorted(changes.items()))
        if key not in others:
            changed = portal.settings.model_copy(update=changes)
            own = open_quickly(changed)
            others[key] = Portal(changed, own, create_app(changed, database=own), portal.put_back)
        asked.append(others[key])
        return others[key]

    yield having
    for other in asked:
        other.database.engine.dispose()


@pytest.fixture
def settings(portal: Portal) -> Settings:
    """The operator's settings."""
    return portal.settings


@pytest.fixture
def database(portal: Portal) -> Database:
    """The database."""
    return portal.database


@pytest.fixture
def app(portal: Portal) -> Flask:
    """The whole web application."""
    return portal.app


@pytest.fixture
def write(database: Database) -> Write:
    """`with write() as session:` changes the database for what follows; commits at the end."""

    @contextmanager
    def writing() -> Iterator[Session]:
        with database.session(writes=True) as session:
            yield session
            session.commit()

    return writing


@pytest.fixture
def client(app: Flask) -> Callable[[str | None], Client]:
    """`client("ada")` asks with Ada's key, `client("sk-…")` with that key, `client(None)` with
    none."""

    def asking(as_: str | None) -> Client:
        headers = {} if as_ is None else {"Authorization": f"Bearer {KEYS.get(as_, as_)}"}
        return Client(app.test_client(use_cookies=False), headers)

    return asking


@pytest.fixture
def signed_in(app: Flask) -> Callable[[str], Client]:
    """`signed_in("mel")` asks with the session cookie of a browser in which Mel has signed in."""

    def asking(name: str) -> Client:
        browser = app.test_client()
        token = _csrf_token(browser.get("/login"))
        fields = {"email": f"{name}@example.com", "password": PASSWORD, "csrf_token": token}
        answer = browser.post("/login", data=fields)
        assert answer.status_code == 303, answer.get_data(as_text=True)
        return Client(browser, {})

    return asking
