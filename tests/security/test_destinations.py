"""No stored secret goes where nobody sent it: every secret, every field that moves it, every path.

Each row makes a server with one marked secret at home, asks for a change by one path, and then uses
the server, so that a secret that went along would reach the foreign sink. Nothing may reach it
unasked, and the refusal names it.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from portal.app import create_app
from portal.domain import destinations
from portal.domain.principals import OPERATOR
from portal.services.catalog import imports
from portal.services.oauth_client import held_definitions
from portal.services.operations import bootstrap
from portal.services.secrets.server_definition import opened
from portal.store.models import Server
from portal.store.oauth_tables import TemporaryServer
from portal.upstream.sandbox import Sandbox
from tests.conftest import KEYS, KINDS, make_settings
from tests.services.operations.test_revocations import Site
from tests.support.factories import make_server
from tests.support.html import filled, parse
from tests.support.peers import need_sandbox
from tests.support.security.callers import World, add_callers, opened_world
from tests.support.security.foreign import SHOW
from tests.support.security.sinks import Sink, sink

API = "/v1/mcp/server"
REGISTER = "/v1/mcp/server/register"
_NUMBERS = count(1)


@dataclass
class Place:
    """The portal, what is at home and what is foreign."""

    world: World
    home: Sink
    foreign: Sink

    def fill(self, value: Any, mark: str) -> Any:
        """A definition with its placeholders filled in."""
        text = (
            json.dumps(value)
            .replace("{home}", self.home.origin)
            .replace("{foreign}", self.foreign.origin)
        )
        return json.loads(text.replace("{mark}", mark))

    def arrived(self, mark: str) -> bool:
        """Whether a marker reached anything foreign."""
        return self.foreign.holds(mark)


@pytest.fixture(scope="module", params=KINDS)
def place(request: pytest.FixtureRequest, empty_database: Any) -> Iterator[Place]:
    need_sandbox(Sandbox())
    settings = make_settings(
        empty_database(request.param), enable_stdio=True, bootstrap_admin_email="x@example.com"
    )
    with opened_world(settings) as world, sink() as home, sink() as foreign:
        add_callers(world)
        yield Place(world, home, foreign)


@dataclass(frozen=True)
class Secret:
    """One stored secret: the definition that holds it, and what people store beside; `name` as a
    refusal names it."""

    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    people: tuple[str, dict[str, Any]] | None = None
    member: bool = True  # whether a Member's submission can have it


_OAUTH = {"auth_type": "oauth2", "oauth2_flow": "client_credentials"}
_CLIENT = {"client_id": "portal", "client_secret": "{mark}"}
_EXCHANGE = {"token_exchange_endpoint": "{home}/exchange"}
_CONNECTED = (
    "oauth-user-credential",
    {"access_token": "{mark}", "refresh_token": "r", "expires_in": 3600},
)
_VARIABLE = {"static_headers": {"X-Key": "${KEY}"}, "env_vars": [{"name": "KEY", "scope": "user"}]}
SECRETS = {
    "header": Secret("static_headers.X-Key", {"static_headers": {"X-Key": "{mark}"}}),
    "global": Secret(
        "env_vars.KEY",
        {
            "static_headers": {"X-Key": "${KEY}"},
            "env_vars": [{"name": "KEY", "value": "{mark}", "scope": "global"}],
        },
    ),
    "auth_value": Secret(
        "credentials.auth_value",
        {"auth_type": "bearer_token", "credentials": {"auth_value": "{mark}"}},
    ),
    "aws": Secret(
        "credentials.aws_access_key_id",
        {
            "auth_type": "aws_sigv4",
            "credentials": {"aws_access_key_id": "{mark}", "aws_secret_access_key": "s"},
        },
    ),
    "values": Secret(
        "people.values", _VARIABLE, ("user-env-vars", {"values": {"KEY": "{mark}"}}), member=False
    ),
    "keys": Secret(
        "people.keys",
        {"auth_type": "bearer_token", "is_byok": True},
        ("user-credential", {"credential": "{mark}"}),
    ),
    "client": Secret(
        "credentials.client_secret", {**_OAUTH, "token_url": "{home}/token", "credentials": _CLIENT}
    ),
    "discovered": Secret("credentials.client_secret", {**_OAUTH, "credentials": _CLIENT}),
    "exchanging": Secret(
        "credentials.client_secret",
        {
            "auth_type": "oauth2_token_exchange",
            "token_url": "{home}/token",
            "authorization_url": "{home}/authorize",
            "credentials": {**_CLIENT, **_EXCHANGE},
        },
        ("oauth-user-credential", {"access_token": "s", "expires_in": 3600}),
    ),
    "subject": Secret(
        "people.connections",
        {
            "auth_type": "oauth2_token_exchange",
            "token_url": "{home}/token",
            "authorization_url": "{home}/authorize",
            "credentials": {"client_id": "portal", **_EXCHANGE},
        },
        _CONNECTED,
        member=False,
    ),
    "document": Secret(
        "static_headers.X-Key",
        {"url": None, "spec_path": "{home}/openapi.json", "static_headers": {"X-Key": "{mark}"}},
    ),
    "env": Secret(
        "env.API_TOKEN",
        {
            "transport": "stdio",
            "url": None,
            "command": "python3",
            "args": ["-c", "1"],
            "env": {"API_TOKEN": "{mark}"},
        },
    ),
    "args": Secret(
        "args",
        {"transport": "stdio", "url": None, "command": "python3", "args": ["-c", "1", "{mark}"]},
    ),
}
_URL = {"url": "{foreign}/mcp"}
_COMMAND = {"transport": "stdio", "command": "python3", "args": ["-c", SHOW]}
CHANGES = {
    "url": _URL,
    "downgrade": {"url": "{foreign}/mcp", "transport": "sse"},
    "spec_path": {"spec_path": "{foreign}/openapi.json"},
    "token_url": {"token_url": "{foreign}/token"},
    "no token_url": {"clear_secrets": ["token_url"]},
    "exchange": {"credentials": {"token_exchange_endpoint": "{foreign}/exchange"}},
    "authorization_url": {"authorization_url": "{foreign}/authorize"},
    "to a command": _COMMAND,
    "args": {"args": ["-c", SHOW]},
    "command": {"command": "node"},
    "sign-in": {"auth_type": "oauth2_token_exchange", "token_url": "{foreign}/token"},
    "flow": {"oauth2_flow": "authorization_code", "token_url": "{foreign}/token"},
}
_RESOURCE = ("header", "global", "auth_value", "aws", "values", "keys")
MOVES = {
    "url": (*_RESOURCE, "discovered", "subject"),
    "downgrade": _RESOURCE,
    "spec_path": ("document",),
    "token_url": ("client", "discovered", "exchanging", "subject"),
    "no token_url": ("client", "exchanging"),
    "exchange": ("exchanging", "subject"),
    "authorization_url": (),
    "to a command": _RESOURCE,
    "args": ("env",),
    "command": ("env", "args"),
    "sign-in": ("client", "discovered"),
    "flow": ("discovered",),
}
"""Which secrets each change moves: the rows of the table. `authorization_url` has a row of its own
below."""


def planted(place: Place, secret: Secret, **beside: Any) -> tuple[str, str]:
    """A server with the secret in it; answers its id and the marker."""
    number = next(_NUMBERS)
    mark = f"MARK{number:05}END"
    name = f"s{number}"
    with place.world.database.session(writes=True) as session:
        row = {"url": "{home}/mcp", "allow_all_keys": True, **secret.fields, **beside}
        make_server(
            session,
            name,
            **place.fill({k: v for k, v in row.items() if v is not None}, mark),
            **({"url": None} if secret.fields.get("url", "") is None else {}),
        )
        session.commit()
    if secret.people:
        what, body = secret.people
        caller = place.world.callers["k-admin"]
        answer = caller.ask("POST", f"{API}/id-{name}/{what}", json=place.fill(body, mark))
        assert answer.status_code == 200, answer.get_data(as_text=True)
    return f"id-{name}", mark


def use(place: Place, server_id: str) -> None:
    """Call a tool: whatever would be sent upstream is."""
    body = {"server_id": server_id, "name": "x", "arguments": {}}
    place.world.callers["k-admin"].ask("POST", "/v1/mcp/tools/call", json=body)


def try_out(place: Place, server_id: str) -> None:
    """The same in the playground, and a look at its health."""
    admin = place.world.callers["admin"]
    admin.ask("POST", "/playground/call", data={"server": server_id, "tool": "x"})
    admin.ask("POST", f"/servers/{server_id}/probe")


def by_api(place: Place, server_id: str, change: dict[str, Any]) -> str:
    answer = place.world.callers["k-admin"].ask("PUT", API, json={"server_id": server_id, **change})
    if answer.status_code == 409:
        assert answer.get_json()["detail"]["error"] == "credentials_would_move"
        return json.dumps(answer.get_json())
    assert answer.status_code == 202, answer.get_data(as_text=True)
    return ""


def typed(place: Place, server_id: str, change: dict[str, Any]) -> dict[str, Any]:
    page = parse(place.world.callers["admin"].ask("GET", f"/servers/{server_id}/edit"))
    data = filled(page.find("form", attrs={"data-guard": True}))
    flat = {**change, **(change.get("credentials") or {})}
    flat.pop("credentials", None)
    data |= {f"{name}__mode": "clear" for name in flat.pop("clear_secrets", ())}
    for name, value in flat.items():
        data[name] = "\n".join(value) if isinstance(value, list) else value
        data[f"{name}__mode"] = "replace"
    if change.get("spec_path"):
        data["transport"] = "openapi"
    return data


def by_form(place: Place, server_id: str, change: dict[str, Any]) -> str:
    data = {**typed(place, server_id, change), "save": "yes"}
    answer = place.world.callers["admin"].ask("POST", f"/servers/{server_id}/edit", data=data)
    return "" if answer.status_code == 303 else answer.get_data(as_text=True)


def by_try(place: Place, server_id: str, change: dict[str, Any]) -> str:
    answer = place.world.callers["admin"].ask(
        "POST", "/servers/test", data=typed(place, server_id, change)
    )
    return answer.get_data(as_text=True)


def by_draft(place: Place, server_id: str, change: dict[str, Any]) -> str:
    data = {
        **typed(place, server_id, change),
        "sign_in": "yes",
        "oauth2_flow": "authorization_code",
    }
    answer = place.world.callers["admin"].ask("POST", f"/servers/{server_id}/edit", data=data)
    with place.world.database.session() as session:
        held = [
            held_definitions.contents_of(session, found)
            for found in session.scalars(select(TemporaryServer.server_id))
        ]
    # What is held is sent there as soon as somebody signs in with it.
    place.foreign.heard += [
        json.dumps(h).encode() for h in held if place.foreign.origin in json.dumps(h)
    ]
    return answer.get_data(as_text=True)


def _document(server_id: str, change: dict[str, Any]) -> str:
    entry = {name: value for name, value in change.items() if name in ("url", "command", "args")}
    entry |= {"command": "python3"} if "args" in change and "command" not in change else {}
    return json.dumps({"mcpServers": {server_id.removeprefix("id-"): entry}})


def by_import_page(place: Place, server_id: str, change: dict[str, Any]) -> str:
    admin = place.world.callers["admin"]
    assert (
        admin.ask(
            "POST", "/servers/import", data={"text": _document(server_id, change)}
        ).status_code
        == 303
    )
    shown = admin.ask("GET", "/servers/import/preview").get_data(as_text=True)
    answer = admin.ask("POST", "/servers/import/preview", data={"take": "0"})
    return "" if answer.status_code == 303 else shown


def by_import_command(place: Place, server_id: str, change: dict[str, Any]) -> str:
    with place.world.database.session(writes=True) as session:
        found = imports.import_text(session, OPERATOR, _document(server_id, change), update=True)
        session.commit()
    return " ".join(why for _, _, why in found.errors)


def by_config(place: Place, server_id: str, change: dict[str, Any]) -> str:
    with place.world.database.session(writes=True) as session:
        for row in session.scalars(select(Server).where(Server.origin == "config")):
            row.origin = "database"
        row = session.get_one(Server, server_id)
        row.origin = "config"
        session.flush()
        entry: dict[str, Any] = {
            "server_id": server_id,
            "transport": row.transport,
            "auth_type": row.auth_type,
        }
        entry |= {"url": opened(session, row).urls.get("url"), "allow_all_keys": True, **change}
        entry |= {"command": change.get("command", row.command)} if row.command else {}
        entry = {
            name: value for name, value in entry.items() if value is not None or name in change
        }
        faults = bootstrap.apply_config(
            session, OPERATOR, {"mcp_servers": {str(row.server_name): entry}}
        )
        session.commit()
    return " ".join(faults)


def _submitted(place: Place, server_id: str, status: str) -> None:
    with place.world.database.session(writes=True) as session:
        row = session.get_one(Server, server_id)
        row.submitted_by, row.submitted_team_id, row.approval_status = "mel", "team-crew", status
        row.submitted_at = row.created_at
        session.commit()


def by_proposal(place: Place, server_id: str, change: dict[str, Any]) -> str:
    _submitted(place, server_id, "active")
    answer = place.world.callers["k-member"].ask("PUT", f"{REGISTER}/{server_id}", json=change)
    if answer.status_code == 409:
        return answer.get_data(as_text=True)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    approved = place.world.callers["k-admin"].ask("PUT", f"{API}/{server_id}/approve")
    return approved.get_data(as_text=True) if approved.status_code == 409 else ""


def by_approval(place: Place, server_id: str, change: dict[str, Any]) -> str:
    """What was proposed when nothing was stored that it would move is judged on the row of the
    approval."""
    with place.world.database.session() as session:
        row = session.get_one(Server, server_id)
        found = opened(session, row, credentials=True)
        kept = {
            "static_headers": dict(found.static_headers),
            "credentials": dict(found.credentials),
        }
        kept["env_vars"] = [
            {"name": n, "value": v, "scope": "global"} for n, v in found.globals.items()
        ]
    by_api(
        place, server_id, {"static_headers": {}, "env_vars": [], "clear_secrets": ["credentials"]}
    )
    _submitted(place, server_id, "active")
    answer = place.world.callers["k-member"].ask("PUT", f"{REGISTER}/{server_id}", json=change)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    by_api(place, server_id, kept)
    approved = place.world.callers["k-admin"].ask("PUT", f"{API}/{server_id}/approve")
    return approved.get_data(as_text=True) if approved.status_code == 409 else ""


def by_resubmission(place: Place, server_id: str, change: dict[str, Any]) -> str:
    _submitted(place, server_id, "pending_review")
    answer = place.world.callers["k-member"].ask("PUT", f"{REGISTER}/{server_id}", json=change)
    place.world.callers["k-admin"].ask("PUT", f"{API}/{server_id}/approve")
    return answer.get_data(as_text=True) if answer.status_code == 409 else ""


def by_temporary(place: Place, server_id: str, change: dict[str, Any]) -> str:
    """A definition under test that inherits what is stored; looked at where it is held."""
    with place.world.database.session() as session:
        row = session.get_one(Server, server_id)
        whole = {
            "transport": row.transport,
            "auth_type": row.auth_type,
            "oauth2_flow": row.oauth2_flow,
        }
        whole |= dict(opened(session, row).urls)
    whole = {
        name: value for name, value in whole.items() if name not in change.get("clear_secrets", ())
    }
    body = {"server_id": server_id, "server_name": server_id[3:], **whole, **change}
    answer = place.world.callers["k-admin"].ask("POST", f"{API}/oauth/session", json=body)
    assert answer.status_code in (200, 201, 409), answer.get_data(as_text=True)
    with place.world.database.session() as session:
        held = held_definitions.contents_of(session, server_id)
        place.foreign.heard.append(json.dumps(held).encode())
    return answer.get_data(as_text=True) if answer.status_code == 409 else ""


PATHS: dict[str, Callable[[Place, str, dict[str, Any]], str]] = {
    "API": by_api,
    "form": by_form,
    "import page": by_import_page,
    "import command": by_import_command,
    "config file": by_config,
    "proposal": by_proposal,
    "approval": by_approval,
    "resubmission": by_resubmission,
    "temporary server": by_temporary,
    "connection test": by_try,
    "sign-in of a draft": by_draft,
}
_OF_MEMBERS = ("proposal", "approval", "resubmission")
_OF_DOCUMENTS = ("import page", "import command")


def applies(path: str, change: str, name: str) -> bool:
    """Whether a path can ask for a change of a server with such a secret."""
    secret = SECRETS[name]
    stdio = SECRETS[name].fields.get("transport") == "stdio" or change == "to a command"
    if path in _OF_MEMBERS:
        people = (name, path) in (
            ("exchanging", "approval"),
            ("keys", "resubmission"),
        )  # its Member has them ended
        return secret.member and not stdio and not people
    if path in _OF_DOCUMENTS:
        return change in ("url", "args")
    if path == "temporary server":
        return (
            name in ("auth_value", "aws", "client", "discovered", "exchanging")
            and not stdio
            and change not in ("flow", "exchange")
        )
    if path == "sign-in of a draft":
        return name == "discovered" and change in ("url", "token_url")
    if path == "connection test":
        return name not in ("values", "keys", "subject", "exchanging", "args") and change not in (
            "flow",
            "sign-in",
        )
    if path == "form":
        return change not in ("sign-in", "downgrade", "no token_url")
    return not (path == "config file" and change in ("no token_url", "spec_path", "to a command"))


ROWS = [
    pytest.param(path, change, name, id=f"{path}, {change}, {name}")
    for path in PATHS
    for change, names in MOVES.items()
    for name in names
    if applies(path, change, name)
]


@pytest.mark.parametrize(("path", "change", "name"), ROWS)
def test_nothing_stored_goes_elsewhere_unasked(
    place: Place, path: str, change: str, name: str
) -> None:
    secret = SECRETS[name]
    server_id, mark = planted(place, secret)
    if name == "discovered":
        use(place, server_id)  # finds the authorization server
        assert place.home.holds(mark)
    said = PATHS[path](place, server_id, place.fill(CHANGES[change], mark))
    use(place, server_id)
    if path in ("API", "approval"):  # the others lead to the same stored server
        try_out(place, server_id)
    assert not place.arrived(mark), "a stored secret reached a foreign sink"
    assert any(word in said for word in named(secret.name)), f"not refused by name: {said[-300:]}"


def test_another_path_leads_no_stored_secret_to_another_issuer(place: Place) -> None:
    """At the same origin nothing moves, and discovery is asked anew; what it finds then may be
    anybody's."""
    server_id, mark = planted(place, SECRETS["discovered"])
    use(place, server_id)
    assert place.home.holds(mark)
    place.home.issuer = place.foreign.origin
    try:
        assert by_api(place, server_id, {"url": f"{place.home.origin}/other"}) == ""
        use(place, server_id)
        by_try(place, server_id, {"url": f"{place.home.origin}/third"})
    finally:
        place.home.issuer = ""
    assert not place.arrived(mark)


