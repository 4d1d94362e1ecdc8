"""People, teams, keys, access groups and settings over the API (`1-system.md`, 6)."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from portal.store.models import ApiKey
from tests.conftest import CREW, KEYS, NOTES, Client, Write
from tests.support.factories import PASSWORD, make_group, make_key, make_server

As = Callable[[str | None], Client]
NOTHING = {
    "mcp_servers": [],
    "mcp_access_groups": [],
    "mcp_tool_permissions": {},
    "mcp_toolsets": [],
}
LISTS = ("/v1/users", "/v1/teams", "/v1/keys", "/v1/access-groups")
BODIES: dict[str, dict[str, Any]] = {
    "/v1/users": {"user_id": "new", "email": "new@example.com", "role": "internal_user"},
    "/v1/teams": {"team_id": "new", "team_alias": "new"},
    "/v1/keys": {"key_alias": "new", "user_id": "mel"},
    "/v1/access-groups": {"name": "new"},
}


def detail_of(answer: Any) -> tuple[int, str, str | None]:
    return (
        answer.status_code,
        answer.get_json()["detail"]["error"],
        answer.get_json()["detail"]["field"],
    )


@pytest.mark.parametrize("path", [*LISTS, "/v1/settings"])
def test_admin_view_reads_and_nobody_else(client: As, path: str) -> None:
    found = {
        name: client(name).get(path).status_code
        for name in ("ada", "vera", "mel", "vic", "otto", "kit")
    }
    assert found == {"ada": 200, "vera": 200, "mel": 403, "vic": 403, "otto": 403, "kit": 403}
    assert client(None).get(path).status_code == 401


@pytest.mark.parametrize("path", LISTS)
def test_only_an_admin_writes(client: As, path: str) -> None:
    for name in ("vera", "mel", "kit"):
        asking = client(name)
        for body in (BODIES[path], {"team_alias": 1, "name": 1, "email": 1, "key_alias": 1}):
            assert asking.post(path, body).status_code == 403
            assert asking.patch(f"{path}/nowhere", body).status_code == 403
        assert asking.delete(f"{path}/nowhere").status_code == 403
    assert client("vera").patch("/v1/settings", {}).status_code == 403


@pytest.mark.parametrize("path", LISTS)
def test_a_thing_is_made_read_changed_and_removed(client: As, path: str) -> None:
    made = client("ada").post(path, BODIES[path])
    assert made.status_code == 201
    row = made.get_json()
    key = {"/v1/users": "user_id", "/v1/teams": "team_id", "/v1/keys": "key_id"}.get(
        path, "access_group_id"
    )
    one = f"{path}/{row[key]}"
    assert client("vera").get(one).get_json() == {k: v for k, v in row.items() if k != "key"}
    assert row[key] in [r[key] for r in client("ada").get(path).get_json()["items"]]
    assert client("ada").patch(one, {}).get_json() == client("ada").get(one).get_json()
    gone = client("ada").delete(one)
    assert (gone.status_code, gone.get_data()) == (204, b"")
    if path != "/v1/keys":
        assert client("ada").get(one).status_code == 404
    assert (
        client("ada").get(f"{path}/nowhere").status_code
        == client("ada").delete(f"{path}/nowhere").status_code
        == 404
    )


def test_a_user_has_this_shape_and_never_a_password(client: As) -> None:
    body = {
        **BODIES["/v1/users"],
        "password": PASSWORD,
        "object_permission": {"mcp_servers": ["notes"]},
    }
    answer = client("ada").post("/v1/users", body)
    assert answer.get_json() == {
        "user_id": "new",
        "email": "new@example.com",
        "display_name": None,
        "role": "internal_user",
        "is_active": True,
        "object_permission": {**NOTHING, "mcp_servers": [NOTES]},
    }
    assert "SECRET" not in answer.get_data(as_text=True)


def test_a_person_who_is_deactivated_is_out_at_once(client: As) -> None:
    assert (
        client("ada").patch("/v1/users/mel", {"is_active": False}).get_json()["is_active"] is False
    )
    assert client("mel").get("/v1/me").status_code == client("kit").get("/v1/me").status_code == 401


def test_grants_are_replaced_by_what_is_sent_and_kept_where_nothing_is(client: As) -> None:
    path = "/v1/users/otto"
    given = {"object_permission": {"mcp_servers": [NOTES]}}
    assert client("ada").patch(path, given).get_json()["object_permission"]["mcp_servers"] == [
        NOTES
    ]
    kept = client("ada").patch(path, {"display_name": "O"}).get_json()
    assert (kept["object_permission"]["mcp_servers"], kept["display_name"]) == ([NOTES], "O")
    assert (
        client("ada").patch(path, {"object_permission": None}).get_json()["object_permission"]
        == NOTHING
    )


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/users", {"user_id": "mel", "role": "internal_user"}, "409 conflict user_id"),
        ("/v1/users", {"email": "MEL@example.com"}, "409 conflict email"),
        ("/v1/users", {"role": "king"}, "422 invalid role"),
        ("/v1/users", {"password": "short"}, "422 invalid password"),
        ("/v1/users", {"user_id": "a/b"}, "422 invalid user_id"),
        ("/v1/users", {"is_active": None}, "422 invalid is_active"),
        ("/v1/teams", {"team_alias": "crew"}, "409 conflict team_alias"),
        ("/v1/teams", {"team_id": CREW, "team_alias": "x"}, "409 conflict team_id"),
        ("/v1/teams", {}, "422 invalid team_alias"),
        ("/v1/teams", {"team_alias": " "}, "422 invalid team_alias"),
        (
            "/v1/teams",
            {"team_alias": "x", "members_with_roles": [{"user_id": "no"}]},
            "400 invalid_request user_id",
        ),
        (
            "/v1/teams",
            {"team_alias": "x", "members_with_roles": [{"user_id": "mel", "role": "king"}]},
            "422 invalid role",
        ),
        (
            "/v1/teams",
            {"team_alias": "x", "access_group_ids": ["nowhere"]},
            "400 invalid_request access_group_ids",
        ),
        (
            "/v1/teams",
            {"team_alias": "x", "object_permission": {"mcp_servers": ["no"]}},
            "400 invalid_request object_permission.mcp_servers",
        ),
        ("/v1/keys", {}, "400 invalid_request user_id"),
        ("/v1/keys", {"user_id": "nobody"}, "400 invalid_request user_id"),
        ("/v1/keys", {"team_id": "nowhere"}, "400 invalid_request team_id"),
        (
            "/v1/keys",
            {"user_id": "mel", "allowed_routes": ["/servers"]},
            "422 invalid allowed_routes",
        ),
        (
            "/v1/keys",
            {"user_id": "mel", "expires_at": "2020-01-01T00:00:00Z"},
            "400 invalid_request expires_at",
        ),
        ("/v1/keys", {"user_id": "mel", "expires_at": 1}, "422 invalid expires_at"),
        (
            "/v1/keys",
            {"user_id": "mel", "expires_at": "9999-12-31T23:59:59-23:00"},
            "422 invalid expires_at",
        ),
        ("/v1/access-groups", {}, "422 invalid name"),
        ("/v1/access-groups", {"name": " "}, "422 invalid name"),
        (
            "/v1/access-groups",
            {"name": "x", "mcp_server_ids": ["nowhere"]},
            "400 invalid_request mcp_server_ids",
        ),
    ],
)
def test_what_cannot_be_is_refused_naming_the_field(
    client: As, path: str, body: dict[str, Any], expected: str
) -> None:
    before = client("ada").get(path).get_json()
    status, error, field = expected.split()
    assert detail_of(client("ada").post(path, body)) == (int(status), error, field)
    assert client("ada").get(path).get_json() == before


def test_the_last_admin_stays(client: As) -> None:
    for change in ({"role": "internal_user"}, {"is_active": False}):
        assert client("ada").patch("/v1/users/ada", change).status_code == 400
    assert client("ada").delete("/v1/users/ada").status_code == 400
    client("ada").patch("/v1/users/otto", {"role": "proxy_admin"})
    assert client("ada").patch("/v1/users/ada", {"role": "internal_user"}).status_code == 200
    assert client("ada").get("/v1/users").status_code == 403


def test_a_team_has_this_shape_and_its_members_come_and_go(client: As, write: Write) -> None:
    with write() as session:
        group = make_group(session, "g", (NOTES,))
    body = {
        "team_id": "t",
        "team_alias": "T",
        "members_with_roles": [{"user_id": "mel", "role": "admin"}],
        "access_group_ids": [group],
        "metadata": {"cost": 1},
        "object_permission": {"mcp_access_groups": ["g"]},
    }
    made = client("ada").post("/v1/teams", body).get_json()
    assert made == {**body, "object_permission": {**NOTHING, "mcp_access_groups": ["g"]}}
    added = client("ada").post("/v1/teams/t/members", {"user_id": "otto", "role": "user"})
    assert added.status_code == 201
    assert {m["user_id"]: m["role"] for m in added.get_json()["members_with_roles"]} == {
        "mel": "admin",
        "otto": "user",
    }
    assert client("ada").delete("/v1/teams/t/members/mel").status_code == 204
    assert client("ada").delete("/v1/teams/t/members/mel").status_code == 404
    assert client("ada").get("/v1/teams/t").get_json()["members_with_roles"] == [
        {"user_id": "otto", "role": "user"}
    ]
    assert (
        client("ada")
        .patch("/v1/teams/t", {"members_with_roles": []})
        .get_json()["members_with_roles"]
        == []
    )


def test_a_team_that_goes_takes_its_keys_with_it(client: As, write: Write) -> None:
    with write() as session:
        key = make_key(session, team_id=CREW)
    assert client(key).get("/v1/me").status_code == 200
    assert client("ada").delete(f"/v1/teams/{CREW}").status_code == 204
    assert client(key).get("/v1/me").status_code == client("mel").get("/v1/me").status_code == 401


def test_a_key_is_answered_once_with_its_secret_and_kept_as_a_hash(
    client: As, write: Write
) -> None:
    body = {
        "key_alias": "ci",
        "user_id": "mel",
        "team_id": CREW,
        "expires_at": "2099-01-01T01:00:00+01:00",
    }
    made = client("ada").post("/v1/keys", body).get_json()
    secret = made.pop("key")
    assert made == {
        "key_id": made["key_id"],
        "key_alias": "ci",
        "key_prefix": secret[:10],
        "user_id": "mel",
        "team_id": CREW,
        "allowed_routes": [],
        "object_permission": NOTHING,
        "access_group_ids": [],
        "expires_at": "2099-01-01T00:00:00Z",
        "last_used_at": None,
        "revoked_at": None,
        "created_at": made["created_at"],
        "follows_owner": False,
        "complies": True,
        "reach": {"basis": "team", "why": "The grants of team crew.", "server_count": 1},
    }
    assert secret.startswith("sk-")
    assert client(secret).get("/v1/me").get_json()["key"]["key_id"] == made["key_id"]
    assert secret not in client("ada").get("/v1/keys").get_data(as_text=True)
    with write() as session:
        assert secret not in str([vars(row) for row in session.query(ApiKey)])
    assert client("ada").get(f"/v1/keys/{made['key_id']}").get_json()["last_used_at"] is not None


def test_a_key_that_is_revoked_or_has_run_out_opens_nothing(client: As, write: Write) -> None:
    key_id = client("mel").get("/v1/me").get_json()["key"]["key_id"]
    assert client("ada").delete(f"/v1/keys/{key_id}").status_code == 204
    assert client("ada").get(f"/v1/keys/{key_id}").get_json()["revoked_at"] is not None
    assert client("mel").get("/v1/me").status_code == 401
    with write() as session:
        for row in session.query(ApiKey).filter_by(user_id="otto"):
            row.expires_at = datetime.now(UTC) - timedelta(seconds=1)
    assert client("otto").get("/v1/me").status_code == 401


def test_a_key_is_narrowed_and_freed(client: As) -> None:
    key_id = client("otto").get("/v1/me").get_json()["key"]["key_id"]
    changed = client("ada").patch(
        f"/v1/keys/{key_id}", {"allowed_routes": ["/v1/me"], "key_alias": "small"}
    )
    assert (changed.get_json()["allowed_routes"], changed.get_json()["key_alias"]) == (
        ["/v1/me"],
        "small",
    )
    assert client("otto").get("/v1/mcp/server").status_code == 403
    assert client("otto").get("/v1/me").get_json()["restricted"] is True
    client("ada").patch(f"/v1/keys/{key_id}", {"allowed_routes": []})
    assert client("otto").get("/v1/mcp/server").status_code == 200


def test_an_access_group_names_its_servers_and_grants_them(client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "weather")
    body = {"name": "tools", "description": "all", "mcp_server_ids": ["weather", "id-weather"]}
    made = client("ada").post("/v1/access-groups", body).get_json()
    group_id = made["access_group_id"]
    assert made == {**body, "access_group_id": group_id, "mcp_server_ids": ["id-weather"]}
    client("ada").patch(f"/v1/teams/{CREW}", {"access_group_ids": [group_id]})
    assert client("mel").get("/v1/me").get_json()["server_ids"] == [NOTES, "id-weather"]
    changed = client("ada").patch(
        f"/v1/access-groups/{group_id}", {"description": None, "mcp_server_ids": []}
    )
    assert (changed.get_json()["description"], changed.get_json()["mcp_server_ids"]) == (None, [])
    assert client("mel").get("/v1/me").get_json()["server_ids"] == [NOTES]
    assert detail_of(client("ada").post("/v1/access-groups", {"name": "tools"})) == (
        409,
        "conflict",
        "name",
    )


def test_settings_change_where_they_are_sent(client: As) -> None:
    changed = client("ada").patch(
        "/v1/settings", {"enable_mcp_registry": True, "public_mcp_servers": [NOTES]}
    )
    assert (
        changed.get_json()
        == client("vera").get("/v1/settings").get_json()
        == {
            "user_mcp_management_mode": "restricted",
            "mcp_required_fields": [],
            "enable_mcp_registry": True,
            "mcp_internal_ip_ranges": [],
            "trusted_proxies": [],
            "trusted_redirect_origins": [],
            "key_max_age_days": None,
            "public_mcp_servers": [NOTES],
        }
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"user_mcp_management_mode": "open"}, "user_mcp_management_mode"),
        ({"mcp_internal_ip_ranges": ["10.0.0.0/99"]}, "mcp_internal_ip_ranges"),
        ({"trusted_proxies": None}, "trusted_proxies"),
        ({"enable_mcp_registry": "yes"}, "enable_mcp_registry"),
    ],
)
def test_a_setting_that_cannot_be_is_422(client: As, body: dict[str, Any], field: str) -> None:
    assert detail_of(client("ada").patch("/v1/settings", body)) == (422, "invalid", field)


def test_no_secret_of_a_key_is_in_any_list(client: As) -> None:
    for path in (*LISTS, "/v1/me", "/v1/me/keys"):
        text = client("ada").get(path).get_data(as_text=True)
        assert not any(secret in text for secret in KEYS.values())
