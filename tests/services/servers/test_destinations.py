"""What becomes of stored secrets that a change moves: said by `keep_credentials`, told in the
answer and the record."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from portal.domain.principals import OPERATOR
from portal.services.catalog import imports
from portal.services.operations import binding
from portal.services.operations.bootstrap import apply_config
from portal.services.runtime import runtime_of
from portal.services.secrets import bindings
from portal.services.secrets.server_definition import opened
from portal.services.servers import destinations
from portal.store.models import AuditEvent, Server, ServerSecret, ServerVariable, UserVariable
from tests.conftest import KEYS, Client, Portal, Write
from tests.support.factories import make_server

PATH = "/v1/mcp/server"
OLD = "https://old.example"
NEW = "https://new.example"
FULL: dict[str, Any] = {
    "url": f"{OLD}/mcp",
    "auth_type": "bearer_token",
    "credentials": {"auth_value": "SECRET-auth"},
    "allow_all_keys": True,
    "static_headers": {"X-Key": "SECRET-header", "X-Own": "${OWN}"},
    "env_vars": [
        {"name": "KEY", "value": "SECRET-global", "scope": "global"},
        {"name": "OWN", "scope": "user"},
    ],
}
NAMES = {
    "credentials.auth_value",
    "static_headers.X-Key",
    "static_headers.X-Own",
    "env_vars.KEY",
    "people.values",
}


@pytest.fixture
def full(client: Any, write: Write) -> Client:
    """A server with a secret of every kind, for which two people stored a value; answers Ada."""
    with write() as session:
        make_server(session, "f", **FULL)
    for name in ("mel", "vic"):
        values = {"values": {"OWN": f"SECRET-of-{name}"}}
        assert client(name).post(f"{PATH}/id-f/user-env-vars", values).status_code == 200
    ada: Client = client("ada")
    return ada


def events(write: Write, *actions: str) -> list[AuditEvent]:
    with write() as session:
        found = session.scalars(select(AuditEvent).where(AuditEvent.action.in_(actions)))
        return list(found)


def test_a_refusal_names_each_secret_with_both_ends_and_people_by_number(full: Client) -> None:
    answer = full.put(PATH, {"server_id": "id-f", "url": f"{NEW}/SECRET-path"})
    detail = answer.get_json()["detail"]
    assert (answer.status_code, detail["error"], detail["field"], detail["people"]) == (
        409,
        "credentials_would_move",
        "url",
        2,
    )
    assert {s["secret"] for s in detail["secrets"]} == NAMES
    assert {(s["from"], s["to"]) for s in detail["secrets"]} == {(OLD, NEW)}
    assert "the values of 2 people" in detail["message"]
    assert "keep_credentials" in detail["message"]
    assert "SECRET" not in answer.get_data(as_text=True)
    assert full.get(f"{PATH}/id-f").get_json()["url"] == f"{OLD}/mcp"


def test_true_sends_all_of_it_along_and_says_so(full: Client, write: Write) -> None:
    answer = full.put(PATH, {"server_id": "id-f", "url": f"{NEW}/mcp", "keep_credentials": True})
    assert answer.status_code == 202
    assert answer.get_json()["settled"]["keep_credentials"] is True
    with write() as session:
        found = opened(session, session.get_one(Server, "id-f"), credentials=True)
        assert (
            found.static_headers["X-Key"],
            found.globals["KEY"],
            found.credentials["auth_value"],
        ) == (
            "SECRET-header",
            "SECRET-global",
            "SECRET-auth",
        )
    [event] = events(write, "secrets moved")
    assert event.details["keep_credentials"] is True
    assert event.details["people"] == 2
    assert {(s["from"], s["to"]) for s in event.details["secrets"]} == {(OLD, NEW)}
    status = full.get(f"{PATH}/id-f/user-env-vars").get_json()
    assert status["missing_count"] == 1  # Ada's own; those of Mel and Vic are there
    with write() as session:
        assert len(session.scalars(select(UserVariable)).all()) == 2


def test_false_forgets_all_of_it_and_says_so(full: Client, write: Write) -> None:
    answer = full.put(PATH, {"server_id": "id-f", "url": f"{NEW}/mcp", "keep_credentials": False})
    assert answer.status_code == 202
    assert {s["secret"] for s in answer.get_json()["settled"]["secrets"]} == NAMES
    with write() as session:
        found = opened(session, session.get_one(Server, "id-f"), credentials=True)
        assert (dict(found.static_headers), dict(found.globals), dict(found.credentials)) == (
            {},
            {},
            {},
        )
        assert session.scalars(select(UserVariable)).all() == []
    [event] = events(write, "secrets forgotten")
    assert event.details["people"] == 2


def test_new_values_for_each_need_no_word_but_for_what_people_stored(
    full: Client, client: Any
) -> None:
    new = {
        "static_headers": {"X-Key": "SECRET-new", "X-Own": "Bearer ${OWN}"},
        "env_vars": [{**FULL["env_vars"][0], "value": "SECRET-new"}, FULL["env_vars"][1]],
        "credentials": FULL["credentials"],
    }
    refused = full.put(PATH, {"server_id": "id-f", "url": f"{NEW}/mcp", **new})
    assert [s["secret"] for s in refused.get_json()["detail"]["secrets"]] == ["people.values"]
    for name in ("mel", "vic"):
        client(name).delete(f"{PATH}/id-f/user-env-vars")
    assert full.put(PATH, {"server_id": "id-f", "url": f"{NEW}/mcp", **new}).status_code == 202


def test_what_was_read_and_is_sent_back_changes_nothing(full: Client, write: Write) -> None:
    body = full.get(f"{PATH}/id-f").get_json()
    assert full.put(PATH, {**body, "version": None}).status_code == 202
    assert events(write, "secrets moved", "secrets forgotten") == []
    with write() as session:
        assert len(session.scalars(select(UserVariable)).all()) == 2


def test_another_spelling_of_the_same_origin_keeps_everything(full: Client, write: Write) -> None:
    assert (
        full.put(PATH, {"server_id": "id-f", "url": "https://OLD.example.:443/mcp"}).status_code
        == 202
    )
    with write() as session:
        found = opened(session, session.get_one(Server, "id-f"), credentials=True)
        assert (found.static_headers["X-Key"], found.credentials["auth_value"]) == (
            "SECRET-header",
            "SECRET-auth",
        )


def test_a_value_is_bound_to_its_origin(full: Client, write: Write) -> None:
    """Whoever writes into the database can point a server elsewhere; what is sealed does not open
    there."""
    with write() as session:
        session.execute(update(Server).where(Server.server_id == "id-f").values(address=NEW))
    with write() as session:
        found = opened(session, session.get_one(Server, "id-f"), credentials=True)
        assert (dict(found.static_headers), dict(found.globals), dict(found.credentials)) == (
            {},
            {},
            {},
        )


def test_what_an_older_version_stored_is_bound_at_the_start(full: Client, write: Write) -> None:
    with write() as session:
        session.execute(update(ServerSecret).values(bound=None))
        session.execute(update(ServerVariable).values(bound=None))
    with write() as session:
        found = opened(session, session.get_one(Server, "id-f"), credentials=True)
        assert found.static_headers["X-Key"] == "SECRET-header"  # meanwhile it is read as before
    with write() as session:
        binding.bind_all(session, OPERATOR)
        assert session.scalars(select(ServerSecret).where(ServerSecret.bound.is_(None))).all() == []
    assert full.put(PATH, {"server_id": "id-f", "url": f"{NEW}/mcp"}).status_code == 409
    test_a_value_is_bound_to_its_origin(full, write)


def test_unbound_values_are_refused_like_bound_ones(full: Client, write: Write) -> None:
    with write() as session:
        session.execute(update(ServerSecret).values(bound=None))
    assert full.put(PATH, {"server_id": "id-f", "url": f"{NEW}/mcp"}).status_code == 409


def test_another_way_of_signing_in_says_what_it_drops(full: Client, write: Write) -> None:
    answer = full.put(PATH, {"server_id": "id-f", "auth_type": "api_key"})
    assert answer.get_json()["settled"] == {"dropped": ["credentials.auth_value"]}
    assert [e.details["secrets"] for e in events(write, "credentials dropped")] == [
        ["credentials.auth_value"]
    ]


def test_connections_end_with_what_they_were_made_for_and_it_is_said(
    client: Any, write: Write
) -> None:
    with write() as session:
        make_server(
            session,
            "o",
            url=f"{OLD}/mcp",
            auth_type="oauth2",
            allow_all_keys=True,
            token_url=f"{OLD}/token",
            authorization_url=f"{OLD}/authorize",
            credentials={"client_id": "c", "scopes": ["a"]},
        )
    tokens = {"access_token": "SECRET-token", "expires_in": 3600}
    assert client("mel").post(f"{PATH}/id-o/oauth-user-credential", tokens).status_code == 200
    answer = client("ada").put(PATH, {"server_id": "id-o", "credentials": {"scopes": ["b"]}})
    assert answer.get_json()["settled"] == {"disconnected": 1}
    assert [e.details["people"] for e in events(write, "connections ended")] == [1]


def test_the_config_file_moves_nothing_of_people_before_it_says_so(
    client: Any, write: Write
) -> None:
    entry = {"url": f"{OLD}/mcp", "static_headers": {"X-Own": "${OWN}"}, "allow_all_keys": True,
             "env_vars": [{"name": "OWN", "scope": "user"}]}  # fmt: skip
    with write() as session:
        assert apply_config(session, OPERATOR, {"mcp_servers": {"conf": entry}}) == []
        server_id = session.scalars(select(Server.server_id).where(Server.origin == "config")).one()
    assert (
        client("mel")
        .post(f"{PATH}/{server_id}/user-env-vars", {"values": {"OWN": "SECRET"}})
        .status_code
        == 200
    )
    moved = {**entry, "url": f"{NEW}/mcp"}
    with write() as session:
        [fault] = apply_config(session, OPERATOR, {"mcp_servers": {"conf": moved}})
    assert "the values of 1 person" in fault
    assert "keep_credentials" in fault
    with write() as session:
        assert session.get_one(Server, server_id).address == OLD  # it goes on as it was
        assert (
            apply_config(
                session, OPERATOR, {"mcp_servers": {"conf": {**moved, "keep_credentials": True}}}
            )
            == []
        )
    with write() as session:
        assert session.get_one(Server, server_id).address == NEW
    assert client("mel").get(f"{PATH}/{server_id}/user-env-vars").get_json()["missing_count"] == 0
    assert [e.outcome for e in events(write, "config server refused")] == ["refused"]
    assert "SECRET" not in json.dumps(
        [e.details for e in events(write, "config server refused", "secrets moved")]
    )


def test_a_review_shows_where_each_secret_would_go(client: Any) -> None:
    body = {
        "server_name": "asked",
        "url": f"{OLD}/mcp",
        "transport": "http",
        "auth_type": "oauth2",
        "oauth2_flow": "client_credentials",
        "token_url": f"{NEW}/token",
        "credentials": {"client_secret": "s"},
        "static_headers": {"X-Key": "k"},
    }
    made = client("mel").post(f"{PATH}/register", body)
    assert made.status_code == 201, made.get_json()
    [item] = client("ada").get(f"{PATH}/submissions").get_json()["items"]
    assert item["destinations"] == [
        {"secret": "credentials.client_secret", "to": NEW, "from": None, "is_own_host": False},
        {"secret": "static_headers.X-Key", "to": OLD, "from": None, "is_own_host": True},
    ]


def test_write_only_values_do_not_go_along(
    full: Client, portal_with: Callable[..., Portal]
) -> None:
    """Or an Admin would read at a host of theirs what they may not read here; credentials nobody
    reads anywhere."""
    asking = Client(
        portal_with(write_only_globals=True).app.test_client(), {"X-API-Key": KEYS["ada"]}
    )
    moved = {"server_id": "id-f", "url": f"{NEW}/mcp", "keep_credentials": True}
    answer = asking.put(PATH, moved)
    named = {s["secret"] for s in answer.get_json()["detail"]["secrets"]}
    assert (answer.status_code, named) == (
        409,
        {"static_headers.X-Key", "static_headers.X-Own", "env_vars.KEY"},
    )
    typed = {"static_headers": {"X-Key": "n", "X-Own": "${OWN}"}, "env_vars": FULL["env_vars"]}
    assert asking.put(PATH, {**moved, **typed}).status_code == 202


def test_the_import_command_asks_and_takes_an_answer(full: Client, write: Write) -> None:
    text = json.dumps({"mcpServers": {"f": {"type": "http", "url": f"{NEW}/mcp"}}})
    with write() as session:
        [(name, _, why)] = imports.import_text(session, OPERATOR, text, update=True).errors
    assert name == "f"
    assert "static_headers.X-Key" in why
    with write() as session:
        assert imports.import_text(session, OPERATOR, text, update=True, keep=True).errors == ()
        found = opened(session, session.get_one(Server, "id-f"), credentials=True)
        assert (found.urls["url"], found.static_headers["X-Key"]) == (f"{NEW}/mcp", "SECRET-header")


def test_an_older_version_reads_what_this_one_stored(full: Client, write: Write) -> None:
    """It serves beside this one, and after a downgrade: what it reads is sealed as it knows it,
    also after a move."""
    assert (
        full.put(
            PATH, {"server_id": "id-f", "url": f"{NEW}/mcp", "keep_credentials": True}
        ).status_code
        == 202
    )
    with write() as session:
        row = session.get_one(Server, "id-f")
        vault = runtime_of(session).vault
        for secret in row.secrets:
            assert (
                vault.open(secret.sealed, bindings.of_secret(row, secret.field, secret.name))
                is not None
            )
        [variable] = [v for v in row.variables if v.name == "KEY"]
        assert vault.open(variable.sealed, bindings.of_global(row, "KEY")) == "SECRET-global"


def test_only_one_module_writes_definitions() -> None:
    """A new path has to come to `write_definition`, which refuses what nobody spoke about."""
    root = Path(destinations.__file__).parents[2]
    calls = {
        path.name
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) == "write_parts"
    }
    assert calls == {"destinations.py"}