_HTTP = {"static_headers": {"X-Key": "{mark}"}}
_HONEST = (  # what it sends, it sends where its variable says
    "import os, sys, urllib.request as u\nu.urlopen(os.environ.get('API_URL', '{home}') + '/api',"
    " (os.environ.get('TOKEN') or sys.argv[-1]).encode())"
)
_HIDDEN = {
    "env": {"args": ["-c", _HONEST], "env": {"TOKEN": "{mark}"}},
    "args": {"args": ["-c", _HONEST, "--token", "{mark}"], "env": {}},
}
_AWAY = {
    "MCP": {"transport": "http", "url": "{home}/mcp"},
    "SSE": {"transport": "sse", "url": "{home}/sse"},
    "document": {"transport": "http", "spec_path": "{home}/openapi.json"},
}


@pytest.fixture(scope="module", params=KINDS)
def hiding(request: pytest.FixtureRequest, empty_database: Any) -> Iterator[Place]:
    """A portal whose Admins read no value that is stored."""
    need_sandbox(Sandbox())
    settings = make_settings(
        empty_database(request.param),
        enable_stdio=True,
        write_only_globals=True,
        bootstrap_admin_email="x@example.com",
    )
    with opened_world(settings) as world, sink() as home, sink() as foreign:
        add_callers(world)
        yield Place(world, home, foreign)


