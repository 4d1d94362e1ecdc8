"""Every kind of caller of `3-security.md`, 1, on one application with one database that can be put
back.

The people are those of `tests/conftest.py`. Each request comes from a loopback address of its own,
so that the rate limits, which count by address, are real and in nobody's way.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import update
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from portal.app import create_app
from portal.domain.principals import OPERATOR, Role
from portal.domain.upstream import ToolDefinition
from portal.services.access import keys, principals, sessions, teams, users
from portal.services.access.keys import KeyDraft
from portal.services.audit import trail
from portal.services.servers import tool_snapshots
from portal.services.servers.grants import ObjectPermission
from portal.services.tools import toolsets
from portal.services.tools.toolsets import ToolRef
from portal.settings import Settings
from portal.store import schema
from portal.store.database import Database
from portal.store.models import ApiKey, Server, Toolset
from tests.conftest import CREW, KEYS, NOTES, add_people, open_quickly
from tests.support import documents
from tests.support.factories import (
    NOBODY_LISTENS,
    PASSWORD,
    make_group,
    make_key,
    make_server,
    make_user,
)
from tests.support.kept import remember

HIDDEN = "id-hidden"
BYOK = "id-byok"
WAITING = "id-waiting"
OAUTH = "id-signed"
GROUP = "tools"
SPARE_KEY = "spare-key"
TOOLSET = "id-adding"
SESSIONS = {"viewer": "vic", "member": "mel", "outsider": "otto", "reader": "vera", "admin": "ada"}
KEY_CALLERS = {
    "k-viewer": "vic",
    "k-member": "mel",
    "k-outsider": "otto",
    "k-reader": "vera",
    "k-admin": "ada",
}
CALLERS = (
    "nobody",
    "ended",
    *SESSIONS,
    *KEY_CALLERS,
    "k-narrow",
    "k-restr",
    "k-restr-a",
    "k-team",
    "k-expired",
    "k-revoked",
    "k-gone",
    "k-unknown",
    "k-own",
    "k-leaver",
    "promoted",
    "demoted",
)
_TOKEN = re.compile(r'name="csrf_token"[^>]*value="([^"]+)"')
_HOSTS = count(1)


@dataclass
class Caller:
    """Somebody who asks; `token` is the CSRF token of their browser, blank for keys."""

    name: str
    client: FlaskClient
    headers: dict[str, str] = field(default_factory=dict)
    token: str = ""
    cookie: str | None = None

    def remember(self) -> None:
        """Take the cookie that `put_back` goes back to."""
        found = None if self.headers else self.client.get_cookie("portal")
        self.cookie = found.value if found else None

    def put_back(self) -> None:
        """Send the first cookie again, whatever was signed in or out meanwhile."""
        if self.cookie is not None:
            self.client.set_cookie("portal", self.cookie)

    def ask(self, method: str, path: str, *, csrf: bool = True, **options: Any) -> TestResponse:
        """Send a request; `options` are werkzeug's."""
        headers = {**self.headers, **options.pop("headers", {})}
        if csrf and self.token and method not in ("GET", "HEAD", "OPTIONS"):
            headers["X-CSRFToken"] = self.token
        answer = self.client.open(
            path, method=method, headers=headers, environ_base=_next_address(), **options
        )
        documents.check(self.client.application, answer)
        return answer


