"""What an event tells of a change, without secrets."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from portal.domain.principals import OPERATOR, Role
from portal.domain.servers import AuthType, Transport
from portal.services import audit, instance_settings
from portal.services.access import keys, teams, users
from portal.services.audit.hash_chain import Hidden
from portal.services.servers import crud
from portal.services.servers.grants import ObjectPermission
from portal.store.database import Database
from tests.conftest import NOTES, Client, Write
from tests.services.audit.test_hash_chain import events
from tests.support.factories import make_group, make_user

As = Callable[[str | None], Client]


# Before and after


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, {"b": {"before": 2, "after": 3}}),
        ({"a": None}, {"a": ()}, {}),
        (None, {"a": "x", "off": False}, {"a": {"before": None, "after": "x"}}),
        ({"a": False}, {"a": True}, {"a": {"before": False, "after": True}}),
        ({"a": "x"}, None, {"a": {"before": "x", "after": None}}),
        ({}, {"k": Hidden(b"1")}, {"k": "set"}),
        ({"k": Hidden(b"1")}, {"k": Hidden(b"2")}, {"k": "changed"}),
        ({"k": Hidden(b"1")}, {"k": Hidden(b"1")}, {}),
        ({"k": Hidden(b"1")}, {}, {"k": "cleared"}),
        (None, {"o": ObjectPermission()}, {}),
    ],
)
def test_what_changed_is_told_by_field(before: Any, after: Any, found: object) -> None:
    assert audit.changed(before, after) == found


def test_a_long_value_is_cut() -> None:
    text_after = audit.changed(None, {"a": "x" * 10_000})["a"]
    assert isinstance(text_after, dict)
    assert len(text_after["after"]) < 2_100


def test_a_server_tells_its_plain_fields_and_only_the_names_of_its_secrets(
    database: Database, write: Write
) -> None:
    with write() as session:
        crud.create_server(
            session,
            OPERATOR,
            {
                "server_id": "id-x",
                "server_name": "x",
                "transport": Transport.HTTP,
                "url": "http://127.0.0.1:9/SECRET",
                "auth_type": AuthType.BEARER_TOKEN,
                "credentials": {"auth_value": "SECRET-1"},
                "static_headers": {"X-A": "SECRET-2"},
                "env_vars": [{"name": "G", "scope": "global", "value": "SECRET-3"}],
            },
        )
    with write() as session:
        crud.update_server(
            session,
            OPERATOR,
            "id-x",
            {
                "description": "new",
                "credentials": {"auth_value": "SECRET-4"},
                "static_headers": {"X-B": "SECRET-5"},
                "timeout": 3.0,
                "mcp_access_groups": ["dev"],
            },
        )
        crud.delete_server(session, OPERATOR, "id-x")
    created, updated, deleted = (e.details["changes"] for e in events(database, target="id-x"))
    assert (
        created["url"] == created["credentials.auth_value"] == created["env_vars.G.value"] == "set"
    )
    assert created["url.origin"] == {"before": None, "after": "http://127.0.0.1:9"}
    assert updated == {
        "description": {"before": None, "after": "new"},
        "timeout": {"before": None, "after": 3.0},
        "mcp_access_groups": {"before": [], "after": ["dev"]},
        "credentials.auth_value": "changed",
        "static_headers.X-A": "cleared",
        "static_headers.X-B": "set",
    }
    assert deleted["credentials.auth_value"] == "cleared"
    assert deleted["description"] == {"before": "new", "after": None}


def test_people_teams_groups_keys_and_settings_tell_before_and_after(
    database: Database, write: Write
) -> None:
    with write() as session:
        make_user(session, "new")
        users.change_user(
            session, OPERATOR, "new", {"role": Role.VIEWER.value, "password": "another SECRET word"}
        )
        teams.change_team(
            session, OPERATOR, "team-crew", {"team_alias": "band"}, members=[("mel", "admin")]
        )
        make_group(session, "texts", (NOTES,))
        key = keys.issue_key(
            session, OPERATOR, keys.KeyDraft(key_alias="robot", user_id="new")
        ).view.key_id
        keys.change_key(session, OPERATOR, key, {"key_alias": "bot"}, None, None)
        instance_settings.update_preferences(
            session, OPERATOR, {"user_mcp_management_mode": "view_all"}
        )
    found = {e.action: e.details.get("changes") for e in events(database)}
    assert found["user changed"] == {
        "role": {"before": "internal_user", "after": "internal_user_viewer"},
        "password": "changed",
    }
    assert found["team changed"]["team_alias"] == {"before": "crew", "after": "band"}
    assert [m["user_id"] for m in found["team changed"]["members_with_roles"]["after"]] == ["mel"]
    assert found["access group created"]["mcp_server_ids"]["after"] == [NOTES]
    assert found["API key changed"] == {"key_alias": {"before": "robot", "after": "bot"}}
    assert found["settings changed"] == {
        "user_mcp_management_mode": {"before": "restricted", "after": "view_all"}
    }


def test_no_secret_is_on_record_whatever_was_done(
    database: Database, client: As, signed_in: Any
) -> None:
    ada = client("ada")
    mel = client("mel")
    body = {
        "server_name": "deep",
        "transport": "http",
        "url": "http://127.0.0.1:9/SECRET",
        "auth_type": "api_key",
        "is_byok": True,
        "static_headers": {"X": "SECRET ${V}"},
        "allow_all_keys": True,
        "env_vars": [
            {"name": "V", "scope": "user"},
            {"name": "G", "scope": "global", "value": "SECRET"},
        ],
    }
    server_id = ada.post("/v1/mcp/server", body).get_json()["server_id"]
    moved = {"server_id": server_id, "url": "http://127.0.0.1:8/SECRET", "keep_credentials": True}
    assert (
        mel.post(
            f"/v1/mcp/server/{server_id}/user-credential", {"credential": "SECRET"}
        ).status_code
        == 200
    )
    assert (
        mel.post(
            f"/v1/mcp/server/{server_id}/user-env-vars", {"values": {"V": "SECRET"}}
        ).status_code
        == 200
    )
    assert (
        mel.put(
            "/v1/mcp/server", {"server_id": server_id, "url": "http://127.0.0.1:9/SECRET"}
        ).status_code
        == 403
    )
    assert ada.put("/v1/mcp/server", moved).status_code == 202
    assert (
        ada.post(
            "/v1/users", {"email": "n@example.com", "password": "a SECRET password"}
        ).status_code
        == 201
    )
    assert mel.post("/v1/me/keys", {"key_alias": "k"}).status_code in (201, 403)
    signed_in("mel")
    assert ada.delete(f"/v1/mcp/server/{server_id}").status_code == 202
    with database.session() as session:
        rows = session.execute(text("select * from audit_events")).mappings().all()
    told = json.dumps([dict(row) for row in rows], default=str)
    assert "SECRET" not in re.sub(r"sk-SECRET-(?![\w-])", "sk-", told)  # how the tests' keys begin
    assert len(rows) > 15


def test_aud_06_a_header_that_names_somebody_else_is_ignored(
    client: As, database: Database
) -> None:
    body = {"server_id": NOTES, "description": "new"}
    answer = client("ada").put(
        "/v1/mcp/server", body, headers={"litellm-changed-by": "somebody else"}
    )
    assert answer.get_json()["updated_by"] == "ada"
    last = events(database, target=NOTES)[-1]
    assert (last.actor, last.actor_id) == ("ada@example.com", "ada")


def test_aud_02_the_signature_is_the_callers_id_or_the_name_of_a_key_of_nobody(
    client: As, write: Write
) -> None:
    made = (
        client("ada")
        .post("/v1/mcp/server", {"server_name": "mine", "url": "http://127.0.0.1:9/x"})
        .get_json()
    )
    assert (made["created_by"], made["updated_by"]) == ("ada", "ada")
    with write() as session:
        view = crud.get_server(session, OPERATOR, NOTES)
    assert view.created_by == "operator"