@pytest.mark.parametrize("away", [None, *_AWAY])
@pytest.mark.parametrize("name", _HIDDEN)
def test_no_variable_leads_a_command_that_nobody_may_read(
    hiding: Place, name: str, away: str | None
) -> None:
    """Neither while it is a command nor while it is reached another way, in one change or in
    several."""
    command = {"transport": "stdio", "url": None, "command": "python3", **_HIDDEN[name]}
    secret = {"env": "env.TOKEN", "args": "args"}[name]
    server_id, mark = planted(hiding, Secret(secret, command))
    use(hiding, server_id)
    assert hiding.home.holds(mark), "it is used"
    apart = hiding.fill(_AWAY[away], mark) if away else {}
    beside = {"env": {**dict.fromkeys(_HIDDEN[name]["env"]), "API_URL": hiding.foreign.origin}}
    said = [by_api(hiding, server_id, {**beside, **apart})]
    if away is None:  # the form shows variables for commands only
        row = f"env-{len(beside['env']) - 1}"
        said.append(
            by_form(
                hiding, server_id, {f"{row}-name": "API_URL", f"{row}-value": hiding.foreign.origin}
            )
        )
    assert by_api(hiding, server_id, apart) == ""
    said.append(by_api(hiding, server_id, beside))
    assert by_api(hiding, server_id, {"transport": "stdio"}) == ""
    use(hiding, server_id)
    assert not hiding.arrived(mark), "a stored secret reached a foreign sink"
    assert all(any(word in text for word in named(secret)) for text in said), said