@dataclass
class World:
    """The application, its database, and all who ask."""

    app: Flask
    database: Database
    settings: Settings
    callers: dict[str, Caller] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    _put_rows_back: Callable[[], None] | None = None

    def remember(self) -> None:
        """Take the state that `put_back` goes back to."""
        self._put_rows_back = remember(self.database)
        for caller in self.callers.values():
            caller.remember()

    def put_back(self) -> None:
        """Undo all that was written, signed in and signed out since `remember`."""
        assert self._put_rows_back is not None
        self._put_rows_back()
        for caller in self.callers.values():
            caller.put_back()

    def browser(self, name: str, person: str) -> Caller:
        """A new caller: a browser in which `person` has signed in."""
        client = self.app.test_client()
        token = token_in(client.get("/login", environ_base=_next_address()))
        fields = {"email": f"{person}@example.com", "password": PASSWORD, "csrf_token": token}
        answer = client.post("/login", data=fields, environ_base=_next_address())
        assert answer.status_code == 303, answer.get_data(as_text=True)
        return Caller(
            name, client, {}, token_in(client.get("/profile", environ_base=_next_address()))
        )

    def with_key(self, name: str, secret: str) -> Caller:
        """A new caller: a program that sends a key."""
        client = self.app.test_client(use_cookies=False)
        return Caller(name, client, {"Authorization": f"Bearer {secret}"})


def token_in(response: TestResponse) -> str:
    """The CSRF token of a page."""
    found = _TOKEN.search(response.get_data(as_text=True))
    assert found, "the page has no form with a CSRF token"
    return found[1]


def _next_address() -> dict[str, str]:
    number = next(_HOSTS)
    return {"REMOTE_ADDR": f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}


@contextmanager
def opened_world(settings: Settings) -> Iterator[World]:
    """A migrated database with the people in it, and the application on top."""
    database = open_quickly(settings)
    schema.upgrade(database.engine)
    with database.session(writes=True) as session:
        add_people(session)
        session.commit()
    yield World(create_app(settings, database=database), database, settings)
    database.engine.dispose()


def add_callers(world: World) -> None:
    """Everybody of the table: sessions of each role, keys of each kind, those that no longer open
    anything."""
    with world.database.session(writes=True) as session:
        world.ids = _add_targets(session)
        secrets = _issue_special_keys(session)
        session.commit()
    stranger = world.app.test_client()
    token = token_in(stranger.get("/login", environ_base=_next_address()))
    world.callers = {
        "nobody": Caller("nobody", stranger, {}, token),
        "ended": _ended_session(world),
    }
    world.callers |= {name: world.browser(name, person) for name, person in SESSIONS.items()}
    world.callers |= {
        name: world.with_key(name, KEYS[person]) for name, person in KEY_CALLERS.items()
    }
    world.callers |= {name: world.with_key(name, secret) for name, secret in secrets.items()}