_REFERRING = {
    "MCP": (Secret("", _HTTP), "/mcp"),
    "SSE": (Secret("", {**_HTTP, "url": "{home}/sse", "transport": "sse"}), "/sse"),
    "OpenAPI document": (SECRETS["document"], "/openapi.json"),
    "token endpoint": (SECRETS["client"], "/token"),
    "exchange endpoint": (SECRETS["exchanging"], "/exchange"),
    "metadata of the resource": (SECRETS["discovered"], "/.well-known/oauth-protected-resource"),
    "metadata of the issuer": (SECRETS["discovered"], "/.well-known/oauth-authorization-server"),
}
"""What the portal fetches: a server that asks for it, and the beginning of its path."""


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("what", _REFERRING)
def test_no_redirect_leads_to_another_origin(place: Place, what: str, status: int) -> None:
    secret, path = _REFERRING[what]
    server_id, _ = planted(place, secret)
    place.home.redirects[path] = (status, f"{place.foreign.origin}{path}")
    heard = len(place.foreign.heard)
    asked = len(place.home.heard)
    try:
        use(place, server_id)
        try_out(place, server_id)
    finally:
        place.home.redirects.clear()
    assert any(found.startswith(path.encode()) for found in place.home.heard[asked:]), (
        "it was asked at all"
    )
    assert place.foreign.heard[heard:] == [], "nothing follows it"


@pytest.mark.parametrize("secret", ["header", "values"])
def test_an_sse_stream_sends_no_messages_to_another_origin(place: Place, secret: str) -> None:
    """Its `endpoint` event is the server's word, and headers with secrets would go along with every
    message."""
    told = SECRETS[secret]
    fields = {**told.fields, "url": "{home}/sse", "transport": "sse", "timeout": 1.0}
    server_id, mark = planted(place, Secret(told.name, fields, told.people))
    heard = len(place.foreign.heard)
    place.home.endpoint = f"{place.foreign.origin}/messages"
    try:
        body = {"server_id": server_id, "name": "x", "arguments": {}}
        answer = place.world.callers["k-admin"].ask("POST", "/v1/mcp/tools/call", json=body)
    finally:
        place.home.endpoint = ""
    assert place.home.holds(mark)
    assert place.foreign.heard[heard:] == []
    assert "requires messages at a different origin" in answer.get_data(as_text=True)


def test_a_restore_sends_what_came_back_only_where_it_went(
    place: Place, started: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server moved after the backup, once with what was stored forgotten, once with new values
    typed."""
    kind = place.world.database.engine.dialect.name
    site = Site(kind, started(kind), tmp_path, monkeypatch)
    heard = len(place.foreign.heard)

    def ask(method: str, path: str, body: dict[str, Any]) -> Any:
        app = create_app(site.settings, database=site.database)
        return app.test_client().open(
            path, method=method, json=body, headers={"Authorization": f"Bearer {KEYS['ada']}"}
        )

    def call_both() -> None:
        for name in ("one", "two"):
            ask(
                "POST",
                "/v1/mcp/tools/call",
                {"server_id": f"id-{name}", "name": "x", "arguments": {}},
            )

    try:
        for name in ("one", "two"):
            fields = place.fill({**_VARIABLE, "url": "{home}/mcp", "allow_all_keys": True}, "")
            fields["static_headers"] = {"X-Key": "${KEY}", "X-Own": f"RESTORED-{name}"}
            site.write(lambda session: make_server(session, name, **fields))  # noqa: B023
            value = {"values": {"KEY": f"PERSONAL-{name}"}}
            assert ask("POST", f"{API}/id-{name}/user-env-vars", value).status_code == 200
        site.back_up()
        moved = {"url": f"{place.foreign.origin}/mcp", "keep_credentials": False}
        assert ask("PUT", API, {"server_id": "id-one", **moved}).status_code == 202
        typed_anew = {"static_headers": {"X-Own": "TYPED-ANEW"}}
        assert ask("PUT", API, {"server_id": "id-two", **moved, **typed_anew}).status_code == 202
        call_both()
        after_the_move = b"".join(place.foreign.heard[heard:])
        assert (b"TYPED-ANEW" in after_the_move, b"RESTORED" in after_the_move) == (True, False)
        assert site.restore().exit_code == 0
        heard = len(place.foreign.heard)
        call_both()  # what people stored ended with the move, and is not there again
        for name in ("one", "two"):
            again = {"values": {"KEY": "AGAIN"}}
            assert ask("POST", f"{API}/id-{name}/user-env-vars", again).status_code == 200
        call_both()
    finally:
        site.database.engine.dispose()
    assert place.foreign.heard[heard:] == []
    assert not place.foreign.holds("PERSONAL")
    assert place.home.holds("RESTORED-one")
    assert place.home.holds("RESTORED-two")
    assert not place.home.holds("TYPED-ANEW")


_WITHOUT = {
    "API": "header",
    "form": "header",
    "import page": "header",
    "import command": "header",
    "config file": "values",
    "proposal": "header",
    "approval": "header",
    "resubmission": "header",
    "temporary server": "auth_value",
    "connection test": "header",
    "sign-in of a draft": "discovered",
}


@pytest.mark.parametrize("path", _WITHOUT)
def test_without_the_deciding_call_every_path_leaks(
    place: Place, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the table above would prove nothing: the same rows, with the one decision taken out."""
    monkeypatch.setattr(destinations, "moved", lambda before, after, held: ())
    server_id, mark = planted(place, SECRETS[_WITHOUT[path]])
    PATHS[path](place, server_id, place.fill(CHANGES["url"], mark))
    use(place, server_id)
    assert place.arrived(mark)


def test_without_the_deciding_call_another_command_tells_its_variables(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destinations, "moved", lambda before, after, held: ())
    server_id, mark = planted(place, SECRETS["env"])
    assert by_api(place, server_id, place.fill(CHANGES["args"], mark)) == ""
    use(place, server_id)
    assert place.arrived(mark)


def named(name: str) -> tuple[str, ...]:
    """How a refusal may name a secret: as the API does, in a sentence, in a table."""
    kind = {
        "people.values": "alues of",
        "people.keys": "eys of",
        "people.connections": "ign-ins of",
    }
    return (
        name,
        *([kind[name]] if name in kind else []),
        *(["the arguments", "Arguments"] if name == "args" else []),
    )