def _add_targets(session: Session) -> dict[str, str]:
    """What the routes of the table are asked about; answers the values of the rules' parameters."""
    make_server(session, "hidden")
    make_server(session, "byok", auth_type="bearer_token", is_byok=True)
    make_server(
        session,
        "signed",
        auth_type="oauth2",
        credentials={"client_id": "portal"},
        authorization_url=f"{NOBODY_LISTENS}/authorize",
        token_url=f"{NOBODY_LISTENS}/token",
    )
    make_server(session, "waiting")
    submitted = {
        "submitted_by": "mel",
        "submitted_team_id": CREW,
        "submitted_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    waits = update(Server).where(Server.server_id == WAITING)
    session.execute(waits.values(approval_status="pending_review", **submitted))
    group_id = make_group(session, GROUP, (BYOK, OAUTH))
    teams.change_team(session, OPERATOR, CREW, {}, access_group_ids=[group_id])
    make_user(session, "guest", Role.VIEWER)
    session.flush()
    made = toolsets.create_toolset(session, OPERATOR, "adding", None, []).toolset_id
    session.execute(update(Toolset).where(Toolset.toolset_id == made).values(toolset_id=TOOLSET))
    session.expire_all()
    toolsets.change_toolset(session, OPERATOR, TOOLSET, tools=[ToolRef(NOTES, "add")])
    crew = ObjectPermission(mcp_servers=(NOTES,), mcp_toolsets=(TOOLSET,))
    teams.change_team(session, OPERATOR, CREW, {}, permission=crew)
    issued = keys.issue_key(
        session, OPERATOR, KeyDraft(key_alias="spare", user_id="mel")
    ).view.key_id
    session.execute(update(ApiKey).where(ApiKey.key_id == issued).values(key_id=SPARE_KEY))
    add_tool_change(session)
    event_id = trail.list_events(session, OPERATOR, trail.EventFilter(), limit=1).items[0].event_id
    return {
        "server_id": NOTES,
        "team_id": CREW,
        "user_id": "guest",
        "key_id": SPARE_KEY,
        "filename": "portal.css",
        "group_id": group_id,
        "access_group_id": group_id,
        "event_id": event_id,
        "prefix": "notes",
        "flow_id": "no-such-flow",
        "toolset_id": TOOLSET,
        "toolset_name": "adding",
        "name": "local.127-0-0-1/notes",
        "version": "latest",
        "operation_id": "users_list",
    }


def add_tool_change(session: Session) -> None:
    """Two tools of `notes` that were accepted, of which one is gone since."""
    row = session.get_one(Server, NOTES)
    for names in (("add", "gone"), ("add",)):
        entries = tool_snapshots.entries_of(
            [ToolDefinition({"name": name, "inputSchema": {}}) for name in names]
        )
        tool_snapshots.compare_tools(
            session, OPERATOR, tool_snapshots.subject_of(row), entries, by_admin=True
        )


def _issue_special_keys(session: Session) -> dict[str, str]:
    draft = KeyDraft(key_alias="revoked", user_id="ada")
    revoked = keys.issue_key(session, OPERATOR, draft)
    keys.revoke_key(session, OPERATOR, revoked.view.key_id)
    expired = keys.issue_key(session, OPERATOR, KeyDraft(key_alias="expired", user_id="ada"))
    past = datetime(2026, 1, 1, tzinfo=UTC)
    session.execute(
        update(ApiKey).where(ApiKey.key_id == expired.view.key_id).values(expires_at=past)
    )
    make_user(session, "gone", Role.ADMIN)
    inactive = make_key(session, user_id="gone")
    users.change_user(session, OPERATOR, "gone", {"is_active": False}, ObjectPermission())
    return {
        "k-narrow": make_key(session, user_id="ada", mcp_servers=(NOTES,)),
        "k-restr": KEYS["kit"],
        "k-restr-a": make_key(session, user_id="ada", routes=("/v1/",)),
        "k-team": make_key(session, team_id=CREW),
        "k-expired": expired.key,
        "k-revoked": revoked.key,
        "k-gone": inactive,
        "k-unknown": "sk-nobody-ever-issued-this-key-0123456789",
        "k-own": _own_key(session, "mel"),
        **_keys_of_the_changed(session),
    }


def _own_key(session: Session, name: str, team_id: str | None = None) -> str:
    """A key that a person made for themselves."""
    person = principals.principal_for_user(session, name, "127.0.0.1")
    return keys.issue_own_key(session, person, KeyDraft(key_alias="own", team_id=team_id)).key


def _keys_of_the_changed(session: Session) -> dict[str, str]:
    """Keys whose owners became something else since: they left the team, were made Admin, or no
    longer are."""
    for name, role in (("lea", Role.MEMBER), ("pia", Role.MEMBER), ("dan", Role.ADMIN)):
        make_user(session, name, role)
    for name in ("lea", "pia"):
        teams.put_member(session, OPERATOR, CREW, name, "user")
    made = {
        "k-leaver": _own_key(session, "lea", CREW), "promoted": _own_key(session, "pia"),
        "demoted": _own_key(session, "dan"),
    }  # fmt: skip
    teams.remove_member(session, OPERATOR, CREW, "lea")
    users.change_user(session, OPERATOR, "pia", {"role": Role.ADMIN.value}, None)
    users.change_user(session, OPERATOR, "dan", {"role": Role.MEMBER.value}, None)
    return made


def _ended_session(world: World) -> Caller:
    """A browser that still sends the cookie of a session that an Admin's browser had, and that was
    ended."""
    caller = world.browser("ended", "ada")
    cookie = caller.client.get_cookie("portal")
    assert cookie is not None
    with world.database.session(writes=True) as session:
        sessions.end_session(session, cookie.value)
        session.commit()
    return caller
